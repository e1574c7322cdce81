"""``info mtree -f`` and ``gpa2hva`` as QEMU prints them."""

from __future__ import annotations

import pytest

from pytest_virtio import qapi

TEXT = """FlatView #0
 AS "I/O", root: io
 Root memory region: io
  0000000000000000-0000000000000007 (prio 0, i/o): dma-chan

FlatView #1
 AS "rng0", root: bus master container
 Root memory region: (none)
  No rendered FlatView

FlatView #2
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
  0000000000000000-000000000009ffff (prio 0, ram): ram0
  00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem
  00000000000c0000-00000000000dffff (prio 1, rom): pc.rom
  0000000000100000-000000007fffffff (prio 0, ram): ram0 @0000000000100000 KVM
  00000000fd000000-00000000fdffffff (prio 1, ram): vga.vram
  0000000100000000-000000017fffffff (prio 0, ram): ram0 @0000000080000000
"""
PIECES = (
    (0, 0xA0000, 0, "ram0"),
    (0x100000, 0x7FF00000, 0x100000, "ram0"),
    (0xFD000000, 0x1000000, 0, "vga.vram"),
    (1 << 32, 1 << 31, 1 << 31, "ram0"),
)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_pieces_of_ram(end: str) -> None:
    assert qapi.parse_ram(TEXT.replace("\n", end)) == PIECES


@pytest.mark.parametrize("reply", ["", "FlatView #0\n", None, {}, TEXT.replace('"memory"', '"other"')])
def test_none_in_another_text(reply: object) -> None:
    assert qapi.parse_ram(reply) == ()


def test_a_host_address() -> None:
    text = "Host virtual address for 0x100000000 (my ram (1)) is 0x7f36cbe01000\r\n"
    assert qapi.parse_host_address(text, "my ram (1)") == 0x7F36CBE01000
    assert qapi.parse_host_address(text, "other") is None


@pytest.mark.parametrize(
    "reply",
    [
        "Memory at address 0xfee00000 is not RAM\r\n",
        "No memory is mapped at address 0xe0000000000\r\n",
        "unknown command: 'gpa2hva'\r\n",
        "",
        None,
        {},
    ],
)
def test_no_host_address(reply: object) -> None:
    assert qapi.parse_host_address(reply, "ram0") is None
