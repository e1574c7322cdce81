"""What a test shows whose queue stands still: at a wait of ours, and at its end where it waits for nothing of ours."""

from __future__ import annotations

import pytest

from .conftest import Run

BODY = """
    import time

    @pytest.mark.virtio(VhostUserBlk(), stall=0.3)
    def test_stalled(virtio):
        driver = virtio.guest.driver("vublk0")
        driver.read(0, 512)
        os.kill(virtio._running.backends["vublk0"].child.pid, signal.SIGSTOP)
        driver.submit(0, 0, writable=[512])
        {wait}
"""
OF_OURS = "virtio['vublk0'].wait_driver_ok(60), virtio['vublk0'].queue(0).wait_progress(60)"
OF_THEIR_OWN = """while not virtio.vm.stalled:
            time.sleep(0.01)"""


@pytest.mark.parametrize(
    ("wait", "title", "outcome"),
    [
        (OF_OURS, "_* test_stalled *_", {"failed": 1}),
        (OF_THEIR_OWN, "_* ERROR at teardown of test_stalled *_", {"passed": 1, "errors": 1}),
    ],
    ids=["a wait of ours", "none of ours"],
)
def test_it_says_which_queue_and_what_is_stuck_and_who_owes_the_next_move(
    run: Run, wait: str, title: str, outcome: dict[str, int]
) -> None:
    result = run(BODY.replace("{wait}", wait))
    result.assert_outcomes(**outcome)
    result.stdout.fnmatch_lines([
        title,
        "E *VirtioAssertionError: vublk0.request0: stalled: no progress for 0.3 s with buffers that the device *",
        "E * the vhost backend's process is stopped: it serves nothing",
        "E * before: avail ?, used 1",
        "E * after: avail 2, used 1",
        "E * source: guest RAM, addresses by x-query-virtio-vhost-queue-status",
        "E * ring (split, 128 entries): avail_idx 2, used_idx 1, *1 in flight or pending",
        "E * in flight or pending: head * in slot 1 (indirect): *+512 write, *+1 write",
        "* virtio: verdict *",
        "vublk0: its backend is stopped by a signal (SIGSTOP, SIGTSTP) or a debugger: it serves nothing",
        "* reproduce *",
        "* vublk0.request0: stalled: no progress for 0.3 s *",
    ])  # fmt: skip
