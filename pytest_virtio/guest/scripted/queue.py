"""One virtqueue of a driver: requests in, completions out.

Responsible for the buffers of a request, for kicks and for waits; must not know how a ring is laid out, nor what a
request means.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from pytest_virtio.bus.transport import Transport
from pytest_virtio.guest.scripted.interrupts import Signal
from pytest_virtio.ring.driver import Buffer, DriverRing
from pytest_virtio.spec.ring import DESCRIPTOR_SIZE, Areas
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.memory import GuestMemory

__all__ = ("DriverQueue", "Host", "Request")


class Host(Protocol):
    """What a queue needs of its driver."""

    transport: Transport
    memory: GuestMemory
    signal: Signal
    timeout: float

    def allocate(self, size: int, align: int = 1) -> int:
        """A block of guest RAM."""

    def free(self, address: int) -> None:
        """Give it back."""

    def await_result(self, what: str, look: Callable[[], bool], deadline: Deadline, seen: Callable[[], str]) -> None:
        """Wait until ``look`` says so."""


class Request:
    """A chain that the device has, or has given back."""

    __slots__ = ("_blocks", "_memory", "buffers", "data", "length", "token")

    def __init__(self, memory: GuestMemory, token: int, buffers: tuple[Buffer, ...], blocks: tuple[int, ...]) -> None:
        self._memory, self.token, self.buffers, self._blocks = memory, token, buffers, blocks
        self.length: int | None = None
        """How many bytes the device says it wrote; None while it has the chain."""
        self.data = b""
        """What then stood in the buffers that it may write."""

    @property
    def done(self) -> bool:
        """Whether the device has given it back."""
        return self.length is not None

    @property
    def written(self) -> bytes:
        """The part of :attr:`data` that the device says it wrote."""
        return self.data[: self.length or 0]

    def _complete(self, length: int) -> tuple[int, ...]:
        """Take in what was written; the blocks to give back."""
        self.length = length
        self.data = b"".join([self._memory.read(b.address, b.length) for b in self.buffers if b.device_writes])
        return self._blocks


class DriverQueue:
    """One virtqueue, set up."""

    def __init__(self, host: Host, index: int, names: tuple[str, ...], ring: DriverRing, *, indirect: bool, data: bool):
        self._host, self.index, self.names, self.ring = host, index, names, ring
        self._indirect, self._notification_data = indirect, data
        self._pending: dict[int, Request] = {}
        self._done: deque[Request] = deque()
        self.vector = 0
        self.completed = 0
        """How many requests the device has given back."""
        self.kicks = 0
        """How often the device was notified."""

    def __repr__(self) -> str:
        return f"<DriverQueue {self.names[0]} (queue {self.index}), {len(self._pending)} pending>"

    @property
    def name(self) -> str:
        """The short name: ``"rx0"``."""
        return self.names[0]

    @property
    def size(self) -> int:
        """How many descriptors it has."""
        return self.ring.size

    @property
    def areas(self) -> Areas:
        """Where it lies in guest RAM."""
        return self.ring.areas

    @property
    def standing(self) -> str:
        """How it stands, in words."""
        return f"{self.completed} requests given back, {len(self._pending)} with the device"

    @property
    def pending(self) -> tuple[Request, ...]:
        """Requests that the device has."""
        return tuple(self._pending.values())

    def submit(self, *readable: bytes, writable: Sequence[int] = (), indirect: bool | None = None) -> Request:
        """Put a chain into the ring: a descriptor for each buffer. The device sees it at the next :meth:`kick`.

        :param readable: what the device reads.
        :param writable: sizes in bytes of what it may write.
        :param indirect: whether to use an indirect table; by default where it was negotiated and saves descriptors.
        :raises QueueFullError: when there are not enough free descriptors.
        """
        block = self._host.allocate(sum(map(len, readable)) + sum(writable))
        buffers, address = [], block
        for data in readable:
            buffers.append(Buffer(address, len(data)))
            address += len(data)
        self._host.memory.write(block, b"".join(readable))
        for size in writable:
            buffers.append(Buffer(address, size, device_writes=True))
            address += size
        return self.submit_buffers(buffers, indirect=indirect, blocks=(block,))

    def submit_buffers(
        self, buffers: Sequence[Buffer], *, indirect: bool | None = None, blocks: tuple[int, ...] = ()
    ) -> Request:
        """Put a chain of buffers of your own into the ring.

        :param blocks: what to give back to the guest's heap when the request is done.
        """
        use_table = self._indirect and len(buffers) > 1 if indirect is None else indirect
        table = self._host.allocate(DESCRIPTOR_SIZE * len(buffers), DESCRIPTOR_SIZE) if use_table else None
        every = blocks if table is None else (*blocks, table)
        try:
            token = self.ring.add(buffers, table)
        except BaseException:
            for block in every:
                self._host.free(block)
            raise
        request = Request(self._host.memory, token, tuple(buffers), every)
        self._pending[token] = request
        return request

    def kick(self, *, always: bool = False) -> bool:
        """Show the device what was submitted and notify it, if it wants to be; whether it was notified.

        :param always: notify it in any case.
        """
        wanted = self.ring.publish()
        if wanted or always:
            data = self.ring.notification() if self._notification_data else 0
            self._host.transport.notify(self.index, data)
            self._host.transport.flush()
            self.kicks += 1
        return wanted or always

    def poll(self) -> Request | None:
        """The next completed request that was not waited for yet; None if there is none now.

        :raises RingError: when the device wrote something impossible into the ring.
        """
        self._collect()
        return self._done.popleft() if self._done else None

    def wait(self, request: Request, timeout: float | None = None) -> Request:
        """Wait until the device has given a request back.

        :param timeout: seconds; the driver's by default.
        :raises RequestTimeoutError: when it doesn't in time.
        :raises NeedsResetError: when the device breaks instead.
        :raises RingError: when it wrote something impossible into the ring.
        :raises QemuExitedError: when QEMU is gone.
        """
        self._await(lambda: request.done, timeout)
        self._done.remove(request)
        return request

    def next(self, timeout: float | None = None) -> Request:
        """Wait for whatever the device gives back next. It raises as :meth:`wait` does."""
        self._await(lambda: bool(self._done), timeout)
        return self._done.popleft()

    def request(self, *readable: bytes, writable: Sequence[int] = (), timeout: float | None = None) -> Request:
        """Submit, kick and wait. It raises as :meth:`wait` does."""
        request = self.submit(*readable, writable=writable)
        self.kick()
        return self.wait(request, timeout)

    def interrupted(self) -> bool:
        """Whether the device has interrupted for this queue since the last call."""
        return self._host.signal.take(self._host.transport, self.vector)

    def _await(self, look: Callable[[], bool], timeout: float | None) -> None:
        deadline = Deadline.after(self._host.timeout if timeout is None else timeout)

        def found() -> bool:
            self._collect()
            return look()

        self._host.await_result(f"the next completion of {self.name}", found, deadline, lambda: self.standing)

    def _collect(self) -> None:
        while (used := self.ring.take_used()) is not None:
            request = self._pending.pop(used.token)
            for block in request._complete(used.length):
                self._host.free(block)
            self._done.append(request)
            self.completed += 1
