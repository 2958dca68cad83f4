"""Counters, gauges and histograms in the time of the events."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelbridge.records import WINDOW_NS, Attributes, Histogram, MetricPoint
from tests.engine.builders import RECORDINGS, Live, S, batches, lines, rules, run, shipped, text_of

W = WINDOW_NS // S
"""Seconds of a window. Streams here begin with one."""
TRANSFERRED = "migrate_transferred transferred {} time_spent 100 bandwidth {} max_size 31621200"
MACHINE = """
machines:
  m:
    event: migrate_set_state
    state: new_state
    start: {source: [setup]}
    final: {completed: unset, failed: {error: failed}}
    attributes: {state: state}
    active: active
    completed: {counter: done, by: [state]}
    duration: {histogram: whole, by: [state]}
    states: {attributes: {state: state}, duration: {histogram: part, by: [state]}}
"""


def of(points: list[MetricPoint], name: str) -> list[tuple[float, object]]:
    """Time in seconds and value of each point of a metric."""
    return [(p.time_ns / S, p.value) for p in points if p.metric.name == name]


def test_a_counter_counts_its_events_window_by_window() -> None:
    rule = 'metrics: {c: {counter: migration_throttle, unit: "{x}", description: Throttles.}}'
    seen = run(rule, lines(*((t, 1, "migration_throttle ") for t in (10.1, 10.2, 11.5 + W, 10.25 + 4 * W))))
    assert of(seen.points, "c") == [(10 + W, 2), (10 + 2 * W, 3), (10.25 + 4 * W, 4)]
    assert {p.start_ns for p in seen.points} == {10 * S}
    metric = seen.last("c").metric
    assert (metric.kind, metric.unit, metric.monotonic, metric.description) == ("sum", "{x}", True, "Throttles.")


@pytest.mark.parametrize("other", ["", "spans: {s: {begin: migrate_transferred, until: next}}\n"])
def test_a_sum_is_the_same_from_counted_lines_and_from_rows(other: str) -> None:
    """Another rule that needs the event one by one changes nothing in the counter."""
    rule = other + "metrics: {c: {counter: migrate_transferred, add: [transferred, tranferred], unit: By}}"
    events = [(10 + n * W / 4, 1, TRANSFERRED.format(2**62 + n, 7)) for n in range(9)]
    seen = run(rule, lines(*events))
    assert of(seen.points, "c") == [(10 + W, 4 * 2**62 + 6), (10 + 2 * W, 8 * 2**62 + 28), (10 + 2 * W + 1e-9, 9 * 2**62 + 36)]


@given(st.lists(st.tuples(st.integers(1, int(3000 * W)), st.integers(0, 2**64 - 1)), min_size=1, max_size=40))
def test_counted_lines_and_rows_agree_whatever_comes(steps: list[tuple[int, int]]) -> None:
    counter = "metrics: {c: {counter: migrate_transferred, add: [transferred, tranferred], unit: By}}"
    now, events = 10_000, []
    for step, amount in steps:
        now += step
        events.append((now / 1000, 1, TRANSFERRED.format(amount, 1)))
    log = lines(*events)
    from_rows = run("spans: {s: {begin: migrate_transferred, until: next}}\n" + counter, log)
    from_counts = run(counter, log)
    assert of(from_counts.points, "c") == of(from_rows.points, "c")
    assert of(from_counts.points, "c")[-1][1] == sum(amount for _, amount in steps)


def test_a_gauge_is_what_came_last_in_each_second() -> None:
    """It is told more often than sums are: what it was in between could not be known later."""
    rule = "metrics: {g: {gauge: migrate_transferred, set: bandwidth * 1000, unit: By/s}}"
    events = [(10.1, 1, TRANSFERRED.format(1, 5)), (10.9, 1, TRANSFERRED.format(1, 6)), (12.5, 1, TRANSFERRED.format(1, 3))]
    seen = run(rule, lines(*events))
    assert of(seen.points, "g") == [(11, 6000), (12.5, 3000)]
    assert seen.last("g").metric.kind == "gauge"


def test_a_gauge_does_not_wait_for_the_next_event_that_a_rule_needs() -> None:
    """After the last migration nothing but counted events may come for a long time."""
    rule = "metrics: {g: {gauge: migrate_transferred, set: bandwidth, unit: By/s}}"
    live = Live(rules(rule))
    data = lines((10.1, 1, TRANSFERRED.format(1, 5)), *((10.0 + n * W, 1, "migrate_fd_cancel ") for n in range(1, 4)))
    for batch in batches(rules(rule), [text_of(data)]):
        live.feed(batch)
    assert of(live.points, "g") == [(11, 5)]


def test_a_histogram_records_an_expression_under_a_condition() -> None:
    rule = "metrics: {h: {histogram: migrate_transferred, record: bandwidth + 1, when: bandwidth > 1, unit: By/s}}"
    seen = run(rule, lines(*((10 + n / 10, 1, TRANSFERRED.format(1, n)) for n in range(5))))
    (value,) = [v for _, v in of(seen.points, "h")]
    assert isinstance(value, Histogram)
    assert (value.count, value.sum, value.min, value.max) == (3, 12, 3, 5)
    assert seen.buckets() == {"metric": 3, "counted": 2}


def test_several_rules_may_feed_one_metric() -> None:
    rule = """
metrics:
  c:
    - {counter: migration_throttle, unit: "{x}", attributes: {kind: {value: one}}, description: Things.}
    - {counter: migrate_transferred, add: bandwidth, unit: "{x}", attributes: {kind: {value: two}}}
"""
    seen = run(rule, lines((10, 1, "migration_throttle "), (10.1, 1, TRANSFERRED.format(1, 5))))
    assert (seen.last("c", kind="one").value, seen.last("c", kind="two").value) == (1, 5)
    assert seen.last("c", kind="one").metric == seen.last("c", kind="two").metric


def test_every_event_is_counted_by_its_name_mapped_or_not() -> None:
    rule = 'metrics: {c: {counter: migration_throttle, unit: "{x}"}}'
    log = lines(
        *((10 + n, 1, "migration_throttle ") for n in range(3)), (13, 1, "migrate_fd_cancel "), (14, 1, "no_event_of_qemu x")
    )
    seen = run(rule, log)
    assert seen.last("qemu.trace.events", qemu__event="migration_throttle").value == 3
    assert seen.last("qemu.trace.events", qemu__event="migrate_fd_cancel").value == 1
    assert seen.accounting.events == {"migration_throttle": 3, "migrate_fd_cancel": 1}


# --- lengths ------------------------------------------------------------------------------------------------


def test_lengths_are_in_seconds_with_the_longest_span_of_the_window_as_exemplar() -> None:
    rule = "spans: {s: {begin: migration_bitmap_sync_start, end: migration_bitmap_sync_end, duration: {histogram: h}}}"
    lengths = [(10.1, 0.2), (10.4, 0.5), (10.1 + W, 0.3)]
    events = [
        event
        for begin, length in lengths
        for event in (
            (begin, 1, "migration_bitmap_sync_start "),
            (begin + length, 1, "migration_bitmap_sync_end dirty_pages 1"),
        )
    ]
    seen = run(rule, lines(*events))
    first, last = (p for p in seen.points if p.metric.name == "h")
    assert isinstance(first.value, Histogram)
    assert isinstance(last.value, Histogram)
    assert [first.value.count, first.value.sum, first.value.max] == pytest.approx([2, 0.7, 0.5])
    assert [last.value.count, last.value.sum, last.value.max] == pytest.approx([3, 1.0, 0.5])
    assert first.metric.unit == "s"
    (exemplar,) = first.exemplars
    slowest = seen.spans[1]
    assert exemplar == (slowest.end_ns, 0.5, slowest.trace_id, slowest.span_id)
    assert [e.span_id for e in last.exemplars] == [seen.spans[2].span_id]


def test_lengths_of_migrations_and_states_are_kept_apart_by_attributes_of_the_span() -> None:
    states = [(10.0, "setup"), (10.5, "active"), (12.0, "completed"), (13.0, "setup"), (13.25, "failed")]
    seen = run(MACHINE, lines(*((t, 1, f"migrate_set_state new state {s}") for t, s in states)))
    sums = {(p.metric.name, p.attributes): p.value.sum for p in seen.points if isinstance(p.value, Histogram)}
    assert sums == {
        ("part", (("state", "setup"),)): 0.75,
        ("part", (("state", "active"),)): 1.5,
        ("whole", (("state", "completed"),)): 2.0,
        ("whole", (("state", "failed"),)): 0.25,
    }
    assert seen.last("done", state="completed").value == seen.last("done", state="failed").value == 1


@pytest.mark.parametrize("last", ["completed", "failed", None])
def test_the_number_of_open_migrations_goes_back_to_zero(last: str | None) -> None:
    """However it ends: at the end of a stream nothing of it is open any more."""
    states = [(10.0, "setup"), (10 + 2 * W, "active"), *([(10 + 3 * W, last)] if last else [])]
    events = [(t, 1, f"migrate_set_state new state {s}") for t, s in states]
    seen = run(MACHINE, lines(*events, (10 + 5 * W, 1, "migrate_fd_cancel ")))
    values = [v for _, v in of(seen.points, "active")]
    assert values == [1, 0]
    assert (seen.last("active").metric.kind, seen.last("active").metric.monotonic) == ("sum", False)


# --- negative values ----------------------------------------------------------------------------------------

AMOUNTS = lines(*((10 + n, 1, f"savevm_section_end s, section_id 1 -> {ret}") for n, ret in enumerate((-5, 3, -7, 4))))


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ("counter: savevm_section_end, add: ret", 7),
        ("counter: savevm_section_end, add: ret * 1", 7),
        ("counter: savevm_section_end, add: ret, when: section_id == 1", 7),
        ("counter: savevm_section_end, add: ret, attributes: {n: section_id}", 7),
        ("gauge: savevm_section_end, set: ret", 4),
    ],
)
def test_a_counter_never_goes_down_and_what_it_does_not_take_is_told(rule: str, value: int) -> None:
    mapping = rules(f"metrics: {{c: {{{rule}, unit: x}}}}")
    live = Live(mapping)
    for batch in batches(mapping, [text_of(AMOUNTS)]):
        live.feed(batch)
    live.finish()
    assert [p.value for p in live.points if p.metric.name == "c"][-1] == value
    assert live.engine.left_out == ({} if rule.startswith("gauge") else {"c": 2})


def test_a_histogram_takes_no_negative_value() -> None:
    mapping = rules("metrics: {h: {histogram: savevm_section_end, record: ret, unit: x}}")
    live = Live(mapping)
    for batch in batches(mapping, [text_of(AMOUNTS)]):
        live.feed(batch)
    live.finish()
    value = next(p.value for p in reversed(live.points) if p.metric.name == "h")
    assert isinstance(value, Histogram)
    assert (value.count, value.sum, value.min, value.zero_count) == (2, 7, 3, 0)
    assert live.engine.left_out == {"h": 2}


# --- bounds -------------------------------------------------------------------------------------------------


def test_beyond_the_limit_series_go_into_one_and_nothing_is_lost() -> None:
    """As the specification has it: with a limit of 4, three series and the overflow."""
    rule = "metrics: {c: {counter: savevm_section_start, unit: x, limit: 4, attributes: {n: section_id}}}"
    seen = run(rule, lines(*((10 + n / 100, 1, f"savevm_section_start s, section_id {n % 7}") for n in range(21))))
    overflow: Attributes = (("otel.metric.overflow", True),)
    last = {p.attributes: p.value for p in seen.points if p.metric.name == "c"}
    assert last == {(("n", 0),): 3, (("n", 1),): 3, (("n", 2),): 3, overflow: 12}


def test_lengths_beyond_the_limit_too() -> None:
    rule = """
spans:
  s: {begin: savevm_section_start, end: savevm_section_end, key: [section_id], attributes: {n: section_id},
      duration: {histogram: h, by: [n], limit: 2}}
"""
    events = [
        event
        for n in range(5)
        for event in (
            (10 + n, 1, f"savevm_section_start s, section_id {n}"),
            (10.5 + n, 1, f"savevm_section_end s, section_id {n} -> 0"),
        )
    ]
    seen = run(rule, lines(*events))
    counts = {p.attributes: p.value.count for p in seen.points if isinstance(p.value, Histogram)}
    assert counts == {(("n", 0),): 1, (("otel.metric.overflow", True),): 4}


# --- all points -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "log", ["debian-7.2/precopy-busy/src.log", "debian-7.2/cancelled/dst.log", "qemu-10.2.0-log/multifd-tls/src.log"]
)
def test_points_of_a_real_stream_are_cumulative_and_their_times_only_grow(log: str) -> None:
    """A backend refuses a point that is not newer than the last, or a counter that goes back."""
    data = (RECORDINGS / log).read_bytes()
    seen = run(shipped(), data)
    series: dict[tuple[str, Attributes], list[MetricPoint]] = defaultdict(list)
    for point in seen.points:
        series[point.metric.name, point.attributes].append(point)
    for points in series.values():
        times = [p.time_ns for p in points]
        assert times == sorted(set(times))
        assert len({p.start_ns for p in points}) == 1
        assert all(p.start_ns <= p.time_ns for p in points)
        if points[0].metric.monotonic:
            values = [p.value for p in points]
            assert all(isinstance(a, int) and isinstance(b, int) and a <= b for a, b in pairwise(values))
        if points[0].metric.kind == "histogram":
            counts = [p.value.count for p in points if isinstance(p.value, Histogram)]
            assert counts == sorted(counts)
    last = [points[-1].value for (name, _), points in series.items() if name == "qemu.trace.events"]
    assert sum(value for value in last if isinstance(value, int)) == data.count(b"\n")
