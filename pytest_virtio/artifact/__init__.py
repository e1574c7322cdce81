"""What is kept of a failing test in files: written here, and read again when the VM is long gone.

Responsible for the files' formats and names; must not know a VM that runs, nor pytest.
"""
