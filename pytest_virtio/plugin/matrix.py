"""The matrix: a test is run once for each combination of machines, transports, guests, kernels, properties and QEMUs.

Responsible for which axes a test has, as its marks and the run's options say together, and for its parameters and ids;
must not know how an axis is written or what a variant does to a VM.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from pytest_virtio.errors import UsageError, VirtioError
from pytest_virtio.plugin import qemus
from pytest_virtio.plugin.axes import KEYWORDS, Axes, Point, Variant, authors_axes, id_of, value_in, variants
from pytest_virtio.plugin.marker import Marked, marked
from pytest_virtio.plugin.session import VirtioSession, virtio_session

if TYPE_CHECKING:
    from pytest_virtio.vm.capabilities import Capabilities

__all__ = ("check_seen", "pytest_generate_tests", "variant_of")

_VARIANT = "virtio_variant"
_OVERRIDDEN_BY = {"machine": "virtio_machine", "guest": "virtio_guest"}
"""Fixtures of the user's that have the last word on an axis."""


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a virtio test in each of its variants, on each of its QEMUs; last, so that what marks and other hooks choose
    is seen, and ids begin with what its author parametrised.

    :raises Collector.CollectError: for a matrix that can't be, naming the test, and when test ids can't tell the QEMUs
        apart.
    """
    try:
        _vary(metafunc)
        _spread(metafunc)
    except UsageError as error:
        raise pytest.Collector.CollectError(str(error)) from None


def variant_of(item: pytest.Item) -> Variant:
    """The variant that a test is run in; empty where nothing is varied."""
    found: Variant = getattr(getattr(item, "callspec", None), "params", {}).get(_VARIANT, ())
    return found


def check_seen(item: pytest.Item) -> None:
    """Refuse a test that would run once, because pytest could not see before the run that a matrix concerns it.

    :raises UsageError: naming the remedy.
    """
    import unittest

    unit = isinstance(item, pytest.Function) and item.cls is not None and issubclass(item.cls, unittest.TestCase)
    seen = qemus.is_ours(item, "virtio") and not unit
    if not seen and (marked(item).matrix or virtio_session(item.config).settings.matrix):
        raise UsageError(
            "pytest could not see before the run that a matrix concerns this test. If it asks by "
            'request.getfixturevalue(), add @pytest.mark.usefixtures("virtio"); a unittest.TestCase takes no matrix'
        )


def _vary(metafunc: pytest.Metafunc) -> None:
    test = metafunc.definition
    if not qemus.is_ours(test, "virtio") or not qemus.is_ours(test, _VARIANT) or _says_itself(test):
        return
    with _naming(test):
        axes = _axes(test, virtio_session(metafunc.config))
        runs = _without_idle_kernels(variants(axes), test) if axes else []
    if runs:
        metafunc.parametrize(_VARIANT, runs, ids=[id_of(run) for run in runs], indirect=True)


def _spread(metafunc: pytest.Metafunc) -> None:
    if not qemus.is_open(metafunc):
        return
    session = virtio_session(metafunc.config)
    with _naming(metafunc.definition):
        own = qemus.authors(_marked_qemus(metafunc.definition))
    if own or len(session.settings.qemu) > 1:
        given = own or session.settings.qemu
        metafunc.parametrize("virtio_qemu", given, ids=session.qemu_ids(given), indirect=True)


@contextmanager
def _naming(test: pytest.Item) -> Iterator[None]:
    """Let an error say where the test is, for pytest doesn't of one at collection."""
    try:
        yield
    except UsageError as error:
        path, line, name = test.location
        raise UsageError(f"{path}:{(line or 0) + 1}: {name}: {error}") from None


def _marked_qemus(test: pytest.Item) -> object:
    """The author's axis of QEMUs, for a test whose VM the marks declare; None where there is none."""
    ours = qemus.is_ours(test, "virtio") and not _says_itself(test)
    return marked(test).matrix.get("qemu") if ours else None


def _says_itself(test: pytest.Item) -> bool:
    """Whether the test's marks are wrong in what is no matrix: then it fails at its own line, and the others run."""
    try:
        marked(test)
    except UsageError:
        return not any("matrix" in mark.kwargs for mark in test.iter_markers("virtio"))
    return False


def _axes(test: pytest.Item, session: VirtioSession) -> Axes:
    """What is varied of a test: the author's axes, and those of the run that he has not settled.

    :raises UsageError: for an axis that the test can't have.
    """
    said = marked(test)
    open_to_options = {axis: points for axis, points in session.settings.matrix.items() if axis not in said.options}
    axes = {**open_to_options, **authors_axes(said.matrix)}
    settled = [axis for axis, name in _OVERRIDDEN_BY.items() if not qemus.is_ours(test, name)]
    axes = {axis: points for axis, points in axes.items() if axis not in settled}
    return _of_devices(axes, test, said, session) if set(axes) - set(KEYWORDS) else axes


def _of_devices(axes: Axes, test: pytest.Item, said: Marked, session: VirtioSession) -> Axes:
    """The axes without properties that only the run's option varies and that no device of the test has."""
    if not qemus.is_ours(test, "virtio_devices"):
        # What they are is seen when the test is run.
        return axes
    transports = [point.value for point in axes.get("transport", ())] or [said.options.get("transport", "pci")]
    known = _known(test, session)
    return {
        axis: points
        for axis, points in axes.items()
        if axis in KEYWORDS or not known or _has_taker(points[0], said.devices, known, transports)
    }


def _known(test: pytest.Item, session: VirtioSession) -> list[Capabilities]:
    """What the QEMUs of a test can do; one that is missing will say so when the test is run."""
    known = []
    for qemu in qemus.authors(_marked_qemus(test)) or session.settings.qemu:
        try:
            known.append(session.capabilities(qemu.program))
        except (VirtioError, OSError):
            continue
    return known


def _has_taker(point: Point, devices: Sequence[Any], known: Sequence[Capabilities], transports: Sequence[str]) -> bool:
    """Whether a device has the property that is varied.

    :raises UsageError: when none has, and the author varies it or no other device has it either.
    """
    from pytest_virtio.plugin.variants import check_axis, is_property

    refused = None
    for one in known:
        try:
            check_axis(point.axis, devices, one, transports)
        except UsageError as error:
            refused = error
        else:
            return True
    if refused and (point.authors or not any(is_property(point.axis, one) for one in known)):
        raise refused
    return False


def _without_idle_kernels(runs: Sequence[Variant], test: pytest.Item) -> list[Variant]:
    """The variants, each once, without the kernel where the guest boots none, or one of its own that the run's option
    must not replace.

    :raises UsageError: when the author varies the kernel and no guest of the test boots one.
    """
    from pytest_virtio.plugin.variants import has_kernel

    if not any(point.axis == "kernel" for point in runs[0]) or not qemus.is_ours(test, "virtio_guest"):
        return list(runs)
    guest = marked(test).options.get("guest") or virtio_session(test.config).default_guest

    def keeps(point: Point, run: Variant) -> bool:
        return point.axis != "kernel" or has_kernel(value_in(run, "guest", guest), own=point.authors)

    kept = {id_of(left): left for left in (tuple(point for point in run if keeps(point, run)) for run in runs)}
    if not any(point.axis == "kernel" for run in kept.values() for point in run) and _authors(runs[0], "kernel"):
        raise UsageError(f'matrix: kernel: guest={guest!r} boots no kernel: add guest="linux"')
    return [run for run in kept.values() if run]


def _authors(run: Variant, axis: str) -> bool:
    return any(point.axis == axis and point.authors for point in run)
