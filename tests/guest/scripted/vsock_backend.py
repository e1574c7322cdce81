"""A vhost-user backend for a socket device: an echo, by virtio 1.3 section 5.10.

It behaves as vhost-device-vsock 0.3 (rust-vmm) was seen to with an echo behind it: 64 KiB of buffer, SHUTDOWN of both
directions at the end, RST in answer to the guest's. Unlike that one it refuses ports that nobody listens on.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from .vhost_user import VhostUserBackend

ECHO_PORT, CALLED_PORT, CALLING_PORT = 1234, 77, 5555
GUEST_CID, HOST_CID, STREAM = 3, 2, 1
REQUEST, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST = range(1, 8)
HEADER = struct.Struct("<QQIIIHHIII")
BUFFER, PACKET = 65536, 4096
CALLED = b"called"

Ports = tuple[int, int]
"""The guest's, the host's."""


@dataclass
class Stream:
    """A connection: what is to be echoed, and how credit stands (5.10.6.3)."""

    unsent: bytes = b""
    sent: int = 0
    received: int = 0
    room: int = 0


class EchoBackend(VhostUserBackend):
    """At the word ``close`` it hangs up, at ``call`` it connects to the guest."""

    config = struct.pack("<Q", GUEST_CID)

    def __init__(self, path: Path) -> None:
        self.streams: dict[Ports, Stream] = {}
        self.packets: list[bytes] = []
        self.buffers: list[tuple[int, int]] = []
        super().__init__(path, queues=3)

    def kicked(self) -> None:
        rx, tx, _ = self.vrings
        for head, buffers in tx.fetch(self.ram):
            packet = b"".join(self.ram.read(*buffer) for buffer in buffers)
            tx.give_back(self.ram, head, 0)
            self.take(packet[: HEADER.size], packet[HEADER.size :])
        self.buffers += [(head, buffers[0][0]) for head, buffers in rx.fetch(self.ram)]
        for ports, stream in self.streams.items():
            self.echo(ports, stream)
        while self.packets and self.buffers:
            (head, address), packet = self.buffers.pop(0), self.packets.pop(0)
            self.ram.write(address, packet)
            rx.give_back(self.ram, head, len(packet))

    def take(self, head: bytes, data: bytes) -> None:
        source, target, *ports, length, kind, op, flags, room, forwarded = HEADER.unpack(head)
        assert (source, target, kind, length) == (GUEST_CID, HOST_CID, STREAM, len(data))
        guest, host = ports
        if op == REQUEST and host == ECHO_PORT:
            self.streams[guest, host] = Stream()
        stream = self.streams.get((guest, host))
        if stream is not None:
            stream.room = room - (stream.sent - forwarded)
            self.heed((guest, host), stream, op, flags, data)
        elif op != RST:
            self.say((guest, host), RST)

    def heed(self, ports: Ports, stream: Stream, op: int, flags: int, data: bytes) -> None:
        stream.received += len(data)
        stream.unsent += data
        answers = {REQUEST: RESPONSE, CREDIT_REQUEST: CREDIT_UPDATE, SHUTDOWN: RST}
        if op in answers and (op != SHUTDOWN or flags == 3):
            self.say(ports, answers[op])
        if op == RESPONSE:
            stream.sent += len(CALLED)
            self.say(ports, RW, CALLED)
        elif op == RST or (op == SHUTDOWN and flags == 3):
            del self.streams[ports]
        elif data == b"close":
            self.echo(ports, stream)
            self.say(ports, SHUTDOWN, flags=3)
        elif data == b"call":
            self.streams[CALLED_PORT, CALLING_PORT] = Stream()
            self.say((CALLED_PORT, CALLING_PORT), REQUEST)

    def echo(self, ports: Ports, stream: Stream) -> None:
        while piece := stream.unsent[: min(stream.room, PACKET)]:
            stream.unsent = stream.unsent[len(piece) :]
            stream.sent += len(piece)
            stream.room -= len(piece)
            self.say(ports, RW, piece)

    def say(self, ports: Ports, op: int, data: bytes = b"", flags: int = 0) -> None:
        stream = self.streams.get(ports, Stream())
        taken = stream.received - len(stream.unsent)
        head = (HOST_CID, GUEST_CID, ports[1], ports[0], len(data), STREAM, op, flags, BUFFER, taken)
        self.packets.append(HEADER.pack(*head) + data)
