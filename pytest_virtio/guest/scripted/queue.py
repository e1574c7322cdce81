"""One virtqueue of a driver: requests in, completions out.

Responsible for the buffers of a request, for kicks and for waits; must not know how a ring is laid out, nor what a
request means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from pytest_virtio.errors import DriverError, UsageError
from pytest_virtio.guest.scripted.access import DeviceAccess
from pytest_virtio.ring.driver import Buffer, DriverRing, Used
from pytest_virtio.spec.ring import DESCRIPTOR_SIZE, Areas
from pytest_virtio.vm.memory import GuestMemory

__all__ = ("DriverQueue", "Request")

T = TypeVar("T")


class Request:
    """A chain that the device has, or has given back."""

    __slots__ = ("blocks", "buffers", "data", "length", "queue", "token")

    def __init__(self, queue: DriverQueue, token: int, buffers: tuple[Buffer, ...], blocks: tuple[int, ...]) -> None:
        self.token, self.buffers, self.blocks = token, buffers, blocks
        self.queue = queue
        """Where it was submitted, and is waited for."""
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

    def complete(self, length: int, memory: GuestMemory) -> None:
        """Take in what was written."""
        self.length = length
        self.data = b"".join([_in_ram(memory, buffer) for buffer in self.buffers if buffer.device_writes])


class DriverQueue:
    """One virtqueue, set up. A reset of the device or of the queue ends it; then its verbs raise UsageError.

    :param blocks: the guest RAM that the ring lies in.
    :param indirect: VIRTIO_F_INDIRECT_DESC was negotiated.
    :param notification_data: VIRTIO_F_NOTIFICATION_DATA was negotiated.
    """

    def __init__(
        self,
        device: DeviceAccess,
        index: int,
        names: tuple[str, ...],
        ring: DriverRing,
        blocks: tuple[int, ...],
        *,
        indirect: bool,
        notification_data: bool,
    ) -> None:
        self._device, self.index, self.names, self.ring, self._blocks = device, index, names, ring, blocks
        self._indirect, self._notification_data = indirect, notification_data
        self._pending: dict[int, Request] = {}
        self._done: dict[Request, None] = {}
        self._unseen = 0
        self._ended = False
        self.vector = 0
        """Its MSI-X vector."""
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
        unseen = f", {self.staged} submitted but not kicked" if self.staged else ""
        return f"{self.completed} requests given back, {len(self._pending) - self.staged} with the device{unseen}"

    @property
    def staged(self) -> int:
        """How many requests were submitted since the last :meth:`kick`, and have not come back all the same."""
        return min(self._unseen, len(self._pending))

    @property
    def pending(self) -> tuple[Request, ...]:
        """Requests that the device has not given back, kicked or not."""
        return tuple(self._pending.values())

    def allocate(self, size: int) -> int:
        """Take a block of guest RAM that is given back when the queue ends; its address.

        :param size: bytes.
        :raises UsageError: when guest RAM is used up, and on a queue that was reset.
        """
        self._check_alive()
        block = self._device.allocate(size)
        self._blocks = (*self._blocks, block)
        return block

    def submit(self, *readable: bytes, writable: Sequence[int] = (), indirect: bool | None = None) -> Request:
        """Put a chain into the ring: a descriptor for each buffer. The device sees it at the next :meth:`kick`.

        :param readable: what the device reads.
        :param writable: sizes in bytes of what it may write.
        :param indirect: whether to use an indirect table; by default where it was negotiated and saves descriptors.
        :raises QueueFullError: when there are not enough free descriptors.
        :raises UsageError: for a chain that no ring can take, when guest RAM is used up, and on a queue that was reset.
        """
        self._check_alive()
        joined = b"".join(readable)
        block = self._room(len(joined), writable)
        self._device.memory.write(block, joined)
        buffers, address = [], block
        for data in readable:
            buffers.append(Buffer(address, len(data)))
            address += len(data)
        for size in writable:
            buffers.append(Buffer(address, size, device_writes=True))
            address += size
        return self.submit_buffers(buffers, indirect=indirect, blocks=(block,))

    def submit_buffers(
        self, buffers: Sequence[Buffer], *, indirect: bool | None = None, blocks: tuple[int, ...] = ()
    ) -> Request:
        """Put a chain of buffers of your own into the ring. It raises as :meth:`submit` does.

        :param blocks: what to give back to the guest's heap when the request is done.
        """
        self._check_alive()
        use_table = self._indirect and len(buffers) > 1 if indirect is None else indirect
        table = self._device.allocate(DESCRIPTOR_SIZE * len(buffers), DESCRIPTOR_SIZE) if use_table else None
        every = blocks if table is None else (*blocks, table)
        try:
            token = self._of_ring(lambda: self.ring.add(buffers, table))
        except BaseException:
            self._free(every)
            raise
        request = self._pending[token] = Request(self, token, tuple(buffers), every)
        self._unseen += 1
        return request

    def kick(self, *, always: bool = False) -> bool:
        """Show the device what was submitted and notify it, if it wants to be; whether it was notified.

        :param always: notify it in any case.
        :raises RingError: when what the device wrote about notifications makes no sense; it sees the requests then.
        :raises UsageError: on a queue that was reset.
        """
        self._check_alive()
        self._unseen = 0
        wanted = self._of_ring(self.ring.publish)
        if wanted or always:
            data = self.ring.notification() if self._notification_data else None
            self._device.transport.notify(self.index, data)
            self._device.transport.push()
            self.kicks += 1
        return wanted or always

    def poll(self) -> Request | None:
        """The next completed request that was not waited for yet; None if there is none now.

        :raises RingError: when the device wrote something impossible into the ring.
        :raises UsageError: on a queue that was reset.
        """
        self._collect()
        return self._taken() if self._done else None

    def wait(self, request: Request, timeout: float | None = None) -> Request:
        """Wait until the device has given a request back; one that it has given back already is returned at once.

        :param timeout: seconds; the driver's by default.
        :raises RequestTimeoutError: when it doesn't in time.
        :raises NeedsResetError: when the device breaks instead.
        :raises RingError: when it wrote something impossible into the ring.
        :raises QemuExitedError: when QEMU is gone.
        :raises UsageError: for a request of another queue, or from before a reset.
        """
        if not request.done:
            if self._pending.get(request.token) is not request:
                raise UsageError(f"the request is not with {self}: it is another queue's, or a reset has ended it")
            self._await(lambda: request.done, timeout)
        self._done.pop(request, None)
        return request

    def next(self, timeout: float | None = None) -> Request:
        """Wait for whatever the device gives back next. It raises as :meth:`wait` does."""
        self._await(lambda: bool(self._done), timeout)
        return self._taken()

    def request(self, *readable: bytes, writable: Sequence[int] = (), timeout: float | None = None) -> Request:
        """Submit, kick and wait. It raises as :meth:`wait` does."""
        request = self.submit(*readable, writable=writable)
        self.kick()
        return self.wait(request, timeout)

    def interrupted(self) -> bool:
        """Whether the device has interrupted for this queue since the last call.

        Queues that share a vector, and all queues where there is no MSI-X, share the answer too: whoever asks first
        has it.
        """
        return self._device.signal.take(self._device.transport, self.vector)

    def end(self) -> None:
        """Have no more to do with the device, which was reset: give all RAM back and forget what it still had."""
        if not self._ended:
            self._free([*self._blocks, *(block for request in self._pending.values() for block in request.blocks)])
            self._pending.clear()
            self._unseen = 0
            self._ended = True

    def _room(self, readable: int, writable: Sequence[int]) -> int:
        """Where the buffers of a request lie; the heap's errors don't know what was asked for."""
        try:
            return self._device.allocate(readable + sum(writable))
        except UsageError as error:
            asked = f"{readable} bytes to read and {list(writable)} to write"
            raise UsageError(f"{self._device.id}, {self.name}: a request of {asked}: {error}") from None

    def _await(self, look: Callable[[], bool], timeout: float | None) -> None:
        deadline = self._device.deadline(timeout)

        def found() -> bool:
            self._collect()
            return look()

        self._device.await_result(
            f"the next completion of {self.name}", found, deadline, lambda: self.standing, self._step
        )

    def _collect(self) -> None:
        self._check_alive()
        while (used := self._of_ring(self.ring.take_used)) is not None:
            self._complete(used)

    def _complete(self, used: Used) -> None:
        self.completed += 1
        # What a test wrote into the ring by hand comes back without a request.
        request = self._pending.pop(used.token, None)
        if request is not None:
            request.complete(used.length, self._device.memory)
            self._free(request.blocks)
            self._done[request] = None

    def _taken(self) -> Request:
        request = next(iter(self._done))
        del self._done[request]
        return request

    def _free(self, blocks: Sequence[int]) -> None:
        for block in blocks:
            self._device.free(block)

    def _check_alive(self) -> None:
        if self._ended:
            raise UsageError(f"{self} has ended with a reset: ask the driver for the queue anew once it is set up")

    def _of_ring(self, step: Callable[[], T]) -> T:
        """Do something with the ring; its errors don't know whose it is."""
        try:
            return step()
        except DriverError as error:
            what = f"{self._device.id}, {self.name}: {str(error).splitlines()[0]}"
            told = {"register": error.register, "expected": error.expected, "seen": error.seen}
            raise type(error)(what, step=self._step, **told) from None

    @property
    def _step(self) -> str:
        return f"requests on {self.name}"


def _in_ram(memory: GuestMemory, buffer: Buffer) -> bytes:
    """What stands in a buffer; nothing where a test has pointed it outside of RAM."""
    try:
        return memory.read(buffer.address, buffer.length)
    except UsageError:
        return b""
