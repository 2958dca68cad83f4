"""One input, from its first byte to the sinks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from otelbridge import report
from otelbridge.engine import Engine, Stream
from otelbridge.engine.processes import Processes
from otelbridge.otlp import Sink
from otelbridge.pipeline.inputs import key_of, resource_of
from otelbridge.pipeline.options import Setup
from otelbridge.readers import FORMATS
from otelbridge.readers.inputs import TraceInput
from otelbridge.readers.source import Source, Times, decoder_of
from otelbridge.records import SECOND_NS, Batch, FinishedSpan, MetricPoint, Resource, Row

if TYPE_CHECKING:
    from otelbridge.engine.joins import Joined


_FINE_NS = 1000
"""Stamps of microseconds are what QEMU's log has; only coarser ones are told."""


PROCESSES = 1_000_000
"""Processes of one input are numbered within this."""


class Reading:
    """One input while it is read: an engine for each process in it, by its number.

    Attributes:
        seen_ns: The last time seen when the last row of each process came.
    """

    def __init__(self, new_engine: Callable[[int], Engine]) -> None:
        self.new_engine = new_engine
        self.engines: dict[int, Engine] = {}
        self.processes = Processes()
        self.seen_ns: dict[int, int] = {}
        self.made = 0

    def take(self, batch: Batch) -> None:
        """Hand a batch to the engines of the processes that its rows come from."""
        self.feed(batch, self.processes.split(batch.rows))

    def feed(self, batch: Batch, split: Sequence[list[Row]]) -> None:
        """Hand the rows of each process to its engine; what was only counted goes to the first.

        Dropped events may have been of any of them, so all are told, and only the first counts how many they were.
        """
        self._make(max(1, len(self.processes), len(split)))
        dropped = {"dropped_by_qemu": 0} if "dropped_by_qemu" in batch.units else {}
        for number, engine in self.engines.items():
            rows = split[number] if number < len(split) else []
            if rows and batch.last_ns is not None:
                self.seen_ns[number] = batch.last_ns
            if number:
                engine.feed(Batch(batch.window_ns, rows, {}, {}, dropped, 0, batch.last_ns))
            else:
                engine.feed(batch._replace(rows=rows))

    def _make(self, number: int) -> None:
        """So many engines at least, those that were let go not counted."""
        for new in range(self.made, number):
            self.engines[new] = self.new_engine(new)
        self.made = max(self.made, number)

    def let_go(self, number: int) -> Engine:
        """Forget a process that has ended; its engine. The first one stays, since what is counted goes to it."""
        self.processes.forget(number)
        self.seen_ns.pop(number, None)
        return self.engines.pop(number)

    def finish(self) -> None:
        """The input is at its end."""
        self._make(1)
        for engine in self.engines.values():
            engine.finish()


def read_input(
    setup: Setup,
    place: int,
    trace: TraceInput,
    times: Times,
    joined: Joined | None,
    sinks: Sequence[Sink],
    engine_type: Callable[..., Engine] = Engine,
) -> report.InputReport:
    """One input, from its first byte to the sinks."""
    mapping = setup.mapping
    # Each process has its own: what one shows of its version must not depend on how far the others were read.
    first = decoder_of(trace, setup.told, mapping.plan.rows)
    source = Source(trace, setup.told, times, mapping.plan, first.saw, setup.progress)
    resources: list[Resource] = []
    roles: list[str] = []
    machines = {machine.id for machine in mapping.machines}

    def new_engine(number: int) -> Engine:
        key = key_of(trace, number)
        resources.append(resource_of(trace, key, reading.processes.ids.get(number), setup.environment))
        stream = Stream(key, trace.role, times.mark, times.uncertainty_ns or None, _coarse(source.resolution_ns))
        joins = joined and joined.joins
        decoder = decoder_of(trace, setup.told, mapping.plan.rows) if number else first
        return engine_type(mapping, stream, decoder.decode, lambda: decoder.version_range, decoder.saw, joins)

    reading = Reading(new_engine)

    def deliver() -> None:
        for (number, engine), resource in zip(reading.engines.items(), resources, strict=True):
            spans, points = engine.take_spans(), engine.take_points()
            if joined and (shifts := joined.shifts.get(place * PROCESSES + number)):
                spans, points = shifts.spans(spans), shifts.points(points)
            roles.extend(_roles(spans, machines))
            _hand(sinks, resource, spans, points)

    window_ns = None
    for batch in source.batches():
        # What comes of several processes is in the order of windows, so that it does not depend on how the input was cut.
        if len(reading.engines) > 1 and batch.window_ns != window_ns:
            deliver()
        window_ns = batch.window_ns
        reading.take(batch)
        if len(reading.engines) == 1:
            deliver()
    open_spans = sum(engine.open for engine in reading.engines.values())
    reading.finish()
    deliver()
    for sink in sinks:
        sink.flush()
    setup.notes.extend([times.note] if times.note else [])
    setup.notes.extend(f"{trace.paths[0]}: {said}" for said in source.notes)
    _note(setup.notes, trace, reading)
    return report.InputReport(
        path=trace.paths[0],
        parts=trace.files,
        format=trace.format,
        units=FORMATS[trace.format].unit,
        role=trace.role or next(iter(roles), None),
        bytes=source.bytes,
        account=report.summed([engine.accounting for engine in reading.engines.values()]),
        points_made=sum(engine.points_made for engine in reading.engines.values()),
        open=open_spans,
        qemu_version=first.version_range,
        processes=len(reading.engines),
        gaps=tuple(source.gaps),
        timed=times.mark != "none",
    )


def _coarse(resolution_ns: int) -> int | None:
    """A resolution that durations suffer from, so that spans must tell it."""
    return resolution_ns if resolution_ns > _FINE_NS else None


def _roles(spans: Sequence[FinishedSpan], machines: set[str]) -> list[str]:
    return [str(v) for span in spans if span.name in machines for k, v in span.attributes if k == "qemu.migration.role"]


def _hand(sinks: Sequence[Sink], resource: Resource, spans: Sequence[FinishedSpan], points: Sequence[MetricPoint]) -> None:
    for sink in sinks:
        if spans:
            sink.spans(resource, spans)
        if points:
            sink.points(resource, points)


def _note(notes: list[str], trace: TraceInput, reading: Reading) -> None:
    """What the user should know of an input beside its losses."""
    name = trace.paths[0]
    if late := sum(engine.late for engine in reading.engines.values()):
        latest_ns = max(engine.latest_ns for engine in reading.engines.values())
        notes.append(
            f"{name}: {late} events stand up to {latest_ns / SECOND_NS:.3f} s too late in the file; 0.05 s are put right; "
            "they were taken as early as their place allows, so what they begin or end is shown too short. Were several logs "
            "written into this file one after the other, give each of them as a file of its own."
        )
    if mixed := sum(engine.mixed for engine in reading.engines.values()):
        notes.append(
            f"{name}: in {mixed} migrations events of both hosts stand, and no thread ids tell the processes apart, "
            "so their spans are mixed. Give each QEMU a file of its own."
        )
    overflowed = sorted({metric for engine in reading.engines.values() for metric in engine.overflowed})
    words = "has too many series; the rest is in one with otel.metric.overflow=true."
    notes += [f"{name}: the metric {metric} {words}" for metric in overflowed]
    left_out = sum((Counter(engine.left_out) for engine in reading.engines.values()), Counter())
    notes += [
        f"{name}: the metric {metric} goes without negative values (left out: {number}), because a counter only grows and a "
        "histogram has none below 0; a 'gauge' takes them."
        for metric, number in sorted(left_out.items())
    ]
    if len(reading.engines) > 1 and not reading.processes.ids:
        notes.append(
            f"{name}: {len(reading.engines)} processes seem to have written into it; which thread is whose is a guess."
        )
