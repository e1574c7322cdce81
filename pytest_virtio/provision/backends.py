"""vhost-user daemons that QEMU's own packages don't bring along; where one can't be had, tests of it are skipped. It
must not know what they are started for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

from pytest_virtio.errors import MissingError

from .apt import have_apt
from .install import install

__all__ = ("install_backends",)

_TESTPMD = "dpdk-testpmd"
# The driver's package bears the number of DPDK's ABI: 23 in Debian 12.
_PACKAGES = ("dpdk-dev", "librte-net-vhost[0-9]*")


def install_backends(progress: Callable[[str], None], as_root: bool | None = None) -> None:
    """Get DPDK's testpmd, if it is not here; where it can't be had, say so and go on.

    :param as_root: whether to install it into the system; by default whoever is root does, and nobody else can.
    """
    if shutil.which(_TESTPMD):
        return
    try:
        _install(os.geteuid() == 0 if as_root is None else as_root, progress)
    except MissingError as error:
        progress(f"{_TESTPMD} can't be had, so that tests of it are skipped: {error}")


def _install(as_root: bool, progress: Callable[[str], None]) -> None:
    if not as_root or not have_apt():
        raise MissingError("it takes root and apt-get: apt-get install dpdk-dev librte-net-vhost23 (Debian 12)")
    install(_PACKAGES, progress)
