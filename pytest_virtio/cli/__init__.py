"""The ``pytest-virtio`` command.

Responsible for finding the verb and for the exit status of its errors; must not know what a verb does.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from pytest_virtio.cli import differ, info, machine, show
from pytest_virtio.errors import UsageError, VirtioError

__all__ = ("main",)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status: 0 when all is well, 1 when something is missing, 2 for wrong arguments."""
    chosen = _parser().parse_args(arguments)
    act: Callable[[argparse.Namespace], int] = chosen.act
    try:
        status = act(chosen)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who reads has seen enough, as head does. Python flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except UsageError as error:
        print(f"pytest-virtio: {error}", file=sys.stderr)
        return 2
    except VirtioError as error:
        print(f"pytest-virtio: {error}", file=sys.stderr)
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("pytest-virtio", description="What virtio tests need, and what is left of them.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    machine.add_commands(commands)
    show.add_commands(commands)
    differ.add_commands(commands)
    info.add_commands(commands)
    return parser
