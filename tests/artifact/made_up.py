"""Findings with something in every field, for tests that need no VM."""

from __future__ import annotations

from pytest_virtio.model.features import Features
from pytest_virtio.model.findings import DeviceFindings, Findings, QueueFindings, WireFindings
from pytest_virtio.model.history import History, StatusStep
from pytest_virtio.model.provenance import Provenance
from pytest_virtio.model.queue import VirtioRingDesc, VirtQueueStatus, VirtVhostQueueStatus
from pytest_virtio.model.ring import Ring, RingElement
from pytest_virtio.model.status import VhostStatus, VirtioStatus
from pytest_virtio.model.stuck import QueueVerdict, Stuck
from pytest_virtio.model.wire import MemoryRegion, ToldBackend, ToldQueue
from pytest_virtio.spec.devices import device_type
from pytest_virtio.spec.vhost_user import PROTOCOL_FEATURE_NAMES

NET = device_type(1)
PATH = "/machine/peripheral/net0/virtio-backend"


def _status() -> VirtioStatus:
    offered = Features(1 | 1 << 32 | 1 << 90, NET, texts=("a text that nobody knows",))
    by_backend = Features(1 | 1 << 30, NET.vhost_feature_names)
    return VirtioStatus(
        name="virtio-net",
        device_id=1,
        status=frozenset({"ACKNOWLEDGE", "DRIVER", "0x30"}),
        guest_features=Features(1 << 32, NET, offered=offered),
        host_features=offered,
        backend_features=Features(0, NET, untold="nobody tells"),
        vhost_started=True,
        num_vqs=3,
        vhost_dev=VhostStatus(
            features=by_backend,
            acked_features=Features(1, NET.vhost_feature_names, offered=by_backend),
            protocol_features=Features(0b1001, PROTOCOL_FEATURE_NAMES),
        ),
        source="a test",
        extra={"new-key": [1, {"deep": None}]},
    )


def _queue() -> QueueFindings:
    desc = VirtioRingDesc(0x5000, 512, frozenset({"write", "next"}))
    return QueueFindings(
        VirtQueueStatus(
            name="virtio-net", queue_index=0, vring_num=8, vring_desc=4096, vring_avail=2, vring_used=3, source="a test"
        ),
        ring=Ring(
            name="virtio-net",
            queue_index=0,
            packed=False,
            num=8,
            desc=4096,
            avail=2,
            used=3,
            avail_idx=2,
            used_idx=1,
            elements=(RingElement(1, 0, "pending", (desc,), faults=("odd",)), RingElement(2, 1, "used", written=7)),
            candidates=(RingElement(3, 3, "candidate"),),
            faults=("the ring is odd",),
            source="a test",
        ),
        verdict=QueueVerdict(Stuck.NOT_TAKEN, (("outstanding", 1), ("no_notify", True), ("backend", "running"))),
        vhost=VirtVhostQueueStatus(
            name="virtio-net",
            kick=-1,
            call=7,
            num=8,
            desc_phys=1,
            desc_size=2,
            avail_phys=3,
            avail_size=4,
            used_phys=5,
            used_size=6,
            source="a test",
        ),
    )


FINDINGS = Findings(
    devices={
        "net0": DeviceFindings(
            path=PATH,
            status=_status(),
            queues=(_queue(), QueueFindings(no_answer="not asked")),
            history=History((StatusStep(0.5, 1), StatusStep(0.75, 0, by_machine=True)), "trace events", dropped=2),
            offered_by_backend=1 << 100,
            masked_by_test=1 << 99,
            wire=WireFindings(
                3,
                ToldBackend(features=1, queues={0: ToldQueue(num=8)}, regions=(MemoryRegion(1, 2, 3),), refused=("X",)),
                "hung up",
            ),
        ),
        "blk0": DeviceFindings(path="/blk0", no_answer="QEMU has ended"),
    },
    hidden=1,
    state=("the VM stands still: io-error",),
    trouble=("rings: no time",),
    host="QEMU 7.2",
    provenance=Provenance(qemu="7.2.22", backends={"net0": "passt 2026"}),
)
