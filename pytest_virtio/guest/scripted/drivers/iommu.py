"""The IOMMU device (virtio 1.3 section 5.13): domains, mappings, properties of endpoints, faults.

Responsible for its requests and for the buffers of its event queue; must not know what an endpoint is, nor which
mappings it needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pytest_virtio.errors import DriverError, RequestFailedError
from pytest_virtio.guest.scripted.driver import Driver
from pytest_virtio.guest.scripted.drivers.messages import check_status, number, unpacked
from pytest_virtio.guest.scripted.queue import Request
from pytest_virtio.spec.devices.iommu import (
    IommuConfig,
    IommuFault,
    IommuFeature,
    IommuMapFlag,
    IommuProbeProperty,
    IommuProbeResvMem,
    IommuProbeType,
    IommuReqAttach,
    IommuReqDetach,
    IommuReqMap,
    IommuReqProbe,
    IommuReqTail,
    IommuReqType,
    IommuReqUnmap,
    IommuStatus,
)

__all__ = ("IommuDriver", "Property")

LARGEST_PROBE = 1 << 20
"""More bytes of properties than any endpoint has: QEMU offers 512."""
_TYPE_BITS = 0xFFF


AnyRequest = IommuReqAttach | IommuReqDetach | IommuReqMap | IommuReqUnmap | IommuReqProbe


class Property(NamedTuple):
    """What the device tells of an endpoint (5.13.6.7)."""

    type: int
    """An :class:`IommuProbeType`, or a number that is not known here."""
    data: bytes
    """All of it, its head of 4 bytes included."""


class IommuDriver(Driver):
    """Drives an IOMMU device."""

    understood = frozenset(IommuFeature) - {IommuFeature.BYPASS}

    def populate(self) -> None:
        """Fill the event queue with buffers: one access can give many faults, and those without a buffer are lost."""
        events = self.queue("event")
        for _ in range(events.size):
            events.submit(writable=[IommuFault.size()])

    def config(self) -> IommuConfig:
        """The device's configuration (5.13.4)."""
        return self.read_config(IommuConfig)

    def set_bypass(self, bypass: bool) -> None:
        """Let endpoints without a domain access memory as it is, or not; it takes VIRTIO_IOMMU_F_BYPASS_CONFIG.

        :raises UsageError: when ``bypass`` is neither True nor False.
        """
        self.write_config(IommuConfig, "bypass", number("bypass", bypass, 1))

    def probe(self, endpoint: int, timeout: float | None = None) -> tuple[Property, ...]:
        """What the device tells of an endpoint, known or not (5.13.6.7).

        :param endpoint: of a PCI device, bus, slot and function: ``bus << 8 | slot << 3 | function``.
        :raises RequestFailedError: when the device answers with an error status: NOENT without such an endpoint.
        :raises RequestTimeoutError: when it doesn't answer in time.
        :raises DriverError: when it has room for an absurd number of properties.
        """
        size = self.config().probe_size
        if size > LARGEST_PROBE:
            raise DriverError(
                f"{self.id}: the device has too much to tell",
                step=IommuReqType.PROBE.name,
                register="probe_size",
                expected=f"{LARGEST_PROBE} or less",
                seen=str(size),
            )
        return tuple(self._properties(self._request(IommuReqProbe(endpoint=endpoint), size, timeout)))

    def reserved(self, endpoint: int, timeout: float | None = None) -> tuple[IommuProbeResvMem, ...]:
        """The regions of an endpoint's address space that can't be mapped (5.13.6.8.1). It raises as probe does."""
        return tuple(
            unpacked(IommuProbeResvMem, found.data, self.id, IommuReqType.PROBE.name)
            for found in self.probe(endpoint, timeout)
            if found.type == IommuProbeType.RESV_MEM
        )

    def attach(self, domain: int, endpoint: int, flags: int = 0, timeout: float | None = None) -> None:
        """Put an endpoint into a domain, which comes into being with its first one (5.13.6.3).

        :param flags: :class:`IommuAttachFlag`.
        :raises RequestFailedError: when the device answers with an error status: NOENT without such an endpoint.
        :raises RequestTimeoutError: when it doesn't answer in time.
        """
        self._request(IommuReqAttach(domain=domain, endpoint=endpoint, flags=flags), timeout=timeout)

    def detach(self, domain: int, endpoint: int, timeout: float | None = None) -> None:
        """Take an endpoint out of its domain (5.13.6.4). It raises as :meth:`attach` does."""
        self._request(IommuReqDetach(domain=domain, endpoint=endpoint), timeout=timeout)

    def map(
        self,
        domain: int,
        virtual: int,
        physical: int,
        length: int,
        flags: int = IommuMapFlag.READ | IommuMapFlag.WRITE,
        timeout: float | None = None,
    ) -> None:
        """Map ``length`` bytes from ``virtual`` to guest-physical ``physical``, all in whole pages (5.13.6.5).

        :param flags: :class:`IommuMapFlag`.
        :raises RequestFailedError: when the device answers with an error status: INVAL where a mapping is already.
        :raises RequestTimeoutError: when it doesn't answer in time.
        """
        end = virtual + length - 1
        mapping = IommuReqMap(domain=domain, virt_start=virtual, virt_end=end, phys_start=physical, flags=flags)
        self._request(mapping, timeout=timeout)

    def unmap(self, domain: int, virtual: int, length: int, timeout: float | None = None) -> None:
        """Remove all mappings in a stretch (5.13.6.6): whole ones; RANGE is the answer when one would be split.

        It raises as :meth:`attach` does.
        """
        end = virtual + length - 1
        self._request(IommuReqUnmap(domain=domain, virt_start=virtual, virt_end=end), timeout=timeout)

    def next_fault(self, timeout: float | None = None) -> IommuFault:
        """Wait for the next fault that the device reports (5.13.6.9).

        :raises RequestTimeoutError: when there is none in time.
        :raises RequestFailedError: when the report is too short.
        """
        return self._reported(self.queue("event").next(timeout))

    def faults(self) -> tuple[IommuFault, ...]:
        """The faults that are reported by now and were not asked for yet. It raises as :meth:`next_fault` does."""
        return tuple(map(self._reported, iter(self.queue("event").poll, None)))

    def _reported(self, report: Request) -> IommuFault:
        """Read a report, and give the device another buffer for the next."""
        events = self.queue("event")
        events.submit(writable=[IommuFault.size()])
        events.kick()
        return unpacked(IommuFault, report.written, self.id, "fault")

    def _request(self, request: AnyRequest, room: int = 0, timeout: float | None = None) -> bytes:
        """Have a request done; the ``room`` bytes that the device wrote before its status."""
        name = IommuReqType(request.head.type).name
        self.begin(name)
        size = room + IommuReqTail.size()
        answer = self.queue("request").request(request.pack(), writable=[size], timeout=timeout).written
        status = unpacked(IommuReqTail, answer[room:], self.id, name).status
        check_status(status, IommuStatus.OK, self.id, name)
        return answer[:room]

    def _properties(self, data: bytes) -> Iterator[Property]:
        """Walk through a list of properties, whatever lengths are in it."""
        while len(data) >= IommuProbeProperty.size():
            head = IommuProbeProperty.unpack(data)
            if head.type & _TYPE_BITS == IommuProbeType.NONE:
                return
            size = head.size() + head.length
            if size > len(data):
                raise RequestFailedError(
                    f"{self.id}: a property of the endpoint goes beyond the end of the answer",
                    step=IommuReqType.PROBE.name,
                    register="length of the property",
                    expected=f"{len(data) - head.size()} or less",
                    seen=str(head.length),
                )
            yield Property(head.type & _TYPE_BITS, data[:size])
            data = data[size:]
