"""The sound device: what it plays is in QEMU's WAV file (virtio 1.3 section 5.14; QEMU 8.2 and later)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from struct import pack

import pytest

from pytest_virtio import NeedsResetError, RequestFailedError, Sound, UsageError
from pytest_virtio.guest.scripted.drivers.sound import SoundDriver
from pytest_virtio.guest.scripted.queue import Request
from pytest_virtio.spec.devices.sound import SoundDirection, SoundPcmFormat, SoundPcmRate

from .conftest import Boot, status_of

pytestmark = pytest.mark.qemu

OUT, IN, NOWHERE = 0, 1, 99
PERIOD, PERIODS = 4096, 6
SAMPLES = pack("<12288h", *range(-6144, 6144))
"""No two of them are alike."""
WAV_HEADER = 44


def prepare(driver: SoundDriver, stream: int) -> None:
    """Set a stream up as QEMU's WAV writer is by default, so that it passes samples on as they are."""
    rate = SoundPcmRate.RATE_44100
    driver.set_params(stream, buffer_bytes=PERIODS * PERIOD, period_bytes=PERIOD, rate=rate)
    driver.prepare(stream)


def submit_all(driver: SoundDriver) -> list[Request]:
    return [driver.submit(OUT, SAMPLES[at : at + PERIOD]) for at in range(0, len(SAMPLES), PERIOD)]


def test_what_is_played_is_recorded(scripted: Boot, tmp_path: Path) -> None:
    """5.14.6.6, 5.14.6.8: parameters, prepare, tx, start, stop, release; the samples are on the host, in order.

    What QEMU still has in its own buffers when it ends, a period and a half at the most, never gets there.
    """
    wav = tmp_path / "sound.wav"
    with scripted(Sound(audiodev="wav0"), args=["-audiodev", f"wav,id=wav0,path={wav}"]) as virtio:
        driver = virtio.guest.driver("sound0", SoundDriver)
        prepare(driver, OUT)
        periods = submit_all(driver)
        assert driver.queue("tx").poll() is None
        driver.start(OUT)
        for period in periods:
            driver.played(period)
        driver.stop(OUT)
        driver.release(OUT)
    recorded = wav.read_bytes()[WAV_HEADER:]
    assert len(recorded) >= 2 * PERIOD
    assert SAMPLES.startswith(recorded[: len(SAMPLES)])


def test_release_gives_back(scripted: Boot, tmp_path: Path) -> None:
    """5.14.6.6.5: a stream that is released without a start gives its buffers back, and nothing of them is played."""
    wav = tmp_path / "sound.wav"
    with scripted(Sound(audiodev="wav0"), args=["-audiodev", f"wav,id=wav0,path={wav}"]) as virtio:
        driver = virtio.guest.driver("sound0", SoundDriver)
        prepare(driver, OUT)
        periods = submit_all(driver)
        driver.release(OUT)
        for period in periods:
            driver.played(period)
    assert not wav.read_bytes()[WAV_HEADER:]


def test_capture(scripted: Boot) -> None:
    """5.14.6.8: a stream for input gives as many samples as were asked for; from QEMU's ``none`` they are silence."""
    with scripted(Sound()) as virtio:
        driver = virtio.guest.driver("sound0", SoundDriver)
        prepare(driver, IN)
        driver.start(IN)
        block = driver.allocate(2 * PERIOD)
        driver.memory.write(block, b"\xff" * 2 * PERIOD)
        driver.free(block)  # the next request of this size lies there
        assert driver.capture(IN, PERIOD) == bytes(PERIOD)
        driver.stop(IN)
        driver.release(IN)


def test_info(scripted: Boot) -> None:
    """5.14.4, 5.14.6.6.2: as many as declared; streams of both directions, which take what they say they take."""
    with scripted(Sound(jacks=3, streams=4, chmaps=5)) as virtio:
        driver = virtio.guest.driver("sound0", SoundDriver)
        config = driver.config()
        assert (config.jacks, config.streams, config.chmaps) == (3, 4, 5)
        streams = driver.pcm_info()
        assert len(streams) == 4
        assert {stream.direction for stream in streams} == set(SoundDirection)
        for number, stream in enumerate(streams):
            assert (stream.channels_min, stream.channels_max) == (1, 2)
            assert stream.formats >> SoundPcmFormat.S16 & stream.rates >> SoundPcmRate.RATE_44100 & 1
            prepare(driver, number)
        assert status_of(virtio, "sound0").driver_ok


def test_nothing_to_tell(scripted: Boot) -> None:
    """5.14.6.1: of no jacks and no channel maps, QEMU's default, nothing is asked."""
    with scripted(Sound()) as virtio:
        driver = virtio.guest.driver("sound0", SoundDriver)
        assert (driver.jack_info(), driver.chmap_info()) == ((), ())
        assert driver.queue("ctrl").kicks == 0


PARAMETERS = {"buffer_bytes": 2 * PERIOD, "period_bytes": PERIOD}

REFUSED: dict[str, tuple[Callable[[SoundDriver], object], str, str]] = {
    # QEMU has not implemented these two (10.0, 11.1).
    "jacks": (lambda sound: sound.jack_info(), "R_JACK_INFO", "S_NOT_SUPP"),
    "channel maps": (lambda sound: sound.chmap_info(), "R_CHMAP_INFO", "S_NOT_SUPP"),
    "format": (
        lambda sound: sound.set_params(OUT, **PARAMETERS, format=SoundPcmFormat.A_LAW),
        "R_PCM_SET_PARAMS",
        "S_NOT_SUPP",
    ),
    "rate": (lambda sound: sound.set_params(OUT, **PARAMETERS, rate=77), "R_PCM_SET_PARAMS", "S_NOT_SUPP"),
    "channels": (lambda sound: sound.set_params(OUT, **PARAMETERS, channels=0), "R_PCM_SET_PARAMS", "S_NOT_SUPP"),
    "prepare nothing": (lambda sound: sound.prepare(NOWHERE), "R_PCM_PREPARE", "S_BAD_MSG"),
    "start nothing": (lambda sound: sound.start(NOWHERE), "R_PCM_START", "S_BAD_MSG"),
    "stop nothing": (lambda sound: sound.stop(NOWHERE), "R_PCM_STOP", "S_BAD_MSG"),
    "play nowhere": (lambda sound: sound.played(sound.submit(NOWHERE, SAMPLES[:PERIOD])), "tx", "S_BAD_MSG"),
    "capture nowhere": (lambda sound: sound.capture(NOWHERE, PERIOD), "rx", "S_BAD_MSG"),
}


@pytest.mark.parametrize(("ask", "step", "status"), REFUSED.values(), ids=REFUSED)
def test_refused(scripted: Boot, ask: Callable[[SoundDriver], object], step: str, status: str) -> None:
    """5.14.6: an error status becomes an error that names it and the request, and the device goes on."""
    with scripted(Sound(jacks=1, chmaps=1)) as virtio:
        driver = virtio.guest.driver("sound0", SoundDriver)
        with pytest.raises(RequestFailedError, match=status) as raised:
            ask(driver)
        assert raised.value.step == step
        prepare(driver, OUT)


@pytest.mark.parametrize(
    "ask",
    [lambda sound: sound.set_params(NOWHERE, **PARAMETERS), lambda sound: sound.release(NOWHERE)],
    ids=["parameters", "release"],
)
def test_no_such_stream(scripted: Boot, ask: Callable[[SoundDriver], object]) -> None:
    """5.14.6.6: BAD_MSG is expected. QEMU breaks the device instead (10.0, 11.1), which is an error that says so."""
    with scripted(Sound()) as virtio:
        driver = virtio.guest.driver("sound0", SoundDriver)
        with pytest.raises((RequestFailedError, NeedsResetError), match=r"S_BAD_MSG|NEEDS_RESET"):
            ask(driver)


def test_bad_input(scripted: Boot) -> None:
    """What no request can hold is the caller's error."""
    with scripted(Sound()) as virtio:
        driver = virtio.guest.driver("sound0", SoundDriver)
        with pytest.raises(UsageError, match="channels: 256 doesn't fit"):
            driver.set_params(OUT, **PARAMETERS, channels=256)
        with pytest.raises(UsageError, match="length=0"):
            driver.capture(IN, 0)
