"""``pytest-virtio diff``: how two results differ, each a baseline, the artefacts of a test, or a directory of many.

Responsible for arguments, for which file belongs to which, and for the exit status; must not know what a difference is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Final

from pytest_virtio.baseline.codec import Baseline, compare_with
from pytest_virtio.baseline.store import DIRECTORY, PROFILE, read
from pytest_virtio.cli.commands import Commands, coloured
from pytest_virtio.errors import BaselineError, UsageError
from pytest_virtio.model.difference import Comparison
from pytest_virtio.render.baseline import baseline_difference
from pytest_virtio.render.text import safe

__all__ = ("add_commands",)

_MANY: Final = 10_000
_COLOURS: Final = {"  -": 31, "  +": 32, "  ~": 33}


def add_commands(commands: Commands) -> None:
    """Declare ``diff``."""
    diff = commands.add_parser(
        "diff",
        help="say how two baselines or two directories of artefacts differ",
        epilog="Exit status: 0 for no difference but allowed ones, 1 for a difference, 2 for wrong arguments or files.",
    )
    for side in ("before", "now"):
        diff.add_argument(side, type=Path, help="a baseline, or a directory with profiles of one or many tests")
    diff.set_defaults(act=_diff)


def _diff(chosen: argparse.Namespace) -> int:
    if chosen.before.is_dir() and chosen.now.is_dir():
        return _diff_directories(chosen.before, chosen.now)
    comparison = _compare(_only_profile(chosen.before), _only_profile(chosen.now))
    _print(baseline_difference(comparison))
    return int(comparison.differs)


def _diff_directories(before: Path, now: Path) -> int:
    """Compare test by test; a test of one side alone is a difference. What can't be read does not keep the others."""
    profiles, new_profiles = _profiles(before), _profiles(now)
    statuses = [
        _diff_test(name, profiles.get(name), new_profiles.get(name)) for name in sorted({*profiles, *new_profiles})
    ]
    if not any(statuses):
        print(f"no difference in {len(statuses)} profiles")
    return max(statuses)


def _diff_test(name: str, before: Path | None, now: Path | None) -> int:
    """Print how a test differs, if it does or something allowed or hidden is to be shown; its exit status."""
    if before is None or now is None:
        print(f"{safe(name)}: only {'now' if before is None else 'before'}")
        return 1
    try:
        comparison = _compare(before, now)
    except BaselineError as error:
        print(f"{safe(name)}: {error}", file=sys.stderr)
        return 2
    if comparison.changes or comparison.untold:
        print(f"{safe(name)}:")
        _print(baseline_difference(comparison), "  ")
    return int(comparison.differs)


def _compare(before: Path, now: Path) -> Comparison:
    """Allowances of both count, for either side may be the baseline."""
    old, new = read(before), read(now)
    allowances = (*old.allowances, *new.allowances)
    return compare_with(Baseline(old.profile, allowances), new.profile, before)


def _only_profile(path: Path) -> Path:
    if not path.exists():
        raise UsageError(f"{safe(str(path))}: there is no such file or directory")
    if not path.is_dir():
        return path
    profiles = _profiles(path)
    if len(profiles) == 1:
        return next(iter(profiles.values()))
    raise UsageError(f"{safe(str(path))}: one of its {len(profiles)} profiles is meant. {_some(profiles)}")


def _some(profiles: Mapping[str, Path]) -> str:
    shown = ", ".join(safe(name) for name in sorted(profiles)[:12])
    return f"There are: {shown}{' …' if len(profiles) > 12 else ''}" if profiles else "There is none."


def _profiles(directory: Path) -> dict[str, Path]:
    """The profiles below a directory, by where they are in it: in artefacts, and among tests.

    :raise UsageError: there are none, or too many to be what was meant.
    """
    files = (path for path in directory.rglob("*.toml") if path.name == PROFILE or DIRECTORY in path.absolute().parts)
    found = {_name(path.relative_to(directory)): path for path in islice(files, _MANY + 1)}
    if not found or len(found) > _MANY:
        raise UsageError(f"{safe(str(directory))}: {'no' if not found else f'more than {_MANY}'} profiles below it")
    return found


def _name(path: Path) -> str:
    """The same whether it is asked for from within a directory of baselines or from above."""
    return "/".join(part for part in path.parts if part != DIRECTORY)


def _print(lines: Iterable[str], indent: str = "") -> None:
    for line in lines:
        colour = _COLOURS.get(line[:3])
        print(indent + (coloured(line, colour) if colour else line))
