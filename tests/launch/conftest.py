"""What the tests of attaching share: VMs of ours with a second monitor, QEMUs that somebody else has started."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_virtio import Declaration, Virtio
from pytest_virtio.backend.sockets import connect_when_there
from pytest_virtio.launch import launch
from pytest_virtio.plugin.session import is_scripted, virtio_session
from pytest_virtio.vm.capabilities import capabilities
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.drain import Drain
from pytest_virtio.vm.process import QEMU_RANK, Child

Monitored = Callable[..., contextlib.AbstractContextManager[Virtio]]
ByHand = Callable[..., contextlib.AbstractContextManager[Path]]


@pytest.fixture
def monitored(pytestconfig: pytest.Config, virtio_qemu: str | Path) -> Monitored:
    """``with monitored(Blk(), guest="linux") as virtio:``, as with ``--virtio-monitor``."""

    @contextlib.contextmanager
    def boot(*devices: Declaration, **options: Any) -> Iterator[Virtio]:
        session = virtio_session(pytestconfig)
        spec = session.spec(devices, options)
        running = launch(spec, session.host(virtio_qemu, halted=is_scripted(spec.guest)), monitor=True)
        try:
            running.await_ready()
            yield Virtio(running)
        finally:
            running.close()

    return boot


@pytest.fixture
def by_hand(program: Path, tmp_path: Path) -> ByHand:
    """``with by_hand("-device", "virtio-rng-pci") as socket:``, a QEMU that nobody here knows anything of; it has
    firmware, and its RAM to itself."""

    @contextlib.contextmanager
    def start(*arguments: str, program: Path = program, machine: str = "q35") -> Iterator[Path]:
        socket, as_object = tmp_path / "qmp.sock", "monitor-qmp" in capabilities(program).objects
        monitor = ("-object", "monitor-qmp,id=m,chardev=qmp") if as_object else ("-mon", "chardev=qmp,mode=control")
        listening = ("-chardev", f"socket,id=qmp,path={socket},server=on,wait=off", *monitor)
        quiet = ("-nodefaults", "-display", "none")
        argv = (str(program), *quiet, "-machine", machine, "-m", "128M", *listening, *arguments)
        drain = Drain("by hand")
        drain.start()
        with contextlib.ExitStack() as steps:
            steps.callback(drain.close)
            child = Child(argv, drain, rank=QEMU_RANK)
            steps.callback(child.kill)
            connect_when_there(socket, lambda: child.running, Deadline.after(30)).close()
            yield socket

    return start
