"""One run of QEMU 10.2.0, seen by every text backend: all of them tell the same events as the log."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pytest

from otelbridge.catalogue import TextDecoder
from otelbridge.catalogue.fields import FieldDecoder
from otelbridge.readers.ftrace import ftrace_reader
from otelbridge.readers.journald import journald_reader
from otelbridge.readers.log import LogReader
from otelbridge.readers.syslog import syslog_reader
from otelbridge.readers.ust import ust_reader
from otelbridge.records import SECOND_NS, Row
from tests.readers.traces import ALL_ROWS, CATALOGUE, NO_ROWS, Read, Reader, content, cut, is_event, no_sums, read

MS = 1_000_000
SCENARIOS = ("precopy-busy", "tls-ok")


class Run(NamedTuple):
    """A scenario and what is known of it from elsewhere."""

    recordings: Path
    scenario: str
    truth: dict[str, Any]

    def file(self, backend: str, name: str) -> Path:
        return next((self.recordings / f"qemu-10.2.0-{backend}" / self.scenario).glob(name + "*"))

    @property
    def pids(self) -> dict[str, int]:
        return {name: vm["pid"] for name, vm in self.truth["vms"].items()}

    @property
    def end_ns(self) -> int:
        return int(self.truth["t1"]) * SECOND_NS + SECOND_NS

    def log(self, name: str) -> list[Row]:
        return read(LogReader(ALL_ROWS, is_event, no_sums), content(self.file("log", f"{name}.log"))).rows

    def threads(self) -> dict[int | None, int | None]:
        """The process of each thread, as LTTng has them."""
        rows = read(ust_reader(ALL_ROWS, is_event, no_sums), content(self.file("ust", "babeltrace2-date.txt"))).rows
        return {row.thread: row.process for row in rows}


@pytest.fixture(params=SCENARIOS)
def run(request: pytest.FixtureRequest, shared_recordings: Path) -> Run:
    truth = shared_recordings / "qemu-10.2.0-log" / request.param / "truth.json"
    return Run(shared_recordings, request.param, json.loads(truth.read_text()))


def argued(rows: list[Row]) -> list[tuple[str, bytes]]:
    """Events with their arguments; the journal cuts blanks off the end."""
    return [(row.event, row.raw.rstrip(b" ")) for row in rows]


def lags(rows: list[Row], log: list[Row]) -> list[int]:
    """How much later than the log each event is stamped."""
    return [(row.time_ns or 0) - (other.time_ns or 0) for row, other in zip(rows, log, strict=True)]


@pytest.mark.parametrize("name", ["ftrace-trace.txt", "trace-cmd-report.txt"])
def test_ftrace_tells_the_events_of_the_log_with_threads(run: Run, name: str) -> None:
    clock = json.loads(run.file("ftrace", "clock.json").read_text())
    offset_ns = clock["start"]["realtime_minus_monotonic_ns"]
    reader = ftrace_reader(ALL_ROWS, is_event, no_sums, offset_ns=offset_ns)
    found = read(reader, content(run.file("ftrace", name)))
    assert reader.resolution_ns == 1000
    threads = run.threads()
    for vm, pid in run.pids.items():
        rows = [row for row in found.rows if threads[row.thread] == pid]
        log = run.log(vm)
        assert argued(rows) == argued(log)
        apart = lags(rows, log)
        # The trace clock was `local`, which is the monotonic one but for a constant.
        constant = median(apart)
        assert abs(constant) < 100 * MS
        assert max(abs(lag - constant) for lag in apart) < 3 * MS
    assert found.units == {"not_trace": found.total - len(found.rows)}


@pytest.mark.parametrize(
    ("name", "make"),
    [("journal.jsonl", journald_reader), ("journal-short.txt", syslog_reader)],
)
def test_the_journal_tells_the_events_of_the_log(run: Run, name: str, make: Callable[..., Reader]) -> None:
    after = {} if make is journald_reader else {"not_after_ns": run.end_ns}
    found = read(make(ALL_ROWS, is_event, no_sums, **after), content(run.file("syslog", name)))
    assert found.units == {}
    for vm, pid in run.pids.items():
        rows, log = [row for row in found.rows if row.process == pid], run.log(vm)
        assert argued(rows) == argued(log)
        apart = lags(rows, log)
        # The journal's stamp is of the sending, which comes after the log; the worst of 1,851 events was sent 4.3 ms later.
        assert median(apart) < MS
        assert min(apart) >= 0
        assert max(apart) < 10 * MS
    assert all(row.thread is None for row in found.rows)


@pytest.mark.parametrize(("name", "resolution_ns"), [("iso.log", 1000), ("rfc5424.log", 1000), ("rfc3164.log", SECOND_NS)])
def test_rsyslog_tells_only_events_of_the_log_in_its_order(run: Run, name: str, resolution_ns: int) -> None:
    """Journald's forwarding lost some; what is there stands in the log in the same order, at the same time."""
    reader = syslog_reader(ALL_ROWS, is_event, no_sums, not_after_ns=run.end_ns)
    found = read(reader, content(run.file("syslog", name)))
    assert found.units == {}
    assert reader.resolution_ns == resolution_ns
    lost = 0
    for vm, pid in run.pids.items():
        rows, log = [row for row in found.rows if row.process == pid], run.log(vm)
        rest = iter(log)
        for row in rows:
            wanted = argued([row])
            # The moment of receipt.
            assert any(
                argued([other]) == wanted and abs((other.time_ns or 0) - (row.time_ns or 0)) < resolution_ns + 100 * MS
                for other in rest
            ), row
        lost += len(log) - len(rows)
    assert 0 < lost < 30


@pytest.mark.parametrize("name", ["babeltrace2.txt", "babeltrace2-date.txt"])
def test_lttng_tells_the_events_and_values_of_the_log_with_threads_and_processes(run: Run, name: str) -> None:
    found = read(ust_reader(ALL_ROWS, is_event, no_sums, not_after_ns=run.end_ns), content(run.file("ust", name)))
    assert found.units == {}
    wanted = {event: [a.name for a in CATALOGUE.variants(event)[0].arguments] for event in CATALOGUE.declared()}
    fields, text = (make(CATALOGUE, wanted, "10.2.0") for make in (FieldDecoder, TextDecoder))
    for vm, pid in run.pids.items():
        rows, log = [row for row in found.rows if row.process == pid], run.log(vm)
        decoded = [(row.event, fields.decode(row.event, row.raw)) for row in rows]
        expected = [(row.event, text.decode(row.event, row.raw)) for row in log]
        assert [event for event, _ in decoded] == [event for event, _ in expected]
        # In the recording itself an empty string of this event now and then holds what stood there before: sub2 = "(prefix)".
        stale = ("vmstate_subsection_load_bad", "(short)", "(prefix)")
        assert [
            (mine, other)
            for mine, other in zip(decoded, expected, strict=True)
            if mine != other and (mine[0], *(mine[1] or ())[1:]) != stale
        ] == []
        assert None not in [values for _, values in decoded]
        assert max(map(abs, lags(rows, log))) < MS
    assert all(row.thread is not None for row in found.rows)


def test_per_process_buffers_name_the_process(shared_recordings: Path) -> None:
    folder = shared_recordings / "qemu-10.2.0-ust" / "multifd-buffers-pid"
    truth = json.loads((folder / "truth.json").read_text())
    found = read(ust_reader(ALL_ROWS, is_event, no_sums), content(folder / "babeltrace2-date.txt"))
    for vm in truth["vms"]:
        events = Counter(row.event for row in found.rows if row.process == truth["vms"][vm]["pid"])
        assert events == counted_by_awk(truth, vm)


def counted_by_awk(truth: dict[str, Any], vm: str) -> dict[str, int]:
    log = next(log for name, log in truth["logs"].items() if name.startswith(vm))
    counts: dict[str, int] = log["events"]
    return counts


def test_ftrace_with_other_tracers_lines_between_tells_the_events_of_the_log(shared_recordings: Path) -> None:
    folder = shared_recordings / "qemu-10.2.0-ftrace" / "multifd"
    truth = json.loads((folder / "truth.json").read_text())
    found = read(ftrace_reader(ALL_ROWS, is_event, no_sums), content(folder / "ftrace-trace.txt"))
    events = Counter(row.event for row in found.rows)
    assert events == sum((Counter(counted_by_awk(truth, vm)) for vm in truth["vms"]), Counter())
    assert found.units["not_trace"] == content(folder / "ftrace-trace.txt").count(b"\n") - 4083


ALL_TRACES = (
    "qemu-10.2.0-ftrace/*/*.txt",
    "qemu-10.2.0-syslog/*/*.log",
    "qemu-10.2.0-syslog/*/journal-short.txt",
    "qemu-10.2.0-syslog/*/journal*.jsonl*",
    "qemu-10.2.0-ust/*/*.txt",
)


def reader_of(path: Path, plan: Any = ALL_ROWS) -> Reader:
    if "journal" in path.name and "jsonl" in path.name:
        return journald_reader(plan, is_event, no_sums)
    make: Callable[..., Reader] = {"ftrace": ftrace_reader, "syslog": syslog_reader, "ust": ust_reader}[
        path.parent.parent.name.rpartition("-")[2]
    ]
    return make(plan, is_event, no_sums, **({} if make is ftrace_reader else {"not_after_ns": 1795410000 * SECOND_NS}))


def traces(shared_recordings: Path) -> list[Path]:
    found = [path for pattern in ALL_TRACES for path in sorted(shared_recordings.glob(pattern))]
    assert len(found) == 24
    return found


def test_how_a_trace_is_cut_changes_nothing(shared_recordings: Path) -> None:
    for path in traces(shared_recordings):
        data = content(path)
        whole = read(reader_of(path), data)
        assert read(reader_of(path), data, cut(data, 1 << 16)) == whole, path
        assert read(reader_of(path), data, cut(data, 1000)) == whole, path
        start = data[: 30 << 10]
        assert read(reader_of(path), start, cut(start, 1)) == read(reader_of(path), start), path


def test_every_line_is_accounted_for(shared_recordings: Path) -> None:
    for path in traces(shared_recordings):
        data = content(path)
        for plan in (ALL_ROWS, NO_ROWS):
            found: Read = read(reader_of(path, plan), data)
            assert found.accounted == found.total == data.count(b"\n"), path


def test_a_snapshot_goes_on_anywhere(shared_recordings: Path) -> None:
    for path in traces(shared_recordings):
        data = content(path)[: 20 << 10]
        whole = read(reader_of(path), data)
        for place in (1, 700, 7001, len(data) - 1):
            first = reader_of(path)
            rows = [row for batch in first.feed(data[:place]) for row in batch.rows]
            second = reader_of(path)
            second.restore(json.loads(json.dumps(first.snapshot())))
            assert rows + read(second, data[place:]).rows == whole.rows, path
