"""The Linux guest for real: it boots, names its devices, runs commands, and stays of use whatever a command does."""

from __future__ import annotations

import base64
import gzip
import shutil
import time
from pathlib import Path

import pytest

from pytest_virtio.provision import cpio
from pytest_virtio.provision.boot import prepare
from pytest_virtio.provision.linux import LinuxImage

from .conftest import BOOT_SECONDS, NULL_DISK, StartGuest, elf_module

DRIVER_OK = 4
DEVICES = {
    1: ("-device", "virtio-net-pci"),
    2: (*NULL_DISK, "-device", "virtio-blk-pci,drive=disk"),
    3: ("-device", "virtio-serial-pci"),
    4: ("-device", "virtio-rng-pci"),
    5: ("-device", "virtio-balloon-pci"),
    8: ("-device", "virtio-scsi-pci"),
    9: ("-fsdev", "local,id=fs,path=.,security_model=none", "-device", "virtio-9p-pci,fsdev=fs,mount_tag=t"),
    16: ("-device", "virtio-gpu-pci"),
    18: ("-device", "virtio-keyboard-pci"),
    20: ("-object", "cryptodev-backend-builtin,id=cr", "-device", "virtio-crypto-pci,cryptodev=cr"),
    24: ("-object", "memory-backend-ram,id=m,size=64M", "-device", "virtio-mem-pci,memdev=m"),
    27: ("-object", "memory-backend-ram,id=p,size=64M", "-device", "virtio-pmem-pci,memdev=p"),
}

# A disk on which the second flush of a megabyte takes minutes, and can't be killed meanwhile.
SLOW_DISK = (
    *NULL_DISK,
    *("-object", '{"qom-type":"throttle-group","id":"slow","limits":{"bps-write":4096}}'),
    *("-blockdev", "throttle,node-name=throttled,throttle-group=slow,file=disk"),
    *("-device", "virtio-blk-pci,drive=throttled"),
)


@pytest.mark.usefixtures("image")
def test_it_runs_commands(tmp_path: Path, start_guest: StartGuest) -> None:
    guest = start_guest(prepare(tmp_path, []))
    guest.ready()
    assert guest.run("echo out; echo err >&2; exit 3") == (3, b"out\nerr\n")
    assert guest.run("printf 'a\\000b\\377'") == (0, b"a\0b\xff")
    assert guest.run("true") == (0, b"")
    assert guest.run("sleep 100 & echo started") == (0, b"started\n")
    assert guest.run("nowhere")[0] == 127
    assert guest.run("cat; echo $?") == (0, b"0\n")
    assert guest.run("kill -9 $$")[0] == 137


@pytest.mark.usefixtures("image")
def test_much_goes_in_and_much_comes_out(tmp_path: Path, start_guest: StartGuest) -> None:
    guest = start_guest(prepare(tmp_path, []))
    guest.ready()
    long_command = f": {'x' * 32700}; echo done"
    assert guest.run(long_command) == (0, b"done\n")
    guest.run('for n in $(seq 0 255); do printf "\\\\$(printf %03o $n)"; done >/tmp/all')
    guest.run("cd /tmp; cp all much; for n in $(seq 12); do cat much much >more; mv more much; done")
    start = time.monotonic()
    assert guest.run("cat /tmp/much") == (0, bytes(range(256)) * 4096)
    assert time.monotonic() - start < 30


@pytest.mark.usefixtures("image")
def test_commands_in_quick_succession_arrive_whole(tmp_path: Path, start_guest: StartGuest) -> None:
    """The end of one command (a SIGCHLD in the guest's shell) falls into the sending of the next."""
    guest = start_guest(prepare(tmp_path, []))
    guest.ready()
    for number in range(20):
        assert guest.run(f": {'x' * 3000}; echo {number}") == (0, f"{number}\n".encode())


@pytest.mark.usefixtures("image")
def test_a_hanging_command_shows_what_it_wrote_and_can_be_killed(tmp_path: Path, start_guest: StartGuest) -> None:
    guest = start_guest(prepare(tmp_path, []))
    guest.ready()
    guest.send("run h " + base64.b64encode(b"echo before; (trap '' TERM; sleep 600) & sleep 600").decode())
    guest.wait("@pv out h " + base64.b64encode(b"before\n").decode(), 20)
    guest.send("kill h")
    assert guest.result("h", 20) == (137, b"")
    assert guest.run("ps | grep -c '[s]leep 600'") == (1, b"0\n")
    guest.send("kill h")
    assert guest.run("echo next") == (0, b"next\n")


@pytest.mark.usefixtures("image")
def test_a_command_stuck_in_the_kernel_leaves_the_agent_free(tmp_path: Path, start_guest: StartGuest) -> None:
    guest = start_guest(prepare(tmp_path, [2]), *SLOW_DISK)
    guest.ready()
    script = b"echo writing; while :; do dd if=/dev/zero of=/dev/vda bs=1M count=1; done"
    guest.send("run s " + base64.b64encode(script).decode())
    guest.wait("@pv out s ", 20)
    assert guest.run("for n in $(seq 20); do ps -o stat | grep -q ^D && exit; sleep 1; done; exit 1")[0] == 0
    guest.send("kill s")
    assert guest.result("s", 20)[0] == 137
    assert guest.run("echo next") == (0, b"next\n")


@pytest.mark.usefixtures("image")
def test_kernel_messages_stay_on_the_first_port(tmp_path: Path, start_guest: StartGuest) -> None:
    guest = start_guest(prepare(tmp_path, []))
    said = guest.ready()
    assert all(line == "" or line.startswith("@pv ") for line in said)
    assert guest.run("dmesg -n 8; echo marker-of-the-kernel >/dev/kmsg; echo done") == (0, b"done\n")
    guest.run("sleep 1")
    assert b"marker-of-the-kernel" in guest.console


@pytest.mark.usefixtures("image")
def test_it_drives_every_device_that_linux_has_a_driver_for(tmp_path: Path, start_guest: StartGuest) -> None:
    boot = prepare(tmp_path, DEVICES)
    assert boot.undriven == ()
    arguments = [word for words in DEVICES.values() for word in words]
    guest = start_guest(boot, *arguments, memory="256M,slots=4,maxmem=2G")
    said = guest.ready()
    assert [line for line in said if line.startswith("@pv module") and not line.endswith(" ok")] == []
    found = guest.drivers()
    assert set(found) == set(DEVICES)
    assert {
        device: driver for device, (status, driver) in found.items() if driver == "-" or not status & DRIVER_OK
    } == {}
    assert guest.run("mkdir /tmp/m && mount -t 9p -o trans=virtio t /tmp/m && ls /dev/pmem0 /dev/input/event0")[0] == 0


@pytest.mark.usefixtures("image")
def test_it_starts_on_microvm_with_virtio_mmio(tmp_path: Path, start_guest: StartGuest) -> None:
    devices = (*NULL_DISK, "-device", "virtio-blk-device,drive=disk", "-device", "virtio-rng-device")
    # With QEMU's clock bound to instructions: microvm has but the PIT to calibrate by, and on a busy host that fails
    # under TCG, whereupon the kernel waits for ever for a tick.
    guest = start_guest(prepare(tmp_path, [2, 4]), *devices, "-icount", "shift=auto", machine="microvm")
    devices_said = [line for line in guest.ready() if line.startswith("@pv device ")]
    assert len(devices_said) == 2
    assert all("/platform/LNRO0005:" in line for line in devices_said)
    assert {device: driver for device, (_, driver) in guest.drivers().items()} == {2: "virtio_blk", 4: "virtio_rng"}


@pytest.mark.usefixtures("image")
def test_a_module_that_does_not_load_is_reported_with_the_reason(tmp_path: Path, start_guest: StartGuest) -> None:
    broken = tmp_path / "mine.ko"
    broken.write_bytes(elf_module("alias=virtio:d00000004v*", "depends=virtio"))
    guest = start_guest(prepare(tmp_path, [4], modules=[broken]), "-device", "virtio-rng-pci")
    said = next(line for line in guest.ready() if line.startswith("@pv module mine "))
    assert said.split()[3] == "failed"
    assert b"can't insert" in base64.b64decode(said.split()[4])
    assert guest.drivers()[4][1] == "-"


def test_the_user_s_module_is_loaded_in_place_of_the_distribution_s(
    tmp_path: Path, start_guest: StartGuest, module_files: Path
) -> None:
    mine = shutil.copy(module_files / "virtio_rng.ko", tmp_path / "my-rng.ko")
    guest = start_guest(prepare(tmp_path, [4], modules=[Path(mine)]), "-device", "virtio-rng-pci")
    said = [line for line in guest.ready() if line.startswith("@pv module")]
    assert "@pv module my_rng ok" in said
    assert not any(line.startswith("@pv module virtio_rng") for line in said)
    assert guest.drivers()[4][0] & DRIVER_OK


def test_the_user_s_kernel_takes_the_user_s_modules_only(
    tmp_path: Path, start_guest: StartGuest, module_files: Path, image: LinuxImage
) -> None:
    kernel = Path(shutil.copy(image.kernel, tmp_path / "vmlinux"))
    assert prepare(tmp_path, [4], kernel=kernel).load == ()
    boot = prepare(tmp_path, [4], kernel=kernel, modules=[module_files])
    guest = start_guest(boot, "-device", "virtio-rng-pci")
    guest.ready()
    assert guest.run("ls /pytest-virtio") == (0, b"agent\nbin\nbusybox\ndevices\ninit\nrun\nuser-modules\n")
    assert guest.drivers()[4][1] == "virtio_rng"


def test_a_module_takes_its_parameters_from_the_command_line(
    tmp_path: Path, start_guest: StartGuest, image: LinuxImage
) -> None:
    guest = start_guest(prepare(tmp_path, [1], append="virtio_net.napi_tx=0"), "-device", "virtio-net-pci")
    guest.ready()
    assert guest.run("cat /sys/module/virtio_net/parameters/napi_tx") == (0, b"N\n")


def test_the_user_s_initrd_gets_the_agent_beside_it(tmp_path: Path, start_guest: StartGuest, image: LinuxImage) -> None:
    guest = start_guest(prepare(tmp_path, [4], initrd=_own_initrd(tmp_path, image)), "-device", "virtio-rng-pci")
    guest.ready()
    deadline = time.monotonic() + BOOT_SECONDS
    while b"user's init is up" not in guest.console and time.monotonic() < deadline:
        guest.run("true")
    assert guest.run("cat /etc/release; cat /proc/1/comm; which sh") == (0, b"mine\nsleep\n/bin/sh\n")
    assert guest.run("ls /pytest-virtio")[0] == 1
    assert guest.drivers()[4][1] == "virtio_rng"


def _own_initrd(directory: Path, image: LinuxImage) -> Path:
    """A user's initrd as distributions make them: compressed, and it moves on to another root file system."""
    script = b"""#!/bin/busybox sh
set -e
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t tmpfs tmpfs /new
/bin/busybox mkdir /new/bin /new/etc /new/proc /new/dev
/bin/busybox cp -a /bin/. /new/bin
/bin/busybox mount --move /proc /new/proc
echo mine >/new/etc/release
exec /bin/busybox switch_root -c /dev/console /new /bin/sh -c "echo user\\'s init is up; exec sleep 100000"
"""
    links = (cpio.symlink(f"bin/{name}", "busybox") for name in ("sh", "ls", "cat", "sleep", "which", "mount"))
    entries = (
        *(cpio.directory(name) for name in ("bin", "dev", "proc", "new")),
        cpio.character("dev/console", 5, 1),
        cpio.regular("bin/busybox", (image.initramfs.parent / "busybox").read_bytes(), 0o755),
        *links,
        cpio.regular("init", script, 0o755),
    )
    path = directory / "own.img"
    path.write_bytes(gzip.compress(cpio.archive(entries)))
    return path
