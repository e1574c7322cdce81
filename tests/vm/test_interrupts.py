"""Signals that come inside a stretch that must not be cut."""

from __future__ import annotations

import signal
import threading
from types import FrameType

import pytest

from pytest_virtio.vm.interrupts import _Gate, uninterrupted


class Alarm(Exception):
    pass


@pytest.fixture(autouse=True)
def _handlers(monkeypatch: pytest.MonkeyPatch) -> object:
    def alarm(number: int, frame: FrameType | None) -> None:
        raise Alarm

    old = signal.signal(signal.SIGUSR2, alarm)
    yield
    signal.signal(signal.SIGUSR2, old)


def raise_and_go_on(number: signal.Signals, reached: list[int]) -> None:
    with uninterrupted():
        signal.raise_signal(number)
        reached.append(1)


def raise_in_a_nested_block(reached: list[int]) -> None:
    with uninterrupted():
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
        reached.append(1)


def raise_and_fail() -> None:
    with uninterrupted():
        signal.raise_signal(signal.SIGINT)
        raise ValueError("mine")


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGUSR2, Alarm)])
def test_it_is_delivered_at_the_end(number: signal.Signals, error: type[BaseException]) -> None:
    reached: list[int] = []
    with pytest.raises(error):
        raise_and_go_on(number, reached)
    assert reached == [1]


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in signal.valid_signals()]
    with uninterrupted():
        assert signal.getsignal(signal.SIGINT) not in before
    assert [signal.getsignal(number) for number in signal.valid_signals()] == before


def test_the_blocks_own_error_is_kept() -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        raise_and_fail()
    assert isinstance(caught.value.__context__, ValueError)


def test_nested_blocks_wait_for_the_outer_one() -> None:
    reached: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        raise_in_a_nested_block(reached)
    assert reached == [1]


def test_elsewhere_than_in_the_main_thread_it_does_nothing() -> None:
    seen = []

    def run() -> None:
        with uninterrupted():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    assert seen == [signal.getsignal(signal.SIGINT)]


def test_a_gate_that_was_left_in_place_passes_on() -> None:
    gate = _Gate()
    gate.shut()
    left_over = signal.getsignal(signal.SIGUSR2)
    gate.open()
    assert callable(left_over)
    with pytest.raises(Alarm):
        left_over(signal.SIGUSR2, None)
