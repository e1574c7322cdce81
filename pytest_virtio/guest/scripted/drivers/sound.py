"""The sound device (virtio 1.3 section 5.14): what it has, and PCM streams out and in.

Responsible for its requests, PCM messages and the order of neither; must not know what a sample is.
"""

from __future__ import annotations

from typing import TypeVar

from pytest_virtio.errors import DriverError, UsageError
from pytest_virtio.guest.scripted.driver import Driver
from pytest_virtio.guest.scripted.drivers.messages import check_status, unpacked
from pytest_virtio.guest.scripted.queue import Request
from pytest_virtio.spec.devices.sound import (
    SoundChmapInfo,
    SoundCode,
    SoundConfig,
    SoundHdr,
    SoundJackInfo,
    SoundPcmFormat,
    SoundPcmHdr,
    SoundPcmInfo,
    SoundPcmRate,
    SoundPcmSetParams,
    SoundPcmStatus,
    SoundPcmXfer,
    SoundQueryInfo,
)

__all__ = ("SoundDriver",)

MOST_ITEMS = 4096
"""More jacks, streams or channel maps than any device has."""

Info = TypeVar("Info", SoundJackInfo, SoundPcmInfo, SoundChmapInfo)


class SoundDriver(Driver):
    """Drives a sound device.

    Every verb raises RequestFailedError when the device answers with an error status, and RequestTimeoutError when it
    doesn't answer in time.
    """

    def config(self) -> SoundConfig:
        """The device's configuration (5.14.4)."""
        return self.read_config(SoundConfig)

    def jack_info(self, timeout: float | None = None) -> tuple[SoundJackInfo, ...]:
        """What the device tells of its jacks (5.14.6.4.1)."""
        return self._info(SoundCode.R_JACK_INFO, SoundJackInfo, self.config().jacks, timeout)

    def pcm_info(self, timeout: float | None = None) -> tuple[SoundPcmInfo, ...]:
        """What the device tells of its streams (5.14.6.6.2)."""
        return self._info(SoundCode.R_PCM_INFO, SoundPcmInfo, self.config().streams, timeout)

    def chmap_info(self, timeout: float | None = None) -> tuple[SoundChmapInfo, ...]:
        """What the device tells of its channel maps (5.14.6.9.1)."""
        return self._info(SoundCode.R_CHMAP_INFO, SoundChmapInfo, self.config().chmaps, timeout)

    def set_params(
        self,
        stream: int,
        *,
        buffer_bytes: int,
        period_bytes: int,
        channels: int = 2,
        format: int = SoundPcmFormat.S16,
        rate: int = SoundPcmRate.RATE_48000,
        features: int = 0,
        timeout: float | None = None,
    ) -> None:
        """Choose how a stream's samples look (5.14.6.6.3).

        :param features: bits of :class:`SoundPcmFeature`.
        """
        header = SoundPcmHdr(SoundHdr(SoundCode.R_PCM_SET_PARAMS), stream)
        parameters = SoundPcmSetParams(header, buffer_bytes, period_bytes, features, channels, format, rate)
        self._control(parameters.pack(), SoundCode.R_PCM_SET_PARAMS, timeout)

    def prepare(self, stream: int, timeout: float | None = None) -> None:
        """Have a stream prepared: the device takes its buffers from now on (5.14.6.6.4)."""
        self._pcm(SoundCode.R_PCM_PREPARE, stream, timeout)

    def start(self, stream: int, timeout: float | None = None) -> None:
        """Start a stream (5.14.6.6.6)."""
        self._pcm(SoundCode.R_PCM_START, stream, timeout)

    def stop(self, stream: int, timeout: float | None = None) -> None:
        """Stop a stream (5.14.6.6.7)."""
        self._pcm(SoundCode.R_PCM_STOP, stream, timeout)

    def release(self, stream: int, timeout: float | None = None) -> None:
        """Release a stream; the device gives its buffers back (5.14.6.6.5)."""
        self._pcm(SoundCode.R_PCM_RELEASE, stream, timeout)

    def submit(self, stream: int, samples: bytes) -> Request:
        """Give the device samples of an output stream, and don't wait until they are played (5.14.6.8).

        :return: for :meth:`played`.
        :raises QueueFullError: when the device has too many already.
        """
        self.begin(f"tx of {len(samples)} bytes")
        queue = self.queue("tx")
        request = queue.submit(SoundPcmXfer(stream).pack() + samples, writable=[SoundPcmStatus.size()])
        queue.kick()
        return request

    def played(self, request: Request, timeout: float | None = None) -> SoundPcmStatus:
        """Wait until samples that were submitted are played."""
        return self._transferred(request.queue.wait(request, timeout).written, "tx")

    def capture(self, stream: int, length: int, timeout: float | None = None) -> bytes:
        """``length`` bytes of samples, 1 or more, from an input stream (5.14.6.8).

        They are fewer when the stream is released meanwhile: the status follows what there is.

        :raises UsageError: for a length below 1.
        """
        if length < 1:
            raise UsageError(f"capture(length={length}): 1 byte or more is expected")
        self.begin(f"rx of {length} bytes")
        header, room = SoundPcmXfer(stream).pack(), [length, SoundPcmStatus.size()]
        written = self.queue("rx").request(header, writable=room, timeout=timeout).written
        self._transferred(written[-SoundPcmStatus.size() :], "rx")
        return written[: -SoundPcmStatus.size()]

    def _info(self, code: SoundCode, layout: type[Info], count: int, timeout: float | None) -> tuple[Info, ...]:
        """What the device tells of ``count`` items (5.14.6.1); without any there is nothing to ask."""
        if count > MOST_ITEMS:
            raise DriverError(
                f"{self.id}: the device has too many items to tell of",
                step=code.name,
                register="configuration",
                expected=f"{MOST_ITEMS} or less",
                seen=str(count),
            )
        if not count:
            return ()
        query = SoundQueryInfo(SoundHdr(code), start_id=0, count=count, size_=layout.size())
        items = self._control(query.pack(), code, timeout, count * layout.size())
        return tuple(
            unpacked(layout, items[at : at + layout.size()], self.id, code.name)
            for at in range(0, count * layout.size(), layout.size())
        )

    def _pcm(self, code: SoundCode, stream: int, timeout: float | None) -> None:
        self._control(SoundPcmHdr(SoundHdr(code), stream).pack(), code, timeout)

    def _control(self, message: bytes, code: SoundCode, timeout: float | None, room: int = 0) -> bytes:
        """Have a request of the control queue done (5.14.6); what the device says beyond its status."""
        self.begin(code.name)
        size = SoundHdr.size()
        answer = self.queue("ctrl").request(message, writable=[size + room], timeout=timeout).written
        check_status(unpacked(SoundHdr, answer, self.id, code.name).code, SoundCode.S_OK, self.id, code.name)
        return answer[size:]

    def _transferred(self, answer: bytes, name: str) -> SoundPcmStatus:
        status = unpacked(SoundPcmStatus, answer, self.id, name)
        check_status(status.status, SoundCode.S_OK, self.id, name)
        return status
