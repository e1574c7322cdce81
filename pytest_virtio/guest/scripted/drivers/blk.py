"""The block device (virtio 1.3 section 5.2): reads, writes and the like, in sectors of 512 bytes.

Responsible for requests and their status; must not know what is behind the device. Zoned devices and the legacy SCSI
passthrough have no verbs here: :meth:`BlkDriver.submit` takes any request.
"""

from __future__ import annotations

from collections.abc import Sequence

from pytest_virtio.errors import RequestFailedError, UsageError
from pytest_virtio.guest.scripted.driver import Driver
from pytest_virtio.guest.scripted.drivers.messages import number
from pytest_virtio.guest.scripted.queue import Request
from pytest_virtio.spec.devices.blk import (
    ID_BYTES,
    SECTOR_BYTES,
    BlkConfig,
    BlkDiscardWriteZeroes,
    BlkDiscardWriteZeroesFlag,
    BlkFeature,
    BlkLifetime,
    BlkRequest,
    BlkRequestStatus,
    BlkRequestType,
)

__all__ = ("BlkDriver",)

Which = int | str

_SECTOR_BITS = 64
_STRETCH_BITS = 32
"""How wide ``sector`` and ``num_sectors`` are."""
_UNANSWERED = b"\xff"
"""What stands in the status byte until the device writes it: no status of the specification."""


class BlkDriver(Driver):
    """Drives a block device.

    ``queue=`` is the index or name of the request queue to use (``1``, ``"request1"``), ``timeout=`` is in seconds, the
    driver's by default.
    """

    understood = frozenset(BlkFeature) - {BlkFeature.ZONED, BlkFeature.SCSI, BlkFeature.BARRIER}

    def config(self) -> BlkConfig:
        """The device's configuration (5.2.4)."""
        return self.read_config(BlkConfig)

    def set_writeback(self, on: bool) -> None:
        """Have the device cache writes until a flush, or write through; it takes VIRTIO_BLK_F_CONFIG_WCE (5.2.5).

        :raises UsageError: when ``on`` is neither True nor False.
        """
        self.write_config(BlkConfig, "writeback", number("on", on, 1))

    def read(self, offset_bytes: int, length: int, timeout: float | None = None, *, queue: Which = 0) -> bytes:
        """Read ``length`` bytes, 512 or a multiple, from ``offset_bytes``, another.

        :raises RequestFailedError: when the device answers with an error status.
        :raises RequestTimeoutError: when it doesn't answer in time.
        """
        sector, count = _sectors("offset_bytes", offset_bytes), _sectors("length", length, first=1)
        return self._do(BlkRequestType.IN, sector, writable=[count * SECTOR_BYTES], queue=queue, timeout=timeout)

    def write(self, offset_bytes: int, data: bytes, timeout: float | None = None, *, queue: Which = 0) -> None:
        """Write ``data``, 512 bytes or a multiple, to ``offset_bytes``, another. It raises as :meth:`read` does."""
        _sectors("len(data)", len(data), first=1)
        self._do(BlkRequestType.OUT, _sectors("offset_bytes", offset_bytes), data, queue=queue, timeout=timeout)

    def flush(self, timeout: float | None = None, *, queue: Which = 0) -> None:
        """Have what was written reach the storage. It raises as :meth:`read` does."""
        self._do(BlkRequestType.FLUSH, 0, queue=queue, timeout=timeout)

    def discard(self, offset_bytes: int, length: int, timeout: float | None = None) -> None:
        """Say that a stretch is of no use any more; what it reads then is the device's to choose. It raises as
        :meth:`read` does."""
        self._stretch(BlkRequestType.DISCARD, offset_bytes, length, 0, timeout)

    def write_zeroes(
        self, offset_bytes: int, length: int, *, unmap: bool = False, timeout: float | None = None
    ) -> None:
        """Fill a stretch with zeros; with ``unmap`` the device may give its room back. It raises as :meth:`read`."""
        flags = BlkDiscardWriteZeroesFlag.UNMAP if unmap else 0
        self._stretch(BlkRequestType.WRITE_ZEROES, offset_bytes, length, flags, timeout)

    def secure_erase(self, offset_bytes: int, length: int, timeout: float | None = None) -> None:
        """Have a stretch erased with all its copies. It raises as :meth:`read` does."""
        self._stretch(BlkRequestType.SECURE_ERASE, offset_bytes, length, 0, timeout)

    def get_id(self, timeout: float | None = None) -> str:
        """The device's serial number, up to 20 characters. It raises as :meth:`read` does."""
        data = self._do(BlkRequestType.GET_ID, 0, writable=[ID_BYTES], timeout=timeout)
        return data.partition(b"\0")[0].decode("ascii", "backslashreplace")

    def get_lifetime(self, timeout: float | None = None) -> BlkLifetime:
        """How worn the storage is. It raises as :meth:`read` does."""
        data = self._do(BlkRequestType.GET_LIFETIME, 0, writable=[BlkLifetime.size()], timeout=timeout)
        return BlkLifetime.unpack(data, self.transport.order)

    def submit(
        self, type: int, sector: int = 0, *data: bytes, writable: Sequence[int] = (), queue: Which = 0
    ) -> Request:
        """Start any request at all and don't wait for it: header, data, status byte (5.2.6).

        :param type: of the request, known or not.
        :param data: what the device reads, a segment each.
        :param writable: sizes of what the device writes before the status byte, a segment each.
        :raises QueueFullError: when there are not enough free descriptors.
        :raises UsageError: for a type of more than 32 bits, or a sector of more than 64.
        """
        header = BlkRequest(type=type, sector=sector).pack(self.transport.order)
        chosen = self.queue(queue)
        request = chosen.submit(header, *data, writable=[*writable, len(_UNANSWERED)])
        self.memory.write(request.buffers[-1].address, _UNANSWERED)
        chosen.kick()
        return request

    def finish(self, request: Request, timeout: float | None = None, *, step: str = "a request") -> bytes:
        """Wait for a request that was submitted; what it read.

        :param step: what to call it in errors.
        :raises RequestFailedError: for any other status than OK.
        :raises RequestTimeoutError: when the device doesn't answer in time.
        """
        data = request.queue.wait(request, timeout).data
        status = data[-1]
        if status != BlkRequestStatus.OK:
            known = status in tuple(BlkRequestStatus)
            raise RequestFailedError(
                f"{self.id}: the device answers the request with an error",
                step=step,
                register="status byte of the request",
                expected="0 (OK)",
                seen=f"{status} ({BlkRequestStatus(status).name})" if known else f"{status}, which means nothing",
            )
        return data[:-1]

    def _do(
        self,
        type: BlkRequestType,
        sector: int,
        *data: bytes,
        writable: Sequence[int] = (),
        queue: Which = 0,
        timeout: float | None = None,
    ) -> bytes:
        """One request from beginning to end."""
        request = self.submit(type, sector, *data, writable=writable, queue=queue)
        return self.finish(request, timeout, step=f"{type.name} at sector {sector}")

    def _stretch(self, type: BlkRequestType, offset_bytes: int, length: int, flags: int, timeout: float | None) -> None:
        first = _sectors("offset_bytes", offset_bytes)
        count = _sectors("length", length, bits=_STRETCH_BITS)
        segment = BlkDiscardWriteZeroes(sector=first, num_sectors=count, flags=flags)
        # In the transport's order, as QEMU reads it; Linux's header has it little-endian on legacy devices, too.
        self._do(type, 0, segment.pack(self.transport.order), timeout=timeout)


def _sectors(name: str, value: int, first: int = 0, bits: int = _SECTOR_BITS) -> int:
    """How many sectors that many bytes are."""
    count, rest = divmod(value, SECTOR_BYTES)
    if rest or not first <= count < 1 << bits:
        raise UsageError(
            f"{name}={value}: block devices count in sectors of {SECTOR_BYTES} bytes, in {bits} bits: a multiple of "
            f"{SECTOR_BYTES} from {first * SECTOR_BYTES} up is expected"
        )
    return count
