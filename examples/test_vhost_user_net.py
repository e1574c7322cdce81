"""DPDK's testpmd behind a network card: its ``icmpecho`` mode answers ARP requests. Copy it into your daemon's
repository, with ``VhostUserNet(backend=Daemon([...]))`` in place of testpmd."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_virtio import Stuck, VhostUserNet, Virtio, VirtioFactory

# QEMU 7.2 ends by SIGSEGV at DRIVER_OK of such a card with MSI-X under TCG, so without.
# DPDK 22.11 offers HOST_ECN without the TSO features that it requires, so QEMU is told to leave it out.
WORKS_EVERYWHERE: Any = {"vectors": 0, "host_ecn": False}
ARP_REQUEST, ARP_REPLY = bytes.fromhex("0001080006040001"), bytes.fromhex("0001080006040002")
OURS, THEIRS = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])


def assert_answers(virtio: Virtio, pair: int = 0) -> None:
    net = virtio.guest.driver("vunet0")
    mac = net.mac()
    who_has = ARP_REQUEST + mac + OURS + bytes(6) + THEIRS
    net.send((b"\xff" * 6 + mac + b"\x08\x06" + who_has).ljust(60, b"\0"), pair=pair)
    answer = net.receive(timeout=10, pair=pair)
    assert answer[14:22] == ARP_REPLY
    assert answer[28:42] == THEIRS + mac + OURS


@pytest.mark.virtio(VhostUserNet(wire=True, **WORKS_EVERYWHERE))
def test_negotiation(virtio: Virtio) -> None:
    net = virtio["vunet0"]
    net.assert_backend_offered("VIRTIO_NET_F_MRG_RXBUF", "VIRTIO_F_RING_PACKED")
    net.assert_negotiated("VIRTIO_NET_F_MRG_RXBUF", "VIRTIO_NET_F_MAC")
    net.assert_protocol_features("MQ", "REPLY_ACK")
    net.assert_conforms()


@pytest.mark.parametrize("packed", [False, True])
def test_frames_through_both_pairs_of_queues(virtio_factory: VirtioFactory, packed: bool) -> None:
    card = VhostUserNet(queue_pairs=2, wire=True, packed=packed, **WORKS_EVERYWHERE)
    with virtio_factory(card) as virtio:
        virtio.guest.driver("vunet0").set_queue_pairs(2)
        for pair in (0, 1):
            with virtio["vunet0"].queue(f"tx{pair}").assert_progress(at_least=1, at_most=1):
                assert_answers(virtio, pair)


@pytest.mark.virtio(VhostUserNet(reconnect=1, **WORKS_EVERYWHERE))
def test_frames_after_a_restart(virtio: Virtio) -> None:
    assert_answers(virtio)
    virtio["vunet0"].backend.restart()
    assert_answers(virtio)


@pytest.mark.virtio(VhostUserNet(**WORKS_EVERYWHERE))
def test_a_crash_shows(virtio: Virtio) -> None:
    virtio["vunet0"].backend.kill()
    assert virtio["vunet0"].queue("tx0").verdict().stuck is Stuck.BACKEND_ENDED
