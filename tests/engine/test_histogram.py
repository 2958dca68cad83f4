"""The exponential histogram against the specification and the SDK's own mappings."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics._internal.exponential_histogram.mapping.exponent_mapping import ExponentMapping
from opentelemetry.sdk.metrics._internal.exponential_histogram.mapping.logarithm_mapping import LogarithmMapping

from otelbridge.engine.histogram import MAX_SIZE, ExponentialHistogram, _index

VALUES = st.floats(min_value=1e-12, max_value=1e12)


def of(values: list[float]) -> ExponentialHistogram:
    histogram = ExponentialHistogram()
    for value in values:
        histogram.record(value)
    return histogram


@given(VALUES, st.integers(1, 20))
def test_an_index_is_the_sdks(value: float, scale: int) -> None:
    """The bucket of a value is the one that the SDK finds, but for the rounding of logarithms at a border."""
    assert abs(_index(value, scale) - LogarithmMapping(scale).map_to_index(value)) <= 1


@pytest.mark.parametrize("scale", [0, -1, -4])
@given(VALUES)
def test_a_coarse_index_is_the_sdks(scale: int, value: float) -> None:
    """At scale 0 and below no logarithm is needed, and the bucket is exact."""
    assert _index(value, scale) == ExponentMapping(scale).map_to_index(value)


@given(st.integers(-40, 40), st.integers(-4, 20))
def test_a_power_of_two_is_the_upper_bound_of_its_bucket(exponent: int, scale: int) -> None:
    """base**i < value <= base**(i+1), so an exact bound belongs to the lower bucket."""
    bound = math.ldexp(1.0, exponent)
    index = _index(bound, scale)
    base_log2 = 2.0**-scale
    assert index * base_log2 < exponent <= (index + 1) * base_log2


@given(st.lists(VALUES, min_size=1, max_size=300))
def test_nothing_is_lost_and_the_size_is_bounded(values: list[float]) -> None:
    """Counts add up, the range is kept, and there are never more than 160 buckets."""
    state = of(values).value()
    assert state.count == len(values) == sum(state.buckets) + state.zero_count
    assert len(state.buckets) <= MAX_SIZE
    assert (state.min, state.max) == (min(values), max(values))
    assert state.buckets[0] > 0
    assert state.buckets[-1] > 0


@given(st.lists(VALUES, min_size=1, max_size=200))
def test_every_value_lies_in_a_counted_bucket(values: list[float]) -> None:
    """After any coarsening a value's bucket is where the specification's formula puts it."""
    state = of(values).value()
    counted = {state.offset + place for place, number in enumerate(state.buckets) if number}
    for value in values:
        index = _index(value, state.scale)
        # At a border a logarithm may be rounded either way.
        assert counted & {index - 1, index, index + 1}


def test_zero_and_negative_lengths_count_as_zero() -> None:
    """A clock that steps back gives no negative length."""
    state = of([0.0, -1.0, 1.0]).value()
    assert (state.zero_count, state.count, state.sum, state.min) == (2, 3, 1.0, 0.0)


@given(st.lists(st.floats(min_value=0, max_value=1e9), max_size=60), st.lists(VALUES, max_size=60))
def test_a_restored_histogram_goes_on_as_if_nothing_had_been(first: list[float], second: list[float]) -> None:
    """Snapshot, JSON, restore: the state in the end is the same."""
    whole, cut = of(first), ExponentialHistogram.restored(json.loads(json.dumps(of(first).snapshot())))
    for value in second:
        whole.record(value)
        cut.record(value)
    assert whole.value() == cut.value()
