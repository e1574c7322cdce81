"""What went over the wire between QEMU and a vhost-user backend, in words.

Responsible for a line a message; must not judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from pytest_virtio.model.wire import WireMessage
from pytest_virtio.render.text import safe

__all__ = ("wire", "wire_message")

SHOWN: Final = 30
_FIELDS_LIMIT: Final = 160
_LEAST_HEXADECIMAL: Final = 0x1000


def wire(count: int, messages: Sequence[WireMessage], ended: str) -> Iterator[str]:
    """Yield a line for each of the last messages, and why the connection has ended if it has.

    :param count: how many there were, all told.
    """
    shown = messages[-SHOWN:]
    if count > len(shown):
        yield f"({count - len(shown)} messages before these are not shown)"
    yield from map(wire_message, shown)
    if not shown:
        yield "(no message)"
    if ended:
        yield f"the connection has ended: {safe(ended)}"


def wire_message(message: WireMessage) -> str:
    """When, to whom, what, and what the witness did to it: ``0.1148 s to backend: SET_VRING_NUM index 0, num 128``."""
    notes = [
        f"connection {message.connection + 1}" if message.connection else "",
        "the backend's channel" if message.by_backend else "",
        "wants a reply" if message.need_reply else "",
        f"{message.fds} fds" if message.fds > 1 else "1 fd" * message.fds,
        "" if message.fate == "passed" else message.fate.upper(),
    ]
    said = f"{safe(message.name)}{' reply' if message.reply else ''} {_fields(message.fields)}".rstrip()
    told = ", ".join(note for note in notes if note)
    return f"{message.seconds:.4f} s to {message.to}: {said}" + (f" ({told})" if told else "")


def _fields(fields: Mapping[str, object]) -> str:
    text = safe(", ".join(f"{name} {_value(value)}" for name, value in fields.items()))
    return text if len(text) <= _FIELDS_LIMIT else f"{text[:_FIELDS_LIMIT]}…"


def _value(value: object) -> str:
    # A list, of what was read from a file.
    if isinstance(value, tuple | list):
        return f"[{'; '.join(_value(part) for part in value)}]"
    if isinstance(value, Mapping):
        return " ".join(f"{name} {_value(part)}" for name, part in value.items())
    return hex(value) if isinstance(value, int) and value >= _LEAST_HEXADECIMAL else str(value)
