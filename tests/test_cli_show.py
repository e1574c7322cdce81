"""``pytest-virtio show``: the models again, and whatever is wrong with the files in its place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_virtio import cli, render
from pytest_virtio.artifact import codec, store
from pytest_virtio.artifact.store import About
from pytest_virtio.cli import show
from tests.artifact.made_up import FINDINGS

MODELS = codec.models_to_json(FINDINGS)
BEGAN = '{"schema": 1, "began": "x", "dropped": 0}\n'
TRANSCRIPT = BEGAN + '{"seconds": 1.5, "from": "plugin", "message": {"execute": "stop"}}\n'
WIRE = '{"seconds": 0.25, "to": "QEMU", "name": "GET_FEATURES", "reply": true, "fields": {"u64": 4096}}\n'
FILES = {"models.json": MODELS, "console.log": "hello", "qmp.jsonl": TRANSCRIPT, "wire-net0.jsonl": WIRE, "empty": ""}

REPORT = "E   assert 0\n----- virtio: verdict -----\nblk0: DRIVER_OK\n---- Captured stdout call ----\nhi"


def _write(directory: Path, test: str = "test_a.py::test_x", vms: int = 1, **about: str) -> Path:
    words = {"when": "call", "outcome": "failed", "time": "2026-01-01", "words": "assert 0\nmore", **about}
    return store.write(directory, About(test=test, **words), REPORT, [FILES] * vms)


def _shown(directory: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["show", str(directory)]) == 0
    return capsys.readouterr().out


def _refused(directory: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["show", str(directory)]) == 2
    return capsys.readouterr().err


def test_a_tests_artefacts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = _shown(_write(tmp_path), capsys)
    assert out.splitlines()[0] == "==== test_a.py::test_x, call failed at 2026-01-01: assert 0 ===="
    parts = [
        "report.txt",
        "virtio: verdict",
        "virtio: net0",
        "virtio: blk0",
        "console.log",
        "empty",
        "qmp.jsonl",
        "wire-net0.jsonl",
    ]
    assert [line for line in out.splitlines() if line.startswith("----")] == [f"---- {part} ----" for part in parts]
    assert "\n".join(render.verdict(FINDINGS)) in out
    for device in FINDINGS.devices.values():
        assert "\n".join(render.device_findings(device)) in out
    assert "\nhello\n" in out
    assert "\n(empty)\n" in out
    assert '\n1.5000 s plugin: {"execute": "stop"}\n' in out
    assert (
        "\n(2 messages before these are not shown)\n0.2500 s to QEMU: GET_FEATURES reply u64 0x1000\n"
        "the connection has ended: hung up\n"
    ) in out
    assert "\n---- report.txt ----\nE   assert 0\n---- virtio: verdict ----\n" in out
    assert "hi" not in out.splitlines()


def test_several_vms_are_numbered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = _shown(_write(tmp_path, vms=18), capsys)
    assert "---- virtio: net0 (VM 2 of 18) ----" in out
    assert "---- virtio: net0 (VM 17 of 18) ----" not in out
    assert out.endswith("and 2 more VMs, not shown\n")


def test_several_tests_come_in_turn_and_many_as_a_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(show.IN_TURN):
        _write(tmp_path, f"test_a.py::test_{number}")
    in_turn = _shown(tmp_path, capsys)
    assert in_turn.count("\n---- virtio: verdict ----\n") == show.IN_TURN
    _write(tmp_path, "test_a.py::test_last", words="")
    listed = _shown(tmp_path, capsys)
    assert "virtio: verdict" not in listed
    assert f"{tmp_path}/test_a.py.test_0\n    test_a.py::test_0, call failed at 2026-01-01: assert 0\n" in listed
    assert listed.endswith("9 tests: pytest-virtio show DIR shows one\n")


def test_without_a_vm_the_report_is_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = _write(tmp_path, vms=0)
    assert _shown(place, capsys).endswith(f"---- report.txt ----\n{REPORT}\nno VM of it was there to look at\n")
    (place / "report.txt").unlink()
    assert _shown(place, capsys).endswith("====\nno VM of it was there to look at\n")


def test_what_is_before_a_line_that_was_cut_off_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = _write(tmp_path)
    (place / "qmp.jsonl").write_text(TRANSCRIPT + '{"seconds": 2.5, "fr')
    (place / "wire-net0.jsonl").write_text(WIRE + WIRE[:20])
    out = _shown(place, capsys)
    assert '\n1.5000 s plugin: {"execute": "stop"}\nit is no JSON, or not all of it: ' in out
    assert "to QEMU: GET_FEATURES reply u64 0x1000\nthe connection has ended: hung up\nit is no JSON, or " in out


def test_queues_without_number_do_not_hang_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(MODELS)
    document["devices"]["net0"]["status"]["num_vqs"] = 1 << 60
    place = _write(tmp_path)
    (place / "models.json").write_text(json.dumps(document))
    assert "num_vqs: at most 65536 is expected" in _shown(place, capsys)


def test_what_is_broken_or_missing_is_said_in_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = _write(tmp_path)
    (place / "models.json").write_text('{"schema": 9}')
    (place / "qmp.jsonl").write_text(TRANSCRIPT[:-20])
    (place / "wire-net0.jsonl").write_text(WIRE[:20])
    (place / "test.json").write_text("[]")
    os.mkfifo(place / "pipe")
    (place / "dangling").symlink_to("/nowhere/at/all")
    out = _shown(place, capsys)
    assert "==== test_a.py.test_x (this is none of pytest-virtio's documents: " in out
    assert "---- models.json ----\nit was written by a newer pytest-virtio: its schema is 9, " in out
    assert "---- qmp.jsonl ----\nit is no JSON, or not all of it" in out
    assert "---- wire-net0.jsonl ----\nit is no JSON, or not all of it" in out
    assert "---- pipe ----\npipe is missing, or no file\n" in out
    assert "---- dangling ----\ndangling is missing, or no file\n" in out
    assert "\nhello\n" in out
    (place / "models.json").unlink()
    assert "---- models.json ----\nmodels.json is missing, or no file\n" in _shown(place, capsys)


def test_what_somebody_made_up_is_harmless_and_bounded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nasty = "\x1b]0;owned\x07\x1b[31m\u202e"
    document = json.loads(MODELS)
    net = document["devices"].pop("net0")
    net["status"] |= {"name": nasty, "source": nasty, "num_vqs": -5, "extra": {nasty: nasty}}
    net["status"]["host_features"]["texts"] = [nasty] * 100_000
    net["queues"] = [{"no_answer": nasty}] * 3 + net["queues"] * 2000
    document["devices"] |= {nasty: net, **{f"d{n}": {"path": nasty, "no_answer": nasty} for n in range(100)}}
    document["state"] = document["trouble"] = [nasty] * 10_000
    place = _write(tmp_path, nasty, words=nasty, when=nasty)
    (place / "models.json").write_text(json.dumps(document))
    (place / "console.log").write_bytes(b"\x1b[31m\xff\0" * 1_000_000)
    entry = {"seconds": nasty, "from": nasty, "begins": nasty, "bytes": nasty}
    (place / "qmp.jsonl").write_text(TRANSCRIPT + f"{json.dumps(entry)}\n" * 10_000)
    (place / f"x{nasty}").write_text(nasty)
    out = _shown(place, capsys)
    assert not {"\x1b", "\x07", "\0", "\u202e"} & set(out)
    assert len(out) < 1_000_000
    assert "virtio: d63" not in out


def test_what_a_rendering_trips_over_costs_its_part_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("odd")

    monkeypatch.setattr("pytest_virtio.render.device_findings", fail)
    out = _shown(_write(tmp_path), capsys)
    assert "---- virtio: net0 ----\nthis part can't be shown: ZeroDivisionError('odd')\n" in out
    assert "\nhello\n" in out


def test_what_is_no_artefact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{tmp_path}/nope is no directory" in _refused(tmp_path / "nope", capsys)
    assert f"holds no artefacts: pytest --virtio-artifacts={tmp_path} keeps" in _refused(tmp_path, capsys)


def test_colour_only_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = _write(tmp_path)
    assert "\x1b" not in _shown(place, capsys)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1m---- virtio: verdict ----\x1b[0m\n" in _shown(place, capsys)


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    for number in range(show.IN_TURN):
        _write(tmp_path, f"test_a.py::test_{number}", vms=16)
    program = Path(sys.executable).parent / "pytest-virtio"
    read_end, write_end = os.pipe()
    os.close(read_end)
    command: list[str | Path] = [program, "show", tmp_path]
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (1, b"")
