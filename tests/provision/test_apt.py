"""Long runs of apt's tools: that they say something meanwhile, and end."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_virtio.errors import MissingError
from pytest_virtio.provision import apt
from pytest_virtio.provision.apt import Apt, checked

from .conftest import tool


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt, "TELL_SECONDS", 0.05)


def test_who_waits_is_told_how_long(tmp_path: Path) -> None:
    told: list[float] = []
    assert checked(["sh", "-c", "echo done; sleep 0.4; echo more"], 10, tmp_path, told.append) == "done\nmore\n"
    assert len(told) >= 2
    assert told == sorted(told)


def test_a_download_says_how_much_there_is(tmp_path: Path, fake_tools: Path) -> None:
    below = tmp_path / "apt"
    tool(fake_tools, "apt-get", f"head -c 3000000 /dev/zero > {below}/cache/archives/partial/a.deb; exec sleep 0.4")
    told: list[str] = []
    Apt(below).get("install", "--download-only", "a", seconds=10, progress=told.append)
    assert told[-1].startswith("3 MB after ")


def test_it_ends_in_time(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"sleep 60: not done within 0\.2 s"):
        checked(["sleep", "60"], 0.2, tmp_path, lambda _: None)


def test_what_fails_says_why() -> None:
    with pytest.raises(MissingError, match=r"failed \(exit status 3\):\nno such thing"):
        checked(["sh", "-c", "echo no such thing >&2; exit 3"], 10)
