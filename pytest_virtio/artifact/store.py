"""The directory of a run's artefacts: one below it for each test, and in that one for each VM if there are several.

Responsible for names that every file system and CI takes, for writing so that nothing is overwritten, and for bounded
reading; must not know what is in the files, but for the one that says whose they are.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path
from typing import Any, Final

from pytest_virtio.artifact.codec import SCHEMA, object_from_json
from pytest_virtio.errors import UsageError

__all__ = (
    "ABOUT",
    "READ_LIMIT",
    "SCRIPT",
    "About",
    "about",
    "read",
    "refusal",
    "safe_name",
    "tests_in",
    "vms_in",
    "write",
)

ABOUT: Final = "test.json"
MODELS: Final = "models.json"
REPORT: Final = "report.txt"
SCRIPT: Final = "command.sh"
READ_LIMIT: Final = 64 << 20
"""Bytes of a file that is read; the largest of ours has some 16 MiB."""

# GitHub's upload-artifact refuses " : < > | * ? and line ends, file systems "/", Windows "\\"; a shell is happy too.
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.,=+@\[\]-]")
_NAME_LENGTH: Final = 120
"""File systems allow 255 bytes, eCryptfs 143; a number may follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Whose artefacts a directory holds.

    :param test: the test's id, as pytest prints it.
    :param when: the phase that they are of: ``"setup"``, ``"call"`` or ``"teardown"``.
    :param outcome: of that phase: ``"failed"``, ``"passed"``, ``"rerun"``.
    :param words: the failure in short.
    :param time: when they were written, in ISO 8601, UTC.
    """

    test: str
    when: str
    outcome: str
    words: str = ""
    time: str = ""


def safe_name(name: str) -> str:
    """A test's id as the name of a directory: ``tests.net.test_mtu.py.test_a[qemu-10.0]``.

    What may not stand there becomes ``_``, and a long name is cut; such names end in a hash, so that they stay apart.
    """
    plain = name.replace("::", ".").replace("/", ".")
    shown = re.sub(r"^[.-]|[.]$", "_", _UNSAFE.sub("_", plain))[:_NAME_LENGTH] or "_"
    if shown == plain:
        return shown
    return f"{shown}~{hashlib.sha256(name.encode(errors='backslashreplace')).hexdigest()[:8]}"


def refusal(directory: Path) -> str:
    """Why nothing can be written there, as far as that can be known before; "" when nothing is in the way. It makes
    no directory."""
    try:
        place = next(place for place in (directory, *directory.parents) if place.exists())
        if not place.is_dir():
            return f"{place} is no directory"
    except OSError as error:
        return str(error)
    return "" if os.access(place, os.W_OK | os.X_OK) else f"{place} can't be written to"


def write(directory: Path, about: About, report: str, vms: Sequence[Mapping[str, str]]) -> Path:
    """Write a test's artefacts into a directory of their own; where one of that name exists, the new one's is numbered.

    :param report: the failure as text; "" for none.
    :param vms: of each VM the files' texts by name.
    :returns: the directory.
    :raises OSError: when that fails; what was written stays.
    """
    place = _make(directory, safe_name(about.test))
    # First, for without it nobody finds the others.
    _write(place, ABOUT, json.dumps({"schema": SCHEMA, "plugin": version("pytest-virtio"), **asdict(about)}, indent=1))
    if report:
        _write(place, REPORT, f"{report}\n")
    for number, files in enumerate(vms, 1):
        below = place if len(vms) == 1 else place / f"vm-{number}"
        below.mkdir(exist_ok=True)
        for name, text in files.items():
            _write(below, safe_name(name), text)
    return place


def _make(directory: Path, name: str) -> Path:
    """Who makes a directory has it to himself: other runs, phases and repetitions of the test find it taken."""
    directory.mkdir(parents=True, exist_ok=True)
    for candidate in chain([name], (f"{name}-{number}" for number in count(2))):
        try:
            (directory / candidate).mkdir()
        except FileExistsError:
            continue
        return directory / candidate
    raise AssertionError("counting does not end")


def _write(directory: Path, name: str, text: str) -> None:
    path = directory / name
    path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
    if name == SCRIPT:
        path.chmod(path.stat().st_mode | 0o111)


def read(path: Path) -> str:
    """A file's text; bytes that are no UTF-8 as ``\\xff``.

    :raises UsageError: when it can't be read, is no file, or is larger than ours ever are.
    """
    try:
        # A pipe that somebody put there would be waited for.
        if not path.is_file():
            raise UsageError(f"{path.name} is missing, or no file")
        with path.open("rb") as file:
            data = file.read(READ_LIMIT + 1)
    except OSError as error:
        raise UsageError(f"{path.name} can't be read: {error.strerror}") from error
    if len(data) > READ_LIMIT:
        raise UsageError(f"{path.name} has more than {READ_LIMIT >> 20} MiB: it is none of pytest-virtio's")
    return data.decode(errors="backslashreplace")


def about(directory: Path) -> About:
    """Whose artefacts are here.

    :raises UsageError: when it can't be told, and why.
    """
    found: dict[str, Any] = object_from_json(read(directory / ABOUT))
    fields = {name: found.get(name, "") for name in About.__dataclass_fields__}
    wrong = [name for name, value in fields.items() if not isinstance(value, str)]
    if wrong:
        raise UsageError(f"{ABOUT}: {', '.join(wrong)}: text is expected")
    return About(**fields)


def tests_in(directory: Path) -> list[Path]:
    """The directories of tests below one, by name.

    :raises UsageError: when it can't be read.
    """
    return [path for path in _sorted(directory) if (path / ABOUT).is_file()]


def vms_in(directory: Path) -> list[Path]:
    """Where a test's VMs have their files: below its directory, or in it if there is one only; empty without any."""
    numbered = [path for path in _sorted(directory) if path.is_dir() and path.name.startswith("vm-")]
    alone = [directory] if files_in(directory) else []
    return sorted(numbered, key=lambda path: (len(path.name), path.name)) or alone


def files_in(directory: Path) -> list[Path]:
    """The files of a VM, by name."""
    return [path for path in _sorted(directory) if path.name not in (ABOUT, REPORT) and not path.is_dir()]


def _sorted(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError as error:
        raise UsageError(f"{directory} can't be read: {error.strerror}") from error
