"""Every declaration on every transport in real QEMU, paused: QEMU itself says what came of it."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from pytest_virtio.declare import devices
from pytest_virtio.declare.devices import P9, Blk, Declaration, Device, Net, Pmem, Rng, Serial
from pytest_virtio.declare.spec import vm_spec
from pytest_virtio.errors import MissingError, NotSupportedError, QemuExitedError, UnknownNameError, UsageError
from pytest_virtio.introspect.query import Queries
from pytest_virtio.launch import Host, RunningVm, launch

pytestmark = pytest.mark.qemu

WITH_LEGACY = ("Net", "Blk", "Rng", "Balloon", "Serial", "Scsi", "P9")
TYPES = (*WITH_LEGACY, "Keyboard", "Mouse", "Tablet", "Gpu", "Crypto", "Iommu", "Mem", "Pmem", "Sound")
PCI_IDS = {"pci": 0x1040, "pci-transitional": 0x1000, "pci-legacy": 0x1000}
VERSION_1 = "VIRTIO_F_VERSION_1"


@pytest.fixture(autouse=True)
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where private directories are made; none may be left."""
    parent = tmp_path / "private, directories"
    parent.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(parent))
    yield parent
    assert list(parent.iterdir()) == []


def boot(host: Host, *declared: Declaration, **options: Any) -> RunningVm:
    return launch(vm_spec(declared, {"boot": False, **options}, {}), host)


def missing(host: Host, declared: Declaration) -> bool:
    return not any(name.startswith(f"{declared.model}-") or name == declared.model for name in host.known.devices)


@pytest.mark.parametrize("transport", ["pci", "pci-transitional", "pci-legacy", "mmio"])
@pytest.mark.parametrize("name", TYPES)
def test_it_is_there(host: Host, name: str, transport: str) -> None:
    declared: Declaration = getattr(devices, name)()
    legacy = transport in {"pci-transitional", "pci-legacy"}
    error = (
        NotSupportedError
        if legacy and name not in WITH_LEGACY
        else MissingError
        if missing(host, declared)
        # QEMU: "VIRTIO-IOMMU is not attached to any PCI bus!"
        else QemuExitedError
        if (name, transport) == ("Iommu", "mmio")
        else None
    )
    if error is not None:
        with pytest.raises(error):
            boot(host, declared, transport=transport).close()
        return
    vm = boot(host, declared, transport=transport)
    try:
        check(vm, declared, transport)
    finally:
        vm.close()


def check(vm: RunningVm, declared: Declaration, transport: str) -> None:
    id = f"{declared.kind}0"
    assert list(vm.paths) == [id]
    assert vm.qemu.stderr_text() == ""
    assert declared.type is not None
    (info,) = Queries(vm.qemu).devices(10)
    assert info.path == vm.paths[id]
    kind = vm.qemu.execute("qom-get", {"path": info.path, "property": "type"})
    assert str(kind).startswith(declared.model)
    if transport != "mmio":
        (function,) = [d for bus in query_pci(vm) for d in bus["devices"] if d["qdev_id"] == id]
        # 0x1040 and more: modern; the transitional ids stand for both others (virtio 1.3, 4.1.2.1).
        assert function["id"]["device"] & 0xFFC0 == PCI_IDS[transport]
        assert (VERSION_1 in vm.status(id).host_features) == (transport != "pci-legacy")


def query_pci(vm: RunningVm) -> Any:
    return vm.qemu.execute("query-pci")


def test_a_user_image_is_not_changed_and_may_be_written(host: Host, tmp_path: Path) -> None:
    image = tmp_path / "my, image with spaces.raw"
    image.write_bytes(b"x" * 4096)
    image.chmod(0o444)
    vm = boot(host, Blk(image), P9(tmp_path))
    try:
        assert "VIRTIO_BLK_F_RO" not in vm.status("blk0").host_features
        (drive,) = cast(list[dict[str, Any]], vm.qemu.execute("query-block"))
        assert (drive["inserted"]["ro"], drive["inserted"]["image"]["backing-image"]["filename"]) == (False, str(image))
        vm.qemu.execute("human-monitor-command", {"command-line": 'qemu-io blk0.drive "write -P 1 0 512"'})
        vm.qemu.execute("human-monitor-command", {"command-line": 'qemu-io blk0.drive "flush"'})
    finally:
        vm.close()
    assert image.read_bytes() == b"x" * 4096


def test_properties_reach_the_device(host: Host) -> None:
    vm = boot(host, Net(host_mtu=1500, event_idx=False), transport="mmio")
    try:
        features = vm.status("net0").host_features
        assert "VIRTIO_NET_F_MTU" in features
        assert "VIRTIO_F_EVENT_IDX" not in features
    finally:
        vm.close()


def test_devices_of_qemus_own_names(host: Host) -> None:
    vm = boot(host, Device("e1000", id="card"), Device("virtio-mouse-pci"), Rng(id="a.b-c_d", bus="pcie.0"))
    try:
        assert list(vm.paths) == ["mouse0", "a.b-c_d"]
        assert "card" in [d["qdev_id"] for bus in query_pci(vm) for d in bus["devices"]]
    finally:
        vm.close()


def test_machine_options_are_qemus_business(host: Host) -> None:
    boot(host, Rng(), machine="q35,sata=off").close()
    with pytest.raises(QemuExitedError, match=r"Property 'pc-q35-.*no-such' not found"):
        boot(host, Rng(), machine="q35,no-such=off").close()


@pytest.mark.parametrize("machine", ["q35", "pc", "microvm,pcie=on"])
def test_machines_by_alias(host: Host, machine: str) -> None:
    boot(host, Rng(), machine=machine).close()


@pytest.mark.parametrize(
    ("declared", "options", "message"),
    [
        (Net(host_mut=1), {}, "unknown property of virtio-net-pci: 'host_mut'. Did you mean 'host_mtu'"),
        (Device("virtio-nte-pci"), {}, "unknown device of QEMU "),
        (Rng(), {"machine": "q53"}, "unknown machine of QEMU "),
        (Rng(), {"transport": "pcie"}, "unknown transport: 'pcie'. Did you mean 'pci'?"),
    ],
)
def test_bad_input(host: Host, declared: Declaration, options: dict[str, Any], message: str) -> None:
    with pytest.raises((UnknownNameError, UsageError)) as caught:
        boot(host, declared, **options).close()
    assert str(caught.value).startswith(message)


def test_the_command_line_for_people_starts_the_same_vm(host: Host, tmp_path: Path) -> None:
    declared = (Net(), Blk(), P9(), Pmem(), Serial(ports=2), Rng(id="odd.-_id"))
    vm = boot(host, *declared)
    vm.close()
    (tmp_path / "elsewhere").mkdir()
    typed = b"\x01cinfo status\ninfo virtio\nquit\n"
    ran = subprocess.run(
        ["sh", "-ec", vm.by_hand], cwd=tmp_path / "elsewhere", input=typed, capture_output=True, timeout=30, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, b"")
    said = ran.stdout.decode()
    assert "VM status: paused (prelaunch)" in said
    assert all(f"/machine/peripheral/{id}/virtio-backend" in said for id in vm.paths)
