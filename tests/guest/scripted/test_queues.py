"""Virtqueues of every kind (virtio 1.3 sections 2.6 to 2.9), with a block device whose image is the proof, and rings
that look alike from both sides."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_virtio import (
    Blk,
    Net,
    NotSupportedError,
    QueueFullError,
    RequestTimeoutError,
    Rng,
    UnknownNameError,
    UsageError,
    Virtio,
    VirtioError,
)
from pytest_virtio.guest.scripted.drivers.blk import BlkDriver
from pytest_virtio.guest.scripted.drivers.net import NetDriver
from pytest_virtio.guest.scripted.drivers.rng import RngDriver
from pytest_virtio.guest.scripted.queue import DriverQueue
from pytest_virtio.ring.driver import Buffer
from pytest_virtio.spec.devices.blk import BlkRequest, BlkRequestType
from pytest_virtio.spec.features import TransportFeature

from .conftest import Boot

pytestmark = pytest.mark.qemu

SECTOR = 512


def write(queue: DriverQueue, sector: int, *pieces: bytes, **how: Any) -> bytes:
    """Write pieces as a chain of as many buffers and wait; the status byte."""
    header = BlkRequest(type=BlkRequestType.OUT, reserved=0, sector=sector).pack()
    request = queue.submit(header, *pieces, writable=[1], **how)
    queue.kick()
    return queue.wait(request).data


def read(queue: DriverQueue, sector: int, *sizes: int, **how: Any) -> bytes:
    header = BlkRequest(type=BlkRequestType.IN, reserved=0, sector=sector).pack()
    request = queue.submit(header, writable=[*sizes, 1], **how)
    queue.kick()
    return queue.wait(request).data


def on_the_image(virtio: Virtio, length: int) -> bytes:
    """What the host's file behind the disk begins with."""
    blocks: Any = virtio.vm.qmp("query-block")
    virtio.vm.hmp('qemu-io blk0 "flush"')
    return next(Path(block["inserted"]["file"]).read_bytes()[:length] for block in blocks if "inserted" in block)


KINDS = [
    pytest.param({}, {}, id="split"),
    pytest.param({}, {"without": ["EVENT_IDX"]}, id="split-no-event-idx"),
    pytest.param({}, {"without": ["INDIRECT_DESC"]}, id="split-no-indirect"),
    pytest.param({"packed": "on"}, {}, id="packed"),
    pytest.param({"packed": "on"}, {"without": ["EVENT_IDX"]}, id="packed-no-event-idx"),
    pytest.param({"packed": "on"}, {"without": ["INDIRECT_DESC"]}, id="packed-no-indirect"),
    pytest.param({"in_order": "on"}, {}, id="in-order"),
    pytest.param({"in_order": "on", "packed": "on"}, {}, id="packed-in-order"),
]


@pytest.fixture(params=["pci", "mmio"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def disk(
    scripted: Boot, properties: dict[str, Any], settings: dict[str, Any], transport: str
) -> Iterator[tuple[Virtio, BlkDriver]]:
    try:
        block = scripted(Blk(driver=None, **properties), transport=transport, **settings)
        virtio = block.__enter__()
    except UnknownNameError as error:
        pytest.skip(f"this QEMU doesn't have it: {error}")
    try:
        yield virtio, virtio.guest.driver("blk0", BlkDriver)
    finally:
        block.__exit__(None, None, None)


@pytest.mark.parametrize(("properties", "settings"), KINDS)
def test_data_is_on_the_image(
    disk: tuple[Virtio, BlkDriver], properties: dict[str, Any], settings: dict[str, Any]
) -> None:
    """2.7, 2.8: chains of one to eight buffers, more of them than a ring of 16 has room for at a time."""
    virtio, driver = disk
    queue = driver.initialise(sizes=16).queue(0)
    for name, feature in (("packed", "RING_PACKED"), ("in_order", "IN_ORDER")):
        assert (feature in driver.negotiated) == (properties.get(name) == "on")
    written = b""
    for number in range(40):
        pieces = [bytes([number + 1, piece]) * (SECTOR // 2) for piece in range(number % 8 + 1)]
        assert write(queue, len(written) // SECTOR, *pieces) == b"\0"
        written += b"".join(pieces)
    assert queue.completed == 40
    assert queue.ring.free == 16
    assert read(queue, 0, *[SECTOR] * 8) == written[: SECTOR * 8] + b"\0"
    assert on_the_image(virtio, len(written)) == written


@pytest.mark.parametrize(("properties", "settings"), KINDS)
@pytest.mark.parametrize("transport", ["pci"])
def test_65536_requests(disk: tuple[Virtio, BlkDriver]) -> None:
    """2.7.13.1: idx wraps at 65536; 2.8.1: wrap counters change sides some thousand times. GET_ID needs no image."""
    _, driver = disk
    queue = driver.initialise(sizes=64).queue(0)
    header = BlkRequest(type=BlkRequestType.GET_ID, reserved=0, sector=0).pack()
    indirect = "INDIRECT_DESC" in driver.negotiated
    batch = 60 if indirect else 20
    while queue.completed < 66_000:
        requests = [queue.submit(header, writable=[20, 1]) for _ in range(batch)]
        queue.kick()
        for request in requests:
            assert queue.wait(request).length == 21
    assert queue.ring.free == 64
    assert not queue.pending


@pytest.mark.parametrize("packed", ["off", "on"], ids=["split", "packed"])
def test_notifications_with_data(scripted: Boot, packed: str) -> None:
    """2.9, 4.1.5.2: 32 bits are written, also where the data are 0. No device of QEMU's own offers it; one that doesn't
    know it looks at the queue's index alone."""
    with scripted(Blk(driver=None, packed=packed, ioeventfd="off")) as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver)
        ring = {"RING_PACKED"} if packed == "on" else set()
        queue = driver.initialise({"VERSION_1", "NOTIFICATION_DATA", *ring}, sizes=4).queue(0)
        for number in range(20):
            driver.write(SECTOR * number, bytes([number]) * SECTOR)
        assert queue.kicks == 20
        assert on_the_image(virtio, SECTOR * 20) == b"".join(bytes([n]) * SECTOR for n in range(20))


@pytest.mark.parametrize("size", [4, 32, 128, 256])
def test_sizes_of_split_rings(scripted: Boot, size: int) -> None:
    """2.7: powers of two; a chain may be as long as the ring."""
    with scripted(Blk(driver=None)) as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver).initialise(sizes=size)
        assert driver.queue(0).size == size
        for number in range(5):
            driver.write(SECTOR * number, bytes([number]) * SECTOR)
        assert driver.read(0, SECTOR * 5) == b"".join(bytes([n]) * SECTOR for n in range(5))


@pytest.mark.parametrize("size", [3, 100, 255])
def test_sizes_of_packed_rings(scripted: Boot, size: int) -> None:
    """2.8.10.1: any size; with an indirect table one descriptor does."""
    with scripted(Blk(driver=None, packed="on")) as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver).initialise(sizes=size)
        assert driver.queue(0).size == size
        for number in range(5):
            driver.write(SECTOR * number, bytes([number]) * SECTOR)
        assert driver.read(0, SECTOR * 5) == b"".join(bytes([n]) * SECTOR for n in range(5))


@pytest.mark.parametrize("packed", ["off", "on"])
def test_a_ring_of_one(scripted: Boot, packed: str) -> None:
    """2.7, 2.8.10.1: the smallest ring takes one buffer at a time, again and again."""
    with scripted(Rng(driver=None, packed=packed)) as virtio:
        driver = virtio.guest.driver("rng0", RngDriver).initialise(sizes={0: 1})
        assert len({driver.read(16) for _ in range(100)}) > 90


def test_a_ring_larger_than_the_device_takes(scripted: Boot) -> None:
    """4.1.5.1.3: a driver writes no more than the device shows. QEMU 7.2 and 10.0 take up to 1024 all the same, 11.1
    goes on with what it has: with the same effect until the smaller ring wraps, or none at all."""
    with scripted(Blk(driver=None)) as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver).initialise(sizes=1024)
        assert driver.queue(0).size == 1024
        driver.timeout = 0.3
        with contextlib.suppress(RequestTimeoutError):
            assert driver.read(0, SECTOR) == bytes(SECTOR)
        assert driver.initialise().read(0, SECTOR) == bytes(SECTOR)


@pytest.mark.parametrize("size", [0, 3, -1, 65536])
def test_sizes_that_no_split_ring_has(scripted: Boot, size: int) -> None:
    with scripted(Rng()) as virtio:
        driver = virtio.guest.driver("rng0", RngDriver)
        with pytest.raises(
            UsageError, match=f"a split virtqueue has a power of two of entries, 32768 at most, not {size}"
        ):
            driver.initialise(sizes=size)
        assert len(driver.initialise().read(4)) == 4


def test_sizes_by_name(scripted: Boot) -> None:
    with scripted(Blk(num_queues=2), Rng()) as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver)
        name = driver.queue(1).name
        driver.initialise(sizes={name: 8})
        assert [queue.size for queue in driver.queues] == [256, 8]
        with pytest.raises(UnknownNameError, match=f"unknown queue of blk0: '{name}0'. Did you mean '{name}'"):
            driver.initialise(sizes={f"{name}0": 8})
        with pytest.raises(UsageError, match="size '8' of queue 0: a number is expected"):
            driver.initialise(sizes={0: "8"})  # type: ignore[dict-item]


def test_a_legacy_pci_device_chooses_the_size(scripted: Boot) -> None:
    """4.1.5.1.3.1: legacy devices have no register to write a size to."""
    with scripted(Blk(), transport="pci-transitional", legacy=True) as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver)
        with pytest.raises(NotSupportedError, match="256"):
            driver.initialise(sizes=16)
        driver.initialise(sizes=256).write(0, bytes(SECTOR))


# One queue.


def test_one_queue_is_reset(scripted: Boot) -> None:
    """2.6.1: one queue is reset with requests that were not kicked, and set up again with another size."""
    with scripted(Blk(num_queues=2)) as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver)
        if "RING_RESET" not in driver.negotiated:
            with pytest.raises(NotSupportedError, match="VIRTIO_F_RING_RESET was not negotiated"):
                driver.reset_queue(1)
            pytest.skip("this QEMU has no VIRTIO_F_RING_RESET")
        for size in [16, 256, 32] * 10:
            old = driver.queue(1)
            old.submit(bytes(16), writable=[100_000, 1])
            driver.reset_queue(old.name)
            assert [queue.index for queue in driver.queues] == [0]
            assert write(driver.queue(0), 0, bytes(SECTOR)) == b"\0"
            queue = driver.enable_queue(1, size)
            assert driver.queues == (driver.queue(0), queue)
            assert write(queue, 1, b"resetted" * 64) == b"\0"
            with pytest.raises(UsageError, match="has ended with a reset"):
                old.kick()
        assert driver.reset_queue(1).enable_queue(1).size == 32
        assert driver.read(SECTOR, SECTOR) == b"resetted" * 64


def test_one_queue_is_reset_with_buffers_waiting(scripted: Boot) -> None:
    """2.6.1: the device gives back no buffer of a queue that was reset; the others go on.

    A network card, for virtio-blk of QEMU 7.2 completes what was under way into the queue that comes after.
    """
    with scripted(Net()) as virtio:
        driver = virtio.guest.driver("net0", NetDriver)
        if "RING_RESET" not in driver.negotiated:
            pytest.skip("this QEMU has no VIRTIO_F_RING_RESET")
        for _ in range(10):
            old = driver.queue("rx0")
            waiting = old.pending
            assert waiting
            driver.reset_queue("rx0")
            with pytest.raises(UsageError):
                old.wait(waiting[0])
            assert len(driver.enable_queue("rx0").pending) == len(waiting)
            driver.send(bytes(60))


def test_queues_that_are_not_there(scripted: Boot) -> None:
    with scripted(Rng(), Blk(driver=None)) as virtio:
        driver, idle = virtio.guest.driver("rng0", RngDriver), virtio.guest.driver("blk0", BlkDriver)
        for verb in (driver.queue, driver.reset_queue, driver.enable_queue):
            with pytest.raises(UnknownNameError, match="unknown queue of rng0: 'rx0'"):
                verb("rx0")
        for attempt in (idle.queue, idle.reset_queue, idle.enable_queue):
            with pytest.raises(UnknownNameError, match="None is set up"):
                attempt(0)


# Requests.


def test_a_full_ring(scripted: Boot) -> None:
    """2.7: no more chains than descriptors; nothing is lost when one is refused."""
    with scripted(Rng(driver=None)) as virtio:
        driver = virtio.guest.driver("rng0", RngDriver).initialise(sizes=4)
        queue = driver.queue(0)
        requests = [queue.submit(writable=[8]) for _ in range(4)]
        with pytest.raises(QueueFullError) as caught:
            queue.submit(writable=[8])
        assert str(caught.value).startswith(
            f"rng0, {queue.name}: the queue is full: 0 of 4 descriptors are free; 1 wanted"
        )
        assert queue.standing == "0 requests given back, 0 with the device, 4 submitted but not kicked"
        queue.kick()
        assert all(len(queue.wait(request).written) == 8 for request in requests)


def test_requests_are_waited_for_in_any_order_and_twice(scripted: Boot) -> None:
    with scripted(Blk(), Rng()) as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver)
        queue, other = driver.queue(0), virtio.guest.driver("rng0", RngDriver).queue(0)
        first, second, third, fourth = (driver.submit(BlkRequestType.IN, 0, writable=[SECTOR]) for _ in range(4))
        assert queue.wait(third) is third
        assert queue.wait(third) is third
        given_back = {queue.next(), queue.next(), queue.next()}
        assert given_back == {first, second, fourth}
        assert queue.poll() is None
        assert queue.wait(first) is first
        with pytest.raises(UsageError, match="another queue's, or a reset has ended it"):
            other.wait(queue.submit(b"x"))


def test_chains_that_no_ring_takes_cost_no_ram(scripted: Boot) -> None:
    with scripted(Rng(), memory="8M", transport="mmio") as virtio:
        driver = virtio.guest.driver("rng0", RngDriver)
        for _ in range(100):
            for readable, writable in (((), ()), ((b"",) * 9, (-1,)), ((), (1,) * 1025), ((), (1 << 40,))):
                with pytest.raises(UsageError):
                    driver.queue(0).submit(*readable, writable=writable)
            with pytest.raises(UsageError):
                driver.queue(0).submit_buffers(
                    [Buffer(0, 1, device_writes=True), Buffer(0, 1)], blocks=(driver.allocate(500_000),)
                )
        assert len(driver.read(8)) == 8


# Both sides see the same.


@pytest.mark.parametrize(
    ("transport", "legacy"),
    [("pci", False), ("pci-transitional", True), ("mmio", False)],
    ids=["modern", "legacy", "mmio"],
)
def test_qemu_sees_the_ring_as_we_do(scripted: Boot, transport: str, legacy: bool) -> None:
    """x-query-virtio-queue-status and -element of requests that are published and not kicked, element by element.

    The query walks descriptors, and would break the device by stale ones (FACTS.md section 0): so only pending slots
    are asked for, of rings that nothing was taken from in between.
    """
    with scripted(Blk(num_queues=1), transport=transport, legacy=legacy) as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver)
        queue = driver.queue(0)
        for _ in range(3):
            driver.read(0, SECTOR)
        taken = queue.completed
        chains = [
            queue.submit(
                bytes(16),
                bytes([n]) * SECTOR,
                writable=[1] * (n + 1),
                indirect=n % 2 == 1 and driver.has(TransportFeature.INDIRECT_DESC),
            )
            for n in range(6)
        ]
        queue.ring.publish()
        path = virtio["blk0"].path
        seen: Any = virtio.vm.qmp("x-query-virtio-queue-status", {"path": path, "queue": 0})
        assert (seen["vring-num"], seen["used-idx"], seen["last-avail-idx"]) == (queue.size, taken, taken)
        assert (seen["vring-desc"], seen["vring-avail"], seen["vring-used"]) == (
            *(queue.areas.descriptors, queue.areas.driver, queue.areas.device),
        )
        assert seen["inuse"] == 0
        for number, request in enumerate(chains):
            element: Any = virtio.vm.qmp(
                "x-query-virtio-queue-element", {"path": path, "queue": 0, "index": (taken + number) % queue.size}
            )
            assert element["index"] == request.token
            assert element["avail"]["idx"] == taken + len(chains)
            assert element["avail"]["ring"] == request.token
            assert element["used"] == {"flags": 0, "idx": taken}
            told = [(d["addr"], d["len"], "write" in d["flags"]) for d in reversed(element["descs"])]
            assert told == [(b.address, b.length, b.device_writes) for b in request.buffers]
            links = ["next" in d["flags"] for d in reversed(element["descs"])]
            assert links == [True] * (len(request.buffers) - 1) + [False]
        queue.kick(always=True)
        # Headers of zeros are reads of sector 0 with data where none belongs: whatever becomes of them, all come back.
        for request in chains:
            queue.wait(request)
        assert virtio.vm.running


def test_public_names_hold_in_any_state(scripted: Boot) -> None:
    """Before set-up and on a queue that has ended: errors of our tree, each at once."""
    with scripted(Rng()) as virtio:
        driver = virtio.guest.driver("rng0", RngDriver)
        queue = driver.queue(0)
        request = queue.submit(writable=[4])
        driver.reset()
        assert driver.status() == frozenset()
        for verb in (queue.kick, queue.poll, queue.next, lambda: queue.wait(request), lambda: queue.submit(b"x")):
            with pytest.raises(VirtioError, match="reset"):
                verb()
        assert (queue.pending, queue.standing) == ((), "0 requests given back, 0 with the device")
        with pytest.raises(UnknownNameError, match="None is set up"):
            driver.read(4)
        with pytest.raises(UsageError, match="no block of guest RAM there"):
            driver.free(0x100000)
        with pytest.raises(UsageError, match="8 bits"):
            driver.set_status(-1)
        queue.end()
        assert not queue.interrupted()
