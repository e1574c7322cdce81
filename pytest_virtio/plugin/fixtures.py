"""The fixtures: ``virtio``, ``virtio_factory`` and the small ones that a conftest may override.

Responsible for scopes and for what each fixture gives; must not know how a VM comes to be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_virtio.errors import UsageError
from pytest_virtio.plugin.marker import marked
from pytest_virtio.plugin.session import virtio_session

if TYPE_CHECKING:
    from pytest_virtio.handle import Virtio
    from pytest_virtio.plugin.factory import VirtioFactory

__all__ = ("virtio", "virtio_devices", "virtio_factory", "virtio_guest", "virtio_machine", "virtio_qemu")


@pytest.fixture(scope="session")
def virtio_qemu(pytestconfig: pytest.Config) -> str | Path:
    """The QEMU binary, a path or a name on PATH: ``--virtio-qemu``. Override it to choose another."""
    return virtio_session(pytestconfig).settings.qemu


@pytest.fixture
def virtio_devices(request: pytest.FixtureRequest) -> Sequence[Any]:
    """The declared devices: the marker's. Override it to declare them in another way."""
    return marked(request.node).devices


@pytest.fixture
def virtio_guest(request: pytest.FixtureRequest) -> Any:
    """The guest: the marker's, or None for the run's own (``--virtio-guest``). Override it to choose another."""
    return marked(request.node).options.get("guest")


@pytest.fixture
def virtio_machine(request: pytest.FixtureRequest) -> str | None:
    """The machine type: the marker's, or None for the run's own (``--virtio-machine``). Override it for another."""
    machine: str | None = marked(request.node).options.get("machine")
    return machine


@pytest.fixture(scope="session")
def virtio_factory(pytestconfig: pytest.Config, virtio_qemu: str | Path) -> VirtioFactory:
    """Boots VMs of any scope: ``with virtio_factory(Net(), guest="linux") as virtio:``."""
    from pytest_virtio.plugin.factory import VirtioFactory

    return VirtioFactory(virtio_session(pytestconfig), virtio_qemu)


@pytest.fixture
def virtio(
    request: pytest.FixtureRequest,
    virtio_factory: VirtioFactory,
    virtio_devices: Sequence[Any],
    virtio_guest: Any,
    virtio_machine: str | None,
) -> Iterator[Virtio]:
    """The VM that the test's marker declares, its guest up and its devices at DRIVER_OK; gone after the test."""
    options = {**marked(request.node).options, "guest": virtio_guest, "machine": virtio_machine}
    if not virtio_devices:
        raise UsageError("no virtio device is declared: put @pytest.mark.virtio(Net(), …) on the test")
    with virtio_factory(*virtio_devices, **options) as handle:
        yield handle
