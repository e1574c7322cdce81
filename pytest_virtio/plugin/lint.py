"""``--virtio-lint``: the rules of the specification, checked where a test that passed leaves its VMs.

Responsible for when that is, and for the test's failure; must not know a rule. A VM is checked at the end of the test's
body, or where a ``with virtio_factory(...)`` block in the body ends it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING

import pytest

from pytest_virtio.errors import VirtioAssertionError, VirtioError
from pytest_virtio.plugin.session import started_session

if TYPE_CHECKING:
    from pytest_virtio.handle import Virtio

__all__ = ("check", "pytest_runtest_call")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Check what runs when the body has passed.

    :raises VirtioAssertionError: naming what is broken; the test fails by it.
    """
    result = yield
    session = started_session(item.config)
    if session is not None and session.settings.lint:
        check(session.vms_of(item))
    return result


def check(vms: Iterable[Virtio]) -> None:
    """Check every device of these VMs.

    :raises VirtioAssertionError: naming each broken rule, with its device and section.
    """
    lines = [f"{id}: {line}" for virtio in vms for id, found in _broken(virtio).items() for line in found]
    if lines:
        count = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        raise VirtioAssertionError("\n  ".join([f"--virtio-lint: {lines[0]}{count}", *lines[1:]]))


def _broken(virtio: Virtio) -> dict[str, list[str]]:
    """The broken rules by device; none of a VM that can't be asked any more."""
    try:
        return virtio.broken_rules()
    except VirtioError:
        return {}
