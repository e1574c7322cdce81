"""The back end's side of vhost-user, as little as a device without features needs, from the vhost-user specification.

It runs in a thread; a device is a subclass that takes what is in the queues when one is kicked.
"""

from __future__ import annotations

import mmap
import os
import selectors
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

# "Front-end message types".
GET_FEATURES, SET_MEM_TABLE, SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE = 1, 5, 8, 9, 10, 11
SET_VRING_KICK, SET_VRING_CALL, GET_PROTOCOL_FEATURES, GET_QUEUE_NUM, GET_CONFIG = 12, 13, 15, 17, 24
VERSION_1, PROTOCOL_FEATURES = 1 << 32, 1 << 30
MQ, CONFIG = 1 << 0, 1 << 9
REPLY = 1 | 1 << 2
"""Flags of a reply: version 1, and that it is one."""


class SharedRam:
    """Guest RAM, by the front end's table of regions: guest-physical address, size, its own address, offset."""

    def __init__(self, payload: bytes, fds: list[int]) -> None:
        regions = list(struct.iter_unpack("<QQQQ", payload[8:]))
        self.regions = [(r, mmap.mmap(fd, r[1] + r[3])) for r, fd in zip(regions, fds, strict=True)]

    def read(self, address: int, length: int) -> bytes:
        at, memory = self.place(address)
        return memory[at : at + length]

    def write(self, address: int, data: bytes) -> None:
        at, memory = self.place(address)
        memory[at : at + len(data)] = data

    def number(self, address: int, length: int) -> int:
        return int.from_bytes(self.read(address, length), "little")

    def place(self, address: int) -> tuple[int, mmap.mmap]:
        found = [(address - r[0] + r[3], memory) for r, memory in self.regions if r[0] <= address < r[0] + r[1]]
        return found[0]

    def physical(self, own: int) -> int:
        return next(int(r[0] + own - r[2]) for r, _ in self.regions if r[2] <= own < r[2] + r[1])


@dataclass
class Vring:
    """A split virtqueue (virtio 1.3 section 2.7), without any of its features."""

    size: int = 0
    descriptors: int = 0
    available: int = 0
    used: int = 0
    next_available: int = 0
    next_used: int = 0
    call: int = -1
    started: bool = False

    def fetch(self, ram: SharedRam) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """Each new chain: its head, and address and length of its buffers."""
        while self.started and self.next_available != ram.number(self.available + 2, 2):
            head = ram.number(self.available + 4 + 2 * (self.next_available % self.size), 2)
            self.next_available = (self.next_available + 1) % 65536
            yield head, list(self.chain(ram, head))

    def chain(self, ram: SharedRam, index: int) -> Iterator[tuple[int, int]]:
        flags = 1
        while flags & 1:
            entry = ram.read(self.descriptors + 16 * index, 16)
            address, length, flags, index = struct.unpack("<QIHH", entry)
            yield address, length

    def give_back(self, ram: SharedRam, head: int, length: int) -> None:
        ram.write(self.used + 4 + 8 * (self.next_used % self.size), struct.pack("<II", head, length))
        self.next_used = (self.next_used + 1) % 65536
        ram.write(self.used + 2, struct.pack("<H", self.next_used))
        if not ram.number(self.available, 2):
            os.write(self.call, struct.pack("<Q", 1))


class VhostUserBackend:
    """A device behind a Unix socket, for one front end."""

    config = b""

    def __init__(self, path: Path, queues: int) -> None:
        self.vrings = [Vring() for _ in range(queues)]
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.sockets, self.fds = [self.listener], list[int]()
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ, self.accept)
        self.running = True
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def kicked(self) -> None:
        """Take what is in the queues."""

    def kick(self, fd: int) -> None:
        os.read(fd, 8)
        self.kicked()

    def run(self) -> None:
        while self.running:
            for key, _ in self.selector.select(timeout=0.05):
                key.data()

    def stop(self) -> None:
        self.running = False
        self.thread.join(10)
        self.selector.close()
        for connection in self.sockets:
            connection.close()
        for fd in self.fds:
            os.close(fd)

    def accept(self) -> None:
        self.peer, _ = self.listener.accept()
        self.sockets.append(self.peer)
        self.selector.register(self.peer, selectors.EVENT_READ, self.message)

    def message(self) -> None:
        head, fds, _, _ = socket.recv_fds(self.peer, 12, 8)
        self.fds += fds
        if not head:
            self.selector.unregister(self.peer)
            return
        request, _, size = struct.unpack("<III", head)
        payload = self.peer.recv(size, socket.MSG_WAITALL) if size else b""
        answer = self.answer(request, payload)
        if answer is not None:
            self.peer.sendall(struct.pack("<III", request, REPLY, len(answer)) + answer)
        elif request == SET_MEM_TABLE:
            self.ram = SharedRam(payload, fds)
        elif SET_VRING_NUM <= request <= SET_VRING_CALL:
            self.set_vring(self.vrings[payload[0]], request, payload, *fds)

    def answer(self, request: int, payload: bytes) -> bytes | None:
        if request == GET_CONFIG:
            return payload[:12] + self.config.ljust(len(payload) - 12, b"\0")
        if request == GET_VRING_BASE:
            vring = self.vrings[payload[0]]
            vring.started = False
            return payload[:4] + struct.pack("<I", vring.next_available)
        features = VERSION_1 | PROTOCOL_FEATURES
        known = {GET_FEATURES: features, GET_PROTOCOL_FEATURES: MQ | CONFIG, GET_QUEUE_NUM: len(self.vrings)}
        return struct.pack("<Q", known[request]) if request in known else None

    def set_vring(self, vring: Vring, request: int, payload: bytes, fd: int = -1) -> None:
        if request == SET_VRING_NUM:
            (vring.size,) = struct.unpack("<4xI", payload)
        elif request == SET_VRING_ADDR:
            addresses = map(self.ram.physical, struct.unpack("<8xQQQ8x", payload))
            vring.descriptors, vring.used, vring.available = addresses
        elif request == SET_VRING_BASE:
            (vring.next_available,) = struct.unpack("<4xI", payload)
            vring.next_used = vring.next_available
        elif request == SET_VRING_CALL:
            vring.call = fd
        elif request == SET_VRING_KICK and fd >= 0:
            vring.started = True
            self.selector.register(fd, selectors.EVENT_READ, partial(self.kick, fd))
