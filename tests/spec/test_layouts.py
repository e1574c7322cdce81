"""Structures of device types against Linux's headers, and the turning of any structure into bytes and back."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from enum import IntEnum
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Annotated, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_virtio.errors import UsageError
from pytest_virtio.spec import devices
from pytest_virtio.spec.devices import (
    balloon,
    blk,
    console,
    crypto,
    fs,
    gpu,
    input,
    iommu,
    mem,
    net,
    p9,
    pmem,
    scsi,
    vsock,
)
from pytest_virtio.spec.devices import sound as snd
from pytest_virtio.spec.layout import U8, U16, U32, U64, ByteOrder, Layout

LINUX_HEADERS = Path("/usr/include/linux")
ORDERS: tuple[ByteOrder, ...] = ("little", "big")


def _layouts() -> list[type[Layout]]:
    modules = [import_module(f"{devices.__name__}.{found.name}") for found in iter_modules(devices.__path__)]
    classes = {value for module in modules for _, value in inspect.getmembers(module, inspect.isclass)}
    return sorted((c for c in classes if issubclass(c, Layout) and c is not Layout), key=lambda c: c.__name__)


LAYOUTS = _layouts()

# Printed by a C program from linux-libc-dev 6.1: sizeof, and offsetof of what could be misplaced.
LINUX: list[tuple[type[Layout], int, dict[str, int]]] = [
    (blk.BlkGeometry, 4, {"heads": 2, "sectors": 3}),
    (blk.BlkRequest, 16, {"reserved": 4, "sector": 8}),
    (blk.BlkDiscardWriteZeroes, 16, {"num_sectors": 8, "flags": 12}),
    (net.NetHdrLegacy, 10, {"hdr_len": 2, "csum_offset": 8}),
    (net.NetHdr, 12, {"hdr_len": 2, "csum_offset": 8, "num_buffers": 10}),
    (net.NetHdrHash, 20, {"num_buffers": 10, "hash_value": 12, "hash_report": 16, "padding_reserved": 18}),
    (net.NetCtrl, 2, {"class_": 0, "command": 1}),
    (net.NetCtrlMac, 4, {}),
    (net.NetCtrlMqPairsSet, 2, {}),
    (console.ConsoleConfig, 12, {"rows": 2, "max_nr_ports": 4, "emerg_wr": 8}),
    (console.ConsoleControl, 8, {"event": 4, "value": 6}),
    (balloon.BalloonConfig, 16, {"actual": 4, "free_page_hint_cmd_id": 8, "poison_val": 12}),
    (balloon.BalloonStat, 10, {"val": 2}),
    (scsi.ScsiConfig, 36, {"event_info_size": 16, "sense_size": 20, "cdb_size": 24, "max_target": 30, "max_lun": 32}),
    (scsi.ScsiCtrlTmf, 24, {"lun": 8, "id": 16}),
    (scsi.ScsiCtrlAn, 16, {"lun": 4, "event_requested": 12}),
    (scsi.ScsiCtrlAnResp, 5, {"response": 4}),
    (scsi.ScsiEvent, 16, {"lun": 4, "reason": 12}),
    (input.InputConfig, 136, {"subsel": 1, "size_": 2, "u": 8}),
    (input.InputAbsinfo, 20, {"max": 4, "res": 16}),
    (input.InputDevids, 8, {"version": 6}),
    (input.InputEvent, 8, {"code": 2, "value": 4}),
    (vsock.VsockConfig, 8, {}),
    (vsock.VsockHdr, 44, {"src_port": 16, "len": 24, "type": 28, "op": 30, "flags": 32, "fwd_cnt": 40}),
    (vsock.VsockEvent, 4, {}),
    (crypto.CryptoConfig, 56, {"hash_algo": 20, "max_cipher_key_len": 36, "akcipher_algo": 44, "max_size": 48}),
    (crypto.CryptoCtrlHeader, 16, {"algo": 4, "flag": 8}),
    (crypto.CryptoCipherSessionFlf, 16, {"key_len": 4, "op": 8}),
    (crypto.CryptoSymCreateSessionFlf, 56, {"op_type": 48}),
    (crypto.CryptoCreateSessionInput, 16, {"status": 8}),
    (crypto.CryptoOpHeader, 24, {"algo": 4, "session_id": 8, "flag": 16}),
    (crypto.CryptoCipherDataFlf, 16, {"src_data_len": 4, "dst_data_len": 8}),
    (crypto.CryptoSymDataFlf, 48, {"op_type": 40}),
    (crypto.CryptoInhdr, 1, {}),
    (iommu.IommuConfig, 40, {"input_range": 8, "domain_range": 24, "probe_size": 32, "bypass": 36}),
    (iommu.IommuReqHead, 4, {"reserved": 1}),
    (iommu.IommuReqTail, 4, {"reserved": 1}),
    (iommu.IommuReqProbe, 72, {"endpoint": 4, "reserved": 8}),
    (iommu.IommuProbeProperty, 4, {"length": 2}),
    (iommu.IommuProbeResvMem, 24, {"subtype": 4, "start": 8, "end": 16}),
    (iommu.IommuFault, 24, {"flags": 4, "endpoint": 8, "address": 16}),
    (mem.MemConfig, 56, {"node_id": 8, "addr": 16, "plugged_size": 40, "requested_size": 48}),
    (mem.MemReq, 24, {"u": 8}),
    (mem.MemReqBlocks, 16, {"nb_blocks": 8}),
    (mem.MemResp, 10, {"u": 8}),
    (pmem.PmemConfig, 16, {"size_": 8}),
    (pmem.PmemReq, 4, {}),
    (pmem.PmemResp, 4, {}),
    (p9.P9Config, 2, {}),
    (gpu.GpuConfig, 16, {"events_clear": 4, "num_capsets": 12}),
    (gpu.GpuCtrlHdr, 24, {"fence_id": 8, "ctx_id": 16, "ring_idx": 20}),
    (gpu.GpuRect, 16, {"width": 8}),
    (gpu.GpuDisplayOne, 24, {"enabled": 16}),
    (gpu.GpuRespDisplayInfo, 408, {"pmodes": 24}),
    (gpu.GpuGetEdid, 32, {"scanout": 24}),
    (gpu.GpuRespEdid, 1056, {"size_": 24, "edid": 32}),
    (gpu.GpuResourceCreate2d, 40, {"resource_id": 24, "format": 28, "height": 36}),
    (gpu.GpuResourceUnref, 32, {}),
    (gpu.GpuSetScanout, 48, {"r": 24, "scanout_id": 40, "resource_id": 44}),
    (gpu.GpuResourceFlush, 48, {"r": 24, "resource_id": 40}),
    (gpu.GpuTransferToHost2d, 56, {"r": 24, "offset_": 40, "resource_id": 48}),
    (gpu.GpuResourceAttachBacking, 32, {"nr_entries": 28}),
    (gpu.GpuMemEntry, 16, {"length": 8}),
    (gpu.GpuResourceDetachBacking, 32, {}),
    (gpu.GpuCursorPos, 16, {}),
    (gpu.GpuUpdateCursor, 56, {"pos": 24, "resource_id": 40, "hot_y": 48}),
    (snd.SoundHdr, 4, {}),
    (snd.SoundEvent, 8, {"data": 4}),
    (snd.SoundQueryInfo, 16, {"count": 8, "size_": 12}),
    (snd.SoundJackInfo, 24, {"features": 4, "connected": 16}),
    (snd.SoundPcmInfo, 32, {"formats": 8, "rates": 16, "direction": 24, "channels_max": 26}),
    (snd.SoundPcmHdr, 8, {"stream_id": 4}),
    (snd.SoundPcmSetParams, 24, {"buffer_bytes": 8, "channels": 20, "rate": 22}),
    (snd.SoundPcmXfer, 4, {}),
    (snd.SoundPcmStatus, 8, {"latency_bytes": 4}),
    (snd.SoundChmapInfo, 24, {"direction": 4, "channels": 5, "positions": 6}),
]

# Linux's structure is shorter for it lacks the newest fields: the first of these, and where Linux's ends.
NEWER_THAN_LINUX_6_1: list[tuple[type[Layout], str, int]] = [
    (blk.BlkConfig, "zoned", 72),
    (net.NetConfig, "supported_tunnel_types", 24),
    (snd.SoundConfig, "controls", 12),
    (fs.FsConfig, "notify_buf_size", 40),
]

# Linux's structure is longer for it has at its end what is a class of its own here, or is of no fixed length.
SHORTER_THAN_LINUX: list[tuple[type[Layout], int, int]] = [
    (scsi.ScsiReqCmd, scsi.CDB_DEFAULT_SIZE, 51),
    (scsi.ScsiReqCmdPi, scsi.CDB_DEFAULT_SIZE, 59),
    (scsi.ScsiRespCmd, scsi.SENSE_DEFAULT_SIZE, 108),
    (crypto.CryptoDestroySessionFlf, crypto.CTRLQ_OP_SPEC_HDR_LEGACY - 8, 56),
    (iommu.IommuReqAttach, iommu.IommuReqTail.size(), 24),
    (iommu.IommuReqDetach, iommu.IommuReqTail.size(), 24),
    (iommu.IommuReqMap, iommu.IommuReqTail.size(), 40),
    (iommu.IommuReqUnmap, iommu.IommuReqTail.size(), 32),
]

BLK_CONFIG = {"geometry": 16, "blk_size": 20, "topology": 24, "writeback": 32, "num_queues": 34}
BLK_CONFIG |= {"max_discard_sectors": 36, "max_write_zeroes_sectors": 48, "write_zeroes_may_unmap": 56}
BLK_CONFIG |= {"max_secure_erase_sectors": 60, "secure_erase_sector_alignment": 68}
NET_CONFIG = {"status": 6, "max_virtqueue_pairs": 8, "mtu": 10, "speed": 12, "duplex": 16, "supported_hash_types": 20}


def name_of(value: object) -> str | None:
    return value.__name__ if isinstance(value, type) else None


@pytest.mark.parametrize(("layout", "size", "offsets"), LINUX, ids=name_of)
def test_against_linux(layout: type[Layout], size: int, offsets: dict[str, int]) -> None:
    assert layout.size() == size
    assert {field: layout.offset(field) for field in offsets} == offsets


@pytest.mark.parametrize(("layout", "field", "end"), NEWER_THAN_LINUX_6_1, ids=name_of)
def test_newest_fields_follow_what_linux_has(layout: type[Layout], field: str, end: int) -> None:
    assert layout.offset(field) == end
    assert layout.size() == end + layout.width_of(field)


@pytest.mark.parametrize(("layout", "rest", "size"), SHORTER_THAN_LINUX, ids=name_of)
def test_what_follows_fills_up_what_linux_has(layout: type[Layout], rest: int, size: int) -> None:
    assert layout.size() + rest == size


@pytest.mark.parametrize(("layout", "offsets"), [(blk.BlkConfig, BLK_CONFIG), (net.NetConfig, NET_CONFIG)], ids=name_of)
def test_long_configuration_spaces_against_linux(layout: type[Layout], offsets: dict[str, int]) -> None:
    assert {field: layout.offset(field) for field in offsets} == offsets


def test_zoned_block_devices_against_the_specification() -> None:
    assert (blk.BlkConfig.size(), blk.BlkZoneReport.size(), blk.BlkZoneDescriptor.size()) == (96, 64, 64)
    assert blk.BlkZonedCharacteristics.offset("model") == 20
    assert blk.BlkLifetime.size() == 6


_DEFINE = re.compile(r"^\s*#\s*define\s+(VIRTIO_\w+)\s+\(?(0x[0-9a-f]+|\d+)\)?\s*(?:/\*|$)", re.MULTILINE)
CONSTANTS: list[tuple[type[IntEnum], str, str]] = [
    (blk.BlkRequestType, "blk", "VIRTIO_BLK_T_"),
    (blk.BlkRequestStatus, "blk", "VIRTIO_BLK_S_"),
    (net.NetHdrGso, "net", "VIRTIO_NET_HDR_GSO_"),
    (net.NetCtrlClass, "net", "VIRTIO_NET_CTRL_"),
    (net.NetCtrlRx, "net", "VIRTIO_NET_CTRL_RX_"),
    (net.NetCtrlMq, "net", "VIRTIO_NET_CTRL_MQ_"),
    (net.NetAck, "net", "VIRTIO_NET_"),
    (console.ConsoleEvent, "console", "VIRTIO_CONSOLE_"),
    (balloon.BalloonStatTag, "balloon", "VIRTIO_BALLOON_S_"),
    (scsi.ScsiResponse, "scsi", "VIRTIO_SCSI_S_"),
    (scsi.ScsiTmfSubtype, "scsi", "VIRTIO_SCSI_T_TMF_"),
    (scsi.ScsiResetReason, "scsi", "VIRTIO_SCSI_EVT_RESET_"),
    (crypto.CryptoCipherAlgo, "crypto", "VIRTIO_CRYPTO_CIPHER_"),
    (crypto.CryptoStatus, "crypto", "VIRTIO_CRYPTO_"),
    (iommu.IommuReqType, "iommu", "VIRTIO_IOMMU_T_"),
    (iommu.IommuStatus, "iommu", "VIRTIO_IOMMU_S_"),
    (iommu.IommuFaultReason, "iommu", "VIRTIO_IOMMU_FAULT_R_"),
    (mem.MemReqType, "mem", "VIRTIO_MEM_REQ_"),
    (mem.MemRespType, "mem", "VIRTIO_MEM_RESP_"),
    (mem.MemState, "mem", "VIRTIO_MEM_STATE_"),
]


@pytest.mark.parametrize(("enum", "header", "prefix"), CONSTANTS, ids=name_of)
def test_constants_against_linux(enum: type[IntEnum], header: str, prefix: str) -> None:
    path = LINUX_HEADERS / f"virtio_{header}.h"
    if not path.exists():
        pytest.skip(f"{path} isn't installed")
    linux = {name: int(number, 0) for name, number in _DEFINE.findall(path.read_text())}
    ours = {prefix + name: member.value for name, member in enum.__members__.items()}
    common = ours.keys() & linux.keys()
    assert len(common) >= 2
    assert {name: ours[name] for name in common} == {name: linux[name] for name in common}


def test_opcodes_are_service_and_operation() -> None:
    for opcode in crypto.CryptoOpcode:
        assert opcode.name.startswith(crypto.CryptoService(opcode >> 8).name)


def test_requests_begin_with_their_own_type() -> None:
    attach = iommu.IommuReqAttach(domain=1, endpoint=8)
    assert attach.pack() == bytes.fromhex("01000000 01000000 08000000 00000000 00000000")
    flush = gpu.GpuResourceFlush(r=gpu.GpuRect(0, 0, 2, 1), resource_id=7)
    assert flush.pack()[:4] == gpu.GpuCtrlType.CMD_RESOURCE_FLUSH.to_bytes(4, "little")


@given(st.sampled_from(LAYOUTS), st.sampled_from(ORDERS), st.data())
def test_every_structure_gives_back_its_bytes(layout: type[Layout], order: ByteOrder, data: st.DataObject) -> None:
    raw = data.draw(st.binary(min_size=layout.size(), max_size=layout.size()))
    assert layout.unpack(raw, order).pack(order) == raw


@pytest.mark.parametrize("layout", LAYOUTS, ids=name_of)
def test_every_structure_of_the_room(layout: type[Layout]) -> None:
    names = list(get_type_hints(layout))
    # A field called as a method of Layout would take the method away, and have it for its default.
    assert not [name for name in names if hasattr(Layout, name)]
    assert sum(layout.width_of(name) for name in names) == layout.size() > 0
    module = import_module(layout.__module__)
    assert layout.__name__ in module.__all__
    assert layout.__name__ not in devices.__all__


class Inner(Layout):
    a: U8
    b: U16


class Outer(Layout):
    first: U8
    inner: Inner
    word: U32
    long: U64
    text: Annotated[bytes, "3s"]


class Unsized(Layout):
    number: int


OUTER = Outer(0x11, Inner(0x22, 0x3344), 0x55667788, 0x0102030405060708, b"abc")
inners = st.builds(Inner, st.integers(0, 0xFF), st.integers(0, 0xFFFF))
outers = st.builds(
    Outer,
    st.integers(0, 0xFF),
    inners,
    st.integers(0, (1 << 32) - 1),
    st.integers(0, (1 << 64) - 1),
    st.binary(min_size=3, max_size=3),
)


def test_fields_follow_one_another_without_padding() -> None:
    names = ("first", "inner", "word", "long", "text")
    assert [Outer.offset(name) for name in names] == [0, 1, 4, 8, 16]
    assert [Outer.width_of(name) for name in names] == [1, 3, 4, 8, 3]
    assert Outer.size() == 19


def test_both_byte_orders() -> None:
    assert OUTER.pack() == bytes.fromhex("11 22 4433 88776655 0807060504030201") + b"abc"
    assert OUTER.pack("big") == bytes.fromhex("11 22 3344 55667788 0102030405060708") + b"abc"


@given(outers, st.sampled_from(ORDERS))
def test_round_trip(value: Outer, order: ByteOrder) -> None:
    assert Outer.unpack(value.pack(order), order) == value


@given(outers, st.integers(0, 19), st.sampled_from(ORDERS))
def test_missing_bytes_count_as_zeros(value: Outer, length: int, order: ByteOrder) -> None:
    raw = value.pack(order)
    assert Outer.unpack(raw[:length], order) == Outer.unpack(raw[:length] + bytes(19 - length), order)


def test_bytes_behind_it_do_not_matter() -> None:
    assert Outer.unpack(OUTER.pack() + b"rest") == OUTER


@given(st.lists(inners), st.binary(max_size=2), st.sampled_from(ORDERS))
def test_one_after_another_without_a_broken_last(values: list[Inner], rest: bytes, order: ByteOrder) -> None:
    raw = b"".join(value.pack(order) for value in values)
    assert Inner.unpack_all(raw + rest, order) == tuple(values)


@pytest.mark.parametrize("look_up", [Outer.offset, Outer.width_of])
def test_an_unknown_field(look_up: Callable[[str], int]) -> None:
    with pytest.raises(KeyError, match="third"):
        look_up("third")


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (Inner(256, 0), "a"),
        (Inner(0, -1), "b"),
        (Outer(0, Inner(0, 1 << 16), 0, 0, b""), "b"),
        (Outer(0, Inner(0, 0), 0, 0, b"abcd"), "text"),
    ],
)
def test_a_value_that_does_not_fit_is_named(value: Layout, field: str) -> None:
    with pytest.raises(UsageError, match=rf"^(Inner|Outer)\.{field}: "):
        value.pack()


def test_short_bytes_are_filled_up() -> None:
    assert Outer(0, Inner(0, 0), 0, 0, b"a").pack()[-3:] == b"a\0\0"


def test_a_field_of_no_width_is_an_error_that_names_it() -> None:
    with pytest.raises(TypeError, match=r"Unsized\.number"):
        Unsized.size()


def test_it_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        OUTER.word = 1  # type: ignore[misc]


def test_wrong_fields_are_refused() -> None:
    for wrong in ((1,), (1, 2, 3)):
        with pytest.raises(TypeError, match=r"its fields are a, b"):
            Inner(*wrong)
    for named in ({"a": 1, "c": 2}, {"a": 1, "b": 2, "c": 3}):
        with pytest.raises(TypeError, match=r"its fields are a, b"):
            Inner(**named)
    with pytest.raises(TypeError, match=r"Inner\(1, a, b\)"):
        Inner(1, a=1, b=2)  # type: ignore[misc]


def test_equality_and_hash_are_those_of_the_fields() -> None:
    assert Inner(1, 2) == Inner(a=1, b=2) != Inner(1, 3)
    assert len({Inner(1, 2), Inner(1, 2), Inner(1, 3)}) == 2
    assert repr(Inner(1, 2)) == "Inner(a=1, b=2)"
