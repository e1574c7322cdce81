"""A file of TOML as tables that say by path and key what is wrong with them.

Responsible for everything that goes for any file of ours that users edit: its size, encoding, syntax and the types of
values; must not know what the file is about.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from pytest_virtio.errors import BaselineError, near_misses
from pytest_virtio.render.text import safe

__all__ = ("LIMIT", "Source", "Table", "document")

LIMIT: Final = 1 << 20
"""How many bytes of a file are read: a hundred times what a VM of many devices takes."""

_CONFLICT = re.compile(rb"^(<{7}|\|{7}|={7}|>{7})( |\r?$)", re.MULTILINE)
_WORDS: Final = {str: "a text in quotes", int: "a whole number", dict: "a table", list: "a list"}
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Source:
    """Which file it is.

    :param path: as the user knows it.
    :param remedy: the command that makes it anew.
    """

    path: object
    remedy: str

    def error(self, what: str) -> BaselineError:
        """Make the error that says what is wrong with it."""
        return BaselineError(self.path, what, f"If you did not mean to edit it, make it anew: {self.remedy}")


@dataclass(frozen=True, slots=True)
class Table:
    """One table of it.

    :param source: the file.
    :param data: the table as parsed.
    :param keys: where in the file it stands; none for the whole.
    """

    source: Source
    data: dict[str, Any] = field(repr=False)
    keys: tuple[str, ...] = ()

    def error(self, what: str, *keys: str) -> BaselineError:
        """Make an error about a key of it, or about the whole table."""
        where = ".".join(map(safe, (*self.keys, *keys)))
        return self.source.error(f"{where}: {what}" if where else what)

    def only(self, known: Collection[str]) -> None:
        """:raise BaselineError: a key of it is none of these."""
        for key in self.data:
            if key not in known:
                raise self.error(f"there is no such key. {near_misses(safe(key), known)}", key)

    def get(self, key: str, type_: type[_Value]) -> _Value:
        """Return a value of this type.

        :raise BaselineError: it is missing, or of another type.
        """
        if key not in self.data:
            raise self.error("it is missing", key)
        return self.right(key, self.data[key], type_)

    def right(self, key: str, value: object, type_: type[_Value]) -> _Value:
        """Return a value if it is of this type.

        :raise BaselineError: it is not.
        """
        if not isinstance(value, type_) or isinstance(value, bool):
            raise self.error(f"{_WORDS[type_]} is expected there, not {safe(repr(value))}", key)
        return value

    def table(self, key: str) -> Table:
        """Return a table of it; an empty one if there is none.

        :raise BaselineError: it is something else.
        """
        return Table(self.source, self.right(key, self.data.get(key, {}), dict), (*self.keys, key))

    def tables(self, key: str) -> Iterator[Table]:
        """Yield each of a list of tables; nothing if there is none.

        :raise BaselineError: it is something else.
        """
        for number, data in enumerate(self.right(key, self.data.get(key, []), list)):
            yield Table(self.source, self.right(key, data, dict), (*self.keys, f"{key}[{number}]"))

    def values(self, type_: type[_Value]) -> dict[str, _Value]:
        """Return all of it, each value of this type.

        :raise BaselineError: one is not.
        """
        return {key: self.right(key, value, type_) for key, value in self.data.items()}


def document(data: bytes, source: Source) -> Table:
    """Parse a file.

    :raise BaselineError: it is too long, no UTF-8, in conflict or no TOML.
    """
    if len(data) > LIMIT:
        raise source.error(f"it has more than {LIMIT >> 20} MiB, which no baseline has")
    conflict = _CONFLICT.search(data)
    if conflict:
        raise source.error(f"line {_line(data, conflict.start())}: a merge conflict is left in it")
    try:
        return Table(source, tomllib.loads(data.decode()))
    except UnicodeDecodeError as error:
        raise source.error(f"line {_line(data, error.start)}: it is not UTF-8") from error
    # Numbers of thousands of digits and lists in lists by the hundred end in these two.
    except (ValueError, RecursionError) as error:
        raise source.error(f"it is cut short or no TOML: {safe(str(error))}") from error


def _line(data: bytes, offset: int) -> int:
    return data.count(b"\n", 0, offset) + 1
