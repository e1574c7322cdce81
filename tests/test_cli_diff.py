"""``pytest-virtio diff``: what is compared with what, what is printed, and the exit status."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_virtio import cli
from pytest_virtio.baseline.codec import Baseline, dumps
from pytest_virtio.baseline.store import write
from pytest_virtio.model.allowance import Allowance
from pytest_virtio.model.feature_state import FEATURE_STATES
from pytest_virtio.model.profile import DeviceProfile, Profile
from pytest_virtio.model.provenance import Provenance

NAME = "VIRTIO_NET_F_MRG_RXBUF"


def put(path: Path, words: str = "negotiated", *allowances: Allowance) -> Path:
    device = DeviceProfile(type="net", transport="pci", features={NAME: FEATURE_STATES[words]})
    write(path, dumps(Baseline(Profile({"net0": device}, Provenance(qemu="10.0.2")), allowances)))
    return path


def diff(*arguments: Path) -> int:
    return cli.main(["diff", *map(str, arguments)])


def test_two_baselines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, now = put(tmp_path / "a.toml"), put(tmp_path / "b.toml", "not offered")
    assert diff(before, now) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"net0: {NAME} lost: QEMU offers it no more",
        "net0",
        f"  - {NAME}: negotiated -> not offered: QEMU offers it no more",
        "seen on the same: QEMU 10.0.2",
        "so the command line, a property of the device or the guest's settings must have changed",
    ]
    assert diff(before, before) == 0
    assert capsys.readouterr().out == "no difference\n"


def test_the_command_itself(tmp_path: Path) -> None:
    before, now = put(tmp_path / "a.toml"), put(tmp_path / "b.toml", "offered")
    run = [sys.executable, "-c", "import sys; from pytest_virtio.cli import main; sys.exit(main())", "diff"]
    done = subprocess.run([*run, before, now], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "the driver no longer acknowledges it" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("allowing", ["before", "now"])
def test_what_either_side_allows_is_shown_and_no_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], allowing: str
) -> None:
    allowance = Allowance(device="net0", what="MRG_RXBUF", reason="old runners")
    before = put(tmp_path / "a.toml", "negotiated", *([allowance] if allowing == "before" else []))
    now = put(tmp_path / "b.toml", "offered", *([allowance] if allowing == "now" else []))
    assert diff(before, now) == 0
    assert "(allowed: old runners)" in capsys.readouterr().out


def test_a_baseline_and_the_artefacts_of_a_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    baseline, artefacts = put(tmp_path / "a.toml"), tmp_path / "artefacts"
    put(artefacts / "test_x" / "profile.toml", "offered")
    assert diff(baseline, artefacts) == diff(artefacts, baseline) == 1
    put(artefacts / "test_y" / "profile.toml")
    assert diff(baseline, artefacts) == 2
    said = capsys.readouterr().err
    assert "one of its 2 profiles is meant. There are: test_x/profile.toml, test_y/profile.toml" in said


def test_directories_go_test_by_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("same", "other", "gone"):
        put(tmp_path / "a" / name / "profile.toml")
        put(
            tmp_path / "b" / name.replace("gone", "new") / "profile.toml",
            "offered" if name == "other" else "negotiated",
        )
    assert diff(tmp_path / "a", tmp_path / "b") == 1
    assert capsys.readouterr().out.splitlines() == [
        "gone/profile.toml: only before",
        "new/profile.toml: only now",
        "other/profile.toml:",
        f"  net0: {NAME} lost: the driver no longer acknowledges it",
        "  net0",
        f"    - {NAME}: negotiated -> offered: the driver no longer acknowledges it",
        "  seen on the same: QEMU 10.0.2",
        "  so the command line, a property of the device or the guest's settings must have changed",
    ]
    assert diff(tmp_path / "a", tmp_path / "a") == 0
    assert capsys.readouterr().out == "no difference in 3 profiles\n"


def test_a_test_that_is_gone_alone_is_a_difference(tmp_path: Path) -> None:
    put(tmp_path / "a" / "x" / "profile.toml")
    put(tmp_path / "a" / "y" / "profile.toml")
    put(tmp_path / "b" / "x" / "profile.toml")
    assert diff(tmp_path / "a", tmp_path / "b") == 1


def test_what_is_no_profile_is_left_alone_and_one_that_is_broken_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether they are looked at from within a directory of baselines or from above."""
    for side, words in (("a", "negotiated"), ("b", "offered")):
        (tmp_path / side).mkdir()
        (tmp_path / side / "pyproject.toml").write_text("[project]\n")
        put(tmp_path / side / "__virtio__" / "test_a" / "test_x.toml", words)
    above, within = tmp_path / "a", tmp_path / "b" / "__virtio__"
    assert diff(above, within) == 1
    assert capsys.readouterr().out.startswith("test_a/test_x.toml:\n")
    (above / "__virtio__" / "test_a" / "test_w.toml").write_text("schema = 1")
    put(within / "test_a" / "test_w.toml")
    assert diff(above, within) == 2
    captured = capsys.readouterr()
    assert captured.out.startswith("test_a/test_x.toml:\n")
    assert captured.err.startswith("test_a/test_w.toml: ")
    assert diff(tmp_path / "none", within) == 2
    assert "there is no such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["none.toml", "empty", "broken.toml", "allow.toml"])
def test_what_cannot_be_compared_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.toml").write_text("\x1b[2J")
    put(tmp_path / "allow.toml", "negotiated", Allowance(device="net1", what="config", reason=""))
    good = put(tmp_path / "good.toml")
    assert diff(good, tmp_path / wrong) == 2
    said = capsys.readouterr().err
    assert said.startswith("pytest-virtio: ")
    assert "\x1b" not in said


def test_colour_only_on_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, now = put(tmp_path / "a.toml"), put(tmp_path / "b.toml", "offered")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    diff(before, now)
    assert f"\x1b[31m  - {NAME}" in capsys.readouterr().out
    diff(now, before)
    assert f"\x1b[32m  + {NAME}" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    diff(before, now)
    assert "\x1b" not in capsys.readouterr().out
