"""Running QEMU: its command line, process, monitor, private directory and what a binary can do.

Responsible for one QEMU process from spawn to reap; must not know virtio semantics, guests or pytest.
"""
