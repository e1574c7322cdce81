"""``query-status``: whether the VM runs."""

from __future__ import annotations

from typing import Final

from pytest_virtio.qapi.reply import Reply

__all__ = ("QUERY_RUN_STATE", "parse_running")

QUERY_RUN_STATE: Final = "query-status"


def parse_running(reply: object) -> bool:
    """Whether the VM runs.

    :param reply: the ``return`` member of QEMU's answer.
    :raise ReplyError: it does not say so.
    """
    return Reply(QUERY_RUN_STATE, reply).flag("running")
