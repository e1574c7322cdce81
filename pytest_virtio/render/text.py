"""Untrusted text, made safe to print.

Responsible for what a terminal could act on or nobody can see; must not know what the text says.
"""

from __future__ import annotations

from typing import Final, Literal

__all__ = ("escape", "fit", "safe", "written")

_NAME_LIMIT: Final = 400
_NOTE_ROOM: Final = 40


def escape(text: str | bytes, limit: int = 16_384, *, keep: Literal["head", "tail"] = "tail") -> str:
    """Make untrusted text safe to print: what a terminal could act on, or nobody can see, shows as ``\\x1b``.

    Tabs and newlines stay, CR LF becomes a newline; backslashes stay too, so the result is for reading only.

    :param text: bytes are read as UTF-8, invalid ones show as ``\\xff``.
    :param limit: how many characters (bytes, of bytes) to keep, 0 or more; a note tells how many were cut.
    :param keep: which end to keep.
    """
    cut = max(0, len(text) - limit)
    kept = text if not cut else text[cut:] if keep == "tail" else text[:limit]
    if isinstance(kept, bytes):
        kept = kept.decode("utf-8", "backslashreplace")
    shown = "".join(_visible(character) for character in kept.replace("\r\n", "\n"))
    note = f"[{cut} {'bytes' if isinstance(text, bytes) else 'characters'} cut]"
    if not cut:
        return shown
    return f"{note}{shown}" if keep == "tail" else f"{shown}{note}"


def _visible(character: str) -> str:
    if character.isprintable() or character in "\t\n":
        return character
    return character.encode("unicode_escape").decode("ascii")


def written(text: str) -> bytes:
    """Text as files hold it: UTF-8, in which a lone surrogate shows as ``\\udc80``."""
    return text.encode("utf-8", "backslashreplace")


def fit(text: str, limit: int, *, keep: Literal["head", "tail"] = "tail") -> str:
    """Make text fit into so many bytes of a file; a line, which counts too, tells how many were cut.

    :param limit: bytes, some 40 or more.
    :param keep: which end to keep.
    """
    data, room = written(text), limit - _NOTE_ROOM
    if len(data) <= limit:
        return text
    kept = (data[-room:] if keep == "tail" else data[:room]).decode("utf-8", "ignore")
    note = f"[{len(data) - room} bytes cut]"
    return f"{note}\n{kept}" if keep == "tail" else f"{kept}\n{note}"


def safe(text: str) -> str:
    """Make a name safe to stand within one line."""
    return escape(text, _NAME_LIMIT, keep="head").replace("\n", "\\n").replace("\t", "\\t")
