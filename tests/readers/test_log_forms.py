"""The log backend's lines as QEMU of every age writes them, and the lines of others between them."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from otelbridge.catalogue import builtin
from otelbridge.errors import FormatError
from otelbridge.readers.log import LogReader
from otelbridge.records import WINDOW_NS, Batch, Plan, Row

PLAN = Plan(rows={"migrate_set_state": ("new_state",), "savevm_state_setup": (), "savevm_section_end": ()})
NS_2026 = int(datetime(2026, 11, 23, 4, 30, 1, tzinfo=UTC).timestamp()) * 1_000_000_000


def read(text: bytes, **options: Any) -> list[Batch]:
    reader = LogReader(PLAN, builtin().is_event, lambda _event, _raw: None, **options)
    return [*reader.feed(text), *reader.finish()]


def rows(batches: list[Batch]) -> list[Row]:
    return [row for batch in batches for row in batch.rows]


def units(batches: list[Batch]) -> Counter[str]:
    found: Counter[str] = Counter()
    for batch in batches:
        found.update(batch.units)
    return +found


def counts(batches: list[Batch]) -> Counter[str]:
    found: Counter[str] = Counter()
    for batch in batches:
        found.update(batch.counts)
    return found


@pytest.mark.parametrize(
    ("stamp", "time_ns", "thread"),
    [
        (b"19625@1795407950.847563:", 1795407950847563000, 19625),
        (b"1@5.000001:", 5000001000, 1),
        (b"4194304@1795407950.000000:", 1795407950000000000, 4194304),
        (b"2026-11-23T04:30:01.123456Z ", NS_2026 + 123_456_000, None),
        (b"2026-11-23T04:30:01Z ", NS_2026, None),
        (b"2026-11-23T04:30:01.5Z ", NS_2026 + 500_000_000, None),
    ],
    ids=["thread", "early", "no-micros", "iso", "iso-on-the-second", "iso-short-fraction"],
)
@pytest.mark.parametrize("times", [1, 2, 200], ids=["alone", "twice", "often"])
def test_a_stamp_is_read_to_the_microsecond(stamp: bytes, time_ns: int, thread: int | None, times: int) -> None:
    found = rows(read((stamp + b"migrate_set_state new state setup\n") * times))
    assert found == [Row(time_ns, thread, "migrate_set_state", b"new state setup")] * times


def test_a_number_of_3_1_is_the_process_and_no_thread() -> None:
    text = b"19625@1795407950.847563:migrate_set_state new state setup\n" * 3
    assert [row.thread for row in rows(read(text, numbers_are_threads=False))] == [None] * 3


@pytest.mark.parametrize("stamp", [b"", b"2026-11-23T04:30:01.123456Z "])
def test_the_thread_of_a_file_named_for_it_is_that_of_its_lines(stamp: bytes) -> None:
    text = (stamp + b"migrate_set_state new state setup\n") * 3
    assert [row.thread for row in rows(read(text, thread=77, assume_start_ns=0))] == [77] * 3


@pytest.mark.parametrize("line", [b"savevm_state_setup", b"savevm_state_setup "])
def test_an_event_without_arguments_is_known_with_and_without_its_blank(line: bytes) -> None:
    text = b"7@1795407950.000001:" + line + b"\n"
    assert [(row.event, row.raw) for row in rows(read(text * 2))] == [("savevm_state_setup", b"")] * 2


def test_carriage_returns_before_the_line_ends_are_no_part_of_the_text() -> None:
    text = b"7@1795407950.000001:migrate_set_state new state setup\r\n7@1795407950.000002:savevm_state_setup \r\n"
    assert [row.raw for row in rows(read(text))] == [b"new state setup", b""]


def test_blanks_within_and_at_the_end_of_a_text_are_kept() -> None:
    text = b"7@1795407950.000001:migrate_set_state  new  state \n"
    assert rows(read(text))[0].raw == b" new  state "


def test_events_that_no_rule_needs_are_counted_alone() -> None:
    text = b"".join(b"7@1795407950.%06d:ram_save_page pc.ram: offset: 0x%x host: 0x0\n" % (i, i) for i in range(500))
    batches = read(text)
    assert rows(batches) == []
    assert counts(batches) == {"ram_save_page": 500}


def test_other_lines_are_counted_as_no_trace() -> None:
    text = (
        b"2026-11-23 04:29:58.123+0000: starting up libvirt version: 10.0.0, qemu version: 8.2.2, hostname: host\n"
        b"LC_ALL=C \\\n"
        b"PATH=/usr/bin \\\n"
        b"/usr/bin/qemu-system-x86_64 \\\n"
        b"-name guest=vm1,debug-threads=on \\\n"
        b"char device redirected to /dev/pts/1 (label charserial0)\n"
        b"2026-11-23T04:30:01.123456Z migrate_set_state new state setup\n"
        b"2026-11-23T04:30:01.200000Z qemu-system-x86_64: terminating on signal 15 from pid 1\n"
        b"2026-11-23T04:30:01.200001Z vm1 qemu-system-x86_64: Unable to read from socket\n"
        b"2026-11-23T04:30:01.200002Z SMM: enter\n"
        b"qemu-system-x86_64: RDMA ERROR: no device\n"
        b"CPU Reset (CPU 0)\n"
        b"EAX=00000000 EBX=00000000 ECX=00000000 EDX=00000663\n"
        b"\n"
        b"2026-11-23T04:30:01.300000Z migrate_set_state new state active\n"
    )
    batches = read(text)
    assert [row.raw for row in rows(batches)] == [b"new state setup", b"new state active"]
    assert units(batches) == {"not_trace": 13}


def test_a_stamped_name_that_is_no_known_event_is_unmapped_where_only_events_are_stamped() -> None:
    thread = b"7@1795407950.000001:migrate_set_state new state setup\n7@1795407950.000002:event_of_tomorrow x=1\n"
    assert units(read(thread)) == {"unmapped": 1}
    iso = b"2026-11-23T04:30:01Z migrate_set_state new state setup\n2026-11-23T04:30:01.000002Z Servicing hardware INT=0x08\n"
    assert units(read(iso)) == {"not_trace": 1}


def test_an_unstamped_event_among_stamped_ones_takes_the_time_before_it() -> None:
    text = (
        b"7@1795407950.000001:migrate_set_state new state setup\n"
        b"savevm_state_setup \n"
        b"7@1795407950.000009:migrate_set_state new state active\n"
    )
    assert [row.time_ns for row in rows(read(text))] == [1795407950000001000, 1795407950000001000, 1795407950000009000]


def test_unstamped_events_before_the_first_stamp_take_its_time() -> None:
    text = b"savevm_state_setup \nram_save_page x\n7@1795407950.000009:migrate_set_state new state active\n"
    batches = read(text)
    assert [(row.time_ns, row.event) for row in rows(batches)] == [
        (1795407950000009000, "savevm_state_setup"),
        (1795407950000009000, "migrate_set_state"),
    ]
    assert counts(batches) == {"ram_save_page": 1}


def test_a_log_without_stamps_is_refused_with_the_way_out() -> None:
    with pytest.raises(FormatError, match=r"-msg timestamp=on.*--assume-start"):
        read(b"migrate_set_state new state setup\nsavevm_state_setup \n")


def test_a_log_without_stamps_and_without_end_is_refused_before_it_fills_the_memory() -> None:
    reader = LogReader(PLAN, builtin().is_event, lambda _event, _raw: None)
    with pytest.raises(FormatError):
        reader.feed(b"savevm_state_setup \n" * 20_000)


def test_a_log_without_events_is_no_error_of_the_reader() -> None:
    batches = read(b"hello\nworld\n")
    assert rows(batches) == []
    assert units(batches) == {"not_trace": 2}


def test_an_assumed_start_gives_unstamped_events_times_in_their_order(recordings: Path) -> None:
    import gzip  # noqa: PLC0415

    text = gzip.decompress((recordings / "qemu-10.2.0-log" / "precopy-idle-nots" / "src.log.gz").read_bytes())
    batches = read(text, assume_start_ns=NS_2026)
    times = [row.time_ns or 0 for row in rows(batches)]
    assert len(times) > 30
    assert times == sorted(set(times))
    assert times[0] >= NS_2026
    assert times[-1] < NS_2026 + 1_000_000_000


def test_times_that_go_back_are_kept_as_they_are_but_windows_are_not() -> None:
    text = (
        b"7@1795407950.000001:migrate_set_state new state setup\n"
        b"7@1795408250.000001:migrate_set_state new state active\n"
        b"8@1795407951.999999:savevm_state_setup \n"
        b"8@1795407951.999999:ram_save_page x\n"
    )
    batches = read(text)
    assert [row.time_ns for row in rows(batches)] == [1795407950000001000, 1795408250000001000, 1795407951999999000]
    assert [batch.window_ns for batch in batches] == [
        at // WINDOW_NS * WINDOW_NS for at in (1795407950 * 10**9, 1795408250 * 10**9)
    ]
    assert batches[1].counts == {"ram_save_page": 1}


@pytest.mark.parametrize("stamp", [b"2026-13-23T04:30:01Z ", b"2026-11-31T04:30:01Z ", b"1969-12-31T23:59:59Z "])
@pytest.mark.parametrize("place", [0, 100])
def test_a_stamp_of_no_moment_is_none(stamp: bytes, place: int) -> None:
    """The event is taken as one without a stamp."""
    good = b"2026-11-23T04:30:01.000001Z migrate_set_state new state setup\n"
    lines = [good] * 200
    lines[place] = stamp + b"savevm_state_setup \n"
    found = rows(read(b"".join(lines)))
    assert len(found) == 200
    assert {row.time_ns for row in found} == {NS_2026 + 1000}


def test_sums_are_exact_at_any_size_and_a_text_that_does_not_fit_is_malformed() -> None:
    plan = Plan(rows={}, sums={"migration_throttle": ("n",)})

    def decode(_event: str, raw: bytes) -> tuple[int] | None:
        return (int(raw),) if raw.isdigit() else None

    reader = LogReader(plan, builtin().is_event, decode)
    big = (1 << 64) - 1
    text = b"".join(b"7@1795407950.%06d:migration_throttle %d\n" % (i, big) for i in range(200))
    batches = [*reader.feed(text + b"7@1795407950.900000:migration_throttle x\n"), *reader.finish()]
    assert sum(batch.sums["migration_throttle", "n"] for batch in batches) == 200 * big
    assert counts(batches) == {"migration_throttle": 200}
    assert units(batches) == {"malformed": 1}
