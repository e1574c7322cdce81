"""What a QEMU binary can do: version, commands, device types and their properties, asked of the binary itself.

Responsible for the probe (one throw-away QEMU without a machine) and for remembering its answer until the binary
changes; must not know which types or commands anybody needs.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from pytest_virtio import cache
from pytest_virtio.errors import (
    CommandError,
    MissingError,
    MonitorError,
    MonitorTimeoutError,
    QemuExitedError,
    UnknownNameError,
)
from pytest_virtio.qapi.trace import STATUS_EVENTS
from pytest_virtio.vm import cmdline
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.qemu import Qemu

__all__ = ("Capabilities", "capabilities", "find_program", "memory_of")

T = TypeVar("T")

PROBE_SECONDS = 20.0
SCHEMA = 6
"""Raised when what is remembered changes its shape."""

_BASES = ("virtio-device", "virtio-pci", "virtio-ccw-device")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one QEMU binary can do."""

    program: str
    version: str
    """``"7.2.22"``"""
    package: str
    """The packager's own version: ``"Debian 1:7.2+dfsg-7"``; may be empty."""
    target: str
    """The processor it emulates: ``"x86_64"``"""
    commands: frozenset[str]
    machines: frozenset[str]
    """Machine types, by name and by alias (``q35``)."""
    devices: Mapping[str, tuple[str, ...]]
    """Each virtio device type that ``-device`` takes, with its properties."""
    other_types: frozenset[str]
    """The types of other devices."""
    objects: frozenset[str] = frozenset()
    """The types that ``-object`` takes."""
    trace_events: frozenset[str] = frozenset()
    """Those of the trace events that we use which this build has."""
    machine_aliases: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What an alias of a machine type stands for: ``pc-q35-7.2`` by ``q35``."""

    def property_name(self, type: str, spelled: str) -> str:
        """QEMU's own spelling of a property: ``host_mtu`` as it is, ``disable-legacy`` for ``disable_legacy``.

        :raises UnknownNameError: naming the near ones.
        """
        if type not in self.devices:
            return spelled.replace("_", "-")
        for name in self.devices[type]:
            if name.replace("-", "_") == spelled.replace("-", "_"):
                return name
        raise UnknownNameError(f"property of {type}", spelled, self.devices[type])


def find_program(program: str | Path) -> Path:
    """The QEMU binary that a name or path stands for, absolute.

    :raises MissingError: when it is not there or not executable.
    """
    found = shutil.which(program)
    if found is not None:
        return Path(found).absolute()
    path = Path(program)
    if path.is_file():
        raise MissingError(
            f"QEMU {str(program)!r} is not executable by this user: chmod +x it, or name another by --virtio-qemu=PATH"
        )
    what = "is a directory" if path.is_dir() else "is not there" if "/" in str(program) else "is not on PATH"
    raise MissingError(
        f"QEMU {str(program)!r} {what}. `pytest-virtio setup` installs one; --virtio-qemu=PATH names one."
    )


def capabilities(program: Path) -> Capabilities:
    """What the binary can do, from memory if it hasn't changed since it was asked.

    :raises MissingError: when it isn't a QEMU, or not one that starts.
    """
    path = memory_of(program, "capabilities")
    remembered = _recall(path)
    if remembered is None:
        remembered = _probe(program)
        cache.remember(path, _to_json(remembered))
    return remembered


def memory_of(program: Path, kind: str, *where: str) -> Path:
    """The cache file for what a probe found out about a binary; another one when binary or modules change.

    :param where: what else the answer hangs on, such as the host's kernel.
    """
    known_by = f"{SCHEMA} {program.resolve()} {_stamp(program)} {_modules(program)} {where}"
    return cache.root() / kind / f"{hashlib.sha256(known_by.encode()).hexdigest()[:32]}.json"


def _modules(program: Path) -> list[str]:
    """The directories that QEMU loads modules from, with their time stamps: a package that is installed later puts
    device types there. Debian: /usr/lib/x86_64-linux-gnu/qemu; others: /usr/lib64/qemu; own builds: lib/qemu."""
    prefix = program.resolve().parent.parent
    found = {*prefix.glob("lib*/qemu"), *prefix.glob("lib/*/qemu"), Path(os.environ.get("QEMU_MODULE_DIR") or prefix)}
    return [f"{path} {_stamp(path)}" for path in sorted(found) if path.is_dir()]


def _stamp(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns}"


def _recall(path: Path) -> Capabilities | None:
    data = cast(Any, cache.recall(path))
    try:
        return Capabilities(
            program=data["program"],
            version=data["version"],
            package=data["package"],
            target=data["target"],
            commands=frozenset(data["commands"]),
            machines=frozenset(data["machines"]),
            devices={name: tuple(properties) for name, properties in data["devices"].items()},
            other_types=frozenset(data["other_types"]),
            objects=frozenset(data["objects"]),
            trace_events=frozenset(data["trace_events"]),
            machine_aliases=dict(data["machine_aliases"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        # Absent, or not ours any more: ask again.
        return None


def _to_json(known: Capabilities) -> dict[str, object]:
    return {name: sorted(value) if isinstance(value, frozenset) else value for name, value in asdict(known).items()}


def _probe(program: Path) -> Capabilities:
    known = _ask(program, _ask_for_types)
    devices: dict[str, tuple[str, ...]] = {}
    # A type whose parts are in a module that is not installed ends the QEMU that is asked about it (seen on 7.2 with
    # virtio-gpu-gl-pci: "missing object type"). The next QEMU is asked about the rest.
    while len(devices) < len(known.devices):
        _ask(program, lambda _, qemu: _ask_for_properties(qemu, set(known.devices) - set(devices), devices))
    return replace(known, devices={type: names for type, names in devices.items() if names})


def _ask(program: Path, ask: Callable[[Path, Qemu], T]) -> T:
    deadline = Deadline.after(PROBE_SECONDS)
    try:
        with Qemu.start(lambda wires: cmdline.probe(program, wires), deadline, label=program.name) as qemu:
            return ask(program, qemu)
    except MonitorTimeoutError as error:
        notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
        raise MissingError(
            f"{str(program)!r} did not answer on QMP within {PROBE_SECONDS:g} s: is it a QEMU?{notes}"
        ) from error
    except (MonitorError, QemuExitedError) as error:
        said = "\n".join([str(error), *getattr(error, "__notes__", ())])
        raise MissingError(f"{str(program)!r} does not answer as a QEMU does: {said}") from error
    except (KeyError, TypeError) as error:
        raise MissingError(f"{str(program)!r} does not answer as a QEMU does: no {error} in its reply") from error


def _ask_for_types(program: Path, qemu: Qemu) -> Capabilities:
    version = cast(dict[str, Any], qemu.execute("query-version"))
    numbers, machines = version["qemu"], qemu.execute("query-machines")
    devices = _names(qemu.execute("qom-list-types", {"implements": "device", "abstract": False}))
    virtio = frozenset().union(
        *(_names(qemu.execute("qom-list-types", {"implements": base, "abstract": False})) for base in _BASES)
    )
    return Capabilities(
        program=str(program),
        version=f"{numbers['major']}.{numbers['minor']}.{numbers['micro']}",
        package=re.sub(r"^\s*\((.*)\)\s*$", r"\1", str(version.get("package", ""))).strip(),
        target=str(cast(dict[str, Any], qemu.execute("query-target"))["arch"]),
        commands=_names(qemu.execute("query-commands")),
        machines=_names(machines) | _names(machines, "alias"),
        devices=dict.fromkeys(sorted(virtio), ()),
        other_types=devices - virtio,
        objects=_names(qemu.execute("qom-list-types", {"implements": "user-creatable", "abstract": False})),
        trace_events=frozenset(event for event in STATUS_EVENTS if _has_trace_event(qemu, event)),
        machine_aliases=_aliases(machines),
    )


def _has_trace_event(qemu: Qemu, event: str) -> bool:
    """Whether it is compiled in; one that isn't is unknown, or unavailable in a build without trace backend."""
    try:
        reply = cast(list[dict[str, object]], qemu.execute("trace-event-get-state", {"name": event}))
    except CommandError:
        return False
    return all(state["state"] != "unavailable" for state in reply)


def _ask_for_properties(qemu: Qemu, types: Iterable[str], answers: dict[str, tuple[str, ...]]) -> None:
    for type in sorted(types):
        try:
            reply = qemu.execute("device-list-properties", {"typename": type})
        except (CommandError, QemuExitedError):
            answers[type] = ()
            if not qemu.running:
                return
            continue
        answers[type] = tuple(sorted(_names(reply)))


def _aliases(machines: object) -> dict[str, str]:
    entries = cast(list[dict[str, object]], machines)
    return {str(entry["alias"]): str(entry["name"]) for entry in entries if "alias" in entry}


def _names(reply: object, key: str = "name") -> frozenset[str]:
    """The names in a list of objects; ``alias`` is an optional key."""
    entries = cast(list[dict[str, object]], reply)
    return frozenset(str(entry[key]) for entry in entries if key == "name" or key in entry)
