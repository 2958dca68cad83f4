"""An engine that was stopped and taken up again goes on as if nothing had been."""

from __future__ import annotations

import gzip
import json
import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelbridge.engine.machines import Join
from otelbridge.mapping import Mapping as Rules
from otelbridge.records import Batch, FinishedSpan, MetricPoint
from tests.engine.builders import RECORDINGS, Live, batches, events, rules, shipped, text_of

Out = tuple[list[FinishedSpan], list[MetricPoint], dict[str, int], dict[str, int], int]


def out(live: Live, spans: list[FinishedSpan], points: list[MetricPoint]) -> Out:
    account = live.engine.accounting
    return spans, points, dict(account.buckets), dict(account.events), account.finished


def whole(stream: list[Batch], joins: dict[bytes, Join] | None = None) -> Out:
    live = Live(shipped(), joins=joins)
    for batch in stream:
        live.feed(batch)
    live.finish()
    return out(live, live.spans, live.points)


def stopped(stream: list[Batch], every: int = 1, joins: dict[bytes, Join] | None = None) -> Out:
    """As `whole`, but after every so many batches in a new engine that knows only the JSON of the one before."""
    live = Live(shipped(), joins=joins)
    spans: list[FinishedSpan] = []
    points: list[MetricPoint] = []
    for number, batch in enumerate(stream):
        live.feed(batch)
        if number % every == 0:
            spans += live.spans
            points += live.points
            saved = live.saved()
            live = Live(shipped(), joins=joins)
            live.load(saved)
            assert live.saved() == saved
    live.finish()
    return out(live, spans + live.spans, points + live.points)


def line_by_line(data: bytes) -> list[Batch]:
    """A batch for each line, so that a snapshot can be taken after any event."""
    return list(batches(shipped(), [line + b"\n" for line in data.splitlines()]))


def read(name: str) -> bytes:
    path = RECORDINGS / name
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        "debian-7.2/cancelled/src.log",
        "debian-7.2/cancelled/dst.log",
        "debian-7.2/tls-ok/dst.log",
        "debian-7.2/tls-fail-stderr/src.log",
        "debian-7.2/precopy-busy/src.log",
        "debian-7.2/precopy-busy/dst.log",
        "debian-7.2/multifd/src.log",
        "qemu-4.1.0-log/tls-ok/src.log",
        "qemu-10.2.0-log/precopy-busy/src.log",
        "qemu-10.2.0-log/postcopy/dst.log",
    ],
)
def test_a_real_stream_stopped_often_gives_the_same(name: str) -> None:
    """After each event of its first and its last ones, and after many between."""
    stream = line_by_line(read(name))
    assert stopped(stream[:150]) == whole(stream[:150])
    assert stopped(stream, every=23) == whole(stream)


def test_a_destination_in_the_trace_of_its_source_stays_there() -> None:
    """What it points to is part of the snapshot."""
    stream = line_by_line(read("debian-7.2/precopy-busy/dst.log"))
    alone = Live(shipped())
    for batch in stream:
        alone.feed(batch)
    (root,) = [s for s in alone.spans if s.name == "migration"]
    joins = {root.span_id: Join(b"t" * 16, b"p" * 8, root.start_ns - 10**9)}
    joined = whole(stream, joins)
    assert stopped(stream, every=7, joins=joins) == joined
    assert {s.trace_id for s in joined[0]} == {b"t" * 16}


@given(events())
def test_any_stream_stopped_after_every_event_gives_the_same(log: str) -> None:
    stream = line_by_line(text_of(log))
    assert stopped(stream) == whole(stream)


@given(events(), st.data())
def test_a_snapshot_is_not_changed_by_what_comes_after_it(log: str, data: st.DataObject) -> None:
    """It can be written at leisure."""
    stream = line_by_line(text_of(log))
    at = data.draw(st.integers(0, len(stream)))
    live = Live(shipped())
    for batch in stream[:at]:
        live.feed(batch)
    plain = live.engine.snapshot()
    saved = json.dumps(plain)
    for batch in stream[at:]:
        live.feed(batch)
    assert json.dumps(plain) == saved


_CHILD = """
import pickle, sys
from tests.engine.builders import Live, shipped
saved, stream = pickle.load(sys.stdin.buffer)
live = Live(shipped())
live.load(saved)
for batch in stream:
    live.feed(batch)
live.finish()
pickle.dump((live.spans, live.points), sys.stdout.buffer)
"""


def test_another_process_goes_on_with_the_same_spans_and_points() -> None:
    """As after a restart of the service: nothing of the first process is left but the JSON."""
    stream = line_by_line(read("debian-7.2/precopy-busy/src.log"))
    half = len(stream) // 2
    live = Live(shipped())
    for batch in stream[:half]:
        live.feed(batch)
    given_to_it = pickle.dumps((live.saved(), stream[half:]))
    child = subprocess.run(
        [sys.executable, "-c", _CHILD], input=given_to_it, capture_output=True, check=True, cwd=RECORDINGS.parents[1]
    )
    spans, points = pickle.loads(child.stdout)  # noqa: S301 - from the process that this test started
    assert (live.spans + spans, live.points + points) == whole(stream)[:2]


def _stopped_inside(name: str) -> Live:
    """An engine that was stopped while a span of that rule was open."""
    live = Live(shipped())
    for batch in line_by_line(read("debian-7.2/precopy-busy/src.log")):
        live.feed(batch)
        if live.engine._pairs.states[name].by_number:
            return live
    raise AssertionError(name)


def test_what_a_rule_that_is_gone_left_open_goes_out_as_incomplete() -> None:
    """The mapping may have been changed between; what is left goes on, and nothing that was begun vanishes."""
    live = _stopped_inside("savevm.section")
    (before,) = live.engine._pairs.states["savevm.section"].by_number.values()
    fewer = Live(_without("savevm.section"))
    fewer.load(live.saved())
    fewer.take()
    (span,) = fewer.spans
    assert (span.name, span.span_id, span.start_ns) == ("savevm.section", before.span_id, before.start_ns)
    assert span.trace_id == before.trace.id
    assert dict(span.attributes) == {"qemu.event.begin": "savevm_section_start", "otelbridge.incomplete": True}
    fewer.finish()
    assert [s.name for s in fewer.spans].count("migration") == 1


def test_a_machine_that_is_gone_goes_out_as_incomplete_with_its_state() -> None:
    live = _stopped_inside("savevm.section")
    root = live.engine._machines.states["migration"].root
    assert root is not None
    without = Live(shipped()._replace(machines=()))
    without.load(live.saved())
    without.take()
    found = {s.name: s for s in without.spans}
    assert set(found) == {"migration", f"migration.{root.state}"}
    assert found["migration"].span_id == root.span_id == found[f"migration.{root.state}"].parent_id
    assert all(("otelbridge.incomplete", True) in s.attributes for s in found.values())


_BEFORE = """
spans:
  a:
    begin: savevm_section_start
    end: savevm_section_end
    key: [section_id]
"""
_AFTER = _BEFORE + "    attributes: {id: id, number: section_id}\n"
_LINES = """
    1@10.000100:savevm_section_start ram, section_id 2
    1@10.500000:savevm_section_end ram, section_id 2 -> 1
"""


def test_arguments_keep_their_names_when_a_changed_mapping_reads_others() -> None:
    """Arguments are kept by place; a rule that reads more of them must not take one for another."""
    first, second = (line + b"\n" for line in text_of(_LINES).splitlines())
    live = Live(rules(_BEFORE))
    for batch in batches(rules(_BEFORE), [first]):
        live.feed(batch)
    live.engine.settle()
    assert live.engine.open == 1
    after = Live(rules(_AFTER))
    after.load(live.saved())
    for batch in batches(rules(_AFTER), [second]):
        after.feed(batch)
    after.finish()
    (span,) = after.spans
    assert dict(span.attributes)["number"] == 2
    assert "otelbridge.incomplete" not in dict(span.attributes)


def _without(rule: str) -> Rules:
    return shipped()._replace(spans=tuple(r for r in shipped().spans if r.id != rule))
