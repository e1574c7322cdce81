"""The report's limits, on a VM that is made up; tests of the plugin have it of real ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_virtio import DisturbingQueryError, Features, MonitorTimeoutError, VirtioStatus, VirtQueueStatus
from pytest_virtio.handle import dump, findings
from pytest_virtio.launch import RunningVm
from pytest_virtio.model.provenance import Provenance
from pytest_virtio.spec.devices import device_type
from pytest_virtio.vm.log import Log

TITLES = ["virtio: verdict", "virtio: blk0", "guest console", "qemu stderr", "reproduce"]


def _status(**fields: Any) -> VirtioStatus:
    none = Features(0, device_type(2))
    sets: dict[str, Any] = {"status": frozenset(), "guest_features": none, "host_features": none}
    known: dict[str, Any] = {**sets, "num_vqs": 1, "source": "test", **fields}
    return VirtioStatus(name="virtio-blk", device_id=2, **known)


def _vm(status: Any = _status, queue_status: Any = None, ids: int = 1, **qemu: Any) -> RunningVm:
    """:param status: gives a device's status, :param queue_status: a queue's, or raise."""
    accelerator = SimpleNamespace(name="tcg", reason="as asked for")
    known = SimpleNamespace(version="7.2.22", package="")
    child = SimpleNamespace(how=lambda: "exit code 1", stopped=False)
    alive = {"running": True, "pid": 0, "child": child, "remedy": "", "stderr_text": lambda: ""}

    def statuses(paths: Any, timeout: float) -> Any:
        return {path: status() for path in paths}

    def queue_statuses(statuses: Any, queues: Any, timeout: float) -> Any:
        ask = queue_status or _queue
        return {(path, queue): ask() for path, indices in queues.items() for queue in indices}

    made_up = SimpleNamespace(
        paths={f"blk{n}": f"/blk{n}" for n in range(ids)},
        introspector=SimpleNamespace(statuses=statuses, queue_statuses=queue_statuses),
        qemu=SimpleNamespace(**{**alive, **qemu}),
        guest=SimpleNamespace(console=SimpleNamespace(log=Log())),
        host=SimpleNamespace(known=known, accelerator=accelerator),
        spec=SimpleNamespace(machine="q35", transport="pci"),
        offered_by_backend=lambda id: None,
        masked_by_test=lambda id: 0,
        backends={},
        by_hand="qemu",
        provenance=Provenance(kernel="6.1", firmware="SeaBIOS", backends={"blk0": "daemon 1"}, host="Linux"),
        monitor=None,
    )
    return cast(RunningVm, made_up)


def _queue(**fields: Any) -> VirtQueueStatus:
    areas: dict[str, Any] = {"vring_desc": 0x1000, "vring_avail": 0x2000, "vring_used": 0x3000}
    return VirtQueueStatus(name="virtio-blk", queue_index=0, vring_num=8, **{**areas, **fields}, source="test")


def _texts(vm: RunningVm, seconds: float = 60) -> dict[str, str]:
    return {section.title: section.text for section in dump.report(vm, seconds)}


def _raise(error: BaseException) -> Any:
    def ask(*_: object) -> None:
        raise error

    return ask


def test_a_hundred_megabytes_of_console_are_cut() -> None:
    vm = _vm()
    assert vm.guest is not None
    for _ in range(100):
        vm.guest.console.log.append(b"\x1b[31m\xff" * 174_763)
    vm.guest.console.log.append(b" the end")
    console = _texts(vm)["guest console"]
    assert console.endswith(r"\x1b[31m\xff the end")
    assert len(console) <= dump.SECTION_LIMIT


def test_a_cut_console_begins_with_a_whole_line() -> None:
    vm = _vm()
    assert vm.guest is not None
    for number in range(5000):
        vm.guest.console.log.append(b"line %04d\n" % number)
    first, second, *_ = _texts(vm)["guest console"].splitlines()
    cut = 50_000 - dump.CONSOLE_LIMIT
    assert first == f"[{cut + 10 - cut % 10} bytes before this are left out]"
    assert second == f"line {cut // 10 + 1:04}"


def test_what_the_driver_declined_is_listed() -> None:
    blk = device_type(2)
    offered = Features.of(["MQ", "SEG_MAX", "BAD_FEATURE", "VERSION_1"], blk)
    taken = Features.of(["SEG_MAX", "VERSION_1"], blk, offered=offered)
    line = "offered, not acknowledged: VIRTIO_BLK_F_MQ"
    declined = _texts(_vm(status=lambda: _status(guest_features=taken, host_features=offered)))
    assert line in declined["virtio: blk0"].splitlines()
    none = Features(0, blk)
    untouched = _texts(_vm(status=lambda: _status(guest_features=none, host_features=offered)))
    assert "not acknowledged" not in untouched["virtio: blk0"]


def test_every_section_is_bounded() -> None:
    huge = "\x1b" * 10_000_000
    texts = _texts(_vm(stderr_text=lambda: huge, status=_raise(MonitorTimeoutError(huge, 1))))
    assert list(texts) == TITLES
    assert all(len(text) < 5 * dump.SECTION_LIMIT for text in texts.values())


def test_devices_and_queues_are_bounded() -> None:
    texts = _texts(_vm(ids=findings.DEVICES_SHOWN + 3, status=lambda: _status(num_vqs=64)))
    assert len(texts) == findings.DEVICES_SHOWN + 4
    assert "and 3 more devices, not shown" in texts["virtio: verdict"]
    assert texts["virtio: blk0"].count("VRing:") == findings.QUEUES_SHOWN
    assert texts["virtio: blk0"].endswith("and 48 more queues, not shown")


def test_queues_that_nobody_set_up_are_left_out() -> None:
    unset = VirtQueueStatus(
        name="virtio-blk", queue_index=0, vring_num=8, vring_desc=0, vring_avail=0, vring_used=0, source="test"
    )
    assert "VRing" not in _texts(_vm(queue_status=lambda: unset))["virtio: blk0"]


@pytest.mark.parametrize("error", [KeyError("x"), MonitorTimeoutError("x-query-virtio-status", 1), OSError(5, "EIO")])
def test_whatever_is_raised_is_told_in_its_place(error: Exception) -> None:
    by_status = _texts(_vm(status=_raise(error)))
    assert by_status["virtio: blk0"].startswith("no answer: ")
    by_queue = _texts(_vm(queue_status=_raise(error)))
    assert "queue 0: no answer: " in by_queue["virtio: blk0"]
    by_stderr = _texts(_vm(stderr_text=_raise(error), queue_status=_raise(error)))
    assert by_stderr["qemu stderr"].startswith("this part of the report failed, which is a bug of pytest-virtio")
    assert [*by_status, *by_queue, *by_stderr] == TITLES * 3


def test_an_error_is_told_in_its_place() -> None:
    error = DisturbingQueryError("/blk0: no\nway")
    assert _texts(_vm(status=lambda: error))["virtio: blk0"] == "no answer: /blk0: no"
    assert "queue 0: no answer: /blk0: no\n" in _texts(_vm(queue_status=lambda: error))["virtio: blk0"] + "\n"


def test_what_holds_for_all_queues_is_said_once() -> None:
    error = DisturbingQueryError("not now")
    text = _texts(_vm(status=lambda: _status(num_vqs=8), queue_status=lambda: error))["virtio: blk0"]
    assert text.endswith("\nqueues: no answer: not now")
    assert text.count("not now") == 1


def test_without_time_nothing_is_asked() -> None:
    texts = _texts(_vm(status=_raise(AssertionError("asked"))), 0)
    assert texts["virtio: blk0"] == "no answer: not asked: the time for the report is over"


def test_sources_are_named() -> None:
    text = _texts(_vm(status=lambda: _status(source="registers")))["virtio: blk0"]
    assert "\nsource: registers\n" in text
    assert text.endswith("\n  source: test")


def test_features_that_nobody_tells_are_not_made_up() -> None:
    offered, untold = Features.of(["MQ"], device_type(2)), Features(0, device_type(2), untold="nobody knows")
    section = dump.report(_vm(status=lambda: _status(guest_features=untold, host_features=offered)))[1]
    assert "\n  Guest features: not told: nobody knows\n" in section.text
    assert "not acknowledged" not in section.text
    assert cast(dict[str, object], section.data)["guest_features"] is None


def test_a_dead_qemu_is_not_asked() -> None:
    texts = _texts(_vm(running=False, status=_raise(AssertionError("asked"))))
    assert texts["virtio: verdict"].startswith("the VM is gone: QEMU ended (exit code 1)\n")
    assert texts["virtio: blk0"] == "no answer: QEMU has ended"


def test_what_else_could_not_be_found_out_is_said() -> None:
    """This VM, which is made up, has no rings to read."""
    assert "\nnot told: rings and verdicts: a bug of pytest-virtio: AttributeError" in _texts(_vm())["virtio: verdict"]


def test_the_verdict_tells_what_there_is_beside_qemu() -> None:
    assert _texts(_vm())["virtio: verdict"].endswith("\nkernel 6.1, SeaBIOS, blk0 by daemon 1, host Linux")
