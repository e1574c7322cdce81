"""status: what is there and what is missing is found without starting anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_virtio.provision import cache, releases, status
from pytest_virtio.provision.linux import LinuxImage
from pytest_virtio.provision.releases import QemuRelease


def test_on_a_bare_machine_each_finding_has_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.ENVIRONMENT, str(tmp_path / "a" / "b"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(status, "_KVM", tmp_path / "kvm")
    found = {finding.what: finding for finding in status.inspect()}
    assert [what for what, finding in found.items() if finding.ok] == ["cache"]
    assert "--virtio-qemu" in found["QEMU"].remedy
    assert "pytest-virtio image build linux" in found["Linux guest"].remedy
    assert "TCG" in found["KVM"].detail
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_named(image: LinuxImage) -> None:
    found = {finding.what: finding for finding in status.inspect()}
    assert found["Linux guest"].ok
    assert image.version in found["Linux guest"].detail
    assert found["busybox"].ok


def test_a_release_is_shown_with_its_exact_version_once_it_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = QemuRelease(tmp_path / "q", "1:10.0.2+ds-2", {})
    monkeypatch.setattr(releases, "find_release", {"qemu-10.0": built}.get)
    found = [finding for finding in status.inspect() if finding.what.startswith("--virtio-qemu")]
    assert [(finding.what, finding.ok) for finding in found] == [("--virtio-qemu=qemu-10.0", True)]
    assert found[0].detail == f"Debian's 1:10.0.2+ds-2: {tmp_path}/q"
