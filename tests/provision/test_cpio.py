"""cpio: what is written is what another reader finds, and always the same."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pytest_virtio.provision import cpio
from pytest_virtio.provision.linux import LinuxImage

ENTRIES = (
    cpio.directory("d"),
    cpio.regular("d/odd", b"123", 0o640),
    cpio.regular("d/empty", b""),
    cpio.symlink("link", "d/odd"),
    cpio.character("d/console", 5, 1),
)


def test_another_reader_unpacks_it(image: LinuxImage, tmp_path: Path) -> None:
    busybox = image.initramfs.parent / "busybox"
    files = [entry for entry in ENTRIES if entry.name != "d/console"]
    subprocess.run([busybox, "cpio", "-idm"], input=cpio.archive(files), cwd=tmp_path, check=True, timeout=10)
    assert (tmp_path / "link").read_bytes() == b"123"
    assert (tmp_path / "d" / "odd").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "d" / "empty").read_bytes() == b""


def test_another_reader_lists_the_device(image: LinuxImage) -> None:
    command = [str(image.initramfs.parent / "busybox"), "cpio", "-tv"]
    done = subprocess.run(command, input=cpio.archive(ENTRIES), check=True, timeout=10, capture_output=True)
    listed = next(line for line in done.stdout.decode().splitlines() if line.endswith("d/console"))
    assert listed.startswith("crw-------")
    assert "Jan  1 1970" in listed or "1970-01-01" in listed


def test_a_member_is_laid_out_as_the_kernel_documents_it() -> None:
    made = cpio.archive([cpio.character("dev/console", 5, 1)])
    fields = [int(made[6 + 8 * n : 14 + 8 * n], 16) for n in range(13)]
    assert made[:6] == b"070701"
    assert fields == [1, 0o20600, 0, 0, 1, 0, 0, 0, 0, 5, 1, len("dev/console") + 1, 0]
    assert made[110:122] == b"dev/console\0"


def test_it_is_deterministic_and_aligned() -> None:
    assert cpio.archive(ENTRIES) == cpio.archive(ENTRIES)
    assert len(cpio.archive(ENTRIES)) % 4 == 0


def test_pad_fills_up_with_zeros() -> None:
    assert cpio.pad(b"12345") == b"12345\0\0\0"
    assert cpio.pad(b"1234") == b"1234"
