"""modules: what a module says of itself is read, the driver of a device is found by its alias, and order is right."""

from __future__ import annotations

import gzip
import lzma
import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_virtio.errors import MissingError, UnknownNameError, UsageError
from pytest_virtio.provision.modules import (
    KernelModule,
    collect,
    for_device_ids,
    load_order,
    overlay,
    read_module,
    scan,
    virtio_device_ids,
)

from .conftest import elf_module

NET = elf_module(
    "alias=virtio:d00000001v*",
    "depends=net-failover",
    "softdep=pre: a-b c post: d",
    "vermagic=6.1.0 SMP ",
    "name=my_net",
)


def module(name: str, *depends: str, alias: str = "", soft: tuple[str, ...] = ()) -> KernelModule:
    return KernelModule(name, Path(f"/{name}.ko"), depends, soft, (alias,) if alias else ())


def write(path: Path, *pairs: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(elf_module(*pairs))
    return path


@pytest.mark.parametrize("suffix", ["", ".xz", ".gz", ".zst"])
def test_a_module_is_read_from_any_packing(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"my-net.ko{suffix}"
    if suffix == ".zst":
        if shutil.which("zstd") is None:
            pytest.skip("no zstd here")
        path.write_bytes(subprocess.run(["zstd", "-c"], input=NET, capture_output=True, check=True, timeout=10).stdout)
    else:
        path.write_bytes({"": NET, ".xz": lzma.compress(NET), ".gz": gzip.compress(NET)}[suffix])
    assert read_module(path) == KernelModule(
        "my_net", path, ("net_failover",), ("a_b", "c"), ("virtio:d00000001v*",), "6.1.0 SMP"
    )


@pytest.mark.parametrize("content", [b"", b"text", b"\x7fELF\x02\x01" + bytes(20), NET[:200], NET[:64]])
def test_what_is_no_module_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.ko"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"x\.ko"):
        read_module(path)


@pytest.mark.parametrize("suffix", ["xz", "gz", "zst"])
def test_a_broken_packing_names_the_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.ko.{suffix}"
    path.write_bytes(b"not packed")
    with pytest.raises(UsageError, match=r"can't read the kernel module .*x\.ko"):
        read_module(path)


def test_without_zstd_the_message_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / "x.ko.zst"
    path.write_bytes(b"")
    with pytest.raises(MissingError, match="no zstd command: apt-get install zstd"):
        read_module(path)


def test_dependencies_come_first() -> None:
    modules = [module("c", "b"), module("b", "a", soft=("s", "absent")), module("a"), module("s"), module("other")]
    assert [m.name for m in load_order(modules, ["c", "a"])] == ["s", "a", "b", "c"]


def test_a_circle_of_soft_dependencies_ends() -> None:
    modules = [module("a", soft=("b",)), module("b", soft=("a",))]
    assert [m.name for m in load_order(modules, ["a"])] == ["b", "a"]


def test_a_missing_dependency_is_named() -> None:
    with pytest.raises(MissingError, match=r"b depends on lost.*wanted: a → b → lost.*--virtio-modules"):
        load_order([module("a", "b"), module("b", "lost")], ["a"])


def test_what_is_built_in_is_not_missed() -> None:
    assert [m.name for m in load_order([module("a", "b")], ["a", "b"], frozenset({"b"}))] == ["a"]


def test_an_unknown_module_has_near_misses() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown kernel module: 'virtio_ent'.*'virtio_net'"):
        load_order([module("virtio_net")], ["virtio-ent"])


def test_the_driver_is_found_by_its_own_alias() -> None:
    mine, all_ = module("mine", alias="virtio:d00000001v*"), module("all", alias="virtio:d*v*")
    assert for_device_ids([mine, all_, module("pci", alias="pci:*")], [1]) == (mine, all_)
    assert for_device_ids([mine], [0x11]) == ()
    assert virtio_device_ids(mine) == (1,)
    assert virtio_device_ids(all_) == ()


def test_the_user_s_module_wins_by_name_and_by_alias() -> None:
    below = [
        module("virtio_net", alias="virtio:d00000001v*"),
        module("virtio_blk", alias="virtio:d00000002v*"),
        module("x"),
    ]
    mine, again = module("mine", alias="virtio:d00000001v*"), module("x", "y")
    assert overlay(below, [mine, again]) == (below[1], mine, again)


def test_any_kind_of_place_is_searched(tmp_path: Path) -> None:
    build = write(tmp_path / "build" / "drivers" / "my-net.ko", "alias=virtio:d00000001v*", "depends=dep").parents[1]
    write(build / "lib" / "dep.ko", "depends=")
    (build / "modules.builtin").write_text("kernel/drivers/virtio/virtio-ring.ko\n")
    single = write(tmp_path / "single.ko", "depends=")
    tree = scan([build, single])
    assert (sorted(tree.files), tree.builtin) == (["dep", "my_net", "single"], frozenset({"virtio_ring"}))
    assert [m.name for m in collect(tree, ["my_net", "nowhere"])] == ["dep", "my_net"]


def test_with_an_index_only_virtio_s_modules_are_seeds(tmp_path: Path) -> None:
    for name in ("virtio-net", "other"):
        write(tmp_path / "kernel" / f"{name}.ko", "depends=")
    (tmp_path / "modules.alias").write_text(
        "# made by depmod\nalias virtio:d00000001v* virtio_net\nalias pci:* other\n"
    )
    assert scan([tmp_path]).seeds == ("virtio_net",)


@pytest.mark.parametrize("name", ["nowhere", "empty", "file.txt"])
def test_a_place_without_modules_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").touch()
    with pytest.raises(UsageError, match=f"no kernel module in '.*{name}'"):
        scan([tmp_path / name])


def test_real_modules_agree_with_modinfo(module_files: Path) -> None:
    if shutil.which("modinfo") is None:
        pytest.skip("no modinfo here")
    for path in module_files.glob("virtio*.ko"):
        command = ["modinfo", "-F", "depends", str(path)]
        said = subprocess.run(command, capture_output=True, check=True, timeout=10, text=True).stdout.strip()
        assert read_module(path).depends == tuple(name for name in said.replace("-", "_").split(",") if name)
