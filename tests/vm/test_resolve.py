"""From declarations to one binary's names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_virtio.declare import devices
from pytest_virtio.declare.devices import Declaration, Device, Gpu, Mem, Net, assign_ids
from pytest_virtio.errors import MissingError, NotSupportedError, UnknownNameError
from pytest_virtio.vm.capabilities import Capabilities
from pytest_virtio.vm.resolve import check_introspection, check_machine, check_transport, resolve

PROPERTIES = ("disable-legacy", "disable-modern", "host_mtu", "event_idx")
KNOWN = Capabilities(
    program="/qemu",
    version="7.2.0",
    package="",
    target="x86_64",
    commands=frozenset({"x-query-virtio", "x-query-virtio-status", "x-query-virtio-queue-status"}),
    machines=frozenset({"pc-q35-7.2", "q35", "microvm", "none"}),
    devices={
        "virtio-net-pci": PROPERTIES,
        "virtio-net-device": ("host_mtu",),
        "virtio-gpu-pci": PROPERTIES,
        "virtio-mem": (),
    },
    other_types=frozenset({"e1000", "e1000e"}),
)


def named(declaration: Declaration) -> Declaration:
    return assign_ids((declaration,))[0]


@pytest.mark.parametrize(
    ("device", "transport", "type", "properties"),
    [
        (Net(), "pci", "virtio-net-pci", {"disable-legacy": "on"}),
        (Net(), "pci-transitional", "virtio-net-pci", {"disable-legacy": "off", "disable-modern": "off"}),
        (Net(), "pci-legacy", "virtio-net-pci", {"disable-legacy": "off", "disable-modern": "on"}),
        (Net(), "mmio", "virtio-net-device", {}),
        (Mem(), "mmio", "virtio-mem", {}),
        (Net(disable_legacy="auto"), "pci", "virtio-net-pci", {"disable-legacy": "auto"}),
        (Net(host_mtu=1500, event_idx=False), "mmio", "virtio-net-device", None),
        (Net(bus="rp1"), "mmio", "virtio-net-device", {"bus": "rp1"}),
        (Device("virtio-net-pci"), "pci", "virtio-net-pci", {}),
        (Device("virtio-net"), "pci", "virtio-net-pci", {}),
        (Device("e1000", extra_mac="on"), "pci", "e1000", {"extra-mac": "on"}),
    ],
)
def test_names(device: Declaration, transport: str, type: str, properties: dict[str, str] | None) -> None:
    if properties is None:
        with pytest.raises(UnknownNameError, match="unknown property of virtio-net-device: 'event_idx'"):
            resolve(named(device), KNOWN, transport)
        return
    made = resolve(named(device), KNOWN, transport)
    assert (made.type, dict(made.properties)) == (type, properties)


@pytest.mark.parametrize(("value", "text"), [(True, "on"), (False, "off"), (1500, "1500"), ("x", "x")])
def test_values(value: Any, text: str) -> None:
    assert resolve(named(Net(host_mtu=value)), KNOWN, "mmio").properties == {"host_mtu": text}


def test_a_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = resolve(named(Net(host_mtu=Path("rom"))), KNOWN, "mmio")
    assert made.properties == {"host_mtu": str(tmp_path / "rom")}


def test_an_unknown_device_names_the_near_ones() -> None:
    with pytest.raises(UnknownNameError) as caught:
        resolve(named(Device("e100")), KNOWN, "pci")
    assert str(caught.value) == "unknown device of QEMU 7.2.0: 'e100'. Did you mean 'e1000' or 'e1000e'?"


def test_a_type_that_this_binary_lacks() -> None:
    with pytest.raises(MissingError) as caught:
        resolve(named(devices.Sound()), KNOWN, "pci")
    assert str(caught.value) == (
        "QEMU 7.2.0 (/qemu) has no virtio-sound-pci, which 'sound0' needs: it is older than the device, was built "
        "without it, or its module is in a package that is not installed. Name another QEMU by --virtio-qemu=PATH, "
        "or skip such tests by --virtio-missing=skip."
    )


@pytest.mark.parametrize("transport", ["pci-transitional", "pci-legacy"])
def test_a_legacy_transport_of_a_type_that_has_none(transport: str) -> None:
    with pytest.raises(NotSupportedError) as caught:
        resolve(named(Gpu()), KNOWN, transport)
    assert str(caught.value) == (
        f"transport={transport!r}: 'gpu0' can't have it: virtio-gpu has no legacy interface (virtio 1.3, section 5). "
        "Use transport='pci'."
    )


@pytest.mark.parametrize("machine", ["q35", "pc-q35-7.2", "microvm", "none", "q35,kernel-irqchip=off"])
def test_machines(machine: str) -> None:
    check_machine(KNOWN, machine)


@pytest.mark.parametrize(
    ("machine", "hint"),
    [("q53", "Did you mean 'q35'?"), ("virt", "There are: microvm, none, pc-q35-7.2, q35."), ("pc", "There are: ")],
)
def test_unknown_machines(machine: str, hint: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        check_machine(KNOWN, f"{machine},accel=tcg")
    assert str(caught.value).startswith(f"unknown machine of QEMU 7.2.0: {machine!r}. {hint}")


def test_a_machine_of_another_version_is_missing() -> None:
    with pytest.raises(MissingError) as caught:
        check_machine(KNOWN, "pc-q35-10.0,accel=tcg")
    assert str(caught.value).startswith("QEMU 7.2.0 (/qemu) has no machine pc-q35-10.0. Did you mean 'pc-q35-7.2'")


@pytest.mark.parametrize(
    ("machine", "transport", "remedy"),
    [
        ("microvm", "pci", "'microvm,pcie=on'"),
        ("microvm,acpi=off", "pci-legacy", "'microvm,pcie=on'"),
        ("q35,smm=off", "mmio", "'microvm'"),
        ("pc-i440fx-7.2", "mmio", "'microvm'"),
    ],
)
def test_machines_without_the_bus(machine: str, transport: str, remedy: str) -> None:
    with pytest.raises(NotSupportedError) as caught:
        check_transport(machine, transport)
    assert str(caught.value).startswith(f"machine {machine!r} has no ")
    assert str(caught.value).endswith(f"as transport={transport!r} needs: {remedy}")


@pytest.mark.parametrize(
    ("machine", "transport"),
    [("microvm,pcie=on", "pci"), ("microvm", "mmio"), ("pc-q35-7.2", "pci-legacy"), ("virt", "mmio"), ("virt", "pci")],
)
def test_machines_with_the_bus(machine: str, transport: str) -> None:
    check_transport(machine, transport)


def test_introspection_is_there() -> None:
    check_introspection(KNOWN)
