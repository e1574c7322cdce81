"""Virtqueues from guest RAM: what must not be asked of QEMU while a vhost backend serves them.

Responsible for the indices in a ring's avail and used areas; must not know how the areas' addresses were found.
"""

from __future__ import annotations

from pytest_virtio.errors import UsageError
from pytest_virtio.model.queue import VirtQueueStatus, VirtVhostQueueStatus
from pytest_virtio.vm.memory import GuestMemory

__all__ = ("queue_in_ram",)

INDEX_OFFSET = 2
"""Of ``idx`` in the avail and in the used ring, behind 16 bits of flags (virtio 1.3 sections 2.7.6 and 2.7.8)."""


def queue_in_ram(index: int, told: VirtVhostQueueStatus, memory: GuestMemory | None) -> VirtQueueStatus:
    """A queue whose addresses are told, its indices read from RAM.

    :param memory: the guest's RAM; None where that is not ours to read, or the indices are not there.
    """
    return VirtQueueStatus(
        name=told.name,
        queue_index=index,
        vring_num=told.num,
        vring_desc=told.desc_phys,
        vring_avail=told.avail_phys,
        vring_used=told.used_phys,
        used_idx=_index(memory, told.used_phys),
        shadow_avail_idx=_index(memory, told.avail_phys),
        source=f"guest RAM, addresses by {told.source}" if memory else told.source,
    )


def _index(memory: GuestMemory | None, area: int) -> int | None:
    """None where the area is not in the RAM that we have mapped: the driver may write any address."""
    try:
        return memory.load16(area + INDEX_OFFSET) if memory else None
    except UsageError:
        return None
