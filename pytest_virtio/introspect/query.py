"""The plain QMP commands of QEMU's virtio introspection, kept away from where they do harm.

Responsible for asking, for naming the source in the answer, and for refusing what would stop a ring; must not know
how the reply is spelled (``qapi``) nor which QEMU process answers.
"""

from __future__ import annotations

from collections.abc import Callable

from pytest_virtio import qapi
from pytest_virtio.errors import CommandError, DisturbingQueryError, UnknownNameError
from pytest_virtio.model.queue import VirtioQueueElement, VirtQueueStatus, VirtVhostQueueStatus
from pytest_virtio.model.status import VirtioInfo, VirtioStatus
from pytest_virtio.vm.monitor import Execute

__all__ = ("Introspector",)


class Introspector:
    """Asks one QEMU. ``timeout`` is seconds for each command.

    :param check: called before the first status query; raises where QEMU would not survive it.
    """

    def __init__(self, execute: Execute, check: Callable[[], None] = lambda: None) -> None:
        self._execute, self._check, self._checked = execute, check, False

    def devices(self, timeout: float) -> tuple[VirtioInfo, ...]:
        """Every realized virtio device, sorted by path; none is an empty tuple on every version.

        Source: ``x-query-virtio``. QEMU <= 8.1 answers ``[]`` for none, later ones an error (commit b532c684e0d7).
        """
        try:
            reply = self._execute(qapi.QUERY_VIRTIO, None, timeout)
        except CommandError as error:
            if qapi.is_no_devices_error(error.description):
                return ()
            raise
        return qapi.parse_list(reply)

    def status(self, path: str, timeout: float) -> VirtioStatus:
        """The device's status. Source: ``x-query-virtio-status``.

        :raises MissingError: when this QEMU is known not to survive the query.
        """
        if not self._checked:
            self._check()
            self._checked = True
        reply = self._execute(qapi.QUERY_STATUS, {"path": path}, timeout)
        return qapi.parse_status(reply)

    def queue_status(self, path: str, queue: int, timeout: float) -> VirtQueueStatus:
        """A queue's status. Source: ``x-query-virtio-queue-status``.

        :raises DisturbingQueryError: on a device whose vhost backend runs: there the command sends GET_VRING_BASE,
            which stops the ring (seen on 7.2, 10.0 and 11.1), and a silent backend then hangs the whole monitor.
        """
        status = self.status(path, timeout)
        if status.vhost_started:
            raise DisturbingQueryError(
                f"{path}: queue {queue} runs on a vhost backend; {qapi.QUERY_QUEUE_STATUS} would stop its ring. "
                "vhost_status() gives the ring's addresses without harm."
            )
        reply = self._ask_queue(qapi.QUERY_QUEUE_STATUS, path, queue, status.num_vqs, timeout)
        return qapi.parse_queue_status(reply)

    def vhost_queue_status(self, path: str, queue: int, timeout: float) -> VirtVhostQueueStatus:
        """A queue as its vhost backend was told of it. Source: ``x-query-virtio-vhost-queue-status``.

        :raises CommandError: when no vhost backend runs, or this queue is not the backend's.
        """
        reply = self._execute(qapi.QUERY_VHOST_QUEUE_STATUS, {"path": path, "queue": queue}, timeout)
        return qapi.parse_vhost_queue_status(reply)

    def raw_queue_element(self, path: str, queue: int, index: int | None, timeout: float) -> VirtioQueueElement:
        """An element by QEMU's own walker, **which may break the device or abort QEMU**.

        Source: ``x-query-virtio-queue-element``. On stale or hostile ring contents it sets NEEDS_RESET and ``broken``
        on a healthy device, overwrites ``shadow-avail-idx``, or aborts QEMU (seen on 7.2, 10.0 and 11.1).
        """
        place = {"path": path, "queue": queue, **({} if index is None else {"index": index})}
        reply = self._execute(qapi.QUERY_QUEUE_ELEMENT, place, timeout)
        return qapi.parse_queue_element(reply)

    def _ask_queue(self, command: str, path: str, queue: int, count: int | None, timeout: float) -> object:
        try:
            return self._execute(command, {"path": path, "queue": queue}, timeout)
        except CommandError as error:
            if not qapi.is_invalid_queue_error(error.description):
                raise
            known = [] if count is None else [str(n) for n in range(count)]
            raise UnknownNameError(f"queue of {path}", str(queue), known) from error
