"""What the tests of ``provision`` share: the image, a guest that is spoken to by hand, and modules made of nothing."""

from __future__ import annotations

import base64
import select
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from pytest_virtio.provision import cache
from pytest_virtio.provision.boot import LinuxBoot
from pytest_virtio.provision.linux import LinuxImage, build_linux, linux_image

BOOT_SECONDS = 90.0
COMMAND_SECONDS = 60.0
NULL_DISK = ("-blockdev", "null-co,node-name=disk,size=1048576,read-zeroes=on")


class Guest:
    """A Linux guest whose second serial port is spoken to as the protocol has it; every wait has an end."""

    def __init__(
        self, program: Path, boot: LinuxBoot, machine: str, devices: Sequence[str], memory: str = "256M"
    ) -> None:
        self.messages: list[str] = []
        self.console = b""
        self._rest = b""
        self._console, theirs0 = socket.socketpair()
        self._port, theirs1 = socket.socketpair()
        ports = [f"socket,id=s{n},fd={end.fileno()}" for n, end in enumerate((theirs0, theirs1))]
        argv = [str(program), "-M", machine, "-m", memory, "-accel", "tcg", "-nodefaults"]
        argv += ["-display", "none", "-no-reboot", "-kernel", str(boot.kernel), "-initrd", str(boot.initramfs)]
        argv += ["-append", boot.append, "-chardev", ports[0], "-chardev", ports[1], "-serial", "chardev:s0"]
        argv += ["-device", "isa-serial,chardev=s1,index=1"]
        descriptors = (theirs0.fileno(), theirs1.fileno())
        self.process = subprocess.Popen([*argv, *devices], pass_fds=descriptors, stderr=subprocess.PIPE)
        theirs0.close()
        theirs1.close()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=10)
        self._console.close()
        self._port.close()

    def send(self, line: str) -> None:
        self._port.sendall(line.encode() + b"\n")

    def wait(self, start: str, seconds: float) -> list[str]:
        """Messages from now to the first that starts so."""
        deadline = time.monotonic() + seconds
        found: list[str] = []
        while time.monotonic() < deadline:
            for line in self._lines():
                found.append(line)
                if line.startswith(start):
                    return found
        pytest.fail(f"no {start!r} in {seconds} s; seen: {found[-5:]}; console:\n{self._tail()}")

    def ready(self) -> list[str]:
        return self.wait("@pv ready 1", BOOT_SECONDS)

    def run(self, command: str, name: str = "t") -> tuple[int, bytes]:
        self.send(f"run {name} {base64.b64encode(command.encode()).decode()}")
        return self.result(name, COMMAND_SECONDS)

    def result(self, name: str, seconds: float) -> tuple[int, bytes]:
        found = self.wait(f"@pv end {name} ", seconds)
        said = [line.split()[3] for line in found if line.startswith(f"@pv out {name} ")]
        return int(found[-1].split()[3]), b"".join(base64.b64decode(text, validate=True) for text in said)

    def drivers(self) -> dict[int, tuple[int, str]]:
        """Status and driver by virtio device type."""
        self.send("devices")
        lines = [
            line.split() for line in self.wait("@pv devices-end", COMMAND_SECONDS) if line.startswith("@pv device ")
        ]
        return {int(words[3], 16): (int(words[4], 16), words[5]) for words in lines}

    def _lines(self) -> Iterator[str]:
        if "\n" not in (self._rest.decode()):
            for end in select.select([self._console, self._port], [], [], 0.2)[0]:
                self._receive(end)
        while b"\n" in self._rest:
            line, _, self._rest = self._rest.partition(b"\n")
            yield line.decode("ascii")

    def _receive(self, end: socket.socket) -> None:
        data = end.recv(1 << 16)
        if not data:
            pytest.fail(f"QEMU ended: {self._tail()}; {self.process.communicate(timeout=10)[1]!r}")
        if end is self._port:
            self._rest += data
        else:
            self.console += data

    def _tail(self) -> str:
        return self.console[-1500:].decode(errors="replace")


StartGuest = Callable[..., Guest]


@pytest.fixture
def start_guest(program: Path) -> Iterator[StartGuest]:
    guests: list[Guest] = []

    def start(boot: LinuxBoot, *devices: str, machine: str = "q35", memory: str = "256M") -> Guest:
        guests.append(Guest(program, boot, machine, devices, memory))
        return guests[-1]

    yield start
    for guest in guests:
        guest.close()


@pytest.fixture(scope="session")
def image() -> LinuxImage:
    return linux_image() or build_linux(print)


@pytest.fixture(scope="session")
def module_files(image: LinuxImage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image's modules as files, taken out of the archive by busybox, which knows nothing of our writer."""
    directory = tmp_path_factory.mktemp("modules")
    busybox = image.initramfs.parent / "busybox"
    archive = image.modules_archive.read_bytes()
    subprocess.run([busybox, "cpio", "-idm"], input=archive, cwd=directory, check=True, timeout=60, capture_output=True)
    return directory / "pytest-virtio" / "modules"


@pytest.fixture
def fake_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with scripts in place of apt's tools; they keep a record of how they were called."""
    monkeypatch.setenv(cache.ENVIRONMENT, str(tmp_path / "cache"))
    tools = tmp_path / "bin"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    return tools


def tool(directory: Path, name: str, script: str) -> None:
    path = directory / name
    path.write_text(f'#!/bin/sh\necho "{name} $*" >>{directory}/log\n{script}\n')
    path.chmod(0o755)


def package(directory: Path, name: str, version: str, files: Mapping[str, str]) -> Path:
    """A ``.deb`` with these files: texts of programs by path, or where a link points to after ``->``."""
    content = directory / name
    (content / "DEBIAN").mkdir(parents=True)
    fields = {"Package": name, "Version": version, "Architecture": "all", "Maintainer": "x", "Description": "x"}
    (content / "DEBIAN" / "control").write_text("".join(f"{field}: {value}\n" for field, value in fields.items()))
    for path, text in files.items():
        target = content / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("->"):
            target.symlink_to(text[2:])
        else:
            target.write_text(text)
            target.chmod(0o755)
    built = directory / f"{name}.deb"
    command = ["dpkg-deb", "--root-owner-group", "-b", str(content), str(built)]
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    return built


def elf_module(*pairs: str) -> bytes:
    """An ELF file with a ``.modinfo`` section of these ``key=value`` texts and nothing else."""
    names = b"\0.shstrtab\0.modinfo\0"
    content = "".join(f"{pair}\0" for pair in pairs).encode()
    table = 64 + len(names) + len(content)
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header += struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, table, 0, 64, 0, 0, 64, 3, 1)
    sections = [(0, 0, 0, 0), (1, 3, 64, len(names)), (11, 1, 64 + len(names), len(content))]
    packed = [
        struct.pack("<IIQQQQIIQQ", name, kind, 0, 0, where, size, 0, 0, 1, 0) for name, kind, where, size in sections
    ]
    return header + names + content + b"".join(packed)
