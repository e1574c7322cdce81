"""A provenance in words: as names and values for machines, and as a line for people.

Responsible for the names; must not know how a version is found out, nor who reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from pytest_virtio.model.provenance import Provenance
from pytest_virtio.render.text import safe

__all__ = ("provenance_beside_qemu", "provenance_line", "provenance_values")


def provenance_values(known: Provenance) -> Iterator[tuple[str, str]]:
    """Each part that is known: ``("kernel", "6.1.0-37-amd64")``, ``("backend.vufs0", "virtiofsd 1.13.2")``."""
    for field in fields(known):
        if field.name == "backends":
            yield from ((f"backend.{id}", safe(version)) for id, version in known.backends.items())
        elif getattr(known, field.name):
            yield field.name, safe(getattr(known, field.name))


def provenance_line(known: Provenance) -> str:
    """All of it: ``QEMU 10.0.2 (Debian …), pc-q35-10.0, tcg, guest linux, kernel …``."""
    build = f" ({known.qemu_build})" if known.qemu_build else ""
    guest = f"guest {known.guest}" if known.guest else "no guest"
    words = (f"QEMU {known.qemu}{build}", known.machine, known.accelerator, guest)
    return ", ".join([*(safe(word) for word in words if word), provenance_beside_qemu(known)])


def provenance_beside_qemu(known: Provenance) -> str:
    """What there is beside QEMU itself: ``kernel 6.1.0-37-amd64, SeaBIOS 1.16.2, vublk0 by …, host …``."""
    kernel = f"kernel {known.kernel}" if known.kernel else ""
    backends = (f"{id} by {version}" for id, version in known.backends.items())
    plugin = f"pytest-virtio {known.plugin}" if known.plugin else ""
    host = f"host {known.host}" if known.host else ""
    words = (kernel, known.firmware, *backends, host, plugin)
    return ", ".join(safe(word) for word in words if word)
