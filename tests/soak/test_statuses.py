"""A device is looked at by its registers again and again while Linux takes its driver away and binds it anew: looking
leaves no trace in what is negotiated."""

from __future__ import annotations

import statistics
import time

import pytest

from pytest_virtio import Balloon, Virtio, VirtioFactory, VirtioStatus, qapi
from pytest_virtio.introspect.probe import status_query_ends

from .conftest import SOAK_SECONDS, Work, rounds, work

pytestmark = [pytest.mark.soak, pytest.mark.guest, pytest.mark.timeout(SOAK_SECONDS)]

BINDS = rounds(10_000)
UNBIND_AND_BIND = f"""
cd /sys/bus/virtio/drivers/virtio_balloon; name=$(echo virtio*); device=$(realpath $name)
read -r features <$device/features
for round in $(seq {BINDS}); do
    echo $name >unbind || exit
    read -r status <$device/status; [ $status = 0x00000001 ] || exit
    echo $name >bind || exit
    read -r status <$device/status; [ $status = 0x0000000f ] || exit
    read -r now <$device/features; [ $now = $features ] || exit
    [ $((round % 50)) != 0 ] || sleep 0.3
done
echo $round
"""
"""The balloon's driver is the one that is bound in the shortest time. Now and then it is left alone for long enough
that its features are told."""
LOOKS = rounds(200)
"""At the least; each may wait half a second for calm."""


def test_statuses_while_drivers_come_and_go(virtio_factory: VirtioFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on QEMUs that can be asked, where their own answer is the oracle."""
    monkeypatch.setattr("pytest_virtio.launch.observers.status_query_ends", lambda known: "as the test has it")
    with virtio_factory(Balloon(), guest="linux", timeout=120) as virtio:
        negotiated = virtio["balloon0"].status().guest_features.bits
        with work(virtio, UNBIND_AND_BIND) as at_work:
            taken, told = looked(virtio, at_work, negotiated)
            assert at_work.finish() == [str(BINDS)]
            assert told
        last = virtio["balloon0"].status()
        assert (last.driver_ok, last.guest_features.bits) == (True, negotiated)
        if not status_query_ends(virtio._running.host.known):
            assert_as_qemu_has_it(virtio, last)
        print(
            f"QEMU {virtio.vm.qemu_version}: {len(taken)} looks at a device by its registers, "
            f"{statistics.median(taken) * 1e3:.1f} ms each; meanwhile its driver was bound {BINDS} times, "
            f"{told} of the looks told its features"
        )


def looked(virtio: Virtio, at_work: Work, negotiated: int) -> tuple[list[float], int]:
    """Look at the device as long as it changes; seconds for each look, and how many told the driver's features."""
    taken: list[float] = []
    told = 0
    while len(taken) < LOOKS or at_work.goes_on:
        start = time.perf_counter()
        status = virtio["balloon0"].status()
        taken.append(time.perf_counter() - start)
        assert status.source == "registers"
        # Between a reset and some time after DRIVER_OK registers don't tell; what they do tell is right.
        if not status.guest_features.untold:
            told += status.driver_ok
            assert status.guest_features.bits == (negotiated if status.driver_ok else 0)
    return taken, told


def assert_as_qemu_has_it(virtio: Virtio, ours: VirtioStatus) -> None:
    told = qapi.parse_status(virtio.vm.qmp("x-query-virtio-status", {"path": virtio["balloon0"].path}))
    assert ours.status == told.status
    assert ours.guest_features == told.guest_features
    assert ours.host_features == told.host_features
