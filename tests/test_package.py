"""What is shipped and what is public."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

import pytest_virtio
from pytest_virtio.provision.linux import recipe

SOURCE = ast.parse(Path(pytest_virtio.__file__).read_text())


def test_the_recipes_are_shipped() -> None:
    assert "linux-image-amd64" in recipe().kernels


def test_the_suite_runs_against_what_is_installed() -> None:
    """A wheel that lacks a file would go unnoticed if the checkout stood in for it."""
    distribution = metadata.distribution("pytest-virtio")
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        pytest.skip("an editable installation is the checkout itself")
    installed = Path(str(distribution.locate_file("pytest_virtio")))
    assert Path(pytest_virtio.__file__).parent == installed
    assert (installed / "images" / "linux" / "recipe.toml").is_file()
    assert (installed / "py.typed").is_file()


def test_every_public_name_is_there_documented_and_listed_once() -> None:
    imported = {
        alias.name
        for node in ast.walk(SOURCE)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("pytest_virtio")
        for alias in node.names
    }
    assert set(pytest_virtio.__all__) == imported == set(pytest_virtio._HOME_OF)
    assert len(pytest_virtio.__all__) == len(set(pytest_virtio.__all__))
    undocumented = [name for name in pytest_virtio.__all__ if not getattr(pytest_virtio, name).__doc__]
    assert undocumented == []
    assert set(pytest_virtio.__all__) <= set(dir(pytest_virtio))


def test_no_file_has_the_marks_of_a_merge() -> None:
    checkout = Path(__file__).parents[1]
    if not (checkout / ".git").exists():
        pytest.skip("which files are ours is known in a checkout only")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=checkout, stdout=subprocess.PIPE, check=True).stdout
    names = [os.fsdecode(name) for name in listed.split(b"\0") if name]
    marks = re.compile(rb"^(<{7} .*|>{7} .*|={7})$", re.MULTILINE)
    assert names
    assert [
        name for name in names if (checkout / name).is_file() and marks.search((checkout / name).read_bytes())
    ] == []


def test_another_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nett'"):
        _ = pytest_virtio.Nett
