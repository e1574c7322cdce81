"""Real vhost-user daemons with the scripted driver: data through each, what it and QEMU agreed on, and what becomes of
that when it is killed, stopped or started anew. Those that are not installed are skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from pytest_virtio import (
    BlkDriver,
    CommandError,
    NetDriver,
    QemuExitedError,
    RequestTimeoutError,
    Stuck,
    UsageError,
    VhostUserBlk,
    VhostUserFs,
    VhostUserNet,
    VhostUserVsock,
    Virtio,
    VirtioAssertionError,
    VirtioDevice,
    VirtioFactory,
)
from pytest_virtio.vm.deadline import Deadline

from .real import BLK, FS, NET, VSOCK, Daemon, installed, is_7_2, net, vsock

pytestmark = pytest.mark.qemu


def only_where_installed(daemon: Daemon) -> Any:
    missing = pytest.mark.skipif(not installed(daemon), reason=f"{daemon.program} is not installed")
    return pytest.param(daemon, id=daemon.program, marks=missing)


each = pytest.mark.parametrize("daemon", [only_where_installed(daemon) for daemon in (BLK, FS, NET, VSOCK)])
noticed = pytest.mark.parametrize("daemon", [only_where_installed(daemon) for daemon in (BLK, NET)])
unnoticed = pytest.mark.parametrize("daemon", [only_where_installed(daemon) for daemon in (FS, VSOCK)])
only_testpmd = pytest.mark.skipif(not installed(NET), reason="dpdk-testpmd is not installed")

Serve = Callable[..., AbstractContextManager[tuple[Virtio, VirtioDevice]]]


@pytest.fixture
def serve(virtio_factory: VirtioFactory, program: Path) -> Serve:
    """Boots a VM with a daemon, for a ``with`` statement."""

    @contextmanager
    def boot(daemon: Daemon, *, wire: bool = True, **more: Any) -> Iterator[tuple[Virtio, VirtioDevice]]:
        if daemon is NET and is_7_2(program):
            # With MSI-X under TCG it ends by SIGSEGV at DRIVER_OK.
            more["vectors"] = 0
        with virtio_factory(daemon.declare(wire=wire, **more)) as virtio:
            yield virtio, virtio[daemon.id]

    return boot


@only_testpmd
def test_a_card_that_7_2_does_not_survive(virtio_factory: VirtioFactory, program: Path) -> None:
    if not is_7_2(program):
        pytest.skip("a later QEMU survives it")
    with pytest.raises(QemuExitedError) as caught, virtio_factory(VhostUserNet()):
        pass
    first, *_, last = str(caught.value).splitlines()
    assert first.startswith("QEMU ended (killed by SIGSEGV) during vunet0: driver_ok")
    assert last.endswith(" with MSI-X under TCG: declare vunet0 with vectors=0")


def fails(daemon: Daemon, virtio: Virtio) -> bool:
    """Whether nobody answers."""
    try:
        daemon.round_trip(virtio, timeout=0.3)
    except RequestTimeoutError:
        return True
    return False


# Served.


@each
@pytest.mark.parametrize("wire", [True, False])
def test_round_trip(serve: Serve, daemon: Daemon, wire: bool) -> None:
    with serve(daemon, wire=wire) as (virtio, device):
        with device.queue(daemon.queue).assert_progress(at_least=1):
            daemon.round_trip(virtio)
        daemon.round_trip(virtio)
        device.assert_driver_ok()
        assert device.status().vhost_started
        assert device.backend.state == "running"


@each
def test_what_it_offers_and_what_was_agreed_on(serve: Serve, daemon: Daemon) -> None:
    with serve(daemon) as (_, device):
        device.assert_backend_offered("VIRTIO_F_VERSION_1", *daemon.offers)
        device.assert_protocol_features(*daemon.protocol)
        with pytest.raises(VirtioAssertionError, match="VIRTIO_F_SR_IOV not offered by the vhost backend"):
            device.assert_backend_offered("VIRTIO_F_SR_IOV")
        with pytest.raises(VirtioAssertionError, match="VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD not agreed on"):
            device.assert_protocol_features("INFLIGHT_SHMFD")


@each
def test_only_what_is_offered_is_acknowledged(serve: Serve, daemon: Daemon) -> None:
    """By QEMU's word, or the wire's on 11.1, and by the wire's alone."""
    with serve(daemon) as (_, device):
        status, wire = device.status(), device.wire
        assert status.vhost_dev is not None
        assert status.vhost_dev.acked_features is not None
        assert status.vhost_dev.acked_features <= status.vhost_dev.features
        assert wire.acked_features <= wire.features
        assert wire.features == device.backend.features
        assert status.guest_features <= status.host_features


@pytest.mark.parametrize("daemon", [only_where_installed(daemon) for daemon in (BLK, FS, VSOCK)])
def test_it_conforms(serve: Serve, daemon: Daemon) -> None:
    with serve(daemon) as (virtio, device):
        daemon.round_trip(virtio)
        device.assert_conforms()


@each
def test_its_queues(serve: Serve, daemon: Daemon) -> None:
    """QEMU's word on each queue that is the daemon's is what the daemon was told of it."""
    with serve(daemon) as (_, device):
        for index, told in device.wire.told.queues.items():
            status = device.queue(index).vhost_status()
            assert (status.num, status.desc_phys) == (told.num, device.wire.told.guest_address(told.descriptor or 0))


def test_the_event_queue_of_a_socket_device_is_qemus(serve: Serve) -> None:
    if not installed(VSOCK):
        pytest.skip("vhost-device-vsock is not installed")
    with serve(VSOCK, wire=False) as (virtio, device):
        assert device.queue("event").status().source == "x-query-virtio-queue-status"
        vsock(virtio)


# A network card's own.


@only_testpmd
def test_testpmd_offers_what_requires_more(serve: Serve) -> None:
    """DPDK 22.11 drops HOST_TSO4 and HOST_TSO6 from what it offers, for its ``tso`` is off, and forgets HOST_ECN."""
    with serve(NET) as (_, device), pytest.raises(VirtioAssertionError, match="HOST_ECN offered without"):
        device.assert_conforms()
    with serve(NET, host_ecn=False) as (virtio, device):
        net(virtio)
        device.assert_conforms()


@only_testpmd
@pytest.mark.parametrize("packed", [False, True])
def test_two_pairs_of_queues(serve: Serve, packed: bool) -> None:
    with serve(NET, queue_pairs=2, packed=packed) as (virtio, device):
        driver = virtio.guest.driver("vunet0", NetDriver)
        driver.set_queue_pairs(2)
        assert ("VIRTIO_F_RING_PACKED" in device.status().guest_features) is packed
        for pair in (0, 1):
            with device.queue(f"tx{pair}").assert_progress(1, 1), device.queue(f"rx{pair}").assert_progress(1, 1):
                net(virtio, pair=pair)


@only_testpmd
def test_a_packed_ring(serve: Serve) -> None:
    """Gone around more than twice."""
    with serve(NET, packed=True) as (virtio, device):
        virtio.guest.driver("vunet0", NetDriver).initialise(sizes=32)
        for _ in range(70):
            net(virtio)
        tx = device.queue("tx0")
        tx.assert_idle()
        with tx.assert_progress(5, 5):
            for _ in range(5):
                net(virtio)
        with pytest.raises(VirtioAssertionError, match="no progress"), tx.assert_progress(timeout=0.1):
            pass


# What asking the plain way does (the hazards of vhost devices).


def ask_plainly(virtio: Virtio, what: str, id: str, queue: int) -> None:
    """As somebody would who does not know: ``x-query-virtio-`` and what."""
    virtio.vm.qmp(f"x-query-virtio-{what}", {"path": virtio[id].path, "queue": queue})


@each
def test_asking_plainly_for_a_queue_stops_its_ring(serve: Serve, daemon: Daemon) -> None:
    """QEMU sends GET_VRING_BASE for the answer, after which the daemon serves the ring no more; ours sends nothing."""
    with serve(daemon) as (virtio, device):
        wire, queue = device.wire, device.queue(daemon.queue)
        for _ in range(3):
            assert "x-query-virtio-queue-status" not in queue.status().source
            virtio.dump()
            daemon.round_trip(virtio)
        assert wire.messages("GET_VRING_BASE") == ()

        ask_plainly(virtio, "queue-status", daemon.id, queue.index)
        assert wire.messages("GET_VRING_BASE", reply=False)[0].fields["index"] == queue.index
        assert fails(daemon, virtio)


@only_testpmd
def test_asking_plainly_beyond_the_first_pair(serve: Serve) -> None:
    """QEMU looks at the first pair's vhost device only; the wire knows all."""
    with serve(NET, queue_pairs=2) as (virtio, device):
        for queue in (2, 3):
            with pytest.raises(CommandError, match="Invalid vhost virtqueue number"):
                ask_plainly(virtio, "vhost-queue-status", NET.id, queue)
            status = device.queue(queue).vhost_status()
            assert (status.source, status.num) == ("the wire", 256)
        net(virtio)


# Killed, stopped, started anew.


def await_unserved(device: VirtioDevice) -> None:
    """QEMU notices when its main loop comes to it."""
    deadline = Deadline.after(10)
    while device.status().vhost_started:
        assert not deadline.passed()


@each
def test_killed(serve: Serve, daemon: Daemon, ended: Callable[[int], bool]) -> None:
    with serve(daemon) as (virtio, device):
        daemon.round_trip(virtio)
        pid, qemu = device.backend.pid, virtio.vm.pid
        device.backend.kill()
        assert ended(pid)
        assert device.backend.state == "ended"
        if daemon.notices:
            await_unserved(device)
        assert fails(daemon, virtio)
        assert device.queue(daemon.queue).verdict().stuck is Stuck.BACKEND_ENDED
        assert device.status().driver_ok
        assert device.status().vhost_started is not daemon.notices
        assert f"{daemon.program}: killed by SIGKILL" in virtio.dump()
    assert ended(qemu)


@each
def test_stopped_and_continued(serve: Serve, daemon: Daemon) -> None:
    with serve(daemon) as (virtio, device):
        daemon.round_trip(virtio)
        device.backend.stop()
        assert device.backend.state == "stopped"
        assert fails(daemon, virtio)
        assert device.queue(daemon.queue).verdict().stuck is Stuck.BACKEND_STOPPED
        assert device.status().vhost_started
        device.backend.cont()
        assert "running" in repr(device.backend)
        daemon.round_trip(virtio)


@each
def test_a_vm_ends_while_its_daemon_stands_still(serve: Serve, daemon: Daemon, ended: Callable[[int], bool]) -> None:
    with serve(daemon) as (virtio, device):
        pids = device.backend.pid, virtio.vm.pid
        device.backend.stop()
    assert all(map(ended, pids))


@noticed
def test_started_anew(serve: Serve, daemon: Daemon, ended: Callable[[int], bool]) -> None:
    with serve(daemon, reconnect=1) as (virtio, device):
        daemon.round_trip(virtio)
        before = device.backend.pid
        device.backend.restart()
        assert ended(before)
        assert device.backend.pid != before
        for _ in range(3):
            daemon.round_trip(virtio)
        await_served(device)
        assert not device.wire.ended
        assert device.queue(daemon.queue).verdict().stuck is Stuck.NOTHING_SUBMITTED


def await_served(device: VirtioDevice) -> None:
    deadline = Deadline.after(10)
    while not device.status().vhost_started:
        assert not deadline.passed()


def test_requests_outlive_the_daemon(serve: Serve) -> None:
    """QEMU has the new daemon begin where the used index stands."""
    with serve(BLK, reconnect=1) as (virtio, device):
        driver = virtio.guest.driver("vublk0", BlkDriver)
        device.backend.stop()
        sectors = [bytes([number]) * 512 for number in range(20)]
        writes = [driver.submit(1, sector, data) for sector, data in enumerate(sectors)]
        device.backend.restart()
        for write in writes:
            driver.finish(write)
        assert driver.read(0, 20 * 512) == b"".join(sectors)


@only_testpmd
def test_packed_rings_do_not(serve: Serve) -> None:
    """QEMU has nothing to tell where they stand, and has the new daemon begin anew, where no buffer is."""
    with serve(NET, reconnect=1, packed=True) as (virtio, device):
        net(virtio)
        device.backend.restart()
        assert fails(NET, virtio)
        bases = [message.number("num") for message in device.wire.messages("SET_VRING_BASE", reply=False)]
        assert bases == [0x80008000] * 4


@unnoticed
def test_what_can_not_be_started_anew(serve: Serve, daemon: Daemon) -> None:
    with serve(daemon) as (virtio, device):
        with pytest.raises(UsageError, match="can't be restarted: QEMU connects to it once"):
            device.backend.restart()
        daemon.round_trip(virtio)


# With Linux.


@pytest.mark.guest
@pytest.mark.parametrize("packed", [False, True])
def test_linux_drives_them(virtio_factory: VirtioFactory, program: Path, tmp_path: Path, packed: bool) -> None:
    """All that are installed, and each by Linux's own driver."""
    cards = [VhostUserNet(packed=packed, vectors=0)] if installed(NET) else []
    shares = [VhostUserFs(tmp_path, tag="share", packed=packed)] if installed(FS) else []
    with virtio_factory(VhostUserBlk(size=4 << 20), *cards, *shares, guest="linux") as virtio:
        run = virtio.guest.run
        assert run("head -c 1048576 /dev/urandom > /tmp/data && dd if=/tmp/data of=/dev/vda bs=64k").exit_status == 0
        assert run("sync; echo 3 > /proc/sys/vm/drop_caches; head -c 1048576 /dev/vda | cmp - /tmp/data").output == b""
        if cards:
            assert run("ip addr add 10.0.0.1/24 dev eth0 && ip link set eth0 up").exit_status == 0
            with virtio["vunet0"].queue("rx0").assert_progress(at_least=3):
                assert run("ping -c 3 -W 10 10.0.0.2", timeout=60).exit_status == 0
        if shares:
            assert run("mkdir /mnt && mount -t virtiofs share /mnt && echo linux > /mnt/file").exit_status == 0
            assert (tmp_path / "file").read_text() == "linux\n"


@pytest.mark.guest
@pytest.mark.skipif(not installed(VSOCK), reason="vhost-device-vsock is not installed")
def test_linux_drives_a_socket_device(virtio_factory: VirtioFactory) -> None:
    """busybox has no program that would talk, so this is what its driver and the daemon negotiate."""
    with virtio_factory(VhostUserVsock(wire=True), guest="linux") as virtio:
        device = virtio["vuvsock0"]
        device.assert_driver_ok()
        device.assert_backend_offered(*VSOCK.offers)
        device.assert_negotiated("VIRTIO_F_VERSION_1", "VIRTIO_RING_F_EVENT_IDX")
        device.assert_protocol_features(*VSOCK.protocol)
        device.assert_conforms()
        assert device.wire.acked_features <= device.wire.features
        assert set(device.wire.told.queues) == {0, 1}
        assert device.backend.state == "running"
