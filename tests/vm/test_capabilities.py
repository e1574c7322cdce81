"""What a binary can do: asked of real QEMU, of fakes, and of what is no QEMU at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_virtio.errors import MissingError, UnknownNameError
from pytest_virtio.qapi.trace import STATUS_EVENTS
from pytest_virtio.vm import capabilities as module
from pytest_virtio.vm.capabilities import Capabilities, capabilities, find_program
from pytest_virtio.vm.resolve import check_introspection

REPLIES: dict[str, Any] = {
    "query-version": {"return": {"qemu": {"major": 6, "minor": 2, "micro": 0}, "package": " (Fake 6.2)"}},
    "query-target": {"return": {"arch": "x86_64"}},
    "query-commands": {"return": [{"name": "query-version"}]},
    "query-machines": {"return": [{"name": "pc-q35-6.2", "alias": "q35"}, {"name": "microvm"}]},
    "qom-list-types": {"return": [{"name": "virtio-net-pci"}]},
    "device-list-properties": {"return": [{"name": "host_mtu"}, {"name": "disable-legacy"}]},
    "trace-event-get-state": {"return": [{"name": "virtio_set_status", "state": "disabled"}]},
}


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTEST_VIRTIO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The programs that were asked."""
    asked: list[Path] = []
    real = module._probe

    def spy(program: Path) -> Capabilities:
        asked.append(program)
        return real(program)

    monkeypatch.setattr(module, "_probe", spy)
    return asked


@pytest.mark.qemu
def test_real_qemu(known: Capabilities, program: Path) -> None:
    assert known.program == str(program)
    assert tuple(int(part) for part in known.version.split(".")) >= (7, 2, 0)
    assert known.target == "x86_64"
    assert {"q35", "pc", "microvm", "none"} <= known.machines
    assert "x-query-virtio" in known.commands
    assert {"host_mtu", "disable-legacy"} <= set(known.devices["virtio-net-pci"])
    assert "host_mtu" in known.devices["virtio-net-device"]
    assert "virtio-mem" in known.devices
    assert "e1000" in known.other_types
    assert not known.other_types & set(known.devices)
    assert known.trace_events == set(STATUS_EVENTS)
    check_introspection(known)


@pytest.mark.qemu
def test_the_fake_answers_in_the_shape_of_the_real_one(known: Capabilities, program: Path) -> None:
    from pytest_virtio.vm import cmdline
    from pytest_virtio.vm.deadline import Deadline
    from pytest_virtio.vm.qemu import Qemu

    arguments = {
        "qom-list-types": {"implements": "virtio-pci"},
        "device-list-properties": {"typename": "virtio-net-pci"},
        "trace-event-get-state": {"name": "virtio_set_status"},
    }
    with Qemu.start(lambda wires: cmdline.probe(program, wires), Deadline.after(30), label="shape") as qemu:
        for command, reply in REPLIES.items():
            assert_has_the_shape(qemu.execute(command, arguments.get(command)), reply["return"])


def assert_has_the_shape(real: Any, fake: Any) -> None:
    if isinstance(fake, dict):
        for key, value in fake.items():
            assert_has_the_shape(real[key], value)
    elif isinstance(fake, list):
        for entry in fake:
            alike = [r for r in real if set(entry) <= set(r)]
            assert_has_the_shape(alike[0], entry)
    else:
        assert type(real) is type(fake)


def test_a_fake_is_understood_and_remembered(
    fake_qemu: Callable[..., Path], own_cache: Path, probes: list[Path]
) -> None:
    fake = fake_qemu(REPLIES)
    first = capabilities(fake)
    assert first == Capabilities(
        program=str(fake),
        version="6.2.0",
        package="Fake 6.2",
        target="x86_64",
        commands=frozenset({"query-version"}),
        machines=frozenset({"pc-q35-6.2", "q35", "microvm"}),
        devices={"virtio-net-pci": ("disable-legacy", "host_mtu")},
        other_types=frozenset(),
        # It gives all lists of types alike.
        objects=frozenset({"virtio-net-pci"}),
        trace_events=frozenset(STATUS_EVENTS),
        machine_aliases={"q35": "pc-q35-6.2"},
    )
    assert capabilities(fake) == first
    assert probes == [fake]
    os.utime(fake, (1, 1))
    assert capabilities(fake) == first
    assert probes == [fake, fake]


@pytest.mark.parametrize(
    "reply",
    [
        {"return": [{"name": "virtio_set_status", "state": "unavailable"}]},
        {"error": {"class": "GenericError", "desc": 'unknown event "virtio_set_status"'}},
    ],
)
def test_a_build_without_trace_events(fake_qemu: Callable[..., Path], own_cache: Path, reply: object) -> None:
    assert capabilities(fake_qemu({**REPLIES, "trace-event-get-state": reply})).trace_events == frozenset()


def test_a_module_that_is_installed_later_is_seen(
    fake_qemu: Callable[..., Path], own_cache: Path, probes: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = tmp_path / "modules"
    modules.mkdir()
    monkeypatch.setenv("QEMU_MODULE_DIR", str(modules))
    fake = fake_qemu(REPLIES)
    capabilities(fake)
    os.utime(modules, (1, 1))
    capabilities(fake)
    assert probes == [fake, fake]


@pytest.mark.parametrize("rubbish", [b"", b"{", b"[]", b'{"program": 5}', b"\xff"])
def test_a_memory_that_is_rubbish_is_made_anew(
    fake_qemu: Callable[..., Path], own_cache: Path, probes: list[Path], rubbish: bytes
) -> None:
    fake = fake_qemu(REPLIES)
    first = capabilities(fake)
    (memory,) = own_cache.rglob("*.json")
    memory.write_bytes(rubbish)
    assert capabilities(fake) == first
    assert json.loads(memory.read_bytes())["version"] == "6.2.0"


def test_a_cache_that_can_not_be_written_is_no_obstacle(
    fake_qemu: Callable[..., Path], own_cache: Path, probes: list[Path]
) -> None:
    own_cache.write_text("a file where the directory should be")
    fake = fake_qemu(REPLIES)
    assert capabilities(fake) == capabilities(fake)
    assert probes == [fake, fake]


def test_a_type_that_ends_qemu_is_left_out(fake_qemu: Callable[..., Path], own_cache: Path) -> None:
    known = capabilities(fake_qemu({**REPLIES, "device-list-properties": "exit"}))
    assert known.devices == {}


def test_qemu_without_introspection(fake_qemu: Callable[..., Path], own_cache: Path) -> None:
    fake = fake_qemu(REPLIES)
    with pytest.raises(MissingError) as caught:
        check_introspection(capabilities(fake))
    assert str(caught.value) == (
        f"QEMU 6.2.0 ({fake}) has no x-query-virtio: QEMU 7.2 was the first with virtio introspection. "
        "Name a newer one by --virtio-qemu=PATH."
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "echo rubbish; exit 0",
            "does not answer as a QEMU does: QEMU ended (exit code 0) during its start; its stderr:\nrubbish",
        ),
        (
            "echo lib >&2; exit 127",
            "does not answer as a QEMU does: QEMU ended (exit code 127) during its start; its stderr:\nlib",
        ),
        ("exec sleep 600", "did not answer on QMP within 0.2 s: is it a QEMU?"),
    ],
)
def test_what_is_no_qemu(
    script: Callable[[str], Path], own_cache: Path, monkeypatch: pytest.MonkeyPatch, body: str, message: str
) -> None:
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.2 if "sleep" in body else 20.0)
    program = script(body)
    with pytest.raises(MissingError) as caught:
        capabilities(program)
    assert str(caught.value).startswith(f"{str(program)!r} {message}")
    assert not own_cache.exists()


@pytest.mark.parametrize(
    ("replies", "message"),
    [
        ({"query-version": "exit"}, "QEMU ended (exit code 3) during query-version"),
        ({"query-version": {"return": {}}}, "no 'qemu' in its reply"),
        ({"query-machines": {"return": [{}]}}, "no 'name' in its reply"),
        ({"query-commands": {"error": {"class": "CommandNotFound", "desc": "what?"}}}, "query-commands: what?"),
        ({"query-target": "rubbish"}, "QEMU ended (exit code 0) during query-target"),
    ],
)
def test_odd_answers(fake_qemu: Callable[..., Path], own_cache: Path, replies: dict[str, Any], message: str) -> None:
    fake = fake_qemu({**REPLIES, **replies})
    with pytest.raises(MissingError) as caught:
        capabilities(fake)
    assert str(caught.value).startswith(f"{str(fake)!r} does not answer as a QEMU does: {message}")


def test_find_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = tmp_path / "qemu-mine"
    binary.write_text("")
    binary.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program("qemu-mine") == find_program("./qemu-mine") == find_program(binary) == binary


@pytest.mark.parametrize(
    ("program", "what"),
    [
        ("qemu-none", "is not on PATH."),
        ("./qemu-none", "is not there."),
        ("./directory", "is a directory."),
        ("./file", "is not executable by this user"),
    ],
)
def test_a_program_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, what: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingError) as caught:
        find_program(program)
    assert str(caught.value).startswith(f"QEMU {program!r} {what}")


@pytest.mark.parametrize(
    ("spelled", "name"), [("host_mtu", "host_mtu"), ("disable_legacy", "disable-legacy"), ("host-mtu", "host_mtu")]
)
def test_property_names(known: Capabilities, spelled: str, name: str) -> None:
    assert known.property_name("virtio-net-pci", spelled) == name


def test_an_unknown_property_names_the_near_ones(known: Capabilities) -> None:
    with pytest.raises(UnknownNameError) as caught:
        known.property_name("virtio-net-pci", "host_mut")
    assert str(caught.value).startswith("unknown property of virtio-net-pci: 'host_mut'. Did you mean 'host_mtu'")
