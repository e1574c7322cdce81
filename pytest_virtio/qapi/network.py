"""HMP ``info network``: what is behind each network card. QMP has no command that tells."""

from __future__ import annotations

import re
from typing import Final

__all__ = ("QUERY_NETWORK", "parse_peers")

QUERY_NETWORK: Final = "info network"

_CARD = re.compile(r"^\S+: index=\d+,type=nic,")
_PEER = re.compile(r"^ \\ (\S+): index=\d+,type=([^,\s]+)")


def parse_peers(reply: object) -> dict[str, frozenset[str]]:
    """The types of the netdevs behind cards, by the netdev's id, which its queues share: ``{"n": {"user"}}``.

    :param reply: the ``return`` member of QEMU's answer: text, its lines ending in CRLF.
    """
    found: dict[str, frozenset[str]] = {}
    of_card = False
    for line in str(reply).splitlines():
        peer = _PEER.match(line)
        if peer is None:
            of_card = _CARD.match(line) is not None
        elif of_card:
            id, type = peer.groups()
            found[id] = found.get(id, frozenset()) | {type}
    return found
