"""How a daemon and QEMU come together, with real ones: by a socket that it inherits, makes or connects to."""

from __future__ import annotations

import shutil

import pytest

from pytest_virtio import Daemon, UsageError, VhostUserBlk, VhostUserNet, VirtioFactory

pytestmark = pytest.mark.qemu

DISK = ("--blockdev", "null-co,node-name=d,size=1048576,read-zeroes=on", "--export")
EXPORT = "vhost-user-blk,id=e,node-name=d,writable=on"
TESTPMD = ("--no-huge", "-m", "128", "--no-shconf", "--no-pci", "--no-telemetry", "-l", "0,1")
PORT = ("--", "--forward-mode=icmpecho", "--auto-start", "--total-num-mbufs=4096", "--no-lsc-interrupt")


@pytest.mark.parametrize("where", ["addr.type=fd,addr.str={fd}", "addr.type=unix,addr.path={socket}"])
@pytest.mark.parametrize("reconnect", [None, 1])
def test_one_that_listens(virtio_factory: VirtioFactory, where: str, reconnect: float | None) -> None:
    daemon = Daemon(["qemu-storage-daemon", *DISK, f"{EXPORT},{where}"])
    with virtio_factory(VhostUserBlk(backend=daemon, reconnect=reconnect)) as virtio:
        driver = virtio.guest.driver("vublk0")
        assert driver.read(0, 512) == bytes(512)
        if reconnect is None:
            with pytest.raises(UsageError, match="Declare it with reconnect=1"):
                virtio["vublk0"].backend.restart()
        else:
            before = virtio["vublk0"].backend.pid
            virtio["vublk0"].backend.restart()
            assert virtio["vublk0"].backend.pid != before
        assert driver.read(0, 512) == bytes(512)


@pytest.mark.skipif(shutil.which("dpdk-testpmd") is None, reason="dpdk-testpmd is not installed")
def test_one_that_connects_to_us(virtio_factory: VirtioFactory) -> None:
    port = "--vdev=net_vhost0,iface={socket},queues=1,client=1"
    daemon = Daemon(["dpdk-testpmd", *TESTPMD, port, *PORT], connects=True)
    # QEMU 7.2 dies of MSI-X here (SIGSEGV at DRIVER_OK, under TCG).
    with virtio_factory(VhostUserNet(backend=daemon, vectors=0, reconnect=1)) as virtio:
        card = virtio["vunet0"]
        assert card.status().vhost_started
        card.backend.restart()
        assert card.status().vhost_started
        assert card.wire.told.queues[0].started
