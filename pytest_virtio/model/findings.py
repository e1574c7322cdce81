"""What was found of a VM and its devices at one moment: an answer to each question, or why there is none.

Responsible for the fields; it must not know who asked, by which way, or how any of it is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_virtio.model.history import History
from pytest_virtio.model.provenance import Provenance
from pytest_virtio.model.queue import VirtQueueStatus, VirtVhostQueueStatus
from pytest_virtio.model.ring import Ring
from pytest_virtio.model.status import VirtioStatus
from pytest_virtio.model.stuck import QueueVerdict
from pytest_virtio.model.wire import ToldBackend

__all__ = ("DeviceFindings", "Findings", "QueueFindings", "WireFindings")


@dataclass(frozen=True, slots=True)
class QueueFindings:
    """A queue; None is what could not be found out, or was not asked.

    :param no_answer: why there is no status; "" where there is.
    :param vhost: the queue as its vhost backend was told of it.
    """

    status: VirtQueueStatus | None = None
    no_answer: str = ""
    ring: Ring | None = None
    verdict: QueueVerdict | None = None
    vhost: VirtVhostQueueStatus | None = None


@dataclass(frozen=True, slots=True)
class WireFindings:
    """What a witness has seen between QEMU and a vhost-user backend, less the messages themselves.

    :param count: how many messages there were.
    :param ended: why the connection has ended; "" while it stands.
    """

    count: int
    told: ToldBackend
    ended: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFindings:
    """A device.

    :param path: its QOM path.
    :param no_answer: why there is no status; "" where there is.
    :param queues: the first ones, in the order of their indices.
    :param history: of a device that is not at DRIVER_OK; of each once QEMU has ended.
    :param offered_by_backend: the bits that its vhost-user backend offers; None where there is none.
    :param masked_by_test: the bits of these that the test has taken away on the wire.
    """

    path: str
    status: VirtioStatus | None = None
    no_answer: str = ""
    queues: tuple[QueueFindings, ...] = ()
    history: History | None = None
    offered_by_backend: int | None = None
    masked_by_test: int = 0
    wire: WireFindings | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """A VM.

    :param devices: the first ones, by id.
    :param hidden: how many more devices there are.
    :param state: what is wrong with the VM as a whole, or with what serves its devices, a line each.
    :param trouble: what else could not be found out, and why.
    :param host: QEMU, machine and accelerator, in words.
    :param provenance: all that the VM runs on.
    """

    devices: Mapping[str, DeviceFindings] = field(hash=False)
    hidden: int = 0
    state: tuple[str, ...] = ()
    trouble: tuple[str, ...] = ()
    host: str = ""
    provenance: Provenance = field(default_factory=Provenance)
