"""The benchmarks: ``python benchmarks/run.py [NAME...]`` in an environment that has pytest-virtio, or ``tox -e bench``.

Responsible for choosing what to measure and for putting it out. Every figure compares two things that are measured
side by side in one run, in turn; the median is held against the aim, and the quartiles say how noisy the machine was.
Nothing is asserted: the exit status is 0 whatever the figures, 1 where a benchmark could not be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path

import bench_backends
import bench_boot
import bench_history
import bench_import
import bench_memory
import bench_observe
import bench_progress
import bench_rings
import bench_scripted
import bench_status
import bench_wire
from figures import Figure, plain, table
from harness import BenchmarkError

from pytest_virtio import VirtioError

BENCHMARKS = {
    "boot": bench_boot,
    "status": bench_status,
    "import": bench_import,
    "memory": bench_memory,
    "scripted": bench_scripted,
    "observe": bench_observe,
    "rings": bench_rings,
    "progress": bench_progress,
    "history": bench_history,
    "wire": bench_wire,
    "backends": bench_backends,
}


def main(words: list[str] | None = None) -> int:
    """Measure, print the table, write the JSON file."""
    options = _parser().parse_args(words)
    figures: list[Figure] = []
    failed = False
    for name in options.names or BENCHMARKS:
        try:
            figures += BENCHMARKS[name].measure(*([options.pairs] if options.pairs else []))
        except (BenchmarkError, VirtioError, OSError, TimeoutError) as error:
            print(f"\n{name}: not measured: {error}", file=sys.stderr)
            failed = True
    where = _where()
    print(", ".join(f"{name} {value}" for name, value in where.items()))
    print(table(figures))
    if options.json:
        report = {"where": where, "figures": [plain(figure) for figure in figures]}
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return int(failed)


def _parser() -> argparse.ArgumentParser:
    described = "\n".join(f"  {(module.__doc__ or '').splitlines()[0]}" for module in BENCHMARKS.values())
    parser = argparse.ArgumentParser(
        description="Measure pytest-virtio against what it stands on, side by side.",
        epilog=f"benchmarks (default: all):\n{described}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", metavar="NAME", nargs="*", type=_name, help="what to measure")
    parser.add_argument("--pairs", metavar="N", type=_count, help="repetitions of each (default: each its own)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all samples there too")
    return parser


def _name(word: str) -> str:
    if word not in BENCHMARKS:
        raise argparse.ArgumentTypeError(f"no benchmark {word!r}; there are {', '.join(BENCHMARKS)}")
    return word


def _count(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"a number from 1 up is expected, not {word!r}")
    return int(word)


def _where() -> dict[str, str]:
    """The machine, as far as it matters to the figures."""
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    return {"python": platform.python_version(), "cpus": str(os.cpu_count()), "load average": load}


if __name__ == "__main__":
    sys.exit(main())
