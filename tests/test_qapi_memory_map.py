"""``info mtree -f`` as QEMU prints it."""

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
PIECES = ((0, 0xA0000, 0), (0x100000, 0x7FF00000, 0x100000), (1 << 32, 1 << 31, 1 << 31))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_pieces_of_ram(end: str) -> None:
    assert qapi.parse_ram(TEXT.replace("\n", end), "ram0") == PIECES


@pytest.mark.parametrize("reply", ["", "FlatView #0\n", None, {}, TEXT.replace('"memory"', '"other"')])
def test_none_in_another_text(reply: object) -> None:
    names = ["ram1"] if reply == TEXT else ["ram0"]
    found = [piece for name in names for piece in qapi.parse_ram(reply, name)]
    assert found == [] or reply is not None
