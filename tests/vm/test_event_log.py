"""The file that QEMU logs to, written as QEMU writes it: opened by its path, emptied, from the beginning."""

from __future__ import annotations

import os
from contextlib import suppress

import pytest

from pytest_virtio.vm.event_log import LIMIT, EventLog

LINE = b"a line of the log\n"


def test_what_is_written_is_read() -> None:
    with EventLog() as log, open(f"/proc/self/fd/{log.fd}", "wb", buffering=0) as theirs:  # noqa: PTH123 - no path
        assert log.read() == ("", False)
        theirs.write(LINE)
        log.bound()
        assert log.read() == (LINE.decode(), False)
        theirs.write(LINE * 10_000)
        assert log.read() == (LINE.decode() * 10_001, False)


def test_it_is_bounded() -> None:
    with EventLog() as log, open(f"/proc/self/fd/{log.fd}", "wb", buffering=0) as theirs:  # noqa: PTH123 - no path
        log.bound()
        for _ in range(LIMIT // len(LINE)):
            theirs.write(LINE)
        # Kernels differ in whether the rest of the last page is filled first.
        with suppress(PermissionError):
            assert theirs.write(LINE) < len(LINE)
        with pytest.raises(PermissionError):
            theirs.write(LINE)
        text, full = log.read()
        assert full
        assert text.startswith(LINE.decode() * (LIMIT // len(LINE)))
        assert os.fstat(theirs.fileno()).st_size == LIMIT


def test_closed() -> None:
    log = EventLog()
    log.close()
    log.close()
    assert log.read() == ("", False)
