"""``query-status``: whether the VM runs, and why not."""

from __future__ import annotations

from typing import Final

from pytest_virtio.qapi.reply import Reply

__all__ = ("QUERY_RUN_STATE", "parse_run_state", "parse_running")

QUERY_RUN_STATE: Final = "query-status"


def parse_running(reply: object) -> bool:
    """Whether the VM runs.

    :param reply: the ``return`` member of QEMU's answer.
    :raise ReplyError: it does not say so.
    """
    return Reply(QUERY_RUN_STATE, reply).flag("running")


def parse_run_state(reply: object) -> str:
    """QEMU's word for the state that the VM is in: ``"paused"``, ``"io-error"``.

    :param reply: the ``return`` member of QEMU's answer.
    :raise ReplyError: it does not say so.
    """
    return Reply(QUERY_RUN_STATE, reply).text("status")
