"""virtiofsd: a directory of the host in a Linux guest. Copy it into your daemon's repository, with
``VhostUserFs(backend=Daemon([...]))`` in place of the installed virtiofsd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_virtio import Stuck, VhostUserFs, Virtio, VirtioFactory


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("shared")
    (directory / "hello").write_bytes(b"from the host\n")
    return directory


@pytest.fixture(scope="module")
def linux(virtio_factory: VirtioFactory, shared: Path) -> Iterator[Virtio]:
    """A Linux guest that has mounted it; a boot takes seconds, so the tests share one."""
    with virtio_factory(VhostUserFs(shared, tag="share", wire=True), guest="linux") as virtio:
        assert virtio.guest.run("mkdir /mnt && mount -t virtiofs share /mnt").exit_status == 0
        yield virtio


def test_negotiation(linux: Virtio) -> None:
    fs = linux["vufs0"]
    fs.assert_backend_offered("VIRTIO_F_VERSION_1", "VIRTIO_RING_F_INDIRECT_DESC")
    fs.assert_protocol_features("MQ", "REPLY_ACK")
    fs.assert_conforms()


def test_files_both_ways(linux: Virtio, shared: Path) -> None:
    with linux["vufs0"].queue("request0").assert_progress(at_least=2):
        assert linux.guest.run("cat /mnt/hello").output == b"from the host\n"
        assert linux.guest.run("echo from the guest > /mnt/answer").exit_status == 0
    assert (shared / "answer").read_bytes() == b"from the guest\n"


def test_nothing_moves_by_itself(linux: Virtio) -> None:
    linux["vufs0"].queue("request0").assert_idle()


@pytest.mark.virtio(VhostUserFs())
def test_a_crash_shows_though_qemu_does_not_notice(virtio: Virtio) -> None:
    fs = virtio["vufs0"]
    fs.backend.kill()
    assert fs.status().vhost_started
    assert fs.queue("request0").verdict().stuck is Stuck.BACKEND_ENDED
