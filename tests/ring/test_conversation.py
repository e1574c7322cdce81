"""Driver and reference device talk at random: nothing is lost, changed, doubled or told at the wrong moment."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pytest_virtio.errors import QueueFullError, UsageError
from pytest_virtio.ring.driver import Buffer, Used

from .device import Element, Seen
from .pair import CHAINS, KINDS, TABLES, Kind, pair


class Conversation(RuleBasedStateMachine):
    @initialize(kind=KINDS)
    def begin(self, kind: Kind) -> None:
        self.kind = kind
        both = pair(kind)
        self.ram, self.ring, self.device = both.ram, both.ring, both.device
        self.staged: list[Element] = []
        self.published: deque[Element] = deque()
        self.at_device: list[Element] = []
        self.given_back: deque[tuple[Element, int]] = deque()
        self.held = 0
        self.free_tables = [TABLES + 0x80 * n for n in range(kind.size)]
        self.tables: dict[int, int] = {}
        self.wants_all = True
        self.asked: int | None = 0 if kind.event_idx and not kind.packed else None
        self.suppressed = False

    @rule(chain=CHAINS, indirect=st.booleans())
    def add(self, chain: list[Buffer], indirect: bool) -> None:
        needed = 1 if indirect else len(chain)
        table = self.free_tables[-1] if indirect and self.free_tables else TABLES if indirect else None
        if len(chain) > self.kind.size:
            with pytest.raises(UsageError, match="a chain has 1 to"):
                self.ring.add(chain, table)
        elif needed > self.ring.free:
            with pytest.raises(QueueFullError, match="the queue is full"):
                self.ring.add(chain, table)
        else:
            token = self.ring.add(chain, table)
            self.held += needed
            seen: Seen = [(buffer.address, buffer.length, buffer.device_writes) for buffer in chain]
            assert token not in {element.token for element in self.everything()}
            if indirect:
                self.tables[token] = self.free_tables.pop()
            self.staged.append(Element(token, seen, needed, len(chain) if indirect else 0))

    def everything(self) -> list[Element]:
        returned = [element for element, _ in self.given_back]
        return [*self.staged, *self.published, *self.at_device, *returned]

    @rule()
    def publish(self) -> None:
        descriptors = sum(element.descriptors for element in self.staged)
        entries = descriptors if self.kind.packed else len(self.staged)
        wants = self.ring.publish()
        if not entries:
            assert not wants
        elif self.asked is None:
            assert wants == self.wants_all
        else:
            # 2.7.10.1, 2.8.10: the entry asked for is among those written.
            assert wants == (self.asked < entries)
            self.asked = (self.asked - entries) % (2 * self.kind.size if self.kind.packed else 65536)
        self.published.extend(self.staged)
        self.staged.clear()

    @rule()
    def fetch(self) -> None:
        fetched = self.device.fetch()
        assert fetched == list(self.published)
        self.at_device.extend(fetched)
        self.published.clear()

    @rule(ahead=st.integers(0, 5))
    def ask_for_notification(self, ahead: int) -> None:
        if not self.kind.event_idx or ahead >= self.kind.size:
            return
        self.fetch()
        self.device.ask(ahead)
        self.asked = ahead

    @rule(wanted=st.booleans())
    def want_notifications(self, wanted: bool) -> None:
        if not self.kind.event_idx:
            self.device.want_notifications(wanted)
            self.wants_all = wanted

    @rule(data=st.data(), length=st.integers(0, 2**32 - 1))
    def complete(self, data: st.DataObject, length: int) -> None:
        if not self.at_device:
            return
        if self.kind.in_order:
            count = data.draw(st.integers(1, len(self.at_device)))
            batch, self.at_device = self.at_device[:count], self.at_device[count:]
        else:
            batch = [self.at_device.pop(data.draw(st.integers(0, len(self.at_device) - 1)))]
        waiting = bool(self.given_back)
        interrupts = self.device.complete(batch, length)
        if self.suppressed:
            assert not interrupts
        elif not self.kind.event_idx or not waiting:
            assert interrupts
        # 2.7.9, 2.8.8: skipped buffers count as used completely.
        for element in batch[:-1]:
            self.given_back.append((element, sum(size for _, size, writes in element.seen if writes)))
        self.given_back.append((batch[-1], length))

    @rule()
    def take(self) -> None:
        used = self.ring.take_used()
        if not self.given_back:
            assert used is None
            return
        element, length = self.given_back.popleft()
        assert used == Used(element.token, length)
        self.held -= element.descriptors
        if element.tables:
            self.free_tables.append(self.tables.pop(element.token))

    @rule(suppress=st.booleans())
    def suppress(self, suppress: bool) -> None:
        while self.given_back:
            self.take()
        self.ring.suppress_interrupts(suppress)
        self.suppressed = suppress

    @invariant()
    def descriptors_are_accounted_for(self) -> None:
        assert self.ring.free + self.held == self.kind.size


Conversation.TestCase.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
TestConversation = Conversation.TestCase
