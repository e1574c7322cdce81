"""wire: what the witness between QEMU and a vhost-user backend adds to a message, and that I/O goes past it.

A message is a question and its answer, over two hops instead of one: the aim is 0.5 ms for each of the two. Reads of a
vhost-user-blk device, each waited for, are compared with and without the witness (aim: 0.95 of the throughput, so
1 / 0.95 of the time).
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from figures import Figure, difference, ratio
from harness import in_pytest, interleaved

from pytest_virtio import BlkDriver, VhostUserBlk, VirtioFactory, Wire
from pytest_virtio.backend.messages import Frame, receive, send
from pytest_virtio.backend.wire import Masks, Witness
from pytest_virtio.spec.vhost_user_messages import Header, HeaderFlag, Number, Request

__all__ = ("measure",)

PAIRS = 20
MESSAGES = 500
READS = 500
READ_BYTES = 4096
MESSAGE_AIM_MS = 0.5
TIME_AIM = 1 / 0.95

ASK = Frame(Header(request=Request.GET_FEATURES, flags=HeaderFlag.VERSION_1, length=0))
ANSWER = Frame(
    Header(request=Request.GET_FEATURES, flags=HeaderFlag.VERSION_1 | HeaderFlag.REPLY, length=Number.size()),
    Number(u64=1 << 32).pack(),
)


def measure(pairs: int = PAIRS) -> list[Figure]:
    """Ask and answer over socket pairs, then read from a disk of two VMs."""
    with _ends(witnessed=True) as watched, _ends(witnessed=False) as direct:
        ours, bare = interleaved("wire: messages", pairs, partial(_message, watched), partial(_message, direct))
    with_it, without = in_pytest(partial(_reads, pairs=pairs))
    return [
        difference("wire: a message", ours, bare, "ms", MESSAGE_AIM_MS),
        ratio("wire: reads / without witness", with_it, without, "us", TIME_AIM),
    ]


def _message(qemu: socket.socket) -> float:
    """Milliseconds of a message: half of a question and its answer."""
    start = time.perf_counter()
    for _ in range(MESSAGES):
        send(qemu, ASK)
        receive(qemu)
    return (time.perf_counter() - start) / MESSAGES / 2 * 1e3


@contextmanager
def _ends(*, witnessed: bool) -> Iterator[socket.socket]:
    """QEMU's end of a connection to a backend that answers."""
    witness = Witness(Wire(), Masks())
    qemu, to_qemu = socket.socketpair()
    backend = to_qemu
    if witnessed:
        backend, to_backend = socket.socketpair()
        witness.join(to_qemu, to_backend)
    thread = threading.Thread(target=_answer, args=(backend,))
    thread.start()
    try:
        with backend, qemu:
            yield qemu
            qemu.shutdown(socket.SHUT_RDWR)
            thread.join()
    finally:
        witness.close()


def _answer(backend: socket.socket) -> None:
    while receive(backend) is not None:
        send(backend, ANSWER)


def _reads(factory: VirtioFactory, pairs: int) -> list[list[float]]:
    """Microseconds of a read, with the witness and without."""
    with factory(VhostUserBlk(wire=True)) as watched, factory(VhostUserBlk()) as direct:
        drivers = [virtio.guest.driver("vublk0", BlkDriver) for virtio in (watched, direct)]
        ways: list[Callable[[], float]] = [partial(_batch, driver) for driver in drivers]
        return interleaved("wire: reads", pairs, *ways)


def _batch(driver: BlkDriver) -> float:
    start = time.perf_counter()
    for _ in range(READS):
        driver.read(0, READ_BYTES)
    return (time.perf_counter() - start) / READS * 1e6
