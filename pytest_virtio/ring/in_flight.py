"""The account of chains: staged by the driver, at the device, given back.

Responsible for which chain a token means, and for what one used element says about several chains (virtio 1.3
sections 2.7.9, 2.8.8); must not know how an element is read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

__all__ = ("Chain", "InFlight", "InOrder", "account")

_SHOWN = 8


class Chain(NamedTuple):
    """A chain of the ring.

    :param token: by which the device names it.
    :param descriptors: the ring's descriptors that it takes.
    :param writable: how many bytes the device may write.
    :param raw: the user wrote it by hand.
    """

    token: int
    descriptors: Sequence[int]
    writable: int
    raw: bool = False


class InFlight:
    """Chains that come back in any order, each by its own element."""

    def __init__(self) -> None:
        """Start with nothing. ``staged``: added, but not published; ``due``: given back, but not taken."""
        self.staged: list[Chain] = []
        self.due = 0
        self._named = self._length = 0
        self._chains: dict[int, list[Chain]] = {}
        self._count = 0

    def __len__(self) -> int:
        """How many chains the device has."""
        return self._count

    def hand_over(self) -> None:
        """Count all staged chains as the device's."""
        for chain in self.staged:
            self._put(chain)
        self._count += len(self.staged)
        self.staged.clear()

    def batch(self, token: int) -> int:
        """Say how many chains the device gives back by naming this one; 0 when it doesn't have it."""
        return 1 if token in self._chains else 0

    def give_back(self, token: int, length: int, chains: int) -> None:
        """Note that the device has given back a batch of so many chains, which ends with this one; now they are due."""
        self.due, self._named, self._length = chains, token, length

    def take(self) -> tuple[Chain, int]:
        """Take the next chain that is due, and how many bytes of it were written."""
        self.due -= 1
        self._count -= 1
        chain = self._pop(self._named)
        return chain, chain.writable if self.due else self._length

    def expected(self) -> str:
        """Say which tokens would have been right, for a message."""
        first = list(islice(self._tokens(), _SHOWN))
        listed = ", ".join(map(str, first))
        return f"one that the device has: {listed}{', …' if self._count > _SHOWN else ''}" if first else "none"

    def _put(self, chain: Chain) -> None:
        # More than one only if the user exposed a head again.
        self._chains.setdefault(chain.token, []).append(chain)

    def _pop(self, token: int) -> Chain:
        same = self._chains[token]
        chain = same.pop(0)
        if not same:
            del self._chains[token]
        return chain

    def _tokens(self) -> Iterator[int]:
        return iter(self._chains)


class InOrder(InFlight):
    """Chains that come back as they went; an element stands for its chain and all before it."""

    def __init__(self) -> None:
        super().__init__()
        self._queue: deque[Chain] = deque()

    def batch(self, token: int) -> int:
        for position, chain in enumerate(self._queue, 1):
            if chain.token == token:
                return position
        return 0

    def _put(self, chain: Chain) -> None:
        self._queue.append(chain)

    def _pop(self, token: int) -> Chain:
        return self._queue.popleft()

    def _tokens(self) -> Iterator[int]:
        return (chain.token for chain in self._queue)


def account(in_order: bool) -> InFlight:
    """Make the account for a queue with or without VIRTIO_F_IN_ORDER."""
    return InOrder() if in_order else InFlight()
