"""The plain QMP commands of QEMU's virtio introspection, each for one device or queue or for many at once.

Responsible for asking and for what the versions answer in different ways; must not know when asking is safe
(``introspector``), how the reply is spelled (``qapi``) nor which QEMU process answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from pytest_virtio import qapi
from pytest_virtio.errors import CommandError, ReplyError, VirtioError
from pytest_virtio.model.queue import VirtioQueueElement, VirtQueueStatus, VirtVhostQueueStatus
from pytest_virtio.model.status import VirtioInfo, VirtioStatus
from pytest_virtio.vm.monitor import Command, Qmp

__all__ = ("Place", "Queries", "raised")

Place = tuple[str, int]
"""A queue: the device's QOM path, and its index."""

T = TypeVar("T")


class Queries:
    """Asks one QEMU. ``timeout`` is seconds, for all that is asked."""

    def __init__(self, qmp: Qmp) -> None:
        self._qmp = qmp

    def devices(self, timeout: float) -> tuple[VirtioInfo, ...]:
        """Every realized virtio device, sorted by path; none is an empty tuple on every version.

        Source: ``x-query-virtio``. QEMU <= 8.1 answers ``[]`` for none, later ones an error (commit b532c684e0d7).
        """
        try:
            reply = self._qmp.execute(qapi.QUERY_VIRTIO, None, timeout)
        except CommandError as error:
            if qapi.is_no_devices_error(error.description):
                return ()
            raise
        return qapi.parse_list(reply)

    def statuses(self, paths: Iterable[str], timeout: float) -> list[VirtioStatus | VirtioError]:
        """The devices' statuses. Source: ``x-query-virtio-status``."""
        commands = [(qapi.QUERY_STATUS, {"path": path}) for path in paths]
        return self._asked(commands, qapi.parse_status, timeout)

    def queue_statuses(self, places: Iterable[Place], timeout: float) -> list[VirtQueueStatus | VirtioError]:
        """The queues' statuses. Source: ``x-query-virtio-queue-status``."""
        commands = [(qapi.QUERY_QUEUE_STATUS, {"path": path, "queue": queue}) for path, queue in places]
        return self._asked(commands, qapi.parse_queue_status, timeout)

    def vhost_queue_statuses(self, places: Iterable[Place], timeout: float) -> list[VirtVhostQueueStatus | VirtioError]:
        """The queues as their vhost backends were told of them. Source: ``x-query-virtio-vhost-queue-status``."""
        commands = [(qapi.QUERY_VHOST_QUEUE_STATUS, {"path": path, "queue": queue}) for path, queue in places]
        return self._asked(commands, qapi.parse_vhost_queue_status, timeout)

    def raw_queue_element(self, path: str, queue: int, index: int | None, timeout: float) -> VirtioQueueElement:
        """An element by QEMU's own walker, **which may break the device or abort QEMU**.

        Source: ``x-query-virtio-queue-element``. On stale or hostile ring contents it sets NEEDS_RESET and ``broken``
        on a healthy device, overwrites ``shadow-avail-idx``, or aborts QEMU (seen on 7.2, 10.0 and 11.1).
        """
        place = {"path": path, "queue": queue, **({} if index is None else {"index": index})}
        return qapi.parse_queue_element(self._qmp.execute(qapi.QUERY_QUEUE_ELEMENT, place, timeout))

    def _asked(
        self, commands: Sequence[Command], parse: Callable[[object], T], timeout: float
    ) -> list[T | VirtioError]:
        answers = self._qmp.execute_all(commands, timeout)
        return [answer if isinstance(answer, VirtioError) else _parsed(parse, answer) for answer in answers]


def raised(answer: T | VirtioError) -> T:
    """The answer.

    :raises VirtioError: when it is one.
    """
    if isinstance(answer, VirtioError):
        raise answer
    return answer


def _parsed(parse: Callable[[object], T], reply: object) -> T | VirtioError:
    try:
        return parse(reply)
    except ReplyError as error:
        return error
