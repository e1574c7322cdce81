"""The SCSI host device (virtio 1.3 section 5.6): commands to units, task management, events.

Responsible for what goes over the device's queues; must not know what SCSI commands mean (``scsi_unit``).
"""

from __future__ import annotations

from functools import partial
from typing import TypeVar

from pytest_virtio.errors import RequestFailedError, UsageError
from pytest_virtio.guest.scripted.access import Attachment
from pytest_virtio.guest.scripted.driver import Driver
from pytest_virtio.guest.scripted.drivers.messages import unpacked
from pytest_virtio.guest.scripted.drivers.scsi_unit import ScsiAnswer, ScsiUnit, Sense, shown
from pytest_virtio.guest.scripted.queue import Request
from pytest_virtio.spec.devices.scsi import (
    CDB_DEFAULT_SIZE,
    SENSE_DEFAULT_SIZE,
    ScsiConfig,
    ScsiCtrlTmf,
    ScsiCtrlType,
    ScsiEvent,
    ScsiFeature,
    ScsiReqCmd,
    ScsiRespCmd,
    ScsiResponse,
    ScsiTmfSubtype,
)
from pytest_virtio.spec.layout import Layout

__all__ = ("ScsiDriver", "lun_bytes", "target_and_lun")

L = TypeVar("L", bound=Layout)
Which = int | str

EVENT_BUFFERS = 8
TMF_SUCCESS = frozenset({ScsiResponse.FUNCTION_COMPLETE, ScsiResponse.FUNCTION_SUCCEEDED})


class ScsiDriver(Driver):
    """Drives a SCSI host. Sizes of command and sense data are those after a reset, 32 and 96 bytes.

    ``target`` is 0 to 255, ``lun`` 0 to 16383; ``timeout`` is in seconds, the driver's by default.
    """

    understood = frozenset({ScsiFeature.INOUT, ScsiFeature.HOTPLUG, ScsiFeature.CHANGE})

    def __init__(self, attachment: Attachment) -> None:
        super().__init__(attachment)
        self._last_id = 0

    def populate(self) -> None:
        """Give the device buffers for events (5.6.5)."""
        queue = self.queue("event")
        for _ in range(min(EVENT_BUFFERS, queue.size)):
            queue.submit(writable=[ScsiEvent.size()])

    def config(self) -> ScsiConfig:
        """The device's configuration (5.6.4)."""
        return self.read_config(ScsiConfig)

    def unit(self, target: int = 0, lun: int = 0, *, queue: Which = "request0") -> ScsiUnit:
        """A logical unit, there or not, with its verbs: ``unit().read(0, 512)``.

        :param queue: name of the request queue to use, or its index: ``"request1"``, ``3``.
        """
        name = f"{self.id}, target {target}, LUN {lun}"
        return ScsiUnit(name, partial(self.execute, target, lun, queue=queue))

    def execute(
        self,
        target: int,
        lun: int,
        cdb: bytes,
        data: bytes = b"",
        length: int = 0,
        timeout: float | None = None,
        *,
        queue: Which = "request0",
    ) -> ScsiAnswer:
        """Have a command executed, and say what became of it, success or not.

        :raises RequestTimeoutError: when the device doesn't answer in time.
        :raises RequestFailedError: when its answer is too short.
        """
        request = self.submit(target, lun, cdb, data, length, queue=queue)
        return self.answer(request.queue.wait(request, timeout), length)

    def submit(
        self,
        target: int,
        lun: int,
        cdb: bytes,
        data: bytes = b"",
        length: int = 0,
        *,
        id: int | None = None,
        queue: Which = "request0",
    ) -> Request:
        """Start a command and don't wait for it (5.6.6.1).

        :param cdb: up to 32 bytes.
        :param data: what to send.
        :param length: how many bytes may come.
        :param id: the command's number, for task management; one of its own by default.
        :raises UsageError: for what doesn't fit the request.
        """
        if not 0 < len(cdb) <= CDB_DEFAULT_SIZE:
            raise UsageError(f"a command of {len(cdb)} bytes: 1 to {CDB_DEFAULT_SIZE} are expected")
        self._last_id += 1
        head = ScsiReqCmd(lun_bytes(target, lun), self._last_id if id is None else id)
        readable = [head.pack(self.transport.order) + cdb.ljust(CDB_DEFAULT_SIZE, b"\0"), *([data] if data else [])]
        writable = [ScsiRespCmd.size() + SENSE_DEFAULT_SIZE, *([length] if length else [])]
        chosen = self.queue(queue)
        request = chosen.submit(*readable, writable=writable)
        chosen.kick()
        return request

    def answer(self, request: Request, length: int = 0) -> ScsiAnswer:
        """What became of a command that the device has given back.

        :param length: how many bytes it might send.
        :raises RequestFailedError: when the answer is too short.
        """
        head = unpacked(ScsiRespCmd, request.written, self.id, self.history[-1], self.transport.order)
        data_at = ScsiRespCmd.size() + SENSE_DEFAULT_SIZE
        sense = request.written[ScsiRespCmd.size() : data_at][: head.sense_len]
        failure = "" if head.response == ScsiResponse.OK else shown(head.response, ScsiResponse)
        data = request.written[data_at:][: max(0, length - head.residual)]
        return ScsiAnswer(failure, head.status, Sense.parse(sense), data, head.residual)

    def manage(
        self, subtype: int, target: int = 0, lun: int = 0, *, id: int = 0, timeout: float | None = None
    ) -> ScsiResponse:
        """Have a task management function done (5.6.6.2).

        :param subtype: a :class:`ScsiTmfSubtype`, or any other number.
        :param id: the command that it is about, for those functions that are about one.
        :raises RequestFailedError: when the device rejects it, or can't do it.
        :raises RequestTimeoutError: when it doesn't answer in time.
        """
        message = ScsiCtrlTmf(ScsiCtrlType.TMF, subtype, lun_bytes(target, lun), id).pack(self.transport.order)
        written = self.queue("ctrl").request(message, writable=[1], timeout=timeout).written
        if not written or written[0] not in TMF_SUCCESS:
            raise RequestFailedError(
                f"{self.id}: the device does not do what it was asked for",
                step=f"task management function {shown(subtype, ScsiTmfSubtype)} for target {target}, LUN {lun}",
                register="response",
                expected=" or ".join(sorted(shown(response, ScsiResponse) for response in TMF_SUCCESS)),
                seen=shown(written[0], ScsiResponse) if written else "nothing",
            )
        return ScsiResponse(written[0])

    def next_event(self, timeout: float | None = None) -> ScsiEvent:
        """Wait for the next event (5.6.6.3): :class:`ScsiEventType`, perhaps with EVENTS_MISSED, and its reason.

        :raises RequestTimeoutError: when there is none in time.
        :raises RequestFailedError: when the device writes less than an event.
        """
        queue = self.queue("event")
        written = queue.next(timeout).written
        queue.submit(writable=[ScsiEvent.size()])
        queue.kick()
        return unpacked(ScsiEvent, written, self.id, self.history[-1], self.transport.order)


def lun_bytes(target: int, lun: int) -> bytes:
    """Where a unit is, in 8 bytes (5.6.6.1): 1, target, LUN in the flat format, zeros.

    :raises UsageError: for numbers that don't fit.
    """
    if not (0 <= target < 1 << 8 and 0 <= lun < 1 << 14):
        raise UsageError(f"target={target}, lun={lun}: targets go from 0 to 255, units from 0 to 16383")
    return bytes([1, target, 0x40 | lun >> 8, lun & 0xFF, 0, 0, 0, 0])


def target_and_lun(place: bytes) -> tuple[int, int]:
    """The unit that 8 bytes of an event name. QEMU leaves 0x40 out for units below 256 (seen up to 11.1)."""
    return place[1], (place[2] & 0x3F) << 8 | place[3]
