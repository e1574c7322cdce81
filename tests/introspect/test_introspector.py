"""Which source is asked for each answer, and which is not, on a QEMU that is made up."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from pytest_virtio.bus.survey import Surveyed
from pytest_virtio.errors import (
    CommandError,
    DisturbingQueryError,
    MonitorTimeoutError,
    NotSupportedError,
    ReplyError,
    UnknownNameError,
    VirtioError,
)
from pytest_virtio.introspect.calm import Calm
from pytest_virtio.introspect.introspector import Introspector
from pytest_virtio.introspect.registers import Registers
from pytest_virtio.introspect.survey import Known
from pytest_virtio.model.features import Features
from pytest_virtio.model.queue import VirtQueueStatus
from pytest_virtio.model.status import VirtioInfo
from pytest_virtio.spec.devices import NET
from pytest_virtio.spec.transport.pci import Capability
from pytest_virtio.vm.memory import GuestMemory
from pytest_virtio.vm.qtest import Qtest
from tests.introspect.script import PATH, Script, status, vhost, vhost_queue

NOT_STARTED = "Error: vhost device has not started yet"
OUR_RAM = {"qom-get": "/objects/pytest-virtio.ram"}
DRIVER_OK = {"statuses": ["VIRTIO_CONFIG_S_DRIVER_OK: Driver setup and ready"]}
FUNCTION = {
    **{"bus": 0, "slot": 1, "function": 0, "qdev_id": "net0", "irq_pin": 1, "regions": []},
    "id": {"vendor": 0x1AF4, "device": 0x1041},
}
AT_REST = {"query-status": {"running": True}, "query-pci": [{"bus": 0, "devices": [FUNCTION]}]}


def introspector(
    qmp: Script,
    type: str = "virtio-net-pci",
    *,
    version: str = "10.0.2",
    ends: str = "",
    memory: GuestMemory | None = None,
    surveyed: bool = False,
    behind: bool = False,
    ended: bool = False,
) -> Introspector:
    capability = Capability(0, 0, 0, 1, 4, 0, 0, 0, 0x1000, 0)
    known = Known(VirtioInfo(PATH, "virtio-net"), Surveyed(1, 0, 3, legacy=False, common=capability), ("net0", 1, 0), 0)
    devices, calm = [known] if surveyed else [], Calm(None, idle=True)
    registers = Registers(qmp, cast(Qtest, _NoWire()), devices, lambda *_: None, calm)
    backends = _Backends(behind, ended)
    return Introspector(qmp, version, ends, cast(GuestMemory, memory), registers, {"net0": type}, backends)


@dataclass(frozen=True)
class _Backends:
    maybe: bool
    over: bool

    def behind(self, id: str) -> bool:
        return self.maybe

    def ended(self, id: str) -> bool:
        return self.over

    def told(self, id: str) -> None:
        return None


class _NoWire:
    """Registers of a device whose BARs are not decoded are not read."""

    def within(self, *_: object) -> Any:
        return nullcontext()


def test_the_plain_way_where_it_is_safe() -> None:
    qemu = Script(_status=status())
    assert introspector(qemu).status(PATH, 7.0).source == "x-query-virtio-status"
    ((command, arguments, timeout),) = qemu.sent
    assert (command, arguments) == ("x-query-virtio-status", {"path": PATH})
    assert 6 < timeout <= 7


def test_a_qemu_that_dies_of_it_is_not_asked() -> None:
    qemu = Script(AT_REST, _vhost_queue_status=NOT_STARTED)
    answer = introspector(qemu, ends="killed by SIGABRT", surveyed=True, behind=True).status(PATH, 7.0)
    assert (answer.source, answer.status, answer.vhost_started) == ("registers", frozenset(), False)
    assert (answer.broken, answer.isr, answer.vhost_dev) == (None, None, None)
    assert "x-query-virtio-status" not in qemu.commands


@pytest.mark.parametrize(
    ("type", "version", "asked"),
    [
        ("virtio-net-pci", "10.0.2", True),
        ("vhost-user-blk-pci", "7.2.22", True),
        ("vhost-user-blk-pci-non-transitional", "11.1.3", True),
        ("vhost-user-scsi-pci", "7.2.22", False),
        ("vhost-user-scsi-pci", "10.0.2", True),
        ("vhost-user-rng-pci", "7.2.22", True),
        ("vhost-user-rng-pci", "10.0.2", False),
        ("vhost-user-i2c-pci", "7.2.22", False),
        ("vhost-vdpa-device-pci", "10.0.2", False),
        ("vhost-vdpa-device-pci", "10.2.0", True),
        # Whatever comes tomorrow.
        ("vhost-user-frobnicator-pci", "12.0.0", False),
    ],
)
def test_vhost_types_that_qemu_dies_of_are_not_asked(type: str, version: str, asked: bool) -> None:
    qemu = Script(AT_REST, _status=status(), _vhost_queue_status=NOT_STARTED)
    answer = introspector(qemu, type, version=version, surveyed=True).status(PATH, 1)
    assert (answer.source == "x-query-virtio-status") is asked
    # Whether it has started can't be asked either, and is not guessed.
    assert answer.vhost_started is (False if asked else None)
    assert ("x-query-virtio-vhost-queue-status" in qemu.commands) is False


def test_what_was_not_surveyed_says_so() -> None:
    with pytest.raises(NotSupportedError, match="was not there when the VM started"):
        introspector(Script(AT_REST), ends="killed by SIGABRT").status(PATH, 1)


def test_what_is_of_no_known_type_is_not_asked() -> None:
    qemu = Script(AT_REST)
    answers = introspector(qemu).statuses(["/machine/peripheral/new0/virtio-backend"], 1)
    assert [type(answer) for answer in answers.values()] == [NotSupportedError]
    assert "x-query-virtio-status" not in qemu.commands


def test_a_queue_that_is_not_there_names_the_right_ones() -> None:
    qemu = Script(_status=status(), _queue_status="Invalid virtqueue number 9")
    with pytest.raises(UnknownNameError) as caught:
        introspector(qemu).queue_status(PATH, 9, 1)
    assert str(caught.value) == f"unknown queue of {PATH}: '9'. There are: 0, 1, 2."


def test_another_error_of_a_queue_is_told() -> None:
    with pytest.raises(CommandError, match="is not a VirtIODevice"):
        introspector(Script(_status=status(), _queue_status="Path x is not a VirtIODevice")).queue_status(PATH, 0, 1)


def test_a_ring_on_a_running_backend_comes_from_ram() -> None:
    qemu = Script(OUR_RAM, _status=status(**vhost()), _vhost_queue_status=vhost_queue())
    with GuestMemory(0x10000) as memory:
        memory.store16(0x2002, 7)
        memory.store16(0x3002, 5)
        queue = introspector(qemu, memory=memory).queue_status(PATH, 1, 1)
    assert (queue.queue_index, queue.vring_desc, queue.shadow_avail_idx, queue.used_idx) == (1, 0x1000, 7, 5)
    assert queue.source == "guest RAM, addresses by x-query-virtio-vhost-queue-status"
    assert (queue.last_avail_idx, queue.inuse, queue.signalled_used) == (None, None, None)
    assert "x-query-virtio-queue-status" not in qemu.commands


@pytest.mark.parametrize(
    ("ram", "reply"),
    [
        ("/objects/pytest-virtio.ram", vhost_queue(**{"used-phys": 1 << 62, "avail-phys": 0x10001})),
        ("/objects/mine", vhost_queue()),
    ],
    ids=["addresses-of-nowhere", "other-ram"],
)
def test_what_is_not_in_our_ram_is_not_read(ram: str, reply: dict[str, Any]) -> None:
    no_ram = {"qom-get": ram, "human-monitor-command": ""}
    qemu = Script(no_ram, _status=status(**vhost()), _vhost_queue_status=reply)
    with GuestMemory(0x10000) as memory:
        queue = introspector(qemu, memory=memory).queue_status(PATH, 1, 1)
    assert (queue.vring_num, queue.shadow_avail_idx, queue.used_idx) == (256, None, None)


def test_indices_of_a_packed_ring_are_not_in_ram() -> None:
    packed = {"transports": ["VIRTIO_F_RING_PACKED: Device supports packed virtqueue layout"], "dev-features": []}
    qemu = Script(OUR_RAM, _status=status(**vhost(), **{"guest-features": packed}), _vhost_queue_status=vhost_queue())
    with GuestMemory(0x10000) as memory:
        queue = introspector(qemu, memory=memory).queue_status(PATH, 0, 1)
    assert (queue.vring_desc, queue.shadow_avail_idx, queue.used_idx) == (0x1000, None, None)


def test_where_nobody_tells_whether_the_ring_is_packed_it_is_not_read() -> None:
    qemu = Script(OUR_RAM, _status=status(**vhost()), _vhost_queue_status=vhost_queue())
    with GuestMemory(0x10000) as memory:
        asked = introspector(qemu, memory=memory)
        told = asked.status(PATH, 1)
        untold = replace(told, guest_features=Features(0, NET, untold="nobody knows"))
        (queue,) = asked.queue_statuses({PATH: untold}, {PATH: [0]}, 1).values()
    assert isinstance(queue, VirtQueueStatus)
    assert (queue.vring_desc, queue.used_idx) == (0x1000, None)


def test_a_device_that_has_gone_is_not_said_to_be_at_rest() -> None:
    qemu = Script({**AT_REST, "query-pci": []})
    with pytest.raises(NotSupportedError, match="is not there any more"):
        introspector(qemu, ends="killed by SIGABRT", surveyed=True).status(PATH, 1)


def test_a_queue_that_is_not_the_backends_is_qemus_own() -> None:
    own = {
        **{"name": "virtio-net", "queue-index": 2, "inuse": 0, "vring-num": 64, "vring-num-default": 64},
        **{"vring-align": 4096, "vring-desc": 1, "vring-avail": 1, "vring-used": 1, "used-idx": 0},
        **{"signalled-used": 0, "signalled-used-valid": False},
    }
    invalid = "Invalid vhost virtqueue number 2"
    control = {"transports": [], "dev-features": ["VIRTIO_NET_F_CTRL_VQ: Control channel available"]}
    with GuestMemory(0x10000) as memory:
        told = status(**vhost(), **{"host-features": control})
        qemu = Script(OUR_RAM, _status=told, _vhost_queue_status=invalid, _queue_status=own)
        assert introspector(qemu, memory=memory).queue_status(PATH, 2, 1).source == "x-query-virtio-queue-status"
        # A data queue of which QEMU does not tell is still the backend's.
        qemu = Script(OUR_RAM, _status=status(**vhost()), _vhost_queue_status=invalid)
        with pytest.raises(DisturbingQueryError, match="would stop its ring"):
            introspector(qemu, memory=memory).queue_status(PATH, 2, 1)


@pytest.mark.parametrize(
    ("type", "reply", "settings", "why"),
    [
        ("vhost-user-blk-pci", status(), {}, "its vhost backend may start at any moment"),
        # The driver may start anew between this answer and the query.
        ("vhost-user-blk-pci", status(status=DRIVER_OK), {}, "its vhost backend may start at any moment"),
        ("virtio-net-pci", status(), {"behind": True}, "its vhost backend may start at any moment"),
        ("vhost-user-blk-pci", status(**{"vm-running": False}), {}, ""),
        # What there is of it is QEMU's.
        ("vhost-user-blk-pci", status(status=DRIVER_OK), {"ended": True}, ""),
        ("virtio-net-pci", status(), {}, ""),
    ],
)
def test_no_query_that_may_hit_a_ring_that_runs(
    type: str, reply: Mapping[str, object], settings: dict[str, Any], why: str
) -> None:
    qemu = Script(_status=reply, _queue_status="Invalid virtqueue number 0")
    with pytest.raises(DisturbingQueryError if why else UnknownNameError, match=why or "unknown queue"):
        introspector(qemu, type, **settings).queue_status(PATH, 0, 1)
    assert ("x-query-virtio-queue-status" in qemu.commands) is not bool(why)


def test_no_query_where_it_is_not_known_whether_a_backend_runs() -> None:
    qemu = Script(AT_REST)
    with pytest.raises(DisturbingQueryError, match="whether its vhost backend runs is not known"):
        introspector(qemu, "vhost-user-rng-pci", surveyed=True).queue_status(PATH, 0, 1)
    with pytest.raises(DisturbingQueryError, match="does not survive x-query-virtio-vhost-queue-status"):
        introspector(qemu, "vhost-user-rng-pci").vhost_queue_status(PATH, 0, 1)
    assert set(qemu.commands) == {"query-status", "query-pci"}


def test_whatever_fails_is_each_ones_own_error() -> None:
    refusing = introspector(Script(AT_REST, _status="Path x is not a VirtIODevice"))
    answers = refusing.statuses([PATH, "/elsewhere"], 1)
    assert [type(answer) for answer in answers.values()] == [CommandError, NotSupportedError]
    odd = Script({"query-status": {"running": "perhaps"}, "query-pci": []})
    (answer,) = introspector(odd, ends="killed by SIGABRT", surveyed=True).statuses([PATH], 1).values()
    assert isinstance(answer, ReplyError)


def test_a_backend_of_which_nothing_is_heard_is_unknown() -> None:
    class Silent(Script):
        def _answer(self, command: str, arguments: Mapping[str, object] | None, timeout: float) -> object | VirtioError:
            if command == "x-query-virtio-vhost-queue-status":
                return MonitorTimeoutError(command, timeout)
            return super()._answer(command, arguments, timeout)

    answer = introspector(Silent(AT_REST), ends="killed by SIGABRT", surveyed=True, behind=True).status(PATH, 1)
    assert answer.vhost_started is None
