"""QEMU's side of QMP: command names, JSON keys and texts, turned into the model.

The only room that knows them; everything in it is pure, and no reply, however odd, makes it raise anything but
ReplyError. It must not know when a query is safe, nor how to send one.
"""

from pytest_virtio.qapi.introspection import (
    QUERY_QUEUE_ELEMENT,
    QUERY_QUEUE_STATUS,
    QUERY_STATUS,
    QUERY_VHOST_QUEUE_STATUS,
    QUERY_VIRTIO,
    feature_bit,
    is_invalid_queue_error,
    is_no_devices_error,
    is_not_started_error,
    parse_list,
    parse_queue_element,
    parse_queue_status,
    parse_status,
    parse_vhost_queue_status,
)
from pytest_virtio.qapi.memory_map import (
    HMP,
    QUERY_HOST_ADDRESS,
    QUERY_MEMORY_MAP,
    parse_host_address,
    parse_ram,
    parse_regions,
)
from pytest_virtio.qapi.network import QUERY_NETWORK, parse_peers
from pytest_virtio.qapi.pci import QUERY_PCI, parse_pci
from pytest_virtio.qapi.properties import (
    QOM_GET,
    QOM_LIST,
    offering_property,
    parse_property_names,
    property_text,
)
from pytest_virtio.qapi.registers import parse_register, read_register
from pytest_virtio.qapi.run_state import QUERY_RUN_STATE, parse_run_state, parse_running
from pytest_virtio.qapi.version import QUERY_TARGET, QUERY_VERSION, parse_target, parse_version

__all__ = (
    "HMP",
    "QOM_GET",
    "QOM_LIST",
    "QUERY_HOST_ADDRESS",
    "QUERY_MEMORY_MAP",
    "QUERY_NETWORK",
    "QUERY_PCI",
    "QUERY_QUEUE_ELEMENT",
    "QUERY_QUEUE_STATUS",
    "QUERY_RUN_STATE",
    "QUERY_STATUS",
    "QUERY_TARGET",
    "QUERY_VERSION",
    "QUERY_VHOST_QUEUE_STATUS",
    "QUERY_VIRTIO",
    "feature_bit",
    "is_invalid_queue_error",
    "is_no_devices_error",
    "is_not_started_error",
    "offering_property",
    "parse_host_address",
    "parse_list",
    "parse_pci",
    "parse_peers",
    "parse_property_names",
    "parse_queue_element",
    "parse_queue_status",
    "parse_ram",
    "parse_regions",
    "parse_register",
    "parse_run_state",
    "parse_running",
    "parse_status",
    "parse_target",
    "parse_version",
    "parse_vhost_queue_status",
    "property_text",
    "read_register",
)
