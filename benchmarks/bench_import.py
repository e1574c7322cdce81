"""import: what the installed plugin adds to a pytest run that doesn't use it.

Compared: pytest over one trivial test with the plugin loaded, and with ``-p no:virtio``. pytest plugins that come with
our dependencies (platformdirs has one) are ours to answer for: they are blocked in the baseline too. All others are
blocked in both, so that nothing of ours is already there on their account. Three figures: the difference of the clock,
of CPU time, and, by ``-X importtime``, the self times of all modules that are imported only because of the plugin.
Aim: less than 10 ms.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution, entry_points
from pathlib import Path

from figures import Figure, difference, single
from harness import interleaved, run_pytest, suite

__all__ = ("measure",)

PAIRS = 40
AIM = 10.0
SHOWN = 8
TEST = "def test_trivial():\n    pass\n"
IMPORT = re.compile(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", re.MULTILINE)


def measure(pairs: int = PAIRS) -> list[Figure]:
    """Run pytest with and without the plugin, in turn; first by the clock, then with ``-X importtime``."""
    ours = _plugins_of("pytest-virtio") - _plugins_of("pytest")
    strangers = [ep.name for ep in entry_points(group="pytest11") if ep.name not in ours]
    blocked = [word for name in strangers for word in ("-p", f"no:{name}")]
    without = [*blocked, *(word for name in ours for word in ("-p", f"no:{name}"))]
    with suite(test_trivial=TEST) as directory:
        loaded, bare = interleaved(
            "import", pairs, partial(run_pytest, directory, *blocked), partial(run_pytest, directory, *without)
        )
        there, absent = interleaved(
            "importtime", pairs, partial(_imports, directory, blocked), partial(_imports, directory, without)
        )
    return [
        difference("import, clock", [f.wall * 1e3 for f in loaded], [f.wall * 1e3 for f in bare], "ms", AIM),
        difference("import, CPU", [f.cpu * 1e3 for f in loaded], [f.cpu * 1e3 for f in bare], "ms", AIM),
        _added(there, absent),
    ]


def _plugins_of(name: str, seen: set[str] | None = None) -> set[str]:
    """The pytest plugins that installing a distribution brings along, its dependencies' included."""
    seen = set() if seen is None else seen
    if name in seen:
        return set()
    seen.add(name)
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return set()
    needed = [need for need in found.requires or () if "extra ==" not in need]
    names = (re.split(r"[^A-Za-z0-9._-]", need, maxsplit=1)[0].lower() for need in needed)
    plugins = {ep.name for ep in found.entry_points if ep.group == "pytest11"}
    return plugins.union(*(_plugins_of(name, seen) for name in names))


def _imports(directory: Path, arguments: Iterable[str]) -> dict[str, float]:
    """The modules that a run imports, with their self times in milliseconds."""
    stderr = run_pytest(directory, *arguments, python=("-X", "importtime")).stderr
    return {name: int(microseconds) / 1e3 for microseconds, name in IMPORT.findall(stderr)}


def _added(there: list[dict[str, float]], absent: list[dict[str, float]]) -> Figure:
    """The modules that are there with the plugin only, and what they take."""
    extra = [
        {name: took for name, took in ours.items() if name not in bare}
        for ours, bare in zip(there, absent, strict=True)
    ]
    names = set[str]().union(*extra)
    typical = {name: statistics.median(run.get(name, 0.0) for run in extra) for name in names}
    notes = (f"{len(names)} modules, the slowest: {_listed(typical)}", *_by_package(typical))
    return single("import, -X importtime", [sum(run.values()) for run in extra], "ms", AIM, notes)


def _listed(typical: Mapping[str, float]) -> str:
    slowest = sorted(typical.items(), key=lambda item: -item[1])[:SHOWN]
    return ", ".join(f"{name} {took:.1f} ms" for name, took in slowest)


def _by_package(typical: Mapping[str, float]) -> Iterable[str]:
    ours = sum(took for name, took in typical.items() if name.partition(".")[0] == "pytest_virtio")
    yield f"pytest_virtio's own modules {ours:.1f} ms, those of others {sum(typical.values()) - ours:.1f} ms"
