"""HMP ``info network``: what is behind each network card. QMP has no command that tells."""

from __future__ import annotations

import re
from typing import Final

__all__ = ("QUERY_NETWORK", "parse_peers")

QUERY_NETWORK: Final = "info network"

_CARD = re.compile(r"^(\S+): index=\d+,type=nic,")
_PEER = re.compile(r"^ \\ \S+: index=\d+,type=([^,\s]+)")


def parse_peers(reply: object) -> dict[str, frozenset[str]]:
    """The types of the netdevs behind each card, by the card's id: ``{"net0": {"user"}}``.

    :param reply: the ``return`` member of QEMU's answer: text, its lines ending in CRLF.
    """
    found: dict[str, frozenset[str]] = {}
    card = ""
    for line in str(reply).splitlines():
        peer = _PEER.match(line)
        if peer is None:
            match = _CARD.match(line)
            card = match[1] if match else ""
        elif card:
            found[card] = found.get(card, frozenset()) | {peer[1]}
    return found
