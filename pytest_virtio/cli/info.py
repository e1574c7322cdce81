"""``pytest-virtio info``: the virtio devices of a QEMU that runs already.

Responsible for arguments, output and exit status; must not know how anything is asked.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pytest_virtio.artifact.codec import models_to_json
from pytest_virtio.cli.commands import Commands
from pytest_virtio.errors import VirtioError
from pytest_virtio.handle import Section
from pytest_virtio.handle.attached import INFO_SECONDS, look
from pytest_virtio.handle.dump import told
from pytest_virtio.model.findings import Findings

__all__ = ("add_commands",)


def add_commands(commands: Commands) -> None:
    """Declare ``info``."""
    info = commands.add_parser("info", help="print the virtio devices of a QEMU that runs; disturbs nothing")
    info.add_argument("socket", metavar="SOCKET", type=Path, help="the QMP socket that QEMU listens on")
    info.add_argument("id", metavar="ID", nargs="?", help="one device; a wrong one shows all")
    info.add_argument("--json", action="store_true", help="one JSON document instead of text")
    info.add_argument(
        "--timeout",
        type=_seconds,
        default=INFO_SECONDS,
        metavar="SECONDS",
        help=f"how long QEMU may take for everything (default: {INFO_SECONDS:g})",
    )
    info.set_defaults(act=_info)


def _info(chosen: argparse.Namespace) -> int:
    try:
        findings = look(chosen.socket, chosen.id, chosen.timeout)
    except VirtioError as error:
        if chosen.json:
            print(models_to_json(Findings(devices={}), socket=str(chosen.socket), error=str(error)), end="")
        raise
    if chosen.json:
        print(models_to_json(findings, socket=str(chosen.socket)), end="")
    else:
        print(_text(told(findings)))
    return 1 if any(device.no_answer for device in findings.devices.values()) else 0


def _text(sections: Sequence[Section]) -> str:
    return "\n".join(f"---- {section.title} ----\n{section.text}" for section in sections)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"a number of seconds above 0 is expected, not {text!r}")
    return seconds
