"""QEMU's command line from declarations: pure.

Responsible for the spelling of QEMU's options, for the private files that they name, and for the same VM's command
line as a person would type it; must not start, open or look at anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from pytest_virtio.declare.backends import Disk, Netdev, ScsiDisk, VhostUser
from pytest_virtio.declare.devices import Declaration
from pytest_virtio.declare.sizes import MIB
from pytest_virtio.declare.spec import VmSpec
from pytest_virtio.qapi.trace import STATUS_EVENTS
from pytest_virtio.vm.backends import Parts, PrivateFile, backend_parts, keyval, vhost_user_chardev

__all__ = (
    "Boot",
    "CommandLine",
    "Connects",
    "Plan",
    "ResolvedDevice",
    "Wires",
    "accelerator_probe",
    "assemble",
    "command_line",
    "device_probe",
    "probe",
    "second_monitor",
    "vhost_user",
)

RAM = "pytest-virtio.ram"
HALT_BYTES = 65536
HALT = bytes.fromhex("faf4ebfd").ljust(16, b"\0")
"""x86 begins 16 bytes below the end of its ROM: cli; hlt; jump back to hlt."""

LONGEST_SOCKET_PATH = 107
"""What the address of a socket holds, in bytes (unix(7))."""

_BOOTABLE = (Disk, ScsiDisk, Netdev)
_BOOTABLE_BY_VHOST_USER = ("vhost-user-blk", "virtio-net")


@dataclass(frozen=True, slots=True)
class Connects:
    """A path that QEMU connects to, and again some seconds after the connection has ended.

    :param seconds: None when it doesn't connect again.

    :param in_ms: as :attr:`Plan.reconnect_in_ms`.
    """

    path: Path
    seconds: float | None
    in_ms: bool

    def __str__(self) -> str:
        if self.seconds is None:
            return f"path={self.path}"
        often = (
            f"reconnect-ms={round(self.seconds * 1e3)}" if self.in_ms else f"reconnect={max(1, round(self.seconds))}"
        )
        return f"path={self.path},{often}"


@dataclass(frozen=True, slots=True)
class Wires:
    """What QEMU inherits: its private directory, the monitor's descriptor and one for each serial console; guest RAM
    as a memory file, the qtest socket, the file of its log, by device id the connections to vhost-user backends, or
    where to connect to them; its directory once more, by a short name."""

    directory: Path
    monitor: int
    consoles: tuple[int, ...] = ()
    memory: int | None = None
    qtest: int | None = None
    log: int | None = None
    backends: Mapping[str, int | Connects] = field(default_factory=dict)
    place: int | None = None

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All that is inherited."""
        outside = (fd for fd in (self.memory, self.qtest, self.log, self.place) if fd is not None)
        connected = (connection for connection in self.backends.values() if isinstance(connection, int))
        return (self.monitor, *self.consoles, *outside, *connected)


@dataclass(frozen=True, slots=True)
class Boot:
    """What the machine boots: empty strings and None leave an option out."""

    kernel: str = ""
    initrd: str = ""
    append: str = ""
    bios: str = ""
    paused: bool = False
    halted: bool = False
    """Whether the firmware is a ROM that halts the CPU: the VM runs, and nothing runs in it."""
    firmware: bool = False
    """Whether the firmware is the guest: it tries the devices in order of declaration and logs to the serial port."""
    recreate: tuple[str, ...] = ()
    """The words of a command that makes ``initrd`` again, less its ``--output``; empty when the file stays."""


@dataclass(frozen=True, slots=True)
class ResolvedDevice:
    """A declaration with the QEMU type and property spellings of one binary."""

    declaration: Declaration
    type: str
    properties: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a command line is made of, but for the wires.

    :param devices: the declarations of ``spec``, resolved against the binary.
    :param monitor_object: whether the monitor is an object to this QEMU.
    :param second_monitor: whether others can talk to it while we do: at :func:`second_monitor` of its directory.
    :param reconnect_in_ms: whether it knows ``reconnect-ms``, as QEMU does from 9.2 on; 11.1 knows that only.
    """

    program: Path
    accelerator: str
    spec: VmSpec
    devices: tuple[ResolvedDevice, ...]
    boot: Boot
    monitor_object: bool = False
    reconnect_in_ms: bool = False
    second_monitor: bool = False


@dataclass(frozen=True, slots=True)
class CommandLine:
    """The arguments, and the private files that must exist first."""

    argv: tuple[str, ...]
    files: tuple[PrivateFile, ...]


def probe(program: Path, wires: Wires) -> tuple[str, ...]:
    """A QEMU without a machine, only to be asked what it can do."""
    return (str(program), "-machine", "none", "-S", *_quiet(), *_monitor(wires.monitor))


def device_probe(program: Path, device: str, wires: Wires) -> tuple[str, ...]:
    """The smallest machine with a device in it, stopped before its first instruction."""
    machine = ("-machine", "microvm", "-accel", "tcg", "-S", "-device", device)
    return (str(program), *_quiet(), *machine, *_monitor(wires.monitor))


def accelerator_probe(program: Path, accelerator: str, kernel: Path, wires: Wires) -> tuple[str, ...]:
    """The least that lets a kernel speak; without a root file system it panics, which is late enough."""
    machine = ("-machine", "q35", "-accel", accelerator, "-m", "256M")
    boot = ("-kernel", str(kernel), "-append", "console=ttyS0")
    return (str(program), *_quiet(), *machine, *_monitor(wires.monitor), *_console(0, wires.consoles[0], "q35"), *boot)


def command_line(plan: Plan, wires: Wires) -> CommandLine:
    """The command line of a VM."""
    consoles = [_console(n, fd, plan.spec.machine) for n, fd in enumerate(wires.consoles)]
    links = {id: f"fd={link}" if isinstance(link, int) else str(link) for id, link in wires.backends.items()}
    connected = [word for id, link in links.items() for word in vhost_user(id, link)]
    wiring = (
        *_monitor(wires.monitor, as_object=plan.monitor_object),
        *_second_monitor(plan, wires),
        *(word for words in consoles for word in words),
        *_shared(plan, wires),
        *_trace(wires.log),
        *connected,
    )
    return assemble(plan, wires.directory, wiring)


def assemble(plan: Plan, directory: Path, wiring: tuple[str, ...]) -> CommandLine:
    """The command line with what connects it to its surroundings."""
    spec, boot = plan.spec, plan.boot
    parts = [(d, backend_parts(d.declaration.backend, d.declaration.name, directory)) for d in plan.devices]
    argv = [str(plan.program), *_quiet(), "-machine", _machine(spec, boot), "-accel", plan.accelerator]
    argv += ["-smp", str(spec.cpus), "-m", _memory(spec.memory, sum(p.device_memory for _, p in parts))]
    halt = PrivateFile(directory / "halt.rom", HALT_BYTES, {HALT_BYTES - len(HALT): HALT})
    argv += [*wiring, *_boot(replace(boot, bios=str(halt.path)) if boot.halted else boot), *_quirks(plan)]
    places = count()
    for device, part in parts:
        argv += _device(device, part, _start(device, plan, places))
    files = (*((halt,) if boot.halted else ()), *(f for _, part in parts for f in part.files))
    return CommandLine((*argv, *spec.args), files)


def _device(device: ResolvedDevice, part: Parts, start: Mapping[str, str]) -> Iterator[str]:
    """The words for a device, its backend and what is on its bus; the disk on a SCSI bus is what boots there.

    :param start: properties that say how the machine starts from it.
    """
    on_child = isinstance(device.declaration.backend, ScsiDisk)
    own = {"id": device.declaration.name, **(part.properties or {}), **({} if on_child else start)}
    yield from part.options
    yield from ("-device", keyval(device.type, {**own, **device.properties}))
    for child in part.children:
        yield from ("-device", child + "".join(f",{key}={value}" for key, value in start.items()))


def _start(device: ResolvedDevice, plan: Plan, places: Iterator[int]) -> Mapping[str, str]:
    if plan.boot.firmware and _can_boot(device):
        return {"bootindex": str(next(places))}
    if plan.boot.halted and plan.spec.transport != "mmio" and _is_net(device):
        # Nothing runs iPXE there, and QEMU takes a millisecond to load it.
        return {"romfile": ""}
    return {}


def _machine(spec: VmSpec, boot: Boot) -> str:
    if boot.firmware and spec.machine.startswith(("q35", "pc")):
        # Without graphics SeaBIOS and iPXE talk on the first serial port, where their words can be kept.
        return f"{spec.machine},graphics=off"
    if boot.halted and spec.machine.startswith(("q35", "pc-q35")) and "acpi=" not in spec.machine:
        # Nothing reads the tables there, and QEMU takes 3 ms to write them (10.0: 4 ms). pc can't do without: its
        # bridges are plugged by way of ACPI.
        return f"{spec.machine},acpi=off"
    return spec.machine


def _quirks(plan: Plan) -> Iterator[str]:
    """What a machine needs before a modern driver is happy in it."""
    if plan.spec.transport == "mmio":
        # Legacy is QEMU's default on virtio-mmio (seen on 7.2), and a driver can't choose there as it can on PCI.
        yield from ("-global", "virtio-mmio.force-legacy=off")
    if plan.spec.machine.startswith("microvm") and plan.boot.kernel:
        yield from _microvm_with_kernel(plan)


def _microvm_with_kernel(plan: Plan) -> Iterator[str]:
    if "firmware=" not in plan.spec.machine:
        # QEMU puts the initrd at the very end of RAM below 4 GiB: microvm tells x86_load_linux() of no ACPI tables
        # (seen on 7.2, 10.0 and 11.1). SeaBIOS has them in that last page, and loses them: Linux sums up a table
        # of garbage for ever, or finds no device. SeaBIOS is QEMU's default with ACPI (but not Debian's in 7.2).
        # qboot, which comes with QEMU too, has its tables below 1 MiB.
        yield from ("-bios", "qboot.rom")
    if plan.accelerator == "tcg":
        # A microvm has no clock beside the PIT to measure the TSC against. On a busy host Linux fails at that, and
        # without a TSC it waits for a tick for ever. With -icount guest time does not run while the vCPU waits.
        yield from ("-icount", "shift=auto")


def _is_net(device: ResolvedDevice) -> bool:
    backend = device.declaration.backend
    return isinstance(backend, Netdev) or (isinstance(backend, VhostUser) and backend.queue_pairs is not None)


def _can_boot(device: ResolvedDevice) -> bool:
    backend, model = device.declaration.backend, device.declaration.model
    boots = model in _BOOTABLE_BY_VHOST_USER if isinstance(backend, VhostUser) else isinstance(backend, _BOOTABLE)
    return boots and "bootindex" not in device.properties


def _quiet() -> tuple[str, ...]:
    """Nothing but what is declared: no default devices, no user configuration, no window."""
    return ("-nodefaults", "-no-user-config", "-display", "none")


def _monitor(fd: int, *, as_object: bool = False) -> tuple[str, ...]:
    return ("-chardev", f"socket,id=monitor,fd={fd}", *_qmp("monitor", as_object=as_object))


def second_monitor(directory: Path) -> Path:
    """Where a VM's second monitor listens."""
    return directory / "monitor.sock"


def _second_monitor(plan: Plan, wires: Wires) -> tuple[str, ...]:
    if not plan.second_monitor:
        return ()
    path = second_monitor(wires.directory)
    # Where it can be by its own name it is: that is what `ss -xlp` shows.
    if wires.place is not None and len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        path = Path(f"/proc/self/fd/{wires.place}") / path.name
    place = keyval("socket", {"id": "second-monitor", "path": str(path), "server": "on"})
    return ("-chardev", f"{place},wait=off", *_qmp("second-monitor", as_object=plan.monitor_object))


def _qmp(chardev: str, *, as_object: bool) -> tuple[str, str]:
    """:param as_object: as QEMU 11.1 wants it, which warns of ``-mon`` in each VM's stderr; 10.0 has no such object."""
    if as_object:
        return "-object", f"monitor-qmp,id={chardev}.qmp,chardev={chardev}"
    return "-mon", f"chardev={chardev},mode=control"


def _console(number: int, fd: int, machine: str) -> tuple[str, ...]:
    if number == 0:
        return ("-chardev", f"file,id=console0,append=on,path=/proc/self/fd/{fd}", "-serial", "chardev:console0")
    chardev = ("-chardev", f"socket,id=console{number},fd={fd}")
    if machine.startswith("microvm"):
        # microvm takes one -serial only; its ISA bus takes another port.
        return (*chardev, "-device", f"isa-serial,index={number},chardev=console{number}")
    return (*chardev, "-serial", f"chardev:console{number}")


def vhost_user(id: str, connection: str) -> tuple[str, str]:
    """A device's connection to its backend."""
    return "-chardev", f"socket,id={vhost_user_chardev(id)},{connection}"


def _shared(plan: Plan, wires: Wires) -> Iterator[str]:
    """Guest RAM that we have mapped too, and the wire to the registers."""
    if wires.memory is not None:
        path = f"/proc/self/fd/{wires.memory}"
        memory = {"id": RAM, "size": str(plan.spec.memory), "mem-path": path, "share": "on"}
        yield from ("-object", keyval("memory-backend-file", memory), "-machine", f"memory-backend={RAM}")
    if wires.qtest is not None:
        yield from ("-chardev", f"socket,id=qtest,fd={wires.qtest}")
        # As an object, for QEMU 7.2 knows no -qtest chardev:ID; unless told otherwise it logs each command to stderr.
        yield from ("-object", "qtest,id=qtest0,chardev=qtest,log=/dev/null")


def _trace(log: int | None) -> Iterator[str]:
    """What tells each device status that a driver writes, with time. Enabled later it would miss the firmware's, and
    the first reset, which tells the objects' types. QEMU's own messages get the time too (``Qemu.stderr_text``)."""
    if log is not None:
        yield from ("-D", f"/proc/self/fd/{log}", "-msg", "timestamp=on")
        for event in STATUS_EVENTS:
            yield from ("-trace", f"enable={event}")


def _boot(boot: Boot) -> Iterator[str]:
    for option, value in (
        ("-kernel", boot.kernel),
        ("-initrd", boot.initrd),
        ("-append", boot.append),
        ("-bios", boot.bios),
    ):
        if value:
            yield from (option, value)
    if boot.paused:
        yield "-S"


def _memory(ram: int, device_memory: int) -> str:
    if not device_memory:
        return f"{ram // MIB}M"
    # Each memory device is aligned, to 1 GiB at the most on x86; maxmem must have room for that.
    return f"{ram // MIB}M,maxmem={(ram + device_memory) // MIB + 2048}M"
