"""How a device tells the driver that something happened, made visible to the test.

Responsible for MSI-X messages in guest RAM, for INTx lines, and for how to wait where neither can wake us; must not
know queues. Messages are plain memory writes, so nothing wakes us by them: the wait asks the device's status again and
again, which is a blocking round trip through QEMU's main loop and shows a broken device at once.
"""

from __future__ import annotations

import time

from pytest_virtio.bus.transport import Message, Transport
from pytest_virtio.guest.scripted.arena import Arena
from pytest_virtio.spec.transport.pci import IsrStatus
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.memory import GuestMemory
from pytest_virtio.vm.qtest import Qtest

__all__ = ("IntxLine", "Messages", "Signal")

EAGER_ROUNDS = 40
LONGEST_PAUSE = 0.005
MESSAGE_BYTES = 4
LOOKS = 3
"""A request can be seen before its interrupt: QEMU may send that in another round of its main loop, by way of an event
descriptor. Between two looks the loop goes round."""


class Signal:
    """How one device signals: as it stands here, not at all. It is told not to, or has no way to; what shows is what
    its interrupt status says, which has one bit for the configuration and one for all queues."""

    vectors = 0
    wanted = False

    def __init__(self) -> None:
        self._unread = 0

    def prepare(self, transport: Transport) -> None:
        """Begin anew, before the device learns of its queues."""
        self._unread = 0

    def take(self, transport: Transport, vector: int) -> bool:
        """Whether there was an interrupt since the last call, for whatever is seen to have happened by now.

        :param vector: 0 for the configuration.
        """
        for _ in range(LOOKS):
            if self._came(transport, vector):
                return True
            transport.status()
        return False

    def pause(self, rounds: int, deadline: Deadline) -> None:
        """Let some time pass before the next look: none at first, for most requests are done at once."""
        if rounds > EAGER_ROUNDS:
            time.sleep(min(0.0002 * (rounds - EAGER_ROUNDS), LONGEST_PAUSE, deadline.remaining()))

    def _came(self, transport: Transport, vector: int) -> bool:
        bit = IsrStatus.QUEUE if vector else IsrStatus.CONFIGURATION
        # Reading it clears both bits (4.1.4.5).
        self._unread |= self._read(transport)
        came = bool(self._unread & bit)
        self._unread &= ~bit
        return came

    def _read(self, transport: Transport) -> int:
        return transport.isr()


class Messages(Signal):
    """MSI-X, its vectors pointed at guest RAM: vector N writes N + 1 into the Nth word."""

    wanted = True

    def __init__(self, memory: GuestMemory, arena: Arena, vectors: int) -> None:
        super().__init__()
        self._memory, self.vectors = memory, vectors
        self._words = arena.allocate(vectors * MESSAGE_BYTES)

    def prepare(self, transport: Transport) -> None:
        """Fill the table and enable MSI-X."""
        self._memory.write(self._words, bytes(self.vectors * MESSAGE_BYTES))
        words = range(self._words, self._words + self.vectors * MESSAGE_BYTES, MESSAGE_BYTES)
        transport.set_messages(tuple(Message(address, number) for number, address in enumerate(words, 1)))

    def _came(self, transport: Transport, vector: int) -> bool:
        """Whether the vector's message has come. It is a write: two look like one."""
        address = self._words + vector * MESSAGE_BYTES
        came = self._memory.load16(address) == vector + 1
        if came:
            self._memory.write(address, bytes(MESSAGE_BYTES))
        return came


class IntxLine(Signal):
    """INTx: lines into the interrupt controller, reported by QEMU as they rise and fall. Devices share them.

    :param line: the controller's input that the device is wired to.
    """

    wanted = True

    def __init__(self, wire: Qtest, line: int) -> None:
        super().__init__()
        self._wire, self._line, self._seen = wire, line, wire.raises

    def pause(self, rounds: int, deadline: Deadline) -> None:
        """Wait for the next interrupt, of whatever device, for a moment at the most: a driver may suppress them."""
        moment = Deadline.after(min(LONGEST_PAUSE, deadline.remaining()))
        self._wire.await_interrupt(self._seen, moment)
        self._seen = self._wire.raises

    def _read(self, transport: Transport) -> int:
        """The interrupt status, if the line is high: without it there was no interrupt, whatever the status says."""
        return transport.isr() if self._line in self._wire.raised() else 0
