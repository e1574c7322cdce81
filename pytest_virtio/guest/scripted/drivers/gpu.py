"""The GPU device (virtio 1.3 section 5.7): scanouts, and 2D resources whose pixels lie in guest RAM.

Responsible for the 2D commands of the control queue; must not know what a picture shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from pytest_virtio.errors import RequestFailedError
from pytest_virtio.guest.scripted.driver import Driver
from pytest_virtio.guest.scripted.drivers.messages import check_status, unpacked
from pytest_virtio.spec.devices.gpu import (
    GpuConfig,
    GpuCtrlHdr,
    GpuCtrlType,
    GpuDisplayOne,
    GpuFeature,
    GpuFormat,
    GpuGetDisplayInfo,
    GpuGetEdid,
    GpuMemEntry,
    GpuRect,
    GpuResourceAttachBacking,
    GpuResourceCreate2d,
    GpuResourceDetachBacking,
    GpuResourceFlush,
    GpuResourceUnref,
    GpuRespDisplayInfo,
    GpuRespEdid,
    GpuSetScanout,
    GpuTransferToHost2d,
)

__all__ = ("GpuDriver",)

Command = (
    GpuGetDisplayInfo
    | GpuGetEdid
    | GpuResourceCreate2d
    | GpuResourceUnref
    | GpuSetScanout
    | GpuResourceFlush
    | GpuTransferToHost2d
    | GpuResourceAttachBacking
    | GpuResourceDetachBacking
)
R = TypeVar("R", GpuRespDisplayInfo, GpuRespEdid)


class GpuDriver(Driver):
    """Drives a GPU device in 2D.

    Every verb raises RequestFailedError when the device answers with an error or something absurd, and
    RequestTimeoutError when it doesn't answer in time. Resources have numbers of the caller's choice, 1 or more.
    """

    understood = frozenset({GpuFeature.EDID})

    def config(self) -> GpuConfig:
        """The device's configuration (5.7.4)."""
        return self.read_config(GpuConfig)

    def display_info(self, timeout: float | None = None) -> tuple[GpuDisplayOne, ...]:
        """The scanouts that the device has: place and size that the user wishes, and whether there is a display."""
        answer = self._asked(GpuGetDisplayInfo(), GpuRespDisplayInfo, GpuCtrlType.RESP_OK_DISPLAY_INFO, timeout)
        return GpuDisplayOne.unpack_all(answer.pmodes)[: self.config().num_scanouts]

    def get_edid(self, scanout: int = 0, timeout: float | None = None) -> bytes:
        """The EDID of a scanout's display; it takes VIRTIO_GPU_F_EDID."""
        answer = self._asked(GpuGetEdid(scanout=scanout), GpuRespEdid, GpuCtrlType.RESP_OK_EDID, timeout)
        if answer.size_ > len(answer.edid):
            raise RequestFailedError(
                f"{self.id}: the EDID is longer than its place",
                step=GpuCtrlType.CMD_GET_EDID.name,
                register="size",
                expected=f"{len(answer.edid)} or less",
                seen=str(answer.size_),
            )
        return answer.edid[: answer.size_]

    def resource_create_2d(
        self,
        resource: int,
        width: int,
        height: int,
        format: int = GpuFormat.B8G8R8X8_UNORM,
        timeout: float | None = None,
    ) -> None:
        """Make a resource of ``width`` by ``height`` pixels in the host."""
        self._done(GpuResourceCreate2d(resource_id=resource, format=format, width=width, height=height), timeout)

    def resource_unref(self, resource: int, timeout: float | None = None) -> None:
        """Destroy a resource."""
        self._done(GpuResourceUnref(resource_id=resource), timeout)

    def attach_backing(self, resource: int, stretches: Sequence[tuple[int, int]], timeout: float | None = None) -> None:
        """Tell the device where in guest RAM a resource's pixels are.

        :param stretches: address and length in bytes of each, in order.
        """
        entries = b"".join(GpuMemEntry(address, length).pack() for address, length in stretches)
        command = GpuResourceAttachBacking(resource_id=resource, nr_entries=len(stretches))
        self._done(command, timeout, entries)

    def detach_backing(self, resource: int, timeout: float | None = None) -> None:
        """Take a resource's guest RAM away from the device."""
        self._done(GpuResourceDetachBacking(resource_id=resource), timeout)

    def set_scanout(self, scanout: int, resource: int, rect: GpuRect, timeout: float | None = None) -> None:
        """Show a part of a resource; resource 0 shows nothing any more."""
        self._done(GpuSetScanout(r=rect, scanout_id=scanout, resource_id=resource), timeout)

    def transfer_to_host_2d(self, resource: int, rect: GpuRect, offset: int = 0, timeout: float | None = None) -> None:
        """Have the device read a part of a resource from guest RAM.

        :param offset: in bytes, of the part's first pixel within the backing.
        """
        self._done(GpuTransferToHost2d(r=rect, offset_=offset, resource_id=resource), timeout)

    def resource_flush(self, resource: int, rect: GpuRect, timeout: float | None = None) -> None:
        """Have what the device has read of a resource appear where it is shown."""
        self._done(GpuResourceFlush(r=rect, resource_id=resource), timeout)

    def _asked(self, command: Command, layout: type[R], success: GpuCtrlType, timeout: float | None) -> R:
        """The answer to a command that asks for something."""
        name = GpuCtrlType(command.hdr.type).name
        return unpacked(layout, self._answer(command.pack(), layout.size(), success, name, timeout), self.id, name)

    def _done(self, command: Command, timeout: float | None, entries: bytes = b"") -> None:
        """Have a command done that has no answer but its header."""
        name = GpuCtrlType(command.hdr.type).name
        self._answer(command.pack() + entries, GpuCtrlHdr.size(), GpuCtrlType.RESP_OK_NODATA, name, timeout)

    def _answer(self, command: bytes, room: int, success: GpuCtrlType, name: str, timeout: float | None) -> bytes:
        """What the device answers; an error has a header alone (5.7.6.7)."""
        self.begin(name)
        answer = self.queue("ctrl").request(command, writable=[room], timeout=timeout).written
        check_status(unpacked(GpuCtrlHdr, answer, self.id, name).type, success, self.id, name)
        return answer
