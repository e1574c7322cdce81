"""States laid out as QEMU's HMP prints them.

Responsible for that layout; must not know how anything was read. Where it differs from QEMU's ``info virtio*`` of any
version: features and status bits carry no description; features stand from the highest bit to the lowest, by the
specification's names, and bits that QEMU has no text for, or a wrong one, by their names too; a buffer's length isn't
shown as negative; keys that no table knows follow at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from pytest_virtio.model.features import Features
from pytest_virtio.model.queue import VirtioQueueElement, VirtioRingDesc, VirtQueueStatus, VirtVhostQueueStatus
from pytest_virtio.model.status import VhostStatus, VirtioInfo, VirtioStatus
from pytest_virtio.render.text import safe
from pytest_virtio.spec.status import DeviceStatus, unknown_status_bits

__all__ = (
    "virtio_list",
    "virtio_queue_element",
    "virtio_queue_status",
    "virtio_status",
    "virtio_vhost_queue_status",
)

# The order of QEMU's list of status bits, backwards, as its lists come.
_STATUS_ORDER: Final = ("ACKNOWLEDGE", "FAILED", "NEEDS_RESET", "DRIVER", "FEATURES_OK", "DRIVER_OK")
_DESC_FLAGS_ORDER: Final = ("used", "avail", "indirect", "write", "next")


def virtio_list(devices: Iterable[VirtioInfo]) -> Iterator[str]:
    """Yield the lines of ``info virtio``, in the order given; one that says so if there is no device."""
    empty = True
    for device in devices:
        empty = False
        yield f"{safe(device.path)} [{safe(device.name)}]"
    if empty:
        yield "No VirtIO devices"


def virtio_status(path: str, status: VirtioStatus) -> Iterator[str]:
    """Yield the lines of ``info virtio-status``; those of ``None`` fields go away.

    :param path: the device's QOM path.
    """
    vhost = "(vhost)" if status.vhost_started else ""
    yield f"{safe(path)}:"
    yield f"  device_name:             {safe(status.name)} {vhost}"
    yield from _fields("  ", 25, _status_fields(status))
    yield "  status:"
    yield from _status_bits(status.status)
    yield from _feature_block("  Guest features:", status.guest_features)
    yield from _feature_block("  Host features:", status.host_features)
    yield from _feature_block("  Backend features:", status.backend_features)
    if status.vhost_dev is not None:
        yield from _vhost(status.vhost_dev)
    yield from _extra(status.extra)


def virtio_queue_status(path: str, queue: VirtQueueStatus) -> Iterator[str]:
    """Yield the lines of ``info virtio-queue-status``; those of ``None`` fields go away.

    :param path: the device's QOM path.
    """
    yield f"{safe(path)}:"
    fields = ("name", "queue_index", "inuse", "used_idx", "signalled_used", "signalled_used_valid")
    shown = {name: getattr(queue, name) for name in (*fields, "last_avail_idx", "shadow_avail_idx")}
    yield from _fields("  ", 22, {"device_name": shown.pop("name"), **shown})
    yield "  VRing:"
    sizes = {"num": queue.vring_num, "num_default": queue.vring_num_default, "align": queue.vring_align}
    addresses = {"desc": queue.vring_desc, "avail": queue.vring_avail, "used": queue.vring_used}
    yield from _fields("    ", 14, {**sizes, **{name: _address(value) for name, value in addresses.items()}})
    yield from _extra(queue.extra)


def virtio_vhost_queue_status(path: str, queue: VirtVhostQueueStatus) -> Iterator[str]:
    """Yield the lines of ``info virtio-vhost-queue-status``; those of ``None`` fields go away.

    :param path: the device's QOM path.
    """
    yield f"{safe(path)}:"
    yield f"  device_name:          {safe(queue.name)} (vhost)"
    yield from _fields("  ", 22, {"kick": queue.kick, "call": queue.call})
    yield "  VRing:"
    yield from _fields("    ", 13, {"num": queue.num})
    for part in ("desc", "avail", "used"):
        own, phys, size = (getattr(queue, f"{part}{suffix}") for suffix in ("", "_phys", "_size"))
        yield from _fields("    ", 13, {part: _address(own), f"{part}_phys": _address(phys), f"{part}_size": size})
    yield from _extra(queue.extra)


def virtio_queue_element(path: str, element: VirtioQueueElement) -> Iterator[str]:
    """Yield the lines of ``info virtio-queue-element``: the last descriptor of the chain first.

    :param path: the device's QOM path.
    """
    yield f"{safe(path)}:"
    yield f"  device_name: {safe(element.name)}"
    yield f"  index:   {element.index}"
    yield "  desc:"
    yield "    descs:"
    yield from _comma_separated("        ", [_desc(desc) for desc in reversed(element.descs)])
    yield "  avail:"
    yield from _fields("    ", 7, {"flags": element.avail.flags, "idx": element.avail.idx, "ring": element.avail.ring})
    yield "  used:"
    yield from _fields("    ", 7, {"flags": element.used.flags, "idx": element.used.idx})
    yield from _extra(element.extra)


def _status_fields(status: VirtioStatus) -> dict[str, object]:
    names = ("broken", "disabled", "disable_legacy_check", "started", "use_started", "start_on_kick")
    more = ("use_guest_notifier_mask", "vm_running", "num_vqs", "queue_sel", "isr")
    return {
        "device_id": status.device_id,
        "vhost_started": status.vhost_started,
        # QEMU prints a name that it lacks as C's printf does.
        "bus_name": "(null)" if status.bus_name == "" else status.bus_name,
        **{name: getattr(status, name) for name in (*names, *more)},
        "endianness": status.device_endian,
    }


def _fields(indent: str, width: int, fields: Mapping[str, object]) -> Iterator[str]:
    """Yield ``name: value`` with values at one column, without those that are ``None``."""
    for name, value in fields.items():
        if value is not None:
            yield f"{indent}{name + ':':<{width}}{_value(value)}"


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else safe(str(value))


def _address(address: int | None) -> str | None:
    return None if address is None else f"0x{address:016x}"


def _comma_separated(indent: str, items: list[str]) -> Iterator[str]:
    """Yield a line for each item with a comma between; an empty list is an empty line."""
    for item in items[:-1]:
        yield f"{indent}{item},"
    yield f"{indent}{items[-1]}" if items else ""


def _status_bits(names: AbstractSet[str]) -> Iterator[str]:
    known = [f"VIRTIO_CONFIG_S_{name}" for name in _STATUS_ORDER if name in names]
    unknown = unknown_status_bits(names)
    strange = sorted(name for name in names if name not in DeviceStatus.__members__ and not unknown_status_bits({name}))
    yield from _comma_separated("\t", known + [safe(name) for name in strange])
    if unknown:
        yield f"  unknown-statuses(0x{unknown:016x})"


def _feature_block(title: str, features: Features | None) -> Iterator[str]:
    """Yield a heading, the transport's features, the device's, and the bits that have no name."""
    if features is None:
        return
    if features.untold:
        yield f"{title} not told: {safe(features.untold)}"
        return
    named = _named(features)
    own = [name for name in named if not _is_transport(name)] + [safe(text) for text in features.texts]
    yield title
    yield from _comma_separated("\t", [name for name in named if _is_transport(name)])
    if own:
        yield from _comma_separated("\t", own)
    yield from _unknown_bits("features", features)


def _named(features: Features) -> list[str]:
    """Return the features that have names, the highest bit first, as QEMU's lists come (mostly)."""
    known = features.feature_names
    return [name for name in reversed(features.names) if known.is_known(known.bit(name))]


def _is_transport(name: str) -> bool:
    return name.startswith(("VIRTIO_F_", "VIRTIO_RING_F_"))


def _unknown_bits(kind: str, features: Features) -> Iterator[str]:
    bits = sum(1 << bit for bit in features.unknown)
    if bits:
        # QEMU prints 32 digits since 10.2, where it holds 128 bits.
        yield f"  unknown-{kind}(0x{bits:0{32 if bits >> 64 else 16}x})"


def _vhost(vhost: VhostStatus) -> Iterator[str]:
    fields = (
        "nvqs",
        "vq_index",
        "max_queues",
        "n_mem_sections",
        "n_tmp_sections",
        "backend_cap",
        "log_enabled",
        "log_size",
    )
    yield "  VHost:"
    yield from _fields("    ", 16, {name: getattr(vhost, name) for name in fields})
    yield from _feature_block("    Features:", vhost.features)
    yield from _feature_block("    Acked features:", vhost.acked_features)
    yield from _feature_block("    Backend features:", vhost.backend_features)
    if vhost.protocol_features is not None:
        yield from _protocol_block(vhost.protocol_features)


def _protocol_block(protocol: Features) -> Iterator[str]:
    yield "    Protocol features:"
    yield from _comma_separated("\t", _named(protocol) + [safe(text) for text in protocol.texts])
    yield from _unknown_bits("protocols", protocol)


def _desc(desc: VirtioRingDesc) -> str:
    known = [flag for flag in _DESC_FLAGS_ORDER if flag in desc.flags]
    flags = ", ".join(known + [safe(flag) for flag in sorted(desc.flags.difference(_DESC_FLAGS_ORDER))])
    return f"addr 0x{desc.addr:x} len {desc.len}" + (f" ({flags})" if flags else "")


def _extra(extra: Mapping[str, object]) -> Iterator[str]:
    for key, value in extra.items():
        yield f"  {safe(key)}: {safe(str(value))}"
