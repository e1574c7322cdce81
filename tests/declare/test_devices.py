"""Declarations: their defaults, their ids, and what is told wrong at the user's line."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_virtio.declare import devices
from pytest_virtio.declare.backends import Directory, Disk, FileMemory, Netdev, Ports, RamMemory, ScsiDisk
from pytest_virtio.declare.devices import P9, Blk, Declaration, Device, Mem, Net, Pmem, Rng, Scsi, Serial, assign_ids
from pytest_virtio.errors import UsageError

MIB = 1024 * 1024

TYPES = {
    "Net": ("net", "virtio-net", 1),
    "Blk": ("blk", "virtio-blk", 2),
    "Rng": ("rng", "virtio-rng", 4),
    "Balloon": ("balloon", "virtio-balloon", 5),
    "Serial": ("serial", "virtio-serial", 3),
    "Scsi": ("scsi", "virtio-scsi", 8),
    "Keyboard": ("keyboard", "virtio-keyboard", 18),
    "Mouse": ("mouse", "virtio-mouse", 18),
    "Tablet": ("tablet", "virtio-tablet", 18),
    "Gpu": ("gpu", "virtio-gpu", 16),
    "Crypto": ("crypto", "virtio-crypto", 20),
    "Iommu": ("iommu", "virtio-iommu", 23),
    "Mem": ("mem", "virtio-mem", 24),
    "Pmem": ("pmem", "virtio-pmem", 27),
    "P9": ("p9", "virtio-9p", 9),
    "Sound": ("sound", "virtio-sound", 25),
}
"""Kind, QEMU's stem and the device id of virtio 1.3 section 5."""


def make(name: str, **keywords: Any) -> Declaration:
    declaration = getattr(devices, name)(**keywords)
    assert isinstance(declaration, Declaration)
    return declaration


@pytest.mark.parametrize("name", TYPES)
def test_every_type_works_without_arguments(name: str) -> None:
    declared = make(name)
    assert declared.type is not None
    assert (declared.kind, declared.model, declared.type.id) == TYPES[name]
    assert declared.driver
    assert not declared.exact
    assert assign_ids((declared,))[0].name == f"{declared.kind}0"


@pytest.mark.parametrize("name", TYPES)
def test_every_type_takes_id_driver_and_properties(name: str) -> None:
    declared = make(name, id="a.b-c_1", driver=None, event_idx=False, x=1)
    assert (declared.name, declared.driver, declared.properties) == ("a.b-c_1", False, {"event_idx": False, "x": 1})


def test_a_declaration_is_frozen() -> None:
    declared = Rng()
    with pytest.raises(dataclasses.FrozenInstanceError):
        declared.id = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("declared", "backend"),
    [
        (Net(), Netdev("user,restrict=on")),
        (Net(netdev="user"), Netdev("user")),
        (Blk(), Disk(64 * MIB)),
        (Blk(size="1G", format="raw"), Disk(1024 * MIB, format="raw")),
        (Scsi(), ScsiDisk(Disk(64 * MIB))),
        (Mem(size="256M"), RamMemory(256 * MIB)),
        (Pmem(), FileMemory(128 * MIB)),
        (P9(), Directory("")),
        (P9(tag="t"), Directory("t")),
        (Serial(ports=30), Ports(30)),
    ],
)
def test_backends(declared: Declaration, backend: object) -> None:
    assert declared.backend == backend


def test_a_users_image_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my, image.raw").touch()
    monkeypatch.chdir(tmp_path)
    backend = Blk("my, image.raw").backend
    assert isinstance(backend, Disk)
    assert backend.path == tmp_path / "my, image.raw"


@pytest.mark.parametrize(
    ("type", "kind", "device_id"),
    [
        ("virtio-multitouch-pci", "multitouch", 18),
        ("virtio-net-pci-non-transitional", "net", 1),
        ("virtio-net-device", "net", 1),
        ("virtio-9p-pci", "p9", None),
        ("virtio-vga", "vga", 16),
        ("vhost-vsock-pci", "vsock", 19),
        ("virtio-snd", "snd", 25),
        ("e1000", "e1000", None),
        ("82576", "dev-82576", None),
    ],
)
def test_a_device_by_qemus_name(type: str, kind: str, device_id: int | None) -> None:
    declared = Device(type, x="y")
    assert (declared.kind, declared.model, declared.exact, declared.properties) == (kind, type, True, {"x": "y"})
    if device_id is not None:
        assert declared.type is not None
        assert declared.type.id == device_id
    assert assign_ids((declared,))[0].name == f"{kind}0"


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True))
def test_default_ids_are_ids_that_qemu_takes(type: str) -> None:
    (declared,) = assign_ids((Device(type),))
    assert Net(id=declared.name).name == declared.name


@given(st.lists(st.sampled_from([Net(), Blk(), Blk(id="blk0"), Rng(id="net1"), Net(id="x")]), max_size=12))
def test_ids_are_their_own_and_declared_ones_are_kept(declared: list[Declaration]) -> None:
    explicit = [d.id for d in declared if d.id]
    if len(explicit) != len(set(explicit)):
        with pytest.raises(UsageError, match="is declared twice"):
            assign_ids(tuple(declared))
        return
    named = assign_ids(tuple(declared))
    names = [d.name for d in named]
    assert len(set(names)) == len(names)
    assert [n for n, d in zip(names, declared, strict=True) if d.id] == explicit
    assert all(n.startswith(d.kind) for n, d in zip(names, declared, strict=True) if not d.id)


def test_default_ids_count_by_kind_in_order() -> None:
    named = assign_ids((Net(), Blk(), Blk(id="blk0"), Blk(), Net()))
    assert [d.name for d in named] == ["net0", "blk1", "blk0", "blk2", "net1"]


def test_the_same_id_twice() -> None:
    with pytest.raises(UsageError) as caught:
        assign_ids((Net(id="a"), Rng(id="a")))
    assert str(caught.value) == "device id 'a' is declared twice; ids name devices, so each must be its own"


def test_no_id_yet() -> None:
    with pytest.raises(UsageError, match="virtio-net has no id yet"):
        Net().name  # noqa: B018


@pytest.mark.parametrize("id", ["", "0net", "a b", "a,b", "a/b", "ä", "a\n", "-a", "a" * 129, 5])
def test_impossible_ids(id: object) -> None:
    with pytest.raises(UsageError) as caught:
        Net(id=id)  # type: ignore[arg-type]
    assert str(caught.value) == (
        f"id={id!r}: a QEMU id is a letter followed by up to 127 letters, digits, '-', '.' and '_'"
    )


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("Net", {"netdev": ""}, "netdev='': write the backend as QEMU's -netdev takes it, without id: 'user'"),
        ("Net", {"netdev": "user,id=x"}, "netdev='user,id=x': write the backend as"),
        ("Net", {"netdev": 5}, "netdev=5: write the backend as"),
        ("Net", {"driver": "e1000"}, "driver='e1000': only None can be said here: that no driver in the guest"),
        ("Net", {"host_mtu": None}, "host_mtu=None: a device property is a string, a number, a truth value or a path"),
        ("Net", {"mac": 1.5}, "mac=1.5: a device property is"),
        ("Blk", {"size": "big"}, "size='big' is not a size."),
        ("Blk", {"format": 5}, "format=5: the name of an image format is expected: 'raw', 'qcow2'"),
        ("Blk", {"format": "raw,x=y"}, "format='raw,x=y': the name of an image format is expected"),
        ("Blk", {"path": "/no/such.img"}, "'/no/such.img': no such file (looked at '/no/such.img')"),
        ("Scsi", {"path": "/tmp"}, "'/tmp' is not an image: it is neither a file nor a block device"),
        ("Mem", {"size": 0}, "size=0 is not a size."),
        ("P9", {"path": "/etc/passwd"}, "P9: '/etc/passwd' is not a directory"),
        ("P9", {"tag": "t" * 32}, f"tag='{'t' * 32}': a mount tag has 1 to 31 bytes"),
        ("P9", {"tag": ""}, "tag='': a mount tag has 1 to 31 bytes"),
        ("Serial", {"ports": 31}, "ports=31: a virtio-serial device takes 0 to 30 here"),
        ("Serial", {"ports": "2"}, "ports='2': a virtio-serial device takes 0 to 30 here"),
        ("Device", {"type": "e1000,x=y"}, "Device('e1000,x=y'): a QEMU device type is letters, digits"),
        ("Device", {"type": 5}, "Device(5): a QEMU device type is letters, digits"),
    ],
)
def test_bad_arguments(name: str, keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        make(name, **keywords)
    assert str(caught.value).startswith(message)


def test_an_image_that_would_block_the_one_who_opens_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="is not an image"):
        Blk(tmp_path / "pipe")
