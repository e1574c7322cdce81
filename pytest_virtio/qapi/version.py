"""``query-version`` and ``query-target``: which QEMU answers, and what it emulates."""

from __future__ import annotations

import re
from typing import Final

from pytest_virtio.qapi.reply import Reply

__all__ = ("QUERY_TARGET", "QUERY_VERSION", "parse_target", "parse_version")

QUERY_VERSION: Final = "query-version"
QUERY_TARGET: Final = "query-target"


def parse_version(reply: object) -> tuple[str, str]:
    """QEMU's version, ``"7.2.22"``, and its packager's, ``"Debian 1:7.2+dfsg-7"`` or ``""``.

    :param reply: the ``return`` member of QEMU's answer.
    :raise ReplyError: it does not say so.
    """
    top = Reply(QUERY_VERSION, reply)
    numbers = top.child("qemu")
    version = ".".join(str(numbers.natural(part)) for part in ("major", "minor", "micro"))
    # Older ones have it in brackets.
    return version, re.sub(r"^\s*\((.*)\)\s*$", r"\1", top.optional("package", str) or "").strip()


def parse_target(reply: object) -> str:
    """The processor that is emulated: ``"x86_64"``.

    :param reply: the ``return`` member of QEMU's answer.
    :raise ReplyError: it does not say so.
    """
    return Reply(QUERY_TARGET, reply).text("arch")
