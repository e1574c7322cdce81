"""releases and qemu: a release is built once, from what the recipe says, and found by its name."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from pytest_virtio.errors import MissingError, UnknownNameError
from pytest_virtio.provision import cache, debian, qemu, releases, selfcheck
from pytest_virtio.provision.apt import have_apt

from . import fake_qemu
from .conftest import tool

TALK = b'{"execute": "qmp_capabilities"}{"execute": "query-status"}{"execute": "quit"}'

# Lists the packages beside it, "downloads" them, and keeps the sources that it was given.
APT_GET = """\
here=$(dirname "$0")
for word; do case $word in
    Dir::Etc::SourceList=*) cat "${word#*=}" >"$here/sources" ;;
    Dir::Cache=*) archives=${word#*=}/archives ;;
esac; done
case $* in
    *--print-uris*) for path in "$here"/debs/*.deb; do echo "'file:$path' $(basename "$path") 1 x"; done ;;
    *--download-only*) cp "$here"/debs/*.deb "$archives" ;;
esac
"""


@pytest.fixture
def archive(fake_tools: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Debian archive with one fake QEMU, which comes with all that it needs but for a shell."""
    debs = fake_tools / "debs"
    debs.mkdir()
    fake_qemu.packages(debs)
    tool(fake_tools, "apt-get", APT_GET)
    tool(fake_tools, "apt-cache", "echo qemu-system-modules-spice; echo qemu-utils")
    monkeypatch.setattr(debian, "_KEYRINGS", (fake_tools / "log",))
    monkeypatch.setattr(selfcheck, "check", lambda program, home, whole: None)
    (fake_tools / "log").touch()
    return fake_tools


def test_a_release_is_built_by_the_recipe(archive: Path) -> None:
    build = releases.build_release("qemu-7.2", print, mirror="file:/srv/debian")
    assert build.version == fake_qemu.VERSION
    assert build.packages == {"base-files": "13", "libc6": "2", "qemu-system-x86": fake_qemu.VERSION}
    assert (archive / "sources").read_text() == f"deb [signed-by={archive}/log] file:/srv/debian bookworm main\n"
    called = (archive / "log").read_text()
    assert "qemu-system-x86=1:7.2+* qemu-system-gui=1:7.2+* qemu-block-extra=1:7.2+* qemu-system-modules-sp" in called
    assert "modules-opengl" not in called
    assert "APT::Get::AllowUnauthenticated=false" in called
    assert build.program.is_relative_to(cache.root() / "qemu-releases")


def test_what_is_built_stays_and_needs_no_apt(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = releases.build_release("qemu-10.0", print, mirror="file:/srv/debian")
    monkeypatch.setenv("PATH", "/nowhere")
    assert releases.build_release("qemu-10.0", pytest.fail) == build
    assert releases.find_release("qemu-10.0") == build
    assert qemu.find_qemu("qemu-10.0") == build.program
    assert qemu.find_qemu() is None
    assert list((cache.root() / "tmp").iterdir()) == []


def test_the_archive_s_packages_are_not_kept_when_the_build_fails(archive: Path) -> None:
    tool(archive, "apt-get", "echo \"E: Version '1:10.0.*' for 'qemu-system-x86' was not found\" >&2; exit 100")
    with pytest.raises(
        MissingError, match=r"'qemu-system-x86' was not found\nIf file:/x is no mirror with bookworm and"
    ):
        releases.build_release("qemu-10.0", print, mirror="file:/x")
    assert releases.find_release("qemu-10.0") is None
    assert list((cache.root() / "tmp").iterdir()) == []


def test_a_release_that_is_not_built_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.ENVIRONMENT, str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match=r"qemu-11\.1 is not built yet: run 'pytest-virtio image build qemu-11\.1'"):
        qemu.find_qemu("qemu-11.1")
    (tmp_path / "qemu-11.1").touch(mode=0o755)
    assert qemu.find_qemu("qemu-11.1") == tmp_path / "qemu-11.1"
    with pytest.raises(UnknownNameError, match=r"unknown release of QEMU: 'qemu-10.1'.*qemu-10\.0"):
        releases.build_release("qemu-10.1", print)


def test_without_apt_a_release_can_t_be_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.ENVIRONMENT, str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match=r"can't fetch qemu-7\.2: this machine has no apt-get"):
        releases.build_release("qemu-7.2", print)


def test_the_cached_qemu_is_found_after_path_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.ENVIRONMENT, str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert qemu.find_qemu() is None
    cached = tmp_path / "qemu" / "key" / "bin" / "qemu-system-x86_64"
    cached.parent.mkdir(parents=True)
    cached.touch(mode=0o755)
    assert qemu.find_qemu() == cached
    installed = tmp_path / "bin" / "qemu-system-x86_64"
    installed.parent.mkdir()
    installed.touch(mode=0o755)
    assert qemu.find_qemu() == installed


def answers(program: Path) -> bytes:
    """Of a q35 with a network card, in an environment that points to another QEMU's modules."""
    argv = [str(program), "-M", "q35", "-accel", "tcg", "-nodefaults", "-display", "none", "-serial", "none", "-S"]
    argv += ["-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n", "-qmp", "stdio"]
    environment = {"PATH": "/bin:/usr/bin", "QEMU_MODULE_DIR": "/usr/lib/x86_64-linux-gnu/qemu"}
    done = subprocess.run(argv, input=TALK, capture_output=True, timeout=60, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


@pytest.mark.download
@pytest.mark.skipif(not have_apt(), reason="no apt here")
def test_the_distribution_s_qemu_unpacked_into_the_cache_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.ENVIRONMENT, str(tmp_path))
    found = qemu.install_qemu(print, as_root=False)
    monkeypatch.setenv("PATH", "/nowhere")
    assert qemu.find_qemu() == found
    assert b'"status": "prelaunch"' in answers(found)


@pytest.mark.download
@pytest.mark.skipif(not any(path.is_file() for path in debian._KEYRINGS), reason="no keys of the Debian archive here")
def test_a_real_release_is_built_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest: its C library is the least like the machine's, and its packages hold links from /bin to /usr/bin."""
    monkeypatch.setenv(cache.ENVIRONMENT, str(tmp_path))
    build = releases.build_release("qemu-11.1", print)
    assert build.version.startswith("1:11.1.")
    said = [json.loads(line) for line in answers(build.program).splitlines()]
    assert said[0]["QMP"]["version"]["qemu"]["major"] == 11
    assert {"return": {"running": False, "status": "prelaunch"}} in said
