"""The memory device (virtio 1.3 section 5.15): blocks of memory, plugged and unplugged.

Responsible for its requests; must not know which blocks a guest should want, nor read or write them.
"""

from __future__ import annotations

from pytest_virtio.errors import RequestFailedError
from pytest_virtio.guest.scripted.driver import Driver
from pytest_virtio.guest.scripted.drivers.messages import check_status, unpacked
from pytest_virtio.spec.devices.mem import (
    MemConfig,
    MemFeature,
    MemReq,
    MemReqBlocks,
    MemReqType,
    MemResp,
    MemRespType,
    MemState,
)

__all__ = ("MemDriver",)


class MemDriver(Driver):
    """Drives a memory device.

    Addresses are guest-physical, from ``config().addr`` on and multiples of ``config().block_size`` bytes; blocks are
    counted, 1 to 65535 at once. What a device makes of others is for a test to find out.
    """

    understood = frozenset(MemFeature)

    def config(self) -> MemConfig:
        """The device's configuration (5.15.4): among others ``plugged_size``, and ``requested_size`` of the host."""
        return self.read_config(MemConfig)

    def plug(self, address: int, blocks: int = 1, timeout: float | None = None) -> None:
        """Ask for blocks of memory (5.15.6.3).

        :param timeout: seconds; the driver's by default.
        :raises RequestFailedError: when the device refuses (NACK), can't now (BUSY) or finds an error (ERROR).
        :raises RequestTimeoutError: when it doesn't answer in time.
        :raises UsageError: for numbers that don't fit the request.
        """
        self._ask(MemReqType.PLUG, MemReqBlocks(address, blocks), timeout)

    def unplug(self, address: int, blocks: int = 1, timeout: float | None = None) -> None:
        """Give blocks back; what is in them is lost (5.15.6.4). It raises as :meth:`plug` does."""
        self._ask(MemReqType.UNPLUG, MemReqBlocks(address, blocks), timeout)

    def unplug_all(self, timeout: float | None = None) -> None:
        """Give all blocks back (5.15.6.5). It raises as :meth:`plug` does."""
        self._ask(MemReqType.UNPLUG_ALL, MemReqBlocks(0, 0), timeout)

    def state(self, address: int, blocks: int = 1, timeout: float | None = None) -> MemState:
        """Whether blocks are plugged, unplugged, or some of them this and others that (5.15.6.6). It raises as
        :meth:`plug` does."""
        state = self._ask(MemReqType.STATE, MemReqBlocks(address, blocks), timeout).u.type
        if state not in tuple(MemState):
            raise RequestFailedError(
                f"{self.id}: the device answers with a state that there isn't",
                step=MemReqType.STATE.name,
                register="virtio_mem_resp_state.type",
                expected=", ".join(f"{known} ({known.name})" for known in MemState),
                seen=str(state),
            )
        return MemState(state)

    def _ask(self, type: MemReqType, which: MemReqBlocks, timeout: float | None) -> MemResp:
        message = MemReq(type, u=which).pack()
        step = f"{type.name} of {which.nb_blocks} blocks at {which.addr:#x}"
        request = self.queue("request").request(message, writable=[MemResp.size()], timeout=timeout)
        answer = unpacked(MemResp, request.written, self.id, step)
        check_status(answer.type, MemRespType.ACK, self.id, step)
        return answer
