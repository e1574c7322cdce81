"""The block device: what is written is on the image, what fails says why (virtio 1.3 section 5.2).

Oracles: the image's own bytes on the host, and QEMU's ``query-block`` and ``query-blockstats``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_virtio import Blk, Device, RequestFailedError, RequestTimeoutError, UnknownNameError, UsageError, Virtio
from pytest_virtio.guest.scripted.drivers.blk import BlkDriver
from pytest_virtio.spec.devices.blk import BlkRequestType

from .conftest import Boot, status_of

pytestmark = pytest.mark.qemu

MIB = 1 << 20
LEGACY_MMIO = ["-global", "virtio-mmio.force-legacy=on"]

VARIATIONS: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "modern": ({}, {}),
    "transitional": ({}, {"transport": "pci-transitional"}),
    "transitional, legacy driver": ({}, {"transport": "pci-transitional", "legacy": True}),
    "legacy": ({}, {"transport": "pci-legacy"}),
    "pc": ({}, {"machine": "pc"}),
    "mmio": ({}, {"transport": "mmio"}),
    "legacy mmio": ({}, {"transport": "mmio", "args": LEGACY_MMIO}),
    "intx": ({}, {"interrupts": "intx"}),
    "no interrupts": ({}, {"interrupts": "none"}),
    "packed": ({"packed": "on"}, {}),
    "packed, no event index": ({"packed": "on"}, {"without": {"EVENT_IDX"}}),
    "packed, no indirect tables": ({"packed": "on"}, {"without": {"INDIRECT_DESC"}}),
    "no event index": ({}, {"without": {"EVENT_IDX"}}),
    "no indirect tables": ({}, {"without": {"INDIRECT_DESC"}}),
    "neither": ({}, {"without": {"EVENT_IDX", "INDIRECT_DESC"}}),
    "only VERSION_1": ({}, {"features": {"blk0": {"VERSION_1"}}}),
    "small queue": ({"queue_size": 4}, {"without": {"INDIRECT_DESC"}}),
    "large queue": ({"queue_size": 1024}, {}),
}


def driver_of(virtio: Virtio, id: str = "blk0") -> BlkDriver:
    return virtio.guest.driver(id, BlkDriver)


def block(virtio: Virtio) -> dict[str, Any]:
    """What ``query-block`` says of the only drive."""
    (found,) = cast(list[dict[str, Any]], virtio.vm.qmp("query-block"))
    return found


def image(virtio: Virtio) -> Path:
    return Path(block(virtio)["inserted"]["image"]["filename"])


def counted(virtio: Virtio) -> dict[str, int]:
    """QEMU's own count of what the device has done."""
    (found,) = cast(list[dict[str, Any]], virtio.vm.qmp("query-blockstats"))
    return cast(dict[str, int], found["stats"])


def part(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def pattern(length: int, seed: int = 0) -> bytes:
    """Bytes that look alike nowhere."""
    return hashlib.shake_256(bytes([seed])).digest(length)


@pytest.mark.parametrize(("properties", "options"), VARIATIONS.values(), ids=VARIATIONS)
def test_what_is_written_is_on_the_image(scripted: Boot, properties: dict[str, Any], options: dict[str, Any]) -> None:
    """OUT, FLUSH and IN by every transport and ring (5.2.6)."""
    with scripted(Blk(size="2M", **properties), **options) as virtio:
        driver, data = driver_of(virtio), pattern(8 * 512)
        driver.write(MIB, data)
        driver.flush()
        assert part(image(virtio), MIB - 512, 512 + len(data) + 512) == bytes(512) + data + bytes(512)
        assert driver.read(MIB, len(data)) == data
        assert driver.config().capacity == 2 * MIB // 512
        assert status_of(virtio, "blk0").driver_ok


def test_what_is_on_the_image_is_read(scripted: Boot, tmp_path: Path) -> None:
    """IN of an image of the user's own, which no write changes: it is opened through an overlay."""
    own = tmp_path / "own.img"
    own.write_bytes(content := pattern(MIB, 1))
    with scripted(Blk(own)) as virtio:
        driver = driver_of(virtio)
        assert driver.read(0, MIB) == content
        driver.write(512, pattern(512, 2))
        driver.flush()
        assert driver.read(0, 1536) == content[:512] + pattern(512, 2) + content[1024:1536]
    assert own.read_bytes() == content


def test_every_queue_does_requests(scripted: Boot) -> None:
    """VIRTIO_BLK_F_MQ: ``num_queues`` of them (5.2.2)."""
    with scripted(Blk(size="1M", num_queues=4)) as virtio:
        driver = driver_of(virtio)
        assert driver.config().num_queues == 4
        for number, queue in enumerate(driver.queues):
            driver.write(number * 512, pattern(512, number), queue=queue.name)
            assert queue.completed == 1
        driver.flush(queue=3)
        assert part(image(virtio), 0, 2048) == b"".join(pattern(512, number) for number in range(4))
        assert [driver.read(number * 512, 512, queue=3 - number) for number in range(4)] == [
            pattern(512, number) for number in range(4)
        ]
        assert counted(virtio)["rd_operations"] == 4


@pytest.mark.parametrize("without", [(), ("INDIRECT_DESC",)], ids=["indirect", "chained"])
@pytest.mark.parametrize("packed", ["off", "on"])
def test_a_request_of_as_many_segments_as_the_device_takes(
    scripted: Boot, packed: str, without: tuple[str, ...]
) -> None:
    """``seg_max`` segments beside header and status (5.2.4), both ways."""
    with scripted(Blk(size="1M", packed=packed), without=without) as virtio:
        driver = driver_of(virtio)
        segments = driver.config().seg_max
        assert segments > 100
        pieces = [pattern(512, number % 251) for number in range(segments)]
        driver.finish(driver.submit(BlkRequestType.OUT, 0, *pieces))
        driver.flush()
        assert part(image(virtio), 0, segments * 512) == b"".join(pieces)
        assert driver.finish(driver.submit(BlkRequestType.IN, writable=[512] * segments)) == b"".join(pieces)


def test_a_request_knows_its_queue(scripted: Boot) -> None:
    """VIRTIO_BLK_F_MQ: requests of several queues are finished in one order (5.2.6)."""
    with scripted(Blk(size="1M", num_queues=4)) as virtio:
        driver = driver_of(virtio)
        driver.write(0, pattern(2048))
        requests = [driver.submit(BlkRequestType.IN, number, writable=[512], queue=number) for number in range(4)]
        assert [request.queue for request in requests] == list(driver.queues)
        assert b"".join(driver.finish(request) for request in requests) == pattern(2048)


def test_segments_of_odd_sizes(scripted: Boot) -> None:
    """Where data are cut into buffers says nothing (2.7.4.3)."""
    with scripted(Blk(size="1M")) as virtio:
        driver, data = driver_of(virtio), pattern(1024)
        driver.finish(driver.submit(BlkRequestType.OUT, 1, data[:1], data[1:700], data[700:]))
        assert driver.finish(driver.submit(BlkRequestType.IN, 1, writable=[511, 2, 511])) == data
        driver.flush()
        assert part(image(virtio), 512, 1024) == data


def test_flush(scripted: Boot) -> None:
    """FLUSH, as QEMU counts them (5.2.6)."""
    with scripted(Blk(size="1M")) as virtio:
        for number in range(1, 4):
            driver_of(virtio).flush()
            assert counted(virtio)["flush_operations"] == number


def test_the_cache_is_switched(scripted: Boot) -> None:
    """VIRTIO_BLK_F_CONFIG_WCE: ``writeback`` of configuration space (5.2.5)."""
    with scripted(Blk(size="1M")) as virtio:
        driver = driver_of(virtio)
        for on in (False, True):
            driver.set_writeback(on)
            assert driver.config().writeback == on
            assert block(virtio)["inserted"]["cache"]["writeback"] == on
        with pytest.raises(UsageError, match="on='zz': True or False"):
            driver.set_writeback(cast(bool, "zz"))


def test_a_discarded_stretch(scripted: Boot) -> None:
    """DISCARD (5.2.6.2)."""
    with scripted(Blk(size="2M")) as virtio:
        driver = driver_of(virtio)
        driver.write(0, pattern(2 * MIB))
        driver.discard(MIB // 2, MIB)
        driver.flush()
        expected = pattern(2 * MIB)
        assert image(virtio).read_bytes() == expected[: MIB // 2] + bytes(MIB) + expected[MIB + MIB // 2 :]
        assert image(virtio).stat().st_blocks * 512 < 2 * MIB


@pytest.mark.parametrize("unmap", [False, True])
def test_zeroes_are_written(scripted: Boot, unmap: bool) -> None:
    """WRITE_ZEROES, which may give room back or not (5.2.6.2)."""
    with scripted(Blk(size="2M")) as virtio:
        driver = driver_of(virtio)
        driver.write(0, pattern(2 * MIB))
        driver.write_zeroes(MIB // 2, MIB, unmap=unmap)
        driver.flush()
        expected = pattern(2 * MIB)
        assert image(virtio).read_bytes() == expected[: MIB // 2] + bytes(MIB) + expected[MIB + MIB // 2 :]
        assert (image(virtio).stat().st_blocks * 512 < 2 * MIB) == unmap


def test_its_serial_number(scripted: Boot) -> None:
    """GET_ID: 20 bytes, of which a longer serial number keeps the first (5.2.6)."""
    with scripted(Blk(size="1M", serial="a serial of mine"), Blk(size="1M", serial="x" * 19 + "yz")) as virtio:
        assert driver_of(virtio).get_id() == "a serial of mine"
        assert driver_of(virtio, "blk1").get_id() == "x" * 19 + "y"


def test_a_read_only_disk(scripted: Boot, tmp_path: Path) -> None:
    """VIRTIO_BLK_F_RO: writes fail (5.2.6.2)."""
    own = tmp_path / "own.img"
    own.write_bytes(content := pattern(MIB, 1))
    drive = f"if=none,id=d,format=raw,readonly=on,file={own}"
    with scripted(Device("virtio-blk-pci", drive="d"), args=["-drive", drive]) as virtio:
        driver = driver_of(virtio)
        assert "VIRTIO_BLK_F_RO" in driver.negotiated
        assert driver.read(512, 1024) == content[512:1536]
        with pytest.raises(RequestFailedError, match="IOERR"):
            driver.write(512, bytes(512))
    assert own.read_bytes() == content


def test_a_storage_error(scripted: Boot) -> None:
    """VIRTIO_BLK_S_IOERR for what the storage could not read; other requests go on (5.2.6)."""
    failing = (
        "driver=raw,node-name=d,file.driver=blkdebug,file.image.driver=null-co,file.image.size=1048576,"
        "file.image.read-zeroes=on,file.inject-error.0.event=read_aio,file.inject-error.0.sector=2,"
        "file.inject-error.0.iotype=read"
    )
    with scripted(Device("virtio-blk-pci", drive="d"), args=["-blockdev", failing]) as virtio:
        driver = driver_of(virtio)
        with pytest.raises(RequestFailedError) as caught:
            driver.read(1024, 512)
        assert (caught.value.step, caught.value.seen) == ("IN at sector 2", "1 (IOERR)")
        assert counted(virtio)["failed_rd_operations"] == 1
        assert driver.read(0, 512) == bytes(512)
        driver.write(1024, bytes(512))


def test_a_request_beyond_the_end(scripted: Boot) -> None:
    """Sectors from ``capacity`` on are not there (5.2.6.2): QEMU counts such requests as invalid."""
    with scripted(Blk(size="1M")) as virtio:
        driver = driver_of(virtio)
        with pytest.raises(RequestFailedError, match="IOERR"):
            driver.read(MIB - 512, 1024)
        with pytest.raises(RequestFailedError, match="IOERR"):
            driver.write(1 << 60, bytes(512))
        with pytest.raises(RequestFailedError, match="IOERR"):
            driver.discard(MIB, 512)
        stats = counted(virtio)
        assert (stats["invalid_rd_operations"], stats["invalid_wr_operations"]) == (1, 1)
        assert image(virtio).stat().st_size == MIB


def test_requests_that_the_device_does_not_know(scripted: Boot) -> None:
    """VIRTIO_BLK_S_UNSUPP (5.2.6.2)."""
    with scripted(Blk(size="1M")) as virtio:
        driver = driver_of(virtio)
        with pytest.raises(RequestFailedError, match="UNSUPP"):
            driver.finish(driver.submit(0x4242, 0, bytes(512)))
        with pytest.raises(RequestFailedError) as caught:
            driver.secure_erase(0, 512)
        assert (caught.value.step, caught.value.seen) == ("SECURE_ERASE at sector 0", "2 (UNSUPP)")
        with pytest.raises(RequestFailedError, match="UNSUPP"):
            driver.get_lifetime()
        assert driver.read(0, 512) == bytes(512)


def test_offsets_that_are_no_sectors(scripted: Boot) -> None:
    """Errors of the caller's, before the device hears of anything."""
    with scripted(Blk(size="1M")) as virtio:
        driver = driver_of(virtio)
        with pytest.raises(UsageError, match=r"length=511: .*: a multiple of 512 from 512 up is expected$"):
            driver.read(0, 511)
        for offset, length in ((100, 512), (0, 100), (-512, 512), (0, 0), (0, -512), (1 << 73, 512)):
            with pytest.raises(UsageError, match="sectors of 512 bytes"):
                driver.read(offset, length)
        with pytest.raises(UsageError, match=r"len\(data\)=5"):
            driver.write(0, b"12345")
        with pytest.raises(UsageError, match="length=2199023255552"):
            driver.discard(0, 1 << 41)
        with pytest.raises(UsageError, match="type: 4294967296 doesn't fit"):
            driver.submit(1 << 32)
        assert driver.queue(0).completed == 0


def test_a_request_larger_than_guest_ram(scripted: Boot) -> None:
    """The error names what was asked for, and the rest of RAM is there still."""
    with scripted(Blk(size="1M")) as virtio:
        driver = driver_of(virtio)
        with pytest.raises(UsageError, match=r"request0: .*\[1099511627776, 1\] to write: guest RAM is used up"):
            driver.read(0, 1 << 40)
        assert driver.read(0, 512) == bytes(512)


def test_a_device_that_writes_no_status(scripted: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    """A status that the specification has not, or that was never written, is no success (5.2.6)."""
    with scripted(Blk(size="1M")) as virtio:
        driver = driver_of(virtio)
        request = driver.submit(BlkRequestType.IN, writable=[512])
        answer = SimpleNamespace(data=bytes(512) + b"\xff")
        monkeypatch.setattr(request.queue, "wait", lambda request, timeout: answer)
        with pytest.raises(RequestFailedError, match="seen: 255, which means nothing"):
            driver.finish(request)


def suspending(virtio: Virtio, command: str) -> None:
    """Have blkdebug hold a request back, or let it go."""
    answer = virtio.vm.hmp(f'qemu-io d "{command}"')
    assert "error" not in answer.lower(), answer


HOLDING = ["-drive", "if=none,id=d,format=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename={}"]


@pytest.mark.parametrize("packed", ["off", "on"])
def test_many_requests_at_once_finish_in_any_order(scripted: Boot, tmp_path: Path, packed: str) -> None:
    """A request that the storage holds back does not hold up those after it (2.7, 2.8)."""
    own = tmp_path / "own.img"
    own.write_bytes(content := pattern(MIB, 1))
    args = [word.format(own) for word in HOLDING]
    with scripted(Device("virtio-blk-pci", drive="d", packed=packed), args=args) as virtio:
        driver = driver_of(virtio)
        suspending(virtio, "break read_aio held")
        held = driver.submit(BlkRequestType.IN, 7, writable=[512])
        others = [driver.submit(BlkRequestType.OUT, 100 + n, pattern(512, n)) for n in range(50)]
        for request in reversed(others):
            driver.finish(request)
        assert not held.done
        assert driver.memory.read(held.buffers[-1].address, 1) == b"\xff", "what no status is, until there is one"
        assert driver.queue(0).pending == (held,)
        with pytest.raises(RequestTimeoutError):
            driver.finish(held, timeout=0.05)
        suspending(virtio, "resume held")
        assert driver.finish(held) == content[7 * 512 : 8 * 512]
        driver.flush()
    assert part(own, 100 * 512, 50 * 512) == b"".join(pattern(512, n) for n in range(50))
    assert part(own, 0, 100 * 512) == content[: 100 * 512]


@pytest.mark.parametrize("packed", ["off", "on"])
def test_a_device_that_keeps_the_order(scripted: Boot, tmp_path: Path, packed: str) -> None:
    """VIRTIO_F_IN_ORDER: what is done before its turn waits, then all come (2.7.9, 2.8.8)."""
    own = tmp_path / "own.img"
    own.write_bytes(content := pattern(MIB, 1))
    args = [word.format(own) for word in HOLDING]
    with ExitStack() as stack:
        try:
            disk = Device("virtio-blk-pci", drive="d", packed=packed, in_order="on")
            virtio = stack.enter_context(scripted(disk, args=args))
        except UnknownNameError as error:
            pytest.skip(f"{error} QEMU 10.0 has it.")
        driver = driver_of(virtio)
        assert "VIRTIO_F_IN_ORDER" in driver.negotiated
        suspending(virtio, "break read_aio held")
        held = driver.submit(BlkRequestType.IN, 7, writable=[512])
        others = [driver.submit(BlkRequestType.OUT, 100 + n, pattern(512, n)) for n in range(50)]
        with pytest.raises(RequestTimeoutError):
            driver.finish(others[-1], timeout=0.05)
        assert len(driver.queue(0).pending) == 51
        suspending(virtio, "resume held")
        for request in others:
            driver.finish(request)
        assert held.done
        assert driver.finish(held) == content[7 * 512 : 8 * 512]
    assert part(own, 100 * 512, 50 * 512) == b"".join(pattern(512, n) for n in range(50))
