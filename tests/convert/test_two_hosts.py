"""Both hosts of a migration in one trace, whatever their clocks say, and logs that are of several migrations or of none."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from tests.convert.command import Result, call

Logs = Callable[[str], list[Path]]
Span = dict[str, Any]
MS = 1_000_000
# 19625@1795407950.847563:migrate_set_state new state setup
NUMBERED = re.compile(rb"^(\d+)@(\d+)\.(\d{6}):", re.MULTILINE)
# 2026-11-23T04:30:06.843133Z migrate_set_state new state setup
DATED = re.compile(rb"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(?=Z )", re.MULTILINE)
ANSWERED = ("debian-7.2/postcopy", "debian-7.2/return-path", "debian-7.2/postcopy-recover", "qemu-10.2.0-log/postcopy")
"""Recordings with a return path, so that both hosts send messages."""


def raw(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def shifted(data: bytes, by_us: int, *, since: float = 0, rate: float = 1) -> bytes:
    """The log as another clock had stamped it: `by_us` ahead, from the part `since` of its lines on, or running at a rate."""
    cut = data.index(b"\n", int(since * len(data))) + 1 if since else 0
    first = NUMBERED.search(data) or DATED.search(data)
    assert first is not None
    zero_us = us_of(first)

    def stamp(found: re.Match[bytes]) -> bytes:
        us = us_of(found)
        us += by_us + round((us - zero_us) * (rate - 1))
        if found.re is NUMBERED:
            return b"%s@%d.%06d:" % (found[1], us // 1_000_000, us % 1_000_000)
        return (datetime.fromisoformat("1970-01-01") + timedelta(microseconds=us)).isoformat(timespec="microseconds").encode()

    return data[:cut] + DATED.sub(stamp, NUMBERED.sub(stamp, data[cut:]))


def us_of(stamp: re.Match[bytes]) -> int:
    if stamp.re is NUMBERED:
        return int(stamp[2]) * 1_000_000 + int(stamp[3])
    return (datetime.fromisoformat(stamp[0].decode()) - datetime.fromisoformat("1970-01-01")) // timedelta(microseconds=1)


class Trace:
    """What a conversion wrote."""

    def __init__(self, folder: Path, arguments: Sequence[str | Path]) -> None:
        self.done: Result = call(
            "convert", *arguments, "--to", f"file:{folder}", "--to", "console", "--accounting", folder.with_suffix(".json"),
            env={"COLUMNS": "200"},
        )  # fmt: skip
        assert self.done.code in (0, 7), self.done.err
        self.bytes = (folder / "traces.jsonl").read_bytes()
        self.notes: list[str] = json.loads(folder.with_suffix(".json").read_text())["notes"]
        self.spans: list[Span] = []
        for line in self.bytes.splitlines():
            for resource in json.loads(line)["resourceSpans"]:
                (file,) = (a["value"]["stringValue"] for a in resource["resource"]["attributes"] if a["key"] == "log.file.name")
                self.spans += [plain(span, file) for scope in resource["scopeSpans"] for span in scope["spans"]]
        self.points = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]

    def of(self, name: str) -> list[Span]:
        """The spans of a log, the migrations first."""
        return sorted((s for s in self.spans if s["file"] == name), key=lambda s: (s["name"] != "migration", s["start"]))

    def links(self) -> set[tuple[str, str]]:
        """Which spans point to which, by name and what they are of."""
        by_id = {span["id"]: span for span in self.spans}
        return {(label(span), label(by_id[link])) for span in self.spans for link in span["links"]}


def plain(span: Span, file: str) -> Span:
    attributes = {a["key"]: next(iter(a["value"].values())) for a in span.get("attributes", ())}
    return {
        "file": file, "name": span["name"],
        "id": span["spanId"], "trace": span["traceId"], "parent": span.get("parentSpanId", ""),
        "start": int(span["startTimeUnixNano"]), "end": int(span["endTimeUnixNano"]), "attributes": attributes,
        "links": [link["spanId"] for link in span.get("links", ())],
        "events": [int(event["timeUnixNano"]) for event in span.get("events", ())],
    }  # fmt: skip


def label(span: Span) -> str:
    found = span["attributes"]
    which = found.get("qemu.migration.section.id", found.get("qemu.migration.channel.id"))
    return f"{span['file']} {span['name']} {which} {span['start']}"


def clock(span: Span) -> dict[str, int]:
    """What a migration says of its clock: min, max, applied."""
    prefix = "otelbridge.clock.offset_"
    return {key.removeprefix(prefix): int(value) for key, value in span["attributes"].items() if key.startswith(prefix)}


def two(logs: list[Path], folder: Path, by_us: int = 0, **how: float) -> Trace:
    """A recording's two logs, the destination's with another clock."""
    src, dst = logs
    folder.mkdir()
    (folder / "src.log").write_bytes(raw(src))
    (folder / "dst.log").write_bytes(shifted(raw(dst), by_us, **how))
    return Trace(folder / "out", [folder / "src.log", folder / "dst.log"])


@pytest.mark.parametrize("by_us", [3_000_000, -3_000_000, 200])
@pytest.mark.parametrize("recording", ANSWERED)
def test_a_destination_whose_clock_differs_stands_where_it_was(recording: str, by_us: int, logs: Logs, tmp_path: Path) -> None:
    """As without the difference, within the bounds' width, with its own begin kept and the links where they were."""
    real, other = two(logs(recording), tmp_path / "real"), two(logs(recording), tmp_path / "other", by_us)
    before, after = real.of("dst.log"), other.of("dst.log")
    found = clock(after[0])
    assert found["min"] <= by_us * 1000 <= found["max"]
    assert 0 < (width := found["max"] - found["min"]) < 2 * MS
    assert found["applied"] == (found["min"] + found["max"]) // 2
    assert [s["name"] for s in before] == [s["name"] for s in after]
    for one, moved in zip(before, after, strict=True):
        assert abs(moved["start"] - one["start"]) <= width
        assert moved["end"] - moved["start"] == one["end"] - one["start"]
        assert [e - moved["start"] for e in moved["events"]] == [e - one["start"] for e in one["events"]]
        assert int(moved["attributes"]["otelbridge.clock.raw_begin"]) == one["start"] + by_us * 1000
    assert after[0]["parent"] == other.of("src.log")[0]["id"]
    assert after[0]["trace"] == other.of("src.log")[0]["trace"]
    assert len({s["trace"] for s in other.spans}) == len({s["trace"] for s in real.spans})
    assert sum(len(s["links"]) for s in after) == sum(len(s["links"]) for s in before) > 10
    assert "its times are shown" in other.done.out
    assert not any("raw_begin" in key for s in other.of("src.log") for key in s["attributes"])


def test_points_of_a_destination_move_with_its_spans(logs: Logs, tmp_path: Path) -> None:
    by_us = 3_600_000_000
    plain_points = times_of(two(logs("qemu-10.2.0-log/postcopy"), tmp_path / "real").points)
    other = two(logs("qemu-10.2.0-log/postcopy"), tmp_path / "other", by_us)
    begin, end = min(s["start"] for s in other.spans), max(s["end"] for s in other.spans)
    moved = times_of(other.points)
    assert len(moved) == len(plain_points)
    assert all(begin - 20_000 * MS <= time_ns <= end + 20_000 * MS for time_ns in moved)


def times_of(node: Any) -> list[int]:
    """All times in a tree of OTLP/JSON."""
    if isinstance(node, list):
        return [time_ns for value in node for time_ns in times_of(value)]
    if not isinstance(node, dict):
        return []
    own = [int(value) for key, value in node.items() if key in ("timeUnixNano", "startTimeUnixNano")]
    return own + [time_ns for value in node.values() for time_ns in times_of(value)]


def series_going_back(requests: list[dict[str, Any]]) -> list[str]:
    """The series of which a point is older than one that was written before it."""
    newest: dict[str, int] = {}
    back: list[str] = []
    for request in requests:
        for resource in request["resourceMetrics"]:
            for metric in (metric for scope in resource["scopeMetrics"] for metric in scope["metrics"]):
                (points,) = (value["dataPoints"] for key, value in metric.items() if isinstance(value, dict))
                for point in points:
                    series = json.dumps([resource["resource"], metric["name"], point.get("attributes")], sort_keys=True)
                    if int(point["timeUnixNano"]) < newest.get(series, 0):
                        back.append(series)
                    newest[series] = int(point["timeUnixNano"])
    return back


def test_without_an_answer_a_destination_behind_is_moved_and_one_ahead_is_not(logs: Logs, tmp_path: Path) -> None:
    """What arrives before it was sent is impossible; what arrives late may be late."""
    behind = two(logs("debian-7.2/precopy-busy"), tmp_path / "behind", -3_000_000)
    found = clock(behind.of("dst.log")[0])
    assert set(found) == {"max", "applied"}
    assert -3_000 * MS <= found["max"] == found["applied"] < -2_999 * MS
    ahead = two(logs("debian-7.2/precopy-busy"), tmp_path / "ahead", 3_000_000)
    assert clock(ahead.of("dst.log")[0])["applied"] == 0
    assert "may be up to 3 s ahead" in ahead.done.out
    for trace in (behind, ahead):
        assert len({s["trace"] for s in trace.spans}) == 1
        assert sum(len(s["links"]) for s in trace.of("dst.log")) > 100


@pytest.mark.parametrize(
    "how", [{"by_us": 500_000, "since": 0.5}, {"by_us": -500_000, "since": 0.5}, {"by_us": 0, "rate": 1.05}]
)
@pytest.mark.parametrize("recording", ["debian-7.2/postcopy", "qemu-10.2.0-log/postcopy"])
def test_a_clock_that_was_set_or_ran_off_is_said_and_nothing_moves(
    recording: str, how: dict[str, Any], logs: Logs, tmp_path: Path
) -> None:
    trace = two(logs(recording), tmp_path / "odd", **how)
    (note,) = [note for note in trace.notes if "cannot be compared" in note]
    assert "One of the two was set or ran unevenly" in note
    assert clock(trace.of("dst.log")[0]) == {"applied": 0}
    assert not any("raw_begin" in key for s in trace.spans for key in s["attributes"])
    assert trace.of("dst.log")[0]["parent"] == trace.of("src.log")[0]["id"]


def test_the_same_logs_give_the_same_bytes_and_ids_come_from_the_log_s_own_times(logs: Logs, tmp_path: Path) -> None:
    src, dst = logs("debian-7.2/return-path")
    moved = tmp_path / "dst.log"
    moved.write_bytes(shifted(raw(dst), 3_000_000))
    once, twice = Trace(tmp_path / "once", [src, moved]), Trace(tmp_path / "twice", [src, moved])
    alone = Trace(tmp_path / "alone", [moved])
    assert once.bytes == twice.bytes
    assert {s["id"] for s in alone.spans} == {s["id"] for s in once.of("dst.log")}


def test_in_no_recording_of_one_machine_do_the_clocks_seem_to_differ(shared_recordings: Path, tmp_path: Path) -> None:
    """One clock stamped both logs, so an offset of 0 must be possible in each; bounds are narrow where pings were answered."""
    joined = 0
    for number, folder in enumerate(sorted({path.parent for path in shared_recordings.glob("*-*/*/*.log*")})):
        paths = sorted((*folder.glob("*.log"), *folder.glob("*.log.gz")))
        if not folder.parent.name.endswith(("-log", "debian-7.2")):
            continue
        trace = Trace(tmp_path / str(number), [*paths, "--assume-start", "2026-01-01T00:00:00Z"])
        for span in trace.spans:
            found = clock(span)
            if found:
                joined += 1
                assert found["applied"] == 0, (folder, found)
                assert found.get("min", 0) <= 0 <= found.get("max", 0), (folder, found)
        assert not any("cannot be compared" in note for note in trace.notes), folder
    assert joined > 40


def names(trace: Trace) -> set[tuple[str, str]]:
    """Which destination's log is in the trace of which source's."""
    roots = [s for s in trace.spans if s["name"] == "migration"]
    by_id = {s["id"]: s for s in roots}
    return {(s["file"], by_id[s["parent"]]["file"]) for s in roots if s["parent"] in by_id}


def test_four_logs_of_two_migrations_find_each_other_in_any_order(logs: Logs, tmp_path: Path) -> None:
    """Alike but for their times, and one destination's clock is wrong: what was sent and received tells."""
    first, second = logs("debian-7.2/precopy-busy"), logs("debian-7.2/multifd")
    named: list[Path] = []
    for stem, (src, dst), by_us in (("one", first, 0), ("two", second, -3_000_000)):
        named += [tmp_path / f"{stem}-src.log", tmp_path / f"{stem}-dst.log"]
        named[-2].write_bytes(raw(src))
        named[-1].write_bytes(shifted(raw(dst), by_us))
    for number, order in enumerate(list(permutations(named))[::5]):
        trace = Trace(tmp_path / f"out{number}", order)
        assert names(trace) == {("one-dst.log", "one-src.log"), ("two-dst.log", "two-src.log")}
        assert len({s["trace"] for s in trace.spans}) == 2
        assert trace.notes == []


@pytest.mark.parametrize("group", ["debian-7.2", "qemu-4.1.0-log"])
def test_two_migrations_of_one_source_each_have_their_destination_and_their_trace(
    group: str, logs: Logs, tmp_path: Path
) -> None:
    """The first was cancelled, the second completed; `src.log` holds both."""
    trace = Trace(tmp_path / "out", sorted(logs(f"{group}/two-in-a-row")))
    first, second = (s for s in trace.of("src.log") if s["name"] == "migration")
    assert trace.of("dst1.log")[0]["parent"] == first["id"]
    assert trace.of("dst2.log")[0]["parent"] == second["id"]
    assert len({s["trace"] for s in trace.spans}) == 2


def test_a_chain_of_three_hosts_is_two_traces(logs: Logs, tmp_path: Path) -> None:
    """The one in the middle is the destination of the first and the source of the second, and its clock is wrong."""
    a, b, c = sorted(logs("qemu-10.2.0-log/chain"))
    moved = tmp_path / "b.log"
    moved.write_bytes(shifted(raw(b), -2_000_000))
    trace = Trace(tmp_path / "out", [c, moved, a])
    roots = {s["attributes"]["qemu.migration.role"]: s for s in trace.of("b.log") if s["name"] == "migration"}
    incoming, outgoing = roots["destination"], roots["source"]
    assert incoming["parent"] == trace.of("a.log")[0]["id"]
    assert trace.of("c.log")[0]["parent"] == outgoing["id"]
    assert len({s["trace"] for s in trace.spans}) == 2
    assert "otelbridge.clock.raw_begin" in incoming["attributes"]
    assert "otelbridge.clock.raw_begin" not in outgoing["attributes"]
    assert series_going_back(trace.points) == []


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("debian-7.2/precopy-busy", "debian-7.2/multifd"),
        ("debian-7.2/multifd", "debian-7.2/precopy-busy"),
        ("debian-7.2/tls-ok", "debian-7.2/return-path"),
        ("debian-7.2/postcopy", "debian-7.2/postcopy-recover"),
        ("qemu-10.2.0-log/postcopy", "qemu-10.2.0-log/precopy-busy"),
        ("debian-7.2/precopy-busy", "debian-7.2/cancelled"),
    ],
)
def test_logs_of_different_migrations_are_not_forced_into_one_trace(
    source: str, destination: str, logs: Logs, tmp_path: Path
) -> None:
    src, dst = logs(source)[0], logs(destination)[1]
    trace = Trace(tmp_path / "out", [src, dst])
    assert names(trace) == set()
    assert not any(s["links"] for s in trace.spans)
    (note,) = trace.notes
    assert note.startswith(f"{dst}: its migration belongs to no other log that was given (nearest is {src}, but ")
    assert " ".join(note.split()) in " ".join(trace.done.out.replace("note", " ").split())


def test_two_logs_that_the_user_names_are_one_migration_all_the_same(logs: Logs, tmp_path: Path) -> None:
    src, dst = logs("debian-7.2/tls-ok")[0], logs("debian-7.2/return-path")[1]
    trace = Trace(tmp_path / "out", ["--source", src, "--destination", dst])
    assert trace.of(dst.name)[0]["parent"] == trace.of(src.name)[0]["id"]
    (note, *_) = trace.notes
    assert "because they were named so, but" in note


def test_two_sides_in_one_file_that_lacks_a_line_are_told_as_two_processes(shared_recordings: Path, tmp_path: Path) -> None:
    """Rsyslog lost a section of the source; one file cannot be named with both --source and --destination."""
    log = shared_recordings / "qemu-10.2.0-syslog/tls-ok/rfc3164.log"
    (note,) = Trace(tmp_path / "out", [log]).notes
    assert note.startswith(f"{log}: two processes wrote into it")
    assert "write the lines of each into a file of its own" in note
