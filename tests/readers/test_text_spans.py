"""The same run gives the same spans whichever backend wrote it down."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from otelbridge.catalogue import TextDecoder
from otelbridge.catalogue.fields import FieldDecoder
from otelbridge.engine import Engine, Stream
from otelbridge.mapping import load_with_shipped
from otelbridge.readers.ftrace import ftrace_reader
from otelbridge.readers.journald import journald_reader
from otelbridge.readers.log import LogReader
from otelbridge.readers.stap import stap_reader
from otelbridge.readers.syslog import syslog_reader
from otelbridge.readers.ust import ust_reader
from otelbridge.records import SECOND_NS, Batch
from tests.readers.traces import ALL_ROWS, CATALOGUE, Reader, content, is_event, no_sums

SCENARIO = "precopy-busy"
MAPPING = load_with_shipped((), CATALOGUE)

Spans = Counter[tuple[str, int, tuple[tuple[str, object], ...]]]
# What depends on the thread, which the log does not have, and on how the events are told apart by it.
_OF_THE_THREAD = ("otelbridge.pairing",)


def converted(
    make: Callable[..., Reader], data: bytes, keep: Callable[[Any], bool], **options: Any
) -> tuple[Spans, Counter[str]]:
    """Names, status and attributes of one process's spans, and the buckets of its lines."""
    of = FieldDecoder if make is ust_reader else TextDecoder
    decoder = of(CATALOGUE, MAPPING.plan.rows, "10.2.0")
    sums = of(CATALOGUE, MAPPING.plan.sums, "10.2.0")
    reader = make(MAPPING.plan, is_event, sums.decode, **options)
    engine = Engine(MAPPING, Stream(b"k" * 16), decoder.decode, lambda: decoder.version_range, decoder.saw)
    for batch in (*reader.feed(data), *reader.finish()):
        engine.feed(batch._replace(rows=[row for row in batch.rows if keep(row)]))
    engine.finish()
    spans: Spans = Counter()
    for span in engine.take_spans():
        kept = tuple((name, value) for name, value in span.attributes if name not in _OF_THE_THREAD)
        spans[span.name, span.status, kept] += 1
    return spans, +engine.accounting.buckets


def everything(_row: object) -> bool:
    return True


@pytest.fixture(scope="module")
def truth(shared_recordings: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((shared_recordings / "qemu-10.2.0-log" / SCENARIO / "truth.json").read_text())
    return found


@pytest.fixture(scope="module")
def source_of_log(shared_recordings: Path) -> tuple[Spans, Counter[str]]:
    found = converted(LogReader, content(shared_recordings / "qemu-10.2.0-log" / SCENARIO / "src.log"), everything)
    assert found[0].total() > 200
    return found


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (journald_reader, "qemu-10.2.0-syslog/precopy-busy/journal.jsonl.gz"),
        (syslog_reader, "qemu-10.2.0-syslog/precopy-busy/journal-short.txt"),
        (ust_reader, "qemu-10.2.0-ust/precopy-busy/babeltrace2-date.txt"),
        (ftrace_reader, "qemu-10.2.0-ftrace/precopy-busy/ftrace-trace.txt"),
        (ftrace_reader, "qemu-10.2.0-ftrace/precopy-busy/trace-cmd-report.txt"),
    ],
)
def test_a_backend_gives_the_spans_of_the_log(
    make: Callable[..., Reader],
    name: str,
    shared_recordings: Path,
    truth: dict[str, Any],
    source_of_log: tuple[Spans, Counter[str]],
) -> None:
    pid, options = truth["vms"]["src"]["pid"], {}
    keep: Callable[[Any], bool] = lambda row: row.process == pid  # noqa: E731  # as short as the case beside it
    if make is syslog_reader:
        options = {"not_after_ns": int(truth["t1"]) * SECOND_NS}
    if make is ftrace_reader:
        threads = {row.thread for row in of_process(shared_recordings, pid)}
        keep = lambda row: row.thread in threads  # noqa: E731
        options = {"offset_ns": 1795405703481433372}
    spans, _ = converted(make, content(shared_recordings / name), keep, **options)
    assert spans == source_of_log[0]


def of_process(shared_recordings: Path, pid: int) -> list[Any]:
    """The events of a process, as LTTng has them with their threads."""
    data = content(shared_recordings / "qemu-10.2.0-ust" / SCENARIO / "babeltrace2-date.txt")
    batches: list[Batch] = ust_reader(ALL_ROWS, is_event, no_sums).feed(data)
    return [row for batch in batches for row in batch.rows if row.process == pid]


def test_systemtap_gives_the_spans_of_the_log(shared_recordings: Path, source_of_log: tuple[Spans, Counter[str]]) -> None:
    """What log.stp prints of the same events: the log's text, NULL and (nil) in its own words."""
    log = LogReader(ALL_ROWS, is_event, no_sums)
    data = content(shared_recordings / "qemu-10.2.0-log" / SCENARIO / "src.log")
    lines = [
        b"23115@%d %s %s\n" % (row.time_ns or 0, row.event.encode(), row.raw) for batch in log.feed(data) for row in batch.rows
    ]
    printed = b"".join(lines).replace(b"(nil)", b"0x0").replace(b"(null)", b"<null>")
    spans, buckets = converted(stap_reader, b"Running script, <Ctrl>-c to quit\n" + printed, everything)
    assert spans == source_of_log[0]
    assert buckets == source_of_log[1] + Counter(not_trace=1)
