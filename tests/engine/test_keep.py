"""Only the slowest of many go out; the histogram sees all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelbridge.records import Histogram
from tests.engine.builders import Seen, attribute, incomplete, length_ms, lines, run

RULE = """
machines:
  m: {event: migrate_set_state, state: new_state, start: {destination: [active]}, final: {completed: unset}}
spans:
  fault:
    inside: m
    begin: savevm_send_ping
    end: source_return_path_thread_pong
    key: [{value: val}]
    repeated_begin: queue
    attributes: {number: val}
    keep: {slowest: 3, per: m}
    duration: {histogram: h}
"""
Event = tuple[float, int, str]


def fault(number: int, begin_s: float, length_ms: int | None) -> list[Event]:
    begin: list[Event] = [(begin_s, 1, f"savevm_send_ping 0x{number:x}")]
    if length_ms is None:
        return begin
    return [*begin, (begin_s + length_ms / 1000, 1, f"source_return_path_thread_pong 0x{number:x}")]


def migration(*faults: list[Event], start_s: float = 10.0, end_s: float | None = 19.0) -> list[Event]:
    events: list[Event] = [(start_s, 1, "migrate_set_state new state active"), *sorted(e for f in faults for e in f)]
    return [*events, (end_s, 1, "migrate_set_state new state completed")] if end_s else events


def kept(seen: Seen) -> list[object]:
    return [attribute(s, "number") for s in seen.named("fault")]


def histogram(seen: Seen) -> Histogram:
    value = seen.last("h").value
    assert isinstance(value, Histogram)
    return value


def test_the_slowest_go_out_in_the_order_of_their_begins() -> None:
    lengths = [50, 400, 10, 300, 200, 20]
    seen = run(RULE, lines(*migration(*(fault(n, 11 + n, length) for n, length in enumerate(lengths)))))
    assert kept(seen) == [1, 3, 4]
    assert [length_ms(s) for s in seen.named("fault")] == [400, 300, 200]


def test_the_histogram_has_all_of_them_and_what_was_not_kept_is_counted() -> None:
    lengths = [50, 400, 10, 300, 200, 20]
    seen = run(RULE, lines(*migration(*(fault(n, 11 + n, length) for n, length in enumerate(lengths)))))
    state = histogram(seen)
    assert (state.count, state.min, state.max) == (6, 0.01, 0.4)
    assert state.sum == pytest.approx(0.98)
    assert seen.accounting.not_kept == 3
    assert seen.accounting.finished == len(seen.spans) + 3


def test_of_equally_slow_ones_the_first_stay() -> None:
    seen = run(RULE, lines(*migration(*(fault(n, 11 + n, 100) for n in range(6)))))
    assert kept(seen) == [0, 1, 2]


def test_an_exemplar_points_to_a_span_that_goes_out() -> None:
    """The one that was measured may not be kept, so it is the migration's."""
    seen = run(RULE, lines(*migration(*(fault(n, 11 + n, 100 + n) for n in range(6)))))
    out = {s.span_id for s in seen.spans}
    exemplars = [e for p in seen.points if p.metric.name == "h" for e in p.exemplars]
    assert exemplars
    assert all(e.span_id in out for e in exemplars)
    assert max(e.value for e in exemplars) == 0.105


def test_each_migration_has_its_own() -> None:
    first = migration(*(fault(n, 11 + n / 10, 10 + n) for n in range(5)), end_s=12)
    second = migration(*(fault(n, 21 + n / 10, 90 - n) for n in range(5)), start_s=20, end_s=22)
    seen = run(RULE, lines(*first, *second))
    assert kept(seen) == [2, 3, 4, 0, 1, 2]


def test_spans_without_an_end_go_out_only_where_there_are_too_few_others() -> None:
    """Nobody knows how long they were, so they displace nothing."""
    open_ones = [fault(n, 11 + n / 10, None) for n in range(3)]
    some = run(RULE, lines(*migration(*open_ones, fault(8, 12, 5), fault(9, 13, 5))))
    assert [(attribute(s, "number"), incomplete(s)) for s in some.named("fault")] == [(0, True), (8, False), (9, False)]
    many = run(RULE, lines(*migration(*open_ones, *(fault(10 + n, 12 + n, 5) for n in range(4)))))
    assert kept(many) == [10, 11, 12]
    assert many.accounting.finished == len(many.spans) + many.accounting.not_kept
    assert histogram(many).count == 4


def test_what_was_held_back_goes_out_at_the_end_of_a_stream_without_a_last_state() -> None:
    lengths = [50, 400, 10, 300]
    seen = run(RULE, lines(*migration(*(fault(n, 11 + n, length) for n, length in enumerate(lengths)), end_s=None)))
    assert kept(seen) == [0, 1, 3]


def test_what_ends_after_its_migration_goes_out_or_is_counted_once() -> None:
    events = [*migration(fault(1, 11, 5), fault(2, 12, None), end_s=13), (14.0, 1, "source_return_path_thread_pong 0x2")]
    seen = run(RULE, lines(*events))
    assert [(attribute(s, "number"), incomplete(s)) for s in seen.named("fault")] == [(1, False), (2, True)]
    assert seen.buckets()["orphan_end"] == 1


@given(st.lists(st.one_of(st.integers(1, 900), st.none()), max_size=25), st.booleans())
def test_the_sums_agree_whatever_comes(lengths: list[int | None], ends: bool) -> None:
    events = migration(*(fault(n, 11 + n / 7, length) for n, length in enumerate(lengths)), end_s=19 if ends else None)
    seen = run(RULE, lines(*events))
    complete = sorted((n for n in lengths if n is not None), reverse=True)
    assert seen.accounting.finished == len(seen.spans) + seen.accounting.not_kept
    assert seen.accounting.finished == len(lengths) + 2
    assert len(kept(seen)) == min(3, len(lengths))
    going = sorted((round(length_ms(s)) for s in seen.named("fault") if not incomplete(s)), reverse=True)
    assert going == complete[:3]
