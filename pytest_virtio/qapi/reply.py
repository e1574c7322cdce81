"""JSON objects of QMP replies, handed out with their types checked.

Responsible for the errors of a reply that lacks something; must not know any one command.
"""

from __future__ import annotations

from typing import TypeVar

from pytest_virtio.errors import ReplyError

__all__ = ("Reply", "type_name")

Kind = TypeVar("Kind", bound=str | int)


class Reply:
    """A JSON object of a reply, which hands out typed values and knows which keys nobody asked for.

    :param command: the QMP command, for errors.
    :param value: what should be an object.
    :param path: the keys that led here, for errors and extra keys: ``"vhost-dev.features"``.
    """

    def __init__(self, command: str, value: object, path: str = "") -> None:
        if not isinstance(value, dict):
            raise ReplyError(command, path or "return", f"an object is wanted, not {type_name(value)}")
        self._command, self._value, self._path = command, value, path
        self._asked: set[str] = set()
        self._children: list[Reply] = []

    def has(self, key: str) -> bool:
        return key in self._value

    def text(self, key: str) -> str:
        return self._typed(key, self._get(key), str)

    def flag(self, key: str) -> bool:
        return self._typed(key, self._get(key), bool)

    def integer(self, key: str) -> int:
        return self._typed(key, self._get(key), int)

    def natural(self, key: str) -> int:
        value = self.integer(key)
        if value < 0:
            raise self._error(key, f"0 or more is wanted, not {value}")
        return value

    def optional(self, key: str, kind: type[Kind]) -> Kind | None:
        return self._typed(key, self._get(key), kind) if key in self._value else None

    def optional_bits(self, key: str) -> int:
        return self.natural(key) if key in self._value else 0

    def texts(self, key: str) -> list[str]:
        return [self._typed(key, item, str) for item in self._list(key)]

    def child(self, key: str) -> Reply:
        return self._adopt(self._get(key), self._full(key))

    def children(self, key: str) -> list[Reply]:
        return [self._adopt(item, f"{self._full(key)}[{index}]") for index, item in enumerate(self._list(key))]

    def extra(self) -> dict[str, object]:
        """Return the keys that nobody asked for, those of nested objects too."""
        extra = {self._full(str(key)): value for key, value in self._value.items() if key not in self._asked}
        for child in self._children:
            extra |= child.extra()
        return extra

    def _get(self, key: str) -> object:
        if key not in self._value:
            raise self._error(key, "missing")
        self._asked.add(key)
        return self._value[key]

    def _list(self, key: str) -> list[object]:
        value = self._get(key)
        if not isinstance(value, list):
            raise self._error(key, f"a list is wanted, not {type_name(value)}")
        return value

    def _typed(self, key: str, value: object, kind: type[Kind]) -> Kind:
        # A bool is an int to Python, but not to JSON.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self._error(key, f"{kind.__name__} is wanted, not {type_name(value)}")
        if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
            raise self._error(key, f"an integer of 64 bits is wanted, not {value:#x}")
        return value

    def _adopt(self, value: object, path: str) -> Reply:
        child = Reply(self._command, value, path)
        self._children.append(child)
        return child

    def _full(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def _error(self, key: str, detail: str) -> ReplyError:
        return ReplyError(self._command, self._full(key), detail)


def type_name(value: object) -> str:
    return "null" if value is None else type(value).__name__
