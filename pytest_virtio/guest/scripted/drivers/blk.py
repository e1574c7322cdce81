"""The block device (virtio 1.3 section 5.2): reads, writes and the like, in sectors of 512 bytes."""

from __future__ import annotations

from pytest_virtio.errors import RequestFailedError, UsageError
from pytest_virtio.guest.scripted.driver import Driver
from pytest_virtio.guest.scripted.queue import DriverQueue, Request
from pytest_virtio.spec.devices.blk import (
    ID_BYTES,
    SECTOR_BYTES,
    BlkConfig,
    BlkDiscardWriteZeroes,
    BlkDiscardWriteZeroesFlag,
    BlkFeature,
    BlkRequest,
    BlkRequestStatus,
    BlkRequestType,
)

__all__ = ("BlkDriver",)


class BlkDriver(Driver):
    """Drives a block device."""

    understood = frozenset(BlkFeature) - {BlkFeature.ZONED, BlkFeature.SCSI, BlkFeature.BARRIER}

    def config(self) -> BlkConfig:
        """The device's configuration (5.2.4)."""
        return self.read_config(BlkConfig)

    def read(self, offset_bytes: int, length: int, timeout: float | None = None) -> bytes:
        """Read ``length`` bytes from ``offset_bytes``, both multiples of 512.

        :raises RequestFailedError: when the device answers with an error status.
        :raises RequestTimeoutError: when it doesn't answer in time.
        """
        sector = _sectors("offset_bytes", offset_bytes)
        return self._done(self.submit(BlkRequestType.IN, sector, writable=[_whole("length", length)]), timeout)

    def write(self, offset_bytes: int, data: bytes, timeout: float | None = None) -> None:
        """Write ``data``, a multiple of 512 bytes, to ``offset_bytes``, another. It raises as :meth:`read` does."""
        _whole("len(data)", len(data))
        self._done(self.submit(BlkRequestType.OUT, _sectors("offset_bytes", offset_bytes), data), timeout)

    def flush(self, timeout: float | None = None) -> None:
        """Have what was written reach the storage. It raises as :meth:`read` does."""
        self._done(self.submit(BlkRequestType.FLUSH, 0), timeout)

    def discard(self, offset_bytes: int, length: int, timeout: float | None = None) -> None:
        """Say that a stretch is of no use any more. It raises as :meth:`read` does."""
        self._stretch(BlkRequestType.DISCARD, offset_bytes, length, 0, timeout)

    def write_zeroes(
        self, offset_bytes: int, length: int, *, unmap: bool = False, timeout: float | None = None
    ) -> None:
        """Fill a stretch with zeros; with ``unmap`` the device may give its room back. It raises as :meth:`read`."""
        flags = BlkDiscardWriteZeroesFlag.UNMAP if unmap else 0
        self._stretch(BlkRequestType.WRITE_ZEROES, offset_bytes, length, flags, timeout)

    def get_id(self, timeout: float | None = None) -> str:
        """The device's serial number, up to 20 characters. It raises as :meth:`read` does."""
        data = self._done(self.submit(BlkRequestType.GET_ID, 0, writable=[ID_BYTES]), timeout)
        return data.partition(b"\0")[0].decode("ascii", "backslashreplace")

    def submit(
        self,
        type: int,
        sector: int,
        data: bytes = b"",
        *,
        writable: list[int] | None = None,
        queue: int | str | DriverQueue = 0,
    ) -> Request:
        """Start any request at all and don't wait for it: header, data, status byte (5.2.6).

        :param type: of the request, known or not.
        :param writable: sizes of the buffers that the device writes, before the status byte.
        """
        header = BlkRequest(type=type, reserved=0, sector=sector).pack(self.transport.order)
        chosen = queue if isinstance(queue, DriverQueue) else self.queue(queue)
        request = chosen.submit(*filter(None, (header, data)), writable=[*(writable or ()), 1])
        chosen.kick()
        return request

    def _stretch(self, type: BlkRequestType, offset_bytes: int, length: int, flags: int, timeout: float | None) -> None:
        first, count = _sectors("offset_bytes", offset_bytes), _sectors("length", length)
        segment = BlkDiscardWriteZeroes(sector=first, num_sectors=count, flags=flags)
        self._done(self.submit(type, 0, segment.pack(self.transport.order)), timeout)

    def _done(self, request: Request, timeout: float | None) -> bytes:
        """Wait for a request of the first queue; what it read.

        :raises RequestFailedError: for any other status than OK.
        """
        data = self.queue(0).wait(request, timeout).data
        status = data[-1]
        if status != BlkRequestStatus.OK:
            known = status in tuple(BlkRequestStatus)
            raise RequestFailedError(
                f"{self.id}: the device answers the request with an error",
                step=self.history[-1],
                register="status byte of the request",
                expected="0 (OK)",
                seen=f"{status} ({BlkRequestStatus(status).name})" if known else f"{status}, which means nothing",
            )
        return data[:-1]


def _whole(name: str, value: int) -> int:
    if value < 0 or value % SECTOR_BYTES:
        raise UsageError(f"{name}={value}: block devices count in sectors: a multiple of {SECTOR_BYTES} is expected")
    return value


def _sectors(name: str, value: int) -> int:
    return _whole(name, value) // SECTOR_BYTES
