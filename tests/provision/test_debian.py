"""debian: the mirror is the setting's or the machine's, and nothing comes in that Debian's keys did not sign."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_virtio.errors import MissingError, UsageError
from pytest_virtio.provision import debian
from pytest_virtio.provision.apt import have_apt

from .conftest import tool


def sources(*lines: str) -> str:
    shown = "\\n".join(lines)
    return f"case $* in *indextargets*) printf '{shown}\\n' ;; esac"


def test_the_machine_s_mirror_is_the_one_that_says_it_is_debian(fake_tools: Path) -> None:
    lines = (
        "$(ORIGIN)|$(LABEL)|mirror:/never/fetched",
        "Someone|Debian|mirror:/packages",
        "Debian|Debian-Security|mirror:/security",
        "Debian|Debian|cdrom:[x]/",
        "Debian|Debian|mirror+file:/etc/apt/mirrors.list",
    )
    tool(fake_tools, "apt-get", sources(*lines))
    assert debian.find_mirror(print) == "mirror+file:/etc/apt/mirrors.list"
    assert "update" in (fake_tools / "log").read_text().splitlines()[0]


def test_without_a_debian_source_the_setting_is_named(fake_tools: Path) -> None:
    tool(
        fake_tools,
        "apt-get",
        sources("Ubuntu|Ubuntu|mirror:/ubuntu", "X|Y|mirror:/z", "$(ORIGIN)|$(LABEL)|mirror:/never/fetched"),
    )
    with pytest.raises(
        MissingError, match=r"no source of the Debian archive \(it has: Ubuntu, X\); .*PYTEST_VIRTIO_DEBIAN_MIRROR"
    ):
        debian.find_mirror(print)
    tool(fake_tools, "apt-get", "echo 'E: sources are on fire' >&2; exit 100")
    with pytest.raises(MissingError, match=r"E: sources are on fire\n.* --mirror or PYTEST_VIRTIO_DEBIAN_MIRROR"):
        debian.find_mirror(print)


def test_the_setting_asks_no_apt(fake_tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(fake_tools, "apt-get", "exit 1")
    monkeypatch.setenv(debian.MIRROR, "file:/srv/debian")
    assert debian.find_mirror(print) == "file:/srv/debian"
    assert not (fake_tools / "log").exists()


@pytest.mark.parametrize(
    "wrong", ["/srv/debian", "[trusted=yes] file:/x", "file:/x [a]", "file:/x\ndeb file:/y", "x y"]
)
def test_a_mirror_is_one_uri(wrong: str) -> None:
    with pytest.raises(UsageError, match=r"--mirror, PYTEST_VIRTIO_DEBIAN_MIRROR\): '.*' is not a URI"):
        debian.checked_mirror(wrong)


def test_without_debian_s_keys_the_package_with_them_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "_KEYRINGS", (tmp_path / "keys",))
    with pytest.raises(MissingError, match=r"no .*/keys: .*package debian-archive-keyring"):
        debian.archive_apt(tmp_path, "file:/x", ["sid"], print)


@pytest.mark.skipif(not have_apt(), reason="no apt here")
def test_an_unsigned_archive_is_refused_also_where_the_machine_allows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the real apt, whose configuration could hardly be laxer."""
    keys, lax, suite = tmp_path / "keys.gpg", tmp_path / "apt.conf", tmp_path / "mirror" / "dists" / "sid"
    keys.touch()
    monkeypatch.setattr(debian, "_KEYRINGS", (keys,))
    lax.write_text(
        'Acquire::AllowInsecureRepositories "true"; Acquire::AllowWeakRepositories "true";\n'
        'APT::Get::AllowUnauthenticated "true"; Acquire::AllowDowngradeToInsecureRepositories "true";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(lax))
    (suite / "main" / "binary-amd64").mkdir(parents=True)
    (suite / "main" / "binary-amd64" / "Packages").touch()
    (suite / "Release").write_text("Origin: Debian\nSuite: sid\nCodename: sid\nComponents: main\n")
    (tmp_path / "apt").mkdir()
    with pytest.raises(MissingError, match=r"(?s)apt-get update failed.*not signed.*If file:.* is no mirror with sid"):
        debian.archive_apt(tmp_path / "apt", f"file:{tmp_path}/mirror", ["sid"], print)
