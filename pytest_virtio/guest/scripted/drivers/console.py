"""The console device (virtio 1.3 section 5.3): one port, or with MULTIPORT as many as come, and what goes through them.

Responsible for the conversation on the control queues and for bytes in both directions; must not know what is at the
other end of a port.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from pytest_virtio.errors import NotSupportedError, RequestFailedError, UnknownNameError, UsageError
from pytest_virtio.guest.scripted.access import Attachment
from pytest_virtio.guest.scripted.driver import Driver
from pytest_virtio.guest.scripted.drivers.messages import number
from pytest_virtio.guest.scripted.queue import DriverQueue
from pytest_virtio.spec.devices.console import (
    BAD_ID,
    ConsoleConfig,
    ConsoleControl,
    ConsoleEvent,
    ConsoleFeature,
    ConsoleResize,
)

__all__ = ("ConsoleDriver", "Port")

BUFFER_BYTES = 4096
RECEIVE_BUFFERS = 16
"""How many buffers a port has to receive into, where its queue is as long: enough to find data in several of them."""
CONTROL_BYTES = 256
"""Of a buffer for control messages: a name may stand after the message."""


class Port:
    """A port of a console device; what the device has said of it stands in its attributes."""

    def __init__(self, driver: ConsoleDriver, id: int) -> None:
        self._driver, self.id = driver, id
        self.name = ""
        """Its name; "" if it has none."""
        self.is_console = False
        """Whether the device wants it to be used as a console."""
        self.host_open = False
        """Whether the host's end is open, as the device said last; :meth:`await_host_open` listens anew."""
        self.size: ConsoleResize | None = None
        """The console's size, if the device has said it in a message."""
        self._unread = bytearray()

    def __repr__(self) -> str:
        return f"<Port {self.id} of {self._driver.id}{f', {self.name!r}' if self.name else ''}>"

    @property
    def rx(self) -> DriverQueue:
        """The queue that it receives by."""
        return self._driver.queue(f"rx{self.id}")

    @property
    def tx(self) -> DriverQueue:
        """The queue that it sends by."""
        return self._driver.queue(f"tx{self.id}")

    def open(self, timeout: float | None = None) -> Port:
        """Tell the device that somebody is at this end of the port, too: QEMU passes nothing on before (5.3.6.2).

        :raises NotSupportedError: without MULTIPORT: such a port is always open.
        :raises RequestTimeoutError: when the device doesn't take the message in time.
        """
        self._driver.tell(ConsoleEvent.PORT_OPEN, self.id, 1, timeout)
        return self

    def close(self, timeout: float | None = None) -> None:
        """Tell the device that nobody is there any more. It raises as :meth:`open` does."""
        self._driver.tell(ConsoleEvent.PORT_OPEN, self.id, 0, timeout)

    def write(self, data: bytes, timeout: float | None = None) -> None:
        """Send, in as many buffers as it takes, one after the other.

        :raises RequestTimeoutError: when the device doesn't take them all in time.
        """
        deadline = self._driver.deadline(timeout)
        for start in range(0, len(data), BUFFER_BYTES):
            self.tx.request(data[start : start + BUFFER_BYTES], timeout=deadline.remaining())

    def read(self, length: int, timeout: float | None = None) -> bytes:
        """Receive exactly ``length`` bytes. What has come stays there for the next call, if they are not enough.

        :raises RequestTimeoutError: when not as many come in time.
        :raises RequestFailedError: when the device gives a buffer back with nothing in it.
        :raises UsageError: for a length below 0.
        """
        if length < 0:
            raise UsageError(f"read(length={length}): 0 bytes or more are expected")
        self._driver.await_result(
            f"{length} bytes from port {self.id}",
            lambda: self._has(length),
            self._driver.deadline(timeout),
            lambda: f"{len(self._unread)} bytes, kept for the next read",
            f"read of port {self.id}",
        )
        data, self._unread = bytes(self._unread[:length]), self._unread[length:]
        return data

    def await_host_open(self, is_open: bool = True, timeout: float | None = None) -> None:
        """Wait until the device says that the host's end is open, or closed.

        :raises RequestTimeoutError: when it doesn't in time.
        """
        word = "open" if is_open else "closed"
        self._driver.await_control(lambda: self.host_open == is_open, f"the host's end of {self!r} {word}", timeout)

    def fill(self) -> None:
        """Put buffers to receive into the queue, as far as it has not got them from a port that was there before."""
        for _ in range(min(RECEIVE_BUFFERS - len(self.rx.pending), self.rx.ring.free)):
            self.rx.submit(writable=[BUFFER_BYTES])

    def _has(self, length: int) -> bool:
        """Take in what has come, up to ``length`` bytes and the rest of a buffer; whether there is as much."""
        while len(self._unread) < length and (request := self.rx.poll()) is not None:
            if not request.written:
                raise self._driver.refused("a receive buffer comes back empty", "used length", "1 or more", "0")
            self._unread += request.written
            self.rx.submit(writable=[BUFFER_BYTES])
        self.rx.kick()
        return len(self._unread) >= length


class ConsoleDriver(Driver):
    """Drives a console device."""

    understood = frozenset(ConsoleFeature)

    def __init__(self, attachment: Attachment) -> None:
        super().__init__(attachment)
        self.ports: dict[int, Port] = {}
        """The ports that the device has told of, by number; without MULTIPORT there is one, 0."""
        self._heard: deque[bytes] = deque()

    def config(self) -> ConsoleConfig:
        """The device's configuration (5.3.4)."""
        return self.read_config(ConsoleConfig)

    def emergency_write(self, character: int) -> None:
        """Have port 0 print one byte, whatever state the device is in; with EMERG_WRITE offered (5.3.4).

        :raises UsageError: for a number of more than 32 bits.
        """
        self.write_config(ConsoleConfig, "emerg_wr", number("character", character, 32))

    def port(self, which: int | str) -> Port:
        """A port, by number or name; QEMU numbers those of ``Serial`` from 1 and calls them ``"serial0.0"`` and so on.

        :raises UnknownNameError: naming the ports that the device has told of.
        """
        self.listen()
        port = self._find(which)
        if port is None:
            known = [name for port in self.ports.values() for name in (str(port.id), port.name) if name]
            raise UnknownNameError(f"port of {self.id}", str(which), known, "" if known else "There is none.")
        return port

    def await_port(self, which: int | str, timeout: float | None = None) -> Port:
        """Wait for a port, which may have been plugged just now, to be told of.

        :raises RequestTimeoutError: when it isn't in time.
        :raises UsageError: for a number of more than 32 bits.
        """
        if isinstance(which, int):
            number("which", which, 32)
        self.await_control(lambda: self._find(which) is not None, f"port {which!r}", timeout)
        return self.port(which)

    def await_control(self, look: Callable[[], bool], what: str, timeout: float | None = None) -> None:
        """Listen to the control queue until ``look`` says so.

        :param what: what is waited for, in words.
        :raises RequestTimeoutError: when it doesn't in time.
        """

        def listened() -> bool:
            self.listen()
            return look()

        self.await_result(what, listened, self.deadline(timeout), lambda: f"ports {list(self.ports.values())}")

    def listen(self) -> None:
        """Take in all that the device has said on the control queue, and answer it (5.3.6.2).

        :raises RequestFailedError: when it can't have said that, or doesn't stop saying.
        :raises RequestTimeoutError: when it doesn't take an answer in time.
        """
        if not self.has(ConsoleFeature.MULTIPORT):
            return
        deadline = self.deadline()
        self._hear()
        while self._heard:
            if deadline.passed():
                raise self.refused("control messages don't end", "control receiveq", "an end", f"{self._heard[0]!r}")
            self._take(self._heard.popleft())
            # QEMU drops a message that finds no buffer, and most answers bring new ones.
            self._hear()

    def tell(self, event: int, port: int = BAD_ID, value: int = 0, timeout: float | None = None) -> None:
        """Send a control message, :class:`ConsoleEvent` or another (5.3.6.2).

        :raises NotSupportedError: without MULTIPORT.
        :raises RequestTimeoutError: when the device doesn't take it in time.
        :raises UsageError: when a number doesn't fit: ``port`` has 32 bits, the others 16.
        """
        if not self.has(ConsoleFeature.MULTIPORT):
            raise NotSupportedError(f"{self.id}: control messages need MULTIPORT, which was not negotiated")
        message = ConsoleControl(port, event, value).pack(self.transport.order)
        self.queue("ctrl_tx").request(message, timeout=timeout)

    def populate(self) -> None:
        """Give the device buffers for control messages, or without MULTIPORT for what its one port receives."""
        self.ports = {}
        self._heard.clear()
        if not self.has(ConsoleFeature.MULTIPORT):
            self.ports[0] = Port(self, 0)
            self.ports[0].fill()
            return
        for _ in range(self.queue("ctrl_rx").size):
            self.queue("ctrl_rx").submit(writable=[CONTROL_BYTES])

    def started(self) -> None:
        """Ask for the ports, and answer for those that are told of at once."""
        if self.has(ConsoleFeature.MULTIPORT):
            self.tell(ConsoleEvent.DEVICE_READY, value=1)
            self.listen()

    def refused(self, what: str, register: str, expected: str, seen: str) -> RequestFailedError:
        """The error for what the device can't mean."""
        return RequestFailedError(
            f"{self.id}: {what}", step=self.history[-1], register=register, expected=expected, seen=seen
        )

    def _find(self, which: int | str) -> Port | None:
        return next((port for port in self.ports.values() if (which and which == port.name) or which == port.id), None)

    def _hear(self) -> None:
        """Take messages out of the queue, as many as it holds, and give their buffers back to the device."""
        queue = self.queue("ctrl_rx")
        while (request := queue.poll()) is not None:
            self._heard.append(request.written)
            queue.submit(writable=[CONTROL_BYTES])
        queue.kick()

    def _take(self, data: bytes) -> None:
        size = ConsoleControl.size()
        if len(data) < size:
            raise self.refused("a control message is too short", "used length", f"{size} or more", str(len(data)))
        message = ConsoleControl.unpack(data, self.transport.order)
        if message.event == ConsoleEvent.PORT_ADD:
            self._add_port(message.id)
        elif message.id in self.ports:
            self._update_port(self.ports[message.id], message, data[size:])

    def _add_port(self, id: int) -> None:
        """A new port: it gets its buffers before it is called ready."""
        names = {name for queue in self.queues for name in queue.names}
        if not {f"rx{id}", f"tx{id}"} <= names:
            last = self.config().max_nr_ports - 1
            raise self.refused("a port has no queues", "id of PORT_ADD", f"0 to {last}", str(id))
        port = self.ports.setdefault(id, Port(self, id))
        port.fill()
        port.rx.kick()
        self.tell(ConsoleEvent.PORT_READY, id, 1)

    def _update_port(self, port: Port, message: ConsoleControl, rest: bytes) -> None:
        match message.event:
            case ConsoleEvent.PORT_REMOVE:
                del self.ports[port.id]
            case ConsoleEvent.CONSOLE_PORT:
                port.is_console = True
                # The driver MUST answer so (5.3.6.2).
                port.open()
            case ConsoleEvent.RESIZE:
                port.size = ConsoleResize.unpack(rest, self.transport.order)
            case ConsoleEvent.PORT_OPEN:
                port.host_open = bool(message.value)
            case ConsoleEvent.PORT_NAME:
                port.name = rest.partition(b"\0")[0].decode("utf-8", "backslashreplace")
