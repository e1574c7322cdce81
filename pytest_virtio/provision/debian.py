"""The Debian archive: where this machine gets it from, and an apt that sees a few suites of it and nothing else. It
must not know what is fetched from there."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from pytest_virtio.errors import MissingError, UsageError

from . import cache
from .apt import DOWNLOAD_SECONDS, QUERY_SECONDS, Apt, machine_apt

__all__ = ("MIRROR", "archive_apt", "checked_mirror", "find_mirror")

MIRROR = "PYTEST_VIRTIO_DEBIAN_MIRROR"
"""Environment variable that names a mirror of the Debian archive."""

# Of the package debian-archive-keyring; the second name came with trixie.
_KEYRINGS = tuple(Path(f"/usr/share/keyrings/debian-archive-keyring.{suffix}") for suffix in ("gpg", "pgp"))

_REMEDY = f"name a mirror of it by --mirror or {MIRROR}: the URI that stands in a sources.list, without its suite"


def find_mirror(progress: Callable[[str], None]) -> str:
    """The URI of a mirror of the Debian archive: the setting's, else the one in the machine's apt configuration.

    :raise MissingError: there is no setting, and the machine's apt has no source that says of itself that it is Debian.
    :raise UsageError: the setting is no URI.
    """
    named = os.environ.get(MIRROR)
    return checked_mirror(named) if named else _machine_mirror(progress)


def checked_mirror(uri: str) -> str:
    """The URI as it is, if it is one: what else stands in a source, such as ``[trusted=yes]``, is not for a setting.

    :raise UsageError: it isn't.
    """
    if re.fullmatch(r"[a-z][a-z0-9+.-]*:[^\s\[\]]+", uri):
        return uri
    raise UsageError(
        f"mirror of the Debian archive (--mirror, {MIRROR}): {uri!r} is not a URI such as file:/srv/debian"
    )


def archive_apt(directory: Path, mirror: str, suites: Sequence[str], progress: Callable[[str], None]) -> Apt:
    """An apt with lists of these suites, for which dependencies are taken from the last suite where that has them. What
    it downloads is signed by the keys of Debian's archive, or refused.

    :param directory: everything is kept there.
    :raise MissingError: the machine has no keys of the Debian archive; the mirror can't be reached, lacks a suite, or
        its signature is wrong.
    """
    keyring = _keyring()
    sources = directory / "debian.list"
    sources.write_text("".join(f"deb [signed-by={keyring}] {mirror} {suite} main\n" for suite in suites))
    apt = Apt(directory, _settings(sources, suites[-1]))
    try:
        apt.update(progress)
    except MissingError as error:
        raise MissingError(f"{error}\nIf {mirror} is no mirror with {' and '.join(suites)}, {_REMEDY}") from error
    return apt


def _settings(sources: Path, preferred: str) -> dict[str, object]:
    return {
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "APT::Default-Release": preferred,
        "Acquire::Retries": 3,
        # A list that can't be had is an error, not a warning about the old one.
        "APT::Update::Error-Mode": "any",
        # Whatever the machine's configuration allows: nothing comes in unsigned.
        "Acquire::AllowInsecureRepositories": "false",
        "Acquire::AllowWeakRepositories": "false",
        "Acquire::AllowDowngradeToInsecureRepositories": "false",
        "APT::Get::AllowUnauthenticated": "false",
    }


def _keyring() -> Path:
    found = next((path for path in _KEYRINGS if path.is_file()), None)
    if found is None:
        raise MissingError(f"no {_KEYRINGS[0]}: install the keys of Debian's archive, package debian-archive-keyring")
    return found


def _machine_mirror(progress: Callable[[str], None]) -> str:
    """A source's own Release file says whose it is, so the lists must be there."""
    with cache.lock("apt", DOWNLOAD_SECONDS, progress):
        apt = machine_apt()
        try:
            if not apt.has_lists:
                apt.update(progress)
            shown = _origins(apt)
        except MissingError as error:
            raise MissingError(f"{error}\nWithout the machine's own sources, {_REMEDY}") from error
    for line in shown:
        origin, label, uri = line.split("|", 2)
        if (origin, label) == ("Debian", "Debian") and not uri.startswith("cdrom:"):
            return uri
    # apt-get leaves the words as they are for a source whose Release file it could not fetch.
    others = ", ".join(sorted({line.split("|")[0] for line in shown if line[0] != "$"})) or "none that can be reached"
    raise MissingError(f"the machine's apt has no source of the Debian archive (it has: {others}); {_REMEDY}")


def _origins(apt: Apt) -> list[str]:
    """``ORIGIN|LABEL|URI`` of each source; the security archive is of Debian's origin, but has a label of its own."""
    shown = apt.get(
        "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages", seconds=QUERY_SECONDS
    )
    return shown.splitlines()
