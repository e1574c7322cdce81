"""What this machine has and lacks for running guests, as findings to be printed. It starts no VM, uses no network,
and must not know how findings are shown."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import apt, cache, linux, qemu, releases

__all__ = ("Finding", "inspect")

_KVM = Path("/dev/kvm")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked for.

    :param what: its name.
    :param ok: whether it is there and of use.
    :param detail: what was found, in words.
    :param remedy: what to do about it; "" if nothing needs to be done.
    :param needed: whether tests can't do without it.
    """

    what: str
    ok: bool
    detail: str
    remedy: str = ""
    needed: bool = True


def inspect() -> list[Finding]:
    """Look for everything that a test with a guest may need."""
    return [_qemu(), *_builds(), *_guest(), _kvm(), _apt(), _cache()]


def _qemu() -> Finding:
    found = qemu.find_qemu()
    if found is None:
        return Finding("QEMU", False, "none in PATH or in the cache", "pytest-virtio setup, or --virtio-qemu=PATH")
    return Finding("QEMU", True, str(found))


def _builds() -> Iterator[Finding]:
    """QEMUs of other releases are no one's need who didn't build one."""
    for name in releases.names():
        build = releases.find_release(name)
        if build:
            yield Finding(f"--virtio-qemu={name}", True, f"Debian's {build.version}: {build.program}")


def _guest() -> Iterator[Finding]:
    image, busybox = linux.linux_image(), linux.find_busybox()
    build = "pytest-virtio image build linux"
    if image is None:
        yield Finding(
            "Linux guest", False, "no image of the present recipe in the cache", f"{build}, or --virtio-kernel"
        )
    else:
        yield Finding(
            "Linux guest", True, f"Linux {image.version} with {len(image.modules)} modules: {image.kernel.parent}"
        )
    if busybox is None:
        yield Finding("busybox", False, "no statically linked one in the cache or in PATH", build)
    else:
        yield Finding("busybox", True, str(busybox))


def _kvm() -> Finding:
    if not _KVM.exists():
        return Finding("KVM", False, f"no {_KVM}: guests run under TCG, several times slower", needed=False)
    if not os.access(_KVM, os.R_OK | os.W_OK):
        remedy = "join the group that owns it (usually kvm)"
        return Finding("KVM", False, f"{_KVM} is closed to this user", remedy, needed=False)
    return Finding("KVM", True, f"{_KVM} can be opened; only the start of a kernel shows whether it works")


def _apt() -> Finding:
    if apt.have_apt():
        return Finding("apt", True, "QEMU and the Linux guest can be fetched")
    detail = "not a Debian or Ubuntu: nothing can be fetched"
    return Finding("apt", False, detail, "install QEMU, busybox and a kernel by hand", needed=False)


def _cache() -> Finding:
    root = cache.root()
    parent = next(path for path in (root, *root.parents) if path.exists())
    if not os.access(parent, os.W_OK):
        return Finding("cache", False, f"{root} can't be written", f"set {cache.ENVIRONMENT} to a directory of yours")
    return Finding("cache", True, f"{root}, {cache.size_bytes() / 2**20:.0f} MiB")
