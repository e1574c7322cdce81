"""``virtio_factory``: VMs by the ``with`` statement, several at a time.

Responsible for a VM's life as a test sees it: ready when the block starts, its report taken when an exception leaves,
gone when the block ends; must not know fixtures.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import pytest

from pytest_virtio.errors import MissingError, NotSupportedError, UsageError, VirtioAssertionError, VirtioError
from pytest_virtio.handle import Virtio
from pytest_virtio.handle.progress import explain_stalls
from pytest_virtio.launch import launch
from pytest_virtio.plugin.carried import carry
from pytest_virtio.plugin.lint import check
from pytest_virtio.plugin.session import VirtioSession, is_scripted

__all__ = ("VirtioFactory", "skipping")

_WORTH_A_REPORT = (Exception, pytest.fail.Exception, SystemExit)
_NO_FAILURE = (pytest.skip.Exception, pytest.xfail.Exception, pytest.exit.Exception)


class VirtioFactory:
    """Boots VMs: ``with virtio_factory(Net(), guest="linux") as virtio:``.

    It takes what the marker takes. When an exception leaves the block, the VM's report shows with the test that fails
    by it. A queue that stood still for as long as ``stall`` says, a vhost-user backend that ended by itself and a
    QEMU that crashed fail the test when the block ends, if no wait or answer of ours could say so before; of the
    ``virtio`` fixture, that is the test's teardown.
    """

    def __init__(self, session: VirtioSession, qemu: str | Path) -> None:
        self._session, self._qemu = session, qemu

    def __call__(self, *devices: Any, **options: Any) -> _Block:
        """A context manager that boots the VM and waits until it is ready.

        :raises UsageError: at once, when the declaration can't be.
        """
        return _Block(self._session, self._qemu, self._session.spec(devices, options))


class _Block:
    """One VM's ``with`` block."""

    def __init__(self, session: VirtioSession, qemu: str | Path, spec: Any) -> None:
        self._session, self._qemu, self._spec = session, qemu, spec
        self._virtio: Virtio | None = None

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{name}: this VM does not run yet: write `with virtio_factory(...) as virtio:`")

    def __getitem__(self, id: str) -> NoReturn:
        raise UsageError(f"[{id!r}]: this VM does not run yet: write `with virtio_factory(...) as virtio:`")

    def __enter__(self) -> Virtio:
        """Boot, and wait until ready.

        :raises VirtioError: when it doesn't get there; the report says where it stands.
        :raises UsageError: when it runs already.
        """
        if self._virtio is not None:
            raise UsageError("this VM runs already: call virtio_factory(...) again for another")
        with skipping(self._session):
            host = self._session.host(self._qemu, halted=is_scripted(self._spec.guest))
            running = launch(self._spec, host, monitor=self._session.settings.monitor)
        try:
            virtio = self._virtio = Virtio(running, self._session.baselines)
            self._session.add(virtio)
            explain_stalls(running)
            running.await_ready()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return virtio

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        virtio, self._virtio = self._virtio, None
        if virtio is None:
            return
        unheard = None
        try:
            # Before others ask, and are told in the test's place.
            unheard = self._unheard(virtio) if error is None else None
            self._session.about_to_end(virtio)
            failure = error or unheard
            if isinstance(failure, _WORTH_A_REPORT) and not isinstance(failure, _NO_FAILURE):
                evidence = virtio.evidence(files=self._session.settings.artifacts is not None)
                carry(failure, evidence.of_ending())
        finally:
            self._session.remove(virtio)
            virtio.close()
        if unheard is not None:
            raise unheard

    def _unheard(self, virtio: Virtio) -> VirtioError | None:
        """What is wrong with a VM though nothing has failed."""
        linted = self._session.settings.lint and self._session.is_of_the_body(virtio)
        return virtio.vm.unheard() or (_breach(virtio) if linted else None)


@contextmanager
def skipping(session: VirtioSession, *, varied: bool = False) -> Iterator[None]:
    """Skip the test for what is missing, where the user says so, and for a combination of a matrix that can't be.

    :param varied: whether there is a matrix.
    """
    try:
        yield
    except (MissingError, NotSupportedError) as error:
        if not (varied if isinstance(error, NotSupportedError) else session.settings.missing == "skip"):
            raise
        # The skip belongs to the test, wherever the VM was asked for.
        raise pytest.skip.Exception(str(error), _use_item_location=True) from None


def _breach(virtio: Virtio) -> VirtioAssertionError | None:
    """What ``--virtio-lint`` finds of a VM that the test's body ends."""
    try:
        check([virtio])
    except VirtioAssertionError as broken:
        return broken
    return None
