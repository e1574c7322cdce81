"""packages and apt: apt is asked in the cache only, and what a machine without it should do is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_virtio.errors import MissingError
from pytest_virtio.provision import cache, linux, packages, qemu

from .conftest import tool


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
