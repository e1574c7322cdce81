"""The command line, piece by piece; that real QEMU takes it is seen in ``test_every_device``."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pytest_virtio.declare.devices import P9, Blk, Crypto, Declaration, Mem, Net, Pmem, Rng, Scsi, Serial, Sound
from pytest_virtio.declare.spec import vm_spec
from pytest_virtio.errors import MissingError
from pytest_virtio.vm import backends
from pytest_virtio.vm.backends import PrivateFile
from pytest_virtio.vm.by_hand import by_hand
from pytest_virtio.vm.cmdline import Boot, CommandLine, Plan, ResolvedDevice, Wires, command_line

WIRES = Wires(Path("/private, dir"), 7, (8, 9))
QEMU = Path("/opt/my qemu")


def resolved(declarations: tuple[Declaration, ...]) -> tuple[ResolvedDevice, ...]:
    return tuple(
        ResolvedDevice(d, f"{d.model}-pci", {k: str(v) for k, v in d.properties.items()}) for d in declarations
    )


def line(*devices: Declaration, boot: Boot | None = None, wires: Wires = WIRES, **options: Any) -> CommandLine:
    spec = vm_spec(devices, options, {"guest": "linux"})
    return command_line(Plan(QEMU, "tcg", spec, resolved(spec.devices), boot or Boot()), wires)


def options_of(argv: tuple[str, ...], name: str) -> list[str]:
    return [argv[n + 1] for n, word in enumerate(argv) if word == name]


def test_a_machine_without_devices() -> None:
    argv = line(cpus=2, memory="1G", boot=Boot(kernel="/k", initrd="/i", append="a b", paused=True), args=["-d", "int"])
    assert argv.argv == (
        "/opt/my qemu",
        *("-nodefaults", "-no-user-config", "-display", "none"),
        *("-machine", "q35", "-accel", "tcg", "-smp", "2", "-m", "1024M"),
        *("-chardev", "socket,id=monitor,fd=7", "-mon", "chardev=monitor,mode=control"),
        *("-chardev", "file,id=console0,append=on,path=/proc/self/fd/8", "-serial", "chardev:console0"),
        *("-chardev", "socket,id=console1,fd=9", "-serial", "chardev:console1"),
        *("-kernel", "/k", "-initrd", "/i", "-append", "a b", "-S"),
        *("-d", "int"),
    )
    assert argv.files == ()


def test_the_log_is_the_inherited_file() -> None:
    wires = Wires(Path("/d"), 7, log=12)
    argv = line(wires=wires).argv
    assert wires.descriptors == (7, 12)
    assert options_of(argv, "-D") == ["/proc/self/fd/12"]
    assert options_of(argv, "-msg") == ["timestamp=on"]
    assert options_of(argv, "-trace") == ["enable=virtio_set_status", "enable=resettable_phase_enter_begin"]


def test_microvm_has_its_second_console_elsewhere() -> None:
    argv = line(transport="mmio").argv
    assert options_of(argv, "-serial") == ["chardev:console0"]
    assert options_of(argv, "-device") == ["isa-serial,index=1,chardev=console1"]


@pytest.mark.parametrize(
    ("machine", "firmware"),
    [("microvm", ["qboot.rom"]), ("microvm,pcie=on", ["qboot.rom"]), ("microvm,firmware=mine", []), ("q35", [])],
)
def test_a_microvm_with_a_kernel_has_a_firmware_that_leaves_the_initrd_alone(machine: str, firmware: list[str]) -> None:
    assert options_of(line(machine=machine, boot=Boot(kernel="/k", initrd="/i")).argv, "-bios") == firmware
    assert options_of(line(machine=machine, boot=Boot(paused=True)).argv, "-bios") == []


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ("q35", "q35,graphics=off"),
        ("q35,kernel-irqchip=off", "q35,kernel-irqchip=off,graphics=off"),
        ("pc-q35-7.2", "pc-q35-7.2,graphics=off"),
        ("microvm", "microvm"),
    ],
)
def test_the_firmware_talks_where_it_is_heard(machine: str, expected: str) -> None:
    assert options_of(line(machine=machine, boot=Boot(firmware=True)).argv, "-machine") == [expected]
    assert options_of(line(machine=machine).argv, "-machine") == [machine]


@pytest.mark.parametrize(
    ("device", "words", "files"),
    [
        (Rng(), ["-device", "virtio-rng-pci,id=rng0"], []),
        (
            Net(netdev="user,restrict=on", mac="52:54:00:00:00:01"),
            [
                "-netdev",
                "user,id=net0.net,restrict=on",
                "-device",
                "virtio-net-pci,id=net0,netdev=net0.net,mac=52:54:00:00:00:01",
            ],
            [],
        ),
        (
            Net(netdev="user", id="n"),
            ["-netdev", "user,id=n.net", "-device", "virtio-net-pci,id=n,netdev=n.net"],
            [],
        ),
        (
            Blk(size=4096, serial="a,b"),
            [
                "-drive",
                "if=none,id=blk0.drive,file=/private,, dir/blk0.img,format=raw,discard=unmap",
                "-device",
                "virtio-blk-pci,id=blk0,drive=blk0.drive,serial=a,,b",
            ],
            [("blk0.img", 4096)],
        ),
        (
            Scsi(size=4096),
            [
                "-drive",
                "if=none,id=scsi0.drive,file=/private,, dir/scsi0.img,format=raw,discard=unmap",
                "-device",
                "virtio-scsi-pci,id=scsi0",
                "-device",
                "scsi-hd,id=scsi0.disk,bus=scsi0.0,drive=scsi0.drive",
            ],
            [("scsi0.img", 4096)],
        ),
        (
            P9(tag="t"),
            [
                "-fsdev",
                "local,id=p90.fs,path=/private,, dir/p90.share,security_model=mapped-xattr",
                "-device",
                "virtio-9p-pci,id=p90,fsdev=p90.fs,mount_tag=t",
            ],
            [("p90.share", None)],
        ),
        (
            Pmem(size="2M"),
            [
                "-object",
                "memory-backend-file,id=pmem0.mem,size=2097152,share=on,mem-path=/private,, dir/pmem0.mem",
                "-device",
                "virtio-pmem-pci,id=pmem0,memdev=pmem0.mem",
            ],
            [("pmem0.mem", 2097152)],
        ),
        (
            Mem(size="2M"),
            [
                "-object",
                "memory-backend-ram,id=mem0.mem,size=2097152",
                "-device",
                "virtio-mem-pci,id=mem0,memdev=mem0.mem",
            ],
            [],
        ),
        (
            Crypto(),
            [
                "-object",
                "cryptodev-backend-builtin,id=crypto0.crypto",
                "-device",
                "virtio-crypto-pci,id=crypto0,cryptodev=crypto0.crypto",
            ],
            [],
        ),
        (
            Sound(),
            ["-audiodev", "none,id=sound0.audio", "-device", "virtio-sound-pci,id=sound0,audiodev=sound0.audio"],
            [],
        ),
        (
            Serial(),
            [
                "-chardev",
                "ringbuf,id=serial0.port0,size=65536",
                "-device",
                "virtio-serial-pci,id=serial0",
                "-device",
                "virtserialport,id=serial0.port0.dev,bus=serial0.0,chardev=serial0.port0,name=serial0.0",
            ],
            [],
        ),
    ],
)
def test_devices_and_what_is_behind_them(
    device: Declaration, words: list[str], files: list[tuple[str, int | None]]
) -> None:
    made = line(device, wires=Wires(WIRES.directory, 7))
    assert list(made.argv[-len(words) :]) == words
    assert made.argv[-len(words) - 1] == "chardev=monitor,mode=control"
    assert list(made.files) == [PrivateFile(WIRES.directory / name, size) for name, size in files]


def test_a_users_image_is_opened_through_a_disposable_overlay(tmp_path: Path) -> None:
    image = tmp_path / "my, image"
    image.touch()
    made = line(Blk(image, format="qcow2"))
    drive = f"if=none,id=blk0.drive,file={str(image).replace(',', ',,')},format=qcow2,snapshot=on"
    assert options_of(made.argv, "-drive") == [drive]
    assert made.files == ()


def test_memory_devices_get_room() -> None:
    assert options_of(line(Mem(size="128M"), Pmem(size="128M")).argv, "-m") == ["256M,maxmem=2560M"]


def test_the_firmware_tries_devices_in_their_order() -> None:
    devices = options_of(line(Rng(), Net(), Scsi(), Blk(bootindex=9), Blk(), boot=Boot(firmware=True)).argv, "-device")
    assert [device.partition("bootindex=")[2] for device in devices] == ["", "0", "", "1", "9", "2"]
    assert devices[3].startswith("scsi-hd,")


def test_a_property_of_the_user_wins_over_ours() -> None:
    assert options_of(line(Blk(drive="mine")).argv, "-device") == ["virtio-blk-pci,id=blk0,drive=mine"]


def test_a_backend_that_nobody_knows() -> None:
    with pytest.raises(MissingError, match="x: no command line is known for the backend 5"):
        backends.backend_parts(5, "x", Path())  # type: ignore[arg-type]


def test_by_hand_makes_its_files_first() -> None:
    spec = vm_spec([Blk(size=4096), P9()], {"args": ["-d", "int"]}, {"guest": "linux"})
    text = by_hand(Plan(QEMU, "tcg", spec, resolved(spec.devices), Boot(kernel="/my kernel")))
    first, second, third, *command = text.splitlines()
    assert first == "mkdir -p virtio-repro"
    assert second == "mkdir -p virtio-repro/p90.share"
    assert third == "truncate -s 4096 virtio-repro/blk0.img"
    words = shlex.split("\n".join(command))
    assert words[0] == str(QEMU)
    assert words[words.index("-serial") : words.index("-serial") + 2] == ["-serial", "mon:stdio"]
    assert words[words.index("-kernel") + 1] == "/my kernel"
    assert "fd=" not in text


def test_by_hand_makes_the_initramfs_again() -> None:
    spec = vm_spec([], {}, {"guest": "linux"})
    text = by_hand(Plan(QEMU, "tcg", spec, (), Boot(initrd="/private/initramfs", recreate=("make", "it"))))
    assert text.splitlines()[:2] == ["mkdir -p virtio-repro", "make it --output virtio-repro/initramfs.cpio"]
    assert "-initrd virtio-repro/initramfs.cpio" in text
    assert "/private" not in text


def test_a_scripted_guest_needs_a_rom_that_halts_and_no_other() -> None:
    spec = vm_spec((Net(), Rng()), {"guest": "scripted"}, {})
    plan = Plan(QEMU, "tcg", spec, resolved(spec.devices), Boot(halted=True))
    made = command_line(plan, Wires(WIRES.directory, 7, (), memory=8, qtest=9))
    line = " ".join(made.argv)
    assert "mem-path=/proc/self/fd/8,share=on" in line
    assert "-chardev socket,id=qtest,fd=9 -object qtest,id=qtest0,chardev=qtest,log=/dev/null" in line
    assert "virtio-net-pci,id=net0,netdev=net0.net,romfile=" in line
    assert line.count("romfile") == 1
    (rom,) = made.files
    assert (rom.path, rom.size) == (WIRES.directory / "halt.rom", 65536)
    assert rom.content == {65536 - 16: bytes.fromhex("faf4ebfd") + bytes(12)}


def test_by_hand_makes_the_same_rom(tmp_path: Path) -> None:
    spec = vm_spec((Rng(),), {"guest": "scripted"}, {})
    script = by_hand(Plan(Path("/bin/true"), "tcg", spec, resolved(spec.devices), Boot(halted=True)))
    subprocess.run(["sh", "-ec", script], cwd=tmp_path, check=True, timeout=20)
    made = (tmp_path / "virtio-repro" / "halt.rom").read_bytes()
    assert made == bytes(65536 - 16) + bytes.fromhex("faf4ebfd") + bytes(12)
