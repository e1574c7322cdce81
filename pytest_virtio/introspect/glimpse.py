"""Status by a device's own registers where there is nothing but a monitor: no wire, and no survey before the start.

Responsible for what may be read through ``xp`` and ``i`` while somebody else drives the device, and for saying what
that leaves untold. No selector is moved, for it could not be put back in one breath, and no register is read whose
reading has an effect (ISR status). Must not know how the texts look (``qapi``). What nobody tells is absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from pytest_virtio import qapi
from pytest_virtio.bus.survey import place_of
from pytest_virtio.errors import CommandError, NotSupportedError, VirtioError
from pytest_virtio.introspect.query import raised
from pytest_virtio.introspect.survey import place_on_pci
from pytest_virtio.model.features import Features
from pytest_virtio.model.pci import PciFunction
from pytest_virtio.model.status import VirtioInfo, VirtioStatus
from pytest_virtio.spec.devices import NET, device_type
from pytest_virtio.spec.status import DeviceStatus, status_names
from pytest_virtio.spec.transport.mmio import Mmio
from pytest_virtio.spec.transport.pci import Common, Legacy, device_id
from pytest_virtio.spec.transport.register import Register
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.monitor import Command, Execute, Qmp

__all__ = ("Glimpses",)

SOURCE = "registers by the monitor"
LITTLE_ENDIAN = ("x86_64", "i386", "aarch64", "arm", "riscv64", "riscv32", "loongarch64")
"""``xp`` reads in the target's own byte order; virtio's registers are little-endian."""

_COMMON_REGION: Final = "virtio-pci-common"
_MMIO_REGION: Final = "virtio-mmio"

_COMMON: Final = (
    Common.DEVICE_STATUS,
    Common.QUEUE_SELECT,
    Common.NUM_QUEUES,
    # A word says something only if it was selected before and after.
    Common.DEVICE_FEATURE_SELECT,
    Common.DEVICE_FEATURE,
    Common.DEVICE_FEATURE_SELECT,
    Common.DRIVER_FEATURE_SELECT,
    Common.DRIVER_FEATURE,
    Common.DRIVER_FEATURE_SELECT,
)
_HEADER: Final = (Legacy.DEVICE_STATUS, Legacy.QUEUE_SELECT, Legacy.DEVICE_FEATURES, Legacy.DRIVER_FEATURES)

Words = Mapping[int, int]
"""Feature bits, 32 of them by the number of the word."""


class _Found(NamedTuple):
    """Where a device's registers are now; None is what it has not, or what is not decoded."""

    device_id: int
    common: int | None
    header: int | None


class _Sight(NamedTuple):
    """A device, seen."""

    device_id: int
    status: int
    host: Words
    guest: Words
    queue_select: int | None = None
    num_queues: int | None = None


@dataclass(frozen=True, slots=True)
class _Machine:
    """What is told of the machine, once for all devices."""

    running: bool
    functions: tuple[PciFunction, ...]
    regions: Mapping[int, str]


class Glimpses:
    """Looks at devices of one VM.

    :param infos: its devices.
    """

    def __init__(self, qmp: Qmp, infos: Iterable[VirtioInfo]) -> None:
        self._qmp, self._infos = qmp, {info.path: info for info in infos}

    def statuses(self, paths: Sequence[str], deadline: Deadline) -> dict[str, VirtioStatus | VirtioError]:
        """The devices' statuses by path, or why there is none."""
        try:
            machine = self._machine(deadline)
        except VirtioError as error:
            return dict.fromkeys(paths, error)
        return {path: self._status(self._infos[path], machine, deadline) for path in paths}

    def _machine(self, deadline: Deadline) -> _Machine:
        map = qapi.HMP, {"command-line": qapi.QUERY_MEMORY_MAP}
        asked: list[Command] = [(qapi.QUERY_RUN_STATE, None), (qapi.QUERY_PCI, None), (qapi.QUERY_TARGET, None), map]
        state, pci, target, memory = self._qmp.execute_all(asked, deadline.remaining())
        if (arch := qapi.parse_target(raised(target))) not in LITTLE_ENDIAN:
            raise NotSupportedError(f"the monitor does not read registers of a {arch} as they are")
        # A machine without PCI has no such command or an empty answer.
        functions = () if isinstance(pci, CommandError) else qapi.parse_pci(raised(pci))
        return _Machine(qapi.parse_running(raised(state)), functions, qapi.parse_regions(raised(memory)))

    def _status(self, info: VirtioInfo, machine: _Machine, deadline: Deadline) -> VirtioStatus | VirtioError:
        def execute(command: str, arguments: Mapping[str, object] | None = None, timeout: float = 0.0, /) -> object:
            return self._qmp.execute(command, arguments, deadline.remaining())

        try:
            sight = self._on_mmio(execute, info, machine) or self._on_pci(execute, info, machine, deadline)
        except VirtioError as error:
            return error
        return _status(info, sight, machine.running)

    def _on_mmio(self, execute: Execute, info: VirtioInfo, machine: _Machine) -> _Sight | None:
        """None of a device that is on no virtio-mmio bus. All its selectors, and what the driver acknowledged, can be
        written only (virtio 1.3 section 4.2.2)."""
        if info.proxy != info.path:
            return None
        bus = str(execute(qapi.QOM_GET, {"path": info.path, "property": "parent_bus"}))
        region = f"{bus.rpartition('/')[0]}/{_MMIO_REGION}[0]"
        base = execute(qapi.QOM_GET, {"path": region, "property": "addr"})
        if not isinstance(base, int) or machine.regions.get(base) != _MMIO_REGION:
            raise NotSupportedError(f"{info.id}: its registers are at no place that QEMU's memory map has")
        status, id = (
            qapi.parse_register(execute(*_reading("memory", base, register)))
            for register in (Mmio.STATUS, Mmio.DEVICE_ID)
        )
        return _Sight(id, status, {}, {})

    def _on_pci(self, execute: Execute, info: VirtioInfo, machine: _Machine, deadline: Deadline) -> _Sight:
        found = _find(place_on_pci(execute, info), machine)
        if found is None:
            raise NotSupportedError(f"{info.id}: its registers are not known: it is not on PCI, or not found there")
        common = [_reading("memory", found.common, register) for register in _COMMON] if found.common else []
        header = [_reading("io", found.header, register) for register in _HEADER] if found.header else []
        answers = self._qmp.execute_all([*common, *header], deadline.remaining())
        values = [qapi.parse_register(raised(answer)) for answer in answers]
        return _seen(found.device_id, values[: len(common)], values[len(common) :])


def _reading(space: Literal["memory", "io"], base: int, register: Register) -> tuple[str, Mapping[str, object]]:
    return qapi.HMP, {"command-line": qapi.read_register(space, base + register.offset, register.size)}


def _find(place: tuple[str, int, int] | None, machine: _Machine) -> _Found | None:
    function = next((f for f in machine.functions if place is not None and place_of(f) == place), None)
    id = None if function is None else device_id(function.vendor, function.device)
    if function is None or id is None:
        return None
    windows = [(bar.address, bar.size) for bar in function.bars if bar.space == "memory" and bar.address is not None]
    named = (at for at, name in machine.regions.items() if name.startswith(_COMMON_REGION))
    common = next((at for at in named if any(start <= at < start + size for start, size in windows)), None)
    first = function.bar(0)
    return _Found(id, common, first.address if first is not None and first.space == "io" else None)


def _seen(id: int, common: Sequence[int], header: Sequence[int]) -> _Sight:
    """One whose registers are not decoded is at rest: no driver can reach it, and what takes its addresses away, a
    reset of the machine or of its bus, resets the device too."""
    if not common and not header:
        return _Sight(id, 0, {}, {})
    host, guest = ({0: header[2]}, {0: header[3]}) if header else ({}, {})
    if not common:
        return _Sight(id, header[0], host, {**guest, 1: 0}, header[1])
    status, queue, count, *features = common
    for words, (before, word, after) in ((host, features[:3]), (guest, features[3:])):
        # The header's word has the bits for legacy drivers too, which QEMU hides from the others.
        if before == after:
            words.setdefault(before, word)
    return _Sight(id, status, host, guest, queue, count)


def _status(info: VirtioInfo, sight: _Sight, running: bool) -> VirtioStatus:
    type = device_type(sight.device_id)
    offered = sum(sight.host.get(number, 0) << 32 * number for number in (0, 1))
    lacking = _lacking(sight)
    host = Features(offered, type, texts=[f"(not told: {lacking})"] if lacking else ())
    written = _acknowledged(sight)
    untold = "" if written is not None else _untold(info, sight)
    return VirtioStatus(
        name=info.name,
        device_id=sight.device_id,
        status=status_names(sight.status),
        # A driver may write what was not offered; QEMU drops it.
        guest_features=Features((written or 0) & offered, type, offered=host, untold=untold),
        host_features=host,
        vm_running=running,
        num_vqs=sight.num_queues,
        queue_sel=sight.queue_select,
        source=SOURCE,
    )


def _lacking(sight: _Sight) -> str:
    """Which of the offered bits are not known."""
    missing = [f"bits {32 * word} to {32 * word + 31}" for word in (0, 1) if word not in sight.host]
    # QEMU has such since 10.2, for network cards only.
    return ", ".join([*missing, *(["bits 64 and up"] if sight.device_id == NET.id else [])])


def _acknowledged(sight: _Sight) -> int | None:
    """What the driver acknowledged; None where that is not told."""
    if not sight.status & ~DeviceStatus.ACKNOWLEDGE:
        # Features are written from DRIVER on (virtio 1.3 section 3.1.1).
        return 0
    if sight.status & DeviceStatus.FEATURES_OK:
        both = sight.guest.keys() >= {0, 1} and sight.host.keys() >= {0, 1}
        return sight.guest[0] | sight.guest[1] << 32 if both else None
    # A legacy driver knows no FEATURES_OK.
    return sight.guest.get(0) if sight.status & DeviceStatus.DRIVER_OK else None


def _untold(info: VirtioInfo, sight: _Sight) -> str:
    what = f"{info.id}: this QEMU does not survive being asked, and registers "
    if not sight.status & DeviceStatus.FEATURES_OK:
        return f"{what}do not tell it before FEATURES_OK"
    names = Features(sum(sight.guest[n] << 32 * n for n in sight.guest if n < 2), device_type(sight.device_id))
    known = f"of it {', '.join(names)} alone" if names else "none of it"
    return f"{what}tell {known} while no selector is moved; from within the guest: /sys/bus/virtio/devices/*/features"
