"""Packages installed into the system by root, as a person would. It must not know what they are for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .apt import checked

__all__ = ("install",)

_INSTALL_SECONDS = 1800


def install(packages: Sequence[str], progress: Callable[[str], None]) -> None:
    """Have apt-get install these, by name or by apt's patterns.

    :raise MissingError: it fails; its last words are in the message.
    """
    progress(f"apt-get install {' '.join(packages)}")
    for arguments in (("update", "-q"), ("install", "-q", "-y", "--no-install-recommends", *packages)):
        checked(("apt-get", *arguments), _INSTALL_SECONDS, tell=lambda elapsed: progress(f"{elapsed:.0f} s so far"))
