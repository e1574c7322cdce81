"""passt, where it is installed: an address by DHCP through it, and what becomes of that when it is killed, stopped or
started anew."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import dpkt  # type: ignore[import-untyped]
import pytest

from pytest_virtio import (
    NetDriver,
    Passt,
    RequestTimeoutError,
    Stuck,
    VhostUserNet,
    Virtio,
    VirtioAssertionError,
    VirtioDevice,
    VirtioFactory,
)
from pytest_virtio.vm.deadline import Deadline

from .real import is_7_2

pytestmark = [pytest.mark.qemu, pytest.mark.skipif(not shutil.which("passt"), reason="passt is not installed")]

SEVERAL = 20
"""Frames that nobody asked for, such as router advertisements, at the most."""

Serve = Callable[..., AbstractContextManager[tuple[Virtio, VirtioDevice]]]


@pytest.fixture
def serve(virtio_factory: VirtioFactory, program: Path) -> Serve:
    """Boots a VM with passt, for a ``with`` statement."""

    @contextmanager
    def boot(*args: str, wire: bool = True, **more: Any) -> Iterator[tuple[Virtio, VirtioDevice]]:
        if is_7_2(program):
            # With MSI-X under TCG it ends by SIGSEGV at DRIVER_OK.
            more["vectors"] = 0
        with virtio_factory(VhostUserNet(backend=Passt(args), wire=wire, **more)) as virtio:
            yield virtio, virtio["vunet0"]

    return boot


def dhcp(virtio: Virtio, timeout: float | None = None) -> Any:
    """The offer that answers a discover (RFC 2131)."""
    driver = virtio.guest.driver("vunet0", NetDriver)
    said = dpkt.dhcp.DHCP(xid=7, chaddr=driver.mac(), opts=((dpkt.dhcp.DHCP_OPT_MSGTYPE, b"\x01"),))
    datagram = dpkt.udp.UDP(sport=68, dport=67, data=said)
    datagram.ulen = len(datagram)
    packet = dpkt.ip.IP(src=bytes(4), dst=b"\xff" * 4, p=dpkt.ip.IP_PROTO_UDP, data=datagram)
    packet.len = len(packet)
    frame = dpkt.ethernet.Ethernet(dst=b"\xff" * 6, src=driver.mac(), type=0x0800, data=packet)
    driver.send(bytes(frame), timeout=timeout)
    for _ in range(SEVERAL):
        answer = dpkt.ethernet.Ethernet(driver.receive(timeout))
        if isinstance(getattr(answer.data, "data", None), dpkt.udp.UDP):
            offer = dpkt.dhcp.DHCP(answer.data.data.data)
            assert (offer.op, offer.xid, offer.chaddr) == (2, 7, driver.mac())
            assert (dpkt.dhcp.DHCP_OPT_MSGTYPE, b"\x02") in offer.opts
            return offer
    raise AssertionError(f"no offer among {SEVERAL} frames")


@pytest.mark.parametrize("wire", [True, False])
def test_an_offer(serve: Serve, wire: bool) -> None:
    with serve(wire=wire) as (virtio, device):
        with device.queue("tx0").assert_progress(1, 1), device.queue("rx0").assert_progress(at_least=1):
            assert dhcp(virtio).yiaddr
        device.assert_driver_ok()
        device.assert_conforms()


def test_further_arguments(serve: Serve) -> None:
    with serve("--address", "10.0.2.15", "--netmask", "24", "--gateway", "10.0.2.2") as (virtio, _):
        assert dhcp(virtio).yiaddr == int.from_bytes(bytes([10, 0, 2, 15]), "big")


def test_negotiation(serve: Serve) -> None:
    with serve() as (_, device):
        device.assert_backend_offered("VIRTIO_F_VERSION_1", "VIRTIO_NET_F_MRG_RXBUF")
        device.assert_protocol_features("REPLY_ACK", "RARP", "LOG_SHMFD")
        with pytest.raises(VirtioAssertionError, match="INDIRECT_DESC not offered by the vhost backend"):
            device.assert_backend_offered("VIRTIO_RING_F_INDIRECT_DESC")
        assert device.wire.acked_features <= device.wire.features
        assert not device.status().guest_features & {"VIRTIO_RING_F_EVENT_IDX", "VIRTIO_RING_F_INDIRECT_DESC"}


def test_its_queues(serve: Serve) -> None:
    with serve() as (virtio, device):
        dhcp(virtio)
        told = device.wire.told
        assert set(told.queues) == {0, 1}
        for index, queue in told.queues.items():
            status = device.queue(index).vhost_status()
            assert (status.num, status.desc_phys) == (queue.num, told.guest_address(queue.descriptor or 0))


def test_killed(serve: Serve, ended: Callable[[int], bool]) -> None:
    with serve() as (virtio, device):
        pid = device.backend.pid
        device.backend.kill()
        assert ended(pid)
        deadline = Deadline.after(10)
        while device.status().vhost_started:
            assert not deadline.passed()
        with pytest.raises(RequestTimeoutError):
            dhcp(virtio, 0.3)
        assert device.queue("tx0").verdict().stuck is Stuck.BACKEND_ENDED
        assert device.status().driver_ok


def test_stopped_and_continued(serve: Serve) -> None:
    with serve() as (virtio, device):
        device.backend.stop()
        with pytest.raises(RequestTimeoutError):
            dhcp(virtio, 0.3)
        assert device.queue("tx0").verdict().stuck is Stuck.BACKEND_STOPPED
        device.backend.cont()
        assert dhcp(virtio).yiaddr


def test_started_anew(serve: Serve) -> None:
    with serve(reconnect=1) as (virtio, device):
        before = device.backend.pid
        for _ in range(2):
            device.backend.restart()
            assert dhcp(virtio).yiaddr
        assert device.backend.pid != before
