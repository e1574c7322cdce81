"""cache: entries are whole or absent, made once, and who holds a lock is said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_virtio.errors import MissingError
from pytest_virtio.provision import cache

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.ENVIRONMENT, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_an_entry_is_built_once() -> None:
    built: list[Path] = []

    def build(directory: Path) -> None:
        built.append(directory)
        (directory / "file").write_text("x")

    path = cache.entry("kind", "key", build)
    assert cache.entry("kind", "key", build) == path == cache.root() / "kind" / "key"
    assert (path / "file").read_text() == "x"
    assert len(built) == 1
    assert cache.size_bytes() > 0


def test_a_failed_build_leaves_nothing() -> None:
    def build(directory: Path) -> None:
        (directory / "half").touch()
        raise MissingError("no network")

    with pytest.raises(MissingError, match="no network"):
        cache.entry("kind", "key", build)
    assert not (cache.root() / "kind" / "key").exists()
    assert list((cache.root() / "tmp").iterdir()) == []


BUILD = """
import os, time
from pytest_virtio.provision import cache
def build(directory):
    time.sleep(0.2)
    (directory / str(os.getpid())).touch()
print(*(path.name for path in cache.entry("kind", "key", build).iterdir()))
"""

HOLD = """
import time
from pytest_virtio.provision import cache
with cache.lock("name"):
    print("held", flush=True)
    time.sleep(60)
"""


def start(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)


def test_several_processes_make_one_entry() -> None:
    processes = [start(BUILD) for _ in range(3)]
    try:
        seen = {process.communicate(timeout=60)[0] for process in processes}
    finally:
        for process in processes:
            process.kill()
    assert len(seen) == 1
    assert seen.pop().strip() in {str(process.pid) for process in processes}


def test_who_holds_a_lock_is_said() -> None:
    with start(HOLD) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            with (
                pytest.raises(MissingError, match=rf"held for 0\.1 s by process {other.pid},"),
                cache.lock("name", 0.1),
            ):
                pytest.fail("two hold the lock")
        finally:
            other.kill()


def test_who_is_waited_for_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_SOON_SECONDS", 0.05)
    said: list[str] = []
    with start(HOLD) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            with pytest.raises(MissingError), cache.lock("name", 0.2, said.append):
                pytest.fail("two hold the lock")
        finally:
            other.kill()
    with cache.lock("name", 10, said.append):
        assert said == [f"waiting for process {other.pid}, which fetches or builds the same"]


def test_a_digest_tells_where_one_part_ends() -> None:
    assert cache.digest("ab", "c") != cache.digest("a", "bc")
    assert cache.digest("ab", b"c") == cache.digest(b"ab", "c")


def test_a_place_that_can_t_be_written_names_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(cache.ENVIRONMENT, str(tmp_path / "file"))
    with pytest.raises(MissingError, match=cache.ENVIRONMENT):
        cache.subdirectory("kind")


def test_without_the_variable_it_is_the_user_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(cache.ENVIRONMENT)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.root() == tmp_path / "pytest-virtio"
