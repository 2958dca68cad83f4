"""Lines of syslog files in all their forms."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from otelbridge.errors import FormatError
from otelbridge.readers.lines import MAX_REPEATED_ROWS
from otelbridge.readers.syslog import looks_like, syslog_reader
from otelbridge.records import SECOND_NS, Plan
from tests.readers.traces import ALL_ROWS, Read, is_event, no_sums, read

TEXT = "savevm_section_end ram, section_id 1 -> 0"
MICROS = 1795408207397547000
SECONDS = 1795408207000000000
AFTER = SECONDS + 3600 * SECOND_NS


def ns(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * SECOND_NS


def syslog(text: str, **options: object) -> Read:
    options = {"not_after_ns": AFTER, **options}
    return read(syslog_reader(ALL_ROWS, is_event, no_sums, **options), text.encode())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "time_ns"),
    [
        (f"Nov 23 04:30:07 vm qemu-system-x86_64[23115]: {TEXT}", SECONDS),
        (f"<30>Nov 23 04:30:07 vm qemu-system-x86_64[23115]: {TEXT}", SECONDS),
        (f"Nov 23 04:30:07 qemu-system-x86_64[23115]: {TEXT}", SECONDS),
        (f"Nov 23 04:30:07.397547 vm qemu-system-x86_64[23115]: {TEXT}", MICROS),
        (f"2026-11-23T04:30:07.397547+00:00 vm qemu-system-x86_64[23115]: {TEXT}", MICROS),
        (f"2026-11-23T05:30:07.397547+0100 vm qemu-kvm[23115]: {TEXT}", MICROS),
        (f"2026-11-22T23:00:07.397547-05:30 vm qemu-kvm[23115]: {TEXT}", MICROS),
        (f"2026-11-23T04:30:07Z vm qemu-kvm[23115]: {TEXT}\r", SECONDS),
        (f"1795408207.397547 vm qemu-system-x86_64[23115]: {TEXT}", MICROS),
        (f"<30>1 2026-11-23T04:30:07.397547+00:00 vm qemu-system-x86_64 23115 - -  {TEXT}", MICROS),
        (f"<30>1 2026-11-23T04:30:07.397547Z vm qemu-system-x86_64 23115 - - \ufeff{TEXT}", MICROS),
        (f'<30>1 2026-11-23T04:30:07.397547Z vm qemu-kvm 23115 ID7 [a@1 b="x\\"]y" c="[z"][d@2] {TEXT}', MICROS),
    ],
)
def test_an_event_is_read(line: str, time_ns: int) -> None:
    found = syslog(line + "\n")
    assert [(r.time_ns, r.thread, r.process) for r in found.rows] == [(time_ns, None, 23115)]
    assert (found.rows[0].event, found.rows[0].raw) == ("savevm_section_end", b"ram, section_id 1 -> 0")
    assert found.units == {}
    assert looks_like(line.encode())


@pytest.mark.parametrize(
    "line",
    [
        "Nov 23 04:30:07 vm sshd[812]: Accepted publickey for root",
        "Nov 23 04:30:07 vm kernel: [ 2503.940575] audit: backlog",
        "Nov 23 04:30:07 vm qemu-system-x86_64[23115]: terminating on signal 15",
        "Foo 23 04:30:07 vm qemu-system-x86_64[23115]: " + TEXT,
        "Nov 31 04:30:07 vm qemu-system-x86_64[23115]: " + TEXT,
        "2026-13-23T04:30:07Z vm qemu-system-x86_64[23115]: " + TEXT,
        "-- Boot 5d0970abaa404971ab2ee4d05e2877a3 --",
        "",
    ],
)
def test_what_is_no_event_is_counted(line: str) -> None:
    found = syslog(line + "\n")
    assert (found.rows, found.units, found.total) == ([], {"not_trace": 1}, 1)
    assert found.gaps == []


def test_an_empty_format_may_have_lost_its_blank() -> None:
    stamp = "Nov 23 04:30:07 vm qemu-system-x86_64[23115]: savevm_state_setup"
    assert [row.raw for row in syslog(f"{stamp}\n{stamp} \n").rows] == [b"", b""]


def test_rsyslogs_escapes_are_undone() -> None:
    found = syslog("Nov 23 04:30:07 vm qemu-kvm[1]: migrate_error error=a#012b#011c#177 #1 #999 #400\n")
    assert found.rows[0].raw == b"error=a\nb\tc\x7f #1 #999 #400"


@pytest.mark.parametrize(
    ("text", "raw"),
    [(" migration_rate_limit_pre 5 ms", b"5 ms"), ("migration_rate_limit_pre 5 ms", b"5 ms"), (" savevm_state_setup", b"")],
)
def test_a_repeated_message_counts_as_often_as_it_says(text: str, raw: bytes) -> None:
    line = f"Nov 23 04:30:07 vm qemu-kvm[1]: message repeated 3 times: [{text}]\n"
    found = syslog(line)
    assert [(row.raw, row.unit) for row in found.rows] == [(raw, 1)] * 3
    assert found.total == found.accounted == 3
    plan = Plan({}, {"migration_rate_limit_pre": ("ms",)})
    summed = read(syslog_reader(plan, is_event, lambda _e, _r: (5,), not_after_ns=AFTER), line.encode())
    assert summed.total == summed.counts.total() == 3
    assert summed.sums.total() == (15 if raw else 0)


def test_a_lie_about_repeats_does_not_fill_the_memory() -> None:
    found = syslog("Nov 23 04:30:07 vm qemu-kvm[1]: message repeated 999999999 times: [ savevm_state_setup]\n")
    assert len(found.rows) == MAX_REPEATED_ROWS
    assert found.units == {"malformed": 999999999 - MAX_REPEATED_ROWS}


@pytest.mark.parametrize(
    "line",
    [
        r"Nov 23 04:30:07 vm systemd-journald[412]: Suppressed 512 messages from machine-qemu\x2d1\x2dweb.scope",
        "Nov 23 04:30:07 vm rsyslogd: imjournal: 512 messages lost due to rate-limiting (20000 allowed within 600 seconds)",
        "Nov 23 04:30:07 vm rsyslogd: imuxsock lost 512 messages from pid 23115 due to rate-limiting",
    ],
)
def test_a_rate_limit_is_a_loss(line: str) -> None:
    found = syslog(line + "\n")
    assert found.units == {"not_trace": 1, "dropped_by_qemu": 512}
    assert found.gaps == ["512 messages were suppressed by the syslog daemon's rate limit, some of them maybe not QEMU's"]


def lines(*stamps: str) -> str:
    return "".join(f"{stamp} vm qemu-kvm[1]: {TEXT}\n" for stamp in stamps)


@pytest.mark.parametrize(
    ("stamps", "not_after", "times"),
    [
        (["Nov 23 04:30:07"], "2027-01-02T00:00:00+00:00", ["2026-11-23T04:30:07+00:00"]),
        # A clock that is a little ahead of the file's.
        (["Nov 23 04:30:07"], "2026-11-23T04:00:00+00:00", ["2026-11-23T04:30:07+00:00"]),
        (
            ["Dec 31 23:59:59", "Jan  1 00:00:00", "Dec 31 23:59:59", "Jan  1 00:00:01"],
            "2027-01-01T08:00:00+00:00",
            ["2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z", "2026-12-31T23:59:59Z", "2027-01-01T00:00:01Z"],
        ),
        # Followed for years, the file's last change at the start being what is known.
        (["Feb 29 12:00:00", "Nov  1 00:00:00", "Aug  1 00:00:00"], "2024-03-01T00:00:00+00:00",
         ["2024-02-29T12:00:00+00:00", "2024-11-01T00:00:00+00:00", "2025-08-01T00:00:00+00:00"]),
    ],
)  # fmt: skip
def test_the_year_is_the_one_in_which_a_stamp_follows(stamps: list[str], not_after: str, times: list[str]) -> None:
    found = syslog(lines(*stamps), not_after_ns=ns(not_after))
    assert [row.time_ns for row in found.rows] == [ns(time) for time in times]


@pytest.mark.parametrize("zone", [timezone(timedelta(hours=1)), ZoneInfo("Europe/Berlin")])
def test_a_stamp_without_a_zone_is_of_the_zone_that_is_named(zone: object) -> None:
    assert syslog(lines("Nov 23 05:30:07"), zone=zone).rows[0].time_ns == SECONDS
    assert syslog(lines("2026-11-23T05:30:07"), zone=zone).rows[0].time_ns == SECONDS
    assert syslog(lines("2026-11-23T04:30:07Z"), zone=zone).rows[0].time_ns == SECONDS


def test_without_any_year_nothing_is_guessed() -> None:
    with pytest.raises(FormatError, match="stamps have no year"):
        syslog(lines("Nov 23 05:30:07"), not_after_ns=None)
    assert syslog(lines("2026-11-23T04:30:07+00:00"), not_after_ns=None, zone=UTC).rows[0].time_ns == SECONDS


def test_the_coarsest_stamp_is_told() -> None:
    reader = syslog_reader(ALL_ROWS, is_event, no_sums, not_after_ns=AFTER)
    reader.feed(lines("2026-11-23T04:30:07.397547Z").encode())
    assert reader.resolution_ns == 1000
    reader.feed(lines("Nov 23 04:30:08").encode())
    assert reader.resolution_ns == SECOND_NS
