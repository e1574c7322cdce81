"""Devices that others than QEMU serve: their defaults, and what is told wrong at the user's line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pytest_virtio
from pytest_virtio import Daemon, Declaration, Net, Passt, Testpmd, VhostScsi, VhostUserBlk, VhostUserFs, VhostVsock
from pytest_virtio.backend import sockets
from pytest_virtio.declare.backends import (
    Disk,
    FoundSocket,
    KernelScsi,
    KernelVsock,
    Netdev,
    StorageDaemon,
    VhostUser,
    Virtiofsd,
    VsockDaemon,
)
from pytest_virtio.declare.devices import assign_ids
from pytest_virtio.errors import NotSupportedError, UsageError

MIB = 1024 * 1024
ANY = Daemon(["daemon", "{socket}"])

TYPES = {
    "VhostUserBlk": ("vublk", "vhost-user-blk", 2),
    "VhostUserFs": ("vufs", "vhost-user-fs", 26),
    "VhostUserNet": ("vunet", "virtio-net", 1),
    "VhostUserVsock": ("vuvsock", "vhost-user-vsock", 19),
    "VhostUserRng": ("vurng", "vhost-user-rng", 4),
    "VhostUserInput": ("vuinput", "vhost-user-input", 18),
    "VhostUserI2c": ("vui2c", "vhost-user-i2c", 34),
    "VhostUserGpio": ("vugpio", "vhost-user-gpio", 41),
    "VhostUserScsi": ("vuscsi", "vhost-user-scsi", 8),
    "VhostUserGpu": ("vugpu", "vhost-user-gpu", 16),
    "VhostUserSound": ("vusound", "vhost-user-snd", 25),
}
"""Kind, QEMU's stem and the device id of virtio 1.3 section 5."""


@pytest.mark.parametrize("name", TYPES)
def test_every_type_takes_a_daemon_and_what_all_devices_take(name: str) -> None:
    declare: Callable[..., Declaration] = getattr(pytest_virtio, name)
    declared = declare(backend=ANY, driver=None, event_idx=False)
    assert declared.type is not None
    assert (declared.kind, declared.model, declared.type.id) == TYPES[name]
    assert (declared.driver, declared.properties) == (False, {"event_idx": False})
    assert isinstance(declared.backend, VhostUser)
    assert (declared.backend.server, declared.backend.wire, declared.backend.reconnect) == (ANY, None, None)
    assert assign_ids((declared,))[0].name == f"{TYPES[name][0]}0"
    assert declare(backend=ANY, id="a.b-c_1").name == "a.b-c_1"


@pytest.mark.parametrize(
    ("name", "server"),
    [
        ("VhostUserBlk", StorageDaemon(Disk(64 * MIB))),
        ("VhostUserFs", Virtiofsd()),
        ("VhostUserNet", Testpmd()),
        ("VhostUserVsock", VsockDaemon(3)),
    ],
)
def test_some_have_a_server_of_their_own(name: str, server: object) -> None:
    backend = getattr(pytest_virtio, name)().backend
    assert isinstance(backend, VhostUser)
    assert backend.server == server


def test_a_mask_brings_a_witness() -> None:
    backend = VhostUserBlk(mask={"VIRTIO_BLK_F_MQ"}).backend
    assert isinstance(backend, VhostUser)
    assert backend.wire is not None
    assert backend.wire.mask == {"VIRTIO_BLK_F_MQ"}


def test_several_queue_pairs_are_offered() -> None:
    declared = pytest_virtio.VhostUserNet(queue_pairs=2, backend=Passt())
    assert isinstance(declared.backend, VhostUser)
    assert (declared.backend.queue_pairs, declared.properties) == (2, {"mq": True})
    assert pytest_virtio.VhostUserNet(queue_pairs=2, mq=False).properties == {"mq": False}


def test_a_socket_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with sockets.listen(tmp_path / "s"):
        for spelled in ("s", Path("s"), tmp_path / "s"):
            backend = VhostUserBlk(backend=spelled).backend
            assert isinstance(backend, VhostUser)
            assert backend.server == FoundSocket(tmp_path / "s")


@pytest.mark.parametrize(
    ("name", "keywords", "said"),
    [
        ("VhostUserBlk", {"backend": "none"}, r"backend='none': '/.*/none' is not there: the socket of a daemon"),
        ("VhostUserBlk", {"backend": "/dev/null"}, r"'/dev/null' is no socket"),
        ("VhostUserBlk", {"backend": 3}, r"backend=3: Daemon"),
        ("VhostUserBlk", {"backend": Daemon([])}, r"a list of strings"),
        (
            "VhostUserBlk",
            {"backend": Daemon("my-daemon {socket}")},
            r"Daemon\('my-daemon {socket}'\): .*list of strings",
        ),
        ("VhostUserBlk", {"backend": ANY, "size": "1M"}, r"path, size and format are of qemu-storage-daemon's disk"),
        ("VhostUserBlk", {"path": "/none"}, r"'/none': no such file"),
        ("VhostUserBlk", {"reconnect": 0}, r"reconnect=0: seconds are expected, more than 0"),
        ("VhostUserBlk", {"reconnect": True}, r"reconnect=True"),
        ("VhostUserI2c", {}, r"VhostUserI2c\(\) needs backend=: Daemon\("),
        ("VhostUserSound", {"backend": None}, r"VhostUserSound\(\) needs backend="),
        ("VhostUserFs", {"directory": "/dev/null"}, r"'/dev/null' is not a directory"),
        ("VhostUserFs", {"directory": "/", "backend": ANY}, r"directory and program are virtiofsd's"),
        ("VhostUserNet", {"queue_pairs": 0}, r"queue_pairs=0: 1 to 32767 are possible"),
        ("VhostUserVsock", {"cid": 2}, r"cid=2: a guest's context id is a number from 3 to 4294967294"),
        ("VhostVsock", {"cid": 0xFFFFFFFF}, r"cid=4294967295: a guest's context id"),
        ("VhostVsock", {"cid": True}, r"cid=True"),
        ("VhostScsi", {"wwpn": "5001405324e31ab7"}, r"such as 'naa\.5001405324e31ab7'"),
        ("VhostScsi", {"wwpn": "naa.a/../b"}, r"a vhost target's name is expected"),
        ("Net", {"vhost": True, "netdev": "user"}, r"netdev='user'\): a tap is what vhost_net serves"),
        ("Net", {"vhost": True, "netdev": "tap,vhost=off"}, r"without vhost="),
    ],
)
def test_what_can_not_be(name: str, keywords: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        getattr(pytest_virtio, name)(**keywords)


@pytest.mark.parametrize("name", ["VhostUserFs", "VhostUserVsock"])
def test_what_connects_once(name: str) -> None:
    with pytest.raises(NotSupportedError, match=rf"{name}\(reconnect=1\): QEMU connects once"):
        getattr(pytest_virtio, name)(reconnect=1)


@pytest.mark.parametrize(
    ("declared", "kind", "model", "backend"),
    [
        (VhostVsock(), "vsock", "vhost-vsock", KernelVsock()),
        (VhostVsock(7), "vsock", "vhost-vsock", KernelVsock(7)),
        (VhostScsi("naa.5001405324e31ab7"), "vscsi", "vhost-scsi", KernelScsi("naa.5001405324e31ab7")),
        (Net(vhost=True), "net", "virtio-net", Netdev("tap,script=no,downscript=no,vhost=on")),
        (Net(vhost=True, netdev="tap,ifname=t"), "net", "virtio-net", Netdev("tap,ifname=t,vhost=on")),
    ],
)
def test_the_kernels(declared: Declaration, kind: str, model: str, backend: object) -> None:
    assert (declared.kind, declared.model, declared.backend) == (kind, model, backend)


def test_a_file_system_has_a_tag() -> None:
    backends = VhostUserFs().backend, VhostUserFs(tag="t").backend
    assert [backend.tag for backend in backends if isinstance(backend, VhostUser)] == ["", "t"]
