"""Devices that answer with nonsense: each driver says so in an error of its own, and nothing else comes out.

No QEMU answers like that, so the answers are put between the driver and its queue.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from pytest_virtio import Crypto, Declaration, DriverError, Gpu, Iommu, RequestFailedError, Sound
from pytest_virtio.guest.scripted.drivers.crypto import CipherSession
from pytest_virtio.spec.devices.gpu import GpuCtrlHdr, GpuCtrlType, GpuRespEdid
from pytest_virtio.spec.devices.iommu import IommuConfig, IommuProbeProperty, IommuRange32, IommuRange64
from pytest_virtio.spec.devices.sound import SoundCode, SoundConfig, SoundHdr

from .conftest import Boot

pytestmark = pytest.mark.qemu

Ask = Callable[[Any], object]


class Answer(NamedTuple):
    """A request that the device has answered."""

    written: bytes


class Liar(NamedTuple):
    """A queue whose device always answers the same."""

    answer: bytes

    def request(self, *readable: bytes, **options: object) -> Answer:
        return Answer(self.answer)


SESSION = CipherSession(0, 0, 0)
OK_TAIL = bytes(4)
"""The status that ends a request of an IOMMU: OK."""


def probed(properties: bytes) -> bytes:
    """An answer to PROBE, with as much room for properties as QEMU's IOMMU has."""
    return properties.ljust(512, b"\0") + OK_TAIL


NONSENSE: dict[str, tuple[Callable[[], Declaration], str, Ask, bytes, str]] = {
    "no session": (Crypto, "crypto0", lambda crypto: crypto.create_session(3, bytes(16)), b"", "0 bytes"),
    "no status of a session": (Crypto, "crypto0", lambda crypto: crypto.destroy_session(SESSION), b"", "0 bytes"),
    "no status of a cipher": (Crypto, "crypto0", lambda crypto: crypto.encrypt(SESSION, b"12"), b"12", "0 bytes"),
    "unknown cipher status": (Crypto, "crypto0", lambda crypto: crypto.encrypt(SESSION, b"12"), b"12\x55", "0x55, wh"),
    # That is how a device answers what it can't parse (5.13.6).
    "no tail": (Iommu, "iommu0", lambda iommu: iommu.attach(1, 2), b"", "0 bytes"),
    "no properties": (Iommu, "iommu0", lambda iommu: iommu.probe(2), OK_TAIL, "0 bytes"),
    "property too long": (
        Iommu,
        "iommu0",
        lambda iommu: iommu.probe(2),
        probed(IommuProbeProperty(1, 0xFFFF).pack()),
        "seen: 65535",
    ),
    "region too short": (
        Iommu,
        "iommu0",
        lambda iommu: iommu.reserved(2),
        probed(IommuProbeProperty(1, 4).pack()),
        "seen: 8 bytes",
    ),
    "no header": (Gpu, "gpu0", lambda gpu: gpu.resource_unref(1), b"\0", "1 bytes"),
    "another response": (
        Gpu,
        "gpu0",
        lambda gpu: gpu.display_info(),
        GpuCtrlHdr(GpuCtrlType.RESP_OK_EDID).pack(),
        "RESP_OK_EDID",
    ),
    "header alone": (
        Gpu,
        "gpu0",
        lambda gpu: gpu.display_info(),
        GpuCtrlHdr(GpuCtrlType.RESP_OK_DISPLAY_INFO).pack(),
        "24 bytes",
    ),
    "EDID too long": (
        Gpu,
        "gpu0",
        lambda gpu: gpu.get_edid(),
        GpuRespEdid(GpuCtrlHdr(GpuCtrlType.RESP_OK_EDID), 1025, 0, b"").pack(),
        "seen: 1025",
    ),
    "no code": (Sound, "sound0", lambda sound: sound.prepare(0), b"", "0 bytes"),
    "unknown code": (Sound, "sound0", lambda sound: sound.prepare(0), bytes(4), "0x0, which means nothing"),
    "too few streams": (
        Sound,
        "sound0",
        lambda sound: sound.pcm_info(),
        SoundHdr(SoundCode.S_OK).pack() + bytes(33),
        "1 bytes",
    ),
    "no status of a transfer": (Sound, "sound0", lambda sound: sound.capture(1, 4), b"1234567", "7 bytes"),
}


@pytest.mark.parametrize(("declare", "id", "ask", "answer", "seen"), NONSENSE.values(), ids=NONSENSE)
def test_nonsense(
    scripted: Boot,
    monkeypatch: pytest.MonkeyPatch,
    declare: Callable[[], Declaration],
    id: str,
    ask: Ask,
    answer: bytes,
    seen: str,
) -> None:
    """An answer that is too short, too long or unknown is an error that says what was seen."""
    with scripted(declare()) as virtio:
        driver = virtio.guest.driver(id)
        monkeypatch.setattr(driver, "queue", lambda which: Liar(answer))
        with pytest.raises(RequestFailedError, match=seen):
            ask(driver)


def test_an_edid_is_as_long_as_the_device_says(scripted: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    """5.7.6.8: ``size`` bytes of the answer are the EDID; QEMU always says 1024."""
    answer = GpuRespEdid(GpuCtrlHdr(GpuCtrlType.RESP_OK_EDID), 128, 0, b"\x55" * 1024).pack()
    with scripted(Gpu()) as virtio:
        driver = virtio.guest.driver("gpu0")
        monkeypatch.setattr(driver, "queue", lambda which: Liar(answer))
        assert driver.get_edid() == b"\x55" * 128


HUGE = 0xFFFFFFFF

ABSURD: dict[str, tuple[Callable[[], Declaration], str, Ask, object]] = {
    "probe_size": (
        Iommu,
        "iommu0",
        lambda iommu: iommu.probe(2),
        IommuConfig(0, IommuRange64(0, 0), IommuRange32(0, 0), HUGE, 0, b""),
    ),
    "streams": (Sound, "sound0", lambda sound: sound.pcm_info(), SoundConfig(0, HUGE, 0, 0)),
}


@pytest.mark.parametrize(("declare", "id", "ask", "config"), ABSURD.values(), ids=ABSURD)
def test_absurd_configuration(
    scripted: Boot,
    monkeypatch: pytest.MonkeyPatch,
    declare: Callable[[], Declaration],
    id: str,
    ask: Ask,
    config: object,
) -> None:
    """A number from the configuration doesn't decide how much is allocated."""
    with scripted(declare()) as virtio:
        driver = virtio.guest.driver(id)
        monkeypatch.setattr(driver, "read_config", lambda layout: config)
        with pytest.raises(DriverError, match=str(HUGE)):
            ask(driver)
