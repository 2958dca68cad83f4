"""From a monotonic clock to UTC."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from otelbridge.errors import UsageError
from otelbridge.readers.clock import Clock, Facts, Reading, clock_beside, clock_of, offset_of, read_clock, readings_in
from otelbridge.records import SECOND_NS

OFFSET_NS = 1795405703481433342
READING = Reading(1795408314740585660, 2611259152318, 410)
BOOT_NS = 1795405703 * SECOND_NS
ALL = Facts(
    offset_ns=5,
    readings=[READING],
    boot_ns=BOOT_NS,
    modified_ns=1795408322 * SECOND_NS,
    first_ns=SECOND_NS,
    last_ns=4 * SECOND_NS,
)


def without(*names: str) -> Facts:
    known = {name: getattr(ALL, name) for name in ("offset_ns", "readings", "boot_ns", "modified_ns", "first_ns", "last_ns")}
    return Facts(**{name: value for name, value in known.items() if name not in names})


def test_the_users_word_comes_first_and_the_files_time_last() -> None:
    assert clock_of(ALL, "f").source == "offset"
    assert clock_of(without("offset_ns"), "f") == Clock(OFFSET_NS, "readings", 410)
    assert clock_of(without("offset_ns", "readings"), "f") == Clock(BOOT_NS, "boot", SECOND_NS)
    assert clock_of(without("offset_ns", "readings", "boot_ns"), "f").source == "modified"


def test_an_estimate_says_so_with_its_uncertainty() -> None:
    """The file was last changed when its last record was written, or later; nobody knows how much."""
    clock = clock_of(without("offset_ns", "readings", "boot_ns"), "dir/src.simple")
    assert clock.offset_ns + 4 * SECOND_NS == 1795408322 * SECOND_NS
    assert (clock.mark, clock.uncertainty_ns) == ("estimated", 3 * SECOND_NS)
    assert clock.note.startswith("dir/src.simple: ")
    assert "--clock-offset" in clock.note
    assert all(clock_of(facts, "f").mark is None for facts in (ALL, without("offset_ns"), without("offset_ns", "readings")))


def test_a_short_trace_is_no_more_certain_than_a_second() -> None:
    assert clock_of(Facts(modified_ns=SECOND_NS, last_ns=5), "f").uncertainty_ns == SECOND_NS


def test_nothing_known_is_refused_with_what_can_be_given() -> None:
    for facts in (Facts(), Facts(modified_ns=5), Facts(last_ns=5)):
        with pytest.raises(UsageError, match=r"'src.simple' .*--clock-offset.*--clock FILE.*clock.json.*--boot-time TIME"):
            clock_of(facts, "src.simple")


def test_two_readings_that_differ_give_their_mean() -> None:
    """NTP moved UTC by a millisecond: one offset keeps durations as they were measured, and is half of that off at most."""
    later = Reading(READING.realtime_ns + 10 * SECOND_NS + 1_000_000, READING.monotonic_ns + 10 * SECOND_NS, 90)
    assert clock_of(Facts(readings=[READING, later]), "f") == Clock(OFFSET_NS + 500_000, "readings", 500_410)


def test_a_recorded_clock_file_agrees_with_the_offset_written_in_it(recordings: Path) -> None:
    path = recordings / "qemu-10.2.0-simple" / "multifd-tls" / "clock.json"
    start, end = read_clock(path)
    written = json.loads(path.read_text())
    assert [start.offset_ns, end.offset_ns] == [written[part]["realtime_minus_monotonic_ns"] for part in ("start", "end")]
    assert start.uncertainty_ns == written["start"]["uncertainty_ns"]


def test_one_reading_may_stand_alone() -> None:
    assert readings_in('{"realtime_ns": 1000, "monotonic_ns": 400}', "c.json") == (Reading(1000, 400),)
    assert readings_in('{"end": {"realtime_ns": 1000, "monotonic_ns": 400}}', "c.json") == (Reading(1000, 400),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("9" * 5000, "is no JSON"),
        ("[]", "has [], but"),
        ('{"realtime_ns": 1000}', 'has {"realtime_ns": 1000}'),
        ('{"realtime_ns": 1.5, "monotonic_ns": 400}', "whole numbers"),
        ('{"realtime_ns": true, "monotonic_ns": 400}', "whole numbers"),
        ('{"realtime_ns": -1, "monotonic_ns": 400}', "whole numbers"),
        ('{"realtime_ns": 1, "monotonic_ns": 99999999999999999999}', "whole numbers"),
        ('{"start": {"realtime_ns": 1000, "monotonic_ns": 400}, "end": 3}', "has 3, but"),
    ],
)
def test_a_clock_file_that_holds_something_else_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        readings_in(text, "c.json")
    assert "'c.json'" in str(caught.value)
    assert words in str(caught.value)
    assert '"monotonic_ns": 2611259152318' in str(caught.value)


def test_a_clock_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_clock(tmp_path / "clock.json")
    (tmp_path / "clock.json").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot be read: it is no text"):
        read_clock(tmp_path / "clock.json")


def test_a_clock_file_beside_the_input_is_found(tmp_path: Path) -> None:
    assert clock_beside(str(tmp_path / "src.simple")) is None
    (tmp_path / "clock.json").write_text("{}")
    assert clock_beside(str(tmp_path / "src.simple")) == tmp_path / "clock.json"
    assert clock_beside("-") is None


@pytest.mark.parametrize(
    ("text", "offset_ns"),
    [
        ("1795405703481433342", OFFSET_NS),
        ("1795405703.481433342s", OFFSET_NS),
        (" -3 ", -3),
        ("-1.5s", -1_500_000_000),
        ("0", 0),
        ("1.5", None),
        ("--3", None),
        ("", None),
        ("now", None),
        ("9" * 5000, None),
        ("9" * 5000 + "s", None),
        ("\u0663", None),
    ],
)
def test_an_offset_is_nanoseconds_or_a_duration(text: str, offset_ns: int | None) -> None:
    assert offset_of(text) == offset_ns
