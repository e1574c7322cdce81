"""The GPU device: what is drawn is what QMP's screendump shows (virtio 1.3 section 5.7)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_virtio import Gpu, RequestFailedError, UsageError, Virtio
from pytest_virtio.guest.scripted.drivers.gpu import GpuDriver
from pytest_virtio.spec.devices.gpu import GpuFormat, GpuRect

from .conftest import Boot, status_of

pytestmark = pytest.mark.qemu

WIDTH, HEIGHT = 32, 16
WHOLE = GpuRect(0, 0, WIDTH, HEIGHT)
RESOURCE, NONE, OTHER = 7, 0, 9

RED, GREEN, BLUE = range(3)
ORDERS = {
    GpuFormat.B8G8R8X8_UNORM: (BLUE, GREEN, RED, None),
    GpuFormat.B8G8R8A8_UNORM: (BLUE, GREEN, RED, None),
    GpuFormat.X8R8G8B8_UNORM: (None, RED, GREEN, BLUE),
    GpuFormat.A8R8G8B8_UNORM: (None, RED, GREEN, BLUE),
    GpuFormat.R8G8B8X8_UNORM: (RED, GREEN, BLUE, None),
    GpuFormat.R8G8B8A8_UNORM: (RED, GREEN, BLUE, None),
    GpuFormat.X8B8G8R8_UNORM: (None, BLUE, GREEN, RED),
    GpuFormat.A8B8G8R8_UNORM: (None, BLUE, GREEN, RED),
}
"""Which colour stands in which byte of a pixel."""

# Neighbours differ in every colour, and so do lines.
PICTURE = bytes(
    value for y in range(HEIGHT) for x in range(WIDTH) for value in (x * 8, 255 - y * 16, (x * 5 + y * 7) % 256)
)
"""Red, green and blue of each pixel, as PPM has them."""


def encoded(picture: bytes, format: GpuFormat = GpuFormat.B8G8R8X8_UNORM) -> bytes:
    order = ORDERS[format]
    return bytes(
        0xFF if colour is None else picture[at + colour] for at in range(0, len(picture), 3) for colour in order
    )


def screen(virtio: Virtio, path: Path) -> tuple[int, int, bytes]:
    """Width, height and pixels of what QEMU says is shown."""
    virtio.vm.qmp("screendump", {"filename": str(path), "device": "gpu0", "head": 0})
    magic, size, most, pixels = path.read_bytes().split(b"\n", 3)
    assert (magic, most) == (b"P6", b"255")
    width, height = map(int, size.split())
    return width, height, pixels


def draw(driver: GpuDriver, pixels: bytes, format: GpuFormat = GpuFormat.B8G8R8X8_UNORM) -> int:
    """Make the resource, show it and fill it; where its pixels are."""
    address = driver.allocate(len(pixels))
    driver.memory.write(address, pixels)
    driver.resource_create_2d(RESOURCE, WIDTH, HEIGHT, format)
    driver.attach_backing(RESOURCE, [(address, len(pixels))])
    driver.set_scanout(0, RESOURCE, WHOLE)
    driver.transfer_to_host_2d(RESOURCE, WHOLE)
    driver.resource_flush(RESOURCE, WHOLE)
    return address


@pytest.mark.parametrize("format", ORDERS, ids=lambda format: format.name)
def test_what_is_drawn_is_shown(scripted: Boot, tmp_path: Path, format: GpuFormat) -> None:
    """5.7.6.8: create, attach backing, set scanout, transfer, flush: in every format the colours are right."""
    with scripted(Gpu()) as virtio:
        draw(virtio.guest.driver("gpu0", GpuDriver), encoded(PICTURE, format), format)
        assert screen(virtio, tmp_path / "screen.ppm") == (WIDTH, HEIGHT, PICTURE)


def test_backing_in_stretches(scripted: Boot, tmp_path: Path) -> None:
    """5.7.6.8: backing that is scattered over guest RAM is read in the order of its entries."""
    with scripted(Gpu()) as virtio:
        driver = virtio.guest.driver("gpu0", GpuDriver)
        pixels = encoded(PICTURE)
        half = len(pixels) // 2
        second, first = driver.allocate(half), driver.allocate(half)
        driver.memory.write(first, pixels[:half])
        driver.memory.write(second, pixels[half:])
        driver.resource_create_2d(RESOURCE, WIDTH, HEIGHT)
        driver.attach_backing(RESOURCE, [(first, half), (second, half)])
        driver.set_scanout(0, RESOURCE, WHOLE)
        driver.transfer_to_host_2d(RESOURCE, WHOLE)
        driver.resource_flush(RESOURCE, WHOLE)
        assert screen(virtio, tmp_path / "screen.ppm") == (WIDTH, HEIGHT, PICTURE)


def test_part(scripted: Boot, tmp_path: Path) -> None:
    """5.7.6.8: only the part that is transferred changes, from its own offset in the backing."""
    with scripted(Gpu()) as virtio:
        driver = virtio.guest.driver("gpu0", GpuDriver)
        address = draw(driver, encoded(PICTURE))
        driver.memory.write(address, encoded(PICTURE[::-1]))
        lower = GpuRect(0, HEIGHT // 2, WIDTH, HEIGHT // 2)
        driver.transfer_to_host_2d(RESOURCE, lower, offset=len(encoded(PICTURE)) // 2)
        driver.resource_flush(RESOURCE, lower)
        half = len(PICTURE) // 2
        assert screen(virtio, tmp_path / "screen.ppm") == (WIDTH, HEIGHT, PICTURE[:half] + PICTURE[::-1][half:])


def test_scanout_shows_a_part(scripted: Boot, tmp_path: Path) -> None:
    """5.7.6.8: a scanout is a rectangle of the resource."""
    with scripted(Gpu()) as virtio:
        driver = virtio.guest.driver("gpu0", GpuDriver)
        draw(driver, encoded(PICTURE))
        driver.set_scanout(0, RESOURCE, GpuRect(WIDTH // 2, 0, WIDTH // 2, HEIGHT))
        line = 3 * WIDTH
        right = b"".join(PICTURE[at + line // 2 : at + line] for at in range(0, len(PICTURE), line))
        assert screen(virtio, tmp_path / "screen.ppm") == (WIDTH // 2, HEIGHT, right)


def test_switched_off(scripted: Boot, tmp_path: Path) -> None:
    """5.7.6.8: resource 0 turns the scanout off; the resource can go then, and its number is free."""
    with scripted(Gpu()) as virtio:
        driver = virtio.guest.driver("gpu0", GpuDriver)
        draw(driver, encoded(PICTURE))
        driver.set_scanout(0, NONE, WHOLE)
        assert screen(virtio, tmp_path / "screen.ppm")[2] != PICTURE
        driver.detach_backing(RESOURCE)
        driver.resource_unref(RESOURCE)
        draw(driver, encoded(PICTURE[::-1]))
        assert screen(virtio, tmp_path / "screen.ppm")[2] == PICTURE[::-1]


def test_display_info(scripted: Boot) -> None:
    """5.7.4, 5.7.6.8: as many scanouts as declared; the first has a display of the size that was declared."""
    with scripted(Gpu(xres=800, yres=600, max_outputs=3)) as virtio:
        driver = virtio.guest.driver("gpu0", GpuDriver)
        first, *others = driver.display_info()
        assert driver.config().num_scanouts == 3
        assert (first.enabled, first.r) == (1, GpuRect(0, 0, 800, 600))
        assert [other.enabled for other in others] == [0, 0]
        assert status_of(virtio, "gpu0").driver_ok


def test_edid(scripted: Boot) -> None:
    """5.7.6.8: an EDID as VESA has it: header, checksum, and the declared size as the preferred timing."""
    with scripted(Gpu(xres=800, yres=600)) as virtio:
        edid = virtio.guest.driver("gpu0", GpuDriver).get_edid()
        assert edid[:8] == bytes.fromhex("00ffffffffffff00")
        assert len(edid) % 128 == 0
        assert sum(edid[:128]) % 256 == 0
        timing = edid[54:72]
        assert timing[2] | timing[4] >> 4 << 8 == 800
        assert timing[5] | timing[7] >> 4 << 8 == 600


REFUSED: dict[str, tuple[Callable[[GpuDriver], object], str, str]] = {
    "resource 0": (lambda gpu: gpu.resource_create_2d(0, 16, 16), "CREATE_2D", "INVALID_RESOURCE_ID"),
    "resource twice": (lambda gpu: gpu.resource_create_2d(RESOURCE, 16, 16), "CREATE_2D", "INVALID_RESOURCE_ID"),
    "format": (lambda gpu: gpu.resource_create_2d(OTHER, 16, 16, 999), "CREATE_2D", "INVALID_PARAMETER"),
    "too large": (lambda gpu: gpu.resource_create_2d(OTHER, 1 << 20, 1 << 20), "CREATE_2D", "OUT_OF_MEMORY"),
    "unref nothing": (lambda gpu: gpu.resource_unref(OTHER), "UNREF", "INVALID_RESOURCE_ID"),
    "no scanout": (lambda gpu: gpu.set_scanout(5, RESOURCE, WHOLE), "SET_SCANOUT", "INVALID_SCANOUT_ID"),
    "show nothing": (lambda gpu: gpu.set_scanout(0, OTHER, WHOLE), "SET_SCANOUT", "INVALID_RESOURCE_ID"),
    "show beyond": (
        lambda gpu: gpu.set_scanout(0, RESOURCE, GpuRect(1, 0, WIDTH, HEIGHT)),
        "SET_SCANOUT",
        "INVALID_PARAMETER",
    ),
    "transfer beyond": (
        lambda gpu: gpu.transfer_to_host_2d(RESOURCE, GpuRect(0, 0, WIDTH, HEIGHT + 1)),
        "TRANSFER_TO_HOST_2D",
        "INVALID_PARAMETER",
    ),
    "flush beyond": (
        lambda gpu: gpu.resource_flush(RESOURCE, GpuRect(0, 1, WIDTH, HEIGHT)),
        "FLUSH",
        "INVALID_PARAMETER",
    ),
    "backing twice": (lambda gpu: gpu.attach_backing(RESOURCE, [(0, 4096)]), "ATTACH_BACKING", "ERR_UNSPEC"),
    "no EDID": (lambda gpu: gpu.get_edid(20), "GET_EDID", "INVALID_PARAMETER"),
}


@pytest.mark.parametrize(("ask", "step", "response"), REFUSED.values(), ids=REFUSED)
def test_refused(scripted: Boot, tmp_path: Path, ask: Callable[[GpuDriver], object], step: str, response: str) -> None:
    """5.7.6.7: an error response becomes an error that names it and the command, and the picture stays."""
    with scripted(Gpu()) as virtio:
        driver = virtio.guest.driver("gpu0", GpuDriver)
        draw(driver, encoded(PICTURE))
        with pytest.raises(RequestFailedError, match=response) as raised:
            ask(driver)
        assert raised.value.step.endswith(step)
        assert screen(virtio, tmp_path / "screen.ppm") == (WIDTH, HEIGHT, PICTURE)


def test_bad_input(scripted: Boot) -> None:
    """What no command can hold is the caller's error."""
    with scripted(Gpu()) as virtio, pytest.raises(UsageError, match="width: -1 doesn't fit"):
        virtio.guest.driver("gpu0", GpuDriver).resource_create_2d(RESOURCE, -1, 16)
