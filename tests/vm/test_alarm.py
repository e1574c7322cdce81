"""The alarm: who hears it, and how often."""

from __future__ import annotations

import threading

import pytest

from pytest_virtio import VirtioAssertionError
from pytest_virtio.vm.alarm import Alarm


@pytest.fixture
def alarm() -> Alarm:
    return Alarm(threading.Condition())


def hears(alarm: Alarm) -> bool:
    try:
        alarm.check()
    except VirtioAssertionError:
        return True
    return False


def test_each_alarm_is_heard_once(alarm: Alarm) -> None:
    assert not hears(alarm)
    for _ in range(2):
        alarm.sound("stalled")
        alarm.sound("another")
        assert alarm.unheard == "stalled"
        with pytest.raises(VirtioAssertionError, match=r"^stalled$"):
            alarm.check()
        assert not hears(alarm)
        assert not alarm.unheard
        alarm.rest()


def test_each_thread_hears_it(alarm: Alarm) -> None:
    """Also one that comes when another has ended, whose number it takes over."""
    alarm.sound("stalled")
    heard: dict[int, list[bool]] = {}

    def wait() -> None:
        heard.setdefault(threading.get_ident(), []).extend([hears(alarm), hears(alarm)])

    for _ in range(8):
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()
    assert len(heard) < 8, "no number was taken over, so nothing is shown"
    assert [answer for answers in heard.values() for answer in answers] == [True, False] * 8


def test_what_is_about_one_thing_leaves_another_alone(alarm: Alarm) -> None:
    """The watchdog puts its own word to rest again and again."""
    alarm.sound("stalled")
    alarm.sound("ended", "vublk0")
    alarm.rest()
    assert alarm.unheard == "stalled\nended"
    with pytest.raises(VirtioAssertionError, match=r"^ended$"):
        alarm.check()
    assert not hears(alarm)
    assert alarm.unheard == "stalled"


def test_what_is_learnt_another_way_is_not_raised(alarm: Alarm) -> None:
    alarm.sound("ended", "vublk0")
    alarm.sound("stalled")
    alarm.hear("vublk0")
    assert alarm.unheard == "stalled"
    with pytest.raises(VirtioAssertionError, match=r"^stalled$"):
        alarm.check()
