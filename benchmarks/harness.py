"""How things are run: interleaved pairs, pytest in a process of its own, and the plugin's factory in this one.

Responsible for order, deadlines and reaping; must not know what is compared.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import pytest

from pytest_virtio.plugin.factory import VirtioFactory
from pytest_virtio.plugin.session import virtio_session
from pytest_virtio.vm import workdir

__all__ = (
    "BenchmarkError",
    "Finished",
    "Taken",
    "in_pytest",
    "interleaved",
    "run_pytest",
    "stopwatch",
    "suite",
)

T = TypeVar("T")

PYTEST_SECONDS = 180.0
"""How long one run of pytest may take; a Linux VM under TCG is up in about 5 s on a slow machine."""


class BenchmarkError(Exception):
    """A benchmark could not be measured."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What something took of the clock and of this process's CPU time, all threads together; seconds."""

    wall: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Finished:
    """How a process ended: its stderr, and what it took in seconds of the clock and of a CPU."""

    stderr: str
    wall: float
    cpu: float


def interleaved(name: str, pairs: int, *ways: Callable[[], T]) -> list[list[T]]:
    """Take samples in the order A B A B …; the samples of each way.

    A first round warms caches up and is not counted. Progress goes to stderr.
    """
    samples: list[list[T]] = [[] for _ in ways]
    for number in range(pairs + 1):
        _progress(f"{name}: {number}/{pairs}", number == pairs)
        for way, taken in zip(ways, samples, strict=True):
            sample = way()
            if number:
                taken.append(sample)
    return samples


def _progress(text: str, last: bool) -> None:
    if sys.stderr.isatty():
        print(f"\r{text}", end="\n" if last else "", file=sys.stderr, flush=True)


def stopwatch() -> Callable[[], Taken]:
    """Start to measure; the result tells what has been taken since."""
    wall, cpu = time.perf_counter(), time.process_time()
    return lambda: Taken(time.perf_counter() - wall, time.process_time() - cpu)


@contextmanager
def suite(**files: str) -> Iterator[Path]:
    """A private directory with a pytest suite of its own: ``suite(test_x="…")`` has a file ``test_x.py``."""
    directory = workdir.make()
    try:
        # Stops the search for an ini file, which would go on in the directories above.
        (directory / "pytest.ini").write_text("[pytest]\n")
        for stem, text in files.items():
            (directory / f"{stem}.py").write_text(text)
        yield directory
    finally:
        workdir.remove(directory)


def run_pytest(directory: Path, *arguments: str, python: Sequence[str] = ()) -> Finished:
    """Run pytest as its users do, in a process of its own.

    :param python: arguments for the interpreter.
    :raises BenchmarkError: when a test fails or the run takes too long.
    """
    command = [sys.executable, *python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env=_environment(directory),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PYTEST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"pytest did not end within {error.timeout:g} s: {command}") from error
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise BenchmarkError(f"pytest ended with {done.returncode}: {command}\n{done.stdout}{done.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Finished(done.stderr, wall, cpu)


def _environment(directory: Path) -> dict[str, str]:
    """Ours, with byte code kept below ``directory``: without it, each run would compile and rewrite its plugins."""
    unwanted = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTHONDONTWRITEBYTECODE")
    inherited = {name: value for name, value in os.environ.items() if name not in unwanted}
    return {**inherited, "PYTHONPYCACHEPREFIX": str(directory / ".bytecode")}


class _Body(Generic[T]):
    """A pytest plugin that runs a function where the tests would run."""

    def __init__(self, function: Callable[[VirtioFactory], T], qemu: str) -> None:
        self.function, self.qemu = function, qemu
        self.results: list[T] = []
        self.error: BaseException | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        ours = virtio_session(session.config)
        try:
            self.results.append(self.function(VirtioFactory(ours, self.qemu or ours.settings.qemu[0].program)))
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - pytest would report it as an error of its own
            self.error = error
        return True


def in_pytest(function: Callable[[VirtioFactory], T], qemu: str = "") -> T:
    """Call ``function`` with the ``virtio_factory`` of a pytest session in this process, without other plugins.

    :param qemu: the program, or the name of a release; by default what a run takes that is given none.
    :raises BenchmarkError: when the session doesn't get that far.
    """
    body = _Body(function, qemu)
    kept = os.environ.get("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    try:
        with suite() as directory:
            arguments = ["-p", "pytest_virtio.plugin", "-p", "no:terminal", "-p", "no:cacheprovider", "-s"]
            code = pytest.main([*arguments, f"--rootdir={directory}", str(directory)], plugins=[body])
    finally:
        del os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"]
        if kept is not None:
            os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = kept
    if body.error is not None:
        raise body.error
    if not body.results:
        raise BenchmarkError(f"pytest ended with {code} before anything was measured")
    return body.results[0]
