"""The console device (virtio 1.3 section 5.3). The oracles: QEMU's ring buffers and sockets at the other end of the
ports, and what QMP says of them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_virtio import (
    NotSupportedError,
    RequestFailedError,
    RequestTimeoutError,
    Serial,
    UnknownNameError,
    UsageError,
    Virtio,
)
from pytest_virtio.guest.scripted.drivers.console import ConsoleDriver
from pytest_virtio.spec.devices.console import ConsoleControl, ConsoleEvent

from .conftest import Boot, status_of

pytestmark = pytest.mark.qemu

SEVERAL_BUFFERS = bytes(range(256)) * 256


def heard(virtio: Virtio, chardev: str) -> bytes:
    """What came out at the other end of a port; only ASCII survives JSON."""
    text = virtio.vm.qmp("ringbuf-read", {"device": chardev, "size": 65536})
    assert isinstance(text, str)
    return text.encode()


def is_open(virtio: Virtio, chardev: str) -> bool:
    chardevs = virtio.vm.qmp("query-chardev")
    assert isinstance(chardevs, list)
    (said,) = [each["frontend-open"] for each in chardevs if each["label"] == chardev]
    return bool(said)


class Wire:
    """A socket at the host's end of a port."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.settimeout(10)
        self.listener.bind(str(path))
        self.listener.listen()

    def chardev(self, id: str = "wire") -> list[str]:
        return ["-chardev", f"socket,id={id},path={self.path}"]

    def accept(self) -> socket.socket:
        peer, _ = self.listener.accept()
        peer.settimeout(10)
        return peer


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    made = Wire(tmp_path / "wire")
    with made.listener:
        yield made


def received(peer: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length and (more := peer.recv(length - len(data))):
        data += more
    return data


def test_ports_are_told_of(scripted: Boot) -> None:
    """DEVICE_READY, PORT_ADD, PORT_READY, PORT_NAME, PORT_OPEN (5.3.6.2), by the time that the test begins."""
    with scripted(Serial(ports=30)) as virtio:
        driver = virtio.guest.driver("serial0", ConsoleDriver)
        assert driver.config().max_nr_ports == 31
        # QEMU keeps number 0 for a console.
        assert {id: port.name for id, port in driver.ports.items()} == {n + 1: f"serial0.{n}" for n in range(30)}
        assert all(port.host_open and not port.is_console for port in driver.ports.values())
        assert driver.port("serial0.4") is driver.port(5)
        with pytest.raises(UnknownNameError, match="unknown port of serial0"):
            driver.port("serial0.l")
        assert status_of(virtio, "serial0").driver_ok


def test_the_host_sees_the_port_open(scripted: Boot) -> None:
    """PORT_OPEN in the driver's mouth (5.3.6.2)."""
    with scripted(Serial()) as virtio:
        port = virtio.guest.driver("serial0", ConsoleDriver).port(1)
        assert not is_open(virtio, "serial0.port0")
        port.open()
        assert is_open(virtio, "serial0.port0")
        port.close()
        assert not is_open(virtio, "serial0.port0")


@pytest.mark.parametrize("transport", ["pci", "pci-transitional", "pci-legacy", "mmio"])
def test_what_is_written_comes_out(scripted: Boot, transport: str) -> None:
    """Transmit queues, each its own port (5.3.6)."""
    with scripted(Serial(ports=2), transport=transport) as virtio:
        driver = virtio.guest.driver("serial0", ConsoleDriver)
        driver.port("serial0.0").open().write(b"first")
        driver.port("serial0.1").open().write(b"second")
        assert heard(virtio, "serial0.port0") == b"first"
        assert heard(virtio, "serial0.port1") == b"second"


@pytest.mark.parametrize("interrupts", ["msix", "intx", "none"])
def test_both_directions(scripted: Boot, wire: Wire, interrupts: str) -> None:
    """More than one buffer in either direction, and what isn't asked for stays for the next read (5.3.6)."""
    port = ["-device", "virtserialport,bus=serial0.0,chardev=wire,name=talk"]
    with (
        scripted(Serial(), args=[*wire.chardev(), *port], interrupts=interrupts) as virtio,
        wire.accept() as peer,
    ):
        talk = virtio.guest.driver("serial0", ConsoleDriver).port("talk").open()
        talk.write(SEVERAL_BUFFERS)
        assert received(peer, len(SEVERAL_BUFFERS)) == SEVERAL_BUFFERS
        peer.sendall(SEVERAL_BUFFERS + b"and more")
        assert talk.read(len(SEVERAL_BUFFERS)) == SEVERAL_BUFFERS
        assert talk.read(3) + talk.read(5) == b"and more"


def test_too_little_is_kept_for_the_next_read(scripted: Boot, wire: Wire) -> None:
    port = ["-device", "virtserialport,bus=serial0.0,chardev=wire,name=talk"]
    with scripted(Serial(), args=[*wire.chardev(), *port]) as virtio, wire.accept() as peer:
        talk = virtio.guest.driver("serial0", ConsoleDriver).port("talk").open()
        peer.sendall(b"abc")
        assert talk.read(1) == b"a"
        with pytest.raises(RequestTimeoutError, match="2 bytes, kept"):
            talk.read(3, timeout=0.05)
        peer.sendall(b"d")
        assert talk.read(3) == b"bcd"


def test_the_hosts_end_closes(scripted: Boot, wire: Wire) -> None:
    """PORT_OPEN in the device's mouth (5.3.6.2)."""
    port = ["-device", "virtserialport,bus=serial0.0,chardev=wire,name=talk"]
    with scripted(Serial(), args=[*wire.chardev(), *port]) as virtio:
        talk = virtio.guest.driver("serial0", ConsoleDriver).port("talk")
        with wire.accept():
            talk.await_host_open()
        talk.await_host_open(False)
        assert not talk.host_open


def test_ports_come_and_go(scripted: Boot) -> None:
    """PORT_ADD and PORT_REMOVE while the device is running (5.3.6.2); the number is used again."""
    with scripted(Serial()) as virtio:
        driver = virtio.guest.driver("serial0", ConsoleDriver)
        for name in ("late", "later"):
            virtio.vm.qmp("chardev-add", {"id": name, "backend": {"type": "ringbuf", "data": {}}})
            plug = {"driver": "virtserialport", "id": f"{name}-port", "bus": "serial0.0", "chardev": name, "name": name}
            virtio.vm.qmp("device_add", plug)
            port = driver.await_port(name).open()
            assert port.id == 2
            port.write(b"here I am")
            assert heard(virtio, name) == b"here I am"
            virtio.vm.qmp("device_del", {"id": f"{name}-port"})
            driver.await_control(lambda: 2 not in driver.ports, "the port's end")
        assert [port.name for port in driver.ports.values()] == ["serial0.0"]


@contextmanager
def with_a_console(scripted: Boot, **options: object) -> Iterator[Virtio]:
    args = ["-chardev", "ringbuf,id=tty", "-device", "virtconsole,bus=serial0.0,chardev=tty"]
    with scripted(Serial(ports=0), args=args, **options) as virtio:
        yield virtio


def test_a_console_port_is_opened(scripted: Boot) -> None:
    """CONSOLE_PORT: the driver MUST answer with PORT_OPEN (5.3.6.2). QEMU gives a console number 0."""
    with with_a_console(scripted) as virtio:
        port = virtio.guest.driver("serial0", ConsoleDriver).port(0)
        assert port.is_console
        assert "port 0, guest on, host on" in virtio.vm.hmp("info qtree")
        port.close()
        assert "port 0, guest off, host on" in virtio.vm.hmp("info qtree")
        port.write(b"login: ")
        assert heard(virtio, "tty") == b"login: "


@pytest.mark.parametrize("transport", ["pci", "pci-legacy"])
def test_without_multiport(scripted: Boot, transport: str) -> None:
    """One port, no control queue (5.3.2, 5.3.5)."""
    with with_a_console(scripted, without={"MULTIPORT"}, transport=transport) as virtio:
        driver = virtio.guest.driver("serial0", ConsoleDriver)
        assert list(driver.ports) == [0]
        driver.port(0).write(b"login: ")
        assert heard(virtio, "tty") == b"login: "
        with pytest.raises(NotSupportedError, match="MULTIPORT"):
            driver.port(0).open()


def test_without_multiport_data_arrive(scripted: Boot, wire: Wire) -> None:
    """The receive queue of port 0 is filled before DRIVER_OK (5.3.5)."""
    args = [*wire.chardev(), "-device", "virtconsole,bus=serial0.0,chardev=wire"]
    with scripted(Serial(ports=0), args=args, without={"MULTIPORT"}) as virtio, wire.accept() as peer:
        peer.sendall(SEVERAL_BUFFERS)
        port = virtio.guest.driver("serial0", ConsoleDriver).port(0)
        assert port.read(len(SEVERAL_BUFFERS)) == SEVERAL_BUFFERS


def test_emergency_writes_need_no_queues(scripted: Boot) -> None:
    """The driver may write to ``emerg_wr`` in whatever state the device is (5.3.4)."""
    with with_a_console(scripted) as virtio:
        driver = virtio.guest.driver("serial0", ConsoleDriver)
        driver.reset()
        for character in b"oops":
            driver.emergency_write(character)
        assert heard(virtio, "tty") == b"oops"


def test_a_second_start_is_like_the_first(scripted: Boot) -> None:
    """After a reset all ports are told of anew (3.1.1)."""
    with scripted(Serial()) as virtio:
        driver = virtio.guest.driver("serial0", ConsoleDriver)
        before = driver.port("serial0.0").open()
        driver.initialise()
        assert driver.port("serial0.0") is not before
        assert not is_open(virtio, "serial0.port0")
        driver.port("serial0.0").open().write(b"again")
        assert heard(virtio, "serial0.port0") == b"again"


def control(id: int, event: int, value: int = 0, rest: bytes = b"") -> bytes:
    return ConsoleControl(id, event, value).pack() + rest


MISTAKES: dict[str, Callable[[ConsoleDriver], object]] = {
    "length=-1": lambda driver: driver.port(1).read(-1),
    "'4294967296'": lambda driver: driver.port(1 << 32),
    "which=-1": lambda driver: driver.await_port(-1),
    "id: -1": lambda driver: driver.tell(ConsoleEvent.PORT_OPEN, -1),
    "event: 65536": lambda driver: driver.tell(65536),
    "character=-1": lambda driver: driver.emergency_write(-1),
}


def test_what_fits_no_field_is_the_users_mistake(scripted: Boot) -> None:
    """The error names what was seen, and the device hears of nothing."""
    with scripted(Serial()) as virtio:
        driver = virtio.guest.driver("serial0", ConsoleDriver)
        told = driver.queue("ctrl_tx").completed
        for complaint, mistake in MISTAKES.items():
            with pytest.raises(UsageError, match=complaint):
                mistake(driver)
        assert driver.queue("ctrl_tx").completed == told


def test_messages_of_a_hostile_device(scripted: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port beyond the queues, a message cut off and one without an end are refused; unknown ones are let pass."""
    with scripted(Serial()) as virtio:
        driver = virtio.guest.driver("serial0", ConsoleDriver)

        def says(*messages: bytes) -> None:
            driver._heard.extend(messages)
            driver.listen()

        with pytest.raises(RequestFailedError, match="PORT_ADD"):
            says(control(31, ConsoleEvent.PORT_ADD))
        with pytest.raises(RequestFailedError, match="too short"):
            says(b"\0\0\0")
        says(control(9, ConsoleEvent.PORT_OPEN, 1), control(1, 99), control(1, ConsoleEvent.PORT_NAME, 1, b"\xff"))
        assert [port.name for port in driver.ports.values()] == ["\\xff"]
        says(control(1, ConsoleEvent.RESIZE, 0, b"\x50\0\x19\0"))
        size = driver.port(1).size
        assert size is not None
        assert (size.cols, size.rows) == (80, 25)
        driver.timeout = 0
        with pytest.raises(RequestFailedError, match="don't end"):
            says(control(1, 99))


def test_an_empty_buffer_is_no_data(scripted: Boot, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that gives receive buffers back without data would keep a reader busy for ever."""
    port = ["-device", "virtserialport,bus=serial0.0,chardev=wire,name=talk"]
    with scripted(Serial(), args=[*wire.chardev(), *port]) as virtio, wire.accept() as peer:
        talk = virtio.guest.driver("serial0", ConsoleDriver).port("talk").open()
        peer.sendall(b"abc")
        monkeypatch.setattr("pytest_virtio.guest.scripted.queue.Request.written", b"")
        with pytest.raises(RequestFailedError, match="empty"):
            talk.read(3)
