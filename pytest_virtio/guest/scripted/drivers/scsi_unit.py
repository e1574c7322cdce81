"""SCSI itself, as far as tests of a host adapter need it (SPC-4, SBC-3): commands, sense data, one logical unit.

Responsible for what commands and their answers mean; must not know how a command reaches its unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol

from pytest_virtio.errors import RequestFailedError, UsageError

__all__ = ("Capacity", "ExecuteCommand", "ScsiAnswer", "ScsiOpcode", "ScsiStatus", "ScsiUnit", "Sense", "SenseKey")

SHORT_BLOCKS, SHORT_LBA = 1 << 16, 1 << 32
"""Ends of what the commands of 10 bytes can say; those of 16 take over there."""
INQUIRY_BYTES = 255
LUNS_BYTES = 16 + 8 * 256
CAPACITY_BYTES = 32
READ_CAPACITY_16 = 0x10
"""The service action of :attr:`ScsiOpcode.SERVICE_ACTION_IN_16` (SBC-3 5.16)."""
MOST_ATTENTIONS = 8


class ScsiOpcode(IntEnum):
    """First bytes of commands (SPC-4 table E.2)."""

    TEST_UNIT_READY = 0x00
    INQUIRY = 0x12
    READ_10 = 0x28
    WRITE_10 = 0x2A
    SYNCHRONIZE_CACHE_10 = 0x35
    READ_16 = 0x88
    WRITE_16 = 0x8A
    SERVICE_ACTION_IN_16 = 0x9E
    REPORT_LUNS = 0xA0


class ScsiStatus(IntEnum):
    """Status codes (SAM-5 table 33)."""

    GOOD = 0x00
    CHECK_CONDITION = 0x02
    CONDITION_MET = 0x04
    BUSY = 0x08
    RESERVATION_CONFLICT = 0x18
    TASK_SET_FULL = 0x28
    ACA_ACTIVE = 0x30
    TASK_ABORTED = 0x40


class SenseKey(IntEnum):
    """Sense keys (SPC-4 table 49)."""

    NO_SENSE = 0
    RECOVERED_ERROR = 1
    NOT_READY = 2
    MEDIUM_ERROR = 3
    HARDWARE_ERROR = 4
    ILLEGAL_REQUEST = 5
    UNIT_ATTENTION = 6
    DATA_PROTECT = 7
    BLANK_CHECK = 8
    VENDOR_SPECIFIC = 9
    COPY_ABORTED = 10
    ABORTED_COMMAND = 11
    VOLUME_OVERFLOW = 13
    MISCOMPARE = 14
    COMPLETED = 15


class Sense(NamedTuple):
    """Why a command did not succeed: key, additional code and its qualifier (SPC-4 4.5)."""

    key: int
    code: int
    qualifier: int

    @classmethod
    def parse(cls, data: bytes) -> Sense | None:
        """Read sense data of the fixed or the descriptor format; None if it is of neither, or cut off."""
        form = data[0] & 0x7F if data else 0
        if form in {0x70, 0x71} and len(data) >= 14:
            return cls(data[2] & 0xF, data[12], data[13])
        if form in {0x72, 0x73} and len(data) >= 4:
            return cls(data[1] & 0xF, data[2], data[3])
        return None

    def __str__(self) -> str:
        return f"sense {shown(self.key, SenseKey)}, additional {self.code:#04x}/{self.qualifier:#04x}"


@dataclass(frozen=True, slots=True)
class ScsiAnswer:
    """What became of a command.

    :param failure: why it did not reach the unit, or did not come back: the transport's word for it; ``""`` if it did.
    :param status: the unit's status, a :class:`ScsiStatus` as a rule.
    :param sense: with CHECK CONDITION.
    :param data: what the unit sent.
    :param residual: how many bytes fewer were moved than was asked for.
    """

    failure: str
    status: int
    sense: Sense | None
    data: bytes
    residual: int

    @property
    def good(self) -> bool:
        """Whether the command succeeded."""
        return not self.failure and self.status == ScsiStatus.GOOD

    def __str__(self) -> str:
        return self.failure or shown(self.status, ScsiStatus) + (f", {self.sense}" if self.sense else "")


class ExecuteCommand(Protocol):
    """Has a command executed by one logical unit: SAM's procedure call of that name (SAM-5 5.1)."""

    def __call__(self, cdb: bytes, data: bytes, length: int, timeout: float | None, /) -> ScsiAnswer:
        """Send ``data``, or receive up to ``length`` bytes."""


class Capacity(NamedTuple):
    """How large a unit is."""

    blocks: int
    block_bytes: int


class ScsiUnit:
    """One logical unit: a disk, as a rule.

    Its verbs raise RequestFailedError, which names status and sense key, when a command does not succeed, and
    RequestTimeoutError when the device doesn't answer in ``timeout`` seconds, the driver's by default.

    :param name: what it is called in errors.
    """

    def __init__(self, name: str, execute: ExecuteCommand) -> None:
        self._name, self._execute = name, execute
        self._block_bytes = 0

    def __repr__(self) -> str:
        return f"<ScsiUnit {self._name}>"

    def command(self, cdb: bytes, data: bytes = b"", length: int = 0, timeout: float | None = None) -> bytes:
        """Any command at all; up to ``length`` bytes of what it gives.

        Units tell of a reset, or of a change, by failing the next command with UNIT ATTENTION, once for each (SAM-5
        5.14). The command is given anew then.

        :param data: what to send.
        """
        return self._done(cdb, data, length, timeout).data

    def test_unit_ready(self, timeout: float | None = None) -> None:
        """Ask whether it takes commands. A UNIT ATTENTION is an error here."""
        cdb = _cdb(ScsiOpcode.TEST_UNIT_READY, 6)
        self._checked(cdb, self._execute(cdb, b"", 0, timeout))

    def inquiry(self, page: int | None = None, timeout: float | None = None) -> bytes:
        """What it is: standard inquiry data, or one page of vital product data (SPC-4 6.6)."""
        cdb = _cdb(ScsiOpcode.INQUIRY, 6, (page is not None, 1), (page or 0, 1), (INQUIRY_BYTES, 2))
        return self.command(cdb, length=INQUIRY_BYTES, timeout=timeout)

    def capacity(self, timeout: float | None = None) -> Capacity:
        """How many blocks it has, and how large they are (SBC-3 5.16)."""
        opcode = ScsiOpcode.SERVICE_ACTION_IN_16
        cdb = _cdb(opcode, 16, (READ_CAPACITY_16, 1), (0, 8), (CAPACITY_BYTES, 4))
        data = self.command(cdb, length=CAPACITY_BYTES, timeout=timeout)
        self._check_length(cdb, 12, len(data))
        blocks, block_bytes = int.from_bytes(data[:8]) + 1, int.from_bytes(data[8:12])
        if not block_bytes:
            raise self._failed(cdb, "its blocks have no size", "block length", "512 bytes, as a rule", "0")
        return Capacity(blocks, block_bytes)

    def report_luns(self, timeout: float | None = None) -> tuple[int, ...]:
        """The logical units of its target (SPC-4 6.33), as far as 256 of them go."""
        cdb = _cdb(ScsiOpcode.REPORT_LUNS, 12, (0, 5), (LUNS_BYTES, 4))
        data = self.command(cdb, length=LUNS_BYTES, timeout=timeout)
        self._check_length(cdb, 8, len(data))
        listed = data[8 : 8 + int.from_bytes(data[:4])]
        return tuple((listed[at] & 0x3F) << 8 | listed[at + 1] for at in range(0, len(listed) - 7, 8))

    def read(self, offset_bytes: int, length: int, timeout: float | None = None) -> bytes:
        """Read ``length`` bytes from ``offset_bytes``, both multiples of the block size."""
        blocks = self._blocks("length", length, timeout)
        cdb = _transfer(ScsiOpcode.READ_10, ScsiOpcode.READ_16, self._blocks("offset_bytes", offset_bytes), blocks)
        data = self.command(cdb, length=length, timeout=timeout)
        self._check_length(cdb, length, len(data))
        return data

    def write(self, offset_bytes: int, data: bytes, timeout: float | None = None) -> None:
        """Write ``data``, a multiple of the block size, to ``offset_bytes``, another."""
        blocks = self._blocks("len(data)", len(data), timeout)
        lba = self._blocks("offset_bytes", offset_bytes)
        cdb = _transfer(ScsiOpcode.WRITE_10, ScsiOpcode.WRITE_16, lba, blocks)
        answer = self._done(cdb, data, 0, timeout)
        self._check_length(cdb, len(data), len(data) - answer.residual)

    def flush(self, timeout: float | None = None) -> None:
        """Have what was written reach the storage (SBC-3 5.22)."""
        self.command(_cdb(ScsiOpcode.SYNCHRONIZE_CACHE_10, 10), timeout=timeout)

    def _blocks(self, name: str, value: int, timeout: float | None = None) -> int:
        """How many blocks that many bytes are; the unit is asked for their size once."""
        size = self._block_bytes = self._block_bytes or self.capacity(timeout).block_bytes
        if value < 0 or value % size:
            raise UsageError(f"{name}={value}: {self._name} has blocks of {size} bytes: a multiple is expected")
        return value // size

    def _done(self, cdb: bytes, data: bytes, length: int, timeout: float | None) -> ScsiAnswer:
        """A command, given until no UNIT ATTENTION is in its way."""
        for _ in range(MOST_ATTENTIONS):
            answer = self._execute(cdb, data, length, timeout)
            if answer.sense is None or answer.sense.key != SenseKey.UNIT_ATTENTION:
                break
        return self._checked(cdb, answer)

    def _checked(self, cdb: bytes, answer: ScsiAnswer) -> ScsiAnswer:
        if not answer.good:
            raise self._failed(cdb, "the command fails", "response and status", ScsiStatus.GOOD.name, str(answer))
        return answer

    def _check_length(self, cdb: bytes, expected: int, seen: int) -> None:
        if seen < expected:
            raise self._failed(cdb, "too few data are moved", "data", f"{expected} bytes", f"{seen} bytes")

    def _failed(self, cdb: bytes, what: str, where: str, expected: str, seen: str) -> RequestFailedError:
        step = f"{shown(cdb[0], ScsiOpcode)}: {cdb.hex(' ')}" if cdb else "an empty command"
        return RequestFailedError(
            f"{self._name}: {what}: {seen}", step=step, register=where, expected=expected, seen=seen
        )


def shown(value: int, kind: type[IntEnum]) -> str:
    """A number with its name, if it has one."""
    return f"{kind(value).name} ({value:#04x})" if value in tuple(kind) else f"{value:#04x}"


def _cdb(opcode: int, size: int, *fields: tuple[int, int]) -> bytes:
    """A command of ``size`` bytes: its opcode, then (value, width) after one another, then zeros.

    :raises UsageError: for a value that doesn't fit.
    """
    try:
        words = [value.to_bytes(width) for value, width in fields]
    except OverflowError:
        raise UsageError(
            f"{shown(opcode, ScsiOpcode)}: {[value for value, _ in fields]} don't fit the command"
        ) from None
    return (bytes([opcode]) + b"".join(words)).ljust(size, b"\0")


def _transfer(short: ScsiOpcode, long: ScsiOpcode, lba: int, blocks: int) -> bytes:
    """A read or write (SBC-3 5.11, 5.13, 5.32, 5.34): of 10 bytes where it goes."""
    if lba + blocks <= SHORT_LBA and blocks < SHORT_BLOCKS:
        return _cdb(short, 10, (0, 1), (lba, 4), (0, 1), (blocks, 2))
    return _cdb(long, 16, (0, 1), (lba, 8), (blocks, 4))
