"""``query-pci``: its keys, turned into the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from pytest_virtio.errors import ReplyError
from pytest_virtio.model.pci import PciBar, PciFunction
from pytest_virtio.qapi.reply import Reply, type_name

__all__ = ("QUERY_PCI", "parse_pci")

QUERY_PCI: Final = "query-pci"


def parse_pci(reply: object) -> tuple[PciFunction, ...]:
    """Turn the reply of ``query-pci`` into functions, those behind bridges included, in order of their addresses.

    :param reply: the ``return`` member of QEMU's answer.
    :raise ReplyError: the reply lacks a required key, or has one of a wrong type.
    """
    if not isinstance(reply, list):
        raise ReplyError(QUERY_PCI, "return", f"a list is wanted, not {type_name(reply)}")
    buses = (Reply(QUERY_PCI, item, f"[{index}]") for index, item in enumerate(reply))
    found = (function for bus in buses for function in _functions(bus, None))
    return tuple(sorted(found, key=lambda function: (function.bus, function.slot, function.function)))


def _functions(parent: Reply, behind: int | None) -> Iterator[PciFunction]:
    for item in parent.children("devices") if parent.has("devices") else ():
        identity = item.child("id")
        bridge = item.has("pci_bridge")
        slot = item.natural("slot")
        yield PciFunction(
            bus=item.natural("bus"),
            slot=slot,
            function=item.natural("function"),
            qdev_id=item.text("qdev_id"),
            vendor=identity.natural("vendor"),
            device=identity.natural("device"),
            pin=item.natural("irq_pin") if item.has("irq_pin") else 0,
            behind=behind,
            is_bridge=bridge,
            bars=tuple(_bar(region) for region in item.children("regions")),
        )
        if bridge:
            yield from _functions(item.child("pci_bridge"), slot if behind is None else behind)


def _bar(region: Reply) -> PciBar:
    """QEMU says -1 of what is not decoded, and of an address of 64 bits that is all ones."""
    address = region.integer("address")
    is_io = region.text("type") == "io"
    space: Literal["io", "memory"] = "io" if is_io else "memory"
    return PciBar(region.natural("bar"), space, None if address == -1 else address, region.natural("size"))
