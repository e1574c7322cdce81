"""The qtest wire: in order, in step after whatever went wrong, and with an end to every wait."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, cast

import pytest

from pytest_virtio import Rng, VirtioFactory
from pytest_virtio.errors import MonitorClosedError, MonitorError, MonitorTimeoutError, QemuExitedError, UsageError
from pytest_virtio.guest.scripted.guest import ScriptedGuest
from pytest_virtio.vm import qtest
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.qemu import Qemu
from pytest_virtio.vm.qtest import MOST_POSTED, Qtest, Read, Space, Write

RAM = 0x200000
MANY = 2000


class Ends(NamedTuple):
    """A wire and QEMU's end of it, at which a test plays QEMU. Answers can be sent before they are asked for."""

    wire: Qtest
    peer: socket.socket

    def say(self, *lines: str) -> None:
        self.peer.sendall("".join(f"{line}\n" for line in lines).encode())

    def heard(self) -> list[str]:
        """What was said and not looked at yet."""
        try:
            return self.peer.recv(1 << 20, socket.MSG_DONTWAIT).decode().splitlines()
        except BlockingIOError:
            return []

    def value(self) -> int:
        return self.wire.read("memory", RAM, 4)

    def pending(self) -> bool:
        return self.wire.pending


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Ends(Qtest(ours), theirs)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qtest, "ANSWER_SECONDS", 0.1)


def test_writes_are_posted_and_done_before_the_next_read(ends: Ends) -> None:
    ends.wire.write("memory", 0x10, 4, 1)
    ends.wire.write("io", 0xCF8, 4, 2)
    assert ends.heard() == []
    ends.say("OK", "OK", "OK 0x7")
    assert ends.value() == 7
    assert ends.heard() == ["writel 0x10 0x1", "outl 0xcf8 0x2", "readl 0x200000"]


def test_a_flush_says_what_is_posted_and_nothing_else(ends: Ends) -> None:
    ends.wire.flush()
    assert ends.heard() == []
    ends.say("OK")
    ends.wire.write("memory", 0x10, 1, 1)
    ends.wire.flush()
    ends.wire.flush()
    assert ends.heard() == ["writeb 0x10 0x1"]


@pytest.mark.parametrize(
    ("space", "size", "read", "write"),
    [
        ("memory", 1, "readb", "writeb"),
        ("memory", 2, "readw", "writew"),
        ("memory", 4, "readl", "writel"),
        ("memory", 8, "readq", "writeq"),
        ("io", 1, "inb", "outb"),
        ("io", 2, "inw", "outw"),
        ("io", 4, "inl", "outl"),
    ],
)
def test_words_and_widths(ends: Ends, space: Space, size: int, read: str, write: str) -> None:
    ends.say("OK", "OK 0xfedcba9876543210")
    values = ends.wire.exchange([Write(space, 0x70, size, 1), Read(space, 0x70, size)])
    assert ends.heard() == [f"{write} 0x70 0x1", f"{read} 0x70"]
    assert values == [0xFEDCBA9876543210 & (1 << 8 * size) - 1]


def test_lines_rise_and_fall_between_answers(ends: Ends) -> None:
    ends.say("IRQ raise 10", "OK 0x1", "IRQ raise 11", "IRQ lower 10", "OK 0x0")
    assert ends.value() == 1
    assert ends.wire.raised() == {11}
    assert ends.wire.raises == 2


def test_a_wait_ends_at_the_next_rise(ends: Ends) -> None:
    ends.say("IRQ lower 3", "IRQ raise 3")
    assert ends.wire.await_interrupt(0, Deadline.after(10))
    assert not ends.wire.await_interrupt(1, Deadline.after(0))


@pytest.mark.usefixtures("impatient")
def test_a_late_answer_is_not_taken_for_the_next(ends: Ends) -> None:
    with pytest.raises(MonitorTimeoutError, match=r"qtest readl 0x200000: no answer within 0\.1 s"):
        ends.value()
    ends.say("OK 0x1", "OK 0x2")
    assert ends.value() == 2


@pytest.mark.usefixtures("impatient")
def test_a_late_answer_may_come_while_an_interrupt_is_awaited(ends: Ends) -> None:
    with pytest.raises(MonitorTimeoutError):
        ends.value()
    ends.say("OK 0x1", "IRQ raise 5")
    assert ends.wire.await_interrupt(0, Deadline.after(10))
    ends.say("OK 0x2")
    assert ends.value() == 2


@pytest.mark.usefixtures("impatient")
def test_a_late_refusal_is_not_the_next_ones_fault(ends: Ends) -> None:
    with pytest.raises(MonitorTimeoutError):
        ends.value()
    ends.say("FAIL too late", "OK 0x2")
    assert ends.value() == 2


def test_a_refusal_in_the_middle(ends: Ends) -> None:
    ends.say("OK 0x1", "FAIL Unknown command 'x'", "OK 0x3", "OK 0x4")
    with pytest.raises(MonitorError, match="qtest readl 0x8: QEMU answers \"FAIL Unknown command 'x'\""):
        ends.wire.exchange([Read("memory", place, 4) for place in (4, 8, 12)])
    assert ends.value() == 4


@pytest.mark.parametrize("answer", ["OK zebra", "OK", "OKAY 1", "", "\x00\x7f", "I R Q"])
def test_garbage_for_an_answer(ends: Ends, answer: str) -> None:
    ends.say(answer, "OK 0x4")
    with pytest.raises(MonitorError, match="QEMU answers"):
        ends.value()
    assert ends.value() == 4


@pytest.mark.parametrize("line", ["IRQ", "IRQ raise", "IRQ raise -1", "IRQ raise x y", "IRQ raise 1 2"])
def test_garbage_for_an_interrupt(ends: Ends, line: str) -> None:
    ends.say(f"{line} ", "OK 0x4", "OK 0x0")
    if line == "IRQ":
        # Without a word after it, it is no interrupt.
        with pytest.raises(MonitorError):
            ends.value()
    assert ends.value() in (0, 4)
    assert ends.wire.raises == 0


def test_bytes_that_are_no_text(ends: Ends) -> None:
    ends.peer.sendall(b"\xff\xfe\r\n")
    with pytest.raises(MonitorError, match="QEMU answers"):
        ends.value()


def test_an_answer_that_nobody_asked_for(ends: Ends) -> None:
    ends.say("OK 0x1")
    with pytest.raises(MonitorError, match="'OK 0x1', and nobody has asked"):
        ends.wire.await_interrupt(0, Deadline.after(10))


def test_a_line_without_end(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qtest, "LONGEST_LINE", 4096)
    with speaking(ends.peer, b"x" * 1024), pytest.raises(MonitorClosedError, match="a line without end"):
        ends.value()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("data", [b"x", b"IRQ raise 1\nIRQ lower 1\n"])
def test_who_talks_for_ever_does_not_keep_us(ends: Ends, data: bytes) -> None:
    with speaking(ends.peer, data), pytest.raises(MonitorTimeoutError):
        ends.value()


def test_who_only_lowers_does_not_keep_us(ends: Ends) -> None:
    with speaking(ends.peer, b"IRQ lower 1\n" * 100):
        assert not ends.wire.await_interrupt(0, Deadline.after(0.1))


@contextlib.contextmanager
def speaking(peer: socket.socket, data: bytes) -> Iterator[None]:
    """Says the same again and again while the block runs."""
    over = threading.Event()
    peer.settimeout(0.01)

    def speak() -> None:
        while not over.wait(0.0001):
            try:
                peer.send(data)
            except TimeoutError:
                continue

    thread = threading.Thread(target=speak)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.usefixtures("impatient")
def test_who_does_not_listen_does_not_keep_us(ends: Ends) -> None:
    ends.wire._peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    # Once the socket is full half a line may be out, and nothing more can be said.
    with pytest.raises(MonitorClosedError):  # noqa: PT012 - how much goes in is the kernel's to say
        for _ in range(20):
            with contextlib.suppress(MonitorTimeoutError):
                ends.wire.exchange([Write("memory", RAM, 8, 0)] * MOST_POSTED)


def test_the_other_end_hangs_up(ends: Ends) -> None:
    ends.peer.close()
    with pytest.raises(MonitorClosedError, match="qtest readl 0x200000"):
        ends.value()


def test_whoever_knows_more_of_the_end_says_it() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(QemuExitedError, match=r"QEMU ended \(of old age\) during qtest readl"):
        Qtest(ours, lambda during: QemuExitedError("of old age", "", during)).read("memory", 0, 4)


def test_after_our_own_end(ends: Ends) -> None:
    ends.wire.close()
    ends.wire.close()
    with pytest.raises(MonitorClosedError):
        ends.value()


@pytest.mark.parametrize(
    "use",
    [
        lambda wire: wire.read("memory", RAM, 4),
        lambda wire: wire.write("memory", RAM, 4, 1),
        lambda wire: wire.await_interrupt(0, Deadline.after(10)),
        lambda wire: wire.raised(),
    ],
)
def test_a_forked_process_keeps_off(ends: Ends, use: Callable[[Qtest], object]) -> None:
    ends.say("IRQ raise 1", "OK 0x4")
    # Held, as by another thread at the moment of the fork: nobody will ever release it in the child.
    with ends.wire._lock:
        said = in_a_child(lambda: use(ends.wire))
    assert "MonitorClosedError" in said
    assert f"it is process {os.getpid()}'s" in said
    assert ends.heard() == []
    assert ends.value() == 4


def in_a_child(use: Callable[[], object]) -> str:
    """What it raises in a forked process."""
    read_end, write_end = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of forks beside threads: that is what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        signal.alarm(10)
        try:
            use()
        except BaseException as error:  # noqa: BLE001 - it is what the parent wants to see
            os.write(write_end, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as file:
        said = file.read()
    os.waitpid(child, 0)
    return said


@pytest.fixture
def qemu(virtio_factory: VirtioFactory) -> Iterator[Qemu]:
    with virtio_factory(Rng(driver=None)) as virtio:
        yield cast(ScriptedGuest, virtio.guest)._qemu


@pytest.mark.qemu
def test_qemu_reads_what_was_written(qemu: Qemu) -> None:
    qemu.qtest.write("memory", RAM, 8, 0x8877665544332211)
    qemu.qtest.write("memory", RAM + 1, 1, 0xAA)
    values = qemu.qtest.exchange([Read("memory", RAM, size) for size in (1, 2, 4, 8)])
    assert values == [0x11, 0xAA11, 0x4433AA11, 0x887766554433AA11]
    # Another witness than the wire itself.
    assert "0x4433aa11" in str(qemu.execute("human-monitor-command", {"command-line": f"xp /1xw {RAM:#x}"}))


@pytest.mark.qemu
def test_many_at_once_do_not_get_stuck(qemu: Qemu) -> None:
    wire = qemu.qtest
    for number in range(MANY):
        wire.write("memory", RAM + 4 * number, 4, number)
    assert wire.exchange([Read("memory", RAM + 4 * number, 4) for number in range(MANY)]) == list(range(MANY))


@pytest.mark.qemu
def test_threads_take_turns(qemu: Qemu) -> None:
    wrong: list[tuple[int, int]] = []

    def use(place: int) -> None:
        for number in range(200):
            wire.write("memory", place, 8, place + number)
            seen = wire.read("memory", place, 8)
            if seen != place + number:
                wrong.append((place + number, seen))

    wire = qemu.qtest
    threads = [threading.Thread(target=use, args=(RAM + 8 * n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


CONFIG_ADDRESS = 0xCF8
OURS = 0x80000800


@pytest.fixture
def busy(virtio_factory: VirtioFactory, tmp_path: Path) -> Iterator[Qtest]:
    """A VM whose processor writes 0 to a register all the time."""
    code = bytes.fromhex("ba f80c 66 31c0 66 ef ebfc")  # mov dx, 0xcf8; xor eax, eax; next: out dx, eax; jmp next
    reset = bytes.fromhex("e90d00").ljust(16, b"\0")  # jmp 0, from fff0
    rom = tmp_path / "busy.rom"
    rom.write_bytes(code.ljust(0x10000 - len(reset), b"\0") + reset)
    with virtio_factory(Rng(), boot=False, args=["-bios", str(rom)]) as virtio:
        virtio.vm.cont()
        yield virtio._running.qemu.qtest


@pytest.mark.qemu
def test_at_once_no_processor_gets_a_word_in(busy: Qtest) -> None:
    write, read = Write("io", CONFIG_ADDRESS, 4, OURS), Read("io", CONFIG_ADDRESS, 4)
    for _ in range(500):
        assert busy.at_once([write, *[read] * 30]) == [OURS] * 30
    # It is busy indeed: what is not said at once is lost.
    assert any(busy.exchange([write]) or busy.exchange([read]) != [OURS] for _ in range(1000))


def test_too_many_to_be_done_at_once(ends: Ends) -> None:
    with pytest.raises(UsageError, match="70 operations are too many to be done at once"):
        ends.wire.at_once([Read("memory", RAM, 4)] * 70)
    assert ends.heard() == []


@pytest.mark.qemu
def test_a_controller_that_is_not_there(qemu: Qemu) -> None:
    with pytest.raises(MonitorError, match=r"irq_intercept_in nonsense: QEMU answers 'FAIL"):
        qemu.qtest.intercept("nonsense")
    qemu.qtest.write("memory", RAM, 4, 5)
    assert qemu.qtest.read("memory", RAM, 4) == 5


@pytest.mark.qemu
def test_qemu_is_killed(qemu: Qemu) -> None:
    os.kill(qemu.pid, signal.SIGKILL)
    with pytest.raises(QemuExitedError, match=r"killed by SIGKILL.* during qtest readl"):
        qemu.qtest.read("memory", RAM, 4)


@pytest.mark.qemu
@pytest.mark.usefixtures("impatient")
def test_qemu_is_stopped_and_goes_on(qemu: Qemu) -> None:
    wire = qemu.qtest
    wire.write("memory", RAM, 4, 1)
    wire.flush()
    os.kill(qemu.pid, signal.SIGSTOP)
    try:
        with pytest.raises(MonitorTimeoutError, match=r"qtest readl 0x200000: no answer within 0\.1 s"):
            wire.read("memory", RAM, 4)
        with pytest.raises(MonitorTimeoutError):
            wire.exchange([Read("memory", RAM, 4)] * 3 * MOST_POSTED)
    finally:
        os.kill(qemu.pid, signal.SIGCONT)
    qtest.ANSWER_SECONDS = 10.0
    wire.write("memory", RAM, 4, 2)
    assert wire.read("memory", RAM, 4) == 2


def test_a_push_is_done_unless_qemu_is_busy(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qtest, "MOMENT", 0.01)
    ends.wire.write("memory", RAM, 4, 1)
    ends.wire.push()
    assert ends.heard() == [f"writel {RAM:#x} 0x1"]
    assert ends.pending()
    ends.say("OK")
    ends.wire.flush()
    assert not ends.pending()
    ends.wire.write("memory", RAM, 4, 2)
    ends.say("OK")
    ends.wire.push()
    assert not ends.pending()


def test_an_error_names_what_was_being_done(ends: Ends, impatient: None) -> None:
    with (
        ends.wire.within(Deadline.after(0.01), "blk0: reset"),
        pytest.raises(MonitorTimeoutError, match=r"^blk0: reset: "),
    ):
        ends.value()


def test_a_block_that_is_no_block(ends: Ends) -> None:
    for answer in ("OK 0x11", "OK 0x11223g", "OK"):
        ends.say(answer)
        with pytest.raises(MonitorError, match="3 bytes were expected"):
            ends.wire.read_block(RAM, 3)
    ends.say("OK 0x112233")
    assert ends.wire.read_block(RAM, 3) == b"\x11\x22\x33"


def test_what_one_thread_is_doing_is_not_another_ones_business(ends: Ends, impatient: None) -> None:
    """Two drivers in two threads: neither's deadline nor its name stays behind with the other."""
    entered, left = threading.Event(), threading.Event()

    def other() -> None:
        with ends.wire.within(Deadline.after(0), "blk0: reset"):
            entered.set()
            left.wait(10)

    with ends.wire.within(Deadline.after(10), "rng0: reset"):
        thread = threading.Thread(target=other)
        thread.start()
        assert entered.wait(10)
        with pytest.raises(MonitorTimeoutError, match=r"^rng0: reset: "):
            ends.value()
    left.set()
    thread.join(10)
    with pytest.raises(MonitorTimeoutError, match=r"^qtest "):
        ends.value()
