"""dpdk-testpmd is installed where that can be, and its absence stops nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_virtio.provision.backends import install_backends

from .conftest import tool

INSTALL = "install -q -y --no-install-recommends dpdk-dev librte-net-vhost[0-9]*"


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory in PATH, with apt's tools, of which apt-get installs nothing yet."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("apt-get", "apt-cache", "dpkg-deb"):
        tool(tmp_path, name, "")
    return tmp_path


def log(tools: Path) -> list[str]:
    return (tools / "log").read_text().splitlines() if (tools / "log").exists() else []


def test_root_has_it_installed(tools: Path) -> None:
    program = tools / "dpdk-testpmd"
    tool(tools, "apt-get", f"[ $1 = update ] || {{ : >{program}; /bin/chmod +x {program}; }}")
    said: list[str] = []
    install_backends(said.append, as_root=True)
    assert log(tools) == ["apt-get update -q", f"apt-get {INSTALL}"]
    assert said == ["apt-get install dpdk-dev librte-net-vhost[0-9]*"]
    install_backends(said.append, as_root=True)
    assert len(log(tools)) == 2, "it is there"


def test_where_it_can_not_be_had_one_line_says_so(tools: Path) -> None:
    said: list[str] = []
    install_backends(said.append, as_root=False)
    assert log(tools) == []
    tool(tools, "apt-get", "echo no network >&2; exit 100")
    install_backends(said.append, as_root=True)
    (tools / "apt-get").unlink()
    install_backends(said.append, as_root=True)
    starts = [line[:60] for line in said if line.startswith("dpdk-testpmd ")]
    assert starts == ["dpdk-testpmd can't be had, so that tests of it are skipped: "] * 3
    assert "it takes root and apt-get: apt-get install dpdk-dev librte-net-vhost23" in said[0]
    assert "no network" in said[2]
