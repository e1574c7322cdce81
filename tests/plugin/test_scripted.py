"""The default guest: no image, no probe for KVM, and a report that shows what its drivers did."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_virtio.vm import accelerator

from .conftest import Run


def test_it_is_the_default_and_needs_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_VIRTIO_CACHE", str(tmp_path))
    monkeypatch.setattr(accelerator, "_found_out", lambda *_: pytest.fail("KVM was probed"))
    result = run("""
        @pytest.mark.virtio(Blk(), Rng())
        def test_green(virtio):
            virtio["blk0"].assert_driver_ok()
            virtio.guest.driver("blk0").write(512, b"x" * 512)
            assert virtio.guest.driver("blk0").read(0, 1024) == bytes(512) + b"x" * 512
            assert virtio.guest.driver("rng0").read(8)
    """)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["virtio: QEMU *, accelerator tcg: the CPU of a scripted guest sleeps"])


def test_the_report_shows_what_the_drivers_did(run: Run) -> None:
    result = run("""
        @pytest.mark.virtio(Blk(), Rng(driver=None))
        def test_red(virtio):
            virtio.guest.driver("blk0").read(0, 512)
            virtio["rng0"].assert_driver_ok()
    """)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*rng0: not at DRIVER_OK but at reset: no driver has the device",
            "*virtio: verdict*",
            "*scripted guest*",
            "blk0: reset, acknowledge, driver, *, driver_ok; request0: 1 requests given back, 0 with the device",
            "rng0: not driven",
            "*reproduce*",
            "printf * | dd of=virtio-repro/halt.rom *",
        ]
    )


def test_a_driver_error_fails_the_fixture_at_its_step(run: Run) -> None:
    result = run("""
        @pytest.mark.virtio(Blk(iommu_platform="on"), guest=Scripted(features={"blk0": {"VERSION_1"}}))
        def test_red(virtio): pass
    """)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "E   *DriverError: blk0: the device refuses the features 0x100000000 that were written",
            "E     step: features_ok",
            "E     register: device_status (common configuration + 0x14, at 0x*)",
            "E     expected: FEATURES_OK kept",
            "E     seen: 0x03 (ACKNOWLEDGE DRIVER)",
        ]
    )


@pytest.mark.parametrize("verb", ["run('true')", "devices", "console"])
def test_it_has_no_shell(run: Run, verb: str) -> None:
    result = run(f"""
        @pytest.mark.virtio(Rng())
        def test_red(virtio):
            virtio.guest.{verb}
    """)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *NotSupportedError: *the scripted guest has no *"])
