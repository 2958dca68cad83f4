"""The offset between the clocks of two hosts, from messages that are sent before they arrive."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelbridge.engine.clocks import Offset, Tag, Times, offset_between

MS = 1_000_000
PING = [(Tag("ping", received=False, key=n), Tag("ping", received=True, key=n)) for n in range(9)]
PONG = [(Tag("pong", received=False, key=n), Tag("pong", received=True, key=n)) for n in range(9)]
PARTS = (Tag("section", received=False, key=2), Tag("part", received=True, key=2))
COMMANDS = (Tag("command", received=False), Tag("command", received=True))


def bounds(source: Times, destination: Times, *, whole: bool = True) -> tuple[int | None, int | None]:
    offset = offset_between(source, destination, whole=whole, steady=True)
    return offset.min_ns, offset.max_ns


def test_a_ping_bounds_from_above_and_its_answer_from_below() -> None:
    """Sent at 10 ms, there at 15 ms by the other's clock, answered, and the answer here at 12 ms: 3 to 5 ms ahead."""
    source = {PING[1][0]: [10 * MS], PONG[1][1]: [12 * MS]}
    destination = {PING[1][1]: [15 * MS], PONG[1][0]: [15 * MS]}
    assert bounds(source, destination) == (3 * MS - 1000, 5 * MS + 1000)


def test_the_kth_part_of_a_section_is_not_there_before_the_kth_was_sent() -> None:
    source, destination = {PARTS[0]: [10, 20, 30]}, {PARTS[1]: [100, 25, 130]}
    assert bounds(source, destination) == (None, 5 + 1000)


def test_parts_that_were_lost_on_their_way_do_no_harm() -> None:
    """The one that is there came as the third: the bound is wider, and holds."""
    assert bounds({PARTS[0]: [10, 20, 30]}, {PARTS[1]: [31]}) == (None, 21 + 1000)


def test_where_sendings_are_missing_in_the_log_their_receipts_say_nothing() -> None:
    assert bounds({PARTS[0]: [30]}, {PARTS[1]: [11, 21, 31]}) == (None, None)


def test_the_setup_of_a_section_is_traced_where_it_arrives_alone() -> None:
    whole = Tag("section", received=True, key=2)
    assert bounds({PARTS[0]: [10_000]}, {whole: [5_000], PARTS[1]: [12_000]}) == (None, 3000)


def test_in_a_log_with_holes_only_a_ping_by_its_number_counts() -> None:
    source = {PING[1][0]: [10], PARTS[0]: [50]}
    destination = {PING[1][1]: [19], PARTS[1]: [51]}
    assert bounds(source, destination, whole=False) == (None, 9 + 1000)


@pytest.mark.parametrize(
    ("low", "high", "steady", "applied"),
    [
        (-5, 7, True, 0),
        (100, 300, True, 200),
        (-300, -100, True, -200),
        (None, 300, True, 0),
        (None, -300, True, -300),
        (300, None, True, 300),
        (-300, None, True, 0),
        (None, -300, False, 0),
        (300, 100, True, 0),
        (None, None, True, 0),
    ],
)
def test_times_move_only_when_the_clocks_cannot_agree(low: int | None, high: int | None, steady: bool, applied: int) -> None:
    assert Offset(low, high, steady).applied_ns == applied


@given(
    offset=st.integers(-(10**10), 10**10),
    steps=st.lists(st.tuples(st.integers(0, 10**7), st.integers(1, 10**7), st.integers(1, 10**7)), min_size=1, max_size=8),
)
def test_the_true_offset_always_lies_within_the_bounds(offset: int, steps: list[tuple[int, int, int]]) -> None:
    """Whatever the network does, and with stamps that are cut off at the microsecond."""
    source: dict[Tag, list[int]] = {}
    destination: dict[Tag, list[int]] = {}
    now = 10**12
    for number, (pause, there, back) in enumerate(steps):
        now += pause
        arrived = now + there
        for side, tag, time_ns in (
            (source, PING[number][0], now),
            (source, COMMANDS[0], now),
            (destination, PING[number][1], arrived + offset),
            (destination, COMMANDS[1], arrived + offset),
            (destination, PONG[number][0], arrived + offset),
            (source, PONG[number][1], arrived + back),
        ):
            side.setdefault(tag, []).append(time_ns // 1000 * 1000)
    low, high = bounds(source, destination)
    assert low is not None
    assert high is not None
    assert low <= offset <= high
    assert high - low <= min(there + back for _, there, back in steps) + 4000
