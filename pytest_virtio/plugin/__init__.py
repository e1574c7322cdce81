"""The pytest plugin: hooks, options, fixtures, assertion texts and reports.

Responsible for everything that pytest sees of us; must not know how anything is done. Loading it costs a run that
does not use it next to nothing: whatever is heavier than pytest itself is imported when a VM is asked for.
"""

from pytest_virtio.plugin.artifacts import pytest_sessionstart
from pytest_virtio.plugin.assertions import pytest_assertrepr_compare
from pytest_virtio.plugin.fixtures import (
    virtio,
    virtio_devices,
    virtio_factory,
    virtio_guest,
    virtio_machine,
    virtio_qemu,
    virtio_variant,
)
from pytest_virtio.plugin.lint import pytest_runtest_call
from pytest_virtio.plugin.makers import pytest_fixture_setup
from pytest_virtio.plugin.marker import pytest_runtest_setup
from pytest_virtio.plugin.matrix import pytest_generate_tests
from pytest_virtio.plugin.options import pytest_addoption, pytest_configure
from pytest_virtio.plugin.reports import pytest_runtest_makereport
from pytest_virtio.plugin.summary import (
    pytest_report_collectionfinish,
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_testnodedown,
    pytest_unconfigure,
)

__all__ = (
    # Fixtures
    "virtio",
    "virtio_devices",
    "virtio_factory",
    "virtio_guest",
    "virtio_machine",
    "virtio_qemu",
    "virtio_variant",
    # Hooks
    "pytest_addoption",
    "pytest_assertrepr_compare",
    "pytest_configure",
    "pytest_fixture_setup",
    "pytest_generate_tests",
    "pytest_report_collectionfinish",
    "pytest_runtest_call",
    "pytest_runtest_makereport",
    "pytest_runtest_setup",
    "pytest_sessionfinish",
    "pytest_sessionstart",
    "pytest_terminal_summary",
    "pytest_testnodedown",
    "pytest_unconfigure",
)
