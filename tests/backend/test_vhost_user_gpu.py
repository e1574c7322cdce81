"""vhost-user-gpu of QEMU's own packages (Debian: qemu-system-gui) behind ``VhostUserGpu``: what is drawn is shown, and
what becomes of it. Skipped where it is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_virtio import (
    Daemon,
    QemuExitedError,
    Stuck,
    VhostUserGpu,
    Virtio,
    VirtioAssertionError,
    VirtioFactory,
)
from pytest_virtio.backend.programs import found
from pytest_virtio.guest.scripted.drivers.gpu import GpuDriver
from pytest_virtio.spec.devices.gpu import GpuRect
from pytest_virtio.vm.deadline import Deadline

from .real import is_7_2

PROGRAM = found("vhost-user-gpu", [Path("/usr/lib/qemu/vhost-user-gpu"), Path("/usr/libexec/vhost-user-gpu")])
pytestmark = [pytest.mark.qemu, pytest.mark.skipif(PROGRAM is None, reason="vhost-user-gpu is not installed")]

ID = "vugpu0"
# Its --fd is a connection, not a socket that listens.
DAEMON = Daemon([str(PROGRAM), "--socket-path={socket}"])
WIDTH, HEIGHT = 32, 16
WHOLE = GpuRect(0, 0, WIDTH, HEIGHT)
PICTURE = bytes(value for y in range(HEIGHT) for x in range(WIDTH) for value in (x * 8, 255 - y * 16, (x + y) * 5))
"""Red, green and blue of each pixel, as PPM has them."""
IN_RAM = bytes(byte for at in range(0, len(PICTURE), 3) for byte in (*PICTURE[at : at + 3][::-1], 0xFF))


@pytest.fixture
def wants_kvm(program: Path, pytestconfig: pytest.Config) -> bool:
    """Whether this QEMU does and does not have it."""
    return is_7_2(program) and pytestconfig.getoption("virtio_accel") != "kvm"


@pytest.fixture
def runs(wants_kvm: bool) -> None:
    if wants_kvm:
        pytest.skip("QEMU 7.2 has vhost-user-gpu under KVM only: --virtio-accel=kvm")


def screen(virtio: Virtio, path: Path) -> bytes:
    virtio.vm.qmp("screendump", {"filename": str(path), "device": ID, "head": 0})
    return path.read_bytes()


@pytest.mark.usefixtures("runs")
def test_what_is_drawn_is_shown(virtio_factory: VirtioFactory, tmp_path: Path) -> None:
    with virtio_factory(VhostUserGpu(DAEMON)) as virtio:
        driver = virtio.guest.driver(ID, GpuDriver)
        address = driver.allocate(len(IN_RAM))
        driver.memory.write(address, IN_RAM)
        driver.resource_create_2d(1, WIDTH, HEIGHT)
        driver.attach_backing(1, [(address, len(IN_RAM))])
        driver.set_scanout(0, 1, WHOLE)
        driver.transfer_to_host_2d(1, WHOLE)
        driver.resource_flush(1, WHOLE)
        # The daemon tells QEMU on a connection of their own, and QEMU answers nothing there.
        deadline, expected = Deadline.after(20), b"P6\n%d %d\n255\n" % (WIDTH, HEIGHT) + PICTURE
        while screen(virtio, tmp_path / "screen.ppm") != expected:
            assert not deadline.passed(), "it is not shown"


@pytest.mark.usefixtures("runs")
def test_what_it_offers_and_is_told(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(VhostUserGpu(DAEMON, wire=True)) as virtio:
        device = virtio[ID]
        # EDID (bit 1) from QEMU 10.0's on.
        assert device.backend.features.bits | 2 == 0x175000002
        assert device.wire.messages("GPU_SET_SOCKET")
        with pytest.raises(VirtioAssertionError, match="not offered by it: VIRTIO_F_RING_RESET "):
            device.assert_conforms()


@pytest.mark.usefixtures("runs")
def test_without_ring_reset_it_conforms(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(VhostUserGpu(DAEMON, queue_reset=False)) as virtio:
        virtio[ID].assert_conforms()


@pytest.mark.usefixtures("runs")
def test_killed_and_stopped(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(VhostUserGpu(DAEMON)) as virtio:
        backend, queue = virtio[ID].backend, virtio[ID].queue(0)
        backend.stop()
        assert queue.verdict().stuck is Stuck.BACKEND_STOPPED
        backend.cont()
        virtio.guest.driver(ID, GpuDriver).resource_create_2d(1, WIDTH, HEIGHT)
        backend.kill()
        assert queue.verdict().stuck is Stuck.BACKEND_ENDED


def test_7_2_wants_kvm(virtio_factory: VirtioFactory, wants_kvm: bool) -> None:
    if not wants_kvm:
        pytest.skip("this one goes without, or has it")
    with pytest.raises(QemuExitedError, match="requires kvm"), virtio_factory(VhostUserGpu(DAEMON)):
        pass
