"""Lines of QEMU's log, as three versions wrote them while SeaBIOS drove a disk beside two entropy devices."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from pytest_virtio.qapi.trace import Reset, SetStatus, parse_trace

SAMPLES = Path(__file__).parent / "samples"
WRITE = "3142@1795328755.134525:virtio_set_status vdev 0x558eec9270e0 val 15"


@pytest.mark.parametrize("version", ["7.2", "10.0", "11.1"])
def test_recorded(version: str) -> None:
    events = list(parse_trace((SAMPLES / version / "trace.log").read_text()))
    types = {event.object: event.type for event in events if isinstance(event, Reset)}
    steps = [event for event in events if isinstance(event, SetStatus)]
    assert Counter(types[device] for device in {step.device for step in steps}) == {
        "virtio-rng-device": 2,
        "virtio-blk-device": 1,
    }
    blk = [step.value for step in steps if types[step.device] == "virtio-blk-device"]
    assert [value for value in blk if value] == [3, 11, 15, 15]
    assert steps == sorted(steps, key=lambda step: step.time)
    assert 0.5 < steps[-1].time - steps[0].time < 2


def test_both_ways_to_say_the_time() -> None:
    iso = "2026-11-22T06:25:55.134525Z virtio_set_status vdev 0x558eec9270e0 val 15"
    epoch = "3142@1795328755.134525:virtio_set_status vdev 0x558eec9270e0 val 15"
    assert list(parse_trace(f"{iso}\n")) == list(parse_trace(f"{epoch}\n"))


@pytest.mark.parametrize(
    "line",
    [
        "virtio_set_status vdev 0x558eec9270e0 val 15",
        f"x{WRITE}",
        f"{WRITE} and more",
        f"guest says: {WRITE}",
        WRITE.replace("15", "-1"),
        "3142@1795328755.134525:resettable_phase_enter_begin obj=0x1(a(b) count=0 type=0",
        "",
    ],
)
def test_what_is_no_event_is_left_out(line: str) -> None:
    assert list(parse_trace(f"{line}\n")) == []


def test_a_line_in_the_making_is_left_out() -> None:
    # "val 1" may be the beginning of "val 15".
    assert list(parse_trace(f"{WRITE}\n{WRITE[:-1]}")) == list(parse_trace(f"{WRITE}\n"))
