"""Where a VM's rings are read: in RAM that we have mapped, and where it is not ours, in the memory of QEMU's process.

Responsible for asking QEMU where RAM lies and for choosing by its answer; must not know what is read. ``info mtree -f``
and ``gpa2hva`` only look something up: they were seen to disturb nothing on 7.2, 10.0 and 11.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pytest_virtio import qapi
from pytest_virtio.introspect.query import raised
from pytest_virtio.model.memory import RamPiece
from pytest_virtio.ring.told import ReadableMemory
from pytest_virtio.vm.cmdline import RAM
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.foreign_memory import ForeignMemory
from pytest_virtio.vm.memory import GuestMemory
from pytest_virtio.vm.monitor import Qmp
from pytest_virtio.vm.process_memory import ProcessMemory

__all__ = ("ExtendedMemory", "GuestRam", "QemuProcess", "Ram", "foreign_memory")

PIECES = 512
"""QEMU has slots for 256 memory devices; a machine's own RAM is some ten pieces."""


class GuestRam(ReadableMemory, Protocol):
    """Guest RAM by guest-physical address, which the guest writes at the same time."""

    @property
    def source(self) -> str:
        """By which way it is read."""

    @property
    def size(self) -> int:
        """How far the machine's own RAM goes from address 0 on; from 2 GiB on only a bound."""

    def load16(self, address: int, /) -> int:
        """Read a whole little-endian number of 16 bits.

        :raises VirtioError: when it is not in RAM, or at an odd address.
        """


class QemuProcess(Qmp, Protocol):
    """A QEMU: asked by QMP, its memory read from outside."""

    @property
    def process_memory(self) -> ProcessMemory:
        """The memory of its process."""


class ExtendedMemory:
    """RAM that we have mapped, and beyond it what memory devices (pc-dimm, virtio-mem) give the guest.

    :param others: asks for all RAM; called once, when something beyond our mapping is to be read.
    """

    def __init__(self, ours: GuestMemory, others: Callable[[], ForeignMemory]) -> None:
        self._ours, self._ask = ours, others
        self._others: ForeignMemory | None = None

    @property
    def source(self) -> str:
        """By which way it has been read so far."""
        return self._ours.source if self._others is None else f"{self._ours.source} and {self._others.source}"

    @property
    def size(self) -> int:
        """Of our mapping."""
        return self._ours.size

    def read(self, address: int, length: int) -> bytes:
        """Copy ``length`` bytes; it raises what :meth:`ForeignMemory.read` does, and what the asking does."""
        return self._having(address, length).read(address, length)

    def load16(self, address: int) -> int:
        """Read 16 bits; it raises what :meth:`ForeignMemory.load16` does, and what the asking does."""
        return self._having(address, 2).load16(address)

    def _having(self, address: int, length: int) -> GuestMemory | ForeignMemory:
        if self._ours.has(address, length):
            return self._ours
        if self._others is None:
            self._others = self._ask()
        return self._others


class Ram:
    """Finds one VM's RAM, all of it: our mapping; where there is none, or further arguments have put other RAM in its
    place, QEMU's."""

    def __init__(self, qemu: QemuProcess, ours: GuestMemory | None) -> None:
        self._qemu, self._ours = qemu, ours
        self._is_ours: bool | None = None

    def find(self, deadline: Deadline) -> GuestRam:
        """The RAM as it lies now; memory devices that come, go or move later are another find."""

        def foreign() -> ForeignMemory:
            return foreign_memory(self._qemu, self._qemu.process_memory, deadline)

        if self._ours is None:
            return foreign()
        if self._is_ours is None:
            self._is_ours = _is_ours(self._qemu, deadline)
        if not self._is_ours:
            return foreign()
        if not self._ours.complete:
            self._ours.place(piece for piece in _pieces(self._qemu, deadline) if piece.block == RAM)
        return ExtendedMemory(self._ours, foreign)


def foreign_memory(qmp: Qmp, process: ProcessMemory, deadline: Deadline) -> ForeignMemory:
    """The guest's RAM as it now is in the memory of the process that answers to ``qmp``."""
    pieces = _pieces(qmp, deadline)[:PIECES]
    asked = [(qapi.HMP, {"command-line": f"{qapi.QUERY_HOST_ADDRESS} {piece.address:#x}"}) for piece in pieces]
    answers = qmp.execute_all(asked, deadline.remaining())
    addresses = (qapi.parse_host_address(raised(a), p.block) for a, p in zip(answers, pieces, strict=True))
    # None where it has gone in between.
    placed = (p._replace(offset=host) for p, host in zip(pieces, addresses, strict=True) if host is not None)
    return ForeignMemory(process, placed)


def _is_ours(qmp: Qmp, deadline: Deadline) -> bool:
    """Whether the machine's RAM is what we have mapped: further QEMU arguments can put other RAM in its place."""
    property = {"path": "/machine", "property": "memory-backend"}
    return str(qmp.execute("qom-get", property, deadline.remaining())).rpartition("/")[2] == RAM


def _pieces(qmp: Qmp, deadline: Deadline) -> tuple[RamPiece, ...]:
    command = {"command-line": qapi.QUERY_MEMORY_MAP}
    return qapi.parse_ram(qmp.execute(qapi.HMP, command, deadline.remaining()))
