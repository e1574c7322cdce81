"""What registers tell, against QEMU's own word; and what nobody tells, on real QEMU.

On a QEMU that survives the status query it is the oracle; the VM is surveyed all the same. On one that doesn't, the
oracles are what the scripted driver has seen and written itself, and the guest's sysfs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from pytest_virtio import (
    P9,
    Balloon,
    Blk,
    Crypto,
    Declaration,
    Device,
    Keyboard,
    Net,
    NotSupportedError,
    Rng,
    Scripted,
    Scsi,
    Serial,
    VhostUserBlk,
    Virtio,
    VirtioFactory,
    VirtioStatus,
)
from pytest_virtio.guest.scripted.driver import Driver
from pytest_virtio.introspect.calm import Calm
from pytest_virtio.introspect.query import Queries, raised
from pytest_virtio.introspect.registers import Registers
from pytest_virtio.spec.transport.pci import Common
from pytest_virtio.vm.deadline import Deadline

pytestmark = pytest.mark.qemu

LEGACY = (Net(), Blk(), Rng(), Balloon(), Serial(), Scsi(), P9())
MODERN = (*LEGACY, Keyboard(), Crypto())
SHARED = ("name", "device_id", "status", "guest_features", "host_features", "vhost_started", "vm_running", "num_vqs")

Boot = Callable[..., AbstractContextManager[Virtio]]


@pytest.fixture
def surveyed(virtio_factory: VirtioFactory, monkeypatch: pytest.MonkeyPatch) -> Boot:
    """Boots VMs whose registers are known, also where QEMU could be asked."""

    @contextmanager
    def boot(*devices: Declaration, **options: Any) -> Iterator[Virtio]:
        with monkeypatch.context() as patch:
            patch.setattr("pytest_virtio.launch.start.needs_survey", lambda *_: True)
            with virtio_factory(*devices, **options) as virtio:
                yield virtio

    return boot


def by_registers(virtio: Virtio, id: str) -> VirtioStatus:
    """Past the choice of the source, but with what the choice adds."""
    introspector = virtio._running.introspector
    path = virtio[id].path
    answer = introspector._by_registers([path], Deadline.after(30))[path]
    return raised(answer)


def dies(virtio: Virtio) -> bool:
    """Whether the status query ends this QEMU."""
    return bool(virtio._running.introspector._ends)


def plain(virtio: Virtio, id: str) -> VirtioStatus:
    return raised(Queries(virtio._running.qemu).statuses([virtio[id].path], 30)[0])


def check(virtio: Virtio, id: str) -> VirtioStatus:
    """What registers tell is what QEMU tells, where it can be asked."""
    seen = by_registers(virtio, id)
    if not dies(virtio):
        said = plain(virtio, id)
        assert {name: getattr(seen, name) for name in SHARED} == {name: getattr(said, name) for name in SHARED}
        assert seen.queue_sel in (said.queue_sel, None)
        assert seen.guest_features.offered == said.guest_features.offered
    return seen


TRANSPORTS = [
    pytest.param("pci", MODERN, {}, id="pci"),
    pytest.param("mmio", MODERN, {}, id="mmio"),
    pytest.param("pci-transitional", LEGACY, {}, id="transitional-modern"),
    pytest.param("pci-transitional", LEGACY, {"legacy": True}, id="transitional-legacy"),
    pytest.param("pci-legacy", LEGACY, {}, id="legacy"),
]


@pytest.mark.parametrize(("transport", "devices", "settings"), TRANSPORTS)
def test_each_device_at_driver_ok(
    surveyed: Boot, transport: str, devices: tuple[Declaration, ...], settings: dict[str, Any]
) -> None:
    with surveyed(*devices, guest=Scripted(**settings), transport=transport) as virtio:
        for device in virtio:
            seen = check(virtio, device.id)
            driver = virtio.guest.driver(device.id)
            assert seen.driver_ok
            assert seen.guest_features.bits == driver.negotiated.bits
            # What only legacy drivers are shown is offered, too.
            assert seen.host_features.bits | driver.offered().bits == seen.host_features.bits
            assert "NOTIFY_ON_EMPTY" in seen.host_features
            assert ("BAD_FEATURE" in seen.host_features) == (transport != "mmio")


@pytest.mark.parametrize(("transport", "devices", "settings"), TRANSPORTS)
def test_before_anything_runs(
    surveyed: Boot, transport: str, devices: tuple[Declaration, ...], settings: dict[str, Any]
) -> None:
    with surveyed(*devices, boot=False, transport=transport) as virtio:
        for device in virtio:
            seen = check(virtio, device.id)
            assert (seen.status, seen.guest_features.bits, seen.vm_running) == (frozenset(), 0, False)
            assert seen.host_features.bits


STEPS: list[tuple[str, Callable[[Driver], object]]] = [
    ("reset", lambda driver: driver.reset()),
    ("acknowledge", lambda driver: driver.acknowledge()),
    ("driver", lambda driver: driver.driver()),
    ("negotiate", lambda driver: driver.negotiate()),
    ("features_ok", lambda driver: driver.features_ok()),
    ("setup_queues", lambda driver: driver.setup_queues()),
    ("driver_ok", lambda driver: driver.driver_ok()),
    ("another reset", lambda driver: driver.reset()),
    ("another start", lambda driver: driver.acknowledge().driver()),
]


@pytest.mark.parametrize(("transport", "settings"), [(p.values[0], p.values[2]) for p in TRANSPORTS], ids=str)
def test_each_step_of_the_initialisation(surveyed: Boot, transport: str, settings: dict[str, Any]) -> None:
    """virtio 1.3, section 3.1.1. The selectors are as the driver left them: it goes on undisturbed."""
    with surveyed(Rng(driver=None), guest=Scripted(**settings), transport=transport) as virtio:
        driver = virtio.guest.driver("rng0")
        for name, step in STEPS:
            if name == "features_ok" and driver.transport.legacy:
                continue
            step(driver)
            check(virtio, "rng0")


def test_between_writing_features_and_features_ok_registers_do_not_tell(surveyed: Boot) -> None:
    """The common configuration keeps the words of an earlier driver over a reset."""
    with surveyed(Rng()) as virtio:
        driver, qemu = virtio.guest.driver("rng0"), virtio._running.qemu
        source = virtio._running.introspector._registers
        assert isinstance(source, Registers)
        alone = Registers(qemu, qemu.qtest, source._devices.values(), lambda *_: None, Calm(None, idle=True))

        def seen() -> VirtioStatus:
            path = virtio["rng0"].path
            return raised(alone.statuses([path], Deadline.after(30))[path])

        assert seen().guest_features.bits == driver.negotiated.bits
        driver.reset()
        assert seen().guest_features.bits == 0
        driver.acknowledge()
        assert seen().guest_features.bits == 0
        driver.driver()
        assert seen().guest_features.untold.startswith("rng0: registers do not tell what the driver acknowledged")
        with pytest.raises(NotSupportedError, match="rng0: registers do not tell"):
            assert seen().guest_features >= {"VERSION_1"}
        driver.negotiate({"VERSION_1"}).features_ok()
        assert seen().guest_features == {"VERSION_1"}


def test_selectors_are_left_as_they_were(surveyed: Boot) -> None:
    with surveyed(Net()) as virtio:
        common = virtio.guest.driver("net0").transport._common
        selectors = (Common.DEVICE_FEATURE_SELECT, Common.DRIVER_FEATURE_SELECT, Common.QUEUE_SELECT)
        for selected in (0, 1, 3, 7):
            for register in selectors:
                common.put(register, selected)
            by_registers(virtio, "net0")
            assert [common.get(register) for register in selectors] == [selected] * 3


def test_behind_a_bridge(surveyed: Boot) -> None:
    bridge = Device("pcie-root-port", id="port0", chassis=1)
    with surveyed(bridge, Rng(bus="port0"), Blk()) as virtio:
        for id in ("rng0", "blk0"):
            assert check(virtio, id).driver_ok


def test_a_device_without_an_id(surveyed: Boot) -> None:
    with surveyed(Blk(), args=["-device", "virtio-rng-pci,disable-legacy=on"]) as virtio:
        (anonymous,) = [device.id for device in virtio if device.id != "blk0"]
        seen = check(virtio, anonymous)
        assert (seen.name, seen.status) == ("virtio-rng", frozenset())


@pytest.mark.parametrize(
    ("devices", "options"),
    [
        ((), {"args": ["-device", "pcie-root-port,id=p,chassis=1", "-device", "pcie-pci-bridge,id=q,bus=p"]}),
        (
            tuple(
                Device("pcie-root-port", chassis=n, addr=f"{n // 8 + 2:x}.{n % 8}", multifunction="on")
                for n in range(32)
            ),
            {},
        ),
        ((), {"transport": "mmio", "args": ["-device", "virtio-balloon-device"]}),
    ],
    ids=["bridge-behind-bridge", "32-root-ports", "no-id-on-mmio"],
)
def test_what_can_not_be_reached_does_not_keep_the_vm_from_starting(
    surveyed: Boot, devices: tuple[Declaration, ...], options: dict[str, Any]
) -> None:
    with surveyed(Rng(), *devices, boot=False, **options) as virtio:
        assert check(virtio, "rng0").host_features.bits
        for device in virtio:
            check(virtio, device.id)


def test_a_device_of_which_nothing_is_known_says_so(surveyed: Boot) -> None:
    behind = ["-device", "pcie-root-port,id=p,chassis=1", "-device", "virtio-rng-pci,bus=p"]
    with surveyed(Blk(), boot=False, args=behind) as virtio:
        (anonymous,) = [device.id for device in virtio if device.id != "blk0"]
        with pytest.raises(NotSupportedError, match="could not be reached"):
            by_registers(virtio, anonymous)


def test_a_vhost_user_device(surveyed: Boot) -> None:
    with surveyed(VhostUserBlk(), Blk()) as virtio:
        assert check(virtio, "vublk0").vhost_started is True
        assert check(virtio, "blk0").vhost_started is False
        virtio.guest.driver("vublk0").reset()
        assert check(virtio, "vublk0").vhost_started is False


def test_after_a_reset_of_the_machine(surveyed: Boot) -> None:
    with surveyed(Rng()) as virtio:
        virtio.vm.reset()
        assert check(virtio, "rng0").status == frozenset()
        virtio.guest.start()
        assert check(virtio, "rng0").driver_ok


@pytest.mark.guest
@pytest.mark.parametrize("transport", ["pci", "mmio"])
def test_a_linux_guest(surveyed: Boot, transport: str) -> None:
    with surveyed(Net(), Blk(), Rng(), guest="linux", transport=transport, timeout=120) as virtio:
        sysfs = virtio.guest.run("cat /sys/bus/virtio/devices/virtio*/features | sort").text.split()
        seen = [check(virtio, device.id) for device in virtio]
        # sysfs has a character for each bit, bit 0 first.
        assert sorted(f"{status.guest_features.bits:064b}"[::-1] for status in seen) == sysfs
        assert all(status.driver_ok for status in seen)
        virtio.vm.stop()
        # A guest that stands still is not asked.
        stopped = by_registers(virtio, "rng0")
        assert (stopped.driver_ok, bool(stopped.guest_features.untold)) == (True, transport == "mmio")
