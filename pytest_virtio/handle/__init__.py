"""The verbs that a test types: the ``virtio`` handle, its devices and queues, the VM.

Responsible for the names of the contract and for turning what was found into a verdict; must not know pytest, QEMU's
command line or JSON.
"""

from pytest_virtio.handle.artifacts import Evidence
from pytest_virtio.handle.backend import VhostBackend
from pytest_virtio.handle.device import VirtioDevice
from pytest_virtio.handle.dump import Section
from pytest_virtio.handle.queue import VirtioQueue
from pytest_virtio.handle.virtio import Virtio
from pytest_virtio.handle.vm import Vm
from pytest_virtio.handle.wire import DeviceWire

__all__ = ("DeviceWire", "Evidence", "Section", "VhostBackend", "Virtio", "VirtioDevice", "VirtioQueue", "Vm")
