"""The guests: what runs in the VM, how it becomes ready and how it is talked to.

Responsible for the guest's side of a VM that runs already; must not know how QEMU is started, nor introspection: what
QEMU says of the devices comes in as a callable.
"""
