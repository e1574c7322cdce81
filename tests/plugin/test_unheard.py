"""What ends by itself while a test is busy with its own things fails the test at its end."""

from __future__ import annotations

import pytest

from tests.backend.real import FS, installed
from tests.plugin.conftest import Run

pytestmark = pytest.mark.qemu

BODY = """
    from pytest_virtio.vm.deadline import Deadline

    def ends(child):
        assert child.wait(Deadline.after(20))

    @pytest.mark.virtio(VhostUserBlk({options}))
    def test_it(virtio):
        dev, vm = virtio["vublk0"], virtio._running
        backend = vm.backends["vublk0"].child
        {body}
"""
KILL = "os.kill(dev.backend.pid, signal.SIGSEGV); ends(backend)"
KILL_QEMU = "os.kill(virtio.vm.pid, signal.SIGSEGV); ends(vm.qemu.child)"
QUIT = "virtio.vm.qmp('quit'); ends(vm.qemu.child)"
SPEAKS_AND_LEAVES = """backend=Daemon(["sh", "-c", "trap 'echo no more of this; exit 3' TERM; "
    "qemu-storage-daemon --blockdev null-co,node-name=d,size=1048576,read-zeroes=on "
    "--export vhost-user-blk,id=e,node-name=d,writable=on,addr.type=fd,addr.str={fd} & wait"])"""


def body_of(body: str, options: str = "") -> str:
    return BODY.replace("{options}", options).replace("{body}", body)


@pytest.mark.parametrize("options", ["", "reconnect=1", "wire=True"])
def test_a_backend_that_crashes(run: Run, options: str) -> None:
    result = run(body_of(KILL, options))
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines([
        "_* ERROR at teardown of test_it *_",
        "E  *VirtioAssertionError: vublk0: its backend has ended (killed by SIGSEGV)",
        "* virtio: verdict *",
        "vublk0: its backend has ended (killed by SIGSEGV)",
    ])  # fmt: skip


def test_a_backend_that_leaves_has_its_last_words_shown(run: Run) -> None:
    result = run(body_of("os.kill(dev.backend.pid, signal.SIGTERM); ends(backend)", SPEAKS_AND_LEAVES))
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines([
        "E  *VirtioAssertionError: vublk0: its backend has ended (exit code 3)", "E  *no more of this"
    ])  # fmt: skip


def test_a_crash_is_not_undone_by_a_restart(run: Run) -> None:
    result = run(body_of(f"{KILL}; dev.backend.restart(); virtio.guest.driver('vublk0').read(0, 512)", "reconnect=1"))
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["E  *vublk0: its backend has ended (killed by SIGSEGV)"])


def test_a_qemu_that_crashes(run: Run) -> None:
    result = run(body_of(KILL_QEMU))
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines([
        "_* ERROR at teardown of test_it *_",
        "E  *QemuExitedError: QEMU ended (killed by SIGSEGV) during the test*",
        "the VM is gone: QEMU ended (killed by SIGSEGV)",
    ])  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        f"{KILL}; assert dev.backend.state == 'ended'",
        f"{KILL}\n        with pytest.raises(AssertionError, match='has ended'): dev.assert_driver_ok()",
        f"{KILL}\n        with pytest.raises(AssertionError, match='has ended'): dev.wait_driver_ok()",
        f"{KILL}; assert dev.queue(0).verdict().stuck is Stuck.BACKEND_ENDED",
        "dev.backend.kill()",
        f"{KILL_QEMU}; assert not virtio.vm.running",
        f"{KILL_QEMU}\n        with pytest.raises(QemuExitedError): dev.status()",
        QUIT,
        "virtio.close()",
    ],
)
def test_what_the_test_knows_or_does_itself(run: Run, body: str) -> None:
    run(body_of(body)).assert_outcomes(passed=1)


@pytest.mark.skipif(not installed(FS), reason="virtiofsd is not installed")
def test_a_backend_that_leaves_because_qemu_does(run: Run) -> None:
    body = body_of(f"{QUIT}; ends(backend)").replace("VhostUserBlk", "VhostUserFs").replace("vublk0", "vufs0")
    run(body).assert_outcomes(passed=1)


@pytest.mark.parametrize("wait", ["virtio.guest.driver('vublk0').read(0, 512)", "dev.queue(0).wait_progress(60)"])
def test_a_wait_ends_at_once(run: Run, wait: str) -> None:
    result = run(body_of(f"{KILL}; {wait}"))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E  *VirtioAssertionError: vublk0: its backend has ended (killed by SIGSEGV)"])
