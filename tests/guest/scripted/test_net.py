"""The network device's packets: on QEMU's user network, and byte by byte on a wire whose other end the test holds
(virtio 1.3 section 5.1.6)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dpkt  # type: ignore[import-untyped]
import pytest

from pytest_virtio import NeedsResetError, Net, QueueFullError, RequestFailedError, RequestTimeoutError, UsageError
from pytest_virtio.guest.scripted.drivers.net import NetDriver
from pytest_virtio.guest.scripted.queue import Request
from pytest_virtio.spec.devices.net import NetHdr, NetHdrFlag, NetHdrGso

from .conftest import Boot, status_of
from .frames import BROADCAST, PEER, ethernet, numbered, wired

pytestmark = pytest.mark.qemu

GATEWAY = bytes([10, 0, 2, 2])
GUEST = bytes([10, 0, 2, 15])
SEVERAL = 20
"""Frames of the user network that nobody asked for, such as router advertisements, at the most."""

MMIO = {"transport": "mmio", "machine": "microvm"}
LEGACY = {"transport": "pci-transitional", "legacy": True}
TRANSPORTS = pytest.mark.parametrize("options", [{}, LEGACY, MMIO], ids=["modern", "legacy", "mmio"])


def answer(driver: NetDriver, wanted: Callable[[Any], bool]) -> Any:
    """The first frame that is wanted, taken apart."""
    for _ in range(SEVERAL):
        frame = dpkt.ethernet.Ethernet(driver.receive())
        if wanted(frame):
            return frame
    raise AssertionError(f"no such frame among {SEVERAL}")


@TRANSPORTS
def test_the_gateway_answers_arp(scripted: Boot, options: dict[str, Any]) -> None:
    """QEMU's user network is the oracle: 10.0.2.2 is at 52:55:0a:00:02:02."""
    with scripted(Net(), **options) as virtio:
        driver = virtio.guest.driver("net0", NetDriver)
        question = dpkt.arp.ARP(sha=driver.mac(), spa=GUEST, tpa=GATEWAY)
        driver.send(bytes(dpkt.ethernet.Ethernet(dst=BROADCAST, src=driver.mac(), type=0x0806, data=question)))
        reply = answer(driver, lambda frame: isinstance(frame.data, dpkt.arp.ARP)).data
        assert (reply.op, reply.spa, reply.tpa) == (dpkt.arp.ARP_OP_REPLY, GATEWAY, GUEST)
        assert (reply.sha, reply.tha) == (bytes.fromhex("52550a000202"), driver.mac())


@TRANSPORTS
def test_qemu_sees_the_features_that_the_driver_goes_by(scripted: Boot, options: dict[str, Any]) -> None:
    """What was written is what is in force (3.1.1): headers and receive buffers follow from it."""
    with scripted(Net(), **options) as virtio:
        negotiated = virtio.guest.driver("net0", NetDriver).negotiated
        assert negotiated >= {"MRG_RXBUF", "CTRL_VQ", "STATUS", "MAC"}
        assert status_of(virtio, "net0").guest_features == negotiated


@TRANSPORTS
def test_dhcp_offers_the_address_of_the_user_network(scripted: Boot, options: dict[str, Any]) -> None:
    """RFC 2131: a discover is answered by an offer, and the user network's first address is 10.0.2.15."""
    with scripted(Net(), **options) as virtio:
        driver = virtio.guest.driver("net0", NetDriver)
        driver.send(discover(driver.mac(), 0x12345678))
        packet = answer(driver, lambda frame: isinstance(getattr(frame.data, "data", None), dpkt.udp.UDP))
        offer = dpkt.dhcp.DHCP(packet.data.data.data)
        assert (offer.xid, offer.yiaddr) == (0x12345678, int.from_bytes(GUEST, "big"))
        assert (dpkt.dhcp.DHCP_OPT_MSGTYPE, bytes([dpkt.dhcp.DHCPOFFER])) in offer.opts


def discover(mac: bytes, xid: int) -> bytes:
    kind = (dpkt.dhcp.DHCP_OPT_MSGTYPE, bytes([dpkt.dhcp.DHCPDISCOVER]))
    datagram = dpkt.udp.UDP(sport=68, dport=67, data=dpkt.dhcp.DHCP(xid=xid, chaddr=mac, opts=(kind,)))
    datagram.ulen = len(datagram)
    packet = dpkt.ip.IP(src=bytes(4), dst=b"\xff" * 4, p=dpkt.ip.IP_PROTO_UDP, data=datagram)
    packet.len = len(packet)
    return bytes(dpkt.ethernet.Ethernet(dst=BROADCAST, src=mac, type=0x0800, data=packet))


WAYS: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {
    "modern": (12, {}, {}),
    "modern without MRG_RXBUF": (12, {"mrg_rxbuf": "off"}, {}),
    "modern, plain ring": (12, {}, {"without": {"INDIRECT_DESC", "EVENT_IDX"}}),
    "modern, INTx": (12, {}, {"interrupts": "intx"}),
    "packed": (12, {"packed": "on"}, {}),
    "packed, plain ring": (12, {"packed": "on"}, {"without": {"INDIRECT_DESC", "EVENT_IDX"}}),
    "legacy": (12, {}, LEGACY),
    "legacy without MRG_RXBUF": (10, {}, {**LEGACY, "without": {"MRG_RXBUF"}}),
    "legacy, header apart": (10, {}, {**LEGACY, "without": {"MRG_RXBUF", "ANY_LAYOUT"}}),
    "legacy, header apart, plain ring": (12, {}, {**LEGACY, "without": {"ANY_LAYOUT", "INDIRECT_DESC", "EVENT_IDX"}}),
    "mmio": (12, {}, MMIO),
    "mmio, packed": (12, {"packed": "on"}, MMIO),
    "in order": (12, {"in_order": "on"}, {}),
    "in order, packed": (12, {"in_order": "on", "packed": "on"}, {}),
}


@pytest.mark.parametrize("way", WAYS)
def test_frames_pass_unchanged_both_ways(scripted: Boot, tmp_path: Path, way: str) -> None:
    """The header has 12 bytes with VERSION_1 or MRG_RXBUF, otherwise 10 (5.1.6.1); the wire has none of it."""
    header_bytes, properties, options = WAYS[way]
    with wired(scripted, tmp_path, properties, **options) as (_, driver, wire):
        assert driver.header_bytes == header_bytes
        assert ("RING_PACKED" in driver.negotiated) is ("packed" in properties)
        assert ("IN_ORDER" in driver.negotiated) is ("in_order" in properties)
        for length in (60, 61, 1000, 1514):
            frame = numbered(driver.mac(), length, length)
            wire.send(frame)
            assert driver.receive() == frame
            driver.send(frame)
            assert wire.receive() == frame


def test_an_old_device_gets_header_and_frame_apart(scripted: Boot, tmp_path: Path) -> None:
    """Legacy drivers without ANY_LAYOUT use a single descriptor for the header, both ways (5.1.6.6)."""
    with wired(scripted, tmp_path, **WAYS["legacy, header apart"][2]) as (_, driver, _):
        assert {request.buffers[0].length for request in driver.queue("rx0").pending} == {10}
        assert [buffer.length for buffer in driver.submit(b"x" * 60).buffers] == [10, 60]


@pytest.mark.parametrize("way", ["modern", "packed", "legacy, header apart", "mmio", "in order"])
def test_more_frames_than_the_ring_has_entries_arrive_in_order(scripted: Boot, tmp_path: Path, way: str) -> None:
    """300 frames in flight at a time each way, through queues of 256 entries: none lost, doubled or overtaken."""
    _, properties, options = WAYS[way]
    with wired(scripted, tmp_path, properties, **options) as (_, driver, wire):
        frames = [numbered(driver.mac(), number, 64 + number) for number in range(300)]
        wire.send(*frames)
        assert [driver.receive() for _ in frames] == frames
        transmit(driver, frames)
        assert [wire.receive() for _ in frames] == frames


def transmit(driver: NetDriver, frames: list[bytes]) -> None:
    """Send frames as fast as the queue takes them."""
    queue, under_way = driver.queue("tx0"), deque[Request]()
    for frame in frames:
        while not queue.ring.free:
            queue.wait(under_way.popleft())
        under_way.append(driver.submit(frame))


@pytest.mark.parametrize("way", ["modern", "packed", "legacy", "mmio", "in order"])
def test_a_large_frame_takes_several_buffers(scripted: Boot, tmp_path: Path, way: str) -> None:
    """With MRG_RXBUF the device goes on in the next buffer, and counts them in the header (5.1.6.4)."""
    _, properties, options = WAYS[way]
    with wired(scripted, tmp_path, properties, **options) as (_, driver, wire):
        large, after = numbered(driver.mac(), 1, 9014), numbered(driver.mac(), 2, 60)
        wire.send(large, after)
        buffer_bytes = driver.queue("rx0").pending[0].buffers[0].length
        packet = driver.receive_packet()
        assert packet.frame == large
        assert packet.header == NetHdr(num_buffers=-(-(12 + 9014) // buffer_bytes))
        assert packet.header.num_buffers > 1
        assert driver.receive() == after
        driver.send(large)
        assert wire.receive() == large


@pytest.mark.parametrize("way", ["modern", "packed", "legacy", "legacy, header apart, plain ring", "in order"])
def test_frames_of_any_size_arrive(scripted: Boot, tmp_path: Path, way: str) -> None:
    """With MRG_RXBUF the driver has as many buffers as a packet of 65550 bytes takes (5.1.6.3.1)."""
    _, properties, options = WAYS[way]
    with wired(scripted, tmp_path, properties, **options) as (_, driver, wire):
        for length in (1500, 40000, 65000):
            frame = numbered(driver.mac(), length, length)
            wire.send(frame)
            assert driver.receive() == frame
            driver.send(frame)
            assert wire.receive() == frame


def test_a_frame_of_the_negotiated_mtu_fits_one_buffer(scripted: Boot, tmp_path: Path) -> None:
    """With VIRTIO_NET_F_MTU buffers are as large as the device's MTU asks for (5.1.4.2, 5.1.6.3.1)."""
    properties = {"host_mtu": 9000, "mrg_rxbuf": "off"}
    with wired(scripted, tmp_path, properties) as (_, driver, wire):
        assert driver.config().mtu == 9000
        frame = numbered(driver.mac(), 1, 9014)
        wire.send(frame)
        assert driver.receive() == frame


def test_a_receive_queue_that_was_reset_is_filled_again(scripted: Boot, tmp_path: Path) -> None:
    """Virtqueue reset (2.6.1): the buffers were the driver's again, so that it has to give new ones."""
    with wired(scripted, tmp_path) as (_, driver, wire):
        driver.reset_queue("rx0")
        driver.enable_queue("rx0")
        frame = numbered(driver.mac(), 1, 60)
        wire.send(frame)
        assert driver.receive() == frame


def test_a_queue_gives_its_ram_back(scripted: Boot) -> None:
    """2.6.1: guest RAM lasts for as many resets of a queue as one likes, its waiting buffers included."""
    with scripted(Net(), memory=16 << 20) as virtio:
        driver = virtio.guest.driver("net0", NetDriver)
        for _ in range(300):
            assert driver.reset_queue("rx0").enable_queue("rx0").pending


def test_the_driver_starts_anew_with_other_queues(scripted: Boot, tmp_path: Path) -> None:
    """After a reset, queues may be smaller than before; every entry of the receive queue still has a buffer."""
    with wired(scripted, tmp_path) as (_, driver, wire):
        driver.initialise(sizes={"rx0": 8, "tx0": 8})
        assert len(driver.queue("rx0").pending) == 8
        frames = [numbered(driver.mac(), number, 1000) for number in range(40)]
        wire.send(*frames)
        assert [driver.receive() for _ in frames] == frames
        transmit(driver, frames)
        assert [wire.receive() for _ in frames] == frames


def test_offloads_stand_in_the_header(scripted: Boot, tmp_path: Path) -> None:
    """``struct virtio_net_hdr`` as 5.1.6 draws it, in the buffer that the device got, before the frame."""
    with wired(scripted, tmp_path) as (_, driver, wire):
        frame = ethernet(PEER, b"x" * 46)
        header = NetHdr(NetHdrFlag.NEEDS_CSUM, NetHdrGso.TCPV4, 0x1234, 0x5678, 0x9ABC, 0xDEF0)
        buffer = driver.submit(frame, header).buffers[0]
        assert driver.memory.read(buffer.address, buffer.length) == bytes.fromhex("010134127856bc9af0de0000") + frame
        assert wire.receive() == frame


# What goes wrong.


def test_a_silent_wire_is_a_timeout(scripted: Boot, tmp_path: Path) -> None:
    """Every wait ends, and says where it stood."""
    with (
        wired(scripted, tmp_path) as (_, driver, _),
        pytest.raises(RequestTimeoutError, match=r"rx0 did not come within 0\.01 s"),
    ):
        driver.receive(timeout=0.01)


def test_a_packet_without_anything_to_read_breaks_the_device(scripted: Boot, tmp_path: Path) -> None:
    """What is sent is read by the device (5.1.6.2); QEMU gives up on a chain that is written only."""
    with wired(scripted, tmp_path) as (_, driver, _), pytest.raises(NeedsResetError, match="DEVICE_NEEDS_RESET"):
        driver.queue("tx0").request(writable=[64])


def test_a_full_queue_refuses_frames(scripted: Boot, tmp_path: Path) -> None:
    """Frames that nobody has waited for keep their descriptors."""
    with wired(scripted, tmp_path) as (_, driver, _):
        free = driver.queue("tx0").ring.free
        for _ in range(free):
            driver.submit(ethernet(PEER, b"x"))
        with pytest.raises(QueueFullError, match="0 of 256 descriptors"):
            driver.submit(ethernet(PEER, b"x"))


def test_a_header_that_fits_no_field_is_the_users_mistake(scripted: Boot, tmp_path: Path) -> None:
    """The error names the field."""
    with wired(scripted, tmp_path) as (_, driver, _), pytest.raises(UsageError, match="gso_size: 65536"):
        driver.send(b"x" * 60, NetHdr(gso_size=65536))


LIES = {
    "shorter than its header": (bytes(4), 4),
    "longer than its buffer": (NetHdr(num_buffers=1).pack(), 13),
    "impossible number of buffers": (NetHdr(num_buffers=0).pack(), 12),
    "expected: num_buffers from 1 to 256\n  seen: 257": (NetHdr(num_buffers=257).pack(), 12),
}


@pytest.mark.parametrize("complaint", LIES)
def test_impossible_packets_are_errors(
    scripted: Boot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complaint: str
) -> None:
    """Whatever a device says of lengths and counts, the driver doesn't go by it unseen."""
    with wired(scripted, tmp_path) as (_, driver, _):
        queue = driver.queue("rx0")
        lie = Request(queue, 0, (), ())
        lie.data, lie.length = LIES[complaint]
        monkeypatch.setattr(queue, "next", lambda timeout: lie)
        monkeypatch.setattr(queue, "submit_buffers", lambda buffers, indirect: None)
        with pytest.raises(RequestFailedError, match=complaint):
            driver.receive()


def test_a_packet_whose_other_buffers_do_not_come_is_a_timeout(
    scripted: Boot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A count of buffers that is possible but wrong ends at the deadline."""
    with wired(scripted, tmp_path) as (_, driver, wire):
        monkeypatch.setattr(driver, "_buffer_count", lambda header, queue: 2)
        wire.send(ethernet(driver.mac(), b"x"))
        with pytest.raises(RequestTimeoutError):
            driver.receive(timeout=0.05)
