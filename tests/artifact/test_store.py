"""Where artefacts go: names that everybody takes, and nothing overwritten."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_virtio.artifact import store
from pytest_virtio.artifact.store import About
from pytest_virtio.errors import UsageError

ABOUT = About(test="tests/test_a.py::test_x[1]", when="call", outcome="failed", words="assert 0", time="2026-01-01")
GITHUB_REFUSES = '":<>|*?\r\n\\/'


def test_a_name_says_which_test_it_is() -> None:
    assert store.safe_name("tests/net/test_mtu.py::TestX::test_a[qemu-10.0-on]") == (
        "tests.net.test_mtu.py.TestX.test_a[qemu-10.0-on]"
    )


@pytest.mark.parametrize(
    "name",
    [f"t.py::t[{GITHUB_REFUSES}]", "t.py::t[\x1b\0 é \ud800]", "t" * 5000, "", ".", "..", "../x.py::t", "-rf", "a."],
)
def test_a_name_is_safe_whatever_the_test_is_called(name: str, tmp_path: Path) -> None:
    safe = store.safe_name(name)
    assert not set(safe) & set(GITHUB_REFUSES + "\0 ")
    assert safe[0] not in ".-"
    assert safe[-1] != "."
    assert len(safe.encode()) < 143
    (tmp_path / safe).mkdir()


def test_names_that_lose_something_stay_apart() -> None:
    assert len({store.safe_name(f"t.py::t[{sign}]") for sign in "?*:é"}) == 4
    assert store.safe_name("t" * 200 + "a") != store.safe_name("t" * 200 + "b")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    places = [store.write(tmp_path / "new" / "dir", ABOUT, f"report {n}", [{"a.log": str(n)}]) for n in range(3)]
    base = "tests.test_a.py.test_x[1]"
    assert [place.name for place in places] == [base, f"{base}-2", f"{base}-3"]
    assert [(place / "a.log").read_text() for place in places] == ["0", "1", "2"]
    assert [(place / "report.txt").read_text() for place in places] == ["report 0\n", "report 1\n", "report 2\n"]
    assert store.tests_in(tmp_path / "new" / "dir") == places
    assert store.about(places[0]) == ABOUT


def test_several_vms_have_a_directory_each(tmp_path: Path) -> None:
    place = store.write(tmp_path, ABOUT, "", [{"a.log": str(n)} for n in range(12)])
    assert [vm.name for vm in store.vms_in(place)] == [f"vm-{n}" for n in range(1, 13)]
    assert (place / "vm-12" / "a.log").read_text() == "11"
    assert not (place / "report.txt").exists()


def test_a_vms_files_stay_where_they_belong(tmp_path: Path) -> None:
    place = store.write(tmp_path / "in", ABOUT, "", [{"../../out": "x", "b\ud800": "\ud800"}])
    assert [path.parent for path in tmp_path.rglob("*") if path.is_file()] == [place] * 3


def test_the_script_can_be_run(tmp_path: Path) -> None:
    place = store.write(tmp_path, ABOUT, "", [{"command.sh": "#!/bin/sh\n", "a.log": ""}])
    assert os.access(place / "command.sh", os.X_OK)
    assert [path.name for path in store.files_in(place)] == ["a.log", "command.sh"]


def test_without_a_vm_there_is_none(tmp_path: Path) -> None:
    assert store.vms_in(store.write(tmp_path, ABOUT, "red", [])) == []


def test_what_stands_in_the_way_is_known_before(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert store.refusal(tmp_path / "a" / "b") == ""
    assert store.refusal(file) == store.refusal(file / "below") == f"{file} is no directory"
    assert not (tmp_path / "a").exists()


def test_a_directory_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda place, mode: place != tmp_path)
    assert store.refusal(tmp_path / "a") == f"{tmp_path} can't be written to"


def test_what_is_no_artefact_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "test.json")
    with pytest.raises(UsageError, match=r"test\.json is missing, or no file"):
        store.about(tmp_path)
    (tmp_path / "test.json").unlink()
    (tmp_path / "test.json").write_text('{"schema": 1, "test": 7, "when": []}')
    with pytest.raises(UsageError, match="test, when: text is expected"):
        store.about(tmp_path)


def test_a_file_that_is_larger_than_ours_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "READ_LIMIT", 1 << 20)
    (tmp_path / "big").write_bytes(b"x" * (1 << 20) + b"x")
    with pytest.raises(UsageError, match="more than 1 MiB"):
        store.read(tmp_path / "big")
