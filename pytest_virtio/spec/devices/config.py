"""What a device's configuration space holds: which field is there with which features, and which is not constant.

Responsible for the table of all types (virtio 1.3 section 5, the number beside each) and for reading a type's fields
by it; must not know how configuration space is reached. Windows that a driver moves (input's) are no fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from pytest_virtio.spec.devices.blk import BLK, BlkConfig, BlkFeature
from pytest_virtio.spec.devices.console import CONSOLE, ConsoleConfig, ConsoleFeature
from pytest_virtio.spec.devices.crypto import CRYPTO, CryptoConfig
from pytest_virtio.spec.devices.fs import FS, FsConfig, FsFeature
from pytest_virtio.spec.devices.gpu import GPU, GpuConfig
from pytest_virtio.spec.devices.iommu import IOMMU, IommuConfig, IommuFeature
from pytest_virtio.spec.devices.mem import MEM, MemConfig, MemFeature
from pytest_virtio.spec.devices.net import NET, NetConfig, NetFeature
from pytest_virtio.spec.devices.p9 import P9, P9Config, P9Feature
from pytest_virtio.spec.devices.pmem import PMEM, PmemConfig
from pytest_virtio.spec.devices.scsi import SCSI, ScsiConfig
from pytest_virtio.spec.devices.sound import SOUND, SoundConfig, SoundFeature
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.layout import ByteOrder, Layout

__all__ = ("CONFIGS", "DeviceConfig")

Needs = Mapping[str, tuple[Feature, ...]]


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """The configuration space of a device type.

    :param layout: its structure, from offset 0 on.
    :param needs: for a field that is not always there, the features any of which brings it.
    :param volatile: fields that the driver writes, that change by themselves or that hold an address which the machine
        gave, and padding.
    :param text: fields whose bytes are text; those of others are numbers in hexadecimal, as of an Ethernet address.
    """

    layout: type[Layout]
    needs: Needs = field(default_factory=dict, hash=False)
    volatile: frozenset[str] = frozenset()
    text: frozenset[str] = frozenset()

    def constants(self, data: bytes, features: int, order: ByteOrder = "little") -> dict[str, int | str]:
        """The fields that are there and constant, by the specification's names, those of a structure inside as
        ``"topology.min_io_size"``.

        :param data: configuration space from its beginning; a field beyond its end is left out.
        :param features: the bits that the device offers.
        """
        whole = self.layout.unpack(data, order)
        return dict(pair for name in self._constant(len(data), features) for pair in self._told(name, whole))

    def _constant(self, length: int, features: int) -> Iterator[str]:
        for name in self.layout.names():
            needed = self.needs.get(name, ())
            there = not needed or any(features >> bit & 1 for bit in needed)
            ends = self.layout.offset(name) + self.layout.width_of(name)
            if there and ends <= length and name not in self.volatile:
                yield name

    def _told(self, name: str, whole: Layout) -> Iterator[tuple[str, int | str]]:
        value, called = getattr(whole, name), name.rstrip("_")
        if isinstance(value, Layout):
            inside = ((part, getattr(value, part)) for part in value.names() if part not in self.volatile)
            yield from ((f"{called}.{part}", number) for part, number in inside)
        elif isinstance(value, bytes):
            is_text = name in self.text
            yield called, value.rstrip(b"\0").decode("utf-8", "backslashreplace") if is_text else value.hex(":")
        else:
            yield called, value


def _net() -> DeviceConfig:
    f = NetFeature
    return DeviceConfig(
        NetConfig,
        needs={
            "mac": (f.MAC,),
            "max_virtqueue_pairs": (f.MQ, f.RSS),
            "mtu": (f.MTU,),
            "speed": (f.SPEED_DUPLEX,),
            "duplex": (f.SPEED_DUPLEX,),
            "rss_max_key_size": (f.RSS, f.HASH_REPORT),
            "rss_max_indirection_table_length": (f.RSS,),
            "supported_hash_types": (f.RSS, f.HASH_REPORT),
            "supported_tunnel_types": (f.HASH_TUNNEL,),
        },
        # The link's state, and ANNOUNCE.
        volatile=frozenset({"status"}),
    )


def _blk() -> DeviceConfig:
    f = BlkFeature
    by_feature = {
        f.SIZE_MAX: ("size_max",),
        f.SEG_MAX: ("seg_max",),
        f.GEOMETRY: ("geometry",),
        f.BLK_SIZE: ("blk_size",),
        f.TOPOLOGY: ("topology",),
        f.MQ: ("num_queues",),
        f.DISCARD: ("max_discard_sectors", "max_discard_seg", "discard_sector_alignment"),
        f.WRITE_ZEROES: ("max_write_zeroes_sectors", "max_write_zeroes_seg", "write_zeroes_may_unmap"),
        f.SECURE_ERASE: ("max_secure_erase_sectors", "max_secure_erase_seg", "secure_erase_sector_alignment"),
        f.ZONED: ("zoned",),
    }
    needs = {name: (feature,) for feature, names in by_feature.items() for name in names}
    return DeviceConfig(BlkConfig, needs, frozenset({"writeback", "unused0", "unused1", "unused2"}))


CONFIGS: Mapping[int, DeviceConfig] = MappingProxyType(
    {
        # 5.1.4
        NET.id: _net(),
        # 5.2.4: the driver writes writeback.
        BLK.id: _blk(),
        # 5.3.4: cols and rows are the host's window; the driver writes emerg_wr.
        CONSOLE.id: DeviceConfig(
            ConsoleConfig,
            {"max_nr_ports": (ConsoleFeature.MULTIPORT,)},
            frozenset({"cols", "rows", "emerg_wr"}),
        ),
        # 5.6.4: the driver writes these two.
        SCSI.id: DeviceConfig(ScsiConfig, volatile=frozenset({"sense_size", "cdb_size"})),
        # 5.7.4
        GPU.id: DeviceConfig(GpuConfig, volatile=frozenset({"events_read", "events_clear"})),
        # 5.9.5: status says whether the hardware is ready.
        CRYPTO.id: DeviceConfig(CryptoConfig, volatile=frozenset({"status"})),
        # Linux virtio_9p.h
        P9.id: DeviceConfig(P9Config, {"tag_len": (P9Feature.MOUNT_TAG,)}),
        # 5.11.4
        FS.id: DeviceConfig(FsConfig, {"notify_buf_size": (FsFeature.NOTIFICATION,)}, text=frozenset({"tag"})),
        # 5.13.4: the driver writes bypass.
        IOMMU.id: DeviceConfig(
            IommuConfig,
            {
                "input_range": (IommuFeature.INPUT_RANGE,),
                "domain_range": (IommuFeature.DOMAIN_RANGE,),
                "probe_size": (IommuFeature.PROBE,),
            },
            frozenset({"bypass", "reserved"}),
        ),
        # 5.14.4
        SOUND.id: DeviceConfig(SoundConfig, {"controls": (SoundFeature.CTLS,)}),
        # 5.15.4: the device may grow and shrink what is usable; addr is where the machine has put it.
        MEM.id: DeviceConfig(
            MemConfig,
            {"node_id": (MemFeature.ACPI_PXM,)},
            frozenset({"padding", "addr", "usable_region_size", "plugged_size", "requested_size"}),
        ),
        # 5.19.4: start is where the machine has put it.
        PMEM.id: DeviceConfig(PmemConfig, volatile=frozenset({"start"})),
    }
)
"""By type id. There is none of types without a constant field: all of balloon's (5.5.4) are the driver's or change,
input's (5.8.4) is a window, and vsock's (5.10.4) is an address that the host gives the guest for the time being."""
