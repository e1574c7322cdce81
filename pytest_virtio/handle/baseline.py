"""What ``assert_baseline`` needs of whoever keeps baselines.

Responsible for that interface alone: the handle must not know tests, nor where their files are.
"""

from __future__ import annotations

from typing import Protocol

from pytest_virtio.errors import NotSupportedError, UsageError
from pytest_virtio.model.profile import Profile

__all__ = ("Baselines", "assert_baseline")


class Baselines(Protocol):
    """Knows the baselines of the test that runs now, and what to do with them."""

    def check(self, profile: Profile, name: str, *, whole: bool) -> None:
        """Compare a profile with the baseline, or note that it is to be that.

        :param name: which of several baselines of the test.
        :param whole: whether it is all of a VM's devices.
        :raises VirtioAssertionError: when it differs, or there is no baseline.
        :raises BaselineError: for a file that is none.
        :raises UsageError: when the test has given another profile of a device by this name.
        """


def assert_baseline(baselines: Baselines | None, profile: Profile, name: str, *, whole: bool) -> None:
    """Have a profile checked.

    :raises NotSupportedError: when nobody keeps baselines: this VM was not booted by a fixture.
    :raises UsageError: for what is no name; and what :meth:`Baselines.check` raises.
    """
    if not isinstance(name, str):
        raise UsageError(f"name={name!r}: a text is expected that tells this baseline of the test from its others")
    if baselines is None:
        raise NotSupportedError("a baseline belongs to a test: this VM was not booted by virtio or virtio_factory")
    baselines.check(profile, name, whole=whole)
