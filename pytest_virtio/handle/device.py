"""``virtio["net0"]``: one virtio device, its queries and assertions.

Responsible for the device's verbs and for the verdict in an assertion's first line; must not know how an answer was
got, nor pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import NoReturn, TypeVar, cast

from pytest_virtio import render
from pytest_virtio.errors import CommandError, NotSupportedError, UnknownNameError, UsageError, VirtioAssertionError
from pytest_virtio.guest.ready import await_driver_ok
from pytest_virtio.guest.scripted.guest import ScriptedGuest
from pytest_virtio.handle.backend import VhostBackend, not_agreed_on, unserved, vhost_side
from pytest_virtio.handle.baseline import Baselines, assert_baseline
from pytest_virtio.handle.conformance import broken_rules
from pytest_virtio.handle.profile import profile
from pytest_virtio.handle.queue import VirtioQueue
from pytest_virtio.handle.wire import DeviceWire, device_wire
from pytest_virtio.introspect.properties import offering_properties
from pytest_virtio.introspect.query import Queries
from pytest_virtio.launch import QUERY_SECONDS, RunningVm
from pytest_virtio.model.features import Features
from pytest_virtio.model.history import History, passes_of_last_driver
from pytest_virtio.model.negotiation import FeatureNegotiation, negotiation
from pytest_virtio.model.profile import DeviceProfile, Profile
from pytest_virtio.model.queue import VirtioQueueElement
from pytest_virtio.model.status import VirtioInfo, VirtioStatus
from pytest_virtio.model.verdict import Fault, FeatureFault, Stage, missing_features, stage, unwanted_features
from pytest_virtio.spec.devices import device_type
from pytest_virtio.vm.deadline import Deadline

__all__ = ("VirtioDevice",)

DRIVER_OK_SECONDS = 30.0

Feature = str | int

T = TypeVar("T")


class VirtioDevice:
    """One virtio device of a running VM."""

    def __init__(self, running: RunningVm, id: str, baselines: Baselines | None = None) -> None:
        self._running, self._baselines = running, baselines
        self._introspector = running.introspector
        self.id = id
        self.path = running.paths[id]
        """Its QOM path."""

    def __repr__(self) -> str:
        return f"<VirtioDevice {self.id} {self.path}>"

    @property
    def name(self) -> str:
        """What QEMU's introspection calls it, after its device id: ``"virtio-net"``."""
        return self.status().name

    @property
    def type(self) -> str:
        """Its exact QEMU type: ``"virtio-net-pci"``, or ``"virtio-net-device"`` on virtio-mmio."""
        proxy = self.path.removesuffix("/virtio-backend")
        return cast(str, self._running.qemu.execute("qom-get", {"path": proxy, "property": "type"}))

    def status(self, *, timeout: float = QUERY_SECONDS) -> VirtioStatus:
        """What was offered, what the driver acknowledged, how far it went. Asking does not disturb the device.

        :param timeout: seconds.
        :raises NotSupportedError: when the device was unplugged, saying so.
        :raises MonitorTimeoutError: when QEMU doesn't answer in time.
        :raises QemuExitedError: when QEMU is gone.
        """
        return self._plugged(lambda: self._introspector.status(self.path, timeout))

    @property
    def history(self) -> History:
        """Every step of its device status since the machine was there, driver by driver. Asking does not disturb it.

        Also once QEMU has ended: then it is what QEMU logged, which nothing confirms, as the source says.

        :raises NotSupportedError: when the device was unplugged, saying so.
        :raises MonitorTimeoutError: when QEMU doesn't answer in time.
        :raises QemuExitedError: when the VM was closed; or when QEMU has ended, and had logged nothing that tells.
        """
        return self._plugged(lambda: self._running.histories.history(self.path, QUERY_SECONDS))

    @property
    def backend(self) -> VhostBackend:
        """Its vhost-user backend: to be killed, stopped, restarted.

        :raises NotSupportedError: when it has none.
        """
        backend = self._running.backends.get(self.id)
        if backend is None:
            having = ", ".join(self._running.backends) or "no device of this VM has"
            raise NotSupportedError(f"{self.id} has no vhost-user backend that was declared; {having} one")
        return VhostBackend(backend, device_type(self.status().device_id))

    @property
    def wire(self) -> DeviceWire:
        """What QEMU and the vhost-user backend tell each other, seen by the witness between them.

        :raises NotSupportedError: when there is no witness, or no vhost-user backend.
        """
        return device_wire(self._running, self.id)

    @property
    def stalled_at(self) -> Stage | None:
        """Where its initialisation stands; None when its last driver has finished its set-up."""
        found = stage(self.status().status)
        return None if found is Stage.DRIVER_OK else found

    @property
    def queues(self) -> tuple[VirtioQueue, ...]:
        """Its virtqueues, by index."""
        status = self.status()
        if status.num_vqs is None:
            raise NotSupportedError(f"{self.id}: {status.source} does not tell how many queues there are")
        names = device_type(status.device_id).queue_names(status.num_vqs, status.host_features.bits)
        return tuple(VirtioQueue(self, index, called) for index, called in enumerate(names))

    def queue(self, which: int | str) -> VirtioQueue:
        """A virtqueue by index, by our short name (``"rx0"``) or by the specification's (``"receiveq1"``).

        :raises UsageError: for what is neither.
        :raises UnknownNameError: naming those that there are.
        """
        if not isinstance(which, int | str) or isinstance(which, bool):
            raise UsageError(f"{which!r} is no queue: give its index or its name")
        queues = self.queues
        for queue in queues:
            if which in (queue.index, *queue.names):
                return queue
        called = f"queue of {self.id}"
        if isinstance(which, int):
            raise UnknownNameError(called, str(which), remedy=_numbered(len(queues)))
        raise UnknownNameError(called, which, [name for queue in queues for name in queue.names])

    def raw_queue_element(
        self, queue: int | str, index: int | None = None, *, timeout: float = QUERY_SECONDS
    ) -> VirtioQueueElement:
        """An element of a ring by QEMU's own ``x-query-virtio-queue-element``. **This can break the device.**

        It walks descriptors that the driver may have freed: on an idle ring of an ordinary guest it was seen to set
        ``broken`` and NEEDS_RESET, after which the guest's I/O hangs; hostile ring contents make QEMU abort. It also
        overwrites ``shadow-avail-idx``. Use it where the device is lost anyway.

        :param index: slot of the available ring; the next one to be taken by default, which is stale on an idle ring.
        :raises CommandError: when QEMU can't read the ring.
        """
        return self._introspector.raw_queue_element(self.path, self.queue(queue).index, index, timeout)

    def negotiation(self) -> tuple[FeatureNegotiation, ...]:
        """What device, driver and vhost backend made of each feature that any of them offers or acknowledged, lowest
        bit first. ``pytest_virtio.render.negotiation`` makes a table of it. Asking does not disturb the device.

        :raises MonitorTimeoutError: when QEMU doesn't answer in time.
        :raises QemuExitedError: when QEMU is gone.
        """
        rows = self._sides(self.status())
        known = self._properties([row.feature for row in rows if not row.offered])
        return tuple(replace(row, option=known.get(row.feature, "")) for row in rows)

    def profile(self) -> DeviceProfile:
        """What was negotiated, and what the device shows, as far as it stays the same from run to run. Asking does not
        disturb it, and raises what :meth:`.Virtio.profile` does."""
        return self._profile().devices[self.id]

    def _profile(self) -> Profile:
        return self._plugged(lambda: profile(self._running, [self.id], QUERY_SECONDS))

    def _sides(self, status: VirtioStatus) -> tuple[FeatureNegotiation, ...]:
        return negotiation(status, self._by_backend, self._masked)

    def wait_driver_ok(self, timeout: float | None = None) -> VirtioStatus:
        """Wait until a driver has finished its set-up; :meth:`assert_driver_ok` says what counts.

        :param timeout: seconds; 30 by default.
        :raises DeviceStalledError: at the deadline, naming the stage at which the device stands.
        :raises QemuExitedError: when QEMU ends.
        :raises VirtioAssertionError: when its vhost-user backend has ended, or is not connected.
        """
        deadline = Deadline.after(DRIVER_OK_SECONDS if timeout is None else timeout)
        heed = partial(self._running.heed, f"the wait for {self.id}")
        status = await_driver_ok([self.id], lambda _: self.status(), deadline, heed)[self.id]
        if why := unserved(self._running.backends.get(self.id), status):
            self._fail(why[0], status, why[1:])
        return status

    def assert_driver_ok(self) -> None:
        """Assert that the driver has finished its set-up, that the device is not broken, and that its vhost-user
        backend, where one was declared, is connected and has not ended: QEMU says DRIVER_OK, and often
        ``vhost_started``, over a dead one too.

        :raises VirtioAssertionError: naming the stage at which the device stands.
        """
        status = self.status()
        if not status.driver_ok:
            self._fail(f"not at DRIVER_OK but at {stage(status.status).value}", status)
        if status.broken:
            self._fail("broken: QEMU met an error in a ring and stopped serving the device", status)
        if why := unserved(self._running.backends.get(self.id), status):
            self._fail(why[0], status, why[1:])

    def assert_initialised_once(self) -> None:
        """Assert that the last driver came to DRIVER_OK in one pass, since the machine was last reset.

        A pass that was begun and not finished before is that driver's too. One that reached DRIVER_OK is another
        driver's, the firmware's before the kernel's; but in a scripted guest, which has one driver only, it counts.

        :raises VirtioAssertionError: with all drivers' steps.
        :raises NotSupportedError: when steps may have been missed, saying why.
        """
        history = self.history
        if history.polled or history.full:
            raise NotSupportedError(f"{self.id}: steps may have been missed: {history.source}; full: {history.full}")
        passes = passes_of_last_driver(history, alone=isinstance(self._running.guest, ScriptedGuest))
        if len(passes) != 1 or not history[-1].driver_ok:
            verdict = f"initialised in {len(passes)} passes" if len(passes) > 1 else "not initialised"
            lines = [f"{self.id}: {verdict}: {stage(history[-1].status).value}", *render.status_history(history)]
            raise VirtioAssertionError("\n  ".join(lines))

    def assert_negotiated(self, *features: Feature) -> None:
        """Assert that the device offered each feature and that the driver acknowledged it.

        :raises VirtioAssertionError: saying of each missing one whose doing that is.
        :raises UnknownNameError: for a name that such a device can't have.
        """
        status = self.status()
        faults = missing_features(status, _some(features), self._by_backend, self._masked)
        if faults:
            reasons = list(render.feature_faults(self._with_properties(faults)))
            facts = render.backend_facts(self._sides(status), [fault.feature for fault in faults])
            self._fail(_first(reasons, "not negotiated"), status, [*reasons[1:], *facts])

    def assert_not_negotiated(self, *features: Feature) -> None:
        """Assert that the driver acknowledged none of the features.

        :raises VirtioAssertionError: naming those that it did.
        :raises UnknownNameError: for a name that such a device can't have.
        """
        status = self.status()
        there = unwanted_features(status.guest_features, _some(features))
        if there:
            self._fail(f"{_listed(there)} negotiated, but unwanted: offered by the device, taken by the driver", status)

    def assert_offered(self, *features: Feature) -> None:
        """Assert that the device offers each feature, whatever the driver makes of it.

        :raises VirtioAssertionError: naming those that it doesn't.
        :raises UnknownNameError: for a name that such a device can't have.
        """
        status = self.status()
        offered = replace(status, guest_features=status.host_features)
        faults = missing_features(offered, _some(features), self._by_backend, self._masked)
        if faults:
            reasons = list(render.feature_faults(self._with_properties(faults)))
            self._fail(_first(reasons, "missing"), status, reasons[1:])

    def assert_not_offered(self, *features: Feature) -> None:
        """Assert that the device offers none of the features.

        :raises VirtioAssertionError: naming those that it does.
        :raises UnknownNameError: for a name that such a device can't have.
        """
        status = self.status()
        there = unwanted_features(status.host_features, _some(features))
        if there:
            self._fail(f"{_listed(there)} offered by the device, but unwanted", status)

    def assert_backend_offered(self, *features: Feature) -> None:
        """Assert that the vhost backend offers the features, be they the driver's or not.

        :param features: names, members or bit numbers of what such a device can have, or of vhost's own
            (``"VHOST_USER_F_PROTOCOL_FEATURES"``).
        :raises VirtioAssertionError: naming those that are missing.
        :raises UnknownNameError: for a name that such a backend can't have.
        :raises NotSupportedError: when there is no vhost backend that runs, or nobody tells what it offers.
        """
        status = self.status()
        offered = self._by_backend if self._by_backend is not None else vhost_side(self.id, status).features.bits
        names = device_type(status.device_id).vhost_feature_names
        missing = Features.of(_some(features), names) - Features(offered, names)
        if missing:
            self._fail(f"{_listed(missing.names)} not offered by the vhost backend", status)

    def assert_protocol_features(self, *features: Feature) -> None:
        """Assert that QEMU and the vhost-user backend agreed on these features of the protocol:
        ``"VHOST_USER_PROTOCOL_F_REPLY_ACK"``, ``"REPLY_ACK"``.

        :raises VirtioAssertionError: saying of each missing one whose doing that is.
        :raises UnknownNameError: for a name that the protocol doesn't have.
        :raises NotSupportedError: when there is no vhost-user backend that runs, or nobody tells what they agreed on
            (QEMU 11.1 does not: ``wire=True`` does).
        """
        status = self.status()
        reasons = not_agreed_on(vhost_side(self.id, status), _some(features), self._running.backends.get(self.id))
        if reasons:
            self._fail(_first(reasons, "not agreed on"), status, reasons[1:])

    def assert_conforms(self) -> None:
        """Assert that driver and device keep the rules of the specification, as far as status, features and rings show
        it: VERSION_1 and FEATURES_OK where the driver is no legacy one, only what is offered acknowledged, to a vhost
        backend too, features that require others neither offered nor acknowledged without, where rings lie, indices
        within their size, no device that failed. What can't be known breaks no rule, and what the test itself masks no
        rule of the device's.

        :raises VirtioAssertionError: naming each broken rule with its section and the value that was seen.
        :raises NotSupportedError: when the device's status can't be had.
        """
        status = self.status()
        found = broken_rules(self._running, [self.id], QUERY_SECONDS).get(self.id, ())
        if found:
            first, *more = render.breaches(found)
            count = f" (and {len(more)} more)" if more else ""
            self._fail(f"breaks a rule of the specification: {first}{count}", status, more)

    def assert_baseline(self, name: str = "") -> None:
        """:meth:`.Virtio.assert_baseline` of this device alone, by its table in the same file."""
        assert_baseline(self._baselines, self._profile(), name, whole=False)

    @property
    def _by_backend(self) -> int | None:
        """What the vhost backend offers, where it is ours to ask: QEMU does not tell while it serves nothing, and 11.1
        never does."""
        return self._running.offered_by_backend(self.id)

    @property
    def _masked(self) -> int:
        """What of that the test keeps from QEMU."""
        return self._running.masked_by_test(self.id)

    def _with_properties(self, faults: Iterable[FeatureFault]) -> tuple[FeatureFault, ...]:
        """The faults, with the options by which QEMU would offer what it doesn't."""
        found = tuple(faults)
        names = [fault.feature for fault in found if fault.fault in (Fault.NOT_OFFERED, Fault.MASKED_BY_BACKEND)]
        known = self._properties(names)
        return tuple(replace(fault, property=known.get(fault.feature, "")) for fault in found)

    def _properties(self, features: Sequence[str]) -> dict[str, str]:
        """The options by which QEMU would offer these features, with their values."""
        proxy = VirtioInfo(self.path, "").proxy
        return offering_properties(self._running.qemu, proxy, features, QUERY_SECONDS) if features else {}

    def _plugged(self, ask: Callable[[], T]) -> T:
        """The answer; an error says so when the device is there no more."""
        try:
            return ask()
        # QEMU's word, or that of who reads its registers.
        except (CommandError, NotSupportedError) as error:
            if self.path in {info.path for info in Queries(self._running.qemu).devices(QUERY_SECONDS)}:
                raise
            raise NotSupportedError(f"{self.id} was unplugged ({error})") from None

    def _fail(self, verdict: str, status: VirtioStatus, more: Iterable[str] = ()) -> NoReturn:
        facts = (f"status: {stage(status.status).value}", f"source: {status.source}")
        raise VirtioAssertionError("\n  ".join([f"{self.id}: {verdict}", *more, *facts]))


def _some(features: tuple[Feature, ...]) -> tuple[Feature, ...]:
    if not features:
        raise UsageError("no feature given: an assertion about none can't fail")
    for feature in features:
        if not isinstance(feature, str | int) or isinstance(feature, bool):
            raise UsageError(
                f"{feature!r} is no feature. Features are separate arguments, each a name, a member or a bit number: "
                "assert_negotiated('VIRTIO_F_VERSION_1', 'MRG_RXBUF')"
            )
    return features


def _numbered(count: int) -> str:
    """By which indices there are queues."""
    return f"Its queues are 0..{count - 1}." if count > 1 else "It has queue 0 only." if count else "It has none."


def _first(reasons: list[str], what: str) -> str:
    """The first of ``NAME: reason`` as a sentence, and how many more there are: summaries show one line only."""
    name, _, why = reasons[0].partition(": ")
    return f"{name} {what}: {why}" + (f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else "")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
