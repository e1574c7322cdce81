"""What serves a device from outside of QEMU: vhost-user backends.

Responsible for starting them, for seeing that they answer, and for ending them; must not know QEMU's process or guests.
"""
