"""The scripted guest: a virtio driver in the test process, over ``bus`` and ``ring``.

Responsible for initialisation as virtio 1.3 section 3.1 orders it, each step a method of its own, for requests, and for
one small driver a device type (``drivers``). Must not know QEMU's command line, nor introspection.
"""
