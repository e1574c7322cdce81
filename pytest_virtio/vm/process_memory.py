"""The memory of another process, read by the kernel's ``/proc/PID/mem``.

Responsible for the descriptor, for whole reads and for saying why there is none; must not know what lies where. It
never writes. The descriptor stays with the process that it was opened for: of one that has ended it reads nothing, even
when another has got its number.
"""

from __future__ import annotations

import os
import threading
from errno import EIO

from pytest_virtio.errors import NotSupportedError, UsageError, VirtioError

__all__ = ("ProcessMemory",)


class ProcessMemory:
    """The memory of the process that has the number ``pid`` when it is first read. Any thread may read it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd: int | None = None
        self._closed = False
        # A descriptor that is closed while another thread reads by its number could already be of another file.
        self._lock = threading.Lock()

    def read(self, address: int, length: int) -> bytes:
        """Copy ``length`` bytes from ``address`` of that process. The process runs on, and may be stopped.

        :raises NotSupportedError: when the kernel doesn't let us.
        :raises UsageError: when nothing is mapped there, and after :meth:`close`.
        :raises VirtioError: when the process has ended.
        """
        try:
            with self._lock:
                data = os.pread(self._opened(), length, address)
        except OSError as error:
            raise self._refused(error, address) from error
        if len(data) == length:
            return data
        # Of a process without memory, a zombie too, the kernel says that nothing is there, and no error.
        raise self._unmapped(address + len(data)) if data else self._ended()

    def close(self) -> None:
        """Forget the process. May be called again."""
        with self._lock:
            self._closed = True
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None

    def _opened(self) -> int:
        if self._closed:
            raise UsageError(f"the memory of process {self.pid} can't be read: the VM has ended")
        if self._fd is None:
            self._fd = os.open(f"/proc/{self.pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        return self._fd

    def _refused(self, error: OSError, address: int) -> VirtioError:
        if error.errno == EIO:
            return self._unmapped(address)
        if isinstance(error, FileNotFoundError | ProcessLookupError):
            return self._ended()
        return NotSupportedError(
            f"/proc/{self.pid}/mem: {error.strerror}: it is for those who may trace the process. Run as the user that "
            "QEMU runs as, with kernel.yama.ptrace_scope at most 1 (0 where something else has started QEMU), or with "
            "the capability SYS_PTRACE"
        )

    def _ended(self) -> VirtioError:
        return VirtioError(f"process {self.pid} has ended, and its memory is gone")

    def _unmapped(self, address: int) -> UsageError:
        return UsageError(f"process {self.pid} has nothing at {address:#x} of its memory (any more)")
