"""Daemons that take no more than a line of arguments: virtiofsd, vhost-device-vsock, testpmd, passt, and a user's own.

Responsible for the spelling of their options, and for where they are; must not know processes or sockets.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_virtio.backend.programs import PASST, TESTPMD, VIRTIOFSD, VSOCK_DAEMON, program
from pytest_virtio.backend.service import HowToStart, Meeting
from pytest_virtio.declare.backends import Daemon, Passt, Testpmd, VhostUser, Virtiofsd, VsockDaemon
from pytest_virtio.errors import UsageError
from pytest_virtio.vm.backends import PrivateFile
from pytest_virtio.vm.cmdline import CommandLine, ResolvedDevice

__all__ = ("own", "passt", "testpmd", "virtiofsd", "vsock")

HAND_FD = 3
LISTEN = (
    "import os, socket, sys; listener = socket.socket(socket.AF_UNIX); listener.bind(sys.argv[1]); listener.listen(1); "
    f"os.dup2(listener.fileno(), {HAND_FD}); os.set_inheritable({HAND_FD}, True); os.execvp(sys.argv[2], sys.argv[2:])"
)
"""For people: who starts a daemon of whose arguments one is a descriptor has to open that first."""


def virtiofsd(server: Virtiofsd, device: ResolvedDevice) -> HowToStart:
    """Both virtiofsds: the Rust one understands the C one's options. The C one runs as root only."""
    id = device.declaration.name
    found = program(VIRTIOFSD, id, server.program)

    def build(directory: Path, socket: int | Path) -> CommandLine:
        shared = server.directory or directory / f"{id}.share"
        where = f"--fd={socket}" if isinstance(socket, int) else f"--socket-path={socket}"
        # Containers lack the privileges for the others; the guest is the user's own. Only root may change root
        # ("sandbox mode 'chroot' can only be used by root", virtiofsd 1.13); only the Rust one goes without a sandbox.
        sandbox = ("-o", "sandbox=chroot") if os.geteuid() == 0 else ("--sandbox=none",)
        argv = (str(found), where, "-o", f"source={shared}", *sandbox, "-f")
        return CommandLine(argv, () if server.directory else (PrivateFile(shared),))

    return HowToStart("inherits", build)


def vsock(server: VsockDaemon, device: ResolvedDevice) -> HowToStart:
    """vhost-device-vsock; the host's side is at ``<id>.vsock`` in the VM's private directory, as it makes it."""
    id = device.declaration.name
    found = program(VSOCK_DAEMON, id)

    def build(directory: Path, socket: int | Path) -> CommandLine:
        uds = directory / f"{id}.vsock"
        return CommandLine((str(found), f"--guest-cid={server.cid}", f"--socket={socket}", f"--uds-path={uds}"), ())

    return HowToStart("listens", build)


def testpmd(server: Testpmd, device: ResolvedDevice) -> HowToStart:
    """testpmd without huge pages and PCI devices, on one core: its main thread waits, the other one polls.

    What its defaults do (seen with DPDK 22.11): a server looks for connections once a second, so it connects to us; it
    forwards up to 0.1 s after DRIVER_OK, and drops what has come before (--disable-link-check, --no-flush-rx); and it
    locks all memory that it maps, which allocates the whole guest's: half a second for 256 MiB (--no-mlockall).
    """
    backend = device.declaration.backend
    queues = (backend.queue_pairs if isinstance(backend, VhostUser) else None) or 1
    found = program(TESTPMD, device.declaration.name)

    def build(directory: Path, socket: int | Path) -> CommandLine:
        own = ("--no-huge", "-m", "128", "--no-shconf", "--no-pci", "--no-telemetry", "-l", "0,1")
        vdev = f"--vdev=net_vhost0,iface={socket},queues={queues},client=1"
        start = ("--auto-start", "--disable-link-check", "--no-flush-rx", "--no-mlockall")
        pools = (f"--forward-mode={server.forward_mode}", *start, "--total-num-mbufs=4096")
        rings = (f"--rxq={queues}", f"--txq={queues}")
        return CommandLine((str(found), *own, vdev, "--", *pools, *rings, "--no-lsc-interrupt", *server.args), ())

    return HowToStart("connects", build)


def passt(server: Passt, device: ResolvedDevice) -> HowToStart:
    """passt in the foreground."""
    found = program(PASST, device.declaration.name)

    def build(directory: Path, socket: int | Path) -> CommandLine:
        return CommandLine((str(found), "--foreground", "--vhost-user", f"--socket={socket}", *server.args), ())

    return HowToStart("listens", build)


def own(server: Daemon, device: ResolvedDevice) -> HowToStart:
    """A user's own daemon.

    :raises UsageError: when its arguments name neither a socket nor a descriptor, or something else.
    """
    words = " ".join(server.argv)
    inherits = "{fd}" in words
    if inherits and server.connects:
        raise UsageError(f"Daemon({words!r}, connects=True): one that connects is told a path: {{socket}}")
    if not inherits and "{socket}" not in words:
        raise UsageError(f"Daemon({words!r}): an argument must say where it listens, with {{socket}} or {{fd}} in it")

    def build(directory: Path, socket: int | Path) -> CommandLine:
        if not inherits:
            return CommandLine(_filled(server.argv, {"socket": socket, "directory": directory}), ())
        by_hand = isinstance(socket, Path)
        argv = _filled(server.argv, {"fd": HAND_FD if by_hand else socket, "directory": directory})
        return CommandLine(("python3", "-c", LISTEN, str(socket), *argv) if by_hand else argv, ())

    meeting: Meeting = "connects" if server.connects else "inherits" if inherits else "listens"
    return HowToStart(meeting, build, may_stray=True)


def _filled(argv: Sequence[str], values: Mapping[str, object]) -> tuple[str, ...]:
    try:
        return tuple(word.format_map(values) for word in argv)
    except (KeyError, ValueError, IndexError, AttributeError) as error:
        raise UsageError(
            f"Daemon({' '.join(argv)!r}): {error}: {{socket}}, {{fd}} and {{directory}} are known; a brace is doubled"
        ) from error
