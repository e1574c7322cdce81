"""GitHub's runner as far as it takes commands out of a log (actions/runner, ActionCommand.cs)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

__all__ = ("Command", "commands")

NAMES = ("error", "warning", "notice", "debug", "add-mask", "group", "endgroup", "echo", "stop-commands", "add-matcher")


class Command(NamedTuple):
    name: str
    properties: dict[str, str]
    message: str


def commands(lines: Iterable[str]) -> list[Command]:
    """What the runner would do, ``stop-commands`` heeded."""
    return list(_commands(lines))


def _commands(lines: Iterable[str]) -> Iterator[Command]:
    word = ""
    for line in lines:
        found = _parsed(line, (*NAMES, word) if word else NAMES)
        if found is None:
            continue
        if word:
            word = "" if found.name == word else word
        elif found.name == "stop-commands":
            word = found.message
        else:
            yield found
    assert not word, "commands are never taken again"


def _parsed(line: str, names: Iterable[str]) -> Command | None:
    """The newer form begins the line, but for white space; the older may stand anywhere in it."""
    newer = re.match(r"\s*::(?P<name>[^ :]*)(?: (?P<properties>.*?))?::(?P<message>.*)", line)
    older = re.search(r"##\[(?P<name>[^ \]]*)(?: (?P<properties>[^]]*))?\](?P<message>.*)", line)
    found = newer or older
    if found is None or found["name"] not in names:
        return None
    pairs = (pair.split("=", 1) for pair in (found["properties"] or "").split(",") if "=" in pair)
    return Command(found["name"], {key: _unescaped(value) for key, value in pairs}, _unescaped(found["message"]))


def _unescaped(value: str) -> str:
    return re.sub("%(0D|0A|3A|2C|25)", lambda code: chr(int(code[1], 16)), value)
