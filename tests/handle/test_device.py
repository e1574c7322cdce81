"""The verbs of a device and its queues, on a real one that SeaBIOS drives."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from pytest_virtio import (
    Blk,
    BlkFeature,
    Device,
    DeviceStalledError,
    NoPendingElement,
    NotSupportedError,
    Rng,
    UnknownNameError,
    UsageError,
    Virtio,
    VirtioAssertionError,
    VirtioFactory,
)
from pytest_virtio.vm.deadline import Deadline

pytestmark = pytest.mark.qemu


@pytest.fixture(scope="module")
def vm(virtio_factory: VirtioFactory) -> Iterator[Virtio]:
    with virtio_factory(Blk(), Rng(), guest="firmware") as virtio:
        yield virtio


def _first_line(error: pytest.ExceptionInfo[VirtioAssertionError]) -> str:
    return str(error.value).partition("\n")[0]


def test_it_is_a_mapping(vm: Virtio) -> None:
    assert [device.id for device in vm] == ["blk0", "rng0"]
    assert ("blk0" in vm, "net0" in vm, len(vm)) == (True, False, 2)
    with pytest.raises(UnknownNameError, match=r"unknown virtio device: 'blk1'. Did you mean 'blk0'"):
        vm["blk1"]


def test_names(vm: Virtio) -> None:
    blk = vm["blk0"]
    assert (blk.id, blk.name, blk.type) == ("blk0", "virtio-blk", "virtio-blk-pci")
    assert blk.path == "/machine/peripheral/blk0/virtio-backend"


def test_what_holds_is_quiet(vm: Virtio) -> None:
    blk = vm["blk0"]
    blk.assert_driver_ok()
    blk.assert_negotiated("VIRTIO_F_VERSION_1", "SEG_MAX", BlkFeature.BLK_SIZE, 32)
    blk.assert_not_negotiated("FLUSH", "VIRTIO_BLK_F_MQ")
    blk.assert_offered("FLUSH")
    blk.assert_not_offered("VIRTIO_BLK_F_MQ")
    assert blk.wait_driver_ok().driver_ok


@pytest.mark.parametrize(
    ("verb", "features", "verdict"),
    [
        ("assert_negotiated", ["MQ"],
         "VIRTIO_BLK_F_MQ not negotiated: not offered by the device (property num-queues=1)"),
        ("assert_negotiated", ["FLUSH", "SEG_MAX"],
         "VIRTIO_BLK_F_FLUSH not negotiated: offered, not acknowledged by the driver"),
        ("assert_negotiated", ["MQ", "FLUSH"],
         "VIRTIO_BLK_F_FLUSH not negotiated: offered, not acknowledged by the driver (and 1 more)"),
        ("assert_not_negotiated", ["SEG_MAX", "MQ"],
         "VIRTIO_BLK_F_SEG_MAX negotiated, but unwanted: offered by the device, taken by the driver"),
        ("assert_offered", ["MQ", "FLUSH"],
         "VIRTIO_BLK_F_MQ missing: not offered by the device (property num-queues=1)"),
        ("assert_offered", ["IN_ORDER", "BARRIER"],
         "VIRTIO_BLK_F_BARRIER missing: not offered by the device (and 1 more)"),
        ("assert_not_offered", ["MQ", "FLUSH"], "VIRTIO_BLK_F_FLUSH offered by the device, but unwanted"),
    ],
)  # fmt: skip
def test_a_verdict_is_in_the_first_line(vm: Virtio, verb: str, features: list[str], verdict: str) -> None:
    with pytest.raises(VirtioAssertionError) as error:
        getattr(vm["blk0"], verb)(*features)
    assert _first_line(error) == f"blk0: {verdict}"
    source = vm["blk0"].status().source
    assert str(error.value).endswith(f"status: DRIVER_OK: the driver finished its set-up\n  source: {source}")


def test_a_device_without_driver(vm: Virtio) -> None:
    with pytest.raises(VirtioAssertionError) as error:
        vm["rng0"].assert_driver_ok()
    assert _first_line(error).startswith("rng0: not at DRIVER_OK but at ")
    with pytest.raises(DeviceStalledError, match="not at DRIVER_OK within 0 s: rng0 stands at "):
        vm["rng0"].wait_driver_ok(timeout=0)


@pytest.mark.parametrize("verb", ["assert_negotiated", "assert_not_negotiated", "assert_offered", "assert_not_offered"])
def test_an_assertion_that_can_not_fail_is_refused(vm: Virtio, verb: str) -> None:
    with pytest.raises(UsageError, match="no feature given"):
        getattr(vm["blk0"], verb)()
    with pytest.raises(UnknownNameError, match="FLUSHH"):
        getattr(vm["blk0"], verb)("FLUSHH")


def test_queues(vm: Virtio) -> None:
    blk = vm["blk0"]
    assert [queue.index for queue in blk.queues] == [0]
    queue = blk.queue(0)
    assert blk.queue(queue.name).index == 0
    assert queue.status().vring_desc
    for index in (1, -1):
        with pytest.raises(UnknownNameError) as unknown:
            blk.queue(index)
        assert str(unknown.value) == f"unknown queue of blk0: '{index}'. It has queue 0 only."
    with pytest.raises(UsageError, match=r"^True is no queue: give its index or its name$"):
        blk.queue(True)
    with pytest.raises(UnknownNameError, match="unknown queue of blk0: 'rx0'"):
        blk.queue("rx0")
    assert queue.ring().num == queue.status().vring_num
    assert queue.elements() == queue.ring().elements
    with pytest.raises(NoPendingElement, match="no pending element"):
        queue.element()


def test_the_machine(vm: Virtio) -> None:
    machine = vm.vm
    assert machine.running
    assert isinstance(machine.qmp("query-pci"), list)
    assert "virtio-backend" in machine.hmp("info virtio")
    assert "\r" not in machine.hmp("info virtio")
    assert f"pid {machine.pid}" in repr(vm)
    assert machine.qemu_version.count(".") == 2
    assert "virtio-blk-pci" in machine.command_line


def test_without_a_guest(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Rng(), boot=False) as virtio:
        assert "guest console" not in virtio.dump()
        with pytest.raises(NotSupportedError, match="no guest runs in this VM: it was declared with boot=False"):
            _ = virtio.guest


def test_stopping_is_seen(vm: Virtio) -> None:
    vm.vm.stop()
    try:
        assert "the VM is paused" in vm.dump()
    finally:
        vm.vm.cont()
    assert "the VM is paused" not in vm.dump()


def test_the_report_of_a_vm_that_is_gone(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Blk(), guest="firmware") as virtio:
        os.kill(virtio.vm.pid, signal.SIGABRT)
        report = virtio.dump()
        assert virtio._running.qemu.child.wait(Deadline.after(20))
        assert not virtio.vm.running
        virtio.close()
        assert "the VM is gone: QEMU ended (killed by SIGABRT)" in virtio.dump()
    assert "---- virtio: verdict ----\n" in report
    assert "no answer: " in report
    assert "---- reproduce ----\n" in report


@pytest.mark.parametrize("verb", ["negotiated", "not_negotiated", "offered", "not_offered"])
@pytest.mark.parametrize("features", [["MQ"], {"MQ"}, None, True, 1.5])
def test_what_is_no_feature_is_told_apart(vm: Virtio, verb: str, features: object) -> None:
    with pytest.raises(UsageError, match="Features are separate arguments"):
        getattr(vm["blk0"], f"assert_{verb}")(features)


def test_a_device_that_is_not_virtio_is_told_apart(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Device("e1000"), boot=False) as virtio:
        assert len(virtio) == 0
        with pytest.raises(UnknownNameError, match=r"'e10000'\. It is declared, but a e1000 is no virtio device\."):
            _ = virtio["e10000"]
        with pytest.raises(UnknownNameError, match=r"'net0'\. This VM has none\."):
            _ = virtio["net0"]
