"""The files of real VMs: what is read of them is what the report said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_virtio import (
    Balloon,
    Blk,
    Crypto,
    Firmware,
    Gpu,
    Keyboard,
    MonitorTimeoutError,
    Net,
    Rng,
    Scsi,
    Serial,
    VhostUserBlk,
    Virtio,
    VirtioFactory,
    render,
)
from pytest_virtio.artifact import codec
from pytest_virtio.handle import artifacts
from pytest_virtio.vm.deadline import Deadline

DEVICES = (Net(), Blk(packed="on"), Rng(), Balloon(), Serial(), Scsi(), Keyboard(), Gpu(), Crypto())


def _same_as_the_report(virtio: Virtio) -> None:
    """The models come back, and make the report's own lines."""
    evidence = virtio.evidence(files=True)
    written = evidence.files["models.json"]
    read = codec.models_from_json(written)
    assert codec.models_to_json(read).splitlines()[3:] == written.splitlines()[3:]
    shown = {section.title: section.text for section in evidence.sections}
    assert "\n".join(render.verdict(read)) == shown["virtio: verdict"]
    for id, device in read.devices.items():
        assert "\n".join(render.device_findings(device)) == shown[f"virtio: {id}"]


def test_every_device_of_a_scripted_guest(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(*DEVICES) as virtio:
        virtio.guest.driver("blk0").submit(0, 0, writable=[512])
        _same_as_the_report(virtio)


@pytest.mark.guest
def test_every_device_of_linux(linux: Virtio) -> None:
    _same_as_the_report(linux)


def test_a_device_that_stalled_and_a_vhost_backend(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Rng(driver=None), VhostUserBlk(wire=True)) as virtio:
        virtio.guest.driver("rng0").reset().acknowledge().driver()
        _same_as_the_report(virtio)
        findings = codec.models_from_json(virtio.evidence(files=True).files["models.json"])
    history = findings.devices["rng0"].history
    assert history is not None
    assert history.steps[-1].status == {"ACKNOWLEDGE", "DRIVER"}


def test_a_qemu_that_is_gone(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Rng()) as virtio:
        virtio._running.qemu.child.kill()
        _same_as_the_report(virtio)


def test_models_that_are_too_large_lose_their_rings(
    virtio_factory: VirtioFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with virtio_factory(Net()) as virtio:
        whole = virtio.evidence(files=True).files["models.json"]
        monkeypatch.setattr(artifacts, "MODELS_LIMIT", len(whole) - 1)
        findings = codec.models_from_json(virtio.evidence(files=True).files["models.json"])
    assert all(queue.ring is None for queue in findings.devices["net0"].queues)
    assert any(line.startswith("rings: left out, for with them the models take ") for line in findings.trouble)


def test_logs_keep_their_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "TEXT_LIMIT", 25)
    assert artifacts._lines(f"line {number}\n" for number in range(1000)) == "line 998\nline 999\n"


def test_logs_are_bounded_in_bytes(
    virtio_factory: VirtioFactory, talking_rom: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "TEXT_LIMIT", 1000)
    guest = Firmware(bios=str(talking_rom(b"\x1b\xff" * 600 + b"THE END")), drives=frozenset())
    with virtio_factory(Rng(), guest=guest) as virtio:
        drain, log = virtio._running.qemu.child.drain, virtio.guest.console.log
        assert drain.wait(lambda: b"THE END" in log.since(0), Deadline.after(30))
        text = virtio.evidence(files=True).files["console.log"]
    assert 900 < len(text) <= 1000
    assert text.startswith("[")
    assert text.endswith("THE END")


def test_a_fault_in_asking_leaves_the_rest(virtio_factory: VirtioFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MonitorTimeoutError("x-query", 1)

    with virtio_factory(VhostUserBlk()) as virtio:
        introspector = virtio._running.introspector
        monkeypatch.setattr(type(introspector), "vhost_queue_status", fail)
        files = virtio.evidence(files=True).files
    findings = codec.models_from_json(files["models.json"])
    assert findings.devices["vublk0"].status is not None
    assert any(line.startswith("more of vublk0: x-query: no answer within 1 s") for line in findings.trouble)


def test_the_script_is_one(virtio_factory: VirtioFactory, tmp_path: Path) -> None:
    with virtio_factory(Rng(), boot=False) as virtio:
        script = virtio.evidence(files=True).files["command.sh"]
    assert script.startswith("#!/bin/sh\n")
    assert script.endswith("\n")
