"""The negotiation profile of a running VM.

Responsible for bringing together what stays the same from run to run, all devices at once; must not know how any of it
is asked for, nor what a profile is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_virtio.introspect.config import constant_configs
from pytest_virtio.introspect.query import Place, raised
from pytest_virtio.launch import RunningVm
from pytest_virtio.model.negotiation import FeatureNegotiation, negotiation
from pytest_virtio.model.profile import ConfigValue, DeviceProfile, FeatureProfile, Profile, QueueProfile
from pytest_virtio.model.queue import VirtQueueStatus
from pytest_virtio.model.status import VirtioInfo, VirtioStatus
from pytest_virtio.spec.devices import device_type
from pytest_virtio.spec.features import TransportFeature
from pytest_virtio.vm.deadline import Deadline

__all__ = ("profile",)


def profile(running: RunningVm, ids: Sequence[str], seconds: float) -> Profile:
    """The profile of these devices. Asking does not disturb them.

    :raises DisturbingQueryError: where a queue's size can't be had without; a witness (``wire=True``) tells it.
    :raises MonitorTimeoutError: when QEMU doesn't answer in time.
    :raises QemuExitedError: when it is gone.
    """
    deadline = Deadline.after(seconds)
    answers = running.introspector.statuses([running.paths[id] for id in ids], deadline.remaining())
    statuses = {path: raised(answer) for path, answer in answers.items()}
    queues = _queues(running, statuses, deadline)
    held = {path: status for path, status in statuses.items() if running.introspector.holds_config(path)}
    configs = constant_configs(running.qemu, running.qemu.qtest, running.calm, held, deadline.remaining())
    devices = {
        id: _device(running, path, statuses[path], queues, configs.get(path, {}))
        for id, path in ((id, running.paths[id]) for id in ids)
    }
    return Profile(devices, running.provenance)


def _queues(
    running: RunningVm, statuses: Mapping[str, VirtioStatus], deadline: Deadline
) -> Mapping[Place, VirtQueueStatus]:
    """The queues of the devices whose drivers have set them up."""
    ready = {path: status for path, status in statuses.items() if status.driver_ok}
    indices = {path: range(status.num_vqs or 0) for path, status in ready.items()}
    answers = running.introspector.queue_statuses(ready, indices, deadline.remaining())
    return {place: raised(answer) for place, answer in answers.items()}


def _device(
    running: RunningVm,
    path: str,
    status: VirtioStatus,
    queues: Mapping[Place, VirtQueueStatus],
    config: Mapping[str, ConfigValue],
) -> DeviceProfile:
    type, vhost = device_type(status.device_id), status.vhost_dev
    id = VirtioInfo(path, "").id
    rows = negotiation(status, running.offered_by_backend(id), running.masked_by_test(id))
    names = type.queue_names(status.num_vqs or 0, status.host_features.bits)
    spoken = vhost.protocol_features if vhost else None
    return DeviceProfile(
        type=type.name,
        transport=_transport(running.spec.transport, status, mmio=VirtioInfo(path, "").proxy == path),
        features={row.feature: _feature(row) for row in rows},
        queues=tuple(QueueProfile(called[0], _size(queues.get((path, n)))) for n, called in enumerate(names)),
        config=config,
        protocol_features=None if spoken is None else spoken.names,
    )


def _feature(row: FeatureNegotiation) -> FeatureProfile:
    """What a test's own mask takes away the backend does not offer, as far as QEMU can see."""
    return FeatureProfile(row.offered, row.acknowledged, row.backend_offers and not row.masked)


def _size(queue: VirtQueueStatus | None) -> int:
    return queue.vring_num if queue is not None and queue.vring_desc else 0


def _transport(declared: str, status: VirtioStatus, *, mmio: bool) -> str:
    """By which interface the device is driven: only a legacy driver does without VERSION_1 (6.1). As declared while no
    driver has told."""
    bus, features = "mmio" if mmio else "pci", status.guest_features
    if features.untold or not status.driver_ok:
        return declared
    return bus if TransportFeature.VERSION_1.full_name in features else f"{bus}-legacy"
