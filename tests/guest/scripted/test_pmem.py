"""The PMEM device: a file of the host's as memory (virtio 1.3 section 5.19).

Oracles: the file behind it, QEMU's ``query-memory-devices``, its reading of guest memory (HMP ``xp``), and its trace of
what ``fsync`` returned.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_virtio import Device, Pmem, RequestFailedError, Virtio
from pytest_virtio.guest.scripted.drivers.pmem import PmemDriver

from .conftest import Boot, status_of

pytestmark = pytest.mark.qemu

SIZE = 128 << 20
DONE = "virtio_pmem_flush_done"


def listed(virtio: Virtio) -> dict[str, Any]:
    (device,) = cast(list[dict[str, Any]], virtio.vm.qmp("query-memory-devices"))
    return cast(dict[str, Any], device["data"])


def test_its_memory_is_the_file(scripted: Boot) -> None:
    """``start`` and ``size`` of configuration space say where the memory is (5.19.4)."""
    with scripted(Pmem(size=SIZE)) as virtio:
        config, seen = virtio.guest.driver("pmem0", PmemDriver).config(), listed(virtio)
        assert (config.start, config.size_) == (seen["memaddr"], SIZE)
        backend = {"path": f"/objects/{Path(seen['memdev']).name}", "property": "mem-path"}
        with Path(cast(str, virtio.vm.qmp("qom-get", backend))).open("r+b") as file:
            file.seek(SIZE - 8)
            file.write((0x1122334455667788).to_bytes(8, "little"))
        shown = virtio.vm.hmp(f"xp /1gx {config.start + SIZE - 8:#x}")
        assert shown.split()[-1] == "0x1122334455667788"
        assert status_of(virtio, "pmem0").driver_ok


@pytest.mark.parametrize("packed", ["off", "on"])
def test_flush(scripted: Boot, tmp_path: Path, packed: str) -> None:
    """FLUSH, each of which is an ``fsync`` of the file (5.19.6, 5.19.7)."""
    trace = tmp_path / "trace"
    with scripted(Pmem(packed=packed), args=["-trace", DONE, "-D", str(trace)]) as virtio:
        driver = virtio.guest.driver("pmem0", PmemDriver)
        for number in range(1, 4):
            driver.flush()
            assert trace.read_text().count(DONE) == number


def test_a_flush_that_fails(scripted: Boot) -> None:
    """A result that is not 0 (5.19.6): /dev/zero can be mapped but not flushed."""
    backend = f"memory-backend-file,id=m,size={SIZE},share=on,mem-path=/dev/zero"
    args = ["-object", backend, "-m", "256M,maxmem=1G"]
    with scripted(Device("virtio-pmem-pci", memdev="m"), args=args) as virtio:
        with pytest.raises(RequestFailedError) as caught:
            virtio.guest.driver("pmem0", PmemDriver).flush()
        assert (caught.value.step, caught.value.register) == ("FLUSH", "virtio_pmem_resp.ret")


@pytest.mark.parametrize("written", [b"", b"\0", b"\5\0\0\0"])
def test_answers_that_are_no_success(scripted: Boot, monkeypatch: pytest.MonkeyPatch, written: bytes) -> None:
    """Nothing at all, too little, another result than 0 (5.19.6)."""
    with scripted(Pmem()) as virtio:
        driver = virtio.guest.driver("pmem0", PmemDriver)
        answer = SimpleNamespace(written=written)
        monkeypatch.setattr(driver, "queue", lambda which: SimpleNamespace(request=lambda *_, **__: answer))
        with pytest.raises(RequestFailedError, match="FLUSH"):
            driver.flush()
