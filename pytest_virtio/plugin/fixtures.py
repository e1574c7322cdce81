"""The fixtures: ``virtio``, ``virtio_factory`` and the small ones that a conftest may override.

Responsible for scopes, for what each fixture gives and for its parameters; must not know how a VM comes to be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_virtio.errors import UsageError
from pytest_virtio.plugin.axes import Variant, value_in
from pytest_virtio.plugin.marker import marked
from pytest_virtio.plugin.matrix import check_seen
from pytest_virtio.plugin.options import GivenQemu
from pytest_virtio.plugin.session import virtio_session

if TYPE_CHECKING:
    from pytest_virtio.handle import Virtio
    from pytest_virtio.plugin.factory import VirtioFactory

__all__ = (
    "virtio",
    "virtio_devices",
    "virtio_factory",
    "virtio_guest",
    "virtio_machine",
    "virtio_qemu",
    "virtio_variant",
)

_UNKNOWN_AT_COLLECTION = (
    "--virtio-qemu was given several times, and pytest could not see before the run that this test needs a QEMU. "
    'If it asks by request.getfixturevalue(), add @pytest.mark.usefixtures("virtio_qemu"); '
    "a unittest.TestCase or a doctest runs on one: give a single --virtio-qemu"
)


@pytest.fixture(scope="session")
def virtio_qemu(request: pytest.FixtureRequest) -> str | Path:
    """The QEMU binary, a path or a name as ``--virtio-qemu`` takes it. Override it to choose another.

    Where several were given it is each in turn, as its parameter.
    """
    if hasattr(request, "param"):
        param: GivenQemu | str | Path = request.param
        return param.program if isinstance(param, GivenQemu) else param
    first, *others = virtio_session(request.config).settings.qemu
    if others:
        raise UsageError(_UNKNOWN_AT_COLLECTION)
    return first.program


@pytest.fixture
def virtio_devices(request: pytest.FixtureRequest) -> Sequence[Any]:
    """The declared devices: the marker's. Override it to declare them in another way."""
    return marked(request.node).devices


@pytest.fixture
def virtio_variant(request: pytest.FixtureRequest) -> Variant:
    """The values that this run of the test has of what is varied, as its parameter; empty where nothing is."""
    variant: Variant = getattr(request, "param", ())
    return variant


@pytest.fixture
def virtio_guest(request: pytest.FixtureRequest, virtio_variant: Variant) -> Any:
    """The guest: the marker's, or None for the run's own (``--virtio-guest``). Override it to choose another."""
    return value_in(virtio_variant, "guest", marked(request.node).options.get("guest"))


@pytest.fixture
def virtio_machine(request: pytest.FixtureRequest, virtio_variant: Variant) -> str | None:
    """The machine type: the marker's, or None for the run's own (``--virtio-machine``). Override it for another."""
    machine: str | None = value_in(virtio_variant, "machine", marked(request.node).options.get("machine"))
    return machine


@pytest.fixture(scope="session")
def virtio_factory(pytestconfig: pytest.Config, virtio_qemu: str | Path) -> VirtioFactory:
    """Boots VMs of any scope: ``with virtio_factory(Net(), guest="linux") as virtio:``."""
    from pytest_virtio.plugin.factory import VirtioFactory

    return VirtioFactory(virtio_session(pytestconfig), virtio_qemu)


@pytest.fixture
def virtio(
    request: pytest.FixtureRequest,
    virtio_qemu: str | Path,
    virtio_factory: VirtioFactory,
    virtio_devices: Sequence[Any],
    virtio_guest: Any,
    virtio_machine: str | None,
    virtio_variant: Variant,
) -> Iterator[Virtio]:
    """The VM that the test's marker declares, its guest up and its devices at DRIVER_OK; gone after the test."""
    from pytest_virtio.plugin.factory import skipping
    from pytest_virtio.plugin.variants import varied

    check_seen(request.node)
    session = virtio_session(request.config)
    options = {**marked(request.node).options, "guest": virtio_guest, "machine": virtio_machine}
    if not virtio_devices:
        raise UsageError("no virtio device is declared: put @pytest.mark.virtio(Net(), …) on the test")
    with ExitStack() as stack:
        with skipping(session, varied=bool(virtio_variant)):
            devices, options = varied(virtio_variant, virtio_devices, options, session, virtio_qemu)
            handle = stack.enter_context(virtio_factory(*devices, **options))
        yield handle
