"""Reports that travel with exceptions."""

from __future__ import annotations

from pytest_virtio.handle import Evidence, Section
from pytest_virtio.plugin.carried import carry, reports_with

REPORT = Evidence((Section("virtio: verdict", "text"),))
OTHER = Evidence((Section("virtio: verdict", "other"),))


def test_an_exception_carries_any_number() -> None:
    error = ValueError()
    assert reports_with(error) == []
    carry(error, REPORT)
    carry(error, OTHER)
    assert reports_with(error) == [REPORT, OTHER]


def test_what_is_linked_counts() -> None:
    inner = KeyError()
    carry(inner, REPORT)
    cause, context = OSError(), OSError()
    cause.__cause__, context.__context__ = inner, inner
    group = BaseExceptionGroup("several", [ValueError(), ExceptionGroup("nested", [inner])])
    assert [reports_with(error) for error in (cause, context, group)] == [[REPORT]] * 3


def test_a_circle_ends() -> None:
    one, two = ValueError(), ValueError()
    one.__context__, two.__context__ = two, one
    carry(two, REPORT)
    assert reports_with(one) == [REPORT]
