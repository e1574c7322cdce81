"""Queue names: small builders with which a device type's module says how its virtqueues are called.

Responsible for turning "these, then numbered ones" into names by index; it must not know any one device type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count as count_from

from pytest_virtio.spec.features import Feature

__all__ = ("Queue", "QueueNames", "QueueNaming", "generic", "in_order")

QueueNames = tuple[str, ...]
"""The accepted names of one queue: ours, the short one, first, the specification's after it."""

QueueNaming = Callable[[int, int], Iterator[QueueNames]]
"""``(count, features) -> names by index``: may yield fewer names than ``count`` or never end."""


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue's names, and the feature that it needs to be there at all, if any."""

    names: QueueNames
    needs: Feature | None = None

    def is_there(self, features: int) -> bool:
        """Say whether the queue exists with these feature bits."""
        return self.needs is None or bool(features >> self.needs & 1)


def in_order(*queues: Queue | QueueNames, then: tuple[str, str] | None = None) -> QueueNaming:
    """Build the naming of a device whose queues stand in a fixed order, each perhaps depending on a feature.

    :param then: name stems of any further queues: ours counts from 0, the specification's from 1.
    """
    listed = [queue if isinstance(queue, Queue) else Queue(queue) for queue in queues]

    def naming(count: int, features: int) -> Iterator[QueueNames]:
        yield from (queue.names for queue in listed if queue.is_there(features))
        if then is not None:
            yield from ((f"{then[0]}{n}", f"{then[1]}{n + 1}") for n in count_from())

    return naming


def generic(index: int) -> QueueNames:
    """Name a queue of which nothing is known but its index, 0 or more."""
    return (f"queue{index}",)
