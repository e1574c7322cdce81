"""The bounded log, against a plain record of the whole stream."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from pytest_virtio.vm.log import Log

chunks = st.lists(st.binary(max_size=12), max_size=30)


@given(chunks, st.integers(0, 8), st.integers(1, 8), st.integers(0, 400))
def test_what_is_kept_is_the_streams_own(data: list[bytes], head: int, tail: int, offset: int) -> None:
    log, whole = Log(head, tail), b"".join(data)
    for chunk in data:
        log.append(chunk)
    assert log.size == len(whole)
    assert len(whole) - log.kept_from >= min(tail, len(whole))
    if offset >= log.kept_from:
        assert log.since(offset) == whole[offset:]
    else:
        assert log.since(offset) == whole[offset : min(head, log.kept_from)] + whole[log.kept_from :]


@given(chunks, st.integers(0, 8), st.integers(1, 8))
def test_text_says_what_is_missing(data: list[bytes], head: int, tail: int) -> None:
    log, whole = Log(head, tail), b"".join(data)
    for chunk in data:
        log.append(chunk)
    missing = len(whole) - head - tail
    if missing <= 0:
        assert log.text() == whole
    else:
        assert log.text() == whole[:head] + b"\n[... %d bytes not kept ...]\n" % missing + whole[-tail:]


@given(st.integers(1, 40), st.integers(1, 8))
def test_memory_is_bounded(count: int, tail: int) -> None:
    log = Log(4, tail)
    for _ in range(count):
        log.append(b"12345")
    assert len(log.since(0)) <= 4 + 2 * tail + 5


class Chunk(bytes):
    """Bytes that have somebody else look at the log while they are being taken in."""

    def __new__(cls, data: bytes, look: threading.Thread) -> Chunk:
        chunk = super().__new__(cls, data)
        chunk.look = look
        return chunk

    look: threading.Thread

    def __len__(self) -> int:
        if self.look.ident is None:
            self.look.start()
            self.look.join(0.05)
        return super().__len__()


def test_a_reader_in_another_thread_sees_all_of_a_chunk_or_nothing() -> None:
    log, seen = Log(0, 1024), list[bytes]()
    log.append(b"before ")
    look = threading.Thread(target=lambda: seen.append(log.since(3)))
    log.append(Chunk(b"after", look))
    look.join(10)
    assert seen in ([b"ore "], [b"ore after"])
