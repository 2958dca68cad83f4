"""Where finished spans leave the engine: their common marks, histograms, the wait for a migration, the slowest of many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from heapq import heappush, heappushpop
from typing import Any, NamedTuple

from otelbridge.engine.ids import trace_id
from otelbridge.engine.series import Series, SeriesTable
from otelbridge.engine.state import Ending, Loader, OpenSpan, Root, Saver, Shape, Trace
from otelbridge.mapping.rules import Duration, SpanRule
from otelbridge.records import ERROR, SECOND_NS, UNSET, Attributes, FinishedSpan, Link, SpanEvent, Value

ADOPT_NS = 10 * SECOND_NS
"""Spans that ended so long before a migration opened (a TLS handshake, say) still belong to it."""
_BELOW_ANY = 1 << 62
MAX_PENDING = 1000
"""So many spans may wait for a migration to open; then they go out on their own."""


class Stream(NamedTuple):
    """What the engine must know of the stream it reads.

    Attributes:
        key: 16 bytes that no other stream has (`ids.stream_key`): all ids are derived from it.
        role: What the user said it is, which stands above what the events say; None if nothing was said.
        clock: Where the times are not the input's own: `assumed`, `estimated`, or `none` where there is but an order. Marked on
            every span.
        clock_uncertainty_ns: How far off an estimated clock may be, if known.
        clock_resolution_ns: How coarse the stamps are, where durations suffer from it. Marked on every span.
    """

    key: bytes
    role: str | None = None
    clock: str | None = None
    clock_uncertainty_ns: int | None = None
    clock_resolution_ns: int | None = None


class Accounting:
    """Where every unit of the input and every span went."""

    __slots__ = ("buckets", "events", "finished", "first_ns", "incomplete", "last_ns", "not_kept", "total")

    def __init__(self) -> None:
        self.buckets: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.total = self.finished = self.incomplete = self.not_kept = 0
        self.first_ns: int | None = None
        self.last_ns: int | None = None

    def snapshot(self) -> dict[str, Any]:
        """The state as plain data."""
        spans, times = [self.finished, self.incomplete, self.not_kept], [self.first_ns, self.last_ns]
        counts = {"buckets": dict(self.buckets), "events": dict(self.events), "total": self.total}
        return {**counts, "spans": spans, "times": times}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `snapshot`."""
        self.buckets, self.events, self.total = Counter(state["buckets"]), Counter(state["events"]), state["total"]
        self.finished, self.incomplete, self.not_kept = state["spans"]
        self.first_ns, self.last_ns = state["times"]


class Body(NamedTuple):
    """What a span has beside its ids: filled in when it ends."""

    start_ns: int
    end_ns: int
    attributes: list[tuple[str, Value]]
    notes: Sequence[SpanEvent] = ()
    links: tuple[Link, ...] = ()
    failure: tuple[str, str] | None = None
    """`error.type` and description."""
    dropped_notes: int = 0
    complete: bool = True
    doubtful: bool = False
    """Whether QEMU dropped events while it was open."""


class Outlet:
    """Finished spans, on their way out. `spans` is for the caller of the engine to take away."""

    def __init__(self, stream: Stream, accounting: Accounting, series: SeriesTable) -> None:
        self.spans: list[FinishedSpan] = []
        self._stream, self._accounting, self._series = stream, accounting, series
        self._unsettled: list[Trace] = []
        self.doubtful = False
        """Whether QEMU dropped events: then an end that was not seen may have been among them."""

    def finished(self, trace: Trace, identity: bytes, parent_id: bytes, shape: Shape, body: Body) -> FinishedSpan:
        """The span, counted and marked: its error, an end that was not seen, dropped events, another clock."""
        doubtful = body.doubtful or (self.doubtful and not body.complete)
        attributes = self.marked(body.attributes, body.failure, complete=body.complete, doubtful=doubtful)
        self._accounting.incomplete += not body.complete
        self._accounting.finished += 1
        status, message = (ERROR, body.failure[1]) if body.failure else (UNSET, "")
        return FinishedSpan(
            trace.id or b"", identity, parent_id, shape.scope, shape.name, shape.kind, body.start_ns, body.end_ns,
            tuple(attributes), tuple(body.notes), body.links, status, message, body.dropped_notes,
        )  # fmt: skip

    def marked(
        self,
        attributes: list[tuple[str, Value]],
        failure: tuple[str, str] | None,
        *,
        complete: bool = True,
        doubtful: bool = False,
    ) -> list[tuple[str, Value]]:
        """The attributes with what every span is marked with: its error, an end that was not seen, another clock."""
        if failure is not None:
            attributes.append(("error.type", failure[0]))
        if not complete:
            attributes.append(("otelbridge.incomplete", True))
        if doubtful:
            attributes.append(("otelbridge.doubtful", True))
        if self._stream.clock is not None:
            attributes.append(("otelbridge.clock", self._stream.clock))
            if self._stream.clock_uncertainty_ns is not None:
                attributes.append(("otelbridge.clock.uncertainty", self._stream.clock_uncertainty_ns))
        if self._stream.clock_resolution_ns is not None:
            attributes.append(("otelbridge.clock.resolution", self._stream.clock_resolution_ns))
        return attributes

    def hand_out(self, trace: Trace, span: OpenSpan, shape: Shape, end_ns: int, ending: Ending) -> None:
        """The same for a span that ended in order, whose attributes are known; its length is recorded too, and it goes out."""
        self._record_in(ending.series, span, end_ns, span.span_id)
        finished = _ended(span, shape, end_ns, ending)
        self.spans.append(finished if span.parent_id and span.trace is trace else _settled(trace, finished))

    def compete(self, root: Root, rule: SpanRule, span: OpenSpan, shape: Shape, end_ns: int, ending: Ending) -> None:
        """The same for a span of which only the slowest go out; one that is too short is not even made."""
        self._record_in(ending.series, span, end_ns, root.span_id)
        heap = root.kept.get(rule.id)
        if heap and rule.keep is not None and len(heap) >= rule.keep.slowest and end_ns - span.start_ns < heap[0][0]:
            self._accounting.not_kept += 1
        else:
            self.keep(root, rule, span.number, _ended(span, shape, end_ns, ending), complete=True)

    def _record_in(self, series: Series | None, span: OpenSpan, end_ns: int, exemplar_id: bytes) -> None:
        self._accounting.finished += 1
        if series is not None:
            if not series.changed:
                self._series.mark(series)
            series.record((end_ns - span.start_ns) / SECOND_NS, end_ns, span.trace.id or b"", exemplar_id)

    def record(self, duration: Duration, span: FinishedSpan, trace: Trace, root: Root | None = None) -> None:
        """Put the length of a span into its histogram. A span that may not be kept leaves its root as the exemplar."""
        series, seconds = self.series_of(duration, span.attributes), (span.end_ns - span.start_ns) / SECOND_NS
        if trace.id is None:
            series.value.record(seconds)  # type: ignore[union-attr]
        else:
            series.record(seconds, span.end_ns, trace.id, root.span_id if root else span.span_id)

    def series_of(self, duration: Duration, attributes: Attributes) -> Series:
        """Where the length of a span with these attributes is recorded."""
        return self._series.series(duration.metric, _chosen(duration.by, attributes), duration.limit)

    def give(self, trace: Trace, span: FinishedSpan) -> None:
        """Hand out a span, or let it wait until it is known which trace it belongs to."""
        if trace.id is None:
            trace.pending.append(span)
        else:
            self.spans.append(_settled(trace, span))

    # --- the slowest of many --------------------------------------------------------------------------

    def count_short(self, root: Root, rule: SpanRule, start_ns: int, end_ns: int) -> bool:
        """Only count a span that is no longer than the slowest so many are; False if it must be looked at."""
        heap = root.kept.get(rule.id, [])
        if rule.keep is None or len(heap) < rule.keep.slowest or end_ns - start_ns >= heap[0][0]:
            return False
        duration = rule.duration
        if duration is not None:
            if duration.by:
                return False
            series, seconds = self.series_of(duration, ()), (end_ns - start_ns) / SECOND_NS
            if root.trace.id is None:
                series.value.record(seconds)  # type: ignore[union-attr]
            else:
                series.record(seconds, end_ns, root.trace.id, root.span_id)
        self._accounting.finished += 1
        self._accounting.not_kept += 1
        return True

    def keep(self, root: Root, rule: SpanRule, number: int, span: FinishedSpan, *, complete: bool) -> None:
        """Hold a span back among the slowest of its rule; the one that falls out was only counted.

        A span whose end was not seen has no length to compare: it stays only while there are too few others.
        """
        heap = root.kept.setdefault(rule.id, [])
        length = span.end_ns - span.start_ns
        entry = (length if complete else length - _BELOW_ANY, -number, span)
        if rule.keep is not None and len(heap) < rule.keep.slowest:
            heappush(heap, entry)
        else:
            heappushpop(heap, entry)
            self._accounting.not_kept += 1

    def give_kept(self, root: Root) -> None:
        """Hand out what was held back within a root, in the order of the begins."""
        for heap in root.kept.values():
            for _, _, span in sorted(heap, key=lambda entry: -entry[1]):
                self.give(root.trace, span)
        root.kept.clear()

    # --- spans that came before any migration -----------------------------------------------------------

    def wait(self, trace: Trace) -> None:
        """Let the spans of a trace wait for a migration to open."""
        self._unsettled.append(trace)

    def settle_alone(self, trace: Trace) -> None:
        """A trace of its own."""
        trace.id = trace_id(self._stream.key, *trace.origin)
        self._release(trace)

    def adopt(self, opened: Trace, time_ns: int) -> None:
        """What came shortly before a migration opened belongs to it; what is older goes out on its own."""
        for trace in self._unsettled:
            if trace.open or time_ns - trace.last_ns <= ADOPT_NS:
                trace.id, trace.parent, trace.parent_start_ns = opened.id, opened.parent, opened.parent_start_ns
                self._release(trace)
            else:
                self.settle_alone(trace)
        self._unsettled.clear()

    def expire(self, time_ns: int) -> None:
        """What has waited too long, or in too large a crowd, goes out on its own."""
        crowded = sum(len(trace.pending) for trace in self._unsettled) > MAX_PENDING
        waiting, self._unsettled = self._unsettled, []
        for trace in waiting:
            if crowded or (not trace.open and time_ns - trace.last_ns > ADOPT_NS):
                self.settle_alone(trace)
            else:
                self._unsettled.append(trace)

    def settle_all(self) -> None:
        """No migration will come any more."""
        for trace in self._unsettled:
            self.settle_alone(trace)
        self._unsettled.clear()

    def _release(self, trace: Trace) -> None:
        self.spans += [_settled(trace, span) for span in trace.pending]
        trace.pending.clear()

    def snapshot(self, saver: Saver) -> list[int]:
        """The traces that wait."""
        return [saver.trace(trace) for trace in self._unsettled]

    def restore(self, state: Sequence[int], loader: Loader) -> None:
        """Go on from `snapshot`."""
        self._unsettled = [loader.traces[place] for place in state]


def _ended(span: OpenSpan, shape: Shape, end_ns: int, ending: Ending) -> FinishedSpan:
    """A span that ended in order."""
    # A third of what FinishedSpan(…) costs.
    return tuple.__new__(
        FinishedSpan,
        (
            span.trace.id or b"", span.span_id, span.parent_id, shape.scope, shape.name, shape.kind, span.start_ns, end_ns,
            ending.attributes, tuple(span.notes), span.links, ending.status, ending.message, span.dropped_notes, 0,
        ),
    )  # fmt: skip


def _chosen(by: Sequence[str], attributes: Attributes) -> Attributes:
    """Those of the attributes, in that order."""
    if len(by) == 1:
        only = by[0]
        return tuple([pair for pair in attributes if pair[0] == only])
    if not by:
        return ()
    values = dict(attributes)
    return given([(name, values.get(name)) for name in by])


def given(pairs: Iterable[tuple[str, Value | None]]) -> Attributes:
    """The attributes that have a value."""
    return tuple([(name, value) for name, value in pairs if value is not None])


def _settled(trace: Trace, span: FinishedSpan) -> FinishedSpan:
    """A span with the ids of its trace; one without a parent goes below the trace's top if it began within it."""
    parent_id = span.parent_id
    if not parent_id and span.span_id != trace.parent and span.start_ns >= trace.parent_start_ns:
        parent_id = trace.parent
    if span.trace_id == trace.id and span.parent_id == parent_id:
        return span
    return span._replace(trace_id=trace.id or b"", parent_id=parent_id)
