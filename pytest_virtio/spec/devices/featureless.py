"""Device types without feature bits and structures: ids, names and, where a specification gives them, queues.

Responsible for the rest of virtio 1.3 section 5's table of ids and Linux virtio_ids.h; it must not know types that
have feature bits or structures, each of which has a module. A buffer of the entropy device has nothing but random
bytes in it (section 5.4.6).
"""

from __future__ import annotations

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.queues import in_order

__all__ = ("FEATURELESS", "RNG")

RNG = DeviceType(4, "rng", "entropy device", None, in_order(("request", "requestq")))

FEATURELESS = (
    RNG,
    DeviceType(6, "iomem", "ioMemory device"),
    DeviceType(10, "mac80211-wlan", "mac80211 wlan device"),
    DeviceType(11, "rproc-serial", "rproc serial device"),
    DeviceType(12, "caif", "virtio CAIF device"),
    DeviceType(13, "memory-balloon", "memory balloon device"),
    DeviceType(21, "signal-dist", "signal distribution module"),
    DeviceType(22, "pstore", "pstore device"),
    DeviceType(28, "rpmb", "RPMB device", None, in_order(("request", "requestq"))),
    DeviceType(29, "mac80211-hwsim", "mac80211 hwsim wireless simulation device"),
    DeviceType(30, "video-encoder", "video encoder device"),
    DeviceType(31, "video-decoder", "video decoder device"),
    DeviceType(33, "nsm", "nitro secure module"),
    DeviceType(35, "watchdog", "watchdog device"),
    # In Linux virtio_ids.h alone.
    DeviceType(37, "dmabuf", "dmabuf device"),
    DeviceType(38, "param-serv", "parameter server"),
    DeviceType(39, "audio-policy", "audio policy device"),
    DeviceType(42, "rdma", "RDMA device"),
    DeviceType(43, "camera", "camera device"),
    DeviceType(44, "ism", "ISM device"),
    DeviceType(45, "spi", "SPI controller", None, in_order(("request", "requestq"))),
)
