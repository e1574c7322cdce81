"""Where baselines are: names that every file system takes and that never meet, whole writes, the list of them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_virtio.baseline.codec import Baseline, dumps
from pytest_virtio.baseline.store import baseline_path, listed, read, write
from pytest_virtio.errors import BaselineError
from pytest_virtio.model.profile import DeviceProfile, Profile

FILE = Path("/tests/net/test_mq.py")
REFUSED = set('/\\:*?"<>|')


@pytest.mark.parametrize(
    ("test", "variant", "name", "expected"),
    [
        ("test_offload", "", "", "test_offload.toml"),
        ("test_offload", "modern", "", "test_offload[modern].toml"),
        ("TestMq.test_offload", "modern-2", "after reset", "TestMq.test_offload[modern-2]@after reset.toml"),
        ("test_größe", "ü", "", "test_größe[ü].toml"),
        ("test_x", "a/b:c", "..", "test_x[a%2Fb%3Ac]@%2E..toml"),
        ("test_x", "50%", "\x1b\n", "test_x[50%25]@%1B%0A.toml"),
        ("test_x", "[]", "", "test_x[%5B%5D].toml"),
    ],
)
def test_names(test: str, variant: str, name: str, expected: str) -> None:
    assert baseline_path(FILE, test, variant, name) == Path("/tests/net/__virtio__/test_mq") / expected


def test_a_long_name_is_cut_and_told_apart() -> None:
    paths = [baseline_path(FILE, "test_x", "ä" * 100 + end) for end in "ab"]
    assert paths[0] != paths[1]
    for path in paths:
        assert path.name.startswith("test_x[ää")
        assert path.suffix == ".toml"
        assert len(path.name.encode()) <= 140
    assert len(baseline_path(Path(f"{'x' * 300}.py"), "t", "").parent.name) <= 140


identifiers = st.text(st.characters(codec="utf-8", exclude_characters="[]@\0"), min_size=1, max_size=60)
anything = st.text(max_size=60)


@given(identifiers, anything, anything)
def test_any_name_is_one_that_file_systems_take(test: str, variant: str, name: str) -> None:
    path = baseline_path(FILE, test, variant, name)
    assert path.parent == FILE.parent / "__virtio__" / "test_mq"
    assert not REFUSED & set(path.name)
    assert path.name.isprintable()
    assert not path.name.startswith(".")
    assert len(path.name.encode()) <= 140


@given(st.lists(st.tuples(identifiers, anything, anything), min_size=2, max_size=2, unique=True))
def test_names_of_two_never_meet(two: list[tuple[str, str, str]]) -> None:
    assert baseline_path(FILE, *two[0]) != baseline_path(FILE, *two[1])


def test_names_that_look_alike_do_not_meet() -> None:
    variants = ["a/b", "a%2Fb", "a]@b", ("a", "b]"), "a@b", ("a", "b"), ("", "a"), ("", "a]"), "a]", "A", ".a", "%2Ea"]
    paths = [baseline_path(FILE, "t", *((each,) if isinstance(each, str) else each)) for each in variants]
    assert len(set(paths)) == len(paths)
    long = baseline_path(FILE, "t" * 200, "")
    assert baseline_path(FILE, long.stem, "") != long


def baseline(type_: str = "net") -> Baseline:
    return Baseline(Profile({"x": DeviceProfile(type=type_, transport="pci", features={})}))


def test_what_is_written_is_read_and_listed(tmp_path: Path) -> None:
    path = baseline_path(tmp_path / "test_a.py", "test_x", "y")
    write(path, dumps(baseline()))
    write(path, dumps(baseline("blk")))
    assert read(path) == baseline("blk")
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    other = baseline_path(tmp_path / "test_0.py", "test_x", "")
    write(other, "")
    write(baseline_path(tmp_path / "deeper" / "test_0.py", "test_x", ""), "")
    (path.parent / "README.md").touch()
    assert listed(tmp_path) == (other, path)
    assert listed(tmp_path / "nowhere") == ()


def test_a_file_is_for_everybody_that_the_umask_lets(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        write(tmp_path / "x.toml", "")
    finally:
        os.umask(old)
    assert (tmp_path / "x.toml").stat().st_mode & 0o777 == 0o644


def test_many_writers_leave_one_whole_file(tmp_path: Path) -> None:
    texts = [str(number) * 100_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: write(tmp_path / "x.toml", text), texts))
    assert (tmp_path / "x.toml").read_text() in texts
    assert len(list(tmp_path.iterdir())) == 1


def test_what_cannot_be_written_leaves_what_was(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(BaselineError, match=r"file/x\.toml: it can't be written: File exists"):
        write(tmp_path / "file" / "x.toml", "")
    (tmp_path / "x.toml").mkdir()
    with pytest.raises(BaselineError, match="can't be written"):
        write(tmp_path / "x.toml", "")
    with pytest.raises(UnicodeEncodeError):
        write(tmp_path / "y.toml", "\ud800")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "x.toml"]


def test_what_cannot_be_read_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(BaselineError, match=r"it can't be read: No such file or directory\. To make it: pytest x"):
        read(tmp_path / "none.toml", "pytest x")
    with pytest.raises(BaselineError, match="it is no file"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BaselineError, match="it is no file"):
        read(tmp_path / "pipe")
    with (tmp_path / "long").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BaselineError, match="it has more than 256 KiB"):
        read(tmp_path / "long")
