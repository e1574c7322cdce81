"""The texts that only attaching reads: registers through the monitor, the memory map's names, netdevs, versions."""

from __future__ import annotations

import pytest

from pytest_virtio import qapi
from pytest_virtio.errors import ReplyError

MAP = """\
FlatView #0\r
 AS "I/O", root: io\r
  000000000000c000-000000000000c07f (prio 1, i/o): virtio-pci\r
FlatView #1\r
 AS "memory", root: system\r
 AS "cpu-memory-0", root: system\r
  0000000000000000-000000000009ffff (prio 0, ram): pc.ram\r
  00000000fea00000-00000000fea00fff (prio 0, i/o): virtio-pci-common-virtio-net\r
  00000000feb02e00-00000000feb02fff (prio 0, i/o): virtio-mmio\r
"""

NETWORK = """\
virtio-net-pci.0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:56\r
 \\ #net044: index=0,type=user,net=10.0.2.0,restrict=off\r
net0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:57\r
 \\ n: index=0,type=tap,ifname=tap0\r
net0: index=1,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:57\r
 \\ n: index=1,type=vhost-user\r
lonely: index=0,type=nic,model=e1000\r
hub0port0: index=0,type=hubport\r
 \\ odd: index=0,type=user\r
"""


def test_registers() -> None:
    assert qapi.read_register("memory", 0xFEA00014, 1) == "xp /1xb 0xfea00014"
    assert qapi.read_register("io", 0xC004, 4) == "i /1xw 0xc004"
    assert qapi.parse_register("00000000fea00014: 0x0f\r\n") == 15
    assert qapi.parse_register("portl[0xc0e0] = 0x79bf8064\r\n") == 0x79BF8064


@pytest.mark.parametrize("reply", ["Cannot access memory\r\n", "", None, {}, "10: 0x0f 0x10", "10: 0x123456789", 7])
def test_what_is_no_register(reply: object) -> None:
    with pytest.raises(ReplyError, match="a register's value is wanted"):
        qapi.parse_register(reply)


def test_names_of_regions_of_the_guests_memory_alone() -> None:
    assert qapi.parse_regions(MAP) == {0xFEA00000: "virtio-pci-common-virtio-net", 0xFEB02E00: "virtio-mmio"}
    assert qapi.parse_regions([1]) == {}


def test_what_is_behind_network_cards() -> None:
    assert qapi.parse_peers(NETWORK) == {"#net044": {"user"}, "n": {"tap", "vhost-user"}}
    assert qapi.parse_peers(None) == {}


def test_versions() -> None:
    numbers = {"major": 7, "minor": 2, "micro": 22}
    assert qapi.parse_version({"qemu": numbers, "package": " (Debian 1:7.2)"}) == ("7.2.22", "Debian 1:7.2")
    assert qapi.parse_version({"qemu": numbers}) == ("7.2.22", "")
    assert qapi.parse_target({"arch": "x86_64"}) == "x86_64"
    odd: object
    for odd in ({}, {"qemu": 7}, {"qemu": {**numbers, "micro": "x"}}, {"qemu": numbers, "package": 1}, []):
        with pytest.raises(ReplyError):
            qapi.parse_version(odd)
