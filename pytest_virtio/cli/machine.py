"""``pytest-virtio setup``, ``doctor`` and ``image``: what tests need on this machine.

Responsible for arguments, progress and exit status; must not know how anything is fetched or built.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pytest_virtio.cli.commands import Commands, coloured
from pytest_virtio.cli.daemons import daemons
from pytest_virtio.errors import MissingError, UnknownNameError, UsageError, VirtioError
from pytest_virtio.provision.backends import install_backends
from pytest_virtio.provision.boot import prepare
from pytest_virtio.provision.debian import MIRROR
from pytest_virtio.provision.linux import build_linux, linux_image
from pytest_virtio.provision.qemu import find_qemu, install_qemu
from pytest_virtio.provision.releases import build_release, find_release
from pytest_virtio.provision.releases import names as release_names
from pytest_virtio.provision.status import Finding, inspect
from pytest_virtio.vm.accelerator import remembered
from pytest_virtio.vm.capabilities import capabilities
from pytest_virtio.vm.resolve import check_introspection

__all__ = ("add_commands",)

_LINUX = "linux"


def add_commands(commands: Commands) -> None:
    """Declare ``setup``, ``doctor`` and ``image``."""
    setup = commands.add_parser("setup", help="install QEMU and build the Linux guest, where they are missing")
    setup.add_argument(
        "--backends",
        action="store_true",
        help="also dpdk-testpmd, where root may install it; other daemons are only looked for",
    )
    setup.set_defaults(act=_setup)
    doctor = commands.add_parser("doctor", help="say what is there and what is missing; changes nothing")
    doctor.set_defaults(act=_doctor)
    image = commands.add_parser("image", help="guest images, and QEMUs of other releases")
    _add_image_commands(image.add_subparsers(required=True, metavar="WHAT"))


def _add_image_commands(commands: Commands) -> None:
    build = commands.add_parser("build", help="fetch and build images into your cache")
    build.add_argument("names", nargs="+", metavar="NAME", help="linux, qemu-10.0 and others; a wrong name shows all")
    build.add_argument("--mirror", help=f"of the Debian archive, for QEMUs; default: {MIRROR}, or apt's own")
    build.set_defaults(act=_build)
    path = commands.add_parser("path", help="print where an image is: the program of a QEMU, a directory")
    path.add_argument("name", metavar="NAME")
    path.set_defaults(act=_path)
    initramfs = commands.add_parser("initramfs", help="write the initramfs that a Linux guest with these things boots")
    initramfs.add_argument("--output", type=Path, required=True, help="where to write it")
    initramfs.add_argument("--devices", default="", help="virtio device ids, by commas: 1 is net, 2 is blk")
    initramfs.add_argument("--kernel", type=Path, help="a bzImage of yours")
    initramfs.add_argument("--initrd", type=Path, help="an initramfs of yours, to which the agent is appended")
    initramfs.add_argument(
        "--modules", type=Path, action="append", default=[], help="a .ko file or a directory of them"
    )
    initramfs.set_defaults(act=_initramfs)


def _setup(chosen: argparse.Namespace) -> int:
    if find_qemu() is None:
        _progress(f"QEMU: {install_qemu(_progress)}")
    if linux_image() is None:
        build_linux(_progress)
    if chosen.backends:
        install_backends(_progress)
    return _doctor(chosen)


def _doctor(_: argparse.Namespace) -> int:
    findings = inspect()
    qemu = find_qemu()
    if qemu is not None:
        findings.insert(1, _introspection(qemu))
        findings = [_kvm(qemu, finding) if finding.what == "KVM" else finding for finding in findings]
    findings += daemons(qemu)
    for finding in findings:
        mark = coloured("ok     ", 32) if finding.ok else coloured("missing", 31 if finding.needed else 33)
        print(f"{mark} {finding.what}: {finding.detail}")
        if finding.remedy:
            print(f"        -> {finding.remedy}")
    return 0 if all(finding.ok or not finding.needed for finding in findings) else 1


def _introspection(qemu: Path) -> Finding:
    what = "virtio introspection"
    try:
        known = capabilities(qemu)
        check_introspection(known)
    except VirtioError as error:
        return Finding(what, False, str(error))
    return Finding(what, True, f"QEMU {known.version} has it, and {len(known.devices)} virtio and vhost device types")


def _kvm(qemu: Path, finding: Finding) -> Finding:
    """What a run has found out about KVM says more than that its device opens."""
    known = remembered(qemu) if finding.ok else None
    return Finding("KVM", known.name == "kvm", known.reason, needed=False) if known else finding


def _build(chosen: argparse.Namespace) -> int:
    for name in chosen.names:
        _check_image_name(name)
    for name in chosen.names:
        print(f"{name}: {_build_linux() if name == _LINUX else _build_qemu(name, chosen.mirror)}", flush=True)
    return 0


def _build_linux() -> str:
    image = build_linux(_progress)
    return f"Linux {image.version} in {image.kernel.parent}"


def _build_qemu(name: str, mirror: str | None) -> str:
    build = build_release(name, _progress, mirror)
    return f"QEMU {build.version}, {build.program}"


def _path(chosen: argparse.Namespace) -> int:
    _check_image_name(chosen.name)
    found = _linux_directory() if chosen.name == _LINUX else _release_program(chosen.name)
    if found is None:
        raise MissingError(f"{chosen.name} is not built yet: run 'pytest-virtio image build {chosen.name}'")
    print(found)
    return 0


def _linux_directory() -> Path | None:
    image = linux_image()
    return image.kernel.parent if image else None


def _release_program(name: str) -> Path | None:
    build = find_release(name)
    return build.program if build else None


def _check_image_name(name: str) -> None:
    known = (_LINUX, *release_names())
    if name not in known:
        raise UnknownNameError("image", name, known)


def _initramfs(chosen: argparse.Namespace) -> int:
    directory = chosen.output.absolute().parent
    directory.mkdir(parents=True, exist_ok=True)
    made = prepare(directory, _ids(chosen.devices), kernel=chosen.kernel, initrd=chosen.initrd, modules=chosen.modules)
    if made.initramfs.parent == directory:
        made.initramfs.replace(chosen.output)
    else:
        chosen.output.write_bytes(made.initramfs.read_bytes())
    print(f"{chosen.output}: loads {', '.join(made.load) or 'no module'}\nkernel command line: {made.append}")
    return 0


def _ids(listed: str) -> list[int]:
    try:
        return [int(word) for word in listed.split(",") if word]
    except ValueError as error:
        raise UsageError(f"--devices {listed}: numbers of virtio device types are expected, by commas: 1,2") from error


def _progress(message: str) -> None:
    print(f"pytest-virtio: {message}", file=sys.stderr, flush=True)
