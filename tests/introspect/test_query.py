"""Which command is sent for each answer; and the same against real QEMU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_virtio.errors import CommandError, ReplyError
from pytest_virtio.introspect.query import Queries, raised
from pytest_virtio.vm import cmdline
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.qemu import Qemu
from tests.introspect.script import PATH, Script, status

SAMPLES = Path(__file__).parent.parent / "samples"


@pytest.mark.parametrize("reply", [[], "No virtio devices found"])
def test_no_devices_on_either_generation(reply: object) -> None:
    assert Queries(Script({"x-query-virtio": reply})).devices(1) == ()


def test_devices_are_sorted() -> None:
    reply = [{"path": f"/machine/peripheral/{id}", "name": "virtio-net"} for id in ("b", "a")]
    assert [info.path for info in Queries(Script({"x-query-virtio": reply})).devices(1)] == [
        "/machine/peripheral/a",
        "/machine/peripheral/b",
    ]


def test_another_error_is_told() -> None:
    with pytest.raises(CommandError, match="x-query-virtio: out of luck"):
        Queries(Script({"x-query-virtio": "out of luck"})).devices(1)


def test_status_is_asked_for_by_path_in_time() -> None:
    qemu = Script(_status=status())
    (answer,) = Queries(qemu).statuses([PATH], 7.0)
    assert raised(answer).num_vqs == 3
    assert qemu.sent == [("x-query-virtio-status", {"path": PATH}, 7.0)]


def test_each_gets_its_own_answer_or_error() -> None:
    qemu = Script(_status=status(), _queue_status="Path x is not a VirtIODevice")
    first, second = Queries(qemu).queue_statuses([(PATH, 0), (PATH, 1)], 1)
    assert isinstance(first, CommandError)
    assert isinstance(second, CommandError)
    with pytest.raises(CommandError, match="is not a VirtIODevice"):
        raised(first)


def test_a_reply_that_makes_no_sense_is_an_error_of_its_own() -> None:
    (answer,) = Queries(Script(_status=status(**{"num-vqs": "three"}))).statuses([PATH], 1)
    assert isinstance(answer, ReplyError)


@pytest.mark.parametrize(
    ("index", "place"),
    [(None, {"path": PATH, "queue": 1}), (0, {"path": PATH, "queue": 1, "index": 0})],
)
def test_an_element_by_qemus_walker(index: int | None, place: dict[str, object]) -> None:
    element = {
        "name": "virtio-net",
        "index": 4,
        "descs": [],
        "avail": {"flags": 0, "idx": 1, "ring": 4},
        "used": {"flags": 0, "idx": 1},
    }
    qemu = Script(_queue_element=element)
    assert Queries(qemu).raw_queue_element(PATH, 1, index, 1).index == 4
    assert qemu.sent == [("x-query-virtio-queue-element", place, 1)]


def test_a_vhost_queue_of_a_device_without_vhost() -> None:
    qemu = Script(_vhost_queue_status="Error: vhost device has not started yet")
    (answer,) = Queries(qemu).vhost_queue_statuses([(PATH, 0)], 1)
    with pytest.raises(CommandError, match="vhost device has not started yet"):
        raised(answer)


def test_the_recorded_lists_are_read() -> None:
    lists = [path for path in SAMPLES.rglob("*.json") if path.name.startswith("x-query-virtio.")]
    assert lists
    for path in lists:
        reply = json.loads(path.read_text())
        assert Queries(
            Script({"x-query-virtio": reply.get("return", reply) if isinstance(reply, dict) else reply})
        ).devices(1)


@pytest.mark.qemu
def test_real_qemu(program: Path) -> None:
    def build(wires: cmdline.Wires) -> tuple[str, ...]:
        return cmdline.device_probe(program, "virtio-rng-device,id=rng0", wires)

    with Qemu.start(build, Deadline.after(30), label="introspect") as qemu:
        ask = Queries(qemu)
        (info,) = ask.devices(10)
        assert info.path == "/machine/peripheral/rng0"
        there, not_there = ask.queue_statuses([(info.path, 0), (info.path, 1)], 10)
        assert raised(there).queue_index == 0
        with pytest.raises(CommandError, match="Invalid virtqueue number 1"):
            raised(not_there)
        (vhost,) = ask.vhost_queue_statuses([(info.path, 0)], 10)
        with pytest.raises(CommandError, match="vhost device has not started yet"):
            raised(vhost)
        # No version dies of a path that is none.
        (nowhere,) = ask.statuses(["/machine"], 10)
        assert isinstance(nowhere, CommandError)


@pytest.mark.qemu
def test_real_qemu_without_devices(program: Path) -> None:
    with Qemu.start(lambda wires: cmdline.probe(program, wires), Deadline.after(30), label="none") as qemu:
        assert Queries(qemu).devices(10) == ()
