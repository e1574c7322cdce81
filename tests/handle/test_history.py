"""``dev.history`` of real devices: driven step by step, by firmware, by Linux after it, and without an end."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from pytest_virtio import (
    Blk,
    Declaration,
    Device,
    NotSupportedError,
    QemuExitedError,
    Rng,
    Stage,
    StatusStep,
    Virtio,
    VirtioAssertionError,
    VirtioDevice,
    VirtioFactory,
)
from pytest_virtio.introspect.history import KEPT
from pytest_virtio.vm import event_log
from pytest_virtio.vm.deadline import Deadline

pytestmark = pytest.mark.qemu


def values(steps: Sequence[StatusStep]) -> list[int]:
    return [step.value for step in steps]


def undriven(id: str) -> Declaration:
    return Rng(id=id, driver=None)


@pytest.mark.parametrize("transport", ["pci", "mmio"])
def test_each_step_of_devices_of_one_type(virtio_factory: VirtioFactory, transport: str) -> None:
    # Not in alphabetical order, and with another type between them.
    devices = (undriven("b"), Blk(driver=None), undriven("c"), undriven("a"))
    with virtio_factory(*devices, guest="scripted", transport=transport) as virtio:
        virtio.guest.driver("a").reset().acknowledge()
        virtio.guest.driver("b").reset().acknowledge().driver()
        virtio.guest.driver("blk0").initialise()
        histories = {device.id: device.history for device in virtio}
        stages = {device.id: device.stalled_at for device in virtio}
    assert {id: values(history) for id, history in histories.items()} == {
        "a": [0, 1],
        "b": [0, 1, 3],
        "c": [0],
        "blk0": [0, 1, 3, 11, 15],
    }
    assert stages == {"a": Stage.ACKNOWLEDGE, "b": Stage.DRIVER, "c": Stage.RESET, "blk0": None}
    assert {history.source for history in histories.values()} == {"trace events"}
    assert all(history[0].by_machine for history in histories.values())
    times = [step.seconds for step in histories["blk0"]]
    assert times == sorted(times)


def test_a_driver_that_begins_twice(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(undriven("rng0"), guest="scripted") as virtio:
        device, driver = virtio["rng0"], virtio.guest.driver("rng0")
        with pytest.raises(VirtioAssertionError, match=r"^rng0: not initialised: reset"):
            device.assert_initialised_once()
        driver.initialise()
        device.assert_initialised_once()
        driver.reset().acknowledge().driver()
        driver.initialise()
        with pytest.raises(VirtioAssertionError) as error:
            device.assert_initialised_once()
        first, *steps, source = str(error.value).splitlines()
        assert first == "rng0: initialised in 3 passes: DRIVER_OK: the driver finished its set-up"
        assert len(steps) == 3
        assert "machine reset, ACKNOWLEDGE (+" in steps[0]
        assert source == "  source: trace events"
        virtio.vm.reset()
        virtio.guest.start()
        driver.initialise()
        device.assert_initialised_once()


def test_what_qemu_does_itself_is_the_last_step(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Rng(), Rng(), guest="scripted") as virtio:
        break_ring(virtio, "rng1")
        assert virtio["rng1"].history[-1].status >= {"NEEDS_RESET", "DRIVER_OK"}
        assert values(virtio["rng0"].history) == [0, 1, 3, 11, 15]
        assert virtio["rng1"].stalled_at is Stage.NEEDS_RESET


def break_ring(virtio: Virtio, id: str) -> None:
    """Make a head available that is none."""
    driver = virtio.guest.driver(id)
    driver.memory.write(driver.queue().areas.driver + 2, b"\1\0\xff\xff")
    driver.queue().kick(always=True)


def test_firmware(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Blk(), Rng(), guest="firmware") as virtio:
        blk = virtio["blk0"]
        assert values(blk.history) == [0, 3, 11, 15]
        blk.assert_initialised_once()
        virtio.vm.reset()
        again = blk.history
        assert again[-1].value == 0 or len(again.drivers) == 2
        assert [step.by_machine for step in again[:5]] == [True, False, False, False, True]
        assert values(virtio["rng0"].history) == [0, 0]


@pytest.mark.guest
def test_linux_after_the_firmware(linux: Virtio) -> None:
    blk = linux["blk0"]
    firmware, kernel = blk.history.drivers
    assert (values(firmware), values(kernel)) == ([0, 3, 11, 15], [0, 1, 3, 11, 15])
    assert firmware[0].by_machine
    assert not kernel[0].by_machine
    assert blk.history.last == kernel
    for device in driven(linux):
        device.assert_initialised_once()
        assert device.stalled_at is None
    # Three of one type, told apart.
    assert {linux[id].history.source for id in ("keyboard0", "mouse0", "tablet0")} == {"trace events"}


def driven(virtio: Virtio) -> list[VirtioDevice]:
    return [device for device in virtio if device.status().driver_ok]


def test_a_guest_that_writes_for_ever(virtio_factory: VirtioFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "LIMIT", 512 << 10)
    with virtio_factory(undriven("rng0"), guest="scripted") as virtio:
        device, driver = virtio["rng0"], virtio.guest.driver("rng0")
        # The first reset changes nothing.
        for _ in range(KEPT):
            driver.reset().acknowledge()
        history = device.history
        assert (len(history), history.dropped, history.full) == (KEPT, KEPT, False)
        while not device.history.full:
            for _ in range(KEPT):
                driver.reset().acknowledge()
        driver.initialise()
        assert device.status().driver_ok
        with pytest.raises(NotSupportedError, match="steps may have been missed"):
            device.assert_initialised_once()


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["-d", "guest_errors"], "polling: QEMU was started without the trace events"),
        (["-device", "virtio-rng-pci,id=more"], "polling: in which order the 2 virtio-rng-device were made"),
    ],
)
def test_where_trace_events_do_not_tell_it_is_polled(virtio_factory: VirtioFactory, args: list[str], why: str) -> None:
    with virtio_factory(undriven("rng0"), guest="scripted", args=args) as virtio:
        device = virtio["rng0"]
        assert values(device.history) == [0]
        virtio.guest.driver("rng0").initialise()
        history = device.history
        assert (values(history), history.polled) == ([0, 15], True)
        assert history.source.startswith(why)
        with pytest.raises(NotSupportedError, match="steps may have been missed: polling"):
            device.assert_initialised_once()


def test_what_qemu_says_stays_on_its_stderr(virtio_factory: VirtioFactory) -> None:
    with (
        pytest.raises(QemuExitedError) as error,
        virtio_factory(Rng(), guest="scripted", args=["-device", "nonesuch"]),
    ):
        pass
    assert error.value.stderr.endswith("-device nonesuch: 'nonesuch' is not a valid device model name")
    assert error.value.stderr.startswith("qemu-system")


def test_a_device_that_is_plugged_in_does_not_take_anothers_history(virtio_factory: VirtioFactory) -> None:
    port = ["-device", "pcie-root-port,id=port0"]
    with virtio_factory(undriven("a"), undriven("b"), guest="scripted", args=port) as virtio:
        virtio.guest.driver("a").reset().acknowledge()
        virtio.vm.qmp("device_add", {"driver": "virtio-rng-pci", "id": "more", "bus": "port0"})
        virtio.guest.driver("b").reset().acknowledge().driver()
        histories = [device.history for device in virtio]
        assert [values(history) for history in histories] == [[0, 1], [0, 1, 3]]
        assert {history.source for history in histories} == {"trace events"}
        unplug(virtio, "more")
        # Had b been unplugged, and plugged in again, the log would be the same.
        history = virtio["b"].history
        assert (history[-1].value, history.polled) == (0, True)
        assert "a virtio-rng-device was plugged in and a device unplugged" in history.source


def test_a_device_that_is_unplugged_leaves_the_others_their_history(virtio_factory: VirtioFactory) -> None:
    port = Device("pcie-root-port", id="port0")
    with virtio_factory(port, Rng(id="gone", bus="port0", driver=None), Blk(driver=None), guest="scripted") as virtio:
        unplug(virtio, "gone")
        history = virtio["blk0"].history
        assert (values(history), history.source) == ([0, 0], "trace events")
        for ask in (virtio["gone"].status, lambda: virtio["gone"].history):
            with pytest.raises(NotSupportedError, match=r"^gone was unplugged \(.* is not (a|there) "):
                ask()


def test_of_a_qemu_that_has_ended(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(undriven("a"), Blk(), undriven("b"), guest="scripted") as virtio:
        virtio.guest.driver("b").reset().acknowledge()
        virtio.vm.qmp("quit")
        os.waitid(os.P_PID, virtio.vm.pid, os.WEXITED | os.WNOWAIT)
        histories = [device.history for device in virtio]
        assert [values(history) for history in histories] == [[0], [0, 1, 3, 11, 15], [0, 1]]
        assert {history.source for history in histories} == {"trace events; status not compared: QEMU has ended"}
        virtio["blk0"].assert_initialised_once()
        text = next(section.text for section in virtio.report() if section.title == "virtio: b")
        first, steps, source = text.splitlines()
        assert first == "no answer: QEMU has ended"
        assert steps.startswith("history: 0.0000 s: machine reset, ACKNOWLEDGE")
        assert source == f"history: source: {histories[0].source}"
    with pytest.raises(QemuExitedError):
        virtio["a"].history  # noqa: B018


def test_a_driver_that_has_let_go_is_not_said_never_to_have_been(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(undriven("rng0"), guest="scripted") as virtio:
        device, driver = virtio["rng0"], virtio.guest.driver("rng0")
        driver.initialise()
        driver.reset()
        assert device.stalled_at is Stage.RESET
        driver.acknowledge()
        with pytest.raises(VirtioAssertionError) as error:
            device.assert_driver_ok()
        expected = "ACKNOWLEDGE only: the guest has noticed the device, and no driver has it"
        assert str(error.value).startswith(f"rng0: not at DRIVER_OK but at {expected}\n")


def unplug(virtio: Virtio, id: str) -> None:
    """Unplug a device; a reset does what a guest that minds its hot-plug ports would do."""
    virtio.vm.qmp("device_del", {"id": id})
    virtio.vm.reset()
    deadline = Deadline.after(10)
    while f"/{id}/" in str(virtio.vm.qmp("x-query-virtio")):
        assert not deadline.passed()
