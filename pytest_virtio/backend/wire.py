"""A witness on the wire between QEMU and a vhost-user backend: every message is decoded, noted and passed on.

Responsible for the threads that do so, one for each direction, and for what a declaration wants done to messages; must
not know which device it is, nor how the two came to be connected. The rings are not its business: data goes past it.
When a side hangs up, when what comes is no message, or when we end, both sides are let go: nobody hangs for us.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from pytest_virtio.backend.messages import Frame, receive, send
from pytest_virtio.declare.wire import Cut, Delay, Drop, Duplicate, Fault, Rewrite, Wire
from pytest_virtio.model.wire import Fate, Receiver, ToldBackend, WireMessage
from pytest_virtio.spec.vhost_user_messages import Number
from pytest_virtio.vm.deadline import Deadline

__all__ = ("KEPT", "Masks", "Witness")

KEPT = 10_000
"""Messages; a boot has some fifty. Of more, the first and the last half are kept."""
SETTLE_SECONDS = 0.25
"""A backend may keep QEMU waiting for as long as it likes: what it has not answered is not under way."""
LOOK_SECONDS = 0.0005
CLOSE_SECONDS = 5.0
"""For our threads to end, which they do at once unless a rewrite, the user's code, does not come back."""


@dataclass(frozen=True, slots=True)
class Masks:
    """Bits that QEMU is not told of: of the device's features, and of the protocol's."""

    features: int = 0
    protocol_features: int = 0


@dataclass(slots=True)
class _Meant:
    """A fault, and how many messages it was meant for so far."""

    fault: Fault
    count: int = 0

    def meets(self, frame: Frame) -> bool:
        if frame.reply is not self.fault.reply or not fnmatch.fnmatchcase(frame.name, self.fault.message):
            return False
        self.count += 1
        return self.fault.nth in (None, self.count)


class _Channel:
    """A connection from QEMU to the backend through us. Two threads pass on; the last one to leave closes it.

    :param number: of the connection, from 0.
    :param main: the connection that this one came over, on which the backend asks; None of one that QEMU made.
    """

    def __init__(self, number: int, qemu: socket.socket, backend: socket.socket, main: _Channel | None = None) -> None:
        self.number, self.qemu, self.backend = number, qemu, backend
        self.main, self.by_backend = main or self, main is not None
        self.ending = threading.Event()
        self.at_work = 0
        """How many messages are between the two sides just now."""
        self._asking: list[_Channel] = []
        self._passing = 2
        self._lock = threading.Lock()

    def await_message(self, source: socket.socket) -> None:
        """Wait until something comes, be it the end; from then on it is at work."""
        poll = select.poll()
        poll.register(source, select.POLLIN)
        poll.poll()
        with self._lock:
            self.at_work += 1

    def passed(self) -> None:
        """A message has arrived, or won't."""
        with self._lock:
            self.at_work -= 1

    @property
    def is_settled(self) -> bool:
        """Whether nothing is under way. What has come is seen before somebody is at work on it, and then he is."""
        return self.ending.is_set() or (not _waiting(self.qemu) and not _waiting(self.backend) and not self.at_work)

    def ask_on(self, qemu: socket.socket, backend: socket.socket) -> _Channel:
        """The connection that came over this one; it ends with this one."""
        channel = _Channel(self.number, qemu, backend, self)
        with self._lock:
            self._asking.append(channel)
        if self.ending.is_set():
            channel.end()
        return channel

    def end(self) -> None:
        """Let both sides go, and whoever of us waits for either."""
        self.ending.set()
        with self._lock:
            for side in (self.qemu, self.backend):
                with contextlib.suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)
            asking = tuple(self._asking)
        for channel in asking:
            channel.end()

    def leave(self) -> None:
        """One of the threads has done."""
        with self._lock:
            self._passing -= 1
            if not self._passing:
                self.qemu.close()
                self.backend.close()


class Witness:
    """What it saw, on one connection after another.

    :param wire: what is to be done to messages.
    """

    def __init__(self, wire: Wire, masks: Masks) -> None:
        self._masks = {"GET_FEATURES": masks.features, "GET_PROTOCOL_FEATURES": masks.protocol_features}
        self._faults = [_Meant(fault) for fault in wire.faults]
        self._first: list[WireMessage] = []
        self._last: deque[WireMessage] = deque(maxlen=KEPT // 2)
        self._changed = threading.Condition()
        self._start = time.monotonic()
        self._channels: list[_Channel] = []
        self._threads: list[threading.Thread] = []
        self.told = ToldBackend()
        """What the two have told each other on the newest connection so far."""
        self.count = 0
        """How many messages there were."""
        self._failed = ""
        self._tell: Callable[[str], None] = lambda said: None
        self.ended = ""
        """Why the newest connection has ended; "" while it stands."""

    def join(self, qemu: socket.socket, backend: socket.socket) -> None:
        """Begin to pass on, both ways; the sockets are ours from now on."""
        with self._changed:
            channel = _Channel(len(self._channels), qemu, backend)
            self._channels.append(channel)
            self.told, self.ended = ToldBackend(), ""
        self._begin(channel)

    def tell_failures(self, tell: Callable[[str], None]) -> None:
        """Have somebody told when a rewrite of the test's own fails, also when one has already."""
        with self._changed:
            self._tell, failed = tell, self._failed
        if failed:
            tell(failed)

    def messages(self) -> tuple[WireMessage, ...]:
        """Those that are kept, oldest first."""
        with self._changed:
            return (*self._first, *self._last)

    def wait(
        self, wanted: Callable[[WireMessage], bool], deadline: Deadline, *, reconnects: bool = False
    ) -> WireMessage | None:
        """Wait for a message of a kind, if none has come yet; None if none has come in time.

        :param reconnects: whether more may come when the connection has ended: else the wait ends with it.
        """
        seen = 0
        with self._changed:
            while True:
                found = next(filter(wanted, self._since(seen)), None)
                seen = self.count
                over = bool(self.ended) and not reconnects
                if found is not None or over or not self._changed.wait(deadline.remaining()):
                    return found

    def settle(self, deadline: Deadline) -> None:
        """Wait until all has been passed on that QEMU and the backend have sent so far, or the deadline."""
        limit = Deadline.after(min(SETTLE_SECONDS, deadline.remaining()))
        while self._channels and not self._channels[-1].is_settled and not limit.passed():
            time.sleep(LOOK_SECONDS)

    def close(self) -> None:
        """Let both sides go, and end. May be called again."""
        for channel in self._channels:
            self._end(channel, "we ended")
        deadline = Deadline.after(CLOSE_SECONDS)
        # A thread may have begun others by the time that it ends.
        for thread in self._threads:
            thread.join(deadline.remaining())

    def _since(self, count: int) -> Iterator[WireMessage]:
        """Those that are kept, without the ``count`` first ones that ever came."""
        dropped = self.count - len(self._first) - len(self._last)
        yield from self._first[count:]
        yield from islice(self._last, max(0, count - len(self._first) - dropped), None)

    def _begin(self, channel: _Channel) -> None:
        receivers: tuple[Receiver, Receiver] = ("backend", "QEMU")
        for to in receivers:
            thread = threading.Thread(target=self._run, args=(channel, to), name="pytest-virtio wire", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, channel: _Channel, to: Receiver) -> None:
        sender, receiver = ("QEMU", "the backend") if to == "backend" else ("the backend", "QEMU")
        why = f"{sender} hung up"
        try:
            self._pass_all(channel, to)
        except BrokenPipeError:
            why = f"{receiver} hung up"
        except OSError as error:
            why = f"{sender}: {error}"
        except BaseException as error:  # noqa: BLE001 - a rewrite is the user's code; pytest.fail() raises no Exception
            self._fail(channel, f"a rewrite failed: {type(error).__name__}: {error}")
        finally:
            self._end(channel, why)
            channel.leave()

    def _pass_all(self, channel: _Channel, to: Receiver) -> None:
        source = channel.qemu if to == "backend" else channel.backend
        while not channel.ending.is_set():
            channel.await_message(source)
            try:
                frame = receive(source, by_backend=channel.by_backend)
                if frame is None:
                    return
                with contextlib.closing(frame):
                    self._pass(channel, frame, to)
            finally:
                channel.passed()

    def _pass(self, channel: _Channel, frame: Frame, to: Receiver) -> None:
        fault = self._fault(frame)
        passed, fate = self._masked(frame)
        if isinstance(fault, Rewrite):
            # bytes() would make zeros of a number.
            passed, fate = passed.with_payload(memoryview(fault.change(passed.payload)).tobytes()), "rewritten"
        elif isinstance(fault, Delay):
            channel.ending.wait(fault.seconds)
            fate = "delayed"
        elif fault is not None:
            fate = _FATES[type(fault)]
        self._note(channel, passed.message(time.monotonic() - self._start, to, fate, channel.number))
        if isinstance(fault, Cut):
            self._end(channel, f"cut at {frame.name}")
        elif not isinstance(fault, Drop):
            self._send(channel, passed, to)
            if isinstance(fault, Duplicate):
                self._send(channel, replace(passed, fds=()), to)

    def _fault(self, frame: Frame) -> Fault | None:
        """The first that is meant; the others count the message too."""
        with self._changed:
            met = [meant.fault for meant in self._faults if meant.meets(frame)]
        return met[0] if met else None

    def _send(self, channel: _Channel, frame: Frame, to: Receiver) -> None:
        """Send it; the connection on which the backend will ask is replaced by one of ours."""
        target = channel.backend if to == "backend" else channel.qemu
        hands_over = frame.name == "SET_BACKEND_REQ_FD" and to == "backend" and not channel.by_backend
        qemu = _socket(frame.fds[0]) if hands_over and len(frame.fds) == 1 else None
        if qemu is None:
            send(target, frame)
            return
        ours, given = socket.socketpair()
        with given:
            self._begin(channel.ask_on(qemu, ours))
            send(target, replace(frame, fds=(given.fileno(),)))

    def _masked(self, frame: Frame) -> tuple[Frame, Fate]:
        mask = self._masks.get(frame.name, 0) if frame.reply and not frame.by_backend else 0
        told = Number.unpack(frame.payload).u64 if mask else 0
        if not told & mask:
            return frame, "passed"
        return frame.with_payload(Number(u64=told & ~mask).pack() + frame.payload[Number.size() :]), "masked"

    def _note(self, channel: _Channel, message: WireMessage) -> None:
        with self._changed:
            (self._first if len(self._first) < KEPT // 2 else self._last).append(message)
            self.count += 1
            if channel.main is self._channels[-1]:
                self.told = self.told.after(message)
            self._changed.notify_all()

    def _fail(self, channel: _Channel, why: str) -> None:
        with self._changed:
            self._failed, tell = why, self._tell
        # Who sees that the connection has ended finds it told.
        tell(why)
        self._end(channel.main, why)

    def _end(self, channel: _Channel, why: str) -> None:
        with self._changed:
            if channel is self._channels[-1]:
                self.ended = self.ended or why
            self._changed.notify_all()
        channel.end()


def _waiting(source: socket.socket) -> bool:
    """Whether something has come that nobody has received; False once it is closed."""
    try:
        return bool(source.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return False


def _socket(fd: int) -> socket.socket | None:
    """Another descriptor of a socket; None of what is no socket."""
    copy = os.dup(fd)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        return None


_FATES: dict[type[Fault], Fate] = {Drop: "dropped", Duplicate: "duplicated", Cut: "cut"}
