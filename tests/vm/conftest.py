"""What the tests of ``vm`` share: a real QEMU, a fake one, and a look at what is left behind."""

from __future__ import annotations

import json
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from pytest_virtio.launch import Host
from pytest_virtio.vm import janitor
from pytest_virtio.vm.accelerator import Accelerator
from pytest_virtio.vm.capabilities import Capabilities, capabilities
from pytest_virtio.vm.drain import Drain
from pytest_virtio.vm.monitor import _loop

GREETING = {
    "QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 6}, "package": "fake"}, "capabilities": ["oob"]}
}

FAKE = """#!{python} -IS
import json, os, re, socket, sys
replies = json.loads({replies!r})
sys.stderr.write({stderr!r}); sys.stderr.flush()
fd = int(re.search(r"id=monitor,fd=(\\d+)", " ".join(sys.argv))[1])
end = socket.socket(fileno=fd)
def say(message):
    end.sendall((message if isinstance(message, str) else json.dumps(message)).encode() + b"\\r\\n")
if {greeting!r}: say({greeting!r})
text = ""
while data := end.recv(65536).decode():
    text = (text + data).lstrip()
    try:
        request, length = json.JSONDecoder().raw_decode(text)
    except ValueError:
        continue
    text = text[length:]
    reply = replies.get(request["execute"], {{"error": {{"class": "CommandNotFound", "desc": "no such command"}}}})
    if reply == "exit": os._exit(3)
    if reply == "silence": continue
    say(reply if isinstance(reply, str) else {{**reply, **({{"id": request["id"]}} if "id" in request else {{}})}})
"""

Replies = Mapping[str, object]
FakeQemu = Callable[..., Path]


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """Each test gives back its descriptors, threads and children."""
    # What lives longer than a test; a run of pytest within another test may have ended it.
    janitor.owner_token()
    _loop()
    before = _possessions()
    yield
    after = _possessions()
    assert after == before


def _possessions() -> tuple[int, set[str], int]:
    children = psutil.Process().children()
    descriptors = sum(1 for _ in Path("/proc/self/fd").iterdir())
    return descriptors, {thread.name for thread in threading.enumerate()}, len(children)


@pytest.fixture(scope="session")
def known(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Capabilities:
    """Asked with a cache of its own, so that nothing remembered from elsewhere counts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_VIRTIO_CACHE", str(tmp_path_factory.mktemp("cache")))
        return capabilities(program)


@pytest.fixture(scope="session")
def host(program: Path, known: Capabilities) -> Host:
    return Host(program, known, Accelerator("tcg", "for the test"))


@pytest.fixture
def drain() -> Iterator[Drain]:
    drain = Drain("test")
    drain.start()
    yield drain
    drain.close()


@pytest.fixture
def fake_qemu(tmp_path: Path) -> FakeQemu:
    """Makes an executable that speaks QMP with the given replies; ``"silence"`` and ``"exit"`` are no replies."""

    def make(replies: Replies | None = None, greeting: str = json.dumps(GREETING), stderr: str = "") -> Path:
        script = FAKE.format(
            python=sys.executable,
            replies=json.dumps({"qmp_capabilities": {"return": {}}, **(replies or {})}),
            greeting=greeting,
            stderr=stderr,
        )
        return executable(tmp_path / "fake-qemu", script)

    return make


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a shell script."""
    return lambda body: executable(tmp_path / "script", f"#!/bin/sh\n{body}\n")


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def ended() -> Callable[..., bool]:
    """Whether a process has ended, or does within some seconds."""

    def ended(pid: int, seconds: float = 20.0) -> bool:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        try:
            poller = select.poll()
            poller.register(pidfd, select.POLLIN)
            return bool(poller.poll(seconds * 1000))
        finally:
            os.close(pidfd)

    return ended
