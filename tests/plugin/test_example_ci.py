"""``examples/ci``, as its README tells it: green, red when a feature goes, green again by one command and one line."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples/ci"
BASELINE = Path("tests/__virtio__/test_net/test_negotiation.toml")
QUIET = ("-p", "no:hypothesispytest", "-p", "no:cacheprovider")
KINDS = ("text", "sh")


@pytest.fixture
def repository(inner_runs: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    # Summaries are cut to the terminal's width.
    monkeypatch.setenv("COLUMNS", "300")
    shutil.copytree(EXAMPLE, inner_runs.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    git("init", "--quiet")
    commit()
    return inner_runs


def git(*arguments: str) -> str:
    who = {f"GIT_{role}_{what}": "ci@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(["git", *arguments], check=True, capture_output=True, text=True, env=os.environ | who)
    return done.stdout


def commit() -> None:
    git("add", ".")
    git("commit", "--quiet", "--allow-empty", "--message", "the state now")


def run(repository: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return repository.runpytest_subprocess(*QUIET, *arguments)


def told(baseline: Path) -> str:
    """What is compared of it."""
    return baseline.read_text().partition("# What this was seen on")[0]


def turn_off_mrg_rxbuf() -> None:
    test = Path("tests/test_net.py")
    test.write_text(test.read_text().replace("Net()", 'Net(mrg_rxbuf="off")'))


def test_a_feature_goes_and_that_is_accepted(repository: pytest.Pytester) -> None:
    run(repository).assert_outcomes(passed=1)
    # Seen on this machine, nothing but what it was seen on is another.
    committed = told(BASELINE)
    BASELINE.unlink()
    run(repository, "--virtio-baseline=new").assert_outcomes(passed=1)
    assert told(BASELINE) == committed
    commit()

    turn_off_mrg_rxbuf()
    red = run(repository)
    red.assert_outcomes(failed=1)
    red.stdout.fnmatch_lines(
        [
            "E *net0: VIRTIO_NET_F_MRG_RXBUF lost: QEMU offers it no more",
            "E *- VIRTIO_NET_F_MRG_RXBUF: negotiated -> not offered: QEMU offers it no more",
            "FAILED tests/test_net.py::test_negotiation - net0: VIRTIO_NET_F_MRG_RXBUF lost: QEMU offers it no more",
        ]
    )
    command = accepting(red)
    assert command[0] == "pytest"
    run(repository, *command[1:]).assert_outcomes(passed=1)
    assert git("diff", "--numstat", "--", str(BASELINE.parent)).split() == ["0", "1", str(BASELINE)]
    assert '-VIRTIO_NET_F_MRG_RXBUF = "negotiated"\n' in git("diff", "--", str(BASELINE))
    run(repository).assert_outcomes(passed=1)


def accepting(red: pytest.RunResult) -> list[str]:
    """The command in the last line of the failure's words."""
    last = [line for line in red.stdout.lines if re.match(r"E +to accept it", line)][-1]
    return shlex.split(last.partition(": ")[2])


def test_the_allowance_in_its_readme(repository: pytest.Pytester) -> None:
    readme = Path("README.md").read_text()
    allowance = re.findall(r"^```toml\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)[0]
    BASELINE.write_text(BASELINE.read_text().replace("\n# What this", f"\n{allowance}\n# What this"))
    turn_off_mrg_rxbuf()
    result = run(repository)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*VIRTIO_NET_F_MRG_RXBUF*(allowed: our downstream QEMU has it off)"])


def test_the_words_in_its_readme(repository: pytest.Pytester) -> None:
    """And the command there is the one that is told."""
    readme = Path("README.md").read_text()
    words, command = (re.findall(rf"^```{kind}\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)[0] for kind in KINDS)
    turn_off_mrg_rxbuf()
    red = run(repository)
    said = "\n".join(re.sub(r"^E +(\S*Error: )?", "", line) for line in red.stdout.lines)
    assert all(line.strip() in said for line in words.splitlines())
    assert shlex.split(command.splitlines()[0]) == accepting(red)
