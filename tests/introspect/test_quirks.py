"""What is known of QEMU releases that no probe shows."""

from __future__ import annotations

import signal

import pytest

from pytest_virtio.introspect.quirks import known_ends


def test_an_end_that_is_known_has_a_next_step() -> None:
    ((code, said),) = known_ends("7.2.22", "tcg", ["vunet0", "vunet1"]).items()
    assert code == -signal.SIGSEGV
    assert said.startswith("QEMU 7.2.22 is known to end so at DRIVER_OK of a vhost-user network card with MSI-X")
    assert said.endswith(": declare vunet0 and vunet1 with vectors=0")


@pytest.mark.parametrize(
    ("version", "accelerator", "cards"),
    [("7.2.22", "tcg", []), ("7.2.22", "kvm", ["vunet0"]), ("8.0.0", "tcg", ["vunet0"]), ("11.1", "tcg", ["vunet0"])],
)
def test_one_that_is_not_known_has_none(version: str, accelerator: str, cards: list[str]) -> None:
    assert known_ends(version, accelerator, cards) == {}
