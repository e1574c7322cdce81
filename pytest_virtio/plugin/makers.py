"""Which fixture makes a VM, and so which tests the VM concerns.

Responsible for knowing the fixtures that are being set up, and those that a test has; must not know what a VM is. The
only module that looks into pytest's requests.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

__all__ = ("concerns", "pytest_fixture_setup", "setting_up")

_STACK = pytest.StashKey[list[str]]()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Note the name of the fixture while it is set up."""
    __tracebackhide__ = True
    stack = request.config.stash.setdefault(_STACK, [])
    stack.append(fixturedef.argname)
    try:
        return (yield)
    finally:
        stack.pop()


def setting_up(config: pytest.Config) -> frozenset[str]:
    """The names of the fixtures that are being set up; none in a test's body."""
    return frozenset(config.stash.get(_STACK, ()))


def concerns(makers: frozenset[str], item: pytest.Item) -> bool:
    """Whether what these fixtures made is among what the test has; what no fixture made may be anybody's."""
    request = getattr(item, "_request", None)
    names = getattr(request if request is not None else item, "fixturenames", ())
    return not makers or not makers.isdisjoint(names)
