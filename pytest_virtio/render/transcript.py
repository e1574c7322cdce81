"""What was said over QEMU's monitor, in lines.

Responsible for a line a message; must not know what any of them means, nor who kept them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from pytest_virtio.render.text import safe

__all__ = ("transcript",)

SHOWN: Final = 30
_MESSAGE_LIMIT: Final = 200


def transcript(entries: Sequence[Mapping[str, object]]) -> Iterator[str]:
    """Yield a line for each of the last messages: ``0.0312 s plugin: {"execute": "query-status"}``.

    :param entries: the lines of a transcript, parsed, without the first.
    """
    shown = entries[-SHOWN:]
    if len(entries) > len(shown):
        yield f"({len(entries) - len(shown)} messages before these are not shown)"
    for entry in shown:
        yield f"{_moment(entry.get('seconds'))} {_said(entry)}"


def _moment(seconds: object) -> str:
    return f"{seconds:.4f} s" if isinstance(seconds, int | float) else "? s"


def _said(entry: Mapping[str, object]) -> str:
    if "note" in entry:
        return safe(str(entry["note"]))
    if "begins" in entry:
        return f"{safe(str(entry.get('from')))}: {_cut(str(entry['begins']))} ({safe(str(entry.get('bytes')))} bytes)"
    return f"{safe(str(entry.get('from')))}: {_cut(json.dumps(entry.get('message')))}"


def _cut(text: str) -> str:
    return safe(text) if len(text) <= _MESSAGE_LIMIT else f"{safe(text[:_MESSAGE_LIMIT])}…"
