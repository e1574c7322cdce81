"""The 9P transport: files of the host through the device. The oracle is the shared directory itself. (9P2000.L; virtio
1.3 only reserves the device id.)"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_virtio import P9, RequestFailedError, UsageError
from pytest_virtio.guest.scripted.drivers.p9 import P9Driver, P9Message

from .conftest import Boot, status_of

pytestmark = pytest.mark.qemu

ROOT, FILE = 0, 1
DIRECTORY = 0x80
"""QTDIR of a qid's type."""
TREE = bytes(range(256)) * 1024


def mounted(driver: P9Driver) -> P9Driver:
    assert driver.version() == "9P2000.L"
    assert driver.attach(ROOT).type == DIRECTORY
    return driver


def test_the_session_begins(scripted: Boot, tmp_path: Path) -> None:
    """VERSION agrees on a size, ATTACH gives the root a fid, CLUNK takes it away again."""
    with scripted(P9(tmp_path)) as virtio:
        driver = virtio.guest.driver("p90", P9Driver)
        assert driver.version(msize=8192) == "9P2000.L"
        assert driver.msize == 8192
        root = driver.attach(ROOT)
        assert root.type == DIRECTORY
        assert driver.getattr(ROOT).qid == root
        driver.clunk(ROOT)
        with pytest.raises(RequestFailedError):
            driver.getattr(ROOT)
        assert status_of(virtio, "p90").driver_ok


def test_an_unknown_version_is_refused(scripted: Boot, tmp_path: Path) -> None:
    with scripted(P9(tmp_path)) as virtio:
        assert virtio.guest.driver("p90", P9Driver).version(version="9P1789") == "unknown"


@pytest.mark.parametrize("transport", ["pci", "pci-transitional", "pci-legacy", "mmio"])
def test_the_tag_is_the_declarations(scripted: Boot, tmp_path: Path, transport: str) -> None:
    """The configuration has the tag's length and the tag (Linux virtio_9p.h)."""
    with scripted(P9(tmp_path, tag="häuser"), transport=transport) as virtio:
        driver = mounted(virtio.guest.driver("p90", P9Driver))
        assert (driver.mount_tag(), driver.config().tag_len) == ("häuser", len("häuser".encode()))


@pytest.mark.parametrize("transport", ["pci", "pci-legacy"])
def test_files_are_read(scripted: Boot, tmp_path: Path, transport: str) -> None:
    """WALK, LOPEN, READ: more than a message holds, from an offset, and to the end."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(TREE)
    with scripted(P9(tmp_path), transport=transport) as virtio:
        driver = mounted(virtio.guest.driver("p90", P9Driver))
        directory, file = driver.walk(ROOT, FILE, "a", "b")
        assert (directory.type, file.type) == (DIRECTORY, 0)
        assert driver.open(FILE) == file
        assert driver.read(FILE, 0, len(TREE)) == TREE
        assert driver.read(FILE, len(TREE) - 3, 100) == TREE[-3:]
        assert driver.read(FILE, len(TREE), 1) == b""


def test_files_are_written(scripted: Boot, tmp_path: Path) -> None:
    """LCREATE, WRITE, MKDIR: what the driver wrote is on the host."""
    with scripted(P9(tmp_path)) as virtio:
        driver = mounted(virtio.guest.driver("p90", P9Driver))
        driver.mkdir(ROOT, "new")
        driver.walk(ROOT, FILE, "new")
        driver.create(FILE, "file")
        driver.write(FILE, 0, TREE)
        driver.write(FILE, 2, b"xyz")
        assert (tmp_path / "new" / "file").read_bytes() == TREE[:2] + b"xyz" + TREE[5:]
        driver.clunk(FILE)


def test_attributes_are_the_hosts(scripted: Boot, tmp_path: Path) -> None:
    """GETATTR, compared with stat(2)."""
    (tmp_path / "file").write_bytes(b"twelve bytes")
    with scripted(P9(tmp_path)) as virtio:
        driver = mounted(virtio.guest.driver("p90", P9Driver))
        (qid,) = driver.walk(ROOT, FILE, "file")
        seen, there = driver.getattr(FILE), (tmp_path / "file").stat()
        assert (seen.size, seen.mode, seen.nlink) == (12, there.st_mode, 1)
        assert (seen.uid, seen.gid) == (os.getuid(), there.st_gid)
        assert seen.qid == qid


def test_directories_are_listed(scripted: Boot, tmp_path: Path) -> None:
    """READDIR, continued at an entry's offset until nothing comes."""
    names = {f"file {number:03d} {'x' * 100}" for number in range(100)}
    for name in names:
        (tmp_path / name).touch()
    with scripted(P9(tmp_path)) as virtio:
        driver = virtio.guest.driver("p90", P9Driver)
        driver.version(msize=8192)
        driver.attach(ROOT)
        driver.walk(ROOT, FILE)
        driver.open(FILE)
        found, offset, rounds = [], 0, 0
        while entries := driver.readdir(FILE, offset):
            found += [entry.name for entry in entries]
            offset, rounds = entries[-1].offset, rounds + 1
        assert sorted(found) == sorted({*names, ".", ".."})
        assert rounds > 1


def test_errors_have_their_names(scripted: Boot, tmp_path: Path) -> None:
    """Rlerror carries an errno of Linux."""
    (tmp_path / "file").touch()
    with scripted(P9(tmp_path)) as virtio:
        driver = mounted(virtio.guest.driver("p90", P9Driver))
        with pytest.raises(RequestFailedError, match="Rwalk") as error:
            driver.walk(ROOT, FILE, "nothing")
        assert error.value.seen == "ENOENT"
        driver.walk(ROOT, FILE, "file")
        with pytest.raises(RequestFailedError) as error:
            driver.mkdir(ROOT, "file")
        assert error.value.seen == "EEXIST"
        assert driver.walk(FILE, 2) == ()


def test_a_walk_may_end_early(scripted: Boot, tmp_path: Path) -> None:
    """WALK says how far it came, and the new fid does not exist then."""
    (tmp_path / "a").mkdir()
    with scripted(P9(tmp_path)) as virtio:
        driver = mounted(virtio.guest.driver("p90", P9Driver))
        assert len(driver.walk(ROOT, FILE, "a", "nothing", "at all")) == 1
        with pytest.raises(RequestFailedError):
            driver.getattr(FILE)


def test_the_user_is_told_of_his_mistakes(scripted: Boot, tmp_path: Path) -> None:
    with scripted(P9(tmp_path)) as virtio:
        driver = mounted(virtio.guest.driver("p90", P9Driver))
        with pytest.raises(UsageError, match="msize"):
            driver.request(P9Message.WRITE, bytes(driver.msize))
        for type in (-1, 256, 1 << 70):
            with pytest.raises(UsageError, match=f"field of a 9P message: .*{type}"):
                driver.request(type, b"")
        with pytest.raises(UsageError, match="field"):
            driver.version(msize=1 << 32)
        assert driver.getattr(ROOT).qid.type == DIRECTORY
        with pytest.raises(UsageError, match="65535"):
            driver.walk(ROOT, FILE, "x" * 0x10000)
        with pytest.raises(UsageError, match="field"):
            driver.read(ROOT, -1, 1)


def message(type: int, tag: int, body: bytes, *, longer: int = 0) -> bytes:
    return struct.pack("<IBH", 7 + len(body) + longer, type, tag) + body


HOSTILE: dict[str, tuple[bytes, Callable[[P9Driver], object]]] = {
    "nothing": (b"", lambda driver: driver.clunk(FILE)),
    "another size": (message(121, 1, b"", longer=1), lambda driver: driver.clunk(FILE)),
    "another type": (message(123, 1, b""), lambda driver: driver.clunk(FILE)),
    "another tag": (message(121, 9, b""), lambda driver: driver.clunk(FILE)),
    "an error cut off": (message(7, 1, b"\0\0"), lambda driver: driver.clunk(FILE)),
    "a qid cut off": (message(13, 1, b"\0\0"), lambda driver: driver.open(FILE)),
    "more qids than names": (message(111, 1, b"\xff\xff" + bytes(26)), lambda driver: driver.walk(ROOT, FILE, "a")),
    "more than was asked for": (message(117, 1, b"\x09\0\0\0" + bytes(9)), lambda driver: driver.read(FILE, 0, 8)),
    "more than there is": (message(117, 1, b"\x08\0\0\0" + bytes(7)), lambda driver: driver.read(FILE, 0, 8)),
    "nothing written": (message(119, 1, bytes(4)), lambda driver: driver.write(FILE, 0, b"x")),
    "too much written": (message(119, 1, b"\x02\0\0\0"), lambda driver: driver.write(FILE, 0, b"x")),
    "an entry cut off": (
        message(41, 1, b"\x1a\0\0\0" + bytes(22) + b"\x01\0\x01\0"),
        lambda driver: driver.readdir(FILE),
    ),
    "msize above the proposal": (message(101, 0xFFFF, b"\0\0\0\xff\0\0"), lambda driver: driver.version()),
    "msize of nothing": (message(101, 0xFFFF, bytes(6)), lambda driver: driver.version()),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_replies_are_refused(scripted: Boot, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """Whatever stands in a reply, the driver says what was wrong with it."""
    reply, ask = HOSTILE[case]
    with scripted(P9()) as virtio:
        driver = virtio.guest.driver("p90", P9Driver)
        monkeypatch.setattr("pytest_virtio.guest.scripted.queue.Request.written", reply)
        with pytest.raises(RequestFailedError, match="expected"):
            ask(driver)
