"""A stream that grows, is stopped and taken up again gives what a conversion of the same file gives."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from otelbridge.otlp import Sink
from otelbridge.pipeline.inputs import inputs_of
from otelbridge.pipeline.options import ConvertOptions, set_up
from otelbridge.pipeline.reading import read_input
from otelbridge.readers.source import times_of
from otelbridge.records import FinishedSpan, MetricPoint, Outcome, Resource, Signal
from otelbridge.service.streams import Kind, Output, Stream

RECORDINGS = Path(__file__).resolve().parents[1] / "recordings"
TRACES = sorted(
    path for pattern in ("*/*/src.log", "*/*/dst.log", "*/*/src.trace", "*/*/dst.trace") for path in RECORDINGS.glob(pattern)
)
Found = dict[Resource, tuple[list[FinishedSpan], list[MetricPoint]]]
"""Of each process; which of two comes first depends on how their common file was cut."""


class Collected(Sink):
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.found: Found = {}

    def spans(self, resource: Resource, spans: Sequence[FinishedSpan]) -> None:
        self.found.setdefault(resource, ([], []))[0].extend(spans)

    def points(self, resource: Resource, points: Sequence[MetricPoint]) -> None:
        self.found.setdefault(resource, ([], []))[1].extend(points)

    def close(self) -> Mapping[Signal, Outcome]:
        return {}

    def take(self, output: Sequence[Output]) -> None:
        for resource, spans, points in output:
            self.spans(resource, spans)
            self.points(resource, points)


def kind() -> Kind:
    setup = set_up(ConvertOptions(()), {}, lambda _read, _of: None)
    return Kind(setup.told, setup.mapping)


KIND = kind()


def converted(path: Path) -> Found:
    """What a conversion of one file gives."""
    setup = set_up(ConvertOptions((str(path),)), {}, lambda _read, _of: None)
    (trace,) = inputs_of(setup)
    sink = Collected()
    read_input(setup, 0, trace, times_of(trace, setup.told), None, [sink])
    return sink.found


def cut(data: bytes, seed: int) -> Iterator[bytes]:
    chance = random.Random(seed)  # noqa: S311 - where it is cut
    place = 0
    while place < len(data):
        step = chance.choice([1, 17, 100, 4096, 65536, 300_000])
        yield data[place : place + step]
        place += step


@pytest.mark.parametrize("path", TRACES, ids=lambda path: str(path.relative_to(RECORDINGS)))
def test_a_trace_that_grows_in_pieces_gives_what_its_conversion_gives(path: Path) -> None:
    stream, sink = Stream(KIND, str(path)), Collected()
    for piece in cut(path.read_bytes(), 1):
        stream.feed(piece)
        sink.take(stream.take())
    stream.end()
    sink.take(stream.take())
    assert sink.found == converted(path)


@pytest.mark.parametrize("path", TRACES, ids=lambda path: str(path.relative_to(RECORDINGS)))
def test_a_stream_that_is_taken_up_again_from_plain_data_loses_and_doubles_nothing(path: Path) -> None:
    stream, sink = Stream(KIND, str(path)), Collected()
    for number, piece in enumerate(cut(path.read_bytes(), 2)):
        stream.feed(piece)
        sink.take(stream.take())
        if number % 3 == 0:
            stream = Stream(KIND, str(path), saved=json.loads(json.dumps(stream.snapshot())))
    stream.end()
    sink.take(stream.take())
    assert sink.found == converted(path)


def test_what_spans_offer_to_links_is_taken_up_from_an_older_snapshot() -> None:
    """There each id is a text of its own."""
    path = RECORDINGS / "debian-7.2/precopy-busy/src.log"
    stream = Stream(KIND, str(path))
    stream.feed(path.read_bytes())
    stream.end()
    stream.take()
    saved = json.loads(json.dumps(stream.snapshot()))
    for _, index in saved["opened"]["trail"]["indexes"]:
        for offer in index["offered"]:
            offer[3] = [offer[3][place : place + 16] for place in range(0, len(offer[3]), 16)]
    (mine,), (again,) = stream.migrations(0), Stream(KIND, str(path), (), saved).migrations(0)
    assert sum(map(len, mine.offered["savevm.section"].values())) > 8 * 36
    assert again.offered == mine.offered


def test_a_twin_of_a_held_stream_leaves_it_as_it_was() -> None:
    """One migration has come in and gone on; the next is held, and what it is joined to is found out with a twin."""
    path = RECORDINGS / "debian-7.2/precopy-busy/dst.log"
    lines = path.read_bytes().splitlines(keepends=True)
    stream = Stream(KIND, str(path))
    stream.feed(b"".join(lines))
    stream.settle()
    stream.release({}, {})
    stream.settle()
    stream.take()
    stream.feed(re.sub(rb"(?m)^(\d+@)(\d+)", lambda found: b"%b%d" % (found[1], int(found[2]) + 30), b"".join(lines)))
    assert stream.held_ns is not None
    before = json.dumps(stream.snapshot())
    assert len(stream.twin().migrations(0)) == 2
    assert json.dumps(stream.snapshot()) == before
