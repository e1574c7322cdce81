"""What goes wrong in a Linux guest: each has an error of its own, at once where that can be known."""

from __future__ import annotations

import os
import signal
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_virtio import (
    DeviceStalledError,
    GuestError,
    GuestPanicError,
    GuestSilentError,
    GuestTimeoutError,
    Iommu,
    Linux,
    QemuExitedError,
    Rng,
    Virtio,
    VirtioError,
    VirtioFactory,
)
from pytest_virtio.provision.linux import linux_image
from pytest_virtio.vm.deadline import Deadline

pytestmark = [pytest.mark.qemu, pytest.mark.guest]

LONG = 600.0
"""A timeout that the tests' own limit comes long before."""


def test_a_panic_is_raised_at_once(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Rng(), guest="linux") as virtio:
        waiting = _run_in_background(virtio, "sleep 1000")
        with pytest.raises(GuestPanicError, match=r"^the guest's kernel panicked: .* sysrq triggered crash$"):
            virtio.guest.run("sleep 0.5; echo c >/proc/sysrq-trigger", timeout=LONG)
        assert isinstance(waiting(), GuestPanicError)
        with pytest.raises(GuestPanicError):
            virtio.guest.run("true", timeout=LONG)
        assert b"end Kernel panic" in virtio.guest.console.log.since(0)


def test_a_dead_qemu_is_raised_at_once(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Iommu(driver=None), Rng(), guest="linux") as virtio:
        assert not virtio["iommu0"].status().driver_ok
        waiting = _run_in_background(virtio, "echo started >/dev/kmsg; sleep 1000")
        _await_console(virtio, b"started")
        os.kill(virtio.vm.pid, signal.SIGKILL)
        assert isinstance(waiting(), QemuExitedError)
        with pytest.raises(QemuExitedError, match="killed by SIGKILL"):
            virtio.guest.run("true", timeout=LONG)


def test_a_reset_and_a_paused_guest(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Rng(), guest="linux") as virtio:
        virtio.vm.stop()
        with pytest.raises(GuestSilentError, match=r"did not take 'true' within 0.1 s"):
            virtio.guest.run("true", timeout=0.1)
        virtio.vm.cont()
        waiting = _run_in_background(virtio, "echo started >/dev/kmsg; sleep 1000")
        _await_console(virtio, b"started")
        virtio.vm.reset()
        error = waiting()
        assert type(error) is GuestError
        assert str(error).startswith("the guest started anew during a command")
        assert virtio.guest.run("echo again") == (0, b"again\n")


def test_a_hang_is_told_from_a_kill(virtio_factory: VirtioFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_virtio.guest.shell.KILL_SECONDS", 0.2)
    with virtio_factory(Rng(), guest="linux") as virtio:
        waiting = _run_in_background(virtio, "echo started >/dev/kmsg; sleep 1000", timeout=5)
        _await_console(virtio, b"started")
        virtio.vm.stop()
        error = waiting()
        assert isinstance(error, GuestTimeoutError)
        assert "survived being killed for 0.2 s: the guest hangs, or is paused" in str(error)


def test_a_kernel_without_the_driver(virtio_factory: VirtioFactory) -> None:
    with pytest.raises(DeviceStalledError) as info, virtio_factory(Rng(), Iommu(), guest="linux", timeout=LONG):
        pass
    said = "iommu0: the guest's kernel has no driver for it (virtio device id 23). Give one by --virtio-modules=DIR or"
    assert str(info.value).startswith(said)


def test_a_kernel_without_the_transport(virtio_factory: VirtioFactory) -> None:
    """The distribution's kernel, taken for the user's own: none of its modules come along."""
    image = linux_image()
    assert image is not None
    with pytest.raises(DeviceStalledError, match="rng0: the guest's kernel sees no virtio device at all: it lacks"):
        virtio_factory(Rng(), guest=Linux(kernel=image.kernel), timeout=LONG).__enter__()


def test_a_module_that_does_not_load(virtio_factory: VirtioFactory, tmp_path: Path) -> None:
    """It says that it drives the device, so it is taken; the kernel refuses it."""
    parts = (b"license=GPL", b"name=my_rng", b"alias=virtio:d00000004v*", b"depends=", b"vermagic=6.1.0 SMP")
    module = tmp_path / "my_rng.ko"
    module.write_bytes(_elf_with_modinfo(b"\0".join((*parts, b""))))
    with pytest.raises(DeviceStalledError) as info:
        virtio_factory(Rng(), guest=Linux(modules=[module]), timeout=LONG).__enter__()
    assert str(info.value).startswith("rng0: no driver took it, and a module did not load: my_rng: insmod: ")


def test_a_guest_that_says_nothing(virtio_factory: VirtioFactory, tmp_path: Path) -> None:
    kernel = tmp_path / "mute"
    kernel.write_bytes(_mute_kernel())
    silent = virtio_factory(Rng(), guest=Linux(kernel=kernel), timeout=4)
    words = "no word from the guest within 4 s; the guest's console is empty: its kernel never spoke"
    with pytest.raises(GuestSilentError, match=words), silent:
        pass


def _elf_with_modinfo(modinfo: bytes) -> bytes:
    """A relocatable ELF file with that section and the one that names it, and nothing else."""
    names = b"\0.modinfo\0.shstrtab\0"
    start = 64
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, start + len(modinfo) + len(names), 0, 64, 0, 0, 64, 3, 2
    )
    sections = [(0, 0, 0, 0), (1, 1, start, len(modinfo)), (10, 3, start + len(modinfo), len(names))]
    table = b"".join(struct.pack("<IIQQQQIIQQ", n, kind, 0, 0, at, size, 0, 0, 1, 0) for n, kind, at, size in sections)
    return header + modinfo + names + table


def _mute_kernel() -> bytes:
    """The real-mode part of a bzImage, which halts where Linux would begin."""
    image = bytearray(4096)
    image[0x1F1] = 1  # sectors of set-up code
    image[0x1FE:0x200] = b"\x55\xaa"
    image[0x200:0x202] = b"\xeb\x66"  # jump over the header
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, 0x020C)
    image[0x211] = 1  # loaded high
    struct.pack_into("<II", image, 0x22C, 0x7FFFFFFF, 0)  # initrd_addr_max
    struct.pack_into("<I", image, 0x238, 2047)  # cmdline_size
    image[0x268:0x26C] = b"\xfa\xf4\xeb\xfd"  # cli; hlt; for good
    return bytes(image)


def _run_in_background(virtio: Virtio, command: str, timeout: float = LONG) -> Callable[[], VirtioError]:
    """Run a command in a thread; the result waits for the error with which it ends."""
    raised: list[VirtioError] = []

    def run() -> None:
        try:
            virtio.guest.run(command, timeout=timeout)
        except VirtioError as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def error() -> VirtioError:
        thread.join(60)
        return raised[0]

    return error


def _await_console(virtio: Virtio, text: bytes) -> None:
    log = virtio.guest.console.log
    assert virtio._running.qemu.child.drain.wait(lambda: text in log.since(0), Deadline.after(60))
