"""The 9P transport device (device id 9): files of the host, by messages of 9P2000.L (diod's protocol.md; Linux net/9p).

Responsible for the messages that a test of the device needs, one method each; fids are the caller's. Must not know the
host's directory. The messages are little-endian whatever the transport is.
"""

from __future__ import annotations

import errno
import os
import struct
from enum import IntEnum
from typing import Any, NamedTuple

from pytest_virtio.errors import RequestFailedError, UsageError
from pytest_virtio.guest.scripted.driver import Driver
from pytest_virtio.spec.devices.p9 import P9Config, P9Feature

__all__ = ("Attributes", "DirectoryEntry", "P9Driver", "P9Message", "Qid")

VERSION = "9P2000.L"
MSIZE = 1 << 16
HEADER = "IBH"
"""size[4] type[1] tag[2]"""
HEADER_BYTES = struct.calcsize("<" + HEADER)
OVERHEAD = 24
"""Bytes of a message that are no data, at the most: P9_IOHDRSZ of Linux."""
NO_TAG = 0xFFFF
NO_FID = NO_UID = 0xFFFFFFFF
BASIC = 0x7FF
"""P9_GETATTR_BASIC: all that stat(2) has."""
QID = "BIQ"


class P9Message(IntEnum):
    """Types of requests; the reply to each is one more."""

    LERROR = 6
    LOPEN = 12
    LCREATE = 14
    GETATTR = 24
    READDIR = 40
    MKDIR = 72
    VERSION = 100
    ATTACH = 104
    WALK = 110
    READ = 116
    WRITE = 118
    CLUNK = 120


class Qid(NamedTuple):
    """What the server knows a file by: 0x80 in ``type`` is a directory."""

    type: int
    version: int
    path: int


class DirectoryEntry(NamedTuple):
    """One entry of a directory; ``offset`` is where the next READDIR goes on."""

    qid: Qid
    offset: int
    type: int
    name: str


class Attributes(NamedTuple):
    """The head of a file's attributes, as far as ``valid`` says."""

    valid: int
    qid: Qid
    mode: int
    uid: int
    gid: int
    nlink: int
    rdev: int
    size: int


class P9Driver(Driver):
    """Drives a 9P transport device."""

    understood = frozenset(P9Feature)
    msize = MSIZE
    """Bytes of the longest message, as :meth:`version` agreed."""
    _tag = 0

    def config(self) -> P9Config:
        """The device's configuration, as far as its size is known: how long the tag is that follows."""
        return self.read_config(P9Config)

    def mount_tag(self) -> str:
        """The tag by which a guest mounts it."""
        length = self.config().tag_len
        tag = self.transport.read_config(P9Config.size(), length)
        return tag.decode("utf-8", "backslashreplace")

    def version(self, msize: int = MSIZE, version: str = VERSION, timeout: float | None = None) -> str:
        """Begin a session, which ends all before it; the server's version, ``"unknown"`` if it doesn't know ours.

        :param msize: bytes of the longest message to propose; the server may want less (:attr:`msize`).
        :raises RequestFailedError: when the server wants more, or says an error.
        :raises RequestTimeoutError: when it doesn't answer in time.
        """
        body = _packed("I", msize) + _string(version)
        self.msize = msize
        reply = self.request(P9Message.VERSION, body, timeout)
        (agreed,) = reply.take("I")
        if not OVERHEAD < agreed <= msize:
            raise reply.failed("the server's msize can't be", f"{OVERHEAD + 1} to {msize}", str(agreed))
        self.msize = agreed
        return reply.string()

    def attach(self, fid: int = 0, name: str = "", user: str = "", timeout: float | None = None) -> Qid:
        """Let ``fid`` be the root. It raises as :meth:`version` does, as all the following do."""
        body = _packed("II", fid, NO_FID) + _string(user) + _string(name) + _packed("I", NO_UID)
        return self.request(P9Message.ATTACH, body, timeout).qid()

    def walk(self, fid: int, new_fid: int, *names: str, timeout: float | None = None) -> tuple[Qid, ...]:
        """Let ``new_fid`` be what is found from ``fid`` on. If fewer come back than there are names, it is not."""
        body = _packed("IIH", fid, new_fid, len(names)) + b"".join(map(_string, names))
        reply = self.request(P9Message.WALK, body, timeout)
        (count,) = reply.take("H")
        if count > len(names):
            raise reply.failed("the walk goes farther than it should", f"up to {len(names)} qids", str(count))
        return tuple(reply.qid() for _ in range(count))

    def open(self, fid: int, flags: int = os.O_RDONLY, timeout: float | None = None) -> Qid:
        """Open a file or directory (LOPEN), ``flags`` as Linux has them."""
        return self.request(P9Message.LOPEN, _packed("II", fid, flags), timeout).qid()

    def create(
        self, fid: int, name: str, mode: int = 0o644, flags: int = os.O_RDWR, timeout: float | None = None
    ) -> Qid:
        """Create a file in the directory ``fid``, which is the open file from then on (LCREATE)."""
        body = _packed("I", fid) + _string(name) + _packed("III", flags, mode, os.getgid())
        return self.request(P9Message.LCREATE, body, timeout).qid()

    def mkdir(self, fid: int, name: str, mode: int = 0o755, timeout: float | None = None) -> Qid:
        """Make a directory in the directory ``fid``."""
        body = _packed("I", fid) + _string(name) + _packed("II", mode, os.getgid())
        return self.request(P9Message.MKDIR, body, timeout).qid()

    def read(self, fid: int, offset: int, length: int, timeout: float | None = None) -> bytes:
        """Read up to ``length`` bytes, fewer at the file's end only: as many messages as it takes."""
        data = b""
        while len(data) < length:
            count = min(length - len(data), self.msize - OVERHEAD)
            piece = self._counted(P9Message.READ, fid, offset + len(data), count, timeout)
            if not piece:
                break
            data += piece
        return data

    def write(self, fid: int, offset: int, data: bytes, timeout: float | None = None) -> None:
        """Write all of ``data``: as many messages as it takes."""
        written = 0
        while written < len(data):
            piece = data[written : written + self.msize - OVERHEAD]
            body = _packed("IQI", fid, offset + written, len(piece)) + piece
            reply = self.request(P9Message.WRITE, body, timeout)
            (count,) = reply.take("I")
            if not 0 < count <= len(piece):
                raise reply.failed("the server can't have written that", f"1 to {len(piece)} bytes", str(count))
            written += count

    def readdir(self, fid: int, offset: int = 0, timeout: float | None = None) -> tuple[DirectoryEntry, ...]:
        """What is in the open directory from ``offset`` (0, or an entry's) on, as much as one message holds."""
        data = self._counted(P9Message.READDIR, fid, offset, self.msize - OVERHEAD, timeout)
        rest, entries = P9Reply(self, P9Message.READDIR, data), []
        while rest.left:
            qid, (next_offset, type) = rest.qid(), rest.take("QB")
            entries.append(DirectoryEntry(qid, next_offset, type, rest.string()))
        return tuple(entries)

    def getattr(self, fid: int, mask: int = BASIC, timeout: float | None = None) -> Attributes:
        """A file's attributes; ``mask`` is P9_GETATTR_* of Linux."""
        reply = self.request(P9Message.GETATTR, _packed("IQ", fid, mask), timeout)
        (valid,) = reply.take("Q")
        return Attributes(valid, reply.qid(), *reply.take("IIIQQQ"))

    def clunk(self, fid: int, timeout: float | None = None) -> None:
        """Forget a fid."""
        self.request(P9Message.CLUNK, _packed("I", fid), timeout)

    def request(self, type: int, body: bytes, timeout: float | None = None) -> P9Reply:
        """Send any message at all, and wait for its reply.

        :param type: :class:`P9Message` or another; the reply's is one more.
        :raises UsageError: for a type of more than 8 bits, and a message longer than :attr:`msize`.
        :raises RequestFailedError: for the reply LERROR, ``seen`` being the name of its errno, and for one that is
            none to this request.
        :raises RequestTimeoutError: when the device doesn't answer in time.
        """
        size = HEADER_BYTES + len(body)
        if size > self.msize:
            raise UsageError(f"a 9P message of {size} bytes: msize is {self.msize}")
        tag = NO_TAG if type == P9Message.VERSION else (self._tag + 1) % NO_TAG
        message = _packed(HEADER, size, type, tag) + body
        self._tag = tag
        self.begin(f"9P {_called(type)}, tag {tag}")
        request = self.queue("request").request(message, writable=[self.msize], timeout=timeout)
        return self._checked(type, request.written)

    def _checked(self, type: int, data: bytes) -> P9Reply:
        reply = P9Reply(self, type, data)
        size, answered, tag = reply.take(HEADER)
        if size != len(data):
            raise reply.failed("the reply's size is not what the device wrote", f"size {len(data)}", f"size {size}")
        if answered == P9Message.LERROR + 1:
            (code,) = reply.take("I")
            raise reply.failed("the server says an error", _called(type + 1), errno.errorcode.get(code, str(code)))
        expected = f"type {type + 1}, tag {self._tag}"
        if (answered, tag) != (type + 1, self._tag):
            raise reply.failed("the reply is none to the request", expected, f"type {answered}, tag {tag}")
        return reply

    def _counted(self, type: P9Message, fid: int, offset: int, count: int, timeout: float | None) -> bytes:
        reply = self.request(type, _packed("IQI", fid, offset, count), timeout)
        (length,) = reply.take("I")
        if length > count:
            raise reply.failed("more was read than asked for", f"up to {count} bytes", str(length))
        return reply.bytes(length)


class P9Reply:
    """A reply, taken apart from the front; what is not there is an error, and no more is taken than there is."""

    def __init__(self, driver: Driver, type: int, data: bytes) -> None:
        self._driver, self._type, self._data, self._at = driver, type, data, 0

    @property
    def left(self) -> int:
        """Bytes that are not taken yet."""
        return len(self._data) - self._at

    def bytes(self, length: int) -> bytes:
        """The next ``length`` bytes.

        :raises RequestFailedError: when there are fewer.
        """
        if length > self.left:
            raise self.failed("the reply ends too early", f"{length} bytes more", f"{self.left}")
        self._at += length
        return self._data[self._at - length : self._at]

    def take(self, form: str) -> tuple[Any, ...]:
        """The next numbers, in a format of :mod:`struct`. It raises as :meth:`bytes` does."""
        return struct.unpack("<" + form, self.bytes(struct.calcsize("<" + form)))

    def string(self) -> str:
        """The next string. It raises as :meth:`bytes` does."""
        (length,) = self.take("H")
        return self.bytes(length).decode("utf-8", "surrogateescape")

    def qid(self) -> Qid:
        """The next qid. It raises as :meth:`bytes` does."""
        return Qid(*self.take(QID))

    def failed(self, what: str, expected: str, seen: str) -> RequestFailedError:
        """The error for what this reply says."""
        return RequestFailedError(
            f"{self._driver.id}: {what}",
            step=self._driver.history[-1],
            register=f"reply to {_called(self._type)}",
            expected=expected,
            seen=seen,
        )


def _called(type: int) -> str:
    asked = type - type % 2
    known = asked in tuple(P9Message)
    return f"{'R' if type % 2 else 'T'}{P9Message(asked).name.lower()}" if known else f"type {type}"


def _packed(form: str, *numbers: int) -> bytes:
    try:
        return struct.pack("<" + form, *numbers)
    except struct.error as error:
        raise UsageError(f"a field of a 9P message: {error}: {numbers}") from error


def _string(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    if len(data) > 0xFFFF:
        raise UsageError(f"a 9P string of {len(data)} bytes: 65535 is the most")
    return _packed("H", len(data)) + data
