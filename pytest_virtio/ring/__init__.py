"""The driver's side of virtqueues: chains of buffers are put into a ring in guest memory and come back used.

Responsible for split and packed rings over any :class:`~pytest_virtio.ring.memory.Memory`; must not know devices or
requests, and neither waits nor notifies: it says when a notification is due.
"""
