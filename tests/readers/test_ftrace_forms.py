"""Lines of the kernel's trace files in all their forms."""

from __future__ import annotations

import pytest

from otelbridge.errors import FormatError
from otelbridge.readers.ftrace import ftrace_reader, looks_like
from tests.readers.traces import ALL_ROWS, NO_ROWS, Read, is_event, no_sums, read

SECTION = "savevm_section_end ram, section_id 1 -> 0"


def ftrace(text: str, offset_ns: int = 0) -> Read:
    return read(ftrace_reader(ALL_ROWS, is_event, no_sums, offset_ns=offset_ns), text.encode())


@pytest.mark.parametrize(
    ("line", "thread", "process", "time_ns"),
    [
        (f"           <...>-23166   [000] ...1.  2503.940575: tracing_mark_write: {SECTION}", 23166, None, 2503940575000),
        (f"    mig/src/main-23361   [001] ...1.  2509.688219: tracing_mark_write: {SECTION}", 23361, None, 2509688219000),
        (f"     return path-7       [001] d.h1.     9.000001: tracing_mark_write: {SECTION}", 7, None, 9000001000),
        (
            f"       CPU 0/TCG-23361   (  23349) [001] ...1  2509.688219: tracing_mark_write: {SECTION}",
            23361,
            23349,
            2509688219000,
        ),
        (
            f"           a-1-2-23361   (-------) [001] ....  2509.688219: tracing_mark_write: {SECTION}",
            23361,
            None,
            2509688219000,
        ),
        (
            f"           <...>-23166 [000]  2503.940575: print:                tracing_mark_write: {SECTION}",
            23166,
            None,
            2503940575000,
        ),
        (
            f"           <...>-23166 [000] ...1.  2503.940575123: print: tracing_mark_write: {SECTION}",
            23166,
            None,
            2503940575123,
        ),
        (f"           <...>-23166   0...1.  2503.940575: print:   tracing_mark_write: {SECTION}", 23166, None, 2503940575000),
        (f" qemu-system-x86-23166 [000] 1795408207.397509: tracing_mark_write: {SECTION}\r", 23166, None, 1795408207397509000),
    ],
)
def test_an_event_is_read(line: str, thread: int, process: int | None, time_ns: int) -> None:
    found = ftrace(line + "\n")
    row = found.rows[0]
    assert (row.thread, row.process, row.time_ns, row.unit) == (thread, process, time_ns, 1)
    assert (row.event, row.raw) == ("savevm_section_end", b"ram, section_id 1 -> 0")
    assert found.units == {}
    assert looks_like(line.encode())


def test_an_offset_makes_utc_of_the_trace_clock() -> None:
    line = f"           <...>-23166   [000] ...1.  2503.940575: tracing_mark_write: {SECTION}\n"
    assert ftrace(line, 1795405703481433372).rows[0].time_ns == 1795408207422008372


@pytest.mark.parametrize(
    ("line", "dropped"),
    [
        ("# tracer: nop", 0),
        ("#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION", 0),
        ("cpus=2", 0),
        ("           lttng-23316   [001] .....  2508.556853: sched_process_exit: comm=lttng pid=23316 prio=120", 0),
        ("           lttng-23316   [001] .....  2508.556853: tracing_mark_write: hello from another program", 0),
        ("##### CPU 1 buffer started ####", 0),
        ("CPU:1 [LOST 123 EVENTS]", 123),
        ("CPU:1 [LOST EVENTS]", 1),
        ("CPU:0 [512 EVENTS DROPPED]", 512),
        ("CPU:0 [EVENTS DROPPED]", 1),
        ("", 0),
    ],
)
def test_other_lines_are_counted_and_losses_with_them(line: str, dropped: int) -> None:
    found = ftrace(line + "\n")
    assert found.rows == []
    assert found.total == 1
    assert found.units == ({"not_trace": 1, "dropped_by_qemu": dropped} if dropped else {"not_trace": 1})
    assert bool(found.gaps) == (dropped == 1)


def test_overwritten_entries_are_a_gap() -> None:
    assert ftrace("# entries-in-buffer/entries-written: 4182/5182   #P:2\n").gaps == [
        "1000 entries of all tracers were overwritten in the kernel's buffer before the trace begins"
    ]
    assert ftrace("# entries-in-buffer/entries-written: 4182/4182   #P:2\n").gaps == []


@pytest.mark.parametrize("plan", [ALL_ROWS, NO_ROWS])
@pytest.mark.parametrize(("length", "torn"), [(510, 0), (511, 1)])
def test_an_event_cut_at_511_bytes_is_torn_and_used(length: int, torn: int, plan: object) -> None:
    """QEMU writes at most 511 bytes, and a whole event has a line end among them."""
    event = "migrate_error error=" + "x" * (length - len("migrate_error error="))
    reader = ftrace_reader(plan, is_event, no_sums)  # type: ignore[arg-type]
    found = read(reader, f"           <...>-2   [000] ...1.  2503.940575: tracing_mark_write: {event}\n".encode())
    assert found.units["torn"] == torn
    assert found.total == found.accounted == 1
    if torn or plan is ALL_ROWS:
        assert [(row.event, len(row.raw), row.unit) for row in found.rows] == [("migrate_error", length - 14, 1 - torn)]


@pytest.mark.parametrize("stamp", ["5123456789012", "77"])
def test_bare_numbers_are_no_time(stamp: str) -> None:
    with pytest.raises(FormatError, match=rf"bare numbers \({stamp}\).*echo mono > trace_clock"):
        ftrace(f"           <...>-23166   [000] ...1. {stamp}: tracing_mark_write: {SECTION}\n")
