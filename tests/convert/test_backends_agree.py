"""The same migration, written by every backend at once, gives the same spans whichever of its traces is converted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.convert.command import call

BUSY, TLS, MULTIFD, POSTCOPY, CHAIN = "precopy-busy", "tls-ok", "multifd-tls", "postcopy", "chain"
KEPT = frozenset({"migration.rate_limit", "postcopy.fault", "loadvm.command"})
"""Of these the slowest go out, and which are slowest depends on microseconds."""


class Trace(NamedTuple):
    """A trace of a scenario: its folder below the recordings, its files, and how far durations may differ from the log's."""

    folder: str
    files: tuple[str, ...]
    apart_ms: float


TRACES = {
    (BUSY, "simple"): Trace(f"qemu-10.2.0-simple/{BUSY}", ("src.simple", "dst.simple"), 5),
    (BUSY, "ftrace"): Trace(f"qemu-10.2.0-ftrace/{BUSY}", ("ftrace-trace.txt",), 10),
    (BUSY, "trace-cmd"): Trace(f"qemu-10.2.0-ftrace/{BUSY}", ("trace-cmd-report.txt",), 10),
    (BUSY, "ust"): Trace(f"qemu-10.2.0-ust/{BUSY}", ("babeltrace2.txt",), 5),
    (BUSY, "ust with dates"): Trace(f"qemu-10.2.0-ust/{BUSY}", ("babeltrace2-date.txt",), 5),
    (BUSY, "journald"): Trace(f"qemu-10.2.0-syslog/{BUSY}", ("journal.jsonl.gz",), 20),
    (BUSY, "journal's text"): Trace(f"qemu-10.2.0-syslog/{BUSY}", ("journal-short.txt",), 20),
    (TLS, "simple"): Trace(f"qemu-10.2.0-simple/{TLS}", ("src.simple", "dst.simple"), 5),
    (TLS, "ftrace"): Trace(f"qemu-10.2.0-ftrace/{TLS}", ("ftrace-trace.txt",), 10),
    (TLS, "ust"): Trace(f"qemu-10.2.0-ust/{TLS}", ("babeltrace2.txt",), 5),
    (TLS, "journald"): Trace(f"qemu-10.2.0-syslog/{TLS}", ("journal.jsonl",), 20),
    (MULTIFD, "simple"): Trace(f"qemu-10.2.0-simple/{MULTIFD}", ("src.simple", "dst.simple"), 5),
    (POSTCOPY, "simple"): Trace(f"qemu-10.2.0-simple/{POSTCOPY}", ("src.simple", "dst.simple"), 5),
    (CHAIN, "simple"): Trace(f"qemu-10.2.0-simple/{CHAIN}", ("a.simple", "b.simple", "c.simple"), 5),
}
LOGS = dict.fromkeys((BUSY, TLS, MULTIFD, POSTCOPY), ("src.log", "dst.log")) | {CHAIN: ("a.log", "b.log", "c.log")}


class Span(NamedTuple):
    """What is compared of a span."""

    name: str
    parent: str
    role: str
    begin_ns: int
    length_ns: int
    trace: str


def converted(folder: Path, names: tuple[str, ...], out: Path) -> list[Span]:
    files = [next(path for path in (folder / name, folder / f"{name}.gz") if path.exists()) for name in names]
    done = call("convert", *files, "--to", f"file:{out}")
    assert done.code == 0, done.err
    spans = {}
    for line in (out / "traces.jsonl").read_text().splitlines():
        for resource in json.loads(line)["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                spans |= {span["spanId"]: span for span in scope["spans"]}
    return [
        Span(
            span["name"],
            spans.get(span.get("parentSpanId"), {}).get("name", ""),
            next((a["value"]["stringValue"] for a in span["attributes"] if a["key"] == "qemu.migration.role"), ""),
            int(span["startTimeUnixNano"]),
            int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"]),
            span["traceId"],
        )
        for span in spans.values()
    ]


def lengths(spans: list[Span]) -> dict[tuple[str, str, str], list[int]]:
    """By name, parent and role, in the order of the begins."""
    found: dict[tuple[str, str, str], list[int]] = {}
    for span in sorted(spans, key=lambda s: s.begin_ns):
        if span.name not in KEPT:
            found.setdefault(span[:3], []).append(span.length_ns)
    return found


@pytest.mark.parametrize(("scenario", "backend"), TRACES)
def test_every_backend_tells_of_the_same_spans(shared_recordings: Path, tmp_path: Path, scenario: str, backend: str) -> None:
    trace = TRACES[scenario, backend]
    log = converted(shared_recordings / "qemu-10.2.0-log" / scenario, LOGS[scenario], tmp_path / "log")
    other = converted(shared_recordings / trace.folder, trace.files, tmp_path / "other")
    assert Counter(span.name for span in other) == Counter(span.name for span in log)
    expected, found = lengths(log), lengths(other)
    assert {key: len(values) for key, values in found.items()} == {key: len(values) for key, values in expected.items()}
    for key, values in found.items():
        # Of events within the stamps' jitter the order differs, so all of a name are compared, not one by one.
        apart = [abs(a - b) for a, b in zip(sorted(values), sorted(expected[key]), strict=True)]
        assert max(apart) <= trace.apart_ms * 1_000_000, key


@pytest.mark.parametrize(("scenario", "backend"), TRACES)
def test_both_hosts_of_every_backend_are_in_one_trace(
    shared_recordings: Path, tmp_path: Path, scenario: str, backend: str
) -> None:
    trace = TRACES[scenario, backend]
    spans = converted(shared_recordings / trace.folder, trace.files, tmp_path / "out")
    roles: dict[str, set[str]] = {}
    for span in spans:
        if span.name == "migration":
            roles.setdefault(span.trace, set()).add(span.role)
    assert len(roles) == (2 if scenario == CHAIN else 1)
    assert all(found == {"source", "destination"} for found in roles.values())


def test_a_ctf_folder_gives_the_spans_of_its_text(
    shared_recordings: Path, need: Callable[[str, str], None], tmp_path: Path
) -> None:
    """babeltrace2 is started for the first look and for each reading, and ended after each."""
    need("babeltrace2", "it reads LTTng's traces; apt-get install babeltrace2")
    folder = shared_recordings / "qemu-10.2.0-ust" / "tls-ok"
    names = []
    for source in (folder / "ctf", folder / "babeltrace2-date.txt"):
        done = call("convert", source, "--to", f"file:{tmp_path}")
        assert done.code == 0, done.err
        requests = [json.loads(line) for line in (tmp_path / "traces.jsonl").read_text().splitlines()]
        names.append(
            Counter(
                (span["name"], span["startTimeUnixNano"], span["endTimeUnixNano"])
                for request in requests
                for resource in request["resourceSpans"]
                for scope in resource["scopeSpans"]
                for span in scope["spans"]
            )
        )
    assert names[0].total() > 90
    assert names[0] == names[1]
