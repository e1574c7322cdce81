"""Status by the device's own registers, where QEMU's status query is not survived.

Responsible for what registers tell and for what has to come from elsewhere; must not know how a register is reached
(``bus``) or who drives the device (a callable comes in). What nobody tells is absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from pytest_virtio import qapi
from pytest_virtio.bus.observed import Sight, observe_features, observe_mmio, observe_pci
from pytest_virtio.bus.survey import Surveyed, place_of
from pytest_virtio.errors import CommandError, NotSupportedError, VirtioError
from pytest_virtio.introspect.calm import Calm
from pytest_virtio.introspect.query import raised
from pytest_virtio.introspect.survey import Known
from pytest_virtio.model.features import Features
from pytest_virtio.model.pci import PciFunction
from pytest_virtio.model.status import VirtioStatus
from pytest_virtio.spec.devices import device_type
from pytest_virtio.spec.status import DeviceStatus, status_names
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.monitor import Command, Qmp
from pytest_virtio.vm.qtest import Qtest

__all__ = ("Acknowledged", "Registers")

SOURCE = "registers"
GUEST_SECONDS = 2.0
"""How long a guest may take to answer. On TCG it takes some 0.1 s; one that hangs must not take all the time."""


class Acknowledged(Protocol):
    """What the guest's own side knows of the features that its driver acknowledged."""

    def __call__(self, id: str, base: int | None, timeout: float, /) -> int | None:
        """The bits; None if it does not know, or can't be asked.

        :param id: the device's QEMU id.
        :param base: its address on MMIO.
        :param timeout: seconds; 0 when it is not to be waited for.
        """


class Registers:
    """The registers of one VM's virtio devices.

    :param devices: all of them, as they were before the VM's first instruction.
    :param acknowledged: asked where registers don't tell: on MMIO they can't be read back.
    :param calm: whether selectors may be moved.
    """

    def __init__(self, qmp: Qmp, wire: Qtest, devices: Iterable[Known], acknowledged: Acknowledged, calm: Calm) -> None:
        self._qmp, self._wire, self._acknowledged, self._calm = qmp, wire, acknowledged, calm
        self._devices = {known.info.path: known for known in devices}
        self._kept: dict[str, tuple[int, int]] = {}
        """By path what was acknowledged, and the mark that it was found at: until the next reset it stays so."""

    def statuses(self, paths: Sequence[str], deadline: Deadline) -> dict[str, VirtioStatus | VirtioError]:
        """The devices' statuses by path, or why there is none; what registers don't tell is None."""
        asked: list[Command] = [(qapi.QUERY_RUN_STATE, None), (qapi.QUERY_PCI, None)]
        try:
            state, pci = self._qmp.execute_all(asked, deadline.remaining())
            running = qapi.parse_running(raised(state))
            # A machine without PCI has no such command or an empty answer.
            functions = () if isinstance(pci, CommandError) else qapi.parse_pci(raised(pci))
        except VirtioError as error:
            return dict.fromkeys(paths, error)
        answers: dict[str, VirtioStatus | VirtioError] = {}
        # A guest that stands still, or does not answer for one device, is not asked for the next.
        answering = running
        for path in paths:
            answer = self._status(path, functions, deadline, running=running, ask=answering)
            answering = answering and not _is_deaf(answer)
            answers[path] = answer
        return answers

    def _status(
        self, path: str, functions: tuple[PciFunction, ...], deadline: Deadline, *, running: bool, ask: bool
    ) -> VirtioStatus | VirtioError:
        known = self._devices.get(path)
        if known is None:
            return NotSupportedError(
                f"{path}: this QEMU does not survive {qapi.QUERY_STATUS} of it, and its registers are not known: it "
                "was not there when the VM started, is on neither PCI nor MMIO, or could not be reached"
            )
        try:
            sight = self._look(path, known, functions, deadline)
            source, bits = SOURCE, sight.driver_features
            if bits is None:
                seconds = min(GUEST_SECONDS, deadline.remaining()) if ask else 0.0
                bits = self._acknowledged(known.info.id, known.surveyed.base, seconds)
                source = SOURCE if bits is None else f"{SOURCE}, the guest's word for its features"
        except VirtioError as error:
            return error
        return _status(known, sight, bits, source, running)

    def _look(self, path: str, known: Known, functions: tuple[PciFunction, ...], deadline: Deadline) -> Sight:
        """:raises NotSupportedError: when the device is not there any more."""
        with self._wire.within(deadline, "reading registers"):
            if known.surveyed.base is not None:
                return observe_mmio(self._wire, known.surveyed.base, legacy=known.surveyed.legacy)
            found = next((function for function in functions if place_of(function) == known.place), None)
            if found is None:
                raise NotSupportedError(f"{known.info.path} is not there any more")
            sight = observe_pci(self._wire, known.surveyed, found)
            if sight.driver_features is None and sight.status & DeviceStatus.FEATURES_OK:
                return self._with_features(path, known.surveyed, found, sight, deadline)
            return sight

    def _with_features(
        self, path: str, device: Surveyed, function: PciFunction, sight: Sight, deadline: Deadline
    ) -> Sight:
        """What the driver acknowledged, where it was found out before or can be now."""
        mark, kept = self._calm.mark, self._kept.get(path)
        if kept is not None and kept[0] == mark:
            return sight._replace(driver_features=kept[1])
        done = bool(sight.status & DeviceStatus.DRIVER_OK) or self._calm.idle
        if not done or not self._calm.wait(deadline):
            return sight
        mark = self._calm.mark
        seen = observe_features(self._wire, device, function)
        if seen.driver_features is not None and mark is not None and mark == self._calm.mark:
            self._kept[path] = mark, seen.driver_features
        return seen


def _is_deaf(answer: VirtioStatus | VirtioError) -> bool:
    """Whether the guest was asked in vain: its driver is up, and nobody tells what it acknowledged."""
    return isinstance(answer, VirtioStatus) and answer.driver_ok and bool(answer.guest_features.untold)


def _status(known: Known, sight: Sight, bits: int | None, source: str, running: bool) -> VirtioStatus:
    type = device_type(known.surveyed.device_id)
    host = Features(known.host_features, type)
    # A driver may write what was not offered; QEMU drops it.
    written = (bits or 0) & known.host_features
    return VirtioStatus(
        name=known.info.name,
        device_id=known.surveyed.device_id,
        status=status_names(sight.status),
        guest_features=Features(written, type, offered=host, untold=_untold(known) if bits is None else ""),
        host_features=host,
        vm_running=running,
        num_vqs=known.surveyed.num_queues if sight.num_queues is None else sight.num_queues,
        queue_sel=sight.queue_select,
        source=source,
    )


def _untold(known: Known) -> str:
    if known.surveyed.base is None:
        return (
            f"{known.info.id}: registers do not tell what the driver acknowledged until it is at DRIVER_OK and has "
            "been for a moment: looking further while a driver is at work could disturb it"
        )
    return f"{known.info.id}: MMIO registers do not tell what the driver acknowledged, and the guest can't be asked"
