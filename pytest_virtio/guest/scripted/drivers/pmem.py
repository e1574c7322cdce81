"""The PMEM device (virtio 1.3 section 5.19): memory of the host's that outlasts the VM, and its one request.

Responsible for flushes; must not know how the memory itself is read and written: that takes no driver.
"""

from __future__ import annotations

from pytest_virtio.errors import RequestFailedError
from pytest_virtio.guest.scripted.driver import Driver
from pytest_virtio.guest.scripted.drivers.messages import unpacked
from pytest_virtio.spec.devices.pmem import PmemConfig, PmemReq, PmemReqType, PmemResp

__all__ = ("PmemDriver",)


class PmemDriver(Driver):
    """Drives a PMEM device whose memory's place is told by its configuration, not by a shared memory region."""

    def config(self) -> PmemConfig:
        """The device's configuration (5.19.4): where the memory is, guest-physical, and how many bytes."""
        return self.read_config(PmemConfig)

    def flush(self, timeout: float | None = None) -> None:
        """Have what was written to the memory reach the storage behind it (5.19.7).

        :param timeout: seconds; the driver's by default.
        :raises RequestFailedError: when the device says that it can't.
        :raises RequestTimeoutError: when it doesn't answer in time.
        """
        request = self.queue("request").request(PmemReq().pack(), writable=[PmemResp.size()], timeout=timeout)
        answer = unpacked(PmemResp, request.written, self.id, PmemReqType.FLUSH.name)
        if answer.ret:
            raise RequestFailedError(
                f"{self.id}: the device answers the flush with an error",
                step=PmemReqType.FLUSH.name,
                register="virtio_pmem_resp.ret",
                expected="0",
                seen=f"{answer.ret:#x}",
            )
