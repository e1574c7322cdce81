"""Where the recipes are that came with this plugin. It must not know what stands in them."""

from __future__ import annotations

from pathlib import Path

from pytest_virtio.errors import MissingError

__all__ = ("recipe_directory",)


def recipe_directory(name: str) -> Path:
    """``images/<name>`` in the installed package, or beside the package in a checkout.

    :raise MissingError: the installation lacks it.
    """
    package = Path(__file__).parents[1]
    for directory in (package / "images" / name, package.parent / "images" / name):
        if (directory / "recipe.toml").is_file():
            return directory
    raise MissingError(f"no images/{name}/recipe.toml in {package} or beside it: install pytest-virtio again")
