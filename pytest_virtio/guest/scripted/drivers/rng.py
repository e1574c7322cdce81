"""The entropy device (virtio 1.3 section 5.4): buffers that come back random."""

from __future__ import annotations

from pytest_virtio.guest.scripted.driver import Driver

__all__ = ("RngDriver",)


class RngDriver(Driver):
    """Drives an entropy device."""

    def read(self, length: int, timeout: float | None = None) -> bytes:
        """Ask for ``length`` random bytes (1 or more); the device may give fewer, but at least one (5.4.6.2).

        :raises RequestTimeoutError: when it gives none in time.
        """
        return self.queue(0).request(writable=[length], timeout=timeout).written
