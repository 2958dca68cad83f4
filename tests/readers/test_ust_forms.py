"""Lines of babeltrace2 in all their forms."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from otelbridge.errors import FormatError
from otelbridge.readers.ust import looks_like, ust_reader
from otelbridge.records import SECOND_NS
from tests.readers.traces import ALL_ROWS, Read, is_event, no_sums, read

TIME_NS = 1795408207397507948
AFTER = 1795408207 * SECOND_NS + 3600 * SECOND_NS
FIELDS = 'id = "ram", section_id = 1, ret = 0'


def ust(text: str, **options: object) -> Read:
    options = {"not_after_ns": AFTER, **options}
    return read(ust_reader(ALL_ROWS, is_event, no_sums, **options), text.encode())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "thread", "process"),
    [
        ('(+0.001254499) vm qemu:savevm_section_end: { cpu_id = 0 }, { vpid = 23115, vtid = 23166, x = "" }, ', 23166, 23115),
        ('(+?.?????????) vm qemu:savevm_section_end: { cpu_id = 0 }, { vpid = 23115, x = "{ vtid = 1 }" }, ', None, 23115),
        ("(+0.001254499) vm:CPU 0/TCG:(14750) qemu:savevm_section_end: { cpu_id = 0 }, { vtid = 7 }, ", 7, 14750),
        ("(+0.001254499) vm:qemu-system-x86:(14750) qemu:savevm_section_end: { cpu_id = 1 }, ", None, 14750),
        ("vm qemu:savevm_section_end: { cpu_id = 1 }, ", None, None),
        ("qemu:savevm_section_end: ", None, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stamp", ["04:30:07", "2026-11-23 04:30:07", "1795408207"])
def test_an_event_is_read(stamp: str, before: str, thread: int | None, process: int | None) -> None:
    line = f"[{stamp}.397507948] {before}{{ {FIELDS} }}"
    found = ust(line + "\n" + line + "\r\n")
    row = found.rows[0]
    assert (row.time_ns, row.thread, row.process) == (TIME_NS, thread, process)
    assert (row.event, row.raw) == ("savevm_section_end", FIELDS.encode())
    assert found.rows == [row, row]
    assert looks_like(line.encode())


def test_an_event_without_arguments_has_empty_text() -> None:
    found = ust("[04:27:15.088572558] (+0.000003906) vm qemu:savevm_state_setup: { cpu_id = 0 }, { }\n")
    assert [row.raw for row in found.rows] == [b""]


def test_braces_and_quotes_in_strings_are_the_strings() -> None:
    fields = r'error_desc = "a } \", { b } \\"'
    found = ust(f"[04:27:15.088572558] (+0.000003906) vm qemu:migrate_error: {{ cpu_id = 0 }}, {{ {fields} }}\n")
    assert [row.raw for row in found.rows] == [fields.encode()]


@pytest.mark.parametrize(
    ("line", "units"),
    [
        ("[04:27:15.088572558] (+0.000003906) vm lttng_ust_statedump:start: { cpu_id = 0 }, { }", {"not_trace": 1}),
        ("[04:27:15.088572558] (+0.000003906) vm qemu:an_event_of_a_newer_qemu: { cpu_id = 0 }, { }", {"unmapped": 1}),
        ('[04:27:15.088572558] (+0.000003906) vm qemu:savevm_section_end: { cpu_id = 0 }, { id = "r', {"torn": 1}),
        ("[2026-02-31 04:27:15.088572558] (+0.000003906) vm qemu:savevm_state_setup: { }", {"malformed": 1}),
        ("[error] Cannot open trace", {"not_trace": 1}),
        ("[warning] Fallback to [sec.ns] to print negative time value. Use --clock-seconds.", {"not_trace": 1}),
        (
            'WARNING: Tracer discarded 512 events between [04:30:07.397507948] and [04:30:07.400000000] in trace "x"',
            {"not_trace": 1, "dropped_by_qemu": 512},
        ),
        ("[warning] Tracer discarded 3 events at the end of the stream", {"not_trace": 1, "dropped_by_qemu": 3}),
        ("", {"not_trace": 1}),
    ],
)  # fmt: skip
def test_other_lines_are_counted_and_losses_with_them(line: str, units: dict[str, int]) -> None:
    found = ust(line + "\n")
    assert (found.rows, found.units, found.total) == ([], units, 1)


def at(*times: str) -> str:
    return "".join(f"[{time}.000000000] vm qemu:savevm_state_setup: {{ }}\n" for time in times)


def ns(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * SECOND_NS


def test_a_time_of_day_gets_the_day_on_which_it_follows() -> None:
    found = ust(at("23:59:59", "00:00:00", "12:00:00", "06:00:00"), not_after_ns=ns("2026-11-23T00:00:05+00:00"))
    days = ("2026-11-22T23:59:59", "2026-11-23T00:00:00", "2026-11-23T12:00:00", "2026-11-24T06:00:00")
    assert [row.time_ns for row in found.rows] == [ns(day + "+00:00") for day in days]


@pytest.mark.parametrize("stamp", ["05:30:07", "2026-11-23 05:30:07"])
def test_stamps_are_of_the_zone_that_is_named(stamp: str) -> None:
    assert ust(at(stamp), zone=timezone(timedelta(hours=1))).rows[0].time_ns == 1795408207 * SECOND_NS


def test_without_any_date_nothing_is_guessed() -> None:
    with pytest.raises(FormatError, match=r"no date.*--clock-date"):
        ust(at("04:30:07"), not_after_ns=None)
    assert ust(at("2026-11-23 04:30:07"), not_after_ns=None).rows[0].time_ns == 1795408207 * SECOND_NS
