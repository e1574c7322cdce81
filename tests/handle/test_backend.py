"""``dev.backend``: what it tells of a vhost-user backend, and that its verbs do what they say or say why not."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_virtio import (
    Blk,
    BlkDriver,
    Cut,
    Daemon,
    MonitorTimeoutError,
    NotSupportedError,
    Rewrite,
    Stuck,
    UnknownNameError,
    UsageError,
    VhostUserBlk,
    Virtio,
    VirtioAssertionError,
    VirtioError,
    VirtioFactory,
    Wire,
)
from pytest_virtio.backend.storage_daemon import find_program
from pytest_virtio.vm.deadline import Deadline

pytestmark = pytest.mark.qemu

SIZE = 8 << 20
SERVE = (
    "qemu-storage-daemon --blockdev null-co,node-name=d,size=1048576,read-zeroes=on "
    "--export vhost-user-blk,id=e,node-name=d,writable=on,addr.type=fd,addr.str={fd}"
)


@pytest.fixture
def virtio(virtio_factory: VirtioFactory) -> Iterator[Virtio]:
    with virtio_factory(VhostUserBlk(size=SIZE), Blk()) as virtio:
        yield virtio


def test_what_it_tells(virtio: Virtio) -> None:
    backend = virtio["vublk0"].backend
    assert repr(backend) == "<VhostBackend of vublk0: qemu-storage-daemon: running>"
    assert backend.state == "running"
    assert Path(f"/proc/{backend.pid}/comm").read_text().startswith("qemu-storage-d")
    assert {"VIRTIO_BLK_F_FLUSH", "VHOST_USER_F_PROTOCOL_FEATURES", "VIRTIO_F_VERSION_1"} <= backend.features
    assert backend.stderr == ""


def test_a_device_without_one(virtio: Virtio) -> None:
    with pytest.raises(NotSupportedError, match=r"blk0 has no vhost-user backend that was declared; vublk0 one"):
        virtio["blk0"].backend  # noqa: B018
    with pytest.raises(NotSupportedError, match="blk0: the vhost side"):
        virtio["blk0"].assert_protocol_features("MQ")


def test_words_that_it_does_not_know(virtio: Virtio) -> None:
    device = virtio["vublk0"]
    with pytest.raises(UnknownNameError, match="VIRTIO_BLK_F_FLUSH"):
        device.assert_backend_offered("VIRTIO_BLK_F_FLUSCH")
    with pytest.raises(UsageError, match="no feature given"):
        device.assert_backend_offered()
    with pytest.raises(VirtioAssertionError, match="vublk0: VIRTIO_BLK_F_LIFETIME not offered by the vhost backend"):
        device.assert_backend_offered("VIRTIO_BLK_F_FLUSH", "VIRTIO_BLK_F_LIFETIME")


def test_killed(virtio: Virtio) -> None:
    backend = virtio["vublk0"].backend
    backend.kill()
    assert repr(backend) == "<VhostBackend of vublk0: qemu-storage-daemon: killed by SIGKILL>"
    backend.kill()
    for verb in (backend.stop, backend.cont):
        with pytest.raises(VirtioError, match="vublk0's backend is ended"):
            verb()
    with pytest.raises(UsageError, match="Declare it with reconnect=1"):
        backend.restart()


def test_driver_ok_is_not_asserted_over_a_dead_backend(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(VhostUserBlk()) as virtio:
        disk = virtio["vublk0"]
        disk.assert_driver_ok()
        disk.backend.kill()
        assert disk.status().driver_ok
        with pytest.raises(VirtioAssertionError, match="nobody serves it: its backend has ended") as error:
            disk.assert_driver_ok()
        assert "qemu-storage-daemon: killed by SIGKILL" in str(error.value)
        with pytest.raises(VirtioAssertionError, match="nobody serves it: its backend has ended"):
            disk.wait_driver_ok()


def test_stopped_and_continued(virtio: Virtio) -> None:
    backend, driver = virtio["vublk0"].backend, virtio.guest.driver("vublk0", BlkDriver)
    backend.stop()
    assert repr(backend) == "<VhostBackend of vublk0: qemu-storage-daemon: stopped by a signal>"
    backend.stop()
    assert backend.state == "stopped"
    write = driver.submit(1, 0, b"x" * 512)
    assert not write.done
    backend.cont()
    assert repr(backend) == "<VhostBackend of vublk0: qemu-storage-daemon: running>"
    driver.finish(write)


def test_restarted_after_its_death(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(VhostUserBlk(size=SIZE, reconnect=1)) as virtio:
        driver, backend = virtio.guest.driver("vublk0", BlkDriver), virtio["vublk0"].backend
        driver.write(0, b"x" * 512)
        pids = [backend.pid]
        for _ in range(2):
            backend.kill()
            backend.restart()
            pids.append(backend.pid)
            assert driver.read(0, 512) == b"x" * 512
        assert len(set(pids)) == 3


def test_restarts_leave_no_descriptors(virtio_factory: VirtioFactory) -> None:
    """What its processes said is kept all the same."""
    speaks = ["sh", "-c", f"echo begins; exec {SERVE}"]
    with virtio_factory(VhostUserBlk(backend=Daemon(speaks), reconnect=1)) as virtio:
        backend = virtio["vublk0"].backend
        backend.restart()
        before = descriptors()
        for _ in range(3):
            backend.restart()
        # Those of the last one are closed when the thread that reads them gets there.
        assert descriptors() <= before + 2
        assert backend.stderr.count("begins") == 5


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def found(program: Path, tmp_path: Path) -> Iterator[Path]:
    """The socket of a daemon that somebody else runs."""
    disk, path = tmp_path / "disk", tmp_path / "socket"
    disk.write_bytes(bytes(SIZE))
    node = f"driver=file,node-name=disk,filename={disk}"
    export = f"type=vhost-user-blk,id=export,node-name=disk,writable=on,addr.type=unix,addr.path={path}"
    daemon = subprocess.Popen([find_program(program, "found"), "--blockdev", node, "--export", export])
    deadline = Deadline.after(20)
    while not path.exists():
        assert daemon.poll() is None
        assert not deadline.passed()
    yield path
    daemon.kill()
    daemon.wait()


def test_somebody_elses(virtio_factory: VirtioFactory, found: Path) -> None:
    with virtio_factory(VhostUserBlk(backend=found)) as virtio:
        backend = virtio["vublk0"].backend
        assert backend.state is None
        verbs: list[Callable[[], object]] = [backend.kill, backend.stop, backend.cont, lambda: backend.pid]
        for verb in verbs:
            with pytest.raises(UsageError, match="the backend of vublk0 is not ours: it was found at"):
                verb()
        virtio["vublk0"].assert_backend_offered("VIRTIO_BLK_F_FLUSH")
        assert virtio.guest.driver("vublk0", BlkDriver).read(0, 512) == bytes(512)


def test_a_device_whose_connection_was_cut_is_not_served(virtio_factory: VirtioFactory) -> None:
    wire = Wire(faults=(Cut("SET_VRING_KICK"),))
    with virtio_factory(VhostUserBlk(wire=wire)) as virtio:
        disk = virtio["vublk0"]
        assert disk.status().driver_ok
        with pytest.raises(VirtioAssertionError, match="nobody serves it: its backend is not connected: cut at SET_VR"):
            disk.assert_driver_ok()
        assert disk.queue(0).verdict().stuck is Stuck.DISCONNECTED
        assert "its backend lives, and serves nothing: cut at SET_VRING_KICK" in virtio.dump()


def test_a_stopped_backend_is_told_while_qemu_waits_for_it(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(VhostUserBlk()) as virtio:
        disk = virtio["vublk0"]
        queue = disk.queue(0)
        disk.backend.stop()
        with contextlib.suppress(MonitorTimeoutError):
            virtio.vm.qmp("system_reset", timeout=0.2)
        with pytest.raises(MonitorTimeoutError):
            virtio.vm.qmp("query-status", timeout=0.2)
        assert queue.verdict().stuck is Stuck.BACKEND_STOPPED


def test_what_the_test_masks_is_not_the_backends_fault(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(VhostUserBlk(mask={"VIRTIO_BLK_F_DISCARD"})) as virtio:
        disk = virtio["vublk0"]
        disk.assert_backend_offered("VIRTIO_BLK_F_DISCARD")
        with pytest.raises(VirtioAssertionError, match=r"masked by the test itself \(mask=\)"):
            disk.assert_negotiated("VIRTIO_BLK_F_DISCARD")
        negotiated = disk.negotiation()
        assert [row.feature for row in negotiated if row.masked] == ["VIRTIO_BLK_F_DISCARD"]
        assert any("VIRTIO_BLK_F_DISCARD" in line and "by the test)" in line for line in virtio.dump().splitlines())


def offer_one_that_no_qemu_knows(payload: bytes) -> bytes:
    return (int.from_bytes(payload, "little") | 1 << 60).to_bytes(8, "little")


def test_whose_doing_it_is_that_a_protocol_feature_was_not_agreed_on(virtio_factory: VirtioFactory) -> None:
    wire = Wire(
        mask={"VHOST_USER_PROTOCOL_F_REPLY_ACK"},
        faults=(Rewrite("GET_PROTOCOL_FEATURES", offer_one_that_no_qemu_knows, reply=True),),
    )
    named: dict[str | int, str] = {
        "REPLY_ACK": r"\S+_REPLY_ACK not agreed on: masked by the test itself \(mask=\)\n",
        "RARP": r"\S+_RARP not agreed on: not offered by the vhost-user backend\n",
        60: r"\S+ not agreed on: offered by the vhost-user backend, not taken by QEMU\n",
    }
    with virtio_factory(VhostUserBlk(wire=wire)) as virtio:
        disk = virtio["vublk0"]
        disk.assert_protocol_features("MQ", "CONFIG")
        for feature, said in named.items():
            with pytest.raises(VirtioAssertionError, match=f"^vublk0: {said}"):
                disk.assert_protocol_features("MQ", feature)
        with pytest.raises(
            VirtioAssertionError, match=r"RARP not agreed on: not offered .* \(and 1 more\)\n.*not taken"
        ):
            disk.assert_protocol_features("RARP", 60)


def test_a_protocol_feature_that_no_witness_saw(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(VhostUserBlk()) as virtio:
        if virtio["vublk0"].status().vhost_dev is None:
            pytest.skip("this QEMU does not tell what was agreed on")
        with pytest.raises(VirtioAssertionError, match="RARP not agreed on: nobody saw whose doing that is, as wire=T"):
            virtio["vublk0"].assert_protocol_features("RARP")


def test_what_the_test_masks_breaks_no_rule_of_the_devices(virtio_factory: VirtioFactory) -> None:
    """CONFIG_WCE must not be offered without FLUSH (virtio 1.3, 5.2.5.2)."""
    with virtio_factory(VhostUserBlk(mask={"VIRTIO_BLK_F_FLUSH"})) as virtio:
        disk = virtio["vublk0"]
        disk.assert_offered("VIRTIO_BLK_F_CONFIG_WCE")
        disk.assert_not_offered("VIRTIO_BLK_F_FLUSH")
        disk.assert_conforms()


def test_a_wire_that_is_kept_is_up_to_date(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(VhostUserBlk(wire=True)) as virtio:
        wire, driver = virtio["vublk0"].wire, virtio.guest.driver("vublk0")
        for _ in range(5):
            before = wire.count
            driver.initialise()
            assert wire.told.queues[0].enabled
            assert wire.count > before
