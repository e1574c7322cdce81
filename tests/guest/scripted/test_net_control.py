"""The network device's configuration and control queue, against QEMU's own word and the frames that get through
(virtio 1.3 sections 5.1.4 and 5.1.6.5)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from pytest_virtio import Net, RequestFailedError, UnknownNameError, UsageError, Virtio
from pytest_virtio.guest.scripted.drivers.net import NetDriver
from pytest_virtio.spec.devices.net import NetCtrlClass, NetCtrlRx, NetFeature, NetStatus

from .conftest import Boot
from .frames import BROADCAST, PEER, Wire, ethernet, vlan_tagged, wired

pytestmark = pytest.mark.qemu

MAC = bytes.fromhex("5254000a0b0c")
OTHER = bytes.fromhex("5254000d0e0f")
GROUP = bytes.fromhex("01005e010203")
STRANGER = bytes.fromhex("02000000beef")

MMIO = {"transport": "mmio", "machine": "microvm"}
LEGACY = {"transport": "pci-transitional", "legacy": True}
TRANSPORTS = pytest.mark.parametrize("options", [{}, LEGACY, MMIO], ids=["modern", "legacy", "mmio"])


def text(mac: bytes) -> str:
    return mac.hex(":")


def rx_filter(virtio: Virtio) -> dict[str, Any]:
    """What QEMU says that it lets through."""
    return cast(list[dict[str, Any]], virtio.vm.qmp("query-rx-filter", {"name": "net0"}))[0]


def passes(driver: NetDriver, wire: Wire, frame: bytes) -> bool:
    """Whether a frame comes through: it does before one that always does, or never."""
    last = ethernet(BROADCAST, b"last")
    wire.send(frame, last)
    received = driver.receive()
    if received == frame:
        assert driver.receive() == last
        return True
    assert received == last
    return False


@TRANSPORTS
def test_the_configuration_is_the_devices(scripted: Boot, options: dict[str, Any]) -> None:
    """Address, link, MTU, speed and duplex (5.1.4) are what QEMU was told."""
    card = Net(mac=text(MAC), host_mtu=1400, speed=10000, duplex="full")
    with scripted(card, **options) as virtio:
        driver = virtio.guest.driver("net0", NetDriver)
        config = driver.config()
        assert (config.mac, driver.mac()) == (MAC, MAC)
        assert (config.mtu, config.status) == (1400, NetStatus.LINK_UP)
        assert driver.link_up()
        if not options.get("legacy"):  # SPEED_DUPLEX is bit 63.
            assert (config.speed, config.duplex) == (10000, 1)


@TRANSPORTS
def test_the_link_goes_down_and_up(scripted: Boot, options: dict[str, Any]) -> None:
    """QMP's set_link is seen as a configuration change and in the status (5.1.4)."""
    with scripted(Net(), **options) as virtio:
        driver = virtio.guest.driver("net0", NetDriver)
        driver.config_interrupted()
        for up in (False, True):
            virtio.vm.qmp("set_link", {"name": "net0", "up": up})
            assert driver.config_interrupted()
            assert driver.link_up() is up
            assert not driver.config_interrupted()


def test_without_status_the_link_is_taken_to_be_up(scripted: Boot) -> None:
    """Drivers that haven't negotiated VIRTIO_NET_F_STATUS assume an active link (5.1.4.2)."""
    with scripted(Net(), without={"VIRTIO_NET_F_STATUS"}) as virtio:
        driver = virtio.guest.driver("net0", NetDriver)
        virtio.vm.qmp("set_link", {"name": "net0", "up": False})
        assert driver.link_up()


@TRANSPORTS
def test_promiscuous_mode(scripted: Boot, tmp_path: Path, options: dict[str, Any]) -> None:
    """Frames for others come through while PROMISC is on (5.1.6.5.1)."""
    with wired(scripted, tmp_path, **options) as (virtio, driver, wire):
        for on in (False, True, False):
            driver.set_rx_mode(NetCtrlRx.PROMISC, on)
            assert rx_filter(virtio)["promiscuous"] is on
            assert passes(driver, wire, ethernet(STRANGER, b"x")) is on
            assert passes(driver, wire, ethernet(driver.mac(), b"x"))


@pytest.mark.parametrize(
    ("mode", "field", "on", "off", "to", "then"),
    [
        (NetCtrlRx.ALLMULTI, "multicast", "all", "normal", GROUP, True),
        (NetCtrlRx.ALLUNI, "unicast", "all", "normal", STRANGER, True),
        (NetCtrlRx.NOMULTI, "multicast", "none", "normal", GROUP, False),
        (NetCtrlRx.NOUNI, "unicast", "none", "normal", OTHER, False),
    ],
)
def test_other_receive_modes(
    scripted: Boot, tmp_path: Path, mode: NetCtrlRx, field: str, on: str, off: str, to: bytes, then: bool
) -> None:
    """Modes that let more through, and those of CTRL_RX_EXTRA that let less through (5.1.6.5.1)."""
    with wired(scripted, tmp_path) as (virtio, driver, wire):
        driver.set_rx_mode(NetCtrlRx.PROMISC, False)
        if not then:
            driver.set_mac_table([OTHER], [GROUP])
        for value, word in ((False, off), (True, on), (False, off)):
            driver.set_rx_mode(mode, value)
            assert rx_filter(virtio)[field] == word
            assert passes(driver, wire, ethernet(to, b"x")) is (then if value else not then)


def test_broadcasts_can_be_left_out(scripted: Boot, tmp_path: Path) -> None:
    """NOBCAST (5.1.6.5.1). QEMU's reply has had the truth upside down in ``broadcast-allowed`` since it exists, so the
    frames alone are asked."""
    with wired(scripted, tmp_path) as (_, driver, wire):
        driver.set_rx_mode(NetCtrlRx.PROMISC, False)
        driver.set_rx_mode(NetCtrlRx.NOBCAST, True)
        wire.send(ethernet(BROADCAST, b"x"), ethernet(driver.mac(), b"y"))
        assert driver.receive() == ethernet(driver.mac(), b"y")


@TRANSPORTS
def test_the_table_of_addresses(scripted: Boot, tmp_path: Path, options: dict[str, Any]) -> None:
    """Frames for the addresses of both tables come through, and for no others (5.1.6.5.2)."""
    with wired(scripted, tmp_path, **options) as (virtio, driver, wire):
        driver.set_rx_mode(NetCtrlRx.PROMISC, False)
        assert not passes(driver, wire, ethernet(OTHER, b"x"))
        driver.set_mac_table([OTHER, MAC], [GROUP])
        seen = rx_filter(virtio)
        assert sorted(seen["unicast-table"]) == [text(MAC), text(OTHER)]
        assert seen["multicast-table"] == [text(GROUP)]
        assert [passes(driver, wire, ethernet(to, b"x")) for to in (OTHER, MAC, GROUP, STRANGER)] == [1, 1, 1, 0]
        driver.set_mac_table()
        assert (rx_filter(virtio)["unicast-table"], rx_filter(virtio)["multicast-table"]) == ([], [])
        assert not passes(driver, wire, ethernet(OTHER, b"x"))


WITHOUT_COMMAND = {**LEGACY, "without": {"CTRL_MAC_ADDR"}}


@pytest.mark.parametrize(
    "options", [{}, LEGACY, WITHOUT_COMMAND, MMIO], ids=["modern", "legacy", "legacy by configuration", "mmio"]
)
def test_another_address(scripted: Boot, tmp_path: Path, options: dict[str, Any]) -> None:
    """By command, or on legacy devices by the configuration (5.1.6.5.2, 5.1.4.3); QEMU goes by it at once."""
    with wired(scripted, tmp_path, **options) as (virtio, driver, wire):
        former = driver.mac()
        driver.set_rx_mode(NetCtrlRx.PROMISC, False)
        commands = driver.queue("ctrl").completed
        driver.set_mac(MAC)
        assert driver.queue("ctrl").completed - commands == (0 if "without" in options else 1)
        assert driver.mac() == MAC
        assert rx_filter(virtio)["main-mac"] == text(MAC)
        assert f"macaddr={text(MAC)}" in virtio.vm.hmp("info network")
        assert [passes(driver, wire, ethernet(to, b"x")) for to in (MAC, former)] == [True, False]


@TRANSPORTS
def test_vlans(scripted: Boot, tmp_path: Path, options: dict[str, Any]) -> None:
    """Tagged frames come through for the VLANs that were added (5.1.6.5.3). QEMU 10.0 begins with all of them."""
    with wired(scripted, tmp_path, **options) as (virtio, driver, wire):
        driver.set_rx_mode(NetCtrlRx.PROMISC, False)
        for vlan in (42, 4095):
            for change, on in ((driver.delete_vlan, False), (driver.add_vlan, True), (driver.delete_vlan, False)):
                change(vlan)
                assert (vlan in rx_filter(virtio)["vlan-table"]) is on
                assert passes(driver, wire, vlan_tagged(BROADCAST, vlan, b"x")) is on


@TRANSPORTS
def test_the_announcement_is_wanted_until_it_is_acknowledged(scripted: Boot, options: dict[str, Any]) -> None:
    """QMP's announce-self sets VIRTIO_NET_S_ANNOUNCE; ACK clears it (5.1.6.5.4)."""
    with scripted(Net(), **options) as virtio:
        driver = virtio.guest.driver("net0", NetDriver)
        driver.config_interrupted()
        virtio.vm.qmp("announce-self", {"initial": 50, "max": 50, "rounds": 1, "step": 10})
        assert driver.config_interrupted()
        assert driver.config().status == NetStatus.LINK_UP | NetStatus.ANNOUNCE
        driver.announce_ack()
        assert driver.config().status == NetStatus.LINK_UP


def test_pairs_of_queues(scripted: Boot, tmp_path: Path) -> None:
    """1 to ``max_virtqueue_pairs`` (5.1.6.5.6), which is 1: of QEMU's backends only tap, vhost-user and vhost-vdpa have
    more. The device goes on with what it had when it refuses a number."""
    with wired(scripted, tmp_path, {"mq": "on"}) as (_, driver, wire):
        assert "MQ" in driver.negotiated
        assert driver.config().max_virtqueue_pairs == 1
        assert [queue.name for queue in driver.queues] == ["rx0", "tx0", "ctrl"]
        driver.set_queue_pairs(1)
        for pairs in (0, 2):
            with pytest.raises(RequestFailedError, match="class 4"):
                driver.set_queue_pairs(pairs)
        assert passes(driver, wire, ethernet(driver.mac(), b"x"))
        driver.send(ethernet(PEER, b"y"))
        assert wire.receive() == ethernet(PEER, b"y")
        with pytest.raises(UnknownNameError, match="tx1"):
            driver.send(b"x" * 60, pair=1)


def test_pairs_are_not_chosen_without_multiqueue(scripted: Boot) -> None:
    """Commands of a feature that was not negotiated are refused."""
    with scripted(Net(), without={"MQ"}) as virtio, pytest.raises(RequestFailedError, match="ack 1"):
        virtio.guest.driver("net0", NetDriver).set_queue_pairs(1)


def test_guest_offloads(scripted: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 bits, one for each GUEST_* feature (5.1.6.5.8). QEMU refuses them all on a backend that knows no headers, and
    of those that do (tap, vhost-user, vhost-vdpa) none is here: so what would be sent is looked at."""
    with scripted(Net()) as virtio:
        driver = virtio.guest.driver("net0", NetDriver)
        with pytest.raises(RequestFailedError, match="command 0 of class 5"):
            driver.set_guest_offloads()
        sent: list[bytes] = []
        monkeypatch.setattr(driver, "control", lambda class_, command, data, timeout: sent.append(data))
        driver.set_guest_offloads({NetFeature.GUEST_TSO4, "VIRTIO_NET_F_GUEST_CSUM", 55})
        assert sent == [bytes.fromhex("8200000000008000")]


# What goes wrong.


@pytest.mark.parametrize(("class_", "command"), [(NetCtrlClass.RX, 200), (200, 0)])
def test_unknown_commands_are_refused(scripted: Boot, class_: int, command: int) -> None:
    """The device answers VIRTIO_NET_ERR (5.1.6.5), and goes on."""
    with scripted(Net()) as virtio:
        driver = virtio.guest.driver("net0", NetDriver)
        with pytest.raises(RequestFailedError) as caught:
            driver.control(class_, command, b"\0")
        assert (caught.value.expected, caught.value.seen) == ("ack 0 (VIRTIO_NET_OK)", "ack 1")
        driver.set_rx_mode(NetCtrlRx.PROMISC, True)


def test_a_device_without_control_queue_takes_no_commands(scripted: Boot) -> None:
    """The error names the queues that there are."""
    with scripted(Net(ctrl_vq="off")) as virtio, pytest.raises(UnknownNameError, match="'ctrl'"):
        virtio.guest.driver("net0", NetDriver).set_mac(MAC)


MISTAKES: dict[str, Callable[[NetDriver], None]] = {
    "mac=b'12345'": lambda driver: driver.set_mac(b"12345"),
    "mac=b'1234567'": lambda driver: driver.set_mac_table([MAC], [b"1234567"]),
    "vlan=65536": lambda driver: driver.add_vlan(65536),
    "vlan=-1": lambda driver: driver.delete_vlan(-1),
    "virtqueue_pairs: 65536": lambda driver: driver.set_queue_pairs(65536),
    "on=-1: True or False": lambda driver: driver.set_rx_mode(NetCtrlRx.PROMISC, cast(bool, -1)),
    "class_: 256": lambda driver: driver.control(256, 0),
    "offloads=.* 64 bits": lambda driver: driver.set_guest_offloads([NetFeature.GUEST_UDP_TUNNEL_GSO]),
    "unknown feature": lambda driver: driver.set_guest_offloads(["GUEST_TSO5"]),
}


def test_what_fits_no_field_is_the_users_mistake(scripted: Boot) -> None:
    """The error names the argument, and nothing was sent."""
    with scripted(Net()) as virtio:
        driver = virtio.guest.driver("net0", NetDriver)
        for complaint, mistake in MISTAKES.items():
            with pytest.raises(UsageError, match=complaint):
                mistake(driver)
        assert driver.queue("ctrl").completed == 0
