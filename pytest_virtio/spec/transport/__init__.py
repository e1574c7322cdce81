"""What a driver sees of each transport: registers, capabilities and their places (virtio 1.3 section 4).

Responsible for tables; must not know how a register is reached.
"""
