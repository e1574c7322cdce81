"""``pytest-virtio show``: artefacts of tests, as the report showed them when the VM still ran.

Responsible for the order of the parts and for saying in its place what is missing or broken; must not know how any of
them is worded. Nothing in the files is trusted: whoever can write to a CI's storage may have written them.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from pytest_virtio import render
from pytest_virtio.artifact import codec, store
from pytest_virtio.cli.commands import Commands, coloured
from pytest_virtio.errors import UsageError
from pytest_virtio.model.findings import Findings

__all__ = ("add_commands",)

PART_LIMIT: Final = 32 * 1024
LOG_LIMIT: Final = 8 * 1024
IN_TURN: Final = 8
"""So many tests are shown one after the other; of more there is a list."""
LISTED: Final = 1000
VMS_SHOWN: Final = 16
DEVICES_SHOWN: Final = 64
_BOLD: Final = 1
_VERDICT: Final = re.compile(r"-+ virtio: verdict( \(VM \d+ of \d+\))? -+")

T = TypeVar("T")


class _Part(NamedTuple):
    title: str
    lines: Callable[[], Iterator[str]]


def add_commands(commands: Commands) -> None:
    """Declare ``show``."""
    show = commands.add_parser("show", help="show what --virtio-artifacts kept of a test, or of several")
    show.add_argument("directory", metavar="DIR", type=Path, help="a test's directory, or the one that holds several")
    show.set_defaults(act=_show)


def _show(chosen: argparse.Namespace) -> int:
    directory: Path = chosen.directory
    if not directory.is_dir():
        raise UsageError(f"{directory} is no directory: it is the one that --virtio-artifacts named, or one below it")
    if any((directory / name).exists() for name in (store.ABOUT, store.MODELS)):
        _show_test(directory)
        return 0
    tests = store.tests_in(directory)
    if not tests:
        raise UsageError(f"{directory} holds no artefacts: pytest --virtio-artifacts={directory} keeps those of tests")
    for test in tests if len(tests) <= IN_TURN else ():
        _show_test(test)
    if len(tests) > IN_TURN:
        _list(tests)
    return 0


def _list(tests: list[Path]) -> None:
    for test in tests[:LISTED]:
        print(f"{render.safe(str(test))}\n    {_heading(test)}")
    print(f"{len(tests)} tests: pytest-virtio show DIR shows one")


def _show_test(directory: Path) -> None:
    print(coloured(f"==== {_heading(directory)} ====", _BOLD))
    vms = store.vms_in(directory)
    report = directory / store.REPORT
    if report.exists():
        _print(_Part(store.REPORT, partial(_failure, report, whole=not vms)))
    if not vms:
        print("no VM of it was there to look at")
    for number, vm in enumerate(vms[:VMS_SHOWN], 1):
        of = f" (VM {number} of {len(vms)})" if len(vms) > 1 else ""
        for part in _parts(vm):
            _print(part, of)
    if len(vms) > VMS_SHOWN:
        print(f"and {len(vms) - VMS_SHOWN} more VMs, not shown")


def _heading(directory: Path) -> str:
    try:
        about = store.about(directory)
    except UsageError as error:
        return f"{render.safe(directory.name)} ({render.safe(str(error))})"
    first = about.words.partition("\n")[0]
    said = f": {first}" if first else ""
    return render.safe(f"{about.test}, {about.when} {about.outcome} at {about.time}{said}")


def _print(part: _Part, of: str = "") -> None:
    print(coloured(f"---- {part.title}{of} ----", _BOLD))
    print(_text(part))


def _text(part: _Part) -> str:
    try:
        text = "\n".join(part.lines())
    except UsageError as error:
        text = str(error)
    except Exception as error:  # noqa: BLE001 - a file that was made up must not keep the other parts from being seen
        text = f"this part can't be shown: {error!r}"
    return render.escape(text.rstrip("\n"), PART_LIMIT, keep="head")


def _failure(report: Path, *, whole: bool) -> Iterator[str]:
    """The failure, up to what the models say too."""
    for line in store.read(report).splitlines():
        if not whole and _VERDICT.fullmatch(line):
            return
        yield line


def _parts(vm: Path) -> Iterator[_Part]:
    """The models first, then the files by name."""
    try:
        findings = codec.models_from_json(store.read(vm / store.MODELS))
    except UsageError as error:
        findings = None
        yield _Part(store.MODELS, partial(iter, [str(error)]))
    if findings is not None:
        yield _Part("virtio: verdict", partial(render.verdict, findings))
        for id, device in list(findings.devices.items())[:DEVICES_SHOWN]:
            yield _Part(f"virtio: {render.safe(id)}", partial(render.device_findings, device))
    for path in store.files_in(vm):
        if path.name != store.MODELS:
            yield _Part(render.safe(path.name), partial(_file(path.name), path, findings))


def _file(name: str) -> Callable[[Path, Findings | None], Iterator[str]]:
    if name == "qmp.jsonl":
        return _transcript
    return _wire if name.startswith("wire-") and name.endswith(".jsonl") else _plain


def _plain(path: Path, _: Findings | None) -> Iterator[str]:
    yield render.escape(store.read(path), LOG_LIMIT) or "(empty)"


def _transcript(path: Path, _: Findings | None) -> Iterator[str]:
    entries, fault = _up_to_fault(codec.transcript_from_json(store.read(path).splitlines()))
    yield from render.transcript(entries)
    yield from filter(None, [fault])


def _wire(path: Path, findings: Findings | None) -> Iterator[str]:
    messages, fault = _up_to_fault(codec.wire_messages_from_json(store.read(path).splitlines()))
    device = findings.devices.get(path.name.removeprefix("wire-").removesuffix(".jsonl")) if findings else None
    told = device.wire if device else None
    yield from render.wire(told.count if told else len(messages), messages, told.ended if told else "")
    yield from filter(None, [fault])


def _up_to_fault(entries: Iterator[T]) -> tuple[list[T], str]:
    """The entries before one that can't be read, and why it can't; a full disk leaves half a line.

    :raises UsageError: when there are none before it.
    """
    found: list[T] = []
    try:
        for entry in entries:
            found.append(entry)
    except UsageError as error:
        if not found:
            raise
        return found, str(error)
    return found, ""
