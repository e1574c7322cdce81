"""The safe way to each answer.

Responsible for choosing, by what is known of this QEMU and of the device's type, a source that neither disturbs the
device nor costs QEMU its life, and for refusing where there is none; must not know how a source is read. Many questions
are asked at once, for QEMU answers them faster than we can ask one by one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from pytest_virtio import qapi
from pytest_virtio.errors import CommandError, DisturbingQueryError, UnknownNameError, VirtioError
from pytest_virtio.introspect.history import Polled
from pytest_virtio.introspect.query import Place, Queries, raised
from pytest_virtio.introspect.quirks import asks_backend_for_config, is_vhost_type, survives_queries
from pytest_virtio.introspect.ram import GuestRam, QemuProcess, Ram
from pytest_virtio.introspect.rings import element_in_ram, has_indices, queue_in_ram, ring_in_ram
from pytest_virtio.introspect.wire import SOURCE as WIRE
from pytest_virtio.introspect.wire import serves, vhost_queue_status, vhost_status
from pytest_virtio.model.queue import VirtioQueueElement, VirtQueueStatus, VirtVhostQueueStatus
from pytest_virtio.model.ring import Ring
from pytest_virtio.model.status import VirtioInfo, VirtioStatus
from pytest_virtio.model.wire import ToldBackend
from pytest_virtio.spec.devices import NET, VSOCK, device_type
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.memory import GuestMemory

__all__ = ("Backends", "Introspector")

QEMUS_OWN = frozenset({(NET.id, "ctrl"), (VSOCK.id, "event")})
"""Queues of devices with a vhost backend that are not the backend's (seen on 7.2, 10.0 and 11.1)."""


class Backends(Protocol):
    """What is known of the vhost backends."""

    def behind(self, id: str) -> bool:
        """Whether one may be behind a device whose type does not tell."""

    def ended(self, id: str) -> bool:
        """Whether the device's backend is known to have ended, for good."""

    def told(self, id: str) -> ToldBackend | None:
        """What the witness on the wire saw of the connection that stands; None where there is none."""


class StatusSource(Protocol):
    """What tells a device's status where QEMU can't be asked for it."""

    def statuses(self, paths: Sequence[str], deadline: Deadline, /) -> dict[str, VirtioStatus | VirtioError]:
        """The devices' statuses by path, or why there is none; what is not told is None."""


class Introspector:
    """Asks about the virtio devices of one VM. ``timeout`` is seconds, for all that is asked.

    :param version: QEMU's, ``"10.0.2"``.
    :param ends: how this QEMU ends when it is asked for any device's status; "" when it lives on.
    :param memory: the guest's RAM where it is ours.
    :param registers: asked where QEMU must not be.
    :param types: the devices' QEMU types, by id.
    :param backends: what is known of vhost backends.
    :param iommu: whether the VM has an IOMMU.
    """

    def __init__(
        self,
        qemu: QemuProcess,
        version: str,
        ends: str,
        memory: GuestMemory | None,
        registers: StatusSource,
        types: Mapping[str, str],
        backends: Backends,
        *,
        iommu: bool = False,
    ) -> None:
        self._queries, self._registers, self._ram = Queries(qemu), registers, Ram(qemu, memory)
        self._version, self._ends = version, ends
        self._types, self._backends, self._iommu = types, backends, iommu
        self.polled = Polled()
        """The statuses that were seen."""

    def status(self, path: str, timeout: float) -> VirtioStatus:
        """The device's status. Source: ``x-query-virtio-status``; where QEMU does not survive that, registers.

        :raises NotSupportedError: when neither can be had.
        """
        return raised(self.statuses([path], timeout)[path])

    def statuses(self, paths: Iterable[str], timeout: float) -> dict[str, VirtioStatus | VirtioError]:
        """The devices' statuses, or why there is none, by path."""
        began, deadline, asked = time.monotonic(), Deadline.after(timeout), list(paths)
        plain = [path for path in asked if not self._ends and self._may_be_asked(path)]
        others = [path for path in asked if path not in plain]
        answers = dict(zip(plain, self._queries.statuses(plain, deadline.remaining()), strict=True)) if plain else {}
        if others:
            answers |= self._by_registers(others, deadline)
        answers = {path: self._with_wire(path, answer) for path, answer in answers.items()}
        self.polled.note(answers, began)
        return {path: answers[path] for path in asked}

    def queue_status(self, path: str, queue: int, timeout: float) -> VirtQueueStatus:
        """A queue's status. Source: ``x-query-virtio-queue-status``; of a queue that a vhost backend serves, guest RAM,
        for the command sends GET_VRING_BASE, which stops the ring, and hangs QEMU when the backend says nothing (seen
        on 7.2, 10.0 and 11.1).

        :raises DisturbingQueryError: on a device of which it can't be said whether its backend runs, or will stay as it
            is.
        :raises UnknownNameError: when there is no such queue.
        """
        deadline = Deadline.after(timeout)
        return self._queue(path, queue, self.status(path, deadline.remaining()), deadline)

    def queue_statuses(
        self, statuses: Mapping[str, VirtioStatus], queues: Mapping[str, Iterable[int]], timeout: float
    ) -> dict[Place, VirtQueueStatus | VirtioError]:
        """The queues' statuses, or why there is none, as for :meth:`queue_status`.

        :param statuses: of the devices by path, as they are now.
        :param queues: indices by path.
        """
        deadline = Deadline.after(timeout)
        places = [(path, queue) for path, indices in queues.items() for queue in indices]
        unclear = {path: self._unclear(path, status) for path, status in statuses.items()}
        answers: dict[Place, VirtQueueStatus | VirtioError] = {
            (path, queue): DisturbingQueryError(unclear[path]) for path, queue in places if unclear[path]
        }
        served = [place for place in places if statuses[place[0]].vhost_started]
        answers |= self._in_ram(served, statuses, deadline)
        plain = [place for place in places if place not in answers]
        return answers | dict(zip(plain, self._queries.queue_statuses(plain, deadline.remaining()), strict=True))

    def ring(self, path: str, queue: int, timeout: float) -> Ring:
        """A queue's ring, decoded from guest RAM; its addresses and the device's indices as of :meth:`queue_status`,
        which raises as this does.
        """
        deadline = Deadline.after(timeout)
        status, memory = self.status(path, deadline.remaining()), self._ram.find(deadline)
        return ring_in_ram(status, self._queue(path, queue, status, deadline), memory, self._iommu)

    def rings_of(
        self, statuses: Mapping[str, VirtioStatus], told: Mapping[Place, VirtQueueStatus | VirtioError], timeout: float
    ) -> dict[Place, Ring | VirtioError]:
        """The rings, or why there is none, as for :meth:`ring`, of queues whose statuses were just told."""
        try:
            memory = self._ram.find(Deadline.after(timeout))
        except VirtioError as error:
            return dict.fromkeys(told, error)
        return {
            place: answer
            if isinstance(answer, VirtioError)
            else ring_in_ram(statuses[place[0]], answer, memory, self._iommu)
            for place, answer in told.items()
        }

    def element(self, path: str, queue: int, slot: int | None, timeout: float) -> VirtioQueueElement:
        """An element of a split ring, from guest RAM; it raises what :meth:`ring` does.

        :param slot: of the avail ring; by default that of the next pending element.
        :raises NoPendingElement: when by default there is none.
        :raises NotSupportedError: when the ring can't be read, or is packed.
        """
        deadline = Deadline.after(timeout)
        status, memory = self.status(path, deadline.remaining()), self._ram.find(deadline)
        return element_in_ram(status, self._queue(path, queue, status, deadline), memory, self._iommu, slot)

    def vhost_queue_status(self, path: str, queue: int, timeout: float) -> VirtVhostQueueStatus:
        """A queue as its vhost backend was told of it. Source: ``x-query-virtio-vhost-queue-status``, or the witness on
        the wire.

        :raises CommandError: when no vhost backend runs, or this queue is not the backend's.
        :raises DisturbingQueryError: on a device of a type with which QEMU does not survive the command, where there is
            no witness.
        """
        return raised(self._vhost_queues([(path, queue)], Deadline.after(timeout))[path, queue])

    def holds_config(self, path: str) -> bool:
        """Whether the device's configuration may be read: QEMU has it, and asks no backend that may say nothing."""
        return not asks_backend_for_config(self._type(path))

    def ram(self, timeout: float) -> GuestRam:
        """The guest's RAM as it lies now."""
        return self._ram.find(Deadline.after(timeout))

    def raw_queue_element(self, path: str, queue: int, index: int | None, timeout: float) -> VirtioQueueElement:
        """An element by QEMU's own walker, **which may break the device or abort QEMU**."""
        return self._queries.raw_queue_element(path, queue, index, timeout)

    def _queue(self, path: str, queue: int, status: VirtioStatus, deadline: Deadline) -> VirtQueueStatus:
        answer = self.queue_statuses({path: status}, {path: [queue]}, deadline.remaining())[path, queue]
        if isinstance(answer, CommandError) and qapi.is_invalid_queue_error(answer.description):
            known = [] if status.num_vqs is None else [str(n) for n in range(status.num_vqs)]
            raise UnknownNameError(f"queue of {path}", str(queue), known) from answer
        return raised(answer)

    def _by_registers(self, paths: list[str], deadline: Deadline) -> dict[str, VirtioStatus | VirtioError]:
        answers = self._registers.statuses(paths, deadline)
        told = {path: answer for path, answer in answers.items() if isinstance(answer, VirtioStatus)}
        started = self._vhost_started(told, deadline)
        return answers | {path: replace(status, vhost_started=started[path]) for path, status in told.items()}

    def _vhost_started(self, statuses: Mapping[str, VirtioStatus], deadline: Deadline) -> dict[str, bool | None]:
        """Whether a vhost backend serves each device; None where asking is not survived, and there is no witness."""
        maybe = [path for path in statuses if self._maybe_vhost(path)]
        asked = [path for path in maybe if self._may_be_asked(path)]
        answers = self._queries.vhost_queue_statuses([(path, 0) for path in asked], deadline.remaining())
        found = {path: _is_started(answer) for path, answer in zip(asked, answers, strict=True)}
        seen = {path: serves(told) for path in maybe if (told := self._told(path)) is not None}
        return {path: found.get(path, seen.get(path)) if path in maybe else False for path in statuses}

    def _with_wire(self, path: str, answer: VirtioStatus | VirtioError) -> VirtioStatus | VirtioError:
        """The status, with the vhost side that the witness saw where QEMU does not tell it."""
        told = self._told(path)
        if isinstance(answer, VirtioError) or told is None or answer.vhost_dev is not None or not answer.vhost_started:
            return answer
        vhost = vhost_status(answer, told)
        return answer if vhost is None else replace(answer, vhost_dev=vhost, source=f"{answer.source}, {WIRE}")

    def _vhost_queues(self, places: list[Place], deadline: Deadline) -> dict[Place, VirtVhostQueueStatus | VirtioError]:
        """The queues as their backends were told of them; by the witness where QEMU can't tell: of types that it does
        not survive the question of, and of a network card's third queue and on."""
        asked = [place for place in places if self._may_be_asked(place[0])]
        answers = self._queries.vhost_queue_statuses(asked, deadline.remaining())
        found: dict[Place, VirtVhostQueueStatus | VirtioError] = dict(zip(asked, answers, strict=True))
        for path, queue in places:
            answer, told = found.get((path, queue)), self._told(path)
            if answer is None or _is_of_no_such_queue(answer):
                seen = vhost_queue_status(self._type(path), queue, told) if told else None
                found[path, queue] = seen or answer or self._not_asked(path)
        return found

    def _in_ram(
        self, places: list[Place], statuses: Mapping[str, VirtioStatus], deadline: Deadline
    ) -> dict[Place, VirtQueueStatus | VirtioError]:
        """Those of the queues that vhost backends serve; others are QEMU's own."""
        answers: dict[Place, VirtQueueStatus | VirtioError] = {}
        memory = self._ram.find(deadline) if places else None
        for (path, queue), answer in self._vhost_queues(places, deadline).items():
            status = statuses[path]
            if isinstance(answer, VirtVhostQueueStatus):
                readable = memory if has_indices(status, self._iommu) else None
                answers[path, queue] = queue_in_ram(queue, answer, readable)
            elif not _is_of_no_such_queue(answer):
                answers[path, queue] = answer
            elif not _is_qemus_own(status, queue):
                answers[path, queue] = DisturbingQueryError(
                    f"{path}: QEMU does not tell of the vhost side of queue {queue}, and {qapi.QUERY_QUEUE_STATUS} "
                    "would stop its ring: a witness on the wire tells (wire=True)"
                )
        return answers

    def _not_asked(self, path: str) -> DisturbingQueryError:
        return DisturbingQueryError(
            f"{path}: QEMU {self._version} does not survive {qapi.QUERY_VHOST_QUEUE_STATUS} of a started "
            f"{self._type(path)}, or is not known to; a witness on the wire tells (wire=True)"
        )

    def _told(self, path: str) -> ToldBackend | None:
        return self._backends.told(VirtioInfo(path, "").id)

    def _unclear(self, path: str, status: VirtioStatus) -> str:
        """Why the plain queue query may hit a vhost backend that runs; "" where it can't, or where one is known to.

        One that does not run now may start between this answer and the query, for the driver decides.
        """
        if status.vhost_started or not self._maybe_vhost(path):
            return ""
        if status.vhost_started is False and (not status.vm_running or self._backends.ended(VirtioInfo(path, "").id)):
            return ""
        unknown = status.vhost_started is None
        why = "whether its vhost backend runs is not known" if unknown else "its vhost backend may start at any moment"
        return f"{path}: {why}, and {qapi.QUERY_QUEUE_STATUS} would stop the ring of one that runs"

    def _maybe_vhost(self, path: str) -> bool:
        """Whether a vhost backend may serve a device: all of some types, and others by what is behind them."""
        return is_vhost_type(self._type(path)) or self._backends.behind(VirtioInfo(path, "").id)

    def _may_be_asked(self, path: str) -> bool:
        type = self._type(path)
        return bool(type) and survives_queries(type, self._version)

    def _type(self, path: str) -> str:
        """The QEMU type of a device; "" when it is not known, and then nothing that may do harm is asked."""
        return self._types.get(VirtioInfo(path, "").id, "")


def _is_started(answer: VirtVhostQueueStatus | VirtioError) -> bool | None:
    """None where there was no answer in time."""
    if isinstance(answer, CommandError):
        return not qapi.is_not_started_error(answer.description)
    return None if isinstance(answer, VirtioError) else True


def _is_of_no_such_queue(answer: VirtVhostQueueStatus | VirtioError) -> bool:
    return isinstance(answer, CommandError) and qapi.is_invalid_queue_error(answer.description)


def _is_qemus_own(status: VirtioStatus, queue: int) -> bool:
    """Whether QEMU serves it itself."""
    names = device_type(status.device_id).queue_names(status.num_vqs or 0, status.host_features.bits)
    return queue < len(names) and (status.device_id, names[queue][0]) in QEMUS_OWN
