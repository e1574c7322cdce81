"""The traditional memory balloon (virtio 1.3 section 5.5): pages given away and taken back, and statistics.

Responsible for its requests and for which pages are in the balloon; must not know when a guest should give any. Free
page hinting has no verb here: it is a part of migration.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Self

from pytest_virtio.errors import QueueFullError, UsageError
from pytest_virtio.guest.scripted.access import Attachment
from pytest_virtio.guest.scripted.driver import Driver
from pytest_virtio.guest.scripted.queue import Request
from pytest_virtio.ring.driver import Buffer
from pytest_virtio.spec.devices.balloon import (
    PAGE_BYTES,
    BalloonConfig,
    BalloonFeature,
    BalloonPfn,
    BalloonStat,
    BalloonStatTag,
)

__all__ = ("BalloonDriver",)


class BalloonDriver(Driver):
    """Drives a memory balloon. Pages are 4096 bytes, named by their guest-physical address."""

    understood = frozenset(
        {
            BalloonFeature.MUST_TELL_HOST,
            BalloonFeature.STATS_VQ,
            BalloonFeature.DEFLATE_ON_OOM,
            BalloonFeature.PAGE_REPORTING,
        }
    )

    def __init__(self, attachment: Attachment) -> None:
        super().__init__(attachment)
        self._pages: set[int] = set()

    @property
    def pages(self) -> frozenset[int]:
        """The pages in the balloon."""
        return frozenset(self._pages)

    def reset(self) -> Self:
        """As for any device; the balloon is empty then."""
        super().reset()
        self._pages.clear()
        return self

    def populate(self) -> None:
        """Hand over the first statistics: the device keeps the buffer until it wants others (5.5.6.3)."""
        if self.has(BalloonFeature.STATS_VQ):
            self._submit_stats({BalloonStatTag.MEMTOT: self.memory.size})

    def config(self) -> BalloonConfig:
        """The device's configuration (5.5.4): ``num_pages`` that the host wants, and ``actual`` that we gave."""
        return self.read_config(BalloonConfig, order="little")

    def inflate(self, pages: int, timeout: float | None = None) -> tuple[int, ...]:
        """Give away so many more pages of guest RAM, 1 or more; which ones (5.5.6.1).

        :param timeout: seconds; the driver's by default.
        :raises RequestTimeoutError: when the device doesn't take them in time.
        :raises QueueFullError: when the queue has no room.
        :raises UsageError: for no pages, or more than are free: then none is given away.
        """
        most = self.memory.size // PAGE_BYTES
        if not 1 <= pages <= most:
            raise UsageError(f"inflate({pages}): 1 to {most} pages can be given away")
        addresses: list[int] = []
        try:
            for _ in range(pages):
                addresses.append(self.allocate(PAGE_BYTES, PAGE_BYTES))
            request = self._submit_pfns("inflate", addresses)
        except (QueueFullError, UsageError):
            self._free_pages(addresses)
            raise
        self._finish(request, timeout)
        self._pages.update(addresses)
        self._tell_actual()
        return tuple(addresses)

    def deflate(self, addresses: Collection[int], timeout: float | None = None) -> None:
        """Take pages back; what was in them is lost (5.5.6.1).

        :raises RequestTimeoutError: when the device doesn't answer in time.
        :raises UsageError: for no pages, or others than are in the balloon.
        """
        strange = set(addresses) - self._pages
        if strange or not addresses:
            named = ", ".join(f"{address:#x}" for address in sorted(strange)) or "none"
            raise UsageError(f"deflate: pages of the balloon are expected ({len(self._pages)} are there), not {named}")
        self._finish(self._submit_pfns("deflate", addresses), timeout)
        self._pages.difference_update(addresses)
        self._free_pages(set(addresses))
        self._tell_actual()

    def answer_stats(self, stats: Mapping[int, int], timeout: float | None = None) -> None:
        """Wait until the device asks for statistics, and tell these (5.5.6.3).

        :param stats: numbers of 64 bits, by :class:`BalloonStatTag` or any other tag.
        :raises RequestTimeoutError: when it doesn't ask in time.
        :raises UsageError: for no statistics, or numbers that don't fit.
        """
        self.queue("stats").next(timeout)
        self._submit_stats(stats)
        self.queue("stats").kick()

    def report_free(self, addresses: Collection[int], timeout: float | None = None) -> None:
        """Tell that pages are free now: the device may drop what is in them (5.5.6.7).

        They are used again without a word to the device, so they don't go into the balloon.

        :raises RequestTimeoutError: when the device doesn't answer in time.
        """
        buffers = [Buffer(address, PAGE_BYTES, device_writes=True) for address in addresses]
        self._finish(self.queue("reporting").submit_buffers(buffers), timeout)

    def _submit_pfns(self, queue: str, addresses: Collection[int]) -> Request:
        pfns = [BalloonPfn(address // PAGE_BYTES).pack(self.transport.order) for address in addresses]
        return self.queue(queue).submit(b"".join(pfns))

    def _finish(self, request: Request, timeout: float | None) -> None:
        request.queue.kick()
        request.queue.wait(request, timeout)

    def _free_pages(self, addresses: Collection[int]) -> None:
        for address in sorted(addresses, reverse=True):
            self.free(address)

    def _tell_actual(self) -> None:
        self.write_config(BalloonConfig, "actual", len(self._pages), order="little")

    def _submit_stats(self, stats: Mapping[int, int]) -> None:
        if not stats:
            raise UsageError("no statistics: one at least is expected, for a buffer can't be empty")
        packed = [BalloonStat(tag, value).pack(self.transport.order) for tag, value in stats.items()]
        self.queue("stats").submit(b"".join(packed))
