"""Which accelerator, and why: the probe against fakes that speak, hang or end."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_virtio.vm import accelerator
from pytest_virtio.vm.accelerator import Accelerator, choose
from pytest_virtio.vm.capabilities import Capabilities

KERNEL = Path("/some/kernel")

NATIVE = Capabilities("/qemu", "7.2.0", "", platform.machine(), frozenset(), frozenset(), {}, frozenset())


@pytest.fixture(autouse=True)
def kvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node that opens, a binary for this host, and a cache of the test's own."""
    node = tmp_path / "kvm"
    node.touch()
    monkeypatch.setattr(accelerator, "DEVICE", node)
    monkeypatch.setattr(accelerator, "capabilities", lambda program: NATIVE)
    monkeypatch.setenv("PYTEST_VIRTIO_CACHE", str(tmp_path / "cache"))
    return node


def never() -> Path:
    pytest.fail("the kernel was asked for")


@pytest.mark.parametrize("name", ["tcg", "kvm"])
def test_what_is_asked_for_is_taken(name: str) -> None:
    assert choose(name, Path("/qemu"), never) == Accelerator(name, "as asked for")


def test_no_kvm(kvm: Path) -> None:
    kvm.unlink()
    assert choose("auto", Path("/qemu"), never) == Accelerator("tcg", f"there is no {kvm}")


def test_kvm_of_others(kvm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert choose("auto", Path("/qemu"), never) == Accelerator("tcg", f"{kvm} is not accessible to this user")


def test_another_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "capabilities", lambda program: replace(NATIVE, target="s390x"))
    reason = f"my-qemu runs s390x code, and this host {platform.machine()}"
    assert choose("auto", Path("/bin/my-qemu"), never) == Accelerator("tcg", reason)


def test_no_kernel_to_try_it_with() -> None:
    chosen = choose("auto", Path("/qemu"), lambda: None)
    assert (chosen.name, "no kernel is at hand" in chosen.reason) == ("tcg", True)


@pytest.fixture
def machine(fake_qemu: Callable[..., Path]) -> Callable[[str], Path]:
    """A fake whose kernel does as told, on the console that it was given."""

    def make(body: str) -> Path:
        fake = fake_qemu()
        text = fake.read_text()
        console = 'console = int(re.search(r"id=console0,.*?/fd/(\\d+)", " ".join(sys.argv))[1])\n'
        # After the answer to qmp_capabilities.
        fake.write_text(
            text.replace("text = text[length:]", f"text = text[length:]; {body}").replace(
                "\ntext = ", f"\n{console}text = ", 1
            )
        )
        return fake

    return make


def test_a_kernel_that_speaks_is_remembered(machine: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    fake = machine('os.write(console, b"\\n[ 0.0] Linux version 6.1\\n")')
    assert choose("auto", fake, lambda: KERNEL) == Accelerator("kvm", "a kernel was seen to run on it")
    monkeypatch.setattr(accelerator, "_probe", lambda *_: pytest.fail("asked again"))
    assert choose("auto", fake, lambda: KERNEL).name == "kvm"


def test_a_kernel_that_hangs_is_remembered(
    machine: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, kvm: Path
) -> None:
    monkeypatch.setattr(accelerator, "PROBE_SECONDS", 0.5)
    fake = machine("pass")
    silence = Accelerator("tcg", f"{kvm} opens, but a kernel on it said nothing within 0.5 s")
    assert choose("auto", fake, lambda: KERNEL) == silence
    monkeypatch.setattr(accelerator, "_probe", lambda *_: pytest.fail("asked again"))
    assert choose("auto", fake, lambda: KERNEL) == silence


def test_a_qemu_that_does_not_start_on_kvm_is_asked_again(script: Callable[[str], Path], tmp_path: Path) -> None:
    fake = script("echo busy; exit 1")
    chosen = choose("auto", fake, lambda: KERNEL)
    assert chosen.name == "tcg"
    assert chosen.reason == "QEMU does not start on KVM: QEMU ended (exit code 1) during its start; its stderr: busy"
    assert not (tmp_path / "cache").exists()


@pytest.mark.qemu
def test_a_real_binary_that_can_not(program: Path, tmp_path: Path) -> None:
    """No kernel at that path: QEMU says so and ends, whether KVM works here or not."""
    chosen = choose("auto", program, lambda: tmp_path / "none")
    assert chosen.name == "tcg"
    assert chosen.reason.startswith(("QEMU does not start on KVM", "QEMU ended on KVM"))


@pytest.mark.parametrize(("name", "age", "asked"), [("tcg", 90_000, True), ("tcg", 3600, False), ("kvm", 9e9, False)])
def test_doubt_does_not_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, age: float, asked: bool
) -> None:
    """A host that was too busy for KVM's probe gets another chance; that KVM works stays true."""
    program = tmp_path / "qemu"
    program.touch()
    answers = [Accelerator(name, "before"), Accelerator(name, "now")]
    monkeypatch.setattr(accelerator, "_probe", lambda *_: (answers.pop(0), True))
    choose("auto", program, lambda: KERNEL)
    (memory,) = (tmp_path / "cache" / "kvm").iterdir()
    os.utime(memory, (memory.stat().st_mtime - age,) * 2)
    assert choose("auto", program, lambda: KERNEL).reason == ("now" if asked else "before")
