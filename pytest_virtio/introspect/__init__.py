"""The way to each answer about a virtio device: which source is asked, and which must not be.

Responsible for choosing a source that does not disturb the device and for saying which it was; must not know JSON
keys (``qapi``), how QEMU is reached (a callable comes in) or what a test asserts.
"""
