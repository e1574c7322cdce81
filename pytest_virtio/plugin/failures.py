"""How our errors look in a test's failure: the user's frames, our words, the verdict in the one-line summary.

Responsible for what pytest prints of an exception; must not know VMs. The only module that uses pytest's private
classes of failure representation: pytest has no public way to give a failure a place and sections.
"""

from __future__ import annotations

import linecache
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import pytest
from _pytest._code import Traceback
from _pytest._code.code import (
    ExceptionChainRepr,
    ExceptionRepr,
    ReprEntry,
    ReprEntryNative,
    ReprFileLocation,
    ReprTraceback,
)
from _pytest.pathlib import bestrelpath

from pytest_virtio.errors import VirtioAssertionError

__all__ = ("leave_out_our_frames", "show_error", "with_sections")

_RUNNERS = ("_pytest", "pluggy")
_MACHINERY = (*_RUNNERS, "pytest_virtio")


def leave_out_our_frames(error: pytest.ExceptionInfo[BaseException]) -> None:
    """Let the traceback of an error of ours end at the user's line; it is left alone if none of it is his."""
    linked = _chain(_users_part(error.tb))
    if linked is not None:
        error.traceback = Traceback(linked)
        # The debugger (--pdb) starts where this ends: pytest gives it the one or the other, by Python's version.
        error.value.__traceback__ = linked
        error._excinfo = (error.type, error.value, linked)
    for origin in (error.value.__cause__, error.value.__context__):
        if origin is not None and _began_with_us(origin):
            # What a library or QEMU said is in our message already.
            error.value.__cause__ = None
            error.value.__suppress_context__ = True


def show_error(report: pytest.TestReport, item: pytest.Item, error: pytest.ExceptionInfo[BaseException]) -> None:
    """Show an error of ours: at the test if no line of the user's raised it, and by its own words in summaries."""
    if not _users_part(error.tb):
        report.longrepr = _at_test(item, error)
    crash: ReprFileLocation | None = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        asserted = isinstance(error.value, VirtioAssertionError)
        crash.message = str(error.value) if asserted else f"{type(error.value).__name__}: {error.value}"


def with_sections(report: pytest.TestReport, item: pytest.Item) -> ExceptionRepr:
    """The report's failure as one that takes sections: terminal and JUnit show them, xdist carries them."""
    shown: Any = report.longrepr
    if not isinstance(shown, ExceptionRepr):
        text = str(shown)
        path, line = _shown_path(item), item.location[1]
        entry = ReprEntryNative([f"{text}\n"])
        shown = report.longrepr = _alone(entry, ReprFileLocation(path, (line or 0) + 1, text))
    return shown  # type: ignore[no-any-return]  # narrowed above; Any, for longrepr is of many types


def _shown_path(item: pytest.Item) -> str:
    """The test's file as pytest itself shows it: relative to where it was called, so that editors can follow."""
    return bestrelpath(item.config.invocation_params.dir, item.path)


def _at_test(item: pytest.Item, error: pytest.ExceptionInfo[BaseException]) -> ExceptionChainRepr:
    path, line = _shown_path(item), item.location[1]
    number = (line or 0) + 1
    source = linecache.getline(str(item.path), number).rstrip()
    said = [f"E   {part}" for part in error.exconly().splitlines()]
    place = ReprFileLocation(path, number, type(error.value).__name__)
    return _alone(ReprEntry([f">   {source}", *said], None, None, place, "long"), ReprFileLocation(path, number, ""))


def _alone(entry: ReprEntry | ReprEntryNative, crash: ReprFileLocation) -> ExceptionChainRepr:
    return ExceptionChainRepr([(ReprTraceback([entry], None, "long"), crash, None)])


def _users_part(trace: TracebackType | None) -> list[TracebackType]:
    """The entries up to where the user called us, less those of pytest."""
    entries = list(_entries(trace))
    roots = [_root(entry) for entry in entries]
    after_runner = max((n for n, root in enumerate(roots, 1) if root in _RUNNERS), default=0)
    ours = next((n for n, root in enumerate(roots) if n >= after_runner and root == "pytest_virtio"), len(entries))
    return [entry for entry, root in zip(entries[:ours], roots, strict=False) if root not in _MACHINERY]


def _began_with_us(error: BaseException) -> bool:
    """Whether it was caught by us: a traceback begins where its exception was caught."""
    return error.__traceback__ is not None and _root(error.__traceback__) == "pytest_virtio"


def _entries(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _chain(entries: list[TracebackType]) -> TracebackType | None:
    """Link the entries anew, for pytest follows the links."""
    following: TracebackType | None = None
    for entry in reversed(entries):
        following = TracebackType(following, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return following


def _root(entry: TracebackType) -> str:
    return str(entry.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
