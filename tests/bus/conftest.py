"""What the tests of buses share: the wire of a VM, and what QEMU itself tells of its devices."""

from __future__ import annotations

import re
from typing import Any, cast

from pytest_virtio import Virtio
from pytest_virtio.bus.transport import Transport
from pytest_virtio.guest.scripted.guest import ScriptedGuest
from pytest_virtio.vm.qemu import Qemu
from pytest_virtio.vm.qtest import Qtest


def qemu_of(virtio: Virtio) -> Qemu:
    return cast(ScriptedGuest, virtio.guest)._qemu


def wire_of(virtio: Virtio) -> Qtest:
    return qemu_of(virtio).qtest


def transport_of(virtio: Virtio, id: str) -> Transport:
    return cast(ScriptedGuest, virtio.guest).driver(id).transport  # type: ignore[no-any-return]


def pci_functions(virtio: Virtio) -> list[dict[str, Any]]:
    """``query-pci``, flattened; those behind bridges too."""
    found: list[dict[str, Any]] = []

    def look(devices: list[dict[str, Any]]) -> None:
        for device in devices:
            found.append(device)
            look(device.get("pci_bridge", {}).get("devices", []))

    for bus in cast(list[dict[str, Any]], virtio.vm.qmp("query-pci")):
        look(bus["devices"])
    return found


def regions(virtio: Virtio, id: str) -> dict[int, tuple[str, int, int]]:
    """Space, address and size of each BAR of a device, as QEMU tells them; without the expansion ROM, its sixth."""
    function = next(function for function in pci_functions(virtio) if function["qdev_id"] == id)
    return {bar["bar"]: (bar["type"], bar["address"], bar["size"]) for bar in function["regions"] if bar["bar"] < 6}


def common_configurations(virtio: Virtio) -> list[int]:
    """Where the common configurations of all devices are in the memory map, by address."""
    lines = virtio.vm.hmp("info mtree -f").splitlines()
    starts = {line.split("-")[0].strip() for line in lines if re.search(r": virtio-pci-common-", line)}
    return sorted(int(start, 16) for start in starts)


def place(register: str) -> int:
    """The address in a register's name: ``device_status (common configuration + 0x14, at 0xe0000014)``."""
    return int(register.rpartition(" at ")[2].rstrip(")"), 16)
