"""A run's outcome in Markdown, as GitHub shows it with a job.

Responsible for its layout and size, and that no text of a guest or test is taken for Markdown or HTML; must not know
where it is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_virtio.render.text import escape, safe

__all__ = ("FailedTest", "job_summary")

_REPORT_LIMIT = 64 * 1024
_LINES = 50
_ACTIVE = re.compile(r"[!-'*.:-@[-`{-~]")
"""All punctuation but ``( ) + , - /``, which mean nothing within a line."""
_NOTES_BYTES = 500
"""Room for what says that something was left out."""


@dataclass(frozen=True, slots=True)
class FailedTest:
    """A test that failed: its id, what is wrong in a line, all that is known."""

    name: str
    verdict: str
    report: str


def job_summary(totals: str, ran_on: Sequence[str], failed: Sequence[FailedTest], limit: int) -> str:
    """The outcome of a run, and each failure's report folded below it.

    :param ran_on: what tests ran on, a line each.
    :param limit: how many bytes it may have in UTF-8; where reports don't fit, it says how many are left out.
    """
    lines = [f"* {_literal(line)}\n" for line in ran_on[:_LINES]]
    head = f"## virtio tests\n\n{_literal(totals)}\n\n{''.join(lines)}{_more(len(ran_on) - len(lines), 'lines')}"
    room = limit - _NOTES_BYTES - _size(head)
    rows = _fitting((f"| {_literal(test.name)} | {_literal(test.verdict)} |\n" for test in failed), room // 2)
    table = ["\n| test | what is wrong |\n|---|---|\n", *rows] if rows else []
    reports = _fitting((_folded(test) for test in failed), room - sum(map(_size, table)))
    left_out = _more(len(failed) - len(rows), "failed tests"), _more(len(failed) - len(reports), "reports")
    return "".join([head, *table, left_out[0], *reports, left_out[1], "\n"]) if room > 0 else ""


def _fitting(blocks: Iterable[str], room: int) -> list[str]:
    """The first of them; those after are not made."""
    kept: list[str] = []
    for block in blocks:
        room -= _size(block)
        if room < 0:
            break
        kept.append(block)
    return kept


def _size(text: str) -> int:
    return len(text.encode())


def _more(count: int, what: str) -> str:
    return f"\nand {count} more {what}, left out for GitHub's limit of 1 MiB: the log has them\n" if count > 0 else ""


def _folded(test: FailedTest) -> str:
    text = escape(test.report, _REPORT_LIMIT, keep="head")
    # A block is closed by a fence that is no shorter than its own.
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"\n<details><summary>{_literal(test.name)}</summary>\n\n{fence}text\n{text}\n{fence}\n\n</details>\n"


def _literal(text: str) -> str:
    """In a line, as it is: a character reference is never taken for structure, neither Markdown's nor HTML's, and in
    ``<code>`` GitHub makes no links of names and numbers."""
    return f"<code>{_ACTIVE.sub(lambda found: f'&#{ord(found[0])};', safe(text))}</code>"
