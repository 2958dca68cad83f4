"""Time passes without events, as it does for a service that follows a quiet log."""

from __future__ import annotations

import pytest

from otelbridge.records import WINDOW_NS
from tests.engine.builders import MS, Live, S, batches, incomplete, lines, ms, rules, text_of

RULE = """
spans: {ping: {begin: savevm_send_ping, end: source_return_path_thread_pong, key: [{value: val}], timeout: 30s}}
metrics: {g: {gauge: migration_bitmap_sync_end, set: dirty_pages, unit: x}, c: {counter: savevm_send_ping, unit: x}}
"""
W = WINDOW_NS // S


def following(*events: tuple[float, int, str]) -> Live:
    """An engine that has read so far."""
    live = Live(rules(RULE))
    for batch in batches(rules(RULE), [text_of(lines(*events))]):
        live.feed(batch)
    return live


def advanced(live: Live, time_s: float) -> Live:
    live.engine.advance(round(time_s * S))
    live.take()
    return live


def test_what_has_waited_too_long_is_given_up() -> None:
    live = following((10.1, 1, "savevm_send_ping 0x1"))
    assert advanced(live, 39.0).spans == []
    assert live.engine.open == 1
    (span,) = advanced(live, 41.0 + W).spans
    assert (ms(span), incomplete(span), live.engine.open) == ((10100, 40100), True, 0)


def test_counts_and_gauges_go_out() -> None:
    live = following((10.1, 1, "savevm_send_ping 0x1"), (10.2, 1, "migration_bitmap_sync_end dirty_pages 7"))
    advanced(live, 10.5 + W)
    points = {p.metric.name: (p.time_ns / S, p.value) for p in live.points if p.metric.name in "gc"}
    assert points == {"g": (11, 7), "c": (10 + W, 1)}


def test_nothing_goes_out_twice() -> None:
    live = following((10.1, 1, "savevm_send_ping 0x1"))
    advanced(live, 10.5 + W)
    before = len(live.points)
    for n in range(2, 30):
        advanced(live, 10.5 + n * W / 4)
    live.finish()
    assert len(live.points) == before


@pytest.mark.parametrize("late_ms", [1, 20, 45])
def test_an_event_that_is_still_put_in_order_belongs_to_its_own_window(late_ms: int) -> None:
    """The last events before a window's end are in its points, and no timeout overtakes an end."""
    border_s = 10 + 4 * W
    answered_s = border_s - late_ms / 1000
    asked_s = answered_s - 29.999
    live = following((asked_s, 1, "savevm_send_ping 0x1"), (answered_s, 1, "source_return_path_thread_pong 0x1"))
    advanced(live, border_s + 0.01)
    advanced(live, border_s + 1)
    (span,) = live.spans
    assert not incomplete(span)
    of_events = [p for p in live.points if dict(p.attributes).get("qemu.event") == "source_return_path_thread_pong"]
    assert [(p.time_ns / S, p.value) for p in of_events] == [(border_s, 1)]


def test_what_comes_after_time_has_passed_goes_on_as_usual() -> None:
    live = advanced(following((10.1, 1, "savevm_send_ping 0x1")), 15.0)
    for batch in batches(rules(RULE), [text_of(lines((15.2, 1, "source_return_path_thread_pong 0x1")))]):
        live.feed(batch)
    live.finish()
    (span,) = live.spans
    assert (ms(span), incomplete(span)) == ((10100, 15200), False)
    assert live.engine.late == 0


def test_what_comes_too_late_is_counted_as_late() -> None:
    live = advanced(following((10.1, 1, "savevm_send_ping 0x1")), 15.0)
    for batch in batches(rules(RULE), [text_of(lines((14.2, 1, "source_return_path_thread_pong 0x1")))]):
        live.feed(batch)
    live.finish()
    assert live.engine.late == 1
    assert live.spans[0].end_ns == 15 * S - 50 * MS


def test_before_anything_came_nothing_happens() -> None:
    live = advanced(Live(rules(RULE)), 1e9)
    live.finish()
    assert (live.spans, live.points) == ([], [])
