"""What a test asks for: devices, guests and machines as frozen declarations.

Responsible for data and for what can be told wrong without a QEMU; must not know QEMU's option syntax, processes or
pytest. Turning declarations into a command line is ``vm.cmdline``'s business.
"""
