"""The network device (virtio 1.3 section 5.1): frames out and in, and the commands of the control queue.

Responsible for the header before each packet, for receive buffers and for what a command's data are; must not know what
is in a frame.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from pytest_virtio.errors import RequestFailedError, UsageError
from pytest_virtio.guest.scripted.driver import Driver
from pytest_virtio.guest.scripted.drivers.messages import number
from pytest_virtio.guest.scripted.queue import DriverQueue, Request
from pytest_virtio.model.features import Features
from pytest_virtio.ring.driver import Buffer
from pytest_virtio.spec.devices.net import (
    MAC_BYTES,
    NetAck,
    NetConfig,
    NetCtrl,
    NetCtrlAnnounce,
    NetCtrlClass,
    NetCtrlGuestOffloads,
    NetCtrlMac,
    NetCtrlMacCommand,
    NetCtrlMq,
    NetCtrlMqPairsSet,
    NetCtrlRx,
    NetCtrlVlan,
    NetFeature,
    NetHdr,
    NetHdrLegacy,
    NetStatus,
)
from pytest_virtio.spec.features import TransportFeature

__all__ = ("NetDriver", "NetPacket")

PLAIN = NetHdr()
"""The header of a packet that is complete as it is."""
MTU = 1500
LINK_HEADER_BYTES = 18
"""Ethernet's header with one VLAN tag."""
RX_BUFFERS = 24
"""For a burst, until somebody takes them. A packet of :data:`COALESCED_BYTES` takes 17 of :data:`MERGEABLE_BYTES`, and
a device drops or holds back what does not find enough; filling a ring of 256 would double the time that a device takes
to come up."""
MERGEABLE_BYTES = 4096
"""What a buffer holds, header included, where a packet may take several."""
COALESCED_BYTES = 65550
"""What a buffer has to hold, header aside, when the device may join packets and can't use several buffers for one
(5.1.6.3.1)."""

_COALESCING = (
    NetFeature.GUEST_TSO4,
    NetFeature.GUEST_TSO6,
    NetFeature.GUEST_UFO,
    NetFeature.GUEST_USO4,
    NetFeature.GUEST_USO6,
)


@dataclass(frozen=True, slots=True)
class NetPacket:
    """What the device put into receive buffers: the header, and the frame that follows it."""

    header: NetHdr
    frame: bytes


class NetDriver(Driver):
    """Drives a network device.

    Receive queues are full of buffers from :meth:`populate` on, and each buffer goes back as its contents are taken.
    """

    understood = frozenset(
        {
            *_COALESCING,
            NetFeature.CSUM,
            NetFeature.GUEST_CSUM,
            NetFeature.CTRL_GUEST_OFFLOADS,
            NetFeature.MTU,
            NetFeature.MAC,
            NetFeature.GSO,
            NetFeature.GUEST_ECN,
            NetFeature.HOST_TSO4,
            NetFeature.HOST_TSO6,
            NetFeature.HOST_ECN,
            NetFeature.HOST_UFO,
            NetFeature.HOST_USO,
            NetFeature.MRG_RXBUF,
            NetFeature.STATUS,
            NetFeature.CTRL_VQ,
            NetFeature.CTRL_RX,
            NetFeature.CTRL_RX_EXTRA,
            NetFeature.CTRL_VLAN,
            NetFeature.CTRL_MAC_ADDR,
            NetFeature.GUEST_ANNOUNCE,
            NetFeature.MQ,
            NetFeature.SPEED_DUPLEX,
        }
    )

    # Configuration.

    def config(self) -> NetConfig:
        """The device's configuration (5.1.4). Fields whose feature is not offered can hold anything."""
        return self.read_config(NetConfig)

    def mac(self) -> bytes:
        """The address in the device's configuration, 6 bytes."""
        return self.config().mac

    def link_up(self) -> bool:
        """Whether the link is up; without VIRTIO_NET_F_STATUS it is taken to be (5.1.4.2)."""
        return not self.has(NetFeature.STATUS) or bool(self.config().status & NetStatus.LINK_UP)

    # Packets.

    @property
    def header_bytes(self) -> int:
        """How long the header before each packet is (5.1.6.1)."""
        counted = self.has(TransportFeature.VERSION_1) or self.has(NetFeature.MRG_RXBUF)
        return NetHdr.size() if counted else NetHdrLegacy.size()

    def send(self, frame: bytes, header: NetHdr = PLAIN, *, pair: int = 0, timeout: float | None = None) -> None:
        """Send a frame, and wait until the device has taken it.

        :param header: checksum and segmentation offloads; none by default.
        :param pair: of queues, from 0 up.
        :raises RequestTimeoutError: when the device doesn't take it in time.
        :raises NeedsResetError: when it breaks instead.
        """
        request = self.submit(frame, header, pair=pair)
        request.queue.wait(request, timeout)

    def submit(self, frame: bytes, header: NetHdr = PLAIN, *, pair: int = 0) -> Request:
        """Start to send a frame and don't wait for it (5.1.6.2).

        :raises QueueFullError: when the transmit queue has no room.
        """
        head = header.pack(self.transport.order)[: self.header_bytes]
        queue = self.queue(f"tx{pair}")
        request = queue.submit(head + frame) if self._any_layout else queue.submit(head, frame)
        queue.kick()
        return request

    def receive(self, timeout: float | None = None, *, pair: int = 0) -> bytes:
        """The next frame that came in, without its header; it waits for one. It raises as :meth:`receive_packet`."""
        return self.receive_packet(timeout, pair=pair).frame

    def receive_packet(self, timeout: float | None = None, *, pair: int = 0) -> NetPacket:
        """The next packet that came in, put together from as many buffers as it takes (5.1.6.4); it waits for one.

        :param pair: of queues, from 0 up.
        :raises RequestTimeoutError: when none comes in time, or not all of it.
        :raises RequestFailedError: when lengths or the number of buffers are impossible.
        """
        queue = self.queue(f"rx{pair}")
        deadline = self.deadline(timeout)
        first = self._take(queue, timeout)
        if len(first) < self.header_bytes:
            raise self._failed("a packet is shorter than its header", f"{self.header_bytes} bytes", f"{len(first)}")
        header = NetHdr.unpack(first[: self.header_bytes], self.transport.order)
        rest = [self._take(queue, deadline.remaining()) for _ in range(1, self._buffer_count(header, queue))]
        return NetPacket(header, b"".join([first[self.header_bytes :], *rest]))

    def populate(self) -> None:
        """Fill the receive queues (5.1.5)."""
        for queue in self.queues:
            self._fill(queue)

    def enable_queue(self, which: int | str, size: int | None = None) -> DriverQueue:
        """Set up a queue that was reset; a receive queue is filled again."""
        queue = super().enable_queue(which, size)
        self._fill(queue)
        queue.kick()
        return queue

    # Commands (5.1.6.5). Each raises as :meth:`control` does.

    def control(self, class_: int, command: int, *data: bytes, timeout: float | None = None) -> None:
        """Give any command at all and wait for the device's word on it.

        :param class_: :class:`~pytest_virtio.spec.devices.net.NetCtrlClass`, or a number of 8 bits.
        :param command: of that class, known or not.
        :param data: the command's own, a buffer each.
        :raises UnknownNameError: when the device has no control queue.
        :raises RequestFailedError: when the device says anything but VIRTIO_NET_OK.
        :raises RequestTimeoutError: when it doesn't answer in time.
        """
        head = NetCtrl(class_, command).pack(self.transport.order)
        ack = self.queue("ctrl").request(head, *data, writable=[1], timeout=timeout).written
        if ack != bytes([NetAck.OK]):
            what = f"the device refuses command {command} of class {class_}"
            raise self._failed(what, "ack 0 (VIRTIO_NET_OK)", f"ack {ack[0]}" if ack else "no ack written")

    def set_rx_mode(self, mode: NetCtrlRx, on: bool, timeout: float | None = None) -> None:
        """Have the device pass on more frames, or fewer: ``NetCtrlRx.PROMISC``, ``ALLMULTI`` … (5.1.6.5.1).

        :raises UsageError: when ``on`` is neither True nor False.
        """
        self.control(NetCtrlClass.RX, mode, bytes([number("on", on, 1)]), timeout=timeout)

    def set_mac_table(
        self, unicast: Collection[bytes] = (), multicast: Collection[bytes] = (), timeout: float | None = None
    ) -> None:
        """Name the addresses, 6 bytes each, whose frames are passed on besides the device's own (5.1.6.5.2)."""
        tables = [self._mac_table(unicast), self._mac_table(multicast)]
        self.control(NetCtrlClass.MAC, NetCtrlMacCommand.TABLE_SET, *tables, timeout=timeout)

    def set_mac(self, mac: bytes, timeout: float | None = None) -> None:
        """Give the device another address, 6 bytes. Legacy drivers without VIRTIO_NET_F_CTRL_MAC_ADDR write it into
        the configuration (5.1.4.3)."""
        if self.transport.legacy and not self.has(NetFeature.CTRL_MAC_ADDR):
            self.transport.write_config(NetConfig.offset("mac"), _address(mac))
            self.transport.flush()
        else:
            self.control(NetCtrlClass.MAC, NetCtrlMacCommand.ADDR_SET, _address(mac), timeout=timeout)

    def add_vlan(self, vlan: int, timeout: float | None = None) -> None:
        """Have frames of a VLAN passed on, by its id of 12 bits; of all others they no longer are (5.1.6.5.3)."""
        self.control(NetCtrlClass.VLAN, NetCtrlVlan.ADD, self._number("vlan", vlan, 2), timeout=timeout)

    def delete_vlan(self, vlan: int, timeout: float | None = None) -> None:
        """Have frames of a VLAN no longer passed on."""
        self.control(NetCtrlClass.VLAN, NetCtrlVlan.DEL, self._number("vlan", vlan, 2), timeout=timeout)

    def announce_ack(self, timeout: float | None = None) -> None:
        """Say that VIRTIO_NET_S_ANNOUNCE in the configuration's status was seen (5.1.6.5.4)."""
        self.control(NetCtrlClass.ANNOUNCE, NetCtrlAnnounce.ACK, timeout=timeout)

    def set_queue_pairs(self, pairs: int, timeout: float | None = None) -> None:
        """Choose how many pairs of queues the device may use, 1 to ``max_virtqueue_pairs`` (5.1.6.5.6)."""
        data = NetCtrlMqPairsSet(virtqueue_pairs=pairs).pack(self.transport.order)
        self.control(NetCtrlClass.MQ, NetCtrlMq.VQ_PAIRS_SET, data, timeout=timeout)

    def set_guest_offloads(self, offloads: Iterable[str | int] = (), timeout: float | None = None) -> None:
        """Choose which of the VIRTIO_NET_F_GUEST_* features that were negotiated are on (5.1.6.5.8).

        :param offloads: exactly these, by name or bit number.
        """
        data = self._number("offloads", Features.of(offloads, self.type).bits, 8)
        self.control(NetCtrlClass.GUEST_OFFLOADS, NetCtrlGuestOffloads.SET, data, timeout=timeout)

    # How it is done.

    @property
    def _any_layout(self) -> bool:
        """Whether header and frame may share a buffer; older devices want them apart (5.1.6.6)."""
        return self.has(TransportFeature.VERSION_1) or self.has(TransportFeature.ANY_LAYOUT)

    def _fill(self, queue: DriverQueue) -> None:
        """Give a receive queue :data:`RX_BUFFERS` buffers, or as many as it takes; other queues none."""
        if not queue.name.startswith("rx"):
            return
        head, length = self.header_bytes, self._buffer_bytes()
        parts = [(0, length)] if self._any_layout else [(0, head), (head, length - head)]
        count = min(queue.size // len(parts), RX_BUFFERS)
        # One block for all: a block each would double the time that a network device takes to come up.
        block = queue.allocate(count * length)
        for start in range(block, block + count * length, length):
            buffers = [Buffer(start + offset, size, device_writes=True) for offset, size in parts]
            queue.submit_buffers(buffers, indirect=False)

    def _buffer_bytes(self) -> int:
        """How much a receive buffer holds (5.1.6.3.1)."""
        if self.has(NetFeature.MRG_RXBUF):
            return MERGEABLE_BYTES
        if any(map(self.has, _COALESCING)):
            return self.header_bytes + COALESCED_BYTES
        told = self.config().mtu if self.has(NetFeature.MTU) else 0
        return self.header_bytes + LINK_HEADER_BYTES + max(MTU, told)

    def _take(self, queue: DriverQueue, timeout: float | None) -> bytes:
        """What the device wrote into the next buffer, which goes back to it at once."""
        request = queue.next(timeout)
        queue.submit_buffers(request.buffers, indirect=False)
        queue.kick()
        if (request.length or 0) > len(request.data):
            raise self._failed("a packet is longer than its buffer", f"{len(request.data)} bytes", f"{request.length}")
        return request.written

    def _buffer_count(self, header: NetHdr, queue: DriverQueue) -> int:
        """How many buffers a packet takes; only with VIRTIO_NET_F_MRG_RXBUF is it the device's to say (5.1.6.4)."""
        if not self.has(NetFeature.MRG_RXBUF):
            return 1
        if not 1 <= header.num_buffers <= queue.size:
            expected = f"num_buffers from 1 to {queue.size}"
            raise self._failed("a packet takes an impossible number of buffers", expected, str(header.num_buffers))
        return header.num_buffers

    def _mac_table(self, addresses: Collection[bytes]) -> bytes:
        return NetCtrlMac(entries=len(addresses)).pack(self.transport.order) + b"".join(map(_address, addresses))

    def _number(self, name: str, value: int, width: int) -> bytes:
        return number(name, value, 8 * width).to_bytes(width, self.transport.order)

    def _failed(self, what: str, expected: str, seen: str) -> RequestFailedError:
        return RequestFailedError(f"{self.id}: {what}", step=self.history[-1], expected=expected, seen=seen)


def _address(mac: bytes) -> bytes:
    if len(mac) != MAC_BYTES:
        raise UsageError(f"mac={mac!r}: an Ethernet address has {MAC_BYTES} bytes")
    return mac
