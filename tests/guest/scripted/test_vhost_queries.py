"""QEMU's introspection of vhost devices other than vhost-user-blk, on a backend of our own: what the plain queries do,
and that ours get by."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from pytest_virtio import (
    Device,
    DisturbingQueryError,
    QemuExitedError,
    RngDriver,
    VhostUserRng,
    Virtio,
    VirtioAssertionError,
    VirtioFactory,
)

from .conftest import Boot
from .vhost_user import GET_FEATURES, VhostUserBackend

pytestmark = pytest.mark.qemu

VERDICT = "DRIVER_OK: the driver finished its set-up"


class RngBackend(VhostUserBackend):
    """An entropy device (virtio 1.3 section 5.4)."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, queues=1)

    def kicked(self) -> None:
        (requests,) = self.vrings
        for head, buffers in requests.fetch(self.ram):
            for address, length in buffers:
                self.ram.write(address, os.urandom(length))
            requests.give_back(self.ram, head, sum(length for _, length in buffers))


class NetBackend(VhostUserBackend):
    """A network card that takes nothing, and offers a feature."""

    GUEST_USO6 = 55

    def __init__(self, path: Path) -> None:
        super().__init__(path, queues=2)

    def answer(self, request: int, payload: bytes) -> bytes | None:
        told = super().answer(request, payload)
        if told is None or request != GET_FEATURES:
            return told
        return (int.from_bytes(told, "little") | 1 << self.GUEST_USO6).to_bytes(8, "little")


@contextmanager
def backed(scripted: Boot, backend: VhostUserBackend, type: str, *args: str, **properties: Any) -> Iterator[Virtio]:
    words = ["-chardev", f"socket,id=c0,path={backend.listener.getsockname()}", *args]
    try:
        with scripted(Device(type, id="v0", **properties), args=words) as virtio:
            yield virtio
    finally:
        backend.stop()


@contextmanager
def vhost_rng(scripted: Boot, directory: Path) -> Iterator[tuple[Virtio, RngDriver]]:
    # 7.2 acknowledges EVENT_IDX for the driver, which the backend never offered.
    with backed(scripted, RngBackend(directory / "v"), "vhost-user-rng-pci", chardev="c0", event_idx="off") as virtio:
        yield virtio, virtio.guest.driver("v0", RngDriver)


def release(virtio: Virtio) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", virtio.vm.qemu_version)[:2])


QUERIES: dict[str, dict[str, int]] = {"status": {}, "queue-status": {"queue": 0}, "vhost-queue-status": {"queue": 0}}


@pytest.mark.parametrize("what", QUERIES)
def test_a_started_device_without_get_vhost(scripted: Boot, tmp_path: Path, what: str) -> None:
    """vhost-user-rng has none since it was made over to vhost-user-base: QEMU calls NULL."""
    with vhost_rng(scripted, tmp_path) as (virtio, driver):
        place = {"path": virtio["v0"].path, **QUERIES[what]}
        if release(virtio) < (9, 0):
            assert virtio.vm.qmp(f"x-query-virtio-{what}", place)
            return
        assert driver.read(16)
        with pytest.raises(QemuExitedError, match="killed by SIGSEGV"):
            virtio.vm.qmp(f"x-query-virtio-{what}", place)


def test_ours_of_a_started_device_without_get_vhost(scripted: Boot, tmp_path: Path) -> None:
    """The status comes from registers; of its rings nobody can tell where they are."""
    with vhost_rng(scripted, tmp_path) as (virtio, driver):
        for _ in range(3):
            status = virtio["v0"].status()
            assert status.driver_ok
            assert status.guest_features == driver.negotiated
            assert f"v0: {VERDICT}" in virtio.dump()
            assert len(driver.read(16)) == 16
        queue = virtio["v0"].queue(0)
        if release(virtio) < (9, 0):
            assert (queue.status().used_idx, queue.status().shadow_avail_idx) == (3, 3)
            return
        assert status.source == "registers"
        assert status.vhost_started is None
        for ask in (queue.status, queue.vhost_status):
            with pytest.raises(DisturbingQueryError):
                ask()
        assert len(driver.read(16)) == 16


def test_the_wire_tells_of_a_started_device_without_get_vhost(virtio_factory: VirtioFactory, tmp_path: Path) -> None:
    """And of what 7.2 acknowledges in the driver's name."""
    backend = RngBackend(tmp_path / "v")
    try:
        with virtio_factory(VhostUserRng(tmp_path / "v", wire=True, event_idx="off")) as virtio:
            device, driver = virtio["vurng0"], virtio.guest.driver("vurng0", RngDriver)
            for _ in range(3):
                assert len(driver.read(16)) == 16
                assert f"vurng0: {VERDICT}" in virtio.dump()
            status, queue = device.status(), device.queue(0)
            assert status.vhost_started
            assert status.vhost_dev is not None
            assert status.vhost_dev.features == device.wire.features
            assert (queue.status().used_idx, queue.status().shadow_avail_idx) == (3, 3)
            assert queue.vhost_status().desc_phys == driver.queue(0).areas.descriptors
            with queue.assert_progress(1, 1):
                driver.read(16)
            if release(virtio) < (9, 0):
                with pytest.raises(VirtioAssertionError, match="not offered by it: VIRTIO_RING_F_INDIRECT_DESC"):
                    device.assert_conforms()
            else:
                device.assert_conforms()
    finally:
        backend.stop()


def test_a_feature_with_another_ones_name(scripted: Boot, tmp_path: Path) -> None:
    """10.0.2 calls bit 55 GUEST_USO4, which is bit 54. (11.1 calls bit 66 GUEST_UDP_TUNNEL_GSO, which is bit 65, but
    does not survive being asked.)"""
    netdev = ("-netdev", "vhost-user,id=n0,chardev=c0")
    # With vectors 7.2 ends at DRIVER_OK under TCG.
    card: dict[str, Any] = {"netdev": "n0", "vectors": 0}
    with backed(scripted, NetBackend(tmp_path / "v"), "virtio-net-pci", *netdev, **card) as virtio:
        vhost = virtio["v0"].status().vhost_dev
        if vhost is None:
            assert release(virtio) >= (11, 1)
            return
        told = cast(dict[str, Any], virtio.vm.qmp("x-query-virtio-status", {"path": virtio["v0"].path}))
        plain = told["vhost-dev"]["features"]["dev-features"]
        misnamed = [text for text in plain if text.startswith("VIRTIO_NET_F_GUEST_USO4:")]
        assert bool(misnamed) == (virtio.vm.qemu_version == "10.0.2")
        assert "VIRTIO_NET_F_GUEST_USO4" not in vhost.features
        assert vhost.features.bits >> NetBackend.GUEST_USO6 & 1
