"""Input devices (virtio 1.3 section 5.8). The oracles: what QMP was told to type and point, in codes of Linux's
input-event-codes.h, and a VNC client that sees the keyboard's lamps."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from pytest_virtio import (
    Device,
    Keyboard,
    Mouse,
    RequestFailedError,
    RequestTimeoutError,
    Tablet,
    UnknownNameError,
    UsageError,
)
from pytest_virtio.guest.scripted.drivers.input import InputDriver
from pytest_virtio.spec.devices.input import InputConfig, InputConfigSelect, InputDevids, InputEventType

from .conftest import Boot, status_of

pytestmark = pytest.mark.qemu

KEY, REL, ABS, LED = InputEventType.KEY, InputEventType.REL, InputEventType.ABS, InputEventType.LED

# Linux input-event-codes.h.
KEY_A, KEY_LEFTSHIFT, BTN_LEFT, BTN_RIGHT = 30, 42, 0x110, 0x111
REL_X, REL_Y, REL_WHEEL = 0, 1, 8
ABS_X, ABS_Y, ABS_MT_SLOT, ABS_MT_POSITION_X, ABS_MT_TRACKING_ID = 0, 1, 0x2F, 0x35, 0x39
LED_NUML, LED_CAPSL, LED_SCROLLL = 0, 1, 2
INPUT_PROP_DIRECT = 1
BUS_VIRTUAL = 6

VNC_LED_STATE = -261
VNC_CAPS_LOCK = 4


def qcode(name: str) -> dict[str, str]:
    return {"type": "qcode", "data": name}


def moved(kind: str, axis: str, value: int) -> dict[str, object]:
    return {"type": kind, "data": {"axis": axis, "value": value}}


def button(name: str, down: bool) -> dict[str, object]:
    return {"type": "btn", "data": {"button": name, "down": down}}


def touch(kind: str, **where: object) -> dict[str, object]:
    return {"type": "mtt", "data": {"type": kind, "slot": 1, "tracking-id": 5, "axis": "x", "value": 0, **where}}


def test_a_keyboard_says_what_it_is(scripted: Boot) -> None:
    """Configuration queries (5.8.4): only keyboards have keys of letters and lamps, and none has axes."""
    with scripted(Keyboard()) as virtio:
        driver = virtio.guest.driver("keyboard0", InputDriver)
        assert "Keyboard" in driver.name()
        assert driver.ids().bustype == BUS_VIRTUAL
        assert {KEY_A, KEY_LEFTSHIFT} <= driver.codes(KEY)
        assert driver.codes(LED) == {LED_NUML, LED_CAPSL, LED_SCROLLL}
        assert driver.codes(REL) == driver.codes(ABS) == frozenset()
        assert driver.abs_info(ABS_X) is None
        assert status_of(virtio, "keyboard0").driver_ok


def test_a_mouse_and_a_tablet_say_what_they_are(scripted: Boot) -> None:
    """A mouse has relative axes, a tablet absolute ones with a range (5.8.4, ABS_INFO)."""
    with scripted(Mouse(), Tablet()) as virtio:
        mouse = virtio.guest.driver("mouse0", InputDriver)
        tablet = virtio.guest.driver("tablet0", InputDriver)
        assert {REL_X, REL_Y, REL_WHEEL} <= mouse.codes(REL)
        assert {BTN_LEFT, BTN_RIGHT} <= mouse.codes(KEY) & tablet.codes(KEY)
        assert mouse.ids() != tablet.ids() != InputDevids(0, 0, 0, 0)
        assert tablet.codes(ABS) == {ABS_X, ABS_Y}
        across = tablet.abs_info(ABS_X)
        assert across is not None
        assert (across.min, across.max) == (0, 0x7FFF)
        assert tablet.config().select == InputConfigSelect.ABS_INFO
        assert tablet.config().size_ == across.size()


def test_the_serial_number_is_the_property(scripted: Boot) -> None:
    """ID_SERIAL is text of ``size`` bytes (5.8.4), ``serial=`` of QEMU's device; without it there is nothing."""
    with scripted(Mouse(serial="m-4711"), Tablet()) as virtio:
        assert virtio.guest.driver("mouse0", InputDriver).serial() == "m-4711"
        assert virtio.guest.driver("tablet0", InputDriver).serial() == ""


@pytest.mark.parametrize("interrupts", ["msix", "intx", "none"])
def test_typing_arrives(scripted: Boot, interrupts: str) -> None:
    """Events fill the buffers of eventq in order, and SYN ends a report (5.8.6)."""
    with scripted(Keyboard(), interrupts=interrupts) as virtio:
        driver = virtio.guest.driver("keyboard0", InputDriver)
        virtio.vm.qmp("send-key", {"keys": [qcode("shift"), qcode("a")]})
        typed = [event for _ in range(4) for event in driver.next_report()]
        assert typed == [(KEY, KEY_LEFTSHIFT, 1), (KEY, KEY_A, 1), (KEY, KEY_A, 0), (KEY, KEY_LEFTSHIFT, 0)]


def test_buffers_come_back_into_use(scripted: Boot) -> None:
    """More events than eventq has buffers: each is put back, or the device would drop events (5.8.6.2)."""
    with scripted(Mouse()) as virtio:
        driver = virtio.guest.driver("mouse0", InputDriver)
        for step in range(driver.queue("event").size):
            virtio.vm.qmp("input-send-event", {"events": [moved("rel", "x", step + 1)]})
            assert driver.next_report() == ((REL, REL_X, step + 1),)


def test_a_mouse_moves(scripted: Boot) -> None:
    """Values are signed, in two's complement; what was sent together is one report (5.8.6)."""
    with scripted(Mouse()) as virtio:
        driver = virtio.guest.driver("mouse0", InputDriver)
        motion = [moved("rel", "x", -5), moved("rel", "y", 7), button("right", True)]
        virtio.vm.qmp("input-send-event", {"events": motion})
        assert set(driver.next_report()) == {(REL, REL_X, -5), (REL, REL_Y, 7), (KEY, BTN_RIGHT, 1)}
        virtio.vm.qmp("input-send-event", {"events": [button("wheel-down", True)]})
        assert (REL, REL_WHEEL, -1) in driver.next_report()


def test_a_tablet_points(scripted: Boot) -> None:
    """Absolute positions (5.8.6)."""
    with scripted(Tablet()) as virtio:
        driver = virtio.guest.driver("tablet0", InputDriver)
        motion = [moved("abs", "x", 1234), moved("abs", "y", 0x7FFF), button("left", True)]
        virtio.vm.qmp("input-send-event", {"events": motion})
        assert set(driver.next_report()) == {(ABS, ABS_X, 1234), (ABS, ABS_Y, 0x7FFF), (KEY, BTN_LEFT, 1)}


def test_a_finger_touches(scripted: Boot) -> None:
    """A touch screen has direct input and slots for fingers (5.8.4, PROP_BITS); QEMU 8.1 and later have it."""
    try:
        with scripted(Device("virtio-multitouch-pci")) as virtio:
            driver = virtio.guest.driver("multitouch0", InputDriver)
            assert driver.properties() == {INPUT_PROP_DIRECT}
            assert driver.abs_info(ABS_MT_SLOT) is not None
            virtio.vm.qmp("input-send-event", {"events": [touch("begin"), touch("data", value=777)]})
            report = driver.next_report()
            assert set(report) >= {(ABS, ABS_MT_SLOT, 1), (ABS, ABS_MT_TRACKING_ID, 5), (ABS, ABS_MT_POSITION_X, 777)}
    except UnknownNameError as error:
        pytest.skip(str(error))


def test_lamps_light(scripted: Boot, tmp_path: Path) -> None:
    """LED events through statusq (5.8.6): a VNC client is told of the keyboard's lamps."""
    with scripted(Keyboard(), args=["-vnc", f"unix:{tmp_path / 'vnc'}"]) as virtio:
        driver = virtio.guest.driver("keyboard0", InputDriver)
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(10)
            peer.connect(str(tmp_path / "vnc"))
            ask_for_lamps(peer)
            assert next_lamps(peer) == 0
            driver.send(LED, LED_CAPSL, 1)
            assert next_lamps(peer) == VNC_CAPS_LOCK
            driver.send(LED, LED_CAPSL, 0)
            assert next_lamps(peer) == 0


def ask_for_lamps(peer: socket.socket) -> None:
    """Shake hands by RFC 6143, and want nothing but the state of the lamps."""
    receive(peer, 12)
    peer.sendall(b"RFB 003.008\n")
    assert b"\x01" in receive(peer, receive(peer, 1)[0])
    peer.sendall(b"\x01")
    assert receive(peer, 4) == bytes(4)
    peer.sendall(b"\x01")
    receive(peer, struct.unpack(">20xI", receive(peer, 24))[0])
    peer.sendall(struct.pack(">BxHi", 2, 1, VNC_LED_STATE))


def next_lamps(peer: socket.socket) -> int:
    update = struct.unpack(">BxHHHHHiB", receive(peer, 17))
    assert (update[0], update[1], update[-2]) == (0, 1, VNC_LED_STATE)
    return int(update[-1])


def receive(peer: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        more = peer.recv(length - len(data))
        assert more
        data += more
    return data


def test_silence_is_an_error_in_time(scripted: Boot) -> None:
    with scripted(Keyboard()) as virtio, pytest.raises(RequestTimeoutError, match="event"):
        virtio.guest.driver("keyboard0", InputDriver).next_event(timeout=0.05)


MISTAKES: dict[str, Callable[[InputDriver], object]] = {
    "select='zz'": lambda driver: driver.select(cast(int, "zz")),
    "select=-1: a number of 8 bits": lambda driver: driver.select(-1),
    "subsel=256": lambda driver: driver.abs_info(256),
    "type: 65536": lambda driver: driver.send(65536, 0, 0),
    "value=4294967296": lambda driver: driver.send(LED, LED_CAPSL, 1 << 32),
    "value=-2147483649": lambda driver: driver.send(LED, LED_CAPSL, -(1 << 31) - 1),
}


def test_what_fits_no_field_is_the_users_mistake(scripted: Boot) -> None:
    """The error names what was seen, and the device hears of nothing."""
    with scripted(Keyboard()) as virtio:
        driver = virtio.guest.driver("keyboard0", InputDriver)
        for complaint, mistake in MISTAKES.items():
            with pytest.raises(UsageError, match=complaint):
                mistake(driver)
        assert (driver.queue("status").completed, driver.queue("status").pending) == (0, ())


def test_claims_of_a_hostile_device_are_refused(scripted: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window larger than the configuration has (5.8.4), and an event of another length (5.8.6)."""
    with scripted(Keyboard()) as virtio:
        driver = virtio.guest.driver("keyboard0", InputDriver)
        with monkeypatch.context() as patch:
            boast = InputConfig(select=1, subsel=0, size_=129, reserved=b"", u=b"")
            patch.setattr(driver, "read_config", lambda layout: boast)
            with pytest.raises(RequestFailedError, match="size"):
                driver.name()
        virtio.vm.qmp("send-key", {"keys": [qcode("a")]})
        monkeypatch.setattr("pytest_virtio.guest.scripted.queue.Request.written", b"short")
        with pytest.raises(RequestFailedError, match="no event"):
            driver.next_event()
