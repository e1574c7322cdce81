"""Which command is sent for each answer, and which is not; and the same against real QEMU."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_virtio.errors import CommandError, DisturbingQueryError, UnknownNameError
from pytest_virtio.introspect.query import Introspector
from pytest_virtio.vm import cmdline
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.qemu import Qemu

PATH = "/machine/peripheral/net0/virtio-backend"
SAMPLES = Path(__file__).parent.parent / "samples"


class Script:
    """Plays QEMU: a reply or an error by command; remembers what was sent."""

    def __init__(self, **replies: object) -> None:
        self.replies = {f"x-query-virtio{name.replace('_', '-')}": reply for name, reply in replies.items()}
        self.sent: list[tuple[str, Mapping[str, object] | None, float]] = []

    def __call__(self, command: str, arguments: Mapping[str, object] | None = None, timeout: float = 1.0, /) -> object:
        self.sent.append((command, arguments, timeout))
        reply = self.replies[command]
        if isinstance(reply, str):
            raise CommandError(command, "GenericError", reply)
        return reply

    @property
    def commands(self) -> list[str]:
        return [command for command, _, _ in self.sent]


def status(**more: object) -> dict[str, Any]:
    features: dict[str, list[str]] = {"transports": [], "dev-features": []}
    return {
        "name": "virtio-net",
        "device-id": 1,
        "vhost-started": False,
        "device-endian": "little",
        "guest-features": features,
        "host-features": features,
        "backend-features": features,
        "num-vqs": 3,
        "status": {"statuses": []},
        "isr": 0,
        "queue-sel": 0,
        "vm-running": True,
        "broken": False,
        "disabled": False,
        "use-started": True,
        "started": False,
        "start-on-kick": False,
        "disable-legacy-check": False,
        "bus-name": "",
        "use-guest-notifier-mask": True,
        **more,
    }


@pytest.mark.parametrize("reply", [[], "No virtio devices found"])
def test_no_devices_on_either_generation(reply: object) -> None:
    assert Introspector(Script(**{"": reply})).devices(1) == ()


def test_devices_are_sorted() -> None:
    reply = [{"path": f"/machine/peripheral/{id}", "name": "virtio-net"} for id in ("b", "a")]
    assert [info.path for info in Introspector(Script(**{"": reply})).devices(1)] == [
        "/machine/peripheral/a",
        "/machine/peripheral/b",
    ]


def test_another_error_is_told() -> None:
    with pytest.raises(CommandError, match="x-query-virtio: out of luck"):
        Introspector(Script(**{"": "out of luck"})).devices(1)


def test_status_is_asked_for_by_path_in_time() -> None:
    qemu = Script(_status=status())
    assert Introspector(qemu).status(PATH, 7.0).num_vqs == 3
    assert qemu.sent == [("x-query-virtio-status", {"path": PATH}, 7.0)]


def test_a_queue_that_is_not_there_names_the_right_ones() -> None:
    qemu = Script(_status=status(), _queue_status="Invalid virtqueue number 9")
    with pytest.raises(UnknownNameError) as caught:
        Introspector(qemu).queue_status(PATH, 9, 1)
    assert str(caught.value) == f"unknown queue of {PATH}: '9'. There are: 0, 1, 2."


def test_another_error_of_a_queue_is_told() -> None:
    with pytest.raises(CommandError, match="is not a VirtIODevice"):
        Introspector(Script(_status=status(), _queue_status="Path x is not a VirtIODevice")).queue_status(PATH, 0, 1)


def test_a_ring_on_a_running_backend_is_not_asked_for() -> None:
    qemu = Script(_status=status(**{"vhost-started": True, "vhost-dev": vhost()}), _queue_status={})
    with pytest.raises(DisturbingQueryError, match="queue 0 runs on a vhost backend"):
        Introspector(qemu).queue_status(PATH, 0, 1)
    assert qemu.commands == ["x-query-virtio-status"]


def vhost() -> dict[str, Any]:
    features: dict[str, list[str]] = {"transports": [], "dev-features": []}
    numbers = ("n-mem-sections", "n-tmp-sections", "nvqs", "vq-index", "max-queues", "backend-cap", "log-size")
    return {
        **dict.fromkeys(numbers, 1),
        "features": features,
        "acked-features": features,
        "backend-features": features,
        "protocol-features": {"protocols": []},
        "log-enabled": False,
    }


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
    assert Introspector(qemu).raw_queue_element(PATH, 1, index, 1).index == 4
    assert qemu.sent == [("x-query-virtio-queue-element", place, 1)]


def test_a_vhost_queue_of_a_device_without_vhost() -> None:
    qemu = Script(_vhost_queue_status="Error: vhost device has not started yet")
    with pytest.raises(CommandError, match="vhost device has not started yet"):
        Introspector(qemu).vhost_queue_status(PATH, 0, 1)


def test_the_recorded_lists_are_read() -> None:
    lists = [path for path in SAMPLES.rglob("*.json") if path.name.startswith("x-query-virtio.")]
    assert lists
    for path in lists:
        reply = json.loads(path.read_text())
        assert Introspector(Script(**{"": reply.get("return", reply) if isinstance(reply, dict) else reply})).devices(1)


@pytest.mark.qemu
def test_real_qemu(program: Path) -> None:
    def build(wires: cmdline.Wires) -> tuple[str, ...]:
        machine = ("-machine", "microvm", "-accel", "tcg", "-S", "-device", "virtio-rng-device,id=rng0")
        return (str(program), *machine, *cmdline._quiet(), *cmdline._monitor(wires.monitor))

    with Qemu.start(build, Deadline.after(30), label="introspect") as qemu:
        ask = Introspector(qemu.execute)
        (info,) = ask.devices(10)
        assert info.path == "/machine/peripheral/rng0"
        assert ask.status(info.path, 10).name == "virtio-rng"
        assert ask.queue_status(info.path, 0, 10).queue_index == 0
        with pytest.raises(UnknownNameError, match=r"'1'\. There are: 0"):
            ask.queue_status(info.path, 1, 10)
        with pytest.raises(CommandError, match="vhost device has not started yet"):
            ask.vhost_queue_status(info.path, 0, 10)
        with pytest.raises(CommandError):
            ask.status("/machine", 10)


@pytest.mark.qemu
def test_real_qemu_without_devices(program: Path) -> None:
    with Qemu.start(lambda wires: cmdline.probe(program, wires), Deadline.after(30), label="none") as qemu:
        assert Introspector(qemu.execute).devices(10) == ()
