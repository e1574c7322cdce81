"""The one tree of errors that pytest-virtio raises.

Responsible for naming what can go wrong and for carrying the evidence; it must not know any other module of ours.

VirtioError
├── UsageError                  what the user wrote can't work (also a ValueError)
│   ├── UnknownNameError        a name that nothing answers to; carries the names that exist
│   ├── NotSupportedError       asked for by a right name, but not in this version or not on this device
│   └── BaselineError           a file of a negotiation profile that can't be read, or written, as it is
├── MissingError                this machine lacks a QEMU, kernel, module or device type (``--virtio-missing``)
├── ReplyError                  a QMP reply lacks a key that every QEMU sends
├── MonitorError                the QMP conversation
│   ├── CommandError            QEMU answered with an error
│   ├── MonitorTimeoutError     QEMU did not answer in time
│   └── MonitorClosedError      the session has ended
├── QemuExitedError             QEMU is gone; carries how it ended and its last words
├── BackendError                a vhost-user backend did not answer; carries its state, last words and command line
├── GuestError                  the guest's side
│   ├── GuestPanicError         its kernel panicked
│   ├── GuestSilentError        it said nothing in time
│   └── GuestTimeoutError       a command in the guest did not end in time
├── DeviceStalledError          a device did not reach DRIVER_OK
├── DriverError                 the scripted driver met what it should not; carries step, register, expected, seen
│   ├── NeedsResetError         the device has set DEVICE_NEEDS_RESET
│   ├── RequestTimeoutError     the device did not complete a request in time
│   ├── RequestFailedError      the device completed a request with an error status
│   ├── RingError               the device wrote something impossible into a ring
│   └── QueueFullError          no descriptor of the queue is free
├── DisturbingQueryError        the plain way to this answer would disturb the device, and there is no other yet
├── NoPendingElement            the queue has nothing pending
└── VirtioAssertionError        an assertion helper failed (also an AssertionError)
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = (
    # Errors, most generic to most explicit
    "VirtioError",
    "UsageError",
    "UnknownNameError",
    "NotSupportedError",
    "BaselineError",
    "MissingError",
    "ReplyError",
    "MonitorError",
    "CommandError",
    "MonitorTimeoutError",
    "MonitorClosedError",
    "QemuExitedError",
    "BackendError",
    "GuestError",
    "GuestPanicError",
    "GuestSilentError",
    "GuestTimeoutError",
    "DeviceStalledError",
    "DriverError",
    "NeedsResetError",
    "RequestTimeoutError",
    "RequestFailedError",
    "RingError",
    "QueueFullError",
    "DisturbingQueryError",
    "NoPendingElement",
    "VirtioAssertionError",
    # Helpers
    "near_misses",
    "nearest",
)


class VirtioError(Exception):
    """Base of everything that pytest-virtio raises on purpose."""


class UsageError(VirtioError, ValueError):
    """A declaration, marker, option or argument can't work as written."""


class UnknownNameError(UsageError):
    """A name (feature, device id, property, option …) that nothing answers to.

    :param kind: what sort of name it is, in the user's words: ``"feature"``, ``"property of virtio-net-pci"``.
    :param name: the name as the user wrote it.
    :param known: the names that would have been right; the nearest are suggested, a short list is shown whole.
    :param remedy: a sentence that ends the message, if there is more to say.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str] = (), remedy: str = "") -> None:
        self.kind, self.name, self.known = kind, name, tuple(known)
        hint = near_misses(name, self.known)
        super().__init__(" ".join(part for part in (f"unknown {kind}: {name!r}.", hint, remedy) if part))


class NotSupportedError(UsageError):
    """The thing asked for exists, but not here: the message says where it does."""


class BaselineError(UsageError):
    """A file of a negotiation profile that can't be read as one, or not be written.

    :param path: the file.
    :param what: what is wrong with it, the place in it first: ``"line 12: …"``, ``"devices.net0.type: …"``.
    :param remedy: a sentence that ends the message: mostly the command that makes the file anew.
    """

    def __init__(self, path: object, what: str, remedy: str = "") -> None:
        self.path, self.what = path, what
        end = "" if what.endswith((".", "?")) else "."
        super().__init__(f"{path}: {what}{end}" + (f" {remedy}" if remedy else ""))


class MissingError(VirtioError):
    """This machine lacks something that the test needs. ``--virtio-missing=skip`` turns it into a skip."""


class ReplyError(VirtioError):
    """A QMP reply lacks a required key or has it in an impossible shape.

    :param command: the QMP command.
    :param key: the key that is missing or misshapen.
    """

    def __init__(self, command: str, key: str, detail: str) -> None:
        self.command, self.key = command, key
        super().__init__(f"{command}: reply key {key!r}: {detail}")


class MonitorError(VirtioError):
    """The QMP conversation failed."""


class CommandError(MonitorError):
    """QEMU answered a command with an error.

    :param command: the command as sent.
    :param error_class: QEMU's error class, ``"GenericError"`` nearly always.
    :param description: QEMU's own text.
    """

    def __init__(self, command: str, error_class: str, description: str) -> None:
        self.command, self.error_class, self.description = command, error_class, description
        super().__init__(f"{command}: {description}" + ("" if error_class == "GenericError" else f" ({error_class})"))


class MonitorTimeoutError(MonitorError):
    """QEMU did not answer a command within its deadline.

    :param command: the command as sent.
    :param seconds: how long was waited.
    """

    def __init__(self, command: str, seconds: float) -> None:
        self.command, self.seconds = command, seconds
        super().__init__(
            f"{command}: no answer within {seconds:.3g} s; QEMU's main loop is blocked "
            "(a hung backend or block request does that), or the machine is very slow"
        )


class MonitorClosedError(MonitorError):
    """The QMP session has ended: QEMU quit or was killed, or the handle was closed.

    :param command: what was being said.
    :param detail: the library's word for it.
    """

    def __init__(self, command: str, detail: str) -> None:
        self.command = command
        super().__init__(f"{command}: the QMP session has ended ({detail})")


class QemuExitedError(VirtioError):
    """QEMU is gone.

    :param how: how it ended, in words: ``"exit code 1"``, ``"killed by SIGABRT"``.
    :param stderr: its last words, already made safe to print.
    :param remedy: a sentence that ends the message, where this QEMU is known to end so.
    """

    def __init__(self, how: str, stderr: str, during: str = "", remedy: str = "") -> None:
        self.how, self.stderr = how, stderr
        said = f"; its stderr:\n{stderr}" if stderr else "; it wrote nothing to stderr"
        first = f"QEMU ended ({how})" + (f" during {during}" if during else "") + said
        super().__init__("\n".join(part for part in (first, remedy) if part))


class BackendError(VirtioError):
    """A vhost-user backend did not start, or did not answer as one.

    :param id: the device that it serves.
    :param what: what happened, the program's name in it.
    :param stderr: its last words, already made safe to print.
    :param command_line: as for a shell; its descriptors are of that run. "" of one that we did not start.
    """

    def __init__(self, id: str, what: str, stderr: str, command_line: str) -> None:
        self.id, self.stderr, self.command_line = id, stderr, command_line
        said = f"its stderr:\n{stderr}" if stderr else "it wrote nothing to stderr"
        ours = f"{said}\nits command line: {command_line}"
        super().__init__(f"{id}: its backend {what}; {ours if command_line else 'what it writes is not known here'}")


class GuestError(VirtioError):
    """The guest failed; the message carries the tail of its console."""


class GuestPanicError(GuestError):
    """The guest's kernel panicked."""


class GuestSilentError(GuestError):
    """The guest said nothing, or stopped saying anything, before its deadline."""


class GuestTimeoutError(GuestError):
    """A command in the guest did not end in time.

    :param output: what it had written by then.
    """

    def __init__(self, message: str, output: bytes = b"") -> None:
        self.output = output
        super().__init__(message)


class DeviceStalledError(VirtioError):
    """A device did not reach DRIVER_OK in time; the message names the stage at which it stands."""


class DriverError(VirtioError):
    """The scripted driver met what the specification does not have at this step.

    :param what: what happened, and to which device.
    :param step: the step of virtio 1.3 section 3.1.1, or the request, during which it did: ``"features_ok"``.
    :param register: the register that was looked at, with its place: ``"device_status (common configuration + 0x14)"``.
    :param expected: the value that should have been there, as text; ``""`` where there is none.
    :param seen: the value that was.
    """

    def __init__(self, what: str, *, step: str = "", register: str = "", expected: str = "", seen: str = "") -> None:
        self.step, self.register, self.expected, self.seen = step, register, expected, seen
        told = (("step", step), ("register", register), ("expected", expected), ("seen", seen))
        super().__init__("\n  ".join([what, *(f"{name}: {value}" for name, value in told if value)]))


class NeedsResetError(DriverError):
    """The device has set DEVICE_NEEDS_RESET: it met an error that it can't get out of by itself."""


class RequestTimeoutError(DriverError):
    """The device did not complete a request in time. Its buffers stay the device's until the next reset."""


class RequestFailedError(DriverError):
    """The device completed a request with an error status."""


class RingError(DriverError):
    """The device wrote something impossible into a ring: an id that is not outstanding, an index that jumps."""


class QueueFullError(DriverError):
    """The queue has not as many free descriptors as the request needs."""


class DisturbingQueryError(VirtioError):
    """The plain way to this answer would disturb the device, and no safe way is known for it."""


class NoPendingElement(VirtioError):
    """The queue has no pending element."""


class VirtioAssertionError(VirtioError, AssertionError):
    """An assertion helper failed. The verdict is the first line of the message."""


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The known names that the user may have meant, the nearest first; three at the most."""
    import difflib  # noqa: PLC0415 - this module is loaded in every pytest run, and few of them get here

    by_folded = {_folded(candidate): candidate for candidate in known}
    return [by_folded[close] for close in difflib.get_close_matches(_folded(name), by_folded, n=3, cutoff=0.6)]


def near_misses(name: str, known: Iterable[str]) -> str:
    """Say which of the known names the user may have meant: ``"Did you mean 'a' or 'b'?"``.

    With no near one, up to twelve names are all shown, and more are not; "" if there is nothing to say.
    """
    candidates = tuple(known)
    close = nearest(name, candidates)
    if close:
        return f"Did you mean {' or '.join(map(repr, close))}?"
    names = sorted({_folded(candidate): candidate for candidate in candidates}.values())
    if names and len(names) <= 12:
        return f"There are: {', '.join(names)}."
    return ""


def _folded(name: str) -> str:
    """Fold what people confuse: case, ``-`` and ``_``."""
    return name.lower().replace("-", "_")
