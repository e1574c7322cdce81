"""The Rust virtiofsd, where one is installed: the C one's round trip, and what is different."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_virtio import (
    Delay,
    MissingError,
    RequestTimeoutError,
    Stuck,
    UsageError,
    VhostUserFs,
    Virtio,
    VirtioAssertionError,
    VirtioFactory,
    Wire,
)
from pytest_virtio.backend.programs import VIRTIOFSD, VIRTIOFSD_IN_RUST

from .real import fs, is_7_2

pytestmark = pytest.mark.qemu

RoundTrip = Callable[[Virtio], None]


def is_rust(program: Path) -> bool:
    """The C one says "virtiofsd version 7.2.22"."""
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=20)
    return re.match(r"virtiofsd (backend )?\d", told.stdout) is not None


@pytest.fixture(scope="module")
def rust() -> Path:
    """The program, in PATH or where distributions put it."""
    in_path = shutil.which("virtiofsd")
    for place in ([Path(in_path)] if in_path else []) + list(VIRTIOFSD.places):
        if place.exists() and is_rust(place):
            return place
    pytest.skip("no Rust virtiofsd is installed")


@pytest.fixture
def declare(rust: Path) -> Callable[..., Any]:
    """Declares the device, by default with a witness."""
    return lambda **more: VhostUserFs(program=rust, **{"wire": True, **more})


@pytest.fixture
def round_trip(program: Path) -> RoundTrip:
    """On 7.2 again if need be: 1.13 loses a kick that comes before SET_VRING_ENABLE, for which 7.2 does not wait, and
    with EVENT_IDX no driver kicks again by itself."""

    def persistent(virtio: Virtio) -> None:
        with contextlib.suppress(RequestTimeoutError):
            fs(virtio, 1)
        virtio.guest.driver("vufs0").queue("request0").kick(always=True)
        fs(virtio)

    return persistent if is_7_2(program) else fs


@pytest.mark.parametrize("wire", [True, False])
def test_round_trip(
    virtio_factory: VirtioFactory, declare: Callable[..., Any], round_trip: RoundTrip, wire: bool
) -> None:
    with virtio_factory(declare(wire=wire)) as virtio:
        device = virtio["vufs0"]
        with device.queue("request0").assert_progress(at_least=3):
            round_trip(virtio)
        device.assert_driver_ok()
        device.assert_conforms()


def test_as_an_ordinary_user(
    virtio_factory: VirtioFactory, declare: Callable[..., Any], round_trip: RoundTrip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whom it refuses a new root directory: "sandbox mode 'chroot' can only be used by root"."""
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    with virtio_factory(declare()) as virtio:
        round_trip(virtio)
        command = Path(f"/proc/{virtio['vufs0'].backend.pid}/cmdline").read_bytes()
        assert b"\0--sandbox=none\0" in command


def test_an_ordinary_user_is_not_given_the_one_in_c(
    virtio_factory: VirtioFactory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It runs as root only, so that for others it is missing, as --virtio-missing has it."""
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    monkeypatch.setenv("PATH", str(tmp_path))
    if any(place.exists() for place in VIRTIOFSD_IN_RUST.places):
        pytest.skip("the one in Rust is installed")
    with pytest.raises(MissingError, match="in C, runs as root only"), virtio_factory(VhostUserFs()):
        pass


def test_negotiation(virtio_factory: VirtioFactory, declare: Callable[..., Any]) -> None:
    """Unlike the C one it can be reset, and offers neither a notification area nor VIRTIO_F_NOTIFY_ON_EMPTY."""
    with virtio_factory(declare()) as virtio:
        device = virtio["vufs0"]
        device.assert_backend_offered("VIRTIO_F_VERSION_1", "VIRTIO_RING_F_EVENT_IDX", "VIRTIO_RING_F_INDIRECT_DESC")
        device.assert_protocol_features("MQ", "REPLY_ACK", "CONFIGURE_MEM_SLOTS", "RESET_DEVICE")
        with pytest.raises(VirtioAssertionError, match="NOTIFY_ON_EMPTY not offered"):
            device.assert_backend_offered("VIRTIO_F_NOTIFY_ON_EMPTY")
        with pytest.raises(VirtioAssertionError, match="HOST_NOTIFIER not agreed on"):
            device.assert_protocol_features("HOST_NOTIFIER")
        assert device.wire.acked_features <= device.wire.features


def test_its_queues(virtio_factory: VirtioFactory, declare: Callable[..., Any], round_trip: RoundTrip) -> None:
    with virtio_factory(declare()) as virtio:
        round_trip(virtio)
        told = virtio["vufs0"].wire.told
        assert set(told.queues) == {0, 1}
        for index, queue in told.queues.items():
            status = virtio["vufs0"].queue(index).vhost_status()
            assert (status.num, status.desc_phys) == (queue.num, told.guest_address(queue.descriptor or 0))


def test_a_driver_begins_anew(
    virtio_factory: VirtioFactory, declare: Callable[..., Any], round_trip: RoundTrip, program: Path
) -> None:
    """QEMU stops both rings and sets them up again; 10.0 and 11.1 also send RESET_DEVICE, 7.2 does not."""
    with virtio_factory(declare()) as virtio:
        wire = virtio["vufs0"].wire
        round_trip(virtio)
        before = len(wire.messages("SET_VRING_ADDR"))
        virtio.guest.driver("vufs0").initialise()
        round_trip(virtio)
        assert [message.fields["index"] for message in wire.messages("GET_VRING_BASE", reply=False)] == [0, 1]
        assert len(wire.messages("SET_VRING_ADDR")) == before + 2
        assert bool(wire.messages("RESET_DEVICE")) is not is_7_2(program)


def test_killed(
    virtio_factory: VirtioFactory, declare: Callable[..., Any], round_trip: RoundTrip, ended: Callable[[int], bool]
) -> None:
    with virtio_factory(declare()) as virtio:
        device = virtio["vufs0"]
        round_trip(virtio)
        pid = device.backend.pid
        with pytest.raises(UsageError, match="can't be restarted: QEMU connects to it once"):
            device.backend.restart()
        device.backend.kill()
        assert ended(pid)
        with pytest.raises(RequestTimeoutError):
            fs(virtio, 0.3)
        assert device.queue("request0").verdict().stuck is Stuck.BACKEND_ENDED
        assert device.status().vhost_started


def test_stopped_and_continued(
    virtio_factory: VirtioFactory, declare: Callable[..., Any], round_trip: RoundTrip
) -> None:
    with virtio_factory(declare()) as virtio:
        device = virtio["vufs0"]
        device.backend.stop()
        with pytest.raises(RequestTimeoutError):
            fs(virtio, 0.3)
        assert device.queue("request0").verdict().stuck is Stuck.BACKEND_STOPPED
        device.backend.cont()
        round_trip(virtio)


def test_a_kick_before_the_ring_is_enabled(
    virtio_factory: VirtioFactory, declare: Callable[..., Any], round_trip: RoundTrip, program: Path
) -> None:
    """None is lost on 10.0 and 11.1, for they ask for an answer to SET_VRING_ENABLE and wait for it."""
    with virtio_factory(declare(wire=Wire(faults=(Delay("SET_VRING_ENABLE", 0.2),)))) as virtio:
        round_trip(virtio)
        assert bool(virtio["vufs0"].wire.messages("SET_VRING_ENABLE", reply=True)) is not is_7_2(program)
