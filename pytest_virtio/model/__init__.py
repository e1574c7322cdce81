"""What is known about a device at one moment: frozen values named as in QAPI, and pure judgements on them.

It must not know JSON, text layouts, or where an answer came from beyond its name; it does no I/O.
"""
