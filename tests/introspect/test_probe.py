"""The status query is tried on a throw-away QEMU, once for each binary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_virtio.introspect import probe
from pytest_virtio.introspect.probe import status_query_ends
from pytest_virtio.vm.capabilities import Capabilities, capabilities


@pytest.fixture
def known(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Capabilities:
    found = capabilities(program)
    monkeypatch.setenv("PYTEST_VIRTIO_CACHE", str(tmp_path))
    return found


@pytest.fixture
def dying(tmp_path: Path, known: Capabilities) -> Capabilities:
    """A QEMU that is real up to the status query, which it does not survive: 11.1's behaviour."""
    wrapper = tmp_path / "qemu"
    wrapper.write_text(
        f"""#!/bin/sh
# The monitor's descriptor is in the arguments; what goes to the real QEMU passes a relay that ends at the query.
exec python3 - {known.program} "$@" <<'END'
import os, re, signal, socket, subprocess, sys
program, *arguments = sys.argv[1:]
line = " ".join(arguments)
outer = socket.socket(fileno=int(re.search(r"id=monitor,fd=(\\d+)", line)[1]))
inner, theirs = socket.socketpair()
line = [re.sub(r"id=monitor,fd=\\d+", f"id=monitor,fd={{theirs.fileno()}}", word) for word in arguments]
qemu = subprocess.Popen([program, *line], pass_fds=[theirs.fileno()])
theirs.close()
import selectors
wait = selectors.DefaultSelector()
wait.register(outer, selectors.EVENT_READ, inner)
wait.register(inner, selectors.EVENT_READ, outer)
while True:
    for key, _ in wait.select():
        data = key.fileobj.recv(65536)
        if not data or b"x-query-virtio-status" in data:
            qemu.kill()
            qemu.wait()
            os.kill(os.getpid(), signal.SIGABRT)
        key.data.sendall(data)
END
"""
    )
    wrapper.chmod(0o755)
    return replace(known, program=str(wrapper))


@pytest.mark.qemu
def test_a_qemu_is_asked_once(known: Capabilities, monkeypatch: pytest.MonkeyPatch) -> None:
    # 11.1.0 is the first that dies of it.
    how = "killed by SIGABRT" if known.version.startswith("11.1.") else ""
    assert status_query_ends(known) == how
    monkeypatch.setattr(probe, "_probe", _fail)
    assert status_query_ends(known) == how
    monkeypatch.setattr(probe, "_found", {})
    assert status_query_ends(known) == how


@pytest.mark.qemu
def test_one_that_dies_is_remembered(dying: Capabilities, monkeypatch: pytest.MonkeyPatch) -> None:
    assert status_query_ends(dying) == "killed by SIGABRT"
    monkeypatch.setattr(probe, "_probe", _fail)
    monkeypatch.setattr(probe, "_found", {})
    assert status_query_ends(dying) == "killed by SIGABRT"


@pytest.mark.qemu
@pytest.mark.parametrize(
    "lessen",
    [lambda known: replace(known, machines=frozenset()), lambda known: replace(known, devices={})],
    ids=["no-microvm", "no-rng"],
)
def test_what_can_not_be_tried_is_taken(
    known: Capabilities, lessen: Callable[[Capabilities], Capabilities], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_probe", _fail)
    assert status_query_ends(lessen(known)) == ""


def _fail(program: Path) -> str:
    pytest.fail(f"{program} was asked")
