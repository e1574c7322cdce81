"""One start of a QEMU, without a guest, which shows that it runs and on whose files. It must not know how the QEMU was
made; it ends the process that it starts."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

from pytest_virtio.errors import MissingError

__all__ = ("check",)

_SECONDS = 60
# A machine with its firmware, a device with its option ROM, the accelerator's module; -S: no processor runs.
_ARGUMENTS = ("-M", "q35", "-accel", "tcg", "-S", "-nodefaults", "-display", "none")
_DEVICE = ("-netdev", "hubport,id=net,hubid=0", "-device", "virtio-net-pci,netdev=net")
_UNLOADED = "failed to open module:"  # util/module.c, in 7.2 and 11.1 alike


def check(program: Path, home: Path, *, whole: bool) -> None:
    """Start QEMU, let it load every module that has a device type in it, and look at what it has loaded.

    :param home: all code must come from below.
    :param whole: whether every virtio device type must be there, too, with all its modules.
    :raise MissingError: it doesn't start or doesn't answer in time, can't load a module, or runs code from elsewhere.
    """
    said: list[str] = []
    with _started(program) as qemu:
        _ask(qemu, said, "qmp_capabilities")
        types = [entry["name"] for entry in _ask(qemu, said, "qom-list-types", implements="device", abstract=False)]
        for name in (name for name in types if whole and name.startswith(("virtio-", "vhost-"))):
            _ask(qemu, said, "device-list-properties", typename=name)
        outside = [path for path in _code_of(qemu.pid) if not path.is_relative_to(home.resolve())]
    if outside:
        raise MissingError(f"{program} runs code that did not come with it: {', '.join(map(str, outside))}")
    unloaded = [line for line in said if _UNLOADED in line]
    if unloaded:
        raise MissingError("\n".join((f"{program} can't load modules that came with it:", *unloaded)))


@contextlib.contextmanager
def _started(program: Path) -> Iterator[subprocess.Popen[str]]:
    command = [str(program), *_ARGUMENTS, *_DEVICE, "-qmp", "stdio"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        deadline = threading.Timer(_SECONDS, process.kill)
        deadline.start()
        try:
            yield process
        finally:
            deadline.cancel()
            process.kill()
            # What QEMU did not live to read would be written now.
            with contextlib.suppress(BrokenPipeError):
                cast(IO[str], process.stdin).close()


def _ask(qemu: subprocess.Popen[str], said: list[str], command: str, **arguments: object) -> Any:
    """QEMU's answer; lines that are none are added to what was said."""
    question, answers = cast(IO[str], qemu.stdin), cast(IO[str], qemu.stdout)
    with contextlib.suppress(BrokenPipeError):
        question.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        question.flush()
    for line in answers:
        answer = _parsed(line)
        if "return" in answer:
            return answer["return"]
        said.append(line.strip())
        if "error" in answer:
            break
    raise MissingError("\n".join((f"{_shown(qemu, command, arguments)}; it said:", *said[-8:])))


def _shown(qemu: subprocess.Popen[str], command: str, arguments: Mapping[str, object]) -> str:
    question = " ".join((command, *map(str, arguments.values())))
    return f"{' '.join(cast(list[str], qemu.args))}: no answer to {question} within {_SECONDS} s"


def _parsed(line: str) -> dict[str, Any]:
    """QEMU's own messages are among its answers."""
    with contextlib.suppress(ValueError):
        return dict(json.loads(line))
    return {}


def _code_of(pid: int) -> list[Path]:
    """The files that the process has mapped as code, each once."""
    lines = [line.split(maxsplit=5) for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    named = (words for words in lines if len(words) == 6 and words[5].startswith("/"))
    return list({Path(words[5]): None for words in named if "x" in words[1]})
