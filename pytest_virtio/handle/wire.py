"""``dev.wire``: what QEMU and a device's vhost-user backend tell each other.

Responsible for the verbs and for the names of feature bits; must not know sockets, threads or bytes.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from pytest_virtio import render
from pytest_virtio.backend.wire import Witness
from pytest_virtio.declare.wire import check_request
from pytest_virtio.errors import NotSupportedError, VirtioAssertionError
from pytest_virtio.launch import RunningVm
from pytest_virtio.model.features import Features
from pytest_virtio.model.findings import WireFindings
from pytest_virtio.model.wire import ToldBackend, WireMessage
from pytest_virtio.spec.devices import device_type
from pytest_virtio.spec.features import FeatureNames
from pytest_virtio.spec.vhost_user import PROTOCOL_FEATURE_NAMES
from pytest_virtio.vm.deadline import Deadline

__all__ = ("DeviceWire", "device_wire")

WAIT_SECONDS = 10.0
LAST = 3
IN_REPORT = 30


class DeviceWire:
    """The wire of one device. What was told is of QEMU's newest connection, messages are of all of them."""

    def __init__(self, id: str, witness: Witness, names: FeatureNames, *, reconnects: bool) -> None:
        self._id, self._witness, self._names, self._reconnects = id, witness, names, reconnects

    def __repr__(self) -> str:
        return f"<DeviceWire {self._id}, {self.count} messages>"

    @property
    def features(self) -> Features:
        """What the backend offers, as QEMU got it. Looking at features that nobody has told of yet raises a
        NotSupportedError."""
        return self._features(self.told.features, self._names, "GET_FEATURES was not answered")

    @property
    def acked_features(self) -> Features:
        """What QEMU told the backend to do, as the backend got it; ``.offered`` is :attr:`features`."""
        return self._features(self.told.acked_features, self._names, "SET_FEATURES was not sent", self.features)

    @property
    def offered_protocol_features(self) -> Features:
        """What the backend offers of the protocol, as QEMU got it."""
        bits = self.told.offered_protocol_features
        return self._features(bits, PROTOCOL_FEATURE_NAMES, "GET_PROTOCOL_FEATURES was not answered")

    @property
    def protocol_features(self) -> Features:
        """What QEMU acknowledged of it, as the backend got it."""
        bits, offered = self.told.protocol_features, self.offered_protocol_features
        return self._features(bits, PROTOCOL_FEATURE_NAMES, "SET_PROTOCOL_FEATURES was not sent", offered)

    @property
    def told(self) -> ToldBackend:
        """Features, memory and queues as they were told, in numbers."""
        self._settle()
        return self._witness.told

    @property
    def ended(self) -> str:
        """Why the newest connection has ended; "" while it stands."""
        self._settle()
        return self._witness.ended

    @property
    def count(self) -> int:
        """How many messages there were. Of more than 10,000 the first and the last half are kept."""
        self._settle()
        return self._witness.count

    def messages(self, pattern: str = "*", *, reply: bool | None = None) -> tuple[WireMessage, ...]:
        """The messages that are kept, oldest first.

        :param pattern: a request's name or a pattern, ``"SET_VRING_*"``; ``"request 77"`` of one that has no name.
        :param reply: whether replies only, or requests only; both by default.
        :raises UnknownNameError: when there is no such request.
        """
        wanted = _wanted(pattern, reply)
        self._settle()
        return tuple(filter(wanted, self._witness.messages()))

    def wait(self, pattern: str, *, reply: bool | None = None, timeout: float = WAIT_SECONDS) -> WireMessage:
        """Wait for a message if none has come yet; the first one that did. Parameters are as for :meth:`messages`.

        :param timeout: seconds.
        :raises VirtioAssertionError: when none has come in time, or the connection has ended, with what came last.
        :raises UnknownNameError: when there is no such request.
        """
        deadline = Deadline.after(timeout)
        found = self._witness.wait(_wanted(pattern, reply), deadline, reconnects=self._reconnects)
        if found is None:
            raise VirtioAssertionError("\n  ".join([self._missed(pattern, timeout), *self._last()]))
        return found

    def save(self, path: str | Path) -> None:
        """Write the messages that are kept, as JSON lines with the fields of ``WireMessage``.

        :raises OSError: when the file can't be written.
        """
        Path(path).write_text("".join(self.lines()))

    def lines(self) -> Iterator[str]:
        """Yield what :meth:`save` writes, line by line."""
        return (f"{json.dumps(asdict(message))}\n" for message in self.messages())

    def findings(self) -> WireFindings:
        """What the messages come to."""
        self._settle()
        return WireFindings(self._witness.count, self._witness.told, self._witness.ended)

    def report(self) -> tuple[str, dict[str, object]]:
        """The last messages and why the connection has ended, by one look: in words, and of JSON's types with what was
        told."""
        self._settle()
        seen, messages = self._witness, self._witness.messages()
        last = [asdict(message) for message in messages[-IN_REPORT:]]
        data = {"count": seen.count, "messages": last, "told": asdict(seen.told), "ended": seen.ended}
        return "\n".join(render.wire(seen.count, messages, seen.ended)), data

    def _settle(self) -> None:
        """See what the two have sent by now: the witness passes it on in threads of its own, a moment later."""
        self._witness.settle(Deadline.after(WAIT_SECONDS))

    def _features(
        self, bits: int | None, names: FeatureNames, untold: str, offered: Features | None = None
    ) -> Features:
        if bits is None:
            return Features(0, names, untold=f"{self._id}: {untold} on this connection")
        return Features(bits, names, offered=None if offered is None or offered.untold else offered)

    def _missed(self, pattern: str, timeout: float) -> str:
        why = f"the connection has ended: {self.ended}" if self.ended else f"none within {timeout:g} s"
        return f"{self._id}: no message {pattern!r} over the wire: {why}; {self.count} came, the last ones:"

    def _last(self) -> list[str]:
        return [render.wire_message(message) for message in self.messages()[-LAST:]]


def device_wire(running: RunningVm, id: str) -> DeviceWire:
    """The wire of a device.

    :raises NotSupportedError: when there is no witness on it, or it has none.
    """
    backend = running.backends.get(id)
    if backend is None:
        raise NotSupportedError(f"{id} has no wire: no vhost-user backend serves it, as one does VhostUserBlk() …")
    if backend.witness is None:
        raise NotSupportedError(f"nobody watches the wire of {id}: declare it with wire=True")
    declared = next(device.type for device in running.spec.devices if device.name == id)
    names = (declared or device_type(0)).vhost_feature_names
    return DeviceWire(id, backend.witness, names, reconnects=backend.reconnect is not None)


def _wanted(pattern: str, reply: bool | None) -> Callable[[WireMessage], bool]:
    check_request(pattern)
    return lambda message: reply in (None, message.reply) and fnmatch.fnmatchcase(message.name, pattern)
