"""VMs that run already, ours and others': what is told of them is right, and nothing is disturbed by the telling."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_virtio import Blk, BlkDriver, Net, Rng, Scripted, UnknownNameError, VhostUserBlk, Virtio
from pytest_virtio.errors import MonitorError, MonitorTimeoutError, VirtioError
from pytest_virtio.handle import dump
from pytest_virtio.handle.attached import look
from pytest_virtio.launch import attached
from pytest_virtio.model.findings import Findings
from pytest_virtio.model.status import VirtioStatus
from pytest_virtio.vm.attached import AttachedQemu
from pytest_virtio.vm.deadline import Deadline
from tests.launch.conftest import ByHand, Monitored

pytestmark = pytest.mark.qemu

SECTOR = 512
SIZE = 8 << 20
ANONYMOUS = ("-device", "virtio-net-pci,netdev=n")


def of(virtio: Virtio, id: str | None = None) -> dict[str, str]:
    """The report by the second monitor, by title."""
    assert virtio.vm.monitor is not None
    return texts(look(virtio.vm.monitor, id, 30))


def texts(findings: Findings) -> dict[str, str]:
    return {section.title.removeprefix("virtio: "): section.text for section in dump.told(findings)}


@contextmanager
def informing(virtio: Virtio) -> Iterator[list[dict[str, str]]]:
    """Somebody asks all the time."""
    said: list[dict[str, str]] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            said.append(of(virtio))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield said
    finally:
        done.set()
        asking.join()


@pytest.mark.parametrize("packed", ["on", "off"])
@pytest.mark.parametrize("transport", ["pci-transitional", "mmio"])
def test_a_vm_of_ours_is_as_it_was(monitored: Monitored, transport: str, packed: str) -> None:
    with monitored(Net(), Blk(size=SIZE, packed=packed), guest=Scripted(), transport=transport) as virtio:
        before = told(virtio)
        blk = virtio.guest.driver("blk0", BlkDriver)
        with informing(virtio) as said:
            work(blk, said)
        assert told(virtio) == before
        assert said[-1].keys() == {"verdict", "net0", "blk0"}
        for each in said:
            assert "blk0: DRIVER_OK" in each["verdict"]
            assert "bug of pytest-virtio" not in "".join(each.values())
            assert "NEEDS_RESET" not in "".join(each.values())


def told(virtio: Virtio) -> list[VirtioStatus]:
    """All but the interrupt status, which I/O sets."""
    return [replace(device.status(), isr=None) for device in virtio]


def work(blk: BlkDriver, said: list[dict[str, str]]) -> None:
    """I/O while somebody asks: what is read is what was written."""
    written: dict[int, bytes] = {}
    while len(said) < 5 or len(written) < 50:
        offset = len(written) * SECTOR
        written[offset] = os.urandom(SECTOR)
        blk.write(offset, written[offset])
        assert blk.read(offset, SECTOR) == written[offset]
    assert all(blk.read(offset, SECTOR) == data for offset, data in written.items())


def test_rings_that_a_backend_serves_move_on(monitored: Monitored) -> None:
    """The plain query would stop them."""
    with monitored(VhostUserBlk(size=SIZE)) as virtio:
        driver = virtio.guest.driver("vublk0", BlkDriver)
        with informing(virtio) as said:
            work(driver, said)
        queue = virtio["vublk0"].queue(0).status()
        completed = driver.queues[0].completed & 0xFFFF
        assert (queue.used_idx, queue.shadow_avail_idx) == (completed, completed)
        last = of(virtio)["vublk0"]
        assert "vhost_started:           true" in last
        if "registers by the monitor" in last:
            # 11.1 does not tell what the driver acknowledged.
            assert "not read: whether it is split or packed is not told" in last
            return
        assert f"used_idx:             {completed}\n" in last
        assert "source: guest RAM by /proc/PID/mem, addresses by x-query-virtio-vhost-queue-status" in last


def test_a_backend_that_is_not_read_of_without_ram(monitored: Monitored, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who may not read QEMU's memory is told so; whoever listens in QEMU's place is not taken for it."""
    monkeypatch.setattr("pytest_virtio.vm.attached._program", lambda pid: "/usr/sbin/libvirtd")
    with monitored(VhostUserBlk(size=SIZE)) as virtio:
        work(virtio.guest.driver("vublk0", BlkDriver), [{}] * 5)
        said = of(virtio)
        untold = (
            "not told: what lies in rings, for guest RAM can't be read: which process is QEMU's is not known: process"
        )
        assert f"{untold} {virtio.vm.pid}, which listens at the socket, is /usr/sbin/libvirtd" in said["verdict"]
        assert "desc:         0x0" in said["vublk0"]
        assert "used_idx" not in said["vublk0"]


@pytest.mark.guest
@pytest.mark.parametrize("transport", ["pci", "pci-transitional"])
def test_linux(monitored: Monitored, transport: str) -> None:
    with monitored(Net(), Blk(size=SIZE), guest="linux", transport=transport, timeout=120) as virtio:
        assert virtio.vm.monitor is not None
        checksum = "dd if=/dev/vda bs=64k count=64 iflag=direct 2>/dev/null | md5sum"
        virtio.guest.run("dd if=/dev/urandom of=/dev/vda bs=64k count=64 oflag=direct; ip link set eth0 up")
        first = virtio.guest.run(checksum).output
        with informing(virtio) as said:
            for _ in range(4):
                assert virtio.guest.run(checksum).output == first
        assert said
        with attached(virtio.vm.monitor, Deadline.after(20)) as vm:
            for id in ("net0", "blk0"):
                seen, told = vm.introspector.status(vm.paths[id], 10), virtio[id].status()
                assert seen.status == told.status
                if not seen.guest_features.untold:
                    assert seen.guest_features == told.guest_features
                assert bool(seen.guest_features.untold) == (transport == "pci" and "registers" in seen.source)
                queues = vm.introspector.queue_statuses({vm.paths[id]: seen}, {vm.paths[id]: [0]}, 10)
                assert queues == virtio._running.introspector.queue_statuses(
                    {virtio[id].path: told}, {virtio[id].path: [0]}, 10
                )


def test_one_device_and_wrong_ones(monitored: Monitored) -> None:
    with monitored(Rng(), Blk()) as virtio:
        assert of(virtio, "rng0").keys() == {"verdict", "rng0"}
        with pytest.raises(UnknownNameError, match=r"unknown virtio device: 'rng1'\. Did you mean 'rng0'"):
            of(virtio, "rng1")


def test_the_verdict_names_who_owes_something(monitored: Monitored) -> None:
    with monitored(Rng(), Blk()) as virtio:
        queue = virtio.guest.driver("rng0").queue(0)
        queue.submit(writable=[64])
        queue.kick()
        virtio.vm.stop()
        queue.submit(writable=[64])
        queue.kick()
        said = of(virtio)
        assert "the VM stands still: paused" in said["verdict"]
        assert "rng0: DRIVER_OK: the driver finished its set-up; the VM is paused" in said["verdict"]
        assert "queue 0, request:" in said["rng0"]


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_a_qemu_that_somebody_has_started(by_hand: ByHand, machine: str) -> None:
    """Its firmware has left the disk at DRIVER_OK; what is unplugged, anonymous or behind a bridge is told of too."""
    disk = ("-blockdev", "null-co,node-name=d,read-zeroes=on", "-device", "virtio-blk-pci,drive=d,id=disk")
    nic = ("-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n")
    with by_hand(*disk, *nic, "-device", "virtio-rng-pci,id=rng", machine=machine) as path:
        said = until(path, "disk: DRIVER_OK")
        assert "VIRTIO_BLK_F_SEG_MAX" in said["disk"].partition("Host features")[0]
        assert "queue_index:          0" in said["disk"]
        assert any("peripheral-anon/device" in title for title in said)
        assert f"QEMU {version(path)}" in said["verdict"]


def until(path: Path, text: str) -> dict[str, str]:
    """The report as soon as its verdict says so."""
    deadline = Deadline.after(60)
    while text not in (said := texts(look(path, None, 30)))["verdict"]:
        assert not deadline.passed(), said["verdict"]
        time.sleep(0.05)
    return said


def version(path: Path) -> str:
    with attached(path, Deadline.after(20)) as vm:
        return vm.version


def test_without_virtio_devices(by_hand: ByHand) -> None:
    with by_hand() as path:
        (section,) = dump.told(look(path))
        assert section.text.startswith("no virtio device\nQEMU ")
        with pytest.raises(UnknownNameError, match="This VM has none"):
            look(path, "net0")


def test_a_card_whose_backend_nobody_tells_is_left_alone(by_hand: ByHand) -> None:
    """A hub may have anything behind it."""
    hub = ("-netdev", "hubport,id=h,hubid=0", "-device", "virtio-net-pci,netdev=h,id=net")
    with by_hand(*hub) as path:
        # Firmware gives the card its addresses.
        deadline = Deadline.after(60)
        while "num_vqs" not in (said := texts(look(path, "net")))["net"]:
            assert not deadline.passed()
        assert "whether its vhost backend" in said["net"] or "its vhost backend may start at any moment" in said["net"]


@pytest.mark.parametrize("card", [("-nic", "user,model=virtio-net-pci"), ("-netdev", "user,id=n", *ANONYMOUS)])
def test_a_card_without_an_id_has_no_vhost_backend(by_hand: ByHand, card: tuple[str, ...]) -> None:
    with by_hand(*card) as path:
        deadline = Deadline.after(60)
        while not (found := [device for device in look(path).devices.values() if device.queues]):
            assert not deadline.passed()
        assert [queue.no_answer for queue in found[0].queues if queue.no_answer] == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_backend_that_has_gone_is_told_of(monitored: Monitored, how: signal.Signals) -> None:
    with monitored(VhostUserBlk(size=SIZE), Rng()) as virtio:
        unknown = "not told: whether the vhost backend of vublk0 answers: from outside a stopped one looks like"
        assert unknown in of(virtio)["verdict"]
        os.kill(virtio["vublk0"].backend.pid, how)
        gone = "vublk0: its vhost backend is not started: it has gone, or was never there\n"
        if how == signal.SIGSTOP:
            assert unknown in of(virtio)["verdict"]
        elif "registers by the monitor" not in of(virtio)["vublk0"]:
            deadline = Deadline.after(20)
            while gone not in (said := of(virtio)["verdict"]):
                assert not deadline.passed(), said
            assert unknown not in said


def test_a_main_loop_that_is_blocked(by_hand: ByHand, tmp_path: Path) -> None:
    """By a backend that says nothing while its device is plugged in."""
    with socket.socket(socket.AF_UNIX) as backend:
        backend.bind(str(tmp_path / "v"))
        backend.listen(1)
        other = ("-chardev", f"socket,id=o,path={tmp_path}/o,server=on,wait=off", "-mon", "chardev=o,mode=control")
        with (
            by_hand("-S", "-chardev", f"socket,id=v,path={tmp_path}/v", *other, machine="pc") as path,
            AttachedQemu.connect(path, Deadline.after(20)) as first,
        ):
            with pytest.raises(MonitorTimeoutError):
                first.execute("device_add", {"driver": "vhost-user-blk-pci", "chardev": "v"}, 1)
            with pytest.raises(MonitorError, match=r"it greeted, and does not answer .* its main loop is blocked"):
                look(tmp_path / "o", None, 1)


def test_the_monitor_is_left_as_it_was_found(monitored: Monitored) -> None:
    with monitored(Rng()) as virtio:
        for _ in range(3):
            assert "rng0: DRIVER_OK" in of(virtio)["verdict"]
        assert virtio.vm.monitor is not None
        with AttachedQemu.connect(virtio.vm.monitor, Deadline.after(20)) as first:
            with pytest.raises(MonitorError, match=r"no QMP greeting within 0.3 s: another client is connected"):
                look(virtio.vm.monitor, None, 0.3)
            assert first.execute("query-name") is not None
        assert "rng0: DRIVER_OK" in of(virtio)["verdict"]


def test_a_qemu_that_is_stopped_or_dies(monitored: Monitored) -> None:
    with monitored(Rng()) as virtio:
        assert virtio.vm.monitor is not None
        os.kill(virtio.vm.pid, signal.SIGSTOP)
        with pytest.raises(MonitorError, match=rf"process {virtio.vm.pid} is stopped by a signal"):
            look(virtio.vm.monitor, None, 0.3)
        os.kill(virtio.vm.pid, signal.SIGCONT)
        with AttachedQemu.connect(virtio.vm.monitor, Deadline.after(20)) as qemu:
            os.kill(virtio.vm.pid, signal.SIGKILL)
            assert virtio._running.qemu.child.wait(Deadline.after(20))
            assert not virtio.vm.running
            with pytest.raises(VirtioError):
                qemu.execute("query-name")
        with pytest.raises(MonitorError, match="nobody listens there"):
            look(virtio.vm.monitor)
