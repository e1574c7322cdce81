"""memory: peak memory of the pytest process that runs one test with a Linux VM, against the same run without the VM.

The peak is VmHWM of the pytest process itself, read at its exit: QEMU and the janitor are processes of their own.
(``ru_maxrss`` of a child would not do: it counts grandchildren, and what the parent had before exec.) No aim is set.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from figures import Figure, difference, ratio
from harness import interleaved, run_pytest, suite

__all__ = ("measure",)

PAIRS = 3
CONFTEST = """
import atexit, os, pathlib, re

def note():
    status = pathlib.Path("/proc/self/status").read_text()
    pathlib.Path("peak").write_text(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])

atexit.register(note)
"""
WITH_VM = """
import pytest
from pytest_virtio import Blk, Net, Rng

@pytest.mark.virtio(Net(), Blk(), Rng(), guest="linux", timeout=120)
def test_vm(virtio):
    virtio["net0"].assert_driver_ok()
"""
WITHOUT_VM = """
def test_no_vm():
    pass
"""


def measure(pairs: int = PAIRS) -> list[Figure]:
    """Run both tests, in turn."""
    with suite(conftest=CONFTEST, test_vm=WITH_VM, test_no_vm=WITHOUT_VM) as directory:
        ours, bare = interleaved(
            "memory", pairs, partial(_peak, directory, "test_vm.py"), partial(_peak, directory, "test_no_vm.py")
        )
    return [ratio("memory", ours, bare, "MiB"), difference("memory, added", ours, bare, "MiB")]


def _peak(directory: Path, test: str) -> float:
    """In MiB."""
    run_pytest(directory, test)
    return int((directory / "peak").read_text()) / 1024
