"""Guest RAM for tests: a bytearray at an address that isn't 0, which counts how often it is reached."""

from __future__ import annotations

from collections.abc import Callable

from pytest_virtio.errors import VirtioError

BASE = 0x10000


class Ram:
    def __init__(self, size: int) -> None:
        self.data = bytearray(size)
        self.accesses = 0
        self.after_write: Callable[[], None] = lambda: None

    def read(self, address: int, length: int) -> bytes:
        start = self._inside(address, length)
        return bytes(self.data[start : start + length])

    def write(self, address: int, data: bytes) -> None:
        start = self._inside(address, len(data))
        self.data[start : start + len(data)] = data
        self.after_write()

    def load16(self, address: int) -> int:
        assert address % 2 == 0
        return int.from_bytes(self.read(address, 2), "little")

    def store16(self, address: int, value: int) -> None:
        assert address % 2 == 0
        self.write(address, value.to_bytes(2, "little"))

    def _inside(self, address: int, length: int) -> int:
        self.accesses += 1
        if address < BASE or address + length > BASE + len(self.data):
            raise VirtioError(f"not in RAM: {length} bytes at {address:#x}")
        return address - BASE
