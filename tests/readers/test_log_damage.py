"""Logs that are cut, overwritten, run together or stuffed: what is whole is used, the rest is counted, nothing fails."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import pytest

from otelbridge.catalogue import builtin
from otelbridge.readers.log import MAX_LINE_BYTES, LogReader
from otelbridge.records import Batch, Plan, Row

PLAN = Plan(
    rows={
        "migrate_set_state": ("new_state",),
        "migration_socket_incoming_accepted": (),
        "migration_socket_outgoing_connected": ("hostname",),
        "vmstate_downtime_save": (),
        "vmstate_downtime_load": (),
    }
)
SETUP = b"19625@1795407950.000001:migrate_set_state new state setup\n"
SETUP_ROW = Row(1795407950000001000, 19625, "migrate_set_state", b"new state setup")


def reader() -> LogReader:
    return LogReader(PLAN, builtin().is_event, lambda _event, _raw: None)


def read(text: bytes) -> tuple[list[Row], Counter[str], int]:
    """Rows, units and the total of a log."""
    log = reader()
    batches = [*log.feed(text), *log.finish()]
    return summed(batches)


def summed(batches: list[Batch]) -> tuple[list[Row], Counter[str], int]:
    units: Counter[str] = Counter()
    for batch in batches:
        units.update(batch.units)
    return [row for batch in batches for row in batch.rows], +units, sum(batch.total for batch in batches)


@pytest.mark.parametrize("cut", range(1, len(SETUP) - 1))
def test_a_last_line_without_an_end_is_torn_wherever_it_is_cut(cut: int) -> None:
    rows, units, total = read(SETUP + SETUP[:cut])
    assert rows == [SETUP_ROW]
    assert total == 2
    # Before the @ and a digit nothing tells that it would have become an event.
    assert units == {"torn" if cut > 6 else "not_trace": 1}


def test_a_whole_line_may_stand_behind_a_hole() -> None:
    """Two processes with one -D file: the later start truncates, both write at their own places."""
    log = reader()
    rows, units, total = summed([*log.feed(SETUP + b"\0" * 1000 + SETUP), *log.finish()])
    assert rows == [SETUP_ROW, SETUP_ROW]
    assert units == {}
    assert total == 2
    assert log.gaps == ["1 hole of 1000 NUL bytes: what stood there was overwritten or never written"]


@pytest.mark.parametrize("block_bytes", [1 << 16, 1 << 18, 1 << 20])
def test_a_whole_line_may_stand_behind_a_hole_that_is_larger_than_any_line(block_bytes: int) -> None:
    log, data = reader(), SETUP + bytes(3 << 20) + SETUP + SETUP
    batches = [batch for at in range(0, len(data), block_bytes) for batch in log.feed(data[at : at + block_bytes])]
    rows, units, total = summed([*batches, *log.finish()])
    assert rows == [SETUP_ROW] * 3
    assert units == {}
    assert total == 3
    assert log.gaps == [f"1 hole of {3 << 20} NUL bytes: what stood there was overwritten or never written"]


@pytest.mark.parametrize(
    ("line", "rows"),
    [
        (b"\0\0\0\n", 0),
        (b"\0\0EAX=0000\n", 0),
        (SETUP[:30] + b"\0\0" + SETUP, 1),
        (SETUP[:30] + b"\0\0\n", 0),
        (b"\0\0te new state setup\n", 0),
        (b"a\0b\0c\n", 0),
    ],
    ids=["alone", "foreign", "cut-then-whole", "cut", "tail", "two"],
)
def test_a_line_with_a_hole_is_torn_and_what_is_whole_in_it_is_used(line: bytes, rows: int) -> None:
    found, units, total = read(SETUP + line + SETUP)
    assert [row.unit for row in found] == [1, *[0] * rows, 1]
    assert units == {"torn": 1}
    assert total == 3


def test_several_holes_are_told_together() -> None:
    log = reader()
    log.feed(SETUP + b"\0\0\n\0\0\0\n")
    assert log.gaps == ["2 holes with together 5 NUL bytes: what stood there was overwritten or never written"]


def test_two_events_run_together_are_both_taken_and_the_line_is_torn() -> None:
    """As QEMU 7.2 left it in a file shared by two processes."""
    line = (
        b"25088@1795407950.100000:migration_socket_incoming_accepted"
        b"25078@1795407950.200000:migration_socket_outgoing_connected hostname=127.0.0.1\n"
    )
    rows, units, total = read(SETUP + line)
    assert rows[1:] == [
        Row(1795407950100000000, 25088, "migration_socket_incoming_accepted", b"", 0),
        Row(1795407950200000000, 25078, "migration_socket_outgoing_connected", b"hostname=127.0.0.1", 0),
    ]
    assert units == {"torn": 1}
    assert total == 2


@pytest.mark.parametrize(
    "line", [b"qemu-system-x86_64: warning: x", b"EAX=0", b"migrate_set_state new st", b"95407950.000001:mig"]
)
def test_an_event_that_follows_other_text_in_its_line_is_taken(line: bytes) -> None:
    rows, units, total = read(SETUP + line + SETUP)
    assert rows == [SETUP_ROW, SETUP_ROW._replace(unit=0)]
    assert units == {"torn": 1}
    assert total == 2


def test_a_stamp_cut_at_the_front_leaves_a_line_that_is_no_event() -> None:
    rows, units, _ = read(SETUP + SETUP[8:] + SETUP)
    assert rows == [SETUP_ROW, SETUP_ROW]
    assert units == {"not_trace": 1}


def test_a_second_stamp_belongs_to_the_next_event_without_one() -> None:
    """10.1 and newer, two processes on one unbuffered stderr: stamp, stamp, text, line end, text, line end."""
    text = (
        b"2026-11-23T04:34:54.300000Z migrate_set_state new state device\n"
        b"2026-11-23T04:34:54.313813Z 2026-11-23T04:34:54.313899Z vmstate_downtime_save type=non-iterable\n"
        b"2026-11-23T04:34:54.320000Z qemu-system-x86_64: an error in between\n"
        b"vmstate_downtime_load type=non-iterable\n"
        b"vmstate_downtime_load type=another\n"
    )
    rows, units, total = read(text)
    micros = [(row.event, (row.time_ns or 0) // 1000 % 1_000_000) for row in rows]
    assert micros == [
        ("migrate_set_state", 300000),
        ("vmstate_downtime_save", 313813),
        ("vmstate_downtime_load", 313899),
        ("vmstate_downtime_load", 313899),
    ]
    assert units == {"not_trace": 1}
    assert total == 5


def test_a_line_of_100_megabytes_takes_no_memory_of_that_size() -> None:
    log = reader()
    piece = b"x" * (1 << 16)
    tracemalloc.start()
    batches = log.feed(SETUP)
    for _ in range(1600):
        batches += log.feed(piece)
    batches += log.feed(b"\n" + SETUP)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    rows, units, total = summed(batches)
    assert rows == [SETUP_ROW, SETUP_ROW]
    assert units == {"not_trace": 1}
    assert total == 3
    assert peak < 8 * MAX_LINE_BYTES


@pytest.mark.parametrize("in_one", [True, False])
def test_a_line_that_begins_like_an_event_but_has_no_end_in_sight_is_malformed(in_one: bool) -> None:
    log = reader()
    line = SETUP[:-1] + b"x" * MAX_LINE_BYTES + b"\n"
    batches = log.feed(SETUP)
    for block in [line] if in_one else [line[i : i + 100_000] for i in range(0, len(line), 100_000)]:
        batches += log.feed(block)
    rows, units, total = summed([*batches, *log.feed(SETUP), *log.finish()])
    assert rows == [SETUP_ROW, SETUP_ROW]
    assert units == {"malformed": 1}
    assert total == 3


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_a_long_line_is_an_event_up_to_the_limit(more: int) -> None:
    line = SETUP[:-1] + b"x" * (MAX_LINE_BYTES - len(SETUP) + 1 + more)
    for text in (SETUP + line + b"\n", line + b"\n" + SETUP):
        rows, units, total = read(text)
        assert len(rows) == (1 if more > 0 else 2)
        assert units == ({"malformed": 1} if more > 0 else {})
        assert total == 2


def test_an_endless_last_line_is_counted_once() -> None:
    rows, units, total = read(SETUP + b"x" * (MAX_LINE_BYTES + 5))
    assert rows == [SETUP_ROW]
    assert units == {"not_trace": 1}
    assert total == 2
