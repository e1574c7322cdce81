"""What the host's kernel lacks is said before QEMU starts. What it has can only be checked up to the command line."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pytest_virtio import Declaration, MissingError, Net, VhostScsi, VhostVsock, VirtioFactory
from pytest_virtio.declare.devices import assign_ids
from pytest_virtio.vm import kernel
from pytest_virtio.vm.backends import backend_parts
from pytest_virtio.vm.kernel import check_kernel, served_by_kernel

WWPN = "naa.5001405324e31ab7"
NODES = {
    "vsock0": (VhostVsock(), ["/dev/vhost-vsock"]),
    "vscsi0": (VhostScsi(WWPN), ["/dev/vhost-scsi"]),
    "net0": (Net(vhost=True), ["/dev/net/tun", "/dev/vhost-net"]),
    "n1": (Net(id="n1", netdev="tap,vhost=on,script=no"), ["/dev/net/tun", "/dev/vhost-net"]),
    "n2": (Net(id="n2", netdev="tap,fd=7,vhost=on,vhostfd=8"), []),
    "n3": (Net(id="n3", netdev="tap,vhost=off"), ["/dev/net/tun"]),
    "n4": (Net(id="n4"), []),
    "v1": (VhostVsock(id="v1", vhostfd="9"), []),
}


def check(device: Declaration) -> None:
    check_kernel(assign_ids((device,)))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is looked at, on a machine that has everything but targets."""
    seen: list[str] = []

    def open(path: str, flags: int) -> int:
        seen.append(path)
        return os.dup(0)

    monkeypatch.setattr(kernel, "_open", open)
    monkeypatch.setattr(kernel, "_check_capability", lambda id: None)
    monkeypatch.setattr(kernel, "_check_target", lambda id, wwpn: None)
    return seen


@pytest.mark.parametrize("id", NODES)
def test_what_each_needs(id: str, opened: list[str]) -> None:
    device, nodes = NODES[id]
    check(device)
    assert opened == nodes
    assert served_by_kernel(device) == (id in {"vsock0", "vscsi0", "net0", "n1"})


@pytest.mark.parametrize(("id", "module"), [("vsock0", "vhost_vsock"), ("vscsi0", "vhost_scsi"), ("net0", "tun")])
@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOENT, "load the host kernel's module by `modprobe {}`"), (errno.EACCES, "which this user may not open")],
)
def test_what_lacks(id: str, module: str, number: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def open(path: str, flags: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(kernel, "_open", open)
    with pytest.raises(MissingError) as caught:
        check(NODES[id][0])
    assert str(caught.value).startswith(f"{id} needs {NODES[id][1][0]}, ")
    assert said.format(module) in str(caught.value)
    assert "--virtio-missing=skip" in str(caught.value)


def test_a_target_of_another_name(opened: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(kernel, "_open", lambda path, flags: os.dup(0))
    monkeypatch.setattr(kernel, "TARGETS", tmp_path)
    with pytest.raises(
        MissingError, match=rf"^vscsi0 needs the target {WWPN} below .*\. There is none\. Make it by targ"
    ):
        check(VhostScsi(WWPN))
    (tmp_path / f"{WWPN[:-1]}8").mkdir()
    with pytest.raises(MissingError, match=rf"Did you mean '{WWPN[:-1]}8'\?"):
        check(VhostScsi(WWPN))
    (tmp_path / WWPN).mkdir()
    check(VhostScsi(WWPN))


def test_a_tap_that_may_not_be_made(opened: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(kernel, "_open", lambda path, flags: os.dup(0))
    monkeypatch.setattr(kernel, "STATUS", tmp_path / "status")
    (tmp_path / "status").write_text("Name:\tx\nCapEff:\t000001ffffffefff\n")
    with pytest.raises(MissingError, match=r"^net0 needs a tap, which only who has CAP_NET_ADMIN can make"):
        check(Net(vhost=True))
    check(Net(vhost=True, netdev="tap,ifname=tap7,script=no,downscript=no"))
    (tmp_path / "status").write_text("CapEff:\t0000000000001000\n")
    check(Net(vhost=True))


@pytest.mark.skipif(Path("/dev/vhost-net").exists(), reason="vhost_net is here")
def test_qemu_is_not_started_without(virtio_factory: VirtioFactory) -> None:
    """QEMU 7.2 would abort."""
    with pytest.raises(MissingError, match=r"^net0 needs /dev/"):
        virtio_factory(Net(vhost=True)).__enter__()


def test_a_context_id_of_its_own() -> None:
    def cid(device: Declaration, directory: str) -> int:
        return int((backend_parts(device.backend, "vsock0", Path(directory)).properties or {})["guest-cid"])

    assert cid(VhostVsock(7), "/a") == 7
    assert 3 <= cid(VhostVsock(), "/a") < 0xFFFFFFFF
    assert cid(VhostVsock(), "/a") != cid(VhostVsock(), "/b")


def test_a_target_is_named_to_qemu() -> None:
    assert backend_parts(VhostScsi(WWPN).backend, "vscsi0", Path("/a")).properties == {"wwpn": WWPN}
