"""Register access to virtio devices from outside the VM: PCI and MMIO, one interface for all (``transport``).

Responsible for finding a device's registers and for reaching them over the qtest wire; must not know features, rings
or the order of an initialisation.
"""
