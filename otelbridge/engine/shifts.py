"""A destination's times on its source's clock.

A trace has one clock, its source's, so what is shifted is a migration and not a stream: one log can hold the incoming
migrations of months, from several hosts, and the host in the middle of a chain is the source of the next trace, which is on
that host's own clock. Metrics go on over all migrations and may not step back, so they stay with the last incoming migration's
source. Ids are those of the times in the log.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from otelbridge.engine.clocks import Offset
from otelbridge.records import FinishedSpan, MetricPoint


class Shifts(NamedTuple):
    """What is to be done to the times of one stream.

    Attributes:
        offsets: Of each destination's migration that was joined, by its root's span id.
        by_trace: What is taken from the times of spans, by the trace of the migration that they are in.
        begins: Where each of those migrations begins in the log, in order.
        amounts: What is taken since then from the times of points, and of spans that are in no migration.
    """

    offsets: Mapping[bytes, Offset] = MappingProxyType({})
    by_trace: Mapping[bytes, int] = MappingProxyType({})
    begins: Sequence[int] = ()
    amounts: Sequence[int] = ()

    def plain(self) -> list[Any]:
        """The state as plain data."""
        offsets = [[root.hex(), list(offset)] for root, offset in self.offsets.items()]
        by_trace = [[trace.hex(), amount_ns] for trace, amount_ns in self.by_trace.items()]
        return [offsets, by_trace, list(self.begins), list(self.amounts)]

    @classmethod
    def of_plain(cls, plain: Sequence[Any]) -> Shifts:
        """The shifts that `plain` gave."""
        offsets, by_trace, begins, amounts = plain
        return cls(
            {bytes.fromhex(root): Offset(*offset) for root, offset in offsets},
            {bytes.fromhex(trace): amount_ns for trace, amount_ns in by_trace},
            begins,
            amounts,
        )

    def spans(self, spans: Sequence[FinishedSpan]) -> list[FinishedSpan]:
        """The spans on the clock of their trace; a migration says how far the clocks are apart."""
        return [_shifted(self._marked(span), self._of(span)) for span in spans]

    def _of(self, span: FinishedSpan) -> int:
        """What is taken from a span's times: of one in no migration as much as of a point."""
        amount = self.by_trace.get(span.trace_id)
        return self._amount(span.start_ns) if amount is None else amount

    def points(self, points: Sequence[MetricPoint]) -> list[MetricPoint]:
        """The points on the clock of the source of the last migration that came in."""
        return [self._point(point) for point in points] if any(self.amounts) else list(points)

    def _marked(self, span: FinishedSpan) -> FinishedSpan:
        offset = self.offsets.get(span.span_id)
        return span if offset is None else span._replace(attributes=(*span.attributes, *_described(offset)))

    def _amount(self, time_ns: int) -> int:
        """What is taken from a time: for one before any migration what is taken in the first."""
        return self.amounts[max(0, bisect_right(self.begins, time_ns) - 1)] if self.amounts else 0

    def _at(self, time_ns: int) -> int:
        return time_ns - self._amount(time_ns)

    def _point(self, point: MetricPoint) -> MetricPoint:
        start_ns = self._at(point.start_ns)
        exemplars = tuple(e._replace(time_ns=self._at(e.time_ns)) for e in point.exemplars)
        return point._replace(start_ns=start_ns, time_ns=max(start_ns, self._at(point.time_ns)), exemplars=exemplars)


def _described(offset: Offset) -> list[tuple[str, int]]:
    """Bounds that contradict each other bound nothing, so they are not given."""
    bounds = [] if offset.contradictory else [("min", offset.min_ns), ("max", offset.max_ns)]
    known = [(f"otelbridge.clock.offset_{name}", value) for name, value in bounds if value is not None]
    return [*known, ("otelbridge.clock.offset_applied", offset.applied_ns)]


def _shifted(span: FinishedSpan, amount_ns: int) -> FinishedSpan:
    if amount_ns == 0:
        return span
    return span._replace(
        start_ns=span.start_ns - amount_ns,
        end_ns=span.end_ns - amount_ns,
        attributes=(*span.attributes, ("otelbridge.clock.raw_begin", span.start_ns)),
        events=tuple(event._replace(time_ns=event.time_ns - amount_ns) for event in span.events),
    )
