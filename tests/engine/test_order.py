"""Events are put into the order of their time, however the input was cut."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from otelbridge.engine.order import HORIZON_NS, Order
from otelbridge.records import SECOND_NS, Batch, Row

# Mostly forward, in steps of some ms, with lines that step back up to 120 ms.
STEPS = st.lists(st.integers(-120_000_000, 200_000_000), max_size=80)


def batches(steps: list[int], cut: int) -> list[Batch]:
    """One batch for each window and each cut, as a reader gives them."""
    made: list[Batch] = []
    now, high = 100 * SECOND_NS, 0
    for number, step in enumerate(steps):
        now = max(100 * SECOND_NS, now + step)
        high = max(high, now)
        window = high - high % SECOND_NS
        row = Row(now, 1, f"event{number}", b"")
        if made and made[-1].window_ns == window and number % cut:
            made[-1].rows.append(row)
        else:
            made.append(Batch(window, [row], {}, {}, {}, 1, high))
    return made


def run(order: Order, given_batches: list[Batch]) -> list[tuple[int, Row]]:
    items = [item for batch in given_batches for item in order.put(batch)] + order.rest()
    return [(time_ns, item) for time_ns, item in items if isinstance(item, Row)]


@given(STEPS, st.integers(1, 10))
def test_the_order_does_not_depend_on_the_cuts(steps: list[int], cut: int) -> None:
    """Whole or in pieces, the same rows come in the same order at the same times."""
    assert run(Order(), batches(steps, 1000)) == run(Order(), batches(steps, cut))


@given(STEPS)
def test_times_never_go_back_and_nothing_is_lost(steps: list[int]) -> None:
    """Every row comes out once; what is late beyond the horizon is put as early as is still possible."""
    out = run(Order(), batches(steps, 3))
    assert all(a <= b for (a, _), (b, _) in pairwise(out))
    assert sorted(row.event for _, row in out) == sorted(f"event{n}" for n in range(len(steps)))
    assert all(time_ns >= (row.time_ns or 0) for time_ns, row in out)


def test_neighbours_that_stand_out_of_order_are_put_right() -> None:
    """Two threads' lines in the wrong order, as far apart as QEMU was seen to put them."""
    late = Row(100 * SECOND_NS, 2, "first", b"")
    rows = [Row(100 * SECOND_NS + 7_100_000, 1, "second", b""), late]
    out = run(Order(), [Batch(100 * SECOND_NS, rows, {}, {}, {}, 2, None)])
    assert [row.event for _, row in out] == ["first", "second"]
    assert out[0][0] == late.time_ns


@given(STEPS, st.integers(0, 80))
def test_a_restored_order_goes_on_as_if_nothing_had_been(steps: list[int], at: int) -> None:
    """Snapshot, JSON, restore between any two batches."""
    pieces = batches(steps, 1)
    whole = run(Order(), pieces)
    first = Order()
    out = [item for batch in pieces[:at] for item in first.put(batch)]
    second = Order()
    second.restore(json.loads(json.dumps(first.snapshot())))
    out += [item for batch in pieces[at:] for item in second.put(batch)] + second.rest()
    assert [(t, i) for t, i in out if isinstance(i, Row)] == whole


def test_the_horizon_is_longer_than_any_step_back_that_was_seen() -> None:
    """7.1 ms is the worst that recordings hold."""
    assert HORIZON_NS > 7_100_000
