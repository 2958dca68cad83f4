"""The service's counters: totals that survive, series that are bounded, names that are known."""

from __future__ import annotations

import json
import threading

import pytest

from otelbridge.service.counters import BOUNDS_S, OVERFLOW, Counters
from otelbridge.stats import STATS, Distribution, Reading

TORN = "otelbridge.reader.lines_torn"
DELIVERED = "otelbridge.export.spans_delivered"
DELAY = "otelbridge.reader.delay"
LATENCY = "otelbridge.export.latency"
LEFT_OUT = "otelbridge.telemetry.values_left_out"


def test_a_sum_grows_series_by_series() -> None:
    counters = Counters()
    counters.add(DELIVERED, 3, destination="tempo")
    counters.add(DELIVERED, 4, destination="jaeger")
    counters.add(DELIVERED, destination="tempo")
    assert dict(counters.read(DELIVERED)) == {(("destination", "tempo"),): 4, (("destination", "jaeger"),): 4}
    assert counters.total(DELIVERED) == 8


def test_a_sum_is_shown_before_anything_happened() -> None:
    """Otherwise the first loss makes no step that an alert could see."""
    counters = Counters()
    assert counters.read(TORN) == (Reading((), 0),)
    counters.add(DELIVERED, 0, destination="tempo")
    assert counters.read(DELIVERED) == (Reading((("destination", "tempo"),), 0),)


def test_every_row_of_the_table_can_be_read() -> None:
    assert list(Counters().values()) == [stat.name for stat in STATS]


def test_a_gauge_is_what_was_set_last_until_its_input_is_gone() -> None:
    counters = Counters()
    counters.set(DELAY, 5, input="a.log")
    counters.set(DELAY, 2.5, input="a.log")
    counters.set(DELAY, 1, input="b.log")
    counters.set("otelbridge.reader.files_followed", 2)
    assert counters.read(DELAY) == (Reading((("input", "a.log"),), 2.5), Reading((("input", "b.log"),), 1))
    counters.forget(input="a.log")
    assert counters.read(DELAY) == (Reading((("input", "b.log"),), 1),)
    assert counters.total("otelbridge.reader.files_followed") == 2


def test_a_histogram_counts_a_value_at_a_bound_below_it() -> None:
    """The upper bound belongs to the bucket, as OTLP has it."""
    counters = Counters()
    for value in (0.001, 0.005, 0.0051, 100.0):
        counters.record(LATENCY, value, destination="tempo", signal="traces")
    ((key, spread),) = counters.read(LATENCY)
    assert key == (("destination", "tempo"), ("signal", "traces"))
    assert isinstance(spread, Distribution)
    assert spread.bounds == BOUNDS_S
    assert spread.buckets[:3] == (2, 1, 0)
    assert spread.buckets[-1] == 1
    assert (spread.min, spread.max, spread.sum) == (0.001, 100.0, pytest.approx(100.0111))


def test_what_the_table_does_not_have_is_a_bug() -> None:
    counters = Counters()
    with pytest.raises(KeyError):
        counters.add("otelbridge.reader.lines_eaten")
    with pytest.raises(ValueError, match=r"lines_torn is a sum, not a gauge"):
        counters.set(TORN, 1)
    with pytest.raises(ValueError, match=r"lines_torn has no attribute input; it has none"):
        counters.add(TORN, input="a.log")
    with pytest.raises(ValueError, match=r"only grows; -1"):
        counters.add(TORN, -1)


def test_the_series_of_a_sum_are_bounded_and_none_is_lost() -> None:
    counters = Counters(limit=3)
    for number in range(100):
        counters.add(DELIVERED, destination=f"d{number}")
        counters.record(LATENCY, 1.0, destination=f"d{number}")
    assert dict(counters.read(DELIVERED)) == {(("destination", "d0"),): 1, (("destination", "d1"),): 1, OVERFLOW: 98}
    assert counters.total(DELIVERED) == 100
    assert len(counters.read(LATENCY)) == 3


def test_gauges_beyond_the_bound_are_left_out_and_counted() -> None:
    counters = Counters(limit=3)
    for number in range(10):
        counters.set(DELAY, number, input=f"{number}.log")
    assert len(counters.read(DELAY)) == 3
    assert counters.total(LEFT_OUT) == 7
    counters.forget(input="0.log")
    counters.set(DELAY, 9, input="9.log")
    assert (("input", "9.log"),) in dict(counters.read(DELAY))


def test_totals_continue_after_a_restart() -> None:
    """By way of JSON, with their owner and their begin; gauges are of the moment."""
    before = Counters("one", 1_000)
    before.add(TORN, 2)
    before.add(DELIVERED, 5, destination="tempo")
    before.record(LATENCY, 0.2, destination="tempo", signal="traces")
    before.set(DELAY, 3, input="a.log")
    after = Counters("two", 2_000)
    after.restore(json.loads(json.dumps(before.snapshot())))
    assert (after.instance, after.since_ns) == ("one", 1_000)
    after.add(TORN)
    after.add(DELIVERED, destination="tempo")
    after.record(LATENCY, 0.4, destination="tempo", signal="traces")
    assert after.total(TORN) == 3
    assert dict(after.read(DELIVERED)) == {(("destination", "tempo"),): 6}
    ((_, spread),) = after.read(LATENCY)
    assert isinstance(spread, Distribution)
    assert (sum(spread.buckets), spread.min, spread.max) == (2, 0.2, 0.4)
    assert after.read(DELAY) == ()


def test_totals_of_counters_that_are_no_more_do_not_stop_the_start() -> None:
    state = Counters("one", 1_000).snapshot()
    state["sums"] = [["otelbridge.reader.lines_eaten", {}, 4], [TORN, {}, 2], [DELAY, {}, 2]]
    state["histograms"] = [[LATENCY, {}, {"bounds": [1], "buckets": [1, 2], "sum": 1, "min": 0, "max": 1}]]
    counters = Counters()
    counters.restore(state)
    assert counters.total(TORN) == 2
    assert counters.read(DELAY) == counters.read(LATENCY) == ()


def test_no_count_is_lost_between_threads() -> None:
    counters = Counters()

    def count() -> None:
        for _ in range(2_000):
            counters.add(TORN)
            counters.record(LATENCY, 0.1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        counters.snapshot()
    assert counters.total(TORN) == 8_000
    ((_, spread),) = counters.read(LATENCY)
    assert isinstance(spread, Distribution)
    assert sum(spread.buckets) == 8_000
