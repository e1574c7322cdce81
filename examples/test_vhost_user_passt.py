"""passt: the host's network for a Linux guest, without a tap device or privileges. Copy it into your repository,
with ``VhostUserNet(backend=Daemon([...]))`` in place of passt."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_virtio import Passt, Stuck, VhostUserNet, Virtio, VirtioFactory

LEASE = "ip link set eth0 up && udhcpc -n -q -i eth0"


@pytest.fixture(scope="module")
def linux(virtio_factory: VirtioFactory) -> Iterator[Virtio]:
    """A boot takes seconds, so the tests share one. QEMU 7.2 wants a vhost-user card without MSI-X under TCG."""
    with virtio_factory(VhostUserNet(backend=Passt(), reconnect=1, vectors=0), guest="linux") as virtio:
        yield virtio


def test_negotiation(linux: Virtio) -> None:
    net = linux["vunet0"]
    net.assert_backend_offered("VIRTIO_F_VERSION_1", "VIRTIO_NET_F_MRG_RXBUF")
    net.assert_negotiated("VIRTIO_NET_F_MRG_RXBUF")
    net.assert_protocol_features("REPLY_ACK")
    net.assert_conforms()


def test_an_address(linux: Virtio) -> None:
    with linux["vunet0"].queue("rx0").assert_progress(), linux["vunet0"].queue("tx0").assert_progress(at_least=2):
        assert linux.guest.run(LEASE, timeout=60).exit_status == 0


def test_an_address_after_a_restart(linux: Virtio) -> None:
    linux["vunet0"].backend.restart()
    assert linux.guest.run(LEASE, timeout=60).exit_status == 0


def test_a_crash_shows(linux: Virtio) -> None:
    linux["vunet0"].backend.kill()
    assert linux["vunet0"].queue("tx0").verdict().stuck is Stuck.BACKEND_ENDED
