"""packages and qemu: apt is asked in the cache only, and what a machine without it should do is said."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pytest_virtio.errors import MissingError
from pytest_virtio.provision import cache, linux, packages, qemu


@pytest.fixture
def fake_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with scripts in place of apt's tools; they keep a record of how they were called."""
    monkeypatch.setenv(cache.ENVIRONMENT, str(tmp_path / "cache"))
    tools = tmp_path / "bin"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    return tools


def tool(directory: Path, name: str, script: str) -> None:
    path = directory / name
    path.write_text(f'#!/bin/sh\necho "{name} $*" >>{directory}/log\n{script}\n')
    path.chmod(0o755)


def test_without_apt_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(cache.ENVIRONMENT, str(tmp_path))
    for get in (linux.build_linux, qemu.install_qemu):
        with pytest.raises(MissingError, match=r"qemu-system-x86.*busybox.*--virtio-kernel.*--virtio-initrd"):
            get(print)


def test_a_metapackage_stands_for_the_kernel_and_its_modules(fake_tools: Path) -> None:
    cases = {
        "linux-image-generic": "linux-image-6.8.0-45-generic, linux-modules-extra-6.8.0-45-generic, firmware",
        "linux-image-6.8.0-45-generic": "kmod, linux-base (>= 4), linux-modules-6.8.0-45-generic",
        "linux-image-amd64": "linux-image-6.1.0-56-amd64 (= 6.1.192-2)",
        "linux-image-6.1.0-56-amd64": "kmod, linux-base (>= 4.3~), initramfs-tools | other",
    }
    lines = "".join(f'{name}) echo "Depends: {depends}" ;;\n' for name, depends in cases.items())
    tool(fake_tools, "apt-cache", f"for last; do :; done\ncase $last in\n{lines}esac")
    kernel = "6.8.0-45-generic"
    assert packages.resolve("linux-image-amd64") == ("linux-image-6.1.0-56-amd64",)
    assert packages.resolve("linux-image-generic") == (
        f"linux-image-{kernel}",
        f"linux-modules-{kernel}",
        f"linux-modules-extra-{kernel}",
    )
    assert packages.resolve("busybox-static") == ("busybox-static",)


def test_apt_s_own_words_are_in_the_message(fake_tools: Path) -> None:
    tool(fake_tools, "apt-get", "echo 'E: the mirror is on fire' >&2; exit 100")
    with pytest.raises(MissingError, match=r"apt-get update failed \(exit status 100\):\nE: the mirror is on fire"):
        packages.download([["x"]], print)


def test_lists_are_updated_in_the_cache_and_the_machine_s_hooks_left_out(fake_tools: Path) -> None:
    tool(fake_tools, "apt-get", "echo no >&2; exit 100")
    with pytest.raises(MissingError):
        packages.download([["x"]], print)
    called = (fake_tools / "log").read_text()
    assert called.count("apt-get") == 1
    assert f"-o Dir::State={cache.root()}" in called
    assert f"-o Dir::Cache={cache.root()}" in called
    assert "Dir::Etc" not in called
    assert "#clear APT::Update::Post-Invoke;" in (cache.root() / "apt" / "configuration").read_text()


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


@pytest.mark.skipif(not packages.have_apt(), reason="no apt here")
def test_a_qemu_unpacked_into_the_cache_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nothing at all were installed: libraries and loader are QEMU's own then, the hardest case."""
    monkeypatch.setenv(cache.ENVIRONMENT, str(tmp_path))
    nothing = tmp_path / "status"
    nothing.touch()
    found = qemu.install_qemu(print, as_root=False, installed=nothing)
    monkeypatch.setenv("PATH", "/nowhere")
    assert qemu.find_qemu() == found
    argv = [str(found), "-M", "q35", "-accel", "tcg", "-nodefaults", "-display", "none", "-serial", "none", "-S"]
    argv += ["-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n", "-qmp", "stdio"]
    talk = b'{"execute": "qmp_capabilities"}{"execute": "query-status"}{"execute": "quit"}'
    done = subprocess.run(argv, input=talk, capture_output=True, timeout=60, check=False, env={"PATH": "/bin:/usr/bin"})
    assert done.returncode == 0, done.stderr
    assert b'"status": "prelaunch"' in done.stdout
