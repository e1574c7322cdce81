"""Where baselines are, beside the tests that they belong to.

Responsible for their names, for writing a whole file or none, and for finding those that are there; must not know what
is in them. No version of anything enters a name: a new QEMU is to give a difference, not a missing file.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import stat
from pathlib import Path
from typing import Final

from pytest_virtio.baseline.codec import ANEW, Baseline, loads
from pytest_virtio.baseline.table import LIMIT, Source
from pytest_virtio.errors import BaselineError

__all__ = ("DIRECTORY", "PROFILE", "baseline_path", "listed", "may_be_of", "read", "write")

DIRECTORY: Final = "__virtio__"
"""The directory beside the tests that their baselines are in."""

PROFILE: Final = "profile.toml"
"""What a profile is called among the artefacts of a test."""

_SUFFIX: Final = ".toml"
# File systems that encrypt names take 143 bytes; most take 255.
_LONGEST: Final = 140
_DIGEST: Final = 12
# What file systems, shells' globs or GitHub's artefacts refuse, and what we give a meaning here.
_REFUSED: Final = frozenset('/\\:*?"<>|%~[]')


def baseline_path(test_file: Path, test: str, variant: str, name: str = "") -> Path:
    """Return where a test's baseline is: ``__virtio__/test_net/TestMq.test_offload[modern].toml`` beside its file.

    Equal for equal arguments alone: characters that can't stand in a file's name are written as in URLs (``%2F``), and
    a name that gets too long ends in a hash of the whole.

    :param test: the test function's name, its class before it if it has one: ``"TestMq.test_offload"``.
    :param variant: what the test's author parametrised, ``""`` for nothing.
    :param name: which of several baselines of the test, ``""`` for the one without a name.
    """
    whole = _safe(test) + (f"[{_safe(variant)}]" if variant else "") + (f"@{_safe(name)}" if name else "")
    return test_file.parent / DIRECTORY / _short(_safe(test_file.stem)) / (_short(whole, len(_SUFFIX)) + _SUFFIX)


def may_be_of(path: Path, test_file: Path, test: str) -> bool:
    """Say whether a baseline may be of a test, in whatever variant and by whatever name; of some others it says so too.

    :param test: as :func:`baseline_path` takes it.
    """
    kept, shortened, _ = path.name.rpartition("~")
    begins = path.name.startswith(_safe(test)) or (shortened and _safe(test).startswith(kept))
    return bool(begins) and path.parent == baseline_path(test_file, test, "").parent


def _safe(text: str) -> str:
    shown = "".join(map(_character, text))
    return f"%2E{shown[1:]}" if shown.startswith(".") else shown


def _character(character: str) -> str:
    if character.isprintable() and character not in _REFUSED:
        return character
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def _short(text: str, reserved: int = 0) -> str:
    encoded = text.encode()
    if len(encoded) <= _LONGEST - reserved:
        return text
    kept = encoded[: _LONGEST - reserved - _DIGEST - 1].decode("utf-8", "ignore")
    return f"{kept}~{hashlib.sha256(encoded).hexdigest()[:_DIGEST]}"


def read(path: Path, remedy: str = ANEW) -> Baseline:
    """Read a baseline.

    :param remedy: the command that makes it anew, for errors.
    :raise BaselineError: there is none, or it can't be read.
    """
    try:
        # A pipe would never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise Source(path, remedy).error("it is no file")
        with path.open("rb") as file:
            data = file.read(LIMIT + 1)
    except OSError as error:
        raise BaselineError(path, f"it can't be read: {error.strerror}", f"To make it: {remedy}") from error
    return loads(data, path, remedy)


def write(path: Path, text: str) -> None:
    """Write a baseline, whole or not at all, also when another process writes the same.

    :raise BaselineError: it can't be written.
    """
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
        temporary.replace(path)
    except OSError as error:
        raise BaselineError(path, f"it can't be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def listed(directory: Path) -> tuple[Path, ...]:
    """Return every baseline of the tests in a directory, not of those in directories below it, sorted."""
    return tuple(sorted(directory.glob(f"{DIRECTORY}/*/*{_SUFFIX}")))
