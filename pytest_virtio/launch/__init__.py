"""VMs, from a declaration to one that runs, and its end. The only room that knows both guests and introspection.

Responsible for joining the rooms below; must not know verbs or pytest.
"""

from pytest_virtio.launch.attach import AttachedVm, attached
from pytest_virtio.launch.guests import RunningGuest
from pytest_virtio.launch.provenance import host_name
from pytest_virtio.launch.running import QUERY_SECONDS, Host, RunningVm
from pytest_virtio.launch.start import launch

__all__ = (
    "QUERY_SECONDS",
    "AttachedVm",
    "Host",
    "ObservedVm",
    "RunningGuest",
    "RunningVm",
    "attached",
    "host_name",
    "launch",
)

ObservedVm = RunningVm | AttachedVm
"""A VM that can be asked: one of ours, or one that runs already."""
