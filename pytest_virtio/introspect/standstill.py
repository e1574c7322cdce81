"""The way to an answer that stops the VM: ``stop``, the query, ``cont``. **Never taken unless asked for by name.**

Responsible for refusing it where the stop itself would do harm or never come back: it drains block I/O and takes the
rings back from vhost backends, so it hangs with a request that hangs and with a backend that says nothing. Must not
know which query it is for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from pytest_virtio import qapi
from pytest_virtio.errors import DisturbingQueryError, MonitorTimeoutError
from pytest_virtio.introspect.introspector import Introspector
from pytest_virtio.introspect.query import raised
from pytest_virtio.model.queue import VirtQueueStatus
from pytest_virtio.model.status import VirtioStatus
from pytest_virtio.spec.devices import BLK, CRYPTO, FS, P9, PMEM, SCSI, device_type
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.monitor import Qmp

__all__ = ("Standstill",)

_WAITED_FOR = frozenset(type.id for type in (BLK, SCSI, P9, CRYPTO, FS, PMEM))
"""Device types whose requests a stop may wait for."""
CONT_SECONDS = 10.0


class Standstill:
    """Asks while the VM stands still.

    :param paths: QOM paths of all devices.
    :param silent: gives the ids of the vhost backends that are known to serve nothing just now.
    """

    def __init__(
        self, qmp: Qmp, introspector: Introspector, paths: Iterable[str], silent: Callable[[], Iterable[str]]
    ) -> None:
        self._qmp, self._introspector, self._paths, self._silent = qmp, introspector, tuple(paths), silent

    def queue_status(self, path: str, queue: int, timeout: float) -> VirtQueueStatus:
        """A queue's status while the VM stands still: then QEMU has taken the ring back from a vhost backend, and all
        indices are right.

        :raises DisturbingQueryError: when a request is in flight or a backend says nothing; nothing has been done then.
        :raises MonitorTimeoutError: when the stop does not come back. The VM may be left stopped.
        """
        deadline = Deadline.after(timeout)
        self._refuse(deadline)
        with self._stopped(deadline):
            return self._introspector.queue_status(path, queue, deadline.remaining())

    def _refuse(self, deadline: Deadline) -> None:
        silent = list(self._silent())
        if silent:
            raise DisturbingQueryError(
                f"the VM is not stopped: the backend of {silent[0]} is, and QEMU would wait for it"
            )
        answers = self._introspector.statuses(self._paths, deadline.remaining())
        statuses = {path: raised(answer) for path, answer in answers.items()}
        queues = {path: _of_requests(status) for path, status in statuses.items()}
        for (path, queue), answer in self._introspector.queue_statuses(statuses, queues, deadline.remaining()).items():
            count = _in_flight(raised(answer))
            if count != 0:
                what = f"has requests in flight ({count})" if count else "does not tell whether a request is in flight"
                raise DisturbingQueryError(
                    f"the VM is not stopped: queue {queue} of {path} {what}, and stop would wait for it"
                )

    @contextmanager
    def _stopped(self, deadline: Deadline) -> Iterator[None]:
        """The VM stands still in the block; one that did so before does so after it."""
        if not qapi.parse_running(self._qmp.execute(qapi.QUERY_RUN_STATE, None, deadline.remaining())):
            yield
            return
        try:
            self._qmp.execute("stop", None, deadline.remaining())
        except MonitorTimeoutError as error:
            error.add_note("stop waits for block requests and vhost backends; the VM may stay stopped until vm.cont()")
            raise
        try:
            yield
        finally:
            self._qmp.execute("cont", None, CONT_SECONDS)


def _of_requests(status: VirtioStatus) -> list[int]:
    if status.device_id not in _WAITED_FOR or not status.driver_ok:
        return []
    return list(device_type(status.device_id).answered_queues(status.num_vqs or 0, status.host_features.bits))


def _in_flight(queue: VirtQueueStatus) -> int | None:
    """How many requests the device has not given back; of a ring in guest RAM, also of those that it has not seen. None
    where nobody tells."""
    if queue.inuse is not None:
        return queue.inuse
    if queue.shadow_avail_idx is None or queue.used_idx is None:
        return None
    return queue.shadow_avail_idx - queue.used_idx & 0xFFFF
