"""Who owes a virtqueue its next move: a verdict from what is known of the queue and of those who serve it.

Responsible for the decision and for naming its evidence; it must not know how anything was found out or will be
printed. Where the facts do not tell, the verdict is ``UNKNOWN``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from pytest_virtio.model.interrupt import Interrupt
from pytest_virtio.model.queue import VirtQueueStatus
from pytest_virtio.model.ring import Ring
from pytest_virtio.model.status import VirtioStatus

__all__ = ("DOUBTFUL", "BackendState", "QueueFacts", "QueueVerdict", "Stuck", "settled", "verdict")

BackendState = Literal["running", "stopped", "ended", "disconnected"]
"""Of the vhost backend: its process runs, is stopped by a signal or a debugger, or has ended; or it lives, and the
connection with QEMU has ended."""


class Stuck(Enum):
    """Where a queue stands; the value says it in plain words."""

    VM_STOPPED = "the VM is stopped: nobody moves"
    BACKEND_ENDED = "the vhost backend has ended: nobody serves the queue"
    DISCONNECTED = "QEMU and the vhost backend are not connected: nobody serves the queue"
    BACKEND_STOPPED = "the vhost backend's process is stopped: it serves nothing"
    BROKEN = "the device met an error and waits for a reset by the driver"
    GIVEN_UP = "the driver gave the device up"
    NOT_LIVE = "the driver has not finished its set-up"
    NOT_ENABLED = "the driver has not set up this queue"
    NOT_NOTICED = "the device gave buffers back, and the driver has not noticed"
    STAGED = "requests were submitted to the driver, and kick() was not called for them"
    NOTHING_SUBMITTED = "the driver has submitted nothing that is not answered"
    KEPT = "the device keeps buffers until something happens"
    KEPT_OR_NOT_KICKED = "the device keeps buffers until something happens, or waits for a kick, which it asked for"
    KICK_SUPPRESSED = "the driver submitted, and the device, which asked for no kick, has not looked"
    NOT_KICKED = "the driver submitted, and the device has not looked: it was not kicked, or did not heed it"
    NOT_TAKEN = "the device has seen what is available, and has not taken it"
    IN_FLIGHT = "the device took requests and has not given them back"
    WITH_DEVICE = "buffers are the device's; whether it has taken them is not known"
    MOVING = "the queue moves: it was never twice the same"
    UNKNOWN = "not known: the facts do not tell"


DOUBTFUL = frozenset(
    {
        Stuck.NOT_NOTICED,
        Stuck.STAGED,
        Stuck.KICK_SUPPRESSED,
        Stuck.NOT_KICKED,
        Stuck.NOT_TAKEN,
        Stuck.IN_FLIGHT,
        Stuck.WITH_DEVICE,
    }
)
"""Verdicts that one look can't be sure of: it may have fallen between two steps of a driver and a device at work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFacts:
    """What is known of a queue; None is what is not.

    :param queue: as QEMU's device model sees it, or from guest RAM.
    :param ring: as it lies in guest RAM.
    :param answered: whether the device gives buffers back as soon as it can; others it keeps until something happens.
    :param backend: the vhost backend's process; None also where there is none.
    :param noticed: the used index up to which the driver has taken buffers back, free-running over 16 bits; nothing is
        made of it for a packed ring, which has no such index.
    :param awaited: how many chains the driver has kicked the device for and not taken back.
    :param staged: how many were submitted to it and not kicked for.
    :param interrupt: how the device reaches the driver.
    """

    status: VirtioStatus
    queue: VirtQueueStatus | None = None
    ring: Ring | None = None
    answered: bool | None = None
    backend: BackendState | None = None
    noticed: int | None = None
    awaited: int | None = None
    staged: int | None = None
    interrupt: Interrupt | None = None


@dataclass(frozen=True, slots=True)
class QueueVerdict:
    """Where a queue stands.

    :param evidence: the facts that tell, each with its value.
    """

    stuck: Stuck
    evidence: tuple[tuple[str, object], ...] = ()

    def __str__(self) -> str:
        """The verdict in a line, and its evidence in one below."""
        told = ", ".join(f"{name} {_plain(value)}" for name, value in self.evidence)
        return f"{self.stuck.value}\n  {told}" if told else self.stuck.value


def verdict(facts: QueueFacts) -> QueueVerdict:
    """Decide who owes the next move, by one look.

    A look is a moment, and what is told of the device and what stands in RAM are of two: while driver and device are at
    work, the ``DOUBTFUL`` verdicts may blame one who is about to do his part. See :func:`settled`.
    """
    for judge in _JUDGES:
        stuck = judge(facts)
        if stuck is not None:
            return QueueVerdict(stuck, tuple(_evidence(stuck, facts)))
    return QueueVerdict(Stuck.UNKNOWN, tuple(_evidence(Stuck.UNKNOWN, facts)))


def settled(before: QueueFacts, after: QueueFacts) -> QueueVerdict:
    """Decide by two looks, some milliseconds apart. A verdict stands if nothing has moved in between; then all that was
    told is of one moment too. What is known no more at the second look is no movement."""
    now = verdict(after)
    seen = [(name, old, new) for (name, old), (_, new) in zip(_picture(before), _picture(after), strict=True)]
    moved = [(name, f"{old}, then {new}") for name, old, new in seen if None not in (old, new) and old != new]
    return QueueVerdict(Stuck.MOVING, tuple(moved)) if moved and now.stuck in DOUBTFUL else now


def _surroundings(facts: QueueFacts) -> Stuck | None:
    if facts.backend in ("ended", "stopped"):
        return Stuck.BACKEND_ENDED if facts.backend == "ended" else Stuck.BACKEND_STOPPED
    if facts.status.vm_running is False:
        return Stuck.VM_STOPPED
    unserved = facts.backend is not None and facts.status.driver_ok and facts.status.vhost_started is False
    return Stuck.DISCONNECTED if facts.backend == "disconnected" or unserved else None


def _device(facts: QueueFacts) -> Stuck | None:
    status = facts.status
    if status.broken or "NEEDS_RESET" in status.status:
        return Stuck.BROKEN
    if "FAILED" in status.status:
        return Stuck.GIVEN_UP
    return None if "DRIVER_OK" in status.status else Stuck.NOT_LIVE


def _set_up(facts: QueueFacts) -> Stuck | None:
    return Stuck.NOT_ENABLED if facts.queue is not None and not facts.queue.vring_desc else None


def _driver(facts: QueueFacts) -> Stuck | None:
    """The driver's side of what was given back. One that polls may have noticed in spite of a masked vector."""
    unnoticed = _unnoticed(facts)
    if unnoticed is None:
        unnoticed = facts.interrupt is not None and facts.interrupt.untaken and _is_due(facts)
    return Stuck.NOT_NOTICED if unnoticed else None


def _unnoticed(facts: QueueFacts) -> bool | None:
    """Whether the driver's own count lags behind the ring; None where either is not known."""
    used, ring = _used(facts), facts.ring
    if used is not None and facts.noticed is not None:
        return used != facts.noticed
    if facts.awaited == 0:
        return False
    if facts.awaited is None or ring is None or ring.faults or not _is_packed(facts):
        return None
    return facts.awaited > len(ring.outstanding)


def _is_due(facts: QueueFacts) -> bool:
    """Whether an interrupt that nobody took can be this queue's, for queues share INTx, and often vectors: not if it
    has given nothing back yet, if the driver wants none, or if it wants one at the next buffer only, which it says
    when it has taken all others (virtio 1.3 sections 2.7.7 and 2.8.10; of a packed ring both are positions)."""
    ring, used = facts.ring, _used_or_position(facts)
    if ring is None or used is None:
        return True
    has_used = bool(used or ring.in_state("used"))
    return has_used and ring.no_interrupt is not True and ring.used_event != used


def _nothing(facts: QueueFacts) -> Stuck | None:
    outstanding = _outstanding(facts)
    if facts.staged and outstanding is not None:
        return Stuck.STAGED
    return Stuck.NOTHING_SUBMITTED if outstanding == 0 else None


def _kept(facts: QueueFacts) -> Stuck | None:
    if facts.answered is not False or not _outstanding(facts):
        return None
    # A device that has no use for more buffers does not look for them when it is kicked either.
    waits = _seen(facts) is False and _wants_kick(facts) is True
    return Stuck.KEPT_OR_NOT_KICKED if waits else Stuck.KEPT


def _with_the_device(facts: QueueFacts) -> Stuck | None:
    outstanding, pending = _outstanding(facts), _pending(facts)
    if not outstanding or facts.answered is False:
        return None
    if pending is None:
        return Stuck.WITH_DEVICE
    if not pending:
        return Stuck.IN_FLIGHT
    if _seen(facts) is True:
        return Stuck.NOT_TAKEN
    return Stuck.NOT_KICKED if _wants_kick(facts) is not False else Stuck.KICK_SUPPRESSED


_JUDGES: tuple[Callable[[QueueFacts], Stuck | None], ...] = (
    _surroundings,
    _device,
    _set_up,
    _with_the_device,
    _driver,
    _nothing,
    _kept,
)


def _used(facts: QueueFacts) -> int | None:
    """The device's used index, free-running. A packed ring has none: what is told of it is a position (2.8.1)."""
    return None if _is_packed(facts) else _used_or_position(facts)


def _used_or_position(facts: QueueFacts) -> int | None:
    if facts.ring is not None and facts.ring.used_idx is not None:
        return facts.ring.used_idx
    return facts.queue.used_idx if facts.queue is not None else None


def _outstanding(facts: QueueFacts) -> int | None:
    """How many chains the driver has not got back."""
    ring, queue = facts.ring, facts.queue
    if ring is not None and ring.count is not None:
        return ring.count
    if queue is not None and queue.inuse:
        return queue.inuse
    # A driver of ours that waits for nothing has got all back, whatever can be read of its ring.
    return 0 if facts.awaited == 0 else None


def _pending(facts: QueueFacts) -> int | None:
    """How many of them the device has not taken. None also where the facts are of different moments."""
    ring, queue, outstanding = facts.ring, facts.queue, _outstanding(facts)
    if ring is None or queue is None or outstanding is None:
        return None
    if ring.avail_idx is not None and queue.last_avail_idx is not None:
        pending = ring.avail_idx - queue.last_avail_idx & 0xFFFF
    elif queue.inuse is not None:
        pending = outstanding - queue.inuse
    else:
        return None
    return pending if 0 <= pending <= outstanding else None


def _seen(facts: QueueFacts) -> bool | None:
    """Whether the device has read the avail index as it is now; of a ring read from RAM nobody tells."""
    ring, queue = facts.ring, facts.queue
    if ring is None or queue is None or ring.avail_idx is None or queue.shadow_avail_idx is None:
        return None
    return None if queue.last_avail_idx is None else queue.shadow_avail_idx == ring.avail_idx


def _wants_kick(facts: QueueFacts) -> bool | None:
    """Whether the device has asked to be kicked for what is pending (virtio 1.3 sections 2.7.10 and 2.7.13.4.1)."""
    ring = facts.ring
    if ring is None:
        return None
    if ring.avail_event is None or ring.packed or ring.avail_idx is None:
        return None if ring.no_notify is None else not ring.no_notify
    pending = _pending(facts)
    if pending is None:
        return None
    return (ring.avail_idx - 1 - ring.avail_event & 0xFFFF) < pending


def _is_packed(facts: QueueFacts) -> bool:
    guest = facts.status.guest_features
    return bool(guest.untold) or "VIRTIO_F_RING_PACKED" in guest


_OF_DEVICE = (Stuck.BROKEN, Stuck.GIVEN_UP, Stuck.NOT_LIVE)
_OF_SURROUNDINGS = (Stuck.VM_STOPPED, Stuck.BACKEND_ENDED, Stuck.BACKEND_STOPPED, Stuck.DISCONNECTED)


def _evidence(stuck: Stuck, facts: QueueFacts) -> Iterator[tuple[str, object]]:
    """The facts that this verdict rests on, less those that are not known."""
    told: Iterable[tuple[str, object]]
    if stuck in _OF_SURROUNDINGS:
        surroundings = [("backend", facts.backend), ("vhost_started", facts.status.vhost_started)]
        told = [*surroundings, ("vm_running", facts.status.vm_running), *_of_ring(facts)]
    elif stuck in _OF_DEVICE:
        told = [("status", ", ".join(sorted(facts.status.status)) or "0"), ("broken", facts.status.broken)]
    elif stuck is Stuck.NOT_ENABLED:
        told = [("vring_desc", facts.queue.vring_desc if facts.queue else None)]
    else:
        told = [*_of_ring(facts), *_of_driver(stuck, facts), *_of_backend(facts)]
    return ((name, value) for name, value in told if value is not None)


def _of_ring(facts: QueueFacts) -> Iterator[tuple[str, object]]:
    ring, queue = facts.ring, facts.queue
    yield "outstanding", _outstanding(facts)
    yield "avail_idx", ring.avail_idx if ring else None
    yield "last_avail_idx", queue.last_avail_idx if queue else None
    yield "shadow_avail_idx", queue.shadow_avail_idx if queue else None
    yield "used_idx", _used_or_position(facts)
    yield "inuse", queue.inuse if queue else None
    yield "avail_event", ring.avail_event if ring else None
    yield "no_notify", ring.no_notify if ring else None


def _of_driver(stuck: Stuck, facts: QueueFacts) -> Iterator[tuple[str, object]]:
    """How far it has noticed, and why it may not have."""
    yield "noticed", None if _is_packed(facts) else facts.noticed
    yield "awaited", facts.awaited
    yield "staged", facts.staged or None
    if stuck not in (Stuck.NOT_NOTICED, Stuck.NOTHING_SUBMITTED, Stuck.UNKNOWN):
        return
    yield "no_interrupt", facts.ring.no_interrupt if facts.ring else None
    yield "used_event", facts.ring.used_event if facts.ring else None
    if facts.interrupt is not None:
        yield from facts.interrupt.told()


def _of_backend(facts: QueueFacts) -> Iterator[tuple[str, object]]:
    yield "backend", facts.backend
    yield "vhost_started", facts.status.vhost_started or None


def _picture(facts: QueueFacts) -> Iterator[tuple[str, object]]:
    """What changes whenever driver or device moves."""
    ring, queue = facts.ring, facts.queue
    yield "avail_idx", ring.avail_idx if ring else None
    yield "used_idx", ring.used_idx if ring else None
    yield "outstanding", len(ring.outstanding) if ring and ring.packed else None
    yield "last_avail_idx", queue.last_avail_idx if queue else None
    yield "shadow_avail_idx", queue.shadow_avail_idx if queue else None
    yield "the device's used_idx", queue.used_idx if queue else None
    yield "inuse", queue.inuse if queue else None
    yield "noticed", facts.noticed
    yield "staged", facts.staged


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
