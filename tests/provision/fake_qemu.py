"""Packages of a QEMU that is a shell script, as Debian lays them out."""

from __future__ import annotations

from pathlib import Path

from .conftest import package

TALKS = """\
#!/bin/sh
echo '{"QMP": {}}'
while read -r line; do
    case $line in
        *qom-list-types*) echo '{"return": [{"name": "virtio-rng-pci"}, {"name": "e1000"}]}' ;;
        *device-list-properties*) echo "$PROPERTIES"; echo '{"event": "X"}'; echo '{"return": []}' ;;
        *) echo '{"return": {}}' ;;
    esac
done
"""

# What ld.so does with `--inhibit-cache --library-path PATH PROGRAM ARGUMENTS`.
LOADER = """\
#!/bin/sh
[ "$1 $2" = "--inhibit-cache --library-path" ] || exit 1
export libraries="$3"
shift 3
exec "$@"
"""

VERSION = "1:7.2+dfsg-7"
LIBRARIES = "usr/lib/x86_64-linux-gnu"


def packages(directory: Path, program: str = TALKS) -> list[Path]:
    """QEMU, a library, the C library, and the links with which trixie's base-files joins /bin and /usr/bin."""
    libraries = {f"{LIBRARIES}/libone.so.1": "", f"{LIBRARIES}/pulseaudio/libpulsecommon-17.0.so": ""}
    return [
        package(directory, "base-files", "13", {"bin": "->usr/bin", "lib": "->usr/lib", "usr/bin/arch": ""}),
        package(directory, "libc6", "2", {f"{LIBRARIES}/ld-linux-x86-64.so.2": LOADER, **libraries}),
        package(
            directory,
            "qemu-system-x86",
            VERSION,
            {"usr/bin/qemu-system-x86_64": program, "usr/share/doc/q/x": "", "usr/share/qemu/bios.bin": ""},
        ),
    ]
