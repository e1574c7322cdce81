"""A ring from guest RAM as a few lines of text.

Responsible for choosing what of a ring is worth a line; must not know how it was read, nor judge it.
"""

from __future__ import annotations

from collections.abc import Iterator

from pytest_virtio.model.queue import VirtioRingDesc
from pytest_virtio.model.ring import ElementState, Ring, RingElement
from pytest_virtio.render.text import safe

__all__ = ("ring_picture",)

SHOWN = 4
"""Elements of a state, from the oldest on; the others are counted."""
DESCS_SHOWN = 4
_WORDS: dict[ElementState, str] = {
    "in_flight": "in flight",
    "pending": "pending",
    "outstanding": "in flight or pending",
}


def ring_picture(ring: Ring) -> Iterator[str]:
    """Yield the lines: indices and counts, what is outstanding, what is wrong. An idle ring takes one."""
    kind = "packed" if ring.packed else "split"
    yield f"  ring ({kind}, {ring.num} entries): {', '.join([*_indices(ring), *_counts(ring)])}"
    for state, words in _WORDS.items():
        yield from _elements(ring.in_state(state), words)
    yield from _elements(ring.candidates, "perhaps")
    for fault in ring.faults:
        yield f"    wrong: {safe(fault)}"


def _indices(ring: Ring) -> Iterator[str]:
    for name in ("avail_idx", "last_avail_idx", "used_idx", "used_event", "avail_event"):
        value = getattr(ring, name)
        if value is not None:
            yield f"{name} {value}"
    if ring.no_interrupt:
        yield "the driver wants no interrupts"
    if ring.no_notify:
        yield "the device wants no kicks"


def _counts(ring: Ring) -> Iterator[str]:
    some = [f"{len(ring.in_state(state))} {words}" for state, words in _WORDS.items() if ring.in_state(state)]
    if ring.untold:
        some.append(f"{ring.untold} {_untold(ring)}")
    yield from some or (["idle"] if ring.count == 0 else [])


def _untold(ring: Ring) -> str:
    words = _WORDS["outstanding" if ring.last_avail_idx is None else "in_flight"]
    return f"{words} ({'which one' if ring.untold == 1 else 'which ones'} the rings no longer tell)"


def _elements(elements: tuple[RingElement, ...], words: str) -> Iterator[str]:
    for element in elements[:SHOWN]:
        table = " (indirect)" if element.indirect else ""
        yield f"    {words}: head {element.head} in slot {element.slot}{table}: {_descs(element.descs)}"
        for fault in element.faults:
            yield f"      wrong: {safe(fault)}"
    if len(elements) > SHOWN:
        yield f"    and {len(elements) - SHOWN} more {words}"


def _descs(descs: tuple[VirtioRingDesc, ...]) -> str:
    shown = [f"{desc.addr:#x}+{desc.len}{' write' if 'write' in desc.flags else ''}" for desc in descs[:DESCS_SHOWN]]
    return ", ".join([*shown, *([f"and {len(descs) - DESCS_SHOWN} more"] if len(descs) > DESCS_SHOWN else [])]) or "-"
