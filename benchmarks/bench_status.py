"""status: one ``dev.status()``, against the bare QMP round trip of ``x-query-virtio-status`` on the same VM.

The VM stands before its first instruction, so nothing but the query keeps it busy. It has two more monitors, one for
each baseline: qemu.qmp's own client in an event loop of this thread (aim: at most 1.3 times as long), and a socket with
``json`` alone, which is the floor and has no aim. Each sample is the median of a batch of calls.
"""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from figures import Figure, ratio
from harness import BenchmarkError, in_pytest, interleaved
from qemu.qmp import QMPClient

from pytest_virtio import Net, VirtioFactory
from pytest_virtio.vm import workdir

__all__ = ("batch", "library_batches", "measure", "monitor")

BATCHES = 60
CALLS = 50
AIM = 1.3
SECONDS = 10.0
QUERY = "x-query-virtio-status"


class RawMonitor:
    """The least that speaks QMP: a blocking socket and ``json``."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(SECONDS)
        self._socket.connect(str(path))
        self._rest = b""
        self._message()
        self.execute("qmp_capabilities", {})

    def execute(self, command: str, arguments: dict[str, object]) -> object:
        """Execute a command and give its ``return`` member; events are skipped.

        :raises BenchmarkError: when QEMU answers with an error.
        """
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while True:
            message = self._message()
            if "return" in message:
                return message["return"]
            if "error" in message:
                raise BenchmarkError(f"{command}: {message}")

    def close(self) -> None:
        """End the session."""
        self._socket.close()

    def _message(self) -> dict[str, object]:
        while b"\n" not in self._rest:
            data = self._socket.recv(65536)
            if not data:
                raise BenchmarkError("QEMU closed the raw monitor")
            self._rest += data
        line, self._rest = self._rest.split(b"\n", 1)
        message: dict[str, object] = json.loads(line)
        return message


def measure(pairs: int = BATCHES) -> list[Figure]:
    """Ask all three ways, in turn."""
    ours, library, raw = in_pytest(partial(_asked, pairs=pairs))
    return [
        ratio("status / qemu.qmp", ours, library, "us", AIM),
        ratio("status / raw socket", ours, raw, "us"),
        ratio("(qemu.qmp / raw socket)", library, raw, "us"),
    ]


def _asked(factory: VirtioFactory, pairs: int) -> list[list[float]]:
    with ExitStack() as stack:
        directory = workdir.make()
        stack.callback(workdir.remove, directory)
        paths = {name: directory / name for name in ("library", "raw")}
        words = [word for name, path in paths.items() for word in monitor(name, path)]
        device = stack.enter_context(factory(Net(), guest="linux", boot=False, args=words))["net0"]
        library = stack.enter_context(library_batches(paths["library"], device.path))
        raw = RawMonitor(paths["raw"])
        stack.callback(raw.close)
        ask_raw = partial(raw.execute, QUERY, {"path": device.path})
        return interleaved("status", pairs, partial(batch, device.status), library, partial(batch, ask_raw))


def monitor(name: str, path: Path) -> tuple[str, ...]:
    """The words of QEMU's command line for a further monitor."""
    return "-chardev", f"socket,id={name},path={path},server=on,wait=off", "-mon", f"chardev={name},mode=control"


def batch(call: Callable[[], object]) -> float:
    """The median time of a call, in microseconds."""
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


async def _async_batch(call: Callable[[], Awaitable[object]]) -> float:
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        await call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


@contextmanager
def library_batches(path: Path, device: str) -> Iterator[Callable[[], float]]:
    """A batch by qemu.qmp's client, called from within its event loop."""
    client = QMPClient("benchmark")

    async def ask() -> object:
        return await client.execute(QUERY, {"path": device})

    with asyncio.Runner() as runner:

        def one_batch() -> float:
            return runner.run(asyncio.wait_for(_async_batch(ask), CALLS * SECONDS))

        runner.run(asyncio.wait_for(client.connect(str(path)), SECONDS))
        try:
            yield one_batch
        finally:
            runner.run(asyncio.wait_for(client.disconnect(), SECONDS))
