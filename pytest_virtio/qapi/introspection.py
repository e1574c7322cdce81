"""QEMU's side of the introspection: command names, JSON keys, feature texts and error texts, turned into the model.

The only module that knows ``x-query-virtio-*``; everything in it is pure, and no reply, however odd, makes it raise
anything but ReplyError. It must not know when a query is safe, nor how to send one.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from pytest_virtio.errors import ReplyError, UsageError
from pytest_virtio.model.features import Features
from pytest_virtio.model.queue import (
    VirtioQueueElement,
    VirtioRingAvail,
    VirtioRingDesc,
    VirtioRingUsed,
    VirtQueueStatus,
    VirtVhostQueueStatus,
)
from pytest_virtio.model.status import VhostStatus, VirtioInfo, VirtioStatus
from pytest_virtio.qapi.reply import Reply, type_name
from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.devices import device_type
from pytest_virtio.spec.features import FeatureNames
from pytest_virtio.spec.status import DeviceStatus, status_names
from pytest_virtio.spec.vhost_user import PROTOCOL_FEATURE_NAMES

__all__ = (
    "QUERY_QUEUE_ELEMENT",
    "QUERY_QUEUE_STATUS",
    "QUERY_STATUS",
    "QUERY_VHOST_QUEUE_STATUS",
    "QUERY_VIRTIO",
    "feature_bit",
    "is_invalid_queue_error",
    "is_no_devices_error",
    "is_not_started_error",
    "parse_list",
    "parse_queue_element",
    "parse_queue_status",
    "parse_status",
    "parse_vhost_queue_status",
)

QUERY_VIRTIO: Final = "x-query-virtio"
QUERY_STATUS: Final = "x-query-virtio-status"
QUERY_QUEUE_STATUS: Final = "x-query-virtio-queue-status"
QUERY_VHOST_QUEUE_STATUS: Final = "x-query-virtio-vhost-queue-status"
QUERY_QUEUE_ELEMENT: Final = "x-query-virtio-queue-element"

MOST_QUEUES: Final = 1 << 16

# Texts whose part before ":" misleads, by the whole text.
_MISLABELLED: Final = {
    # QEMU 10.0.2 names bit 55 as bit 54; right from 10.0.13 on.
    "VIRTIO_NET_F_GUEST_USO4: Driver can receive USOv6": 55,
    # QEMU 10.2 and 11.1 name bit 66 as bit 65.
    "VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO: Driver can receive GSO over UDP tunnel packets requiring checksum offload for "
    "the outer header": 66,
    # Typing errors, from 8.2 on and in all versions.
    "VIRTIO_MEM_F_PERSISTENT_SUSPND: Plugged memory will remain plugged when suspending+resuming": 2,
    "VIRTIO_I2C_F_ZERO_LEGNTH_REQUEST: Zero length requests supported": 0,
    # Virtio-pci sets bit 30, BAD_FEATURE, in the host features of every device; QEMU's device tables call it so.
    "VHOST_USER_F_PROTOCOL_FEATURES: Vhost-user protocol features negotiation supported": 30,
    "PROTOCOL_FEATURES": 30,
    # Behind ANY_LAYOUT in QEMU's lookup, so that it never shows; kept for it stands in the table.
    "VHOST_NET_F_VIRTIO_NET_HDR: Virtio-net headers for RX and TX packets supported": 27,
}

_STATUS_PREFIX: Final = "VIRTIO_CONFIG_S_"
_STATUS_NAMES: Final = frozenset(DeviceStatus.__members__)


# Bounded, for the texts come out of replies.
@lru_cache(maxsize=4096)
def feature_bit(text: str, known: FeatureNames) -> int | None:
    """Return the bit that a feature text of a reply stands for, or ``None`` if no table knows it.

    :param text: ``"VIRTIO_NET_F_MTU: Device max MTU …"``, or ``"MTU"``, ``"mtu"`` as in the patch series of 2022.
    :param known: the names that go for this set.
    """
    if text in _MISLABELLED:
        return _MISLABELLED[text]
    name = _label(text)
    for spelling in (name, name.upper().replace("-", "_")):
        try:
            return known.bit(spelling)
        except UsageError:
            continue
    return None


def parse_list(reply: object) -> tuple[VirtioInfo, ...]:
    """Turn the reply of ``x-query-virtio`` into devices, sorted by path: QEMU's own order means nothing.

    :param reply: the ``return`` member of QEMU's answer.
    :raise ReplyError: the reply lacks a required key, or has one of a wrong type.
    """
    if not isinstance(reply, list):
        raise ReplyError(QUERY_VIRTIO, "return", f"a list is wanted, not {type_name(reply)}")
    items = (Reply(QUERY_VIRTIO, item, f"[{index}]") for index, item in enumerate(reply))
    return tuple(sorted(VirtioInfo(path=item.text("path"), name=item.text("name")) for item in items))


def parse_status(reply: object, source: str = QUERY_STATUS) -> VirtioStatus:
    """Turn the reply of ``x-query-virtio-status`` into the state of a device.

    Required are name, id, status, guest and host features; QEMU may drop others, as 11.1 did with ``backend-features``.

    :param reply: the ``return`` member of QEMU's answer.
    :param source: by which way it was got.
    :raise ReplyError: the reply lacks a required key, or has one of a wrong type.
    """
    top = Reply(QUERY_STATUS, reply)
    device_id = top.natural("device-id")
    device = device_type(device_id)
    known = device.feature_names
    host_features = _features(top.child("host-features"), known)
    flags = ("vhost-started", "broken", "disabled", "disable-legacy-check", "started", "use-started")
    more_flags = ("start-on-kick", "use-guest-notifier-mask", "vm-running")
    return VirtioStatus(
        name=top.text("name"),
        device_id=device_id,
        status=_status(top.child("status")),
        guest_features=_features(top.child("guest-features"), known, host_features),
        host_features=host_features,
        backend_features=_features(top.child("backend-features"), known) if top.has("backend-features") else None,
        bus_name=top.optional("bus-name", str),
        num_vqs=_queue_count(top.optional("num-vqs", int)),
        queue_sel=top.optional("queue-sel", int),
        isr=top.optional("isr", int),
        device_endian=top.optional("device-endian", str),
        vhost_dev=_vhost(top.child("vhost-dev"), device) if top.has("vhost-dev") else None,
        source=source,
        **{key.replace("-", "_"): top.optional(key, bool) for key in (*flags, *more_flags)},
        extra=top.extra(),
    )


def parse_queue_status(reply: object, source: str = QUERY_QUEUE_STATUS) -> VirtQueueStatus:
    """Turn the reply of ``x-query-virtio-queue-status`` into the state of a queue.

    :param reply: the ``return`` member of QEMU's answer.
    :param source: by which way it was got.
    :raise ReplyError: the reply lacks a required key, or has one of a wrong type.
    """
    top = Reply(QUERY_QUEUE_STATUS, reply)
    return VirtQueueStatus(
        name=top.text("name"),
        queue_index=top.integer("queue-index"),
        inuse=top.integer("inuse"),
        vring_num=top.integer("vring-num"),
        vring_num_default=top.integer("vring-num-default"),
        vring_align=top.integer("vring-align"),
        vring_desc=top.integer("vring-desc"),
        vring_avail=top.integer("vring-avail"),
        vring_used=top.integer("vring-used"),
        used_idx=top.integer("used-idx"),
        signalled_used=top.integer("signalled-used"),
        signalled_used_valid=top.flag("signalled-used-valid"),
        last_avail_idx=top.optional("last-avail-idx", int),
        shadow_avail_idx=top.optional("shadow-avail-idx", int),
        source=source,
        extra=top.extra(),
    )


def parse_vhost_queue_status(reply: object, source: str = QUERY_VHOST_QUEUE_STATUS) -> VirtVhostQueueStatus:
    """Turn the reply of ``x-query-virtio-vhost-queue-status`` into vhost's view of a queue.

    :param reply: the ``return`` member of QEMU's answer.
    :param source: by which way it was got.
    :raise ReplyError: the reply lacks a required key, or has one of a wrong type.
    """
    top = Reply(QUERY_VHOST_QUEUE_STATUS, reply)
    return VirtVhostQueueStatus(
        name=top.text("name"),
        kick=top.integer("kick"),
        call=top.integer("call"),
        num=top.integer("num"),
        desc_phys=top.integer("desc-phys"),
        desc_size=top.integer("desc-size"),
        avail_phys=top.integer("avail-phys"),
        avail_size=top.integer("avail-size"),
        used_phys=top.integer("used-phys"),
        used_size=top.integer("used-size"),
        # User addresses are gone since QEMU commit aecdd29f0941 (in 11.1).
        desc=top.optional("desc", int),
        avail=top.optional("avail", int),
        used=top.optional("used", int),
        source=source,
        extra=top.extra(),
    )


def parse_queue_element(reply: object, source: str = QUERY_QUEUE_ELEMENT) -> VirtioQueueElement:
    """Turn the reply of ``x-query-virtio-queue-element`` into an element; QEMU's descriptors come last first.

    :param reply: the ``return`` member of QEMU's answer.
    :param source: by which way it was got.
    :raise ReplyError: the reply lacks a required key, or has one of a wrong type.
    """
    top = Reply(QUERY_QUEUE_ELEMENT, reply)
    avail, used = top.child("avail"), top.child("used")
    return VirtioQueueElement(
        name=top.text("name"),
        index=top.integer("index"),
        descs=tuple(
            VirtioRingDesc(desc.integer("addr"), desc.integer("len"), frozenset(desc.texts("flags")))
            for desc in reversed(top.children("descs"))
        ),
        avail=VirtioRingAvail(avail.integer("flags"), avail.integer("idx"), avail.integer("ring")),
        used=VirtioRingUsed(used.integer("flags"), used.integer("idx")),
        source=source,
        extra=top.extra(),
    )


def is_no_devices_error(desc: str) -> bool:
    """Say whether ``x-query-virtio`` found no device; QEMU before 8.2 returns an empty list instead."""
    return desc == "No virtio devices found"


def is_not_started_error(desc: str) -> bool:
    """Say whether ``x-query-virtio-vhost-queue-status`` found no vhost backend that runs."""
    return desc == "Error: vhost device has not started yet"


def is_invalid_queue_error(desc: str) -> bool:
    """Say whether a queue does not exist, or isn't one that vhost serves."""
    return re.match(r"Invalid (vhost )?virtqueue number \d", desc) is not None


def _queue_count(count: int | None) -> int | None:
    """A device's queues, which have indices of 16 bits: a number beyond would have somebody name them all."""
    if count is not None and not 0 <= count < MOST_QUEUES:
        raise ReplyError(QUERY_STATUS, "num-vqs", f"0 to {MOST_QUEUES - 1} is wanted, not {count}")
    return count


def _features(reply: Reply, known: FeatureNames, offered: Features | None = None) -> Features:
    texts = reply.texts("protocols" if known is PROTOCOL_FEATURE_NAMES else "transports")
    texts += reply.texts("dev-features") if reply.has("dev-features") else []
    # The second number holds bits 64..127, since QEMU 10.2.
    bits = reply.optional_bits("unknown-dev-features") | reply.optional_bits("unknown-protocols")
    bits |= reply.optional_bits("unknown-dev-features2") << 64
    strange = []
    for text in texts:
        bit = feature_bit(text, known)
        if bit is None:
            strange.append(text)
        else:
            bits |= 1 << bit
    return Features(bits, known, offered=offered, texts=strange)


def _status(reply: Reply) -> frozenset[str]:
    names = (_status_name(text) for text in reply.texts("statuses"))
    return frozenset(names) | status_names(reply.optional_bits("unknown-statuses"))


def _status_name(text: str) -> str:
    """Return a status bit's name; the patch series of 2022 wrote ``"driver-ok"``, and an unknown one stays as it is."""
    label = _label(text).removeprefix(_STATUS_PREFIX)
    folded = label.upper().replace("-", "_")
    return folded if folded in _STATUS_NAMES else label


def _vhost(reply: Reply, device: DeviceType) -> VhostStatus:
    known = device.vhost_feature_names
    offered = _features(reply.child("features"), known)
    backend, protocol = reply.has("backend-features"), reply.has("protocol-features")
    return VhostStatus(
        n_mem_sections=reply.integer("n-mem-sections"),
        n_tmp_sections=reply.integer("n-tmp-sections"),
        nvqs=reply.integer("nvqs"),
        vq_index=reply.integer("vq-index"),
        features=offered,
        acked_features=_features(reply.child("acked-features"), known, offered),
        backend_features=_features(reply.child("backend-features"), known) if backend else None,
        protocol_features=_features(reply.child("protocol-features"), PROTOCOL_FEATURE_NAMES) if protocol else None,
        max_queues=reply.integer("max-queues"),
        backend_cap=reply.integer("backend-cap"),
        log_enabled=reply.flag("log-enabled"),
        log_size=reply.integer("log-size"),
    )


def _label(text: str) -> str:
    return text.partition(":")[0].strip()
