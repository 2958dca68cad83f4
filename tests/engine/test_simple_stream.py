"""A simple trace through the engine gives the spans that the log of the same run gives."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from otelbridge.catalogue import builtin
from otelbridge.catalogue.binary import BinaryDecoder
from otelbridge.engine import Engine, Stream
from otelbridge.engine.ids import stream_key
from otelbridge.errors import FormatError
from otelbridge.otlp.encode import encode_points, encode_spans
from otelbridge.readers.clock import Facts, clock_of, read_clock
from otelbridge.readers.simple import SimpleReader
from otelbridge.records import FinishedSpan, Resource, Value
from tests.engine.builders import MS, Seen, attribute, incomplete, run, shipped
from tests.readers.simple_files import MUTATION, OFFSET_NS, Recording, damaged, recordings_in, small_trace

_DIFFER = {"qemu.version", "otelbridge.pairing"}
"""The names in a simple trace tell the version more narrowly; its events carry no thread."""
_APART_NS = 20 * MS
"""The log's line is written after the simple record, by a thread that may have to wait."""


def seen(recording: Recording) -> Seen:
    """A whole recording with all shipped mappings."""
    clock = clock_of(Facts(readings=read_clock(recording.path.with_name("clock.json"))), str(recording.path))
    return of_trace(recording.data, clock.offset_ns)


def of_trace(data: bytes, offset_ns: int) -> Seen:
    """A whole simple trace with all shipped mappings."""
    mapping, catalogue = shipped(), builtin()
    decoder, sums = BinaryDecoder(catalogue, mapping.plan.rows), BinaryDecoder(catalogue, mapping.plan.sums)

    def declared(name: str) -> None:
        decoder.saw(name)
        sums.saw(name)

    reader = SimpleReader(mapping.plan, catalogue.is_event, sums.decode, offset_ns=offset_ns, declared=declared)
    stream = Stream(stream_key("simple"))
    engine = Engine(mapping, stream, decoder.decode, lambda: decoder.version_range, decoder.saw)
    for batch in [*reader.feed(data), *reader.finish()]:
        engine.feed(batch)
    engine.settle()
    open_spans = engine.open
    engine.finish()
    return Seen(engine.take_spans(), engine.take_points(), engine.accounting, open_spans)


def of_log(recording: Recording, folder: Path) -> Seen | None:
    at = folder / recording.path.parts[-3].replace("-simple", "-log") / recording.path.parts[-2]
    stem = recording.path.name.split(".")[0]
    for path in (at / f"{stem}.log", at / f"{stem}.log.gz"):
        if path.exists():
            return run(shipped(), Recording(path).data)
    return None


def facts(span: FinishedSpan) -> tuple[str, int, tuple[tuple[str, Value], ...], int, str, tuple[str, ...]]:
    """All of a span but its times and ids."""
    attributes = tuple(sorted(pair for pair in span.attributes if pair[0] not in _DIFFER))
    return span.name, span.kind, attributes, span.status, span.message, tuple(event.name for event in span.events)


def check(recording: Recording, log: Seen) -> None:
    simple = seen(recording)
    assert Counter(map(facts, simple.spans)) == Counter(map(facts, log.spans)), recording.path
    assert simple.accounting.events == log.accounting.events, recording.path
    assert simple.accounting.total == sum(simple.accounting.buckets.values())
    same = ("begin", "end", "state", "span_event", "metric", "counted", "unmapped", "orphan_end", "malformed", "torn")
    for bucket in same:
        assert simple.accounting.buckets[bucket] == log.accounting.buckets[bucket], (recording.path, bucket)
    # Which are the slowest of many depends on microseconds.
    for name in {span.name for span in log.spans} - {rule.name for rule in shipped().spans if rule.keep}:
        ours, theirs = (sorted((s.start_ns, s.end_ns) for s in stream.named(name)) for stream in (simple, log))
        for (start_ns, end_ns), (log_start_ns, log_end_ns) in zip(ours, theirs, strict=True):
            assert abs(start_ns - log_start_ns) < _APART_NS, (recording.path, name)
            assert abs(end_ns - log_end_ns) < _APART_NS, (recording.path, name)


def test_a_simple_trace_gives_the_spans_of_the_log_of_the_same_run(recordings: Path) -> None:
    for recording in recordings_in(recordings):
        log = of_log(recording, recordings)
        assert log is not None
        assert log.named("migration")
        check(recording, log)


def test_all_simple_traces_give_the_spans_of_the_logs_of_the_same_runs(shared_recordings: Path) -> None:
    checked = 0
    for recording in recordings_in(shared_recordings):
        log = of_log(recording, shared_recordings)
        if log is not None:
            check(recording, log)
            checked += 1
    assert checked > 15


def test_the_version_is_the_one_that_wrote_the_trace(shared_recordings: Path) -> None:
    for recording in recordings_in(shared_recordings):
        for root in seen(recording).named("migration"):
            assert str(attribute(root, "qemu.version")).split(" ")[0] == recording.version


def test_a_trace_that_lost_events_says_so_on_what_was_open(shared_recordings: Path) -> None:
    """The source dropped 11,654 of 41,493 events and says it in its last record, when all has ended but what lost its end."""
    source = seen(Recording(shared_recordings / "qemu-10.2.0-simple/precopy-busy-pages-dropped/src.simple.gz"))
    assert source.accounting.buckets["dropped_by_qemu"] == 11_654
    left = [span for span in source.spans if incomplete(span)]
    doubtful = [span for span in source.spans if attribute(span, "otelbridge.doubtful")]
    assert left
    assert {span.span_id for span in doubtful} <= {span.span_id for span in left}
    assert "migration" in {span.name for span in doubtful}


@settings(max_examples=60, deadline=None)
@given(mutations=st.lists(MUTATION, min_size=1, max_size=6))
def test_a_damaged_trace_gives_spans_that_can_be_sent_or_is_refused(
    recordings: Path, mutations: list[tuple[str, int, bytes]]
) -> None:
    """Texts that are no UTF-8, numbers of any size, events out of their order."""
    try:
        found = of_trace(damaged(small_trace(recordings), mutations), OFFSET_NS)
    except FormatError:
        return
    buckets = found.accounting.buckets
    assert found.accounting.total == buckets.total() - buckets["dropped_by_qemu"]
    assert all(0 < span.start_ns <= span.end_ns < 1 << 63 for span in found.spans)
    assert encode_spans(Resource(()), found.spans)
    assert encode_points(Resource(()), found.points)
