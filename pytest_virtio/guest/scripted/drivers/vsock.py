"""The socket device (virtio 1.3 section 5.10): stream connections between guest and host, with credit.

Responsible for packets, for the life of a connection and for how much either side may send; must not know the backend.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Final, NamedTuple

from pytest_virtio.errors import DriverError, RequestFailedError
from pytest_virtio.guest.scripted.access import Attachment
from pytest_virtio.guest.scripted.driver import Driver
from pytest_virtio.guest.scripted.drivers.messages import number
from pytest_virtio.spec.devices.vsock import (
    HOST_CID,
    VsockConfig,
    VsockEvent,
    VsockFeature,
    VsockHdr,
    VsockOp,
    VsockShutdown,
    VsockType,
)
from pytest_virtio.vm.deadline import Deadline

__all__ = ("Connection", "Peer", "VsockDriver")

PACKET_BYTES: Final = 4096
"""The most data of a packet, in either direction."""
BUFFERS: Final = 32
"""How many the queues of the device have, to receive packets and events, where they are as long."""
BUFFER_ALLOCATION: Final = 1 << 16
"""What a connection keeps for its reader, ``buf_alloc``."""
FIRST_PORT: Final = 1024
MOST_CONNECTIONS: Final = 1024
"""Whoever asks for more is refused."""
BOTH: Final = VsockShutdown.RECEIVE | VsockShutdown.SEND
MODULO: Final = 1 << 32


class Peer(NamedTuple):
    """Who talks with whom: the port here, cid and port there."""

    local_port: int
    cid: int
    port: int


class Connection:
    """A stream, from REQUEST to RST."""

    def __init__(self, driver: VsockDriver, peer: Peer) -> None:
        self._driver, self.peer = driver, peer
        self.is_asking = False
        """Whether the peer has asked for it, and waits for :meth:`VsockDriver.accept`."""
        self.is_open = False
        """Whether both sides have agreed on it, and none has ended it."""
        self.is_reset = False
        """Whether one side has ended it."""
        self.peer_shutdown = VsockShutdown(0)
        """What the peer says that it will not do any more."""
        self.buf_alloc = self.fwd_cnt = 0
        """What the peer said last of its buffer: its size in bytes, and how many have gone through it (mod 2**32)."""
        self.updates = 0
        """How many CREDIT_UPDATEs the peer has sent."""
        self._sent = self._forwarded = 0
        self._unread = bytearray()

    def __repr__(self) -> str:
        state = "open" if self.is_open else "reset" if self.is_reset else "not agreed on"
        return f"<Connection of port {self.peer.local_port} to {self.peer.cid}:{self.peer.port}, {state}>"

    @property
    def credit(self) -> int:
        """How many bytes the peer has room for, as far as it has said (5.10.6.3)."""
        return max(0, self.buf_alloc - (self._sent - self.fwd_cnt) % MODULO)

    def send(self, data: bytes, timeout: float | None = None) -> None:
        """Send, and wait for credit where there is none.

        :raises RequestFailedError: when the connection is reset.
        :raises RequestTimeoutError: when the peer takes no more in time.
        """
        deadline = self._driver.deadline(timeout)
        while data:
            if not self.credit and self.is_open:
                self.tell(VsockOp.CREDIT_REQUEST, timeout=deadline.remaining())
            self._await("credit", lambda: bool(self.credit), deadline)
            piece, data = data[: self._most], data[self._most :]
            self._sent = (self._sent + len(piece)) % MODULO
            self.tell(VsockOp.RW, piece, timeout=deadline.remaining())

    def receive(self, length: int, timeout: float | None = None) -> bytes:
        """Receive ``length`` bytes; fewer if the peer sends no more.

        :raises RequestTimeoutError: when fewer come in time; they stay there for the next call.
        """
        deadline, data = self._driver.deadline(timeout), b""
        try:
            while len(data) < length and (piece := self._next(length - len(data), deadline)):
                data += piece
        except DriverError:
            self._unread[:0] = data
            raise
        return data

    def request_credit(self, timeout: float | None = None) -> int:
        """Ask the peer how its buffer stands; the credit after its answer.

        :raises RequestFailedError: when the connection is reset.
        :raises RequestTimeoutError: when the peer doesn't answer in time.
        """
        deadline, before = self._driver.deadline(timeout), self.updates
        self.tell(VsockOp.CREDIT_REQUEST, timeout=deadline.remaining())
        self._await("CREDIT_UPDATE", lambda: self.updates > before, deadline)
        return self.credit

    def shutdown(self, what: VsockShutdown = BOTH, timeout: float | None = None) -> None:
        """Say that this side will not receive any more, not send, or neither (5.10.6.5).

        :raises RequestTimeoutError: when the device doesn't take the packet in time.
        """
        self.tell(VsockOp.SHUTDOWN, flags=what, timeout=timeout)

    def close(self, timeout: float | None = None) -> None:
        """End the connection as it should be: SHUTDOWN, to which the peer answers RST (5.10.6.5).

        :raises RequestTimeoutError: when it doesn't in time.
        """
        deadline = self._driver.deadline(timeout)
        if not self.is_reset:
            self.shutdown(timeout=deadline.remaining())
            self._driver.await_packet("RST", lambda: self.is_reset, deadline)

    def reset(self, timeout: float | None = None) -> None:
        """End the connection at once (5.10.6.5). It raises as :meth:`shutdown` does."""
        self.tell(VsockOp.RST, timeout=timeout)
        self._end()

    def tell(self, op: int, data: bytes = b"", *, flags: int = 0, timeout: float | None = None) -> None:
        """Send any packet at all, whatever the connection's state and credit are.

        :raises RequestTimeoutError: when the device doesn't take it in time.
        """
        self._driver.transmit(self._header(op, len(data), flags), data, timeout)

    def ask(self, deadline: Deadline) -> None:
        """Send REQUEST, and wait until the peer agrees.

        :raises RequestFailedError: when it refuses.
        :raises RequestTimeoutError: when it doesn't answer in time.
        """
        self.tell(VsockOp.REQUEST, timeout=deadline.remaining())
        self._await("RESPONSE", lambda: self.is_open, deadline)

    def agree(self, deadline: Deadline) -> None:
        """Answer the peer's REQUEST. It raises as :meth:`tell` does."""
        self.is_asking, self.is_open = False, True
        self.tell(VsockOp.RESPONSE, timeout=deadline.remaining())

    def take(self, header: VsockHdr, data: bytes) -> None:
        """Take in a packet of the peer's.

        :raises RequestFailedError: when it has sent more than there is room for (5.10.6.3).
        """
        self.buf_alloc, self.fwd_cnt = header.buf_alloc, header.fwd_cnt
        match header.op:
            case VsockOp.REQUEST:
                self.is_asking = not self.is_open
            case VsockOp.RESPONSE:
                self.is_open = True
            case VsockOp.RW:
                self._keep(data)
            case VsockOp.CREDIT_UPDATE:
                self.updates += 1
            case VsockOp.CREDIT_REQUEST:
                self.tell(VsockOp.CREDIT_UPDATE)
            case VsockOp.SHUTDOWN:
                self._heed(VsockShutdown(header.flags & BOTH))
            case VsockOp.RST:
                self._end()

    def _heed(self, shutdown: VsockShutdown) -> None:
        self.peer_shutdown |= shutdown
        if self.peer_shutdown == BOTH:
            # The peer is waiting for this answer (5.10.6.5).
            self.reset()

    def _header(self, op: int, length: int, flags: int) -> VsockHdr:
        return VsockHdr(
            src_cid=self._driver.guest_cid,
            dst_cid=self.peer.cid,
            src_port=self.peer.local_port,
            dst_port=self.peer.port,
            len=length,
            type=VsockType.STREAM,
            op=op,
            flags=flags,
            buf_alloc=BUFFER_ALLOCATION,
            fwd_cnt=self._forwarded,
        )

    @property
    def _most(self) -> int:
        """The longest piece that may be sent now."""
        return min(self.credit, PACKET_BYTES)

    def _next(self, most: int, deadline: Deadline) -> bytes:
        """The next bytes, no more than ``most``; none when there will be no more."""
        self._driver.await_packet("data", lambda: bool(self._unread) or self._is_at_end, deadline)
        piece, self._unread = bytes(self._unread[:most]), self._unread[most:]
        self._forwarded = (self._forwarded + len(piece)) % MODULO
        if piece and self.is_open:
            self.tell(VsockOp.CREDIT_UPDATE, timeout=deadline.remaining())
        return piece

    @property
    def _is_at_end(self) -> bool:
        return self.is_reset or VsockShutdown.SEND in self.peer_shutdown

    def _await(self, what: str, look: Callable[[], bool], deadline: Deadline) -> None:
        """Wait for what a connection that is reset can't bring."""
        self._driver.await_packet(what, lambda: look() or self.is_reset, deadline)
        if self.is_reset:
            raise self._driver.refused(f"{self!r} was ended", "op of the packet", what, "RST")

    def _end(self) -> None:
        self.is_asking = self.is_open = False
        self.is_reset = True
        self._driver.connections.pop(self.peer, None)

    def _keep(self, data: bytes) -> None:
        room = BUFFER_ALLOCATION - len(self._unread)
        if len(data) > room:
            raise self._driver.refused("more data come than there is room for", "len", f"up to {room}", str(len(data)))
        self._unread += data


class VsockDriver(Driver):
    """Drives a socket device."""

    understood = frozenset({VsockFeature.STREAM, VsockFeature.NO_IMPLIED_STREAM})

    def __init__(self, attachment: Attachment) -> None:
        super().__init__(attachment)
        self.guest_cid = 0
        """The guest's own address, as the configuration has it (5.10.4)."""
        self.connections: dict[Peer, Connection] = {}
        """Those that are open or asked for."""
        self._ports = count(FIRST_PORT)

    def config(self) -> VsockConfig:
        """The device's configuration (5.10.4)."""
        return self.read_config(VsockConfig)

    def connect(self, port: int, cid: int = HOST_CID, timeout: float | None = None) -> Connection:
        """Connect to a port, the host's by default (REQUEST and RESPONSE, 5.10.6.4).

        :raises RequestFailedError: when it is refused.
        :raises RequestTimeoutError: when there is no answer in time.
        :raises UsageError: for a port of more than 32 bits, or a cid of more than 64.
        """
        peer = Peer(next(self._ports), cid, port)
        connection = self.connections[peer] = Connection(self, peer)
        try:
            connection.ask(self.deadline(timeout))
        except BaseException:
            self.connections.pop(peer, None)
            raise
        return connection

    def accept(self, port: int, timeout: float | None = None) -> Connection:
        """Wait until somebody asks for a port of the guest, and agree; whoever has asked before is waiting still.

        :raises RequestTimeoutError: when nobody does in time.
        :raises UsageError: for a port of more than 32 bits.
        """
        number("port", port, 32)
        deadline = self.deadline(timeout)
        self.await_packet(f"REQUEST for port {port}", lambda: any(self._asking(port)), deadline)
        connection = self._asking(port)[0]
        connection.agree(deadline)
        return connection

    def transmit(self, header: VsockHdr, data: bytes = b"", timeout: float | None = None) -> None:
        """Send any packet at all, right or wrong.

        :raises RequestTimeoutError: when the device doesn't take it in time.
        """
        self.queue("tx").request(*filter(None, (header.pack(), data)), timeout=timeout)

    def await_packet(self, what: str, look: Callable[[], bool], deadline: Deadline) -> None:
        """Take packets in until ``look`` says so.

        :param what: what is waited for, in words.
        :raises RequestFailedError: when a packet can't be.
        :raises RequestTimeoutError: when it doesn't in time.
        """

        def taken() -> bool:
            self._take_packets()
            return look()

        self.await_result(what, taken, deadline, lambda: f"{list(self.connections.values())}", f"wait for {what}")

    def populate(self) -> None:
        """Give the device buffers for packets and for events, and forget what was before."""
        self.connections = {}
        self._fill("rx", VsockHdr.size() + PACKET_BYTES)
        self._fill("event", VsockEvent.size())
        self.guest_cid = self.config().guest_cid

    def refused(self, what: str, field: str, expected: str, seen: str) -> RequestFailedError:
        """The error for what a packet can't mean.

        :param field: of ``struct virtio_vsock_hdr``.
        """
        return RequestFailedError(
            f"{self.id}: {what}", step="packets of rx", register=field, expected=expected, seen=seen
        )

    def _fill(self, name: str, size: int) -> None:
        queue = self.queue(name)
        for _ in range(min(BUFFERS, queue.size)):
            queue.submit(writable=[size])

    def _asking(self, port: int) -> list[Connection]:
        return [each for each in self.connections.values() if each.is_asking and each.peer.local_port == port]

    def _take_packets(self) -> None:
        queue = self.queue("rx")
        while (request := queue.poll()) is not None:
            queue.submit(writable=[VsockHdr.size() + PACKET_BYTES])
            self._take(request.written)
        queue.kick()

    def _take(self, packet: bytes) -> None:
        """Check a packet and pass it to its connection (5.10.6)."""
        size = VsockHdr.size()
        if len(packet) < size:
            raise self.refused("a packet is too short", "used length", f"{size} or more", str(len(packet)))
        header, data = VsockHdr.unpack(packet), packet[size:]
        expected = {"dst_cid": self.guest_cid, "type": VsockType.STREAM, "len": len(data)}
        for field, value in expected.items():
            if (seen := getattr(header, field)) != value:
                raise self.refused("a packet's header is wrong", field, str(int(value)), str(seen))
        self._pass_on(Peer(header.dst_port, header.src_cid, header.src_port), header, data)

    def _pass_on(self, peer: Peer, header: VsockHdr, data: bytes) -> None:
        connection = self.connections.get(peer)
        if connection is None and header.op == VsockOp.REQUEST and len(self.connections) < MOST_CONNECTIONS:
            connection = self.connections[peer] = Connection(self, peer)
        if connection is not None:
            connection.take(header, data)
        elif header.op != VsockOp.RST:
            Connection(self, peer).reset()
