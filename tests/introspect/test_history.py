"""Which of QEMU's pointers is which device: told where it is certain, from lines that are made up."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

import pytest

from pytest_virtio.errors import QemuExitedError
from pytest_virtio.introspect.history import KEPT, Histories, Polled, trace_events
from pytest_virtio.introspect.query import Queries, raised
from pytest_virtio.model.history import History
from pytest_virtio.model.status import VirtioStatus
from pytest_virtio.spec.status import DeviceStatus
from tests.introspect.script import Script, status

RNG = "virtio-rng-device"
A, B = (f"/machine/peripheral/{id}/virtio-backend" for id in "ab")
WORDS = {flag: f"VIRTIO_CONFIG_S_{flag.name}: " for flag in DeviceStatus}


class Log:
    """Pointer 2 is reset first, as that of the younger device is."""

    def __init__(self, writes: Collection[tuple[int, int]], pointers: Collection[int] = (2, 1)) -> None:
        lines = [f"resettable_phase_enter_begin obj=0x{pointer}({RNG}) count=0 type=0" for pointer in pointers]
        lines += [f"virtio_set_status vdev 0x{pointer} val 0" for pointer in pointers]
        lines += [f"virtio_set_status vdev 0x{pointer} val {value}" for pointer, value in writes]
        self.text = "".join(f"7@{number}.000000:{line}\n" for number, line in enumerate(lines, 1))

    def read(self) -> tuple[str, bool]:
        return self.text, False


def history(
    log: Log | None, now: Mapping[str, int], path: str = A, in_order: Collection[str] = frozenset({A, B})
) -> History:
    """The history of ``path`` when devices stand at ``now``, by path in the order of declaration."""
    polled = Polled()

    def status_of(path: str, timeout: float) -> VirtioStatus:
        words = [text for flag, text in WORDS.items() if flag & now[path]]
        qmp = Script(_status=status(status={"statuses": words}))
        answers = {path: raised(Queries(qmp).statuses([path], timeout)[0])}
        polled.note(answers, time.monotonic())
        return answers[path]

    qmp = Script({"qom-get": RNG})
    return Histories(qmp, log, now, frozenset(in_order), status_of, polled).history(path, 1)


def values(history: History) -> list[int]:
    return [step.value for step in history]


def test_the_younger_is_reset_first() -> None:
    log, now = Log([(1, 1), (2, 3)]), {A: 1, B: 3}
    assert values(history(log, now)) == [0, 1]
    assert values(history(log, now, B)) == [0, 3]
    assert history(log, now).source == "trace events"


@pytest.mark.parametrize(
    ("log", "now", "in_order", "why"),
    [
        (Log([(2, 1)]), {A: 1, B: 0}, {A, B}, "the 2 virtio-rng-device do not stand where their order says they do"),
        (Log([]), {A: 0, B: 0}, {A}, "in which order the 2 virtio-rng-device were made is not known"),
        (Log([], [1]), {A: 0, B: 0}, {A, B}, "QEMU logged events of 1 virtio-rng-device, and there are 2"),
        (Log([], [1, 2]), {A: 0}, {A}, "QEMU logged events of 2 virtio-rng-device, and there are 1"),
        (Log([], []), {A: 0}, {A}, "QEMU logged events of 0 virtio-rng-device, and there are 1"),
        (None, {A: 0}, {A}, "QEMU was started without the trace events"),
    ],
)
def test_what_is_not_certain_is_not_told(log: Log | None, now: dict[str, int], in_order: set[str], why: str) -> None:
    told = history(log, now, in_order=in_order)
    assert (values(told), told.source, told.polled) == ([now[A]], f"polling: {why}", True)


@pytest.mark.parametrize(
    ("written", "now", "steps"),
    [
        ((3, 11), 3, [0, 3, 11, 3]),  # FEATURES_OK refused
        ((3, 11, 15), 79, [0, 3, 11, 15, 79]),  # NEEDS_RESET set
        ((3, 11, 15), 15, [0, 3, 11, 15]),
    ],
)
def test_what_qemu_did_itself(written: tuple[int, ...], now: int, steps: list[int]) -> None:
    log = Log([(1, value) for value in written])
    assert values(history(log, {A: now, B: 0})) == steps


def test_the_only_one_of_its_type_needs_no_agreement() -> None:
    assert values(history(Log([(1, 3)], [1]), {A: 0})) == [0, 3]


ENDED = "status not compared: QEMU has ended"


def of_ended(log: Log | None, paths: Collection[str], path: str = A, seen: Mapping[str, int] | None = None) -> History:
    """The history of ``path`` once QEMU has ended; ``seen`` are statuses that were polled before."""
    polled = Polled()
    for one, value in (seen or {}).items():
        words = [text for flag, text in WORDS.items() if flag & value]
        told = Queries(Script(_status=status(status={"statuses": words}))).statuses([one], 1)
        polled.note({one: told[0]}, time.monotonic())

    def gone(*_: object) -> VirtioStatus:
        raise QemuExitedError("exit code 0", "")

    class Gone(Script):
        def execute(
            self, command: str, arguments: Mapping[str, object] | None = None, timeout: float = 1.0, /
        ) -> object:
            return gone() if command == "x-query-virtio" else super().execute(command, arguments, timeout)

    return Histories(Gone({"qom-get": RNG}), log, paths, frozenset(paths), gone, polled).history(path, 1)


def test_once_qemu_has_ended_the_log_alone_tells() -> None:
    log = Log([(1, 1), (2, 3)])
    told = of_ended(log, [A, B], B)
    assert (values(told), told.source, told.polled) == ([0, 3], f"trace events; {ENDED}", False)


def test_or_what_was_seen_before() -> None:
    told = of_ended(None, [A], seen={A: 3})
    assert values(told) == [3]
    assert told.source == "polling: QEMU was started without the trace events; QEMU has ended"
    with pytest.raises(QemuExitedError):
        of_ended(None, [A])


def test_what_is_plugged_in_may_be_in_anothers_place_once_nobody_can_be_asked() -> None:
    log = Log([], [1])
    later = int(time.time()) + 10
    log.text += "".join(
        f"7@{later}.000000:{line}\n"
        for line in (f"resettable_phase_enter_begin obj=0x9({RNG}) count=0 type=0", "virtio_set_status vdev 0x9 val 0")
    )
    told = of_ended(log, [A], seen={A: 1})
    assert "was plugged in and whether a device was unplugged can't be asked: QEMU has ended" in told.source


def test_writes_that_change_nothing_are_no_steps() -> None:
    trace = trace_events(Log([(1, 0), (1, 3), (1, 3), (1, 0)], [1]).text, full=False)
    assert values(trace.steps[1].history("")) == [0, 3, 0]


def test_it_is_bounded() -> None:
    trace = trace_events(Log([(1, number % 2) for number in range(1, 3 * KEPT)], [1]).text, full=True)
    told = trace.steps[1].history("", full=trace.full)
    assert (len(told), told.dropped, told.full) == (KEPT, 2 * KEPT, True)


def test_an_answer_that_comes_late_makes_no_step() -> None:
    polled, words = Polled(), [WORDS[DeviceStatus.ACKNOWLEDGE]]
    begun, reset = (
        raised(Queries(Script(_status=status(status={"statuses": some}))).statuses([A], 1)[0]) for some in (words, [])
    )
    polled.note({A: begun}, 2.0)
    polled.note({A: reset}, 1.0)
    assert values(polled.history(A, "a test")) == [1]
