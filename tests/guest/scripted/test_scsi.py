"""The SCSI host: commands, task management, events (virtio 1.3 section 5.6).

Oracles: the disk's image on the host, what QMP says of the disk, and identities given on QEMU's command line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_virtio import RequestFailedError, RequestTimeoutError, Scsi, UsageError, Virtio
from pytest_virtio.guest.scripted.drivers.scsi import ScsiDriver, target_and_lun
from pytest_virtio.guest.scripted.drivers.scsi_unit import Capacity, ScsiAnswer, ScsiOpcode, Sense, SenseKey
from pytest_virtio.guest.scripted.queue import Request
from pytest_virtio.spec.devices.scsi import ScsiEventType, ScsiResetReason, ScsiRespCmd, ScsiResponse, ScsiTmfSubtype

from .conftest import Boot, status_of

pytestmark = pytest.mark.qemu

MIB = 1 << 20
TIB = 1 << 40
TEST_UNIT_READY = bytes(6)
RESET = Sense(SenseKey.UNIT_ATTENTION, 0x29, 0)
NOTHING = ["-blockdev", "driver=null-co,node-name=nothing,size=1048576,read-zeroes=on"]

VARIATIONS: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "modern": ({}, {}),
    "packed": ({"packed": "on"}, {}),
    "transitional": ({}, {"transport": "pci-transitional", "legacy": True}),
    "legacy": ({}, {"transport": "pci-legacy"}),
    "mmio": ({}, {"transport": "mmio"}),
    "legacy mmio": ({}, {"transport": "mmio", "args": ["-global", "virtio-mmio.force-legacy=on"]}),
    "only VERSION_1": ({}, {"features": {"scsi0": {"VERSION_1"}}}),
}


def driver_of(virtio: Virtio) -> ScsiDriver:
    return virtio.guest.driver("scsi0", ScsiDriver)


def image(virtio: Virtio) -> Path:
    (found,) = cast(list[dict[str, Any]], virtio.vm.qmp("query-block"))
    return Path(found["inserted"]["image"]["filename"])


def part(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def pattern(length: int, seed: int = 0) -> bytes:
    """Bytes that look alike nowhere."""
    return hashlib.shake_256(bytes([seed])).digest(length)


@pytest.mark.parametrize(("properties", "options"), VARIATIONS.values(), ids=VARIATIONS)
def test_what_is_written_is_on_the_image(scripted: Boot, properties: dict[str, Any], options: dict[str, Any]) -> None:
    """WRITE(10), SYNCHRONIZE CACHE and READ(10) by every transport and ring (5.6.6.1)."""
    with scripted(Scsi(size="2M", **properties), **options) as virtio:
        disk, data = driver_of(virtio).unit(), pattern(8 * 512)
        disk.write(MIB, data)
        disk.flush()
        assert part(image(virtio), MIB - 512, 512 + len(data) + 512) == bytes(512) + data + bytes(512)
        assert disk.read(MIB, len(data)) == data
        assert disk.capacity() == Capacity(2 * MIB // 512, 512)
        assert status_of(virtio, "scsi0").driver_ok


def test_flush(scripted: Boot) -> None:
    """SYNCHRONIZE CACHE, as QEMU counts them."""
    with scripted(Scsi(size="1M")) as virtio:
        for number in range(1, 4):
            driver_of(virtio).unit().flush()
            (found,) = cast(list[dict[str, Any]], virtio.vm.qmp("query-blockstats"))
            assert found["stats"]["flush_operations"] == number


def test_beyond_what_short_commands_reach(scripted: Boot) -> None:
    """WRITE(16) and READ(16): at blocks that don't fit into 32 bits."""
    with scripted(Scsi(size=4 * TIB)) as virtio:
        disk, data = driver_of(virtio).unit(), pattern(1024)
        disk.write(3 * TIB, data)
        disk.flush()
        assert disk.capacity().blocks == 4 * TIB // 512
        assert disk.read(3 * TIB - 512, 1536) == bytes(512) + data
        assert part(image(virtio), 3 * TIB, 1024) == data


def test_what_a_disk_is(scripted: Boot) -> None:
    """INQUIRY: standard data, and a page of vital product data (SPC-4 6.6)."""
    disk = "scsi-hd,bus=scsi0.0,scsi-id=5,lun=3,drive=nothing,vendor=MINE,product=a thing of mine,serial=0815"
    with scripted(Scsi(), args=[*NOTHING, "-device", disk]) as virtio:
        unit = driver_of(virtio).unit(5, 3)
        data = unit.inquiry()
        assert (data[0], data[8:16], data[16:32]) == (0, b"MINE    ", b"a thing of mine ")
        assert unit.inquiry(0x80)[4:8] == b"0815"


def test_the_units_of_a_target(scripted: Boot) -> None:
    """REPORT LUNS (SPC-4 6.33); units that are not there are of no use."""
    more = [word for lun in (1, 300) for word in ("-device", f"scsi-hd,bus=scsi0.0,scsi-id=0,lun={lun},drive=n{lun}")]
    drives = [word for lun in (1, 300) for word in ("-blockdev", f"driver=null-co,node-name=n{lun},size={lun * 512}")]
    with scripted(Scsi(), args=[*drives, *more]) as virtio:
        driver = driver_of(virtio)
        assert sorted(driver.unit().report_luns()) == [0, 1, 300]
        assert driver.unit(0, 300).capacity() == Capacity(300, 512)
        with pytest.raises(RequestFailedError, match="ILLEGAL_REQUEST"):
            driver.unit(0, 2).capacity()
        with pytest.raises(RequestFailedError, match=r"BAD_TARGET \(0x03\)"):
            driver.unit(9).capacity()


def test_a_reset_is_told_once(scripted: Boot) -> None:
    """UNIT ATTENTION after power-on and after LOGICAL UNIT RESET (SAM-5 5.14; virtio 5.6.6.2)."""
    with scripted(Scsi()) as virtio:
        driver = driver_of(virtio)
        assert driver.execute(0, 0, TEST_UNIT_READY).sense == RESET
        driver.unit().test_unit_ready()
        driver.manage(ScsiTmfSubtype.LOGICAL_UNIT_RESET)
        with pytest.raises(RequestFailedError, match=r"CHECK_CONDITION \(0x02\), sense UNIT_ATTENTION \(0x06\)"):
            driver.unit().test_unit_ready()
        assert driver.execute(0, 0, TEST_UNIT_READY).good


def test_task_management(scripted: Boot) -> None:
    """Functions for units that are there, and that are not (5.6.6.2)."""
    with scripted(Scsi()) as virtio:
        driver = driver_of(virtio)
        assert driver.manage(ScsiTmfSubtype.QUERY_TASK, id=4711) == ScsiResponse.FUNCTION_COMPLETE
        for response, request in (
            ("BAD_TARGET", (ScsiTmfSubtype.LOGICAL_UNIT_RESET, 9)),
            ("INCORRECT_LUN", (ScsiTmfSubtype.LOGICAL_UNIT_RESET, 0, 7)),
            ("FUNCTION_REJECTED", (4242,)),
        ):
            with pytest.raises(RequestFailedError) as caught:
                driver.manage(*request)
            assert caught.value.seen.startswith(response)
            assert caught.value.step.startswith("task management function")


def test_a_command_that_hangs_is_found_by_task_management(scripted: Boot, tmp_path: Path) -> None:
    """QUERY TASK names a command by its ``id`` for as long as the device has it (5.6.6.2)."""
    own = tmp_path / "own.img"
    own.write_bytes(content := pattern(MIB, 1))
    drive = f"if=none,id=d,format=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename={own}"
    args = ["-drive", drive, "-device", "scsi-hd,bus=scsi0.0,drive=d"]
    with scripted(Scsi(size=None), args=args) as virtio:
        driver = driver_of(virtio)
        driver.execute(0, 0, TEST_UNIT_READY)
        virtio.vm.hmp('qemu-io d "break read_aio held"')
        held = driver.submit(0, 0, bytes([ScsiOpcode.READ_10, 0, 0, 0, 0, 7, 0, 0, 1, 0]), length=512, id=4711)
        assert driver.manage(ScsiTmfSubtype.QUERY_TASK, id=4711) == ScsiResponse.FUNCTION_SUCCEEDED
        assert driver.manage(ScsiTmfSubtype.QUERY_TASK, id=4712) == ScsiResponse.FUNCTION_COMPLETE
        with pytest.raises(RequestTimeoutError):
            driver.queue("request0").wait(held, timeout=0.05)
        virtio.vm.hmp('qemu-io d "resume held"')
        assert driver.answer(driver.queue("request0").wait(held), 512).data == content[7 * 512 : 8 * 512]
        assert driver.manage(ScsiTmfSubtype.QUERY_TASK, id=4711) == ScsiResponse.FUNCTION_COMPLETE


def test_disks_come_and_go(scripted: Boot) -> None:
    """VIRTIO_SCSI_F_HOTPLUG: TRANSPORT_RESET events (5.6.6.3)."""
    with scripted(Scsi(), args=NOTHING) as virtio:
        driver = driver_of(virtio)
        # QEMU lets go of the drive some time after the device: hence the other ids, and share-rw.
        disk = {"driver": "scsi-hd", "bus": "scsi0.0", "scsi-id": 6, "lun": 2, "drive": "nothing", "share-rw": True}
        for number in range(12):
            virtio.vm.qmp("device_add", {**disk, "id": f"late{number}"})
            event = driver.next_event()
            assert (event.event, event.reason) == (ScsiEventType.TRANSPORT_RESET, ScsiResetReason.RESCAN)
            assert target_and_lun(event.lun) == (6, 2)
            assert driver.unit(6, 2).capacity().blocks == 2048
            virtio.vm.qmp("device_del", {"id": f"late{number}"})
            event = driver.next_event()
            assert (event.event, event.reason) == (ScsiEventType.TRANSPORT_RESET, ScsiResetReason.REMOVED)
            assert not driver.execute(6, 2, TEST_UNIT_READY).good


def test_no_events_without_the_feature(scripted: Boot) -> None:
    """Without VIRTIO_SCSI_F_HOTPLUG nothing is told of a new disk (5.6.3)."""
    with scripted(Scsi(), args=NOTHING, without={"VIRTIO_SCSI_F_HOTPLUG"}) as virtio:
        driver = driver_of(virtio)
        virtio.vm.qmp("device_add", {"driver": "scsi-hd", "bus": "scsi0.0", "scsi-id": 6, "drive": "nothing"})
        assert driver.unit(6).capacity().blocks == 2048
        with pytest.raises(RequestTimeoutError, match="event"):
            driver.next_event(timeout=0.05)


def test_a_disk_grows(scripted: Boot) -> None:
    """VIRTIO_SCSI_F_CHANGE: PARAM_CHANGE, its reason the sense codes of CAPACITY DATA HAS CHANGED (5.6.6.3)."""
    with scripted(Scsi(size="1M")) as virtio:
        driver = driver_of(virtio)
        virtio.vm.qmp("block_resize", {"device": "scsi0.drive", "size": 3 * MIB})
        event = driver.next_event()
        assert (event.event, event.reason) == (ScsiEventType.PARAM_CHANGE, 0x2A | 0x09 << 8)
        assert driver.unit().capacity().blocks == 3 * MIB // 512


def test_commands_that_fail(scripted: Boot, tmp_path: Path) -> None:
    """The error names command, status and sense (SPC-4 4.5)."""
    own = tmp_path / "own.img"
    own.write_bytes(content := pattern(MIB, 1))
    readonly = ["-blockdev", f"driver=raw,node-name=ro,read-only=on,file.driver=file,file.filename={own}"]
    failing = ["-blockdev", "driver=blkdebug,node-name=bad,image.driver=null-co,inject-error.0.event=none"]
    units = ["-device", "scsi-hd,bus=scsi0.0,lun=1,drive=ro", "-device", "scsi-hd,bus=scsi0.0,lun=2,drive=bad"]
    with scripted(Scsi(size="1M"), args=[*readonly, *failing, *units]) as virtio:
        driver = driver_of(virtio)
        with pytest.raises(RequestFailedError) as caught:
            driver.unit().read(MIB, 512)
        assert caught.value.step == "READ_10 (0x28): 28 00 00 00 08 00 00 00 01 00"
        assert caught.value.seen == "CHECK_CONDITION (0x02), sense ILLEGAL_REQUEST (0x05), additional 0x21/0x00"
        with pytest.raises(RequestFailedError, match=r"ILLEGAL_REQUEST \(0x05\), additional 0x20/0x00"):
            driver.unit().command(b"\xff" + bytes(9))
        with pytest.raises(RequestFailedError, match="DATA_PROTECT"):
            driver.unit(lun=1).write(0, bytes(512))
        assert driver.unit(lun=1).read(512, 512) == content[512:1024]
        with pytest.raises(RequestFailedError, match="sense ABORTED_COMMAND"):
            driver.unit(lun=2).read(0, 512)
        assert driver.unit().read(0, 512) == bytes(512)


def test_every_queue_does_commands(scripted: Boot) -> None:
    """``num_queues`` request queues after the first two (5.6.2)."""
    with scripted(Scsi(size="1M", num_queues=3)) as virtio:
        driver = driver_of(virtio)
        assert driver.config().num_queues == 3
        for number, queue in enumerate(driver.queues[2:]):
            driver.unit(queue=queue.name).write(number * 512, pattern(512, number))
            assert queue.completed
        driver.unit(queue=4).flush()
        assert part(image(virtio), 0, 1536) == b"".join(pattern(512, number) for number in range(3))


def test_mistakes_of_the_caller(scripted: Boot) -> None:
    """Numbers that no request can carry."""
    with scripted(Scsi(size="1M")) as virtio:
        driver = driver_of(virtio)
        with pytest.raises(UsageError, match="target=256"):
            driver.unit(256).inquiry()
        with pytest.raises(UsageError, match="a command of 33 bytes"):
            driver.unit().command(bytes(33))
        with pytest.raises(UsageError, match=r"length=100: .* blocks of 512 bytes"):
            driver.unit().read(0, 100)
        with pytest.raises(UsageError, match="subtype: -1 doesn't fit"):
            driver.manage(-1)
        with pytest.raises(UsageError, match="don't fit the command"):
            driver.unit().inquiry(page=0x123)


def answered(written: bytes) -> Request:
    """A request as a device might give it back."""
    return cast(Request, SimpleNamespace(written=written))


def test_answers_that_make_no_sense(scripted: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lengths are the device's word, and bounded (5.6.6.1)."""
    with scripted(Scsi(size="1M")) as virtio:
        driver = driver_of(virtio)
        with pytest.raises(RequestFailedError, match="11 bytes"):
            driver.answer(answered(bytes(11)))
        head = ScsiRespCmd(0xFFFFFFFF, 0xFFFFFFFF, 0, 0, 0).pack()
        hostile = answered(head + bytes(96) + bytes(512))
        answer = driver.answer(hostile, 512)
        assert (answer.good, answer.sense, answer.data) == (True, None, b"")
        nonsense = ScsiRespCmd(0, 0, 0, 0x55, 0x66).pack()
        assert str(driver.answer(answered(nonsense))) == "0x66"
        assert driver.unit().capacity().block_bytes == 512
        disk = driver.unit()
        disk.read(0, 512)
        monkeypatch.setattr(driver, "answer", lambda request, length: answer)
        with pytest.raises(RequestFailedError, match="too few data are moved: 0 bytes"):
            disk.read(0, 512)
        with pytest.raises(RequestFailedError, match="too few data are moved"):
            disk.write(0, bytes(512))
        with pytest.raises(RequestFailedError, match="too few data are moved"):
            disk.report_luns()
        sizeless = ScsiAnswer("", 0, None, bytes(32), 0)
        monkeypatch.setattr(driver, "answer", lambda request, length: sizeless)
        with pytest.raises(RequestFailedError, match="its blocks have no size"):
            driver.unit().read(0, 512)
        event = SimpleNamespace(next=lambda timeout: answered(b"123"), submit=lambda **_: 0, kick=lambda: 0)
        monkeypatch.setattr(driver, "queue", lambda which: event)
        with pytest.raises(RequestFailedError, match="3 bytes"):
            driver.next_event()


def test_sense_data_of_both_formats() -> None:
    """Fixed, descriptor, cut off, and neither (SPC-4 4.5.2, 4.5.3)."""
    assert Sense.parse(bytes([0x70, 0, 5, *bytes(9), 0x24, 1])) == Sense(SenseKey.ILLEGAL_REQUEST, 0x24, 1)
    assert Sense.parse(bytes([0x72, 6, 0x29, 2])) == Sense(SenseKey.UNIT_ATTENTION, 0x29, 2)
    assert Sense.parse(bytes([0x70, 0, 5])) is None
    assert Sense.parse(b"") is None
    assert Sense.parse(b"\xff" * 96) is None
