"""status: what is there and what is missing is found without starting anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_virtio.provision import cache, status
from pytest_virtio.provision.linux import LinuxImage


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
