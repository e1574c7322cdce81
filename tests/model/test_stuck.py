"""Who owes a queue its next move, on made-up facts; on real devices it is in tests/handle."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_virtio import render
from pytest_virtio.model.features import Features
from pytest_virtio.model.interrupt import Intx, MmioInterrupt, Msix
from pytest_virtio.model.queue import VirtQueueStatus
from pytest_virtio.model.ring import Ring, RingElement
from pytest_virtio.model.status import VirtioStatus
from pytest_virtio.model.stuck import QueueFacts, QueueVerdict, Stuck, settled, verdict
from pytest_virtio.spec.devices import NET
from pytest_virtio.spec.status import status_names

STATUS = VirtioStatus(
    name="virtio-net",
    device_id=1,
    status=status_names(0x0F),
    guest_features=Features.of({"VERSION_1", "EVENT_IDX"}, NET),
    host_features=Features.of({"VERSION_1", "EVENT_IDX"}, NET),
    vm_running=True,
    broken=False,
    source="test",
)
QUEUE = VirtQueueStatus(
    name="virtio-net",
    queue_index=0,
    inuse=0,
    vring_num=256,
    vring_desc=0x10000,
    vring_avail=0x11000,
    vring_used=0x12000,
    used_idx=65534,
    last_avail_idx=65534,
    shadow_avail_idx=65534,
    source="test",
)
RING = Ring(
    name="virtio-net",
    queue_index=0,
    packed=False,
    num=256,
    desc=0x10000,
    avail=0x11000,
    used=0x12000,
    avail_idx=65534,
    used_idx=65534,
    source="test",
)
SUBMITTED = replace(RING, avail_idx=1)
"""Three more, across the end of the indices."""
PENDING = Msix(1, masked=True, pending=True)
IDLE = QueueFacts(status=STATUS, queue=QUEUE, ring=RING, answered=True)


def told(**bits: int) -> VirtioStatus:
    return replace(STATUS, status=status_names(bits["status"]))


@pytest.mark.parametrize(
    ("more", "stuck"),
    [
        ({"backend": "ended"}, Stuck.BACKEND_ENDED),
        ({"backend": "stopped"}, Stuck.BACKEND_STOPPED),
        ({"status": replace(STATUS, vm_running=False)}, Stuck.VM_STOPPED),
        ({"status": replace(STATUS, broken=True)}, Stuck.BROKEN),
        ({"status": told(status=0x4F)}, Stuck.BROKEN),
        ({"status": told(status=0x8F)}, Stuck.GIVEN_UP),
        ({"status": told(status=0x0B)}, Stuck.NOT_LIVE),
        ({"queue": replace(QUEUE, vring_desc=0)}, Stuck.NOT_ENABLED),
        ({}, Stuck.NOTHING_SUBMITTED),
        ({"noticed": 65534}, Stuck.NOTHING_SUBMITTED),
        ({"noticed": 65533}, Stuck.NOT_NOTICED),
        ({"interrupt": Msix(1)}, Stuck.NOTHING_SUBMITTED),
        ({"interrupt": Msix(None)}, Stuck.NOTHING_SUBMITTED),
        ({"interrupt": Msix(1, masked=True)}, Stuck.NOTHING_SUBMITTED),
        ({"interrupt": Msix(1, function_masked=True)}, Stuck.NOTHING_SUBMITTED),
        ({"interrupt": PENDING}, Stuck.NOT_NOTICED),
        ({"interrupt": Intx(asserted=False, disabled=True)}, Stuck.NOTHING_SUBMITTED),
        ({"interrupt": Intx(asserted=True)}, Stuck.NOT_NOTICED),
        ({"interrupt": MmioInterrupt(used_buffer=False)}, Stuck.NOTHING_SUBMITTED),
        ({"interrupt": MmioInterrupt(used_buffer=True)}, Stuck.NOT_NOTICED),
        # It polls.
        ({"noticed": 65534, "interrupt": PENDING}, Stuck.NOTHING_SUBMITTED),
        ({"interrupt": PENDING, "ring": replace(RING, no_interrupt=True)}, Stuck.NOTHING_SUBMITTED),
        ({"interrupt": PENDING, "ring": replace(RING, no_interrupt=False)}, Stuck.NOT_NOTICED),
        # It waits for the next buffer, for the last one.
        ({"interrupt": PENDING, "ring": replace(RING, used_event=65534)}, Stuck.NOTHING_SUBMITTED),
        ({"interrupt": PENDING, "ring": replace(RING, used_event=65533)}, Stuck.NOT_NOTICED),
        # Another queue's.
        ({"interrupt": PENDING, "ring": replace(RING, avail_idx=0, used_idx=0)}, Stuck.NOTHING_SUBMITTED),
        ({"interrupt": PENDING, "ring": None, "queue": None}, Stuck.NOT_NOTICED),
        # The device asked to be kicked at the first, the last and the one after them.
        ({"ring": replace(SUBMITTED, avail_event=65534)}, Stuck.NOT_KICKED),
        ({"ring": replace(SUBMITTED, avail_event=0)}, Stuck.NOT_KICKED),
        ({"ring": replace(SUBMITTED, avail_event=1)}, Stuck.KICK_SUPPRESSED),
        ({"ring": replace(SUBMITTED, avail_event=65533)}, Stuck.KICK_SUPPRESSED),
        ({"ring": replace(SUBMITTED, no_notify=True)}, Stuck.KICK_SUPPRESSED),
        ({"ring": replace(SUBMITTED, no_notify=False)}, Stuck.NOT_KICKED),
        ({"ring": SUBMITTED}, Stuck.NOT_KICKED),
        ({"ring": SUBMITTED, "queue": replace(QUEUE, shadow_avail_idx=1)}, Stuck.NOT_TAKEN),
        ({"ring": SUBMITTED, "queue": replace(QUEUE, last_avail_idx=1, shadow_avail_idx=1, inuse=3)}, Stuck.IN_FLIGHT),
        ({"ring": SUBMITTED, "queue": replace(QUEUE, last_avail_idx=None, inuse=None)}, Stuck.WITH_DEVICE),
        # Of different moments.
        ({"ring": SUBMITTED, "queue": replace(QUEUE, last_avail_idx=5)}, Stuck.WITH_DEVICE),
        ({"ring": SUBMITTED, "answered": False}, Stuck.KEPT),
        ({"ring": SUBMITTED, "answered": False, "queue": replace(QUEUE, shadow_avail_idx=1)}, Stuck.KEPT),
        ({"ring": replace(SUBMITTED, no_notify=True), "answered": False}, Stuck.KEPT),
        ({"ring": replace(SUBMITTED, avail_event=65533), "answered": False}, Stuck.KEPT),
        ({"ring": replace(SUBMITTED, avail_event=65534), "answered": False}, Stuck.KEPT_OR_NOT_KICKED),
        ({"ring": replace(SUBMITTED, no_notify=False), "answered": False}, Stuck.KEPT_OR_NOT_KICKED),
        ({"staged": 0}, Stuck.NOTHING_SUBMITTED),
        ({"staged": 2}, Stuck.STAGED),
        ({"staged": 2, "ring": None}, Stuck.UNKNOWN),
        ({"staged": 2, "noticed": 65533}, Stuck.NOT_NOTICED),
        ({"staged": 2, "ring": SUBMITTED}, Stuck.NOT_KICKED),
        ({"staged": 2, "ring": SUBMITTED, "answered": False}, Stuck.STAGED),
        ({"ring": SUBMITTED, "answered": False, "noticed": 65533}, Stuck.NOT_NOTICED),
        ({"ring": None}, Stuck.UNKNOWN),
        ({"ring": None, "queue": None}, Stuck.UNKNOWN),
        ({"ring": replace(RING, avail_idx=None, used_idx=None, faults=("not read",))}, Stuck.UNKNOWN),
    ],
)  # fmt: skip
def test_verdict(more: dict[str, object], stuck: Stuck) -> None:
    assert verdict(replace(IDLE, **more)).stuck is stuck  # type: ignore[arg-type]


def test_packed() -> None:
    pending = RingElement(head=0, slot=0, state="pending")
    ring = replace(RING, packed=True, avail_idx=None, used_idx=None, elements=(pending, pending))
    status = replace(STATUS, guest_features=Features.of({"RING_PACKED"}, NET))
    facts = replace(IDLE, status=status, ring=ring)
    assert verdict(facts).stuck is Stuck.NOT_KICKED
    assert verdict(replace(facts, queue=replace(QUEUE, inuse=2))).stuck is Stuck.IN_FLIGHT
    assert verdict(replace(facts, ring=replace(ring, elements=()))).stuck is Stuck.NOTHING_SUBMITTED


@pytest.mark.parametrize("position", [0, 7])
def test_a_packed_ring_that_has_gone_round(position: int) -> None:
    """Its used index is a position; what counts is what is left of what the driver awaits."""
    status = replace(STATUS, guest_features=Features.of({"RING_PACKED"}, NET))
    used = RingElement(head=0, slot=0, state="used")
    ring = replace(RING, packed=True, num=8, avail_idx=None, used_idx=position, elements=(used,))
    idle = replace(IDLE, status=status, ring=ring, queue=replace(QUEUE, used_idx=position), noticed=16 + position)
    assert verdict(idle).stuck is Stuck.NOTHING_SUBMITTED
    assert verdict(replace(idle, awaited=0)).stuck is Stuck.NOTHING_SUBMITTED
    assert verdict(replace(idle, awaited=1)).stuck is Stuck.NOT_NOTICED
    assert dict(verdict(replace(idle, awaited=1)).evidence)["used_idx"] == position
    assert "noticed" not in dict(verdict(idle).evidence)
    assert verdict(replace(idle, awaited=1, ring=replace(ring, faults=("?",)))).stuck is not Stuck.NOT_NOTICED
    # Not all has come back; nor has the driver missed any.
    pending = RingElement(head=1, slot=1, state="pending")
    assert verdict(replace(idle, awaited=1, ring=replace(ring, elements=(pending,)))).stuck is Stuck.NOT_KICKED
    interrupted = replace(idle, noticed=None, interrupt=PENDING)
    assert verdict(interrupted).stuck is Stuck.NOT_NOTICED
    assert verdict(replace(interrupted, ring=replace(ring, used_event=position))).stuck is Stuck.NOTHING_SUBMITTED


def test_two_looks() -> None:
    """What moves is blamed for nothing; what is not known at the second look has not moved."""
    facts = replace(IDLE, ring=SUBMITTED)
    assert settled(facts, facts).stuck is Stuck.NOT_KICKED
    kicked = replace(facts, queue=replace(QUEUE, shadow_avail_idx=1))
    assert settled(facts, kicked) == QueueVerdict(Stuck.MOVING, (("shadow_avail_idx", "65534, then 1"),))
    more = replace(facts, ring=replace(SUBMITTED, avail_idx=2))
    assert settled(facts, more) == QueueVerdict(Stuck.MOVING, (("avail_idx", "1, then 2"),))
    answered = replace(IDLE, ring=replace(RING, avail_idx=1, used_idx=1))
    assert settled(facts, answered).stuck is Stuck.NOTHING_SUBMITTED
    assert settled(facts, replace(facts, queue=None)).stuck is Stuck.WITH_DEVICE
    assert settled(facts, replace(facts, backend="ended")).stuck is Stuck.BACKEND_ENDED


def test_a_verdict_in_words() -> None:
    assert str(QueueVerdict(Stuck.NOT_ENABLED)) == "the driver has not set up this queue"
    said = QueueVerdict(Stuck.NOT_ENABLED, (("vring_desc", 0), ("broken", False)))
    assert str(said) == "the driver has not set up this queue\n  vring_desc 0, broken false"
    assert list(render.stuck(said)) == str(said).splitlines()


def test_the_evidence_is_what_is_known() -> None:
    evidence = dict(verdict(replace(IDLE, ring=SUBMITTED, noticed=65534)).evidence)
    assert evidence == {
        "outstanding": 3,
        "avail_idx": 1,
        "last_avail_idx": 65534,
        "shadow_avail_idx": 65534,
        "used_idx": 65534,
        "inuse": 0,
        "noticed": 65534,
    }
    for around in ({"backend": "ended"}, {"backend": "stopped"}, {"status": replace(STATUS, vm_running=False)}):
        told = verdict(replace(IDLE, ring=SUBMITTED, **around)).evidence
        assert dict(told).items() >= {"outstanding": 3, "avail_idx": 1, "used_idx": 65534, "inuse": 0}.items()
        assert len(dict(told)) == len(told)
    assert verdict(replace(IDLE, queue=replace(QUEUE, vring_desc=0))).evidence == (("vring_desc", 0),)


@pytest.mark.parametrize(
    ("interrupt", "evidence"),
    [
        (Intx(asserted=True, disabled=True), {"INTx asserted": True, "INTx disabled by the driver": True}),
        (
            Msix(None, function_masked=True),
            {"MSI-X vector": "none", "MSI-X masked": False, "MSI-X function masked": True, "MSI-X pending": False},
        ),
        (MmioInterrupt(used_buffer=True), {"InterruptStatus used buffer": True}),
    ],
)
def test_how_the_device_interrupts_is_evidence_of_what_the_driver_notices(
    interrupt: Intx | Msix | MmioInterrupt, evidence: dict[str, object]
) -> None:
    facts = replace(IDLE, interrupt=interrupt)
    assert dict(verdict(facts).evidence).items() >= evidence.items()
    assert not dict(verdict(replace(facts, ring=SUBMITTED)).evidence).keys() & evidence.keys()


def test_a_driver_that_waits_for_nothing_has_noticed_all_of_a_ring_that_nobody_can_read() -> None:
    """As of packed rings that vhost serves: whose interrupt stands on a shared line is not known."""
    unread = replace(RING, packed=True, avail_idx=None, used_idx=None, faults=("its positions are not told",))
    queue = replace(QUEUE, inuse=None, used_idx=None, last_avail_idx=None, shadow_avail_idx=None)
    facts = replace(IDLE, queue=queue, ring=unread, interrupt=Intx(asserted=True), staged=0)
    assert verdict(replace(facts, awaited=0)).stuck is Stuck.NOTHING_SUBMITTED
    assert verdict(replace(facts, awaited=0, staged=1)).stuck is Stuck.STAGED
    assert verdict(replace(facts, awaited=1)).stuck is Stuck.NOT_NOTICED
