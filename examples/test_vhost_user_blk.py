"""qemu-storage-daemon: a disk that a vhost-user daemon serves, and its rings while they run. Copy it into your daemon's
repository, with ``VhostUserBlk(backend=Daemon([...]))`` in its place."""

from __future__ import annotations

import pytest

from pytest_virtio import Stuck, VhostUserBlk, Virtio


@pytest.mark.virtio(VhostUserBlk(size="16M"))
def test_data_survives(virtio: Virtio) -> None:
    disk = virtio.guest.driver("vublk0")
    disk.write(4096, b"\xaa" * 512)
    disk.flush()
    assert disk.read(4096, 512) == b"\xaa" * 512


@pytest.mark.virtio(VhostUserBlk(wire=True))
def test_negotiation(virtio: Virtio) -> None:
    disk = virtio["vublk0"]
    disk.assert_backend_offered("VIRTIO_BLK_F_FLUSH", "VIRTIO_BLK_F_DISCARD")
    disk.assert_protocol_features("MQ", "CONFIG", "REPLY_ACK")
    disk.assert_conforms()


@pytest.mark.virtio(VhostUserBlk(num_queues=2))
def test_the_daemon_serves_both_queues(virtio: Virtio) -> None:
    virtio["vublk0"].assert_negotiated("VIRTIO_BLK_F_MQ")
    disk = virtio.guest.driver("vublk0")
    for queue in (0, 1, 1):
        disk.read(0, 512, queue=queue)
    # QEMU's own query would stop these rings; the answer comes from guest RAM.
    assert [queue.status().used_idx for queue in virtio["vublk0"].queues] == [1, 2]
    assert virtio["vublk0"].status().vhost_started


@pytest.mark.virtio(VhostUserBlk())
def test_what_the_device_itself_counts(virtio: Virtio) -> None:
    virtio.guest.driver("vublk0").read(0, 512)
    # By its name, for it stops the VM for a moment; it refuses while a request is in flight.
    assert virtio["vublk0"].queue(0).stopped_status().last_avail_idx == 1


@pytest.mark.virtio(VhostUserBlk(reconnect=1))
def test_a_request_outlives_the_daemon(virtio: Virtio) -> None:
    disk, backend = virtio.guest.driver("vublk0"), virtio["vublk0"].backend
    backend.stop()
    write = disk.submit(1, 0, b"\xaa" * 512)
    assert virtio["vublk0"].queue(0).verdict().stuck is Stuck.BACKEND_STOPPED
    backend.restart()
    disk.finish(write)
    assert disk.read(0, 512) == b"\xaa" * 512
