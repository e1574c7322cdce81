"""A VM's declaration, completed and checked."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_virtio.declare.devices import Blk, Net
from pytest_virtio.declare.guests import Firmware, Linux, NoGuest
from pytest_virtio.declare.spec import VmSpec, check_keywords, vm_spec
from pytest_virtio.errors import NotSupportedError, UnknownNameError, UsageError

PLAIN = {"guest": "linux"}


def test_defaults() -> None:
    assert vm_spec([Net(), Blk()], {}, PLAIN) == VmSpec(
        devices=(Net(id="net0"), Blk(id="blk0")),
        guest=Linux(),
        machine="q35",
        transport="pci",
        memory=256 * 1024 * 1024,
        cpus=1,
        args=(),
        timeout=60.0,
    )


@pytest.mark.parametrize(
    ("options", "field", "expected"),
    [
        ({"guest": "firmware"}, "guest", Firmware()),
        ({"boot": False}, "guest", NoGuest()),
        ({"boot": False, "guest": "scripted"}, "guest", NoGuest()),
        ({"transport": "mmio"}, "machine", "microvm"),
        ({"transport": "mmio", "machine": "virt"}, "machine", "virt"),
        ({"machine": "q35,kernel-irqchip=off"}, "machine", "q35,kernel-irqchip=off"),
        ({"machine": ""}, "machine", "q35"),
        ({"memory": "1G"}, "memory", 1024**3),
        ({"cpus": 3}, "cpus", 3),
        ({"args": ["-d", "int"]}, "args", ("-d", "int")),
        ({"timeout": 5}, "timeout", 5.0),
        ({"stall": 5}, "stall", 5.0),
    ],
)
def test_options(options: dict[str, Any], field: str, expected: object) -> None:
    assert getattr(vm_spec([], options, PLAIN), field) == expected


def test_the_marker_wins_over_the_run() -> None:
    assert vm_spec([], {"guest": "firmware", "timeout": 1}, {"guest": "linux", "timeout": 9}).timeout == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transport": "pcie"}, "unknown transport: 'pcie'. Did you mean 'pci'?"),
        ({"machin": "q35"}, "unknown keyword of virtio: 'machin'. Did you mean 'machine'? Device properties belong to"),
        ({"host_mtu": 1500}, "unknown keyword of virtio: 'host_mtu'. There are: args, boot, cpus, guest, machine, "),
        ({"machine": 35}, "machine=35: a name is expected"),
        ({"boot": "no"}, "boot='no': True or False is expected"),
        ({"cpus": 0}, "cpus=0: a number from 1 up is expected"),
        ({"cpus": True}, "cpus=True: a number from 1 up is expected"),
        ({"memory": "lots"}, "memory='lots' is not a size."),
        ({"memory": 1000}, "memory=1000: whole mebibytes are expected: '256M'"),
        ({"args": "-d int"}, "args='-d int': a list of strings is expected, one for each QEMU argument"),
        ({"args": [1]}, "args=[1]: a list of strings is expected"),
        ({"args": ["-daemonize"]}, "args: -daemonize would take QEMU away from the test that must end it"),
        ({"timeout": 0}, "timeout=0: a number of seconds above 0 is expected"),
        ({"timeout": float("inf")}, "timeout=inf: a number of seconds above 0 is expected"),
        ({"timeout": "5"}, "timeout='5': a number of seconds above 0 is expected"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        vm_spec([Net()], options, PLAIN)
    assert str(caught.value).startswith(message)


def test_ccw_is_not_here_yet() -> None:
    with pytest.raises(NotSupportedError, match="transport='ccw' needs an s390x guest"):
        vm_spec([], {"transport": "ccw"}, PLAIN)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (Net, r"is not a device declaration; write Net\(\)"),
        ("virtio-net-pci", r"'virtio-net-pci' is not a device declaration; write Net\(\), Blk\(\), Device\('…'\)"),
    ],
)
def test_what_is_no_declaration(device: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        vm_spec([device], {}, PLAIN)


def test_keywords_are_checked_by_themselves_too() -> None:
    check_keywords({"guest": "linux", "boot": False, "timeout": 1})
    with pytest.raises(UnknownNameError, match=r"'transprt'\. Did you mean 'transport'"):
        check_keywords({"transprt": "pci"})
