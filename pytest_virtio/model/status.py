"""The state of a virtio device and of its vhost backend, as ``x-query-virtio`` and ``x-query-virtio-status`` tell it.

Responsible for the fields and their meaning; it must not know which source filled them, and it judges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_virtio.model.features import Features

__all__ = ("VhostStatus", "VirtioInfo", "VirtioStatus")


@dataclass(frozen=True, slots=True, order=True)
class VirtioInfo:
    """A realized device.

    :param path: its QOM path.
    :param name: QEMU's name for its device id, ``"virtio-net"``; not the model.
    """

    path: str
    name: str

    @property
    def id(self) -> str:
        """``net0`` of ``/machine/peripheral/net0/virtio-backend``; what has no id is called as QOM calls it."""
        parts = self.proxy.split("/")
        return parts[-1] if parts[-2:-1] == ["peripheral"] else "/".join(parts[2:])

    @property
    def proxy(self) -> str:
        """The path of the device on its bus: on virtio-mmio the same, elsewhere the one above."""
        return self.path.removesuffix("/virtio-backend")


@dataclass(frozen=True, slots=True, kw_only=True)
class VhostStatus:
    """The vhost side of a started vhost device. Field names are QAPI's, ``None`` means that this source does not tell.

    :param n_mem_sections: guest memory sections that the backend knows.
    :param n_tmp_sections: sections of a memory map in the making.
    :param nvqs: queues that the backend serves.
    :param vq_index: index of the first of them.
    :param features: what the backend offers.
    :param acked_features: what QEMU set in the backend; its ``offered`` is ``features``.
    :param backend_features: ``None`` in QEMU 11.1 and later, which dropped the field.
    :param protocol_features: negotiated vhost-user protocol features; ``None`` if the backend speaks no vhost-user.
    :param max_queues: 0 if not limited.
    :param backend_cap: VHOST_BACKEND_F_* bits, 64 bits wide.
    :param log_enabled: dirty pages are being logged.
    :param log_size: size of the dirty log, in 64-bit words.
    """

    n_mem_sections: int | None = None
    n_tmp_sections: int | None = None
    nvqs: int | None = None
    vq_index: int | None = None
    features: Features
    acked_features: Features
    backend_features: Features | None = None
    protocol_features: Features | None = None
    max_queues: int | None = None
    backend_cap: int | None = None
    log_enabled: bool | None = None
    log_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtioStatus:
    """The state of a device. Field names are QAPI's, ``None`` means that this source does not tell.

    :param name: QEMU's name for the device id, ``"virtio-net"``.
    :param device_id: virtio 1.3 section 5.
    :param status: names of the set bits: ``{"ACKNOWLEDGE", "DRIVER"}``; unknown bits as one ``"0x30"``.
    :param guest_features: what the driver wrote; its ``offered`` is ``host_features``. Final from FEATURES_OK on.
    :param host_features: what the device offers.
    :param backend_features: what the backend of a vhost-net device offers; empty on all others.
    :param vhost_started: the backend serves the rings now.
    :param bus_name: name of the bus that the device opens itself (``"scsi0.0"``); ``""`` for none.
    :param broken: QEMU met an error in a ring and stopped serving the device.
    :param disabled: the device is disabled.
    :param disable_legacy_check: QEMU lets the device be legacy although it isn't one.
    :param started: the device runs.
    :param use_started: QEMU tracks ``started``.
    :param start_on_kick: a legacy driver may start the device by a notification alone.
    :param use_guest_notifier_mask: guest notifiers may be masked.
    :param vm_running: the VM runs, and the device knows it.
    :param num_vqs: number of queues with a size.
    :param queue_sel: the queue that the driver selected last.
    :param isr: the interrupt status byte.
    :param device_endian: ``"little"``, ``"big"`` or ``"unknown"``.
    :param vhost_dev: only while ``vhost_started``.
    :param source: by which way the answer was got.
    :param extra: reply keys that are in no table, nested ones as ``"vhost-dev.key"``.
    """

    name: str
    device_id: int
    status: frozenset[str]
    guest_features: Features
    host_features: Features
    backend_features: Features | None = None
    vhost_started: bool | None = None
    bus_name: str | None = None
    broken: bool | None = None
    disabled: bool | None = None
    disable_legacy_check: bool | None = None
    started: bool | None = None
    use_started: bool | None = None
    start_on_kick: bool | None = None
    use_guest_notifier_mask: bool | None = None
    vm_running: bool | None = None
    num_vqs: int | None = None
    queue_sel: int | None = None
    isr: int | None = None
    device_endian: str | None = None
    vhost_dev: VhostStatus | None = None
    source: str
    extra: Mapping[str, object] = field(default_factory=dict, hash=False)

    @property
    def driver_ok(self) -> bool:
        """The driver finished its set-up, and neither side gave up since."""
        return "DRIVER_OK" in self.status and not self.status & {"FAILED", "NEEDS_RESET"}
