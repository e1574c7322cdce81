"""What all tests share: runs of pytest within pytest, one Linux guest with every device, and firmware made to order."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_virtio import (
    P9,
    Balloon,
    Blk,
    Crypto,
    Gpu,
    Iommu,
    Keyboard,
    Mem,
    Mouse,
    Net,
    Pmem,
    Rng,
    Scsi,
    Serial,
    Tablet,
    Virtio,
    VirtioFactory,
    cache,
)
from pytest_virtio.plugin.session import virtio_session

pytest_plugins = ["pytester"]

ROM_BYTES = 65536


@pytest.fixture(scope="session", autouse=True)
def _one_cache() -> Iterator[None]:
    """Runs within a run have another HOME, and would fetch and probe everything anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_VIRTIO_CACHE", str(cache.root()))
        # Inner runs must not take themselves for workers of the outer one.
        for name in [name for name in os.environ if name.startswith("PYTEST_XDIST_")]:
            patch.delenv(name)
        # Nor write into the summary of the job that runs these tests.
        patch.delenv("GITHUB_ACTIONS", raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell starts what goes to the background with Ctrl-C ignored, and Python leaves it at that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what takes a QEMU by its fixtures, so that ``-m qemu`` misses none."""
    if "virtio_qemu" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.qemu)


@pytest.fixture(scope="session")
def program(pytestconfig: pytest.Config, virtio_qemu: str | Path) -> Path:
    """The QEMU that the run, or this part of it, is on: ``--virtio-qemu``."""
    return virtio_session(pytestconfig).host(virtio_qemu, halted=True).program


@pytest.fixture
def inner_runs(pytester: pytest.Pytester, program: Path) -> Iterator[pytest.Pytester]:
    """Runs of pytest within the test take the test's QEMU where they choose none."""
    # After pytester, which takes PYTEST_ADDOPTS away. As an ini value it gives way to the option.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_ADDOPTS", shlex.join(["-o", f"virtio_qemu={program}"]))
        yield pytester


@pytest.fixture(scope="session")
def linux(virtio_factory: VirtioFactory) -> Iterator[Virtio]:
    """A Linux guest with every device. It is shared: a test leaves it as it found it."""
    driven = (Net(), Blk(), Rng(), Balloon(), Serial(), Scsi(), Keyboard(), Mouse(), Tablet(), Gpu(), Crypto())
    # Sound() came with QEMU 8.2.
    with virtio_factory(*driven, Mem(), Pmem(), P9(), Iommu(driver=None), guest="linux", timeout=120) as virtio:
        yield virtio


@pytest.fixture
def talking_rom(tmp_path: Path) -> Callable[[bytes], Path]:
    """Makes a firmware that writes the given bytes to the first serial port and halts."""

    def make(text: bytes) -> Path:
        path = tmp_path / "talking.rom"
        path.write_bytes(_rom(text))
        return path

    return make


def _rom(text: bytes) -> bytes:
    code_bytes = 26
    code = bytes.fromhex(
        f"be{_word(code_bytes)}"  # mov si, text
        "bafd03 ec a820 74fb"  # next: wait until the transmitter is empty
        "baf803 2eac ee"  # cs lodsb; out dx, al
        f"81fe{_word(code_bytes + len(text))} 72ec"  # cmp si, end; jb next
        "f4ebfd"  # halt for good
    )
    assert len(code) == code_bytes
    reset = bytes.fromhex("e90d00").ljust(16, b"\0")  # jmp 0, from fff0
    return (code + text).ljust(ROM_BYTES - len(reset), b"\0") + reset


def _word(value: int) -> str:
    return value.to_bytes(2, "little").hex()
