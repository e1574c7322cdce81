"""Which accelerator a VM runs on, and why: KVM where it is seen to work, TCG elsewhere.

Responsible for the probe and for remembering its answer for each host kernel and QEMU binary; must not know guests:
the kernel to probe with is given. A device node that opens proves nothing: on some hosts KVM starts and a stock
kernel then hangs without a word, where a trivial ROM still runs. So the probe is a real kernel's first output.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from pytest_virtio import cache
from pytest_virtio.errors import VirtioError
from pytest_virtio.vm import cmdline
from pytest_virtio.vm.capabilities import capabilities, memory_of
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.qemu import Qemu

__all__ = ("Accelerator", "choose", "for_halted", "remembered")

DEVICE = Path("/dev/kvm")
FIRST_WORD = b"Linux version"
REASON_LENGTH = 300
DOUBT_SECONDS = 86400.0
PROBE_SECONDS = 8.0
"""A kernel under working KVM says its first word well within a second."""


@dataclass(frozen=True, slots=True)
class Accelerator:
    """QEMU's name for it, and why it was chosen."""

    name: str
    reason: str


def for_halted(requested: str) -> Accelerator:
    """The accelerator for a VM whose CPU is halted by the first instruction: any will do, and TCG is always there."""
    if requested != "auto":
        return Accelerator(requested, "as asked for")
    return Accelerator("tcg", "the CPU of a scripted guest sleeps")


def choose(requested: str, program: Path, kernel: Callable[[], Path | None]) -> Accelerator:
    """The accelerator for ``requested`` (``auto``, ``tcg`` or ``kvm``) on this host.

    :param kernel: gives a bzImage for the probe, or None; called only when the probe is needed.
    :raises MissingError: when the program is no QEMU.
    """
    if requested != "auto":
        return Accelerator(requested, "as asked for")
    obstacle = _obstacle(program)
    if obstacle:
        return Accelerator("tcg", obstacle)
    image = kernel()
    if image is None:
        return Accelerator("tcg", "KVM is not trusted before a kernel has run on it, and no kernel is at hand")
    return remembered(program) or _found_out(program, image)


def _obstacle(program: Path) -> str:
    if not DEVICE.exists():
        return f"there is no {DEVICE}"
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return f"{DEVICE} is not accessible to this user"
    # Its name would not tell: qemu-kvm, or a build of the user's own.
    target = capabilities(program).target
    if target != platform.machine():
        return f"{program.name} runs {target} code, and this host {platform.machine()}"
    return ""


def remembered(program: Path) -> Accelerator | None:
    """What was found out about KVM with this binary on this host's kernel.

    That KVM works is remembered until one of them changes; that it doesn't, for a day: a host may have been too busy.
    """
    path = _memory_of(program)
    known = cast(Any, cache.recall(path))
    try:
        answer = Accelerator(str(known["name"]), str(known["reason"]))
        young = time.time() - path.stat().st_mtime < DOUBT_SECONDS
    except (OSError, KeyError, TypeError):
        return None
    return answer if answer.name == "kvm" or young else None


def _found_out(program: Path, kernel: Path) -> Accelerator:
    answer, lasting = _probe(program, kernel)
    if lasting:
        cache.remember(_memory_of(program), asdict(answer))
    return answer


def _memory_of(program: Path) -> Path:
    return memory_of(program, "kvm", platform.release(), platform.version())


def _probe(program: Path, kernel: Path) -> tuple[Accelerator, bool]:
    """Boot ``kernel`` under KVM until it says its first word; the answer, and whether it is worth remembering.

    A QEMU that does not start on KVM may do so a minute later (another hypervisor had the CPU, memory was short), and
    is quick to ask again.
    """
    deadline = Deadline.after(PROBE_SECONDS)
    try:
        with Qemu.start(
            lambda wires: cmdline.accelerator_probe(program, "kvm", kernel, wires), deadline, label="kvm", consoles=1
        ) as qemu:
            return _first_word(qemu, deadline)
    except VirtioError as error:
        why = " ".join(str(error).split())[:REASON_LENGTH]
        return Accelerator("tcg", f"QEMU does not start on KVM: {why}"), False


def _first_word(qemu: Qemu, deadline: Deadline) -> tuple[Accelerator, bool]:
    log = qemu.consoles[0].log
    if qemu.child.drain.wait(lambda: FIRST_WORD in log.since(0) or not qemu.running, deadline):
        if FIRST_WORD in log.since(0):
            return Accelerator("kvm", "a kernel was seen to run on it"), True
        return Accelerator("tcg", f"QEMU ended on KVM ({qemu.child.how()})"), False
    return Accelerator("tcg", f"{DEVICE} opens, but a kernel on it said nothing within {PROBE_SECONDS:g} s"), True
