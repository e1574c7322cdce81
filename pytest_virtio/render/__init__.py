"""Lines of text for what the model holds.

Responsible for wording and layout, and for making untrusted text safe to print; it must not know how anything was
read, nor decide what is wrong. Everything here is a generator of lines without line ends and colours.
"""

from pytest_virtio.render.comparison import compare_features, comparison_verdict, feature_faults
from pytest_virtio.render.findings import device_findings, verdict
from pytest_virtio.render.hmp import (
    virtio_list,
    virtio_queue_element,
    virtio_queue_status,
    virtio_status,
    virtio_vhost_queue_status,
)
from pytest_virtio.render.judgement import breaches, status_history, stuck
from pytest_virtio.render.markdown import FailedTest, job_summary
from pytest_virtio.render.negotiation import backend_facts, negotiation
from pytest_virtio.render.provenance import provenance_beside_qemu, provenance_line, provenance_values
from pytest_virtio.render.ring import ring_picture
from pytest_virtio.render.text import escape, fit, safe, written
from pytest_virtio.render.transcript import transcript
from pytest_virtio.render.wire import wire, wire_message

__all__ = (
    "FailedTest",
    "backend_facts",
    "breaches",
    "compare_features",
    "comparison_verdict",
    "device_findings",
    "escape",
    "feature_faults",
    "fit",
    "job_summary",
    "negotiation",
    "provenance_beside_qemu",
    "provenance_line",
    "provenance_values",
    "ring_picture",
    "safe",
    "status_history",
    "stuck",
    "transcript",
    "verdict",
    "virtio_list",
    "virtio_queue_element",
    "virtio_queue_status",
    "virtio_status",
    "virtio_vhost_queue_status",
    "wire",
    "wire_message",
    "written",
)
