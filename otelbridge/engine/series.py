"""Metrics in event time: cumulative series, a point for each that changed in a window."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from otelbridge.engine.histogram import ExponentialHistogram
from otelbridge.records import Attributes, Exemplar, Metric, MetricPoint

_order = attrgetter("order")
OVERFLOW: Attributes = (("otel.metric.overflow", True),)


class Series:
    """One series: its value so far, and the largest measurement since the last point as exemplar."""

    __slots__ = ("attributes", "changed", "exemplar", "metric", "order", "time_ns", "value")

    def __init__(self, metric: Metric, attributes: Attributes) -> None:
        self.metric, self.attributes = metric, attributes
        self.order = (metric.name, repr(attributes))
        """Its place among others."""
        self.value: int | float | ExponentialHistogram = ExponentialHistogram() if metric.kind == "histogram" else 0
        self.changed = False
        self.exemplar: Exemplar | None = None
        self.time_ns = 0

    def record(self, value: float, time_ns: int, trace_id: bytes, span_id: bytes) -> None:
        """Record the length of a span that ended then; the longest since the last point is the exemplar."""
        self.value.record(value)  # type: ignore[union-attr]
        if self.exemplar is None or value > self.exemplar[1]:
            self.exemplar = Exemplar(time_ns, value, trace_id, span_id)


class SeriesTable:
    """All series of a stream.

    `limit` bounds the series of a metric; what is beyond goes into one with `otel.metric.overflow`.

    Source: opentelemetry-specification, metrics/sdk.md, Cardinality limits.
    """

    def __init__(self) -> None:
        self._tables: dict[str, dict[Attributes, Series]] = {}
        self._changed: list[Series] = []
        self._gauges: list[Series] = []
        self.start_ns: int | None = None
        self.overflowed: set[str] = set()
        self.left_out: Counter[str] = Counter()
        """Negative values that were left out, by metric: a counter only grows, and a histogram is of what is not negative."""
        self.made = 0

    def series(self, metric: Metric, attributes: Attributes, limit: int) -> Series:
        """The series, marked as changed; the one of the overflow where there are too many."""
        table = self._tables.get(metric.name)
        if table is None:
            table = self._tables[metric.name] = {}
        series = table.get(attributes)
        if series is None:
            if len(table) >= limit - 1 and attributes != OVERFLOW:
                self.overflowed.add(metric.name)
                return self.series(metric, OVERFLOW, limit + 1)
            series = table[attributes] = Series(metric, attributes)
        if not series.changed:
            self.mark(series)
        return series

    def mark(self, series: Series) -> None:
        """A series changes for the first time since its last point."""
        series.changed = True
        (self._gauges if series.metric.kind == "gauge" else self._changed).append(series)

    def add(self, metric: Metric, attributes: Attributes, amount: float, limit: int = 2000) -> None:
        """Add to a sum; what would make a monotonic one go down is left out."""
        if amount < 0 and metric.monotonic:
            self.left_out[metric.name] += 1
            return
        series = self.series(metric, attributes, limit)
        series.value += amount  # type: ignore[operator]

    def set(self, metric: Metric, attributes: Attributes, value: float, limit: int = 2000) -> None:
        """Set a gauge."""
        self.series(metric, attributes, limit).value = value

    def record(self, metric: Metric, attributes: Attributes, value: float, limit: int = 2000) -> None:
        """Record into a histogram."""
        self.series(metric, attributes, limit).value.record(value)  # type: ignore[union-attr]

    def points(self, time_ns: int) -> list[MetricPoint]:
        """A point at `time_ns` for each sum and histogram that changed since the last call, in the order of their names."""
        return self._points_of(self._changed, time_ns)

    def gauge_points(self, time_ns: int) -> list[MetricPoint]:
        """The same for gauges, which want points more often: what a gauge was in between is lost."""
        return self._points_of(self._gauges, time_ns)

    def _points_of(self, changed: list[Series], time_ns: int) -> list[MetricPoint]:
        made = []
        # By name and not as they came: what was only counted comes in an order that depends on how the input was cut.
        changed.sort(key=_order)
        for series in changed:
            value = series.value.value() if isinstance(series.value, ExponentialHistogram) else series.value
            # Two points of one series never have the same time: a backend would refuse the second.
            series.time_ns = max(time_ns, series.time_ns + 1)
            start_ns = min(self.start_ns if self.start_ns is not None else series.time_ns, series.time_ns)
            exemplars = (series.exemplar,) if series.exemplar else ()
            made.append(MetricPoint(series.metric, series.attributes, start_ns, series.time_ns, value, exemplars))
            series.changed, series.exemplar = False, None
        changed.clear()
        self.made += len(made)
        return made

    def snapshot(self) -> dict[str, Any]:
        """The state as plain data."""
        return {
            "start": self.start_ns,
            "made": self.made,
            "overflowed": sorted(self.overflowed),
            "left_out": dict(sorted(self.left_out.items())),
            "series": [_plain(s) for table in self._tables.values() for s in table.values()],
            "changed": [[s.metric.name, [list(a) for a in s.attributes]] for s in (*self._changed, *self._gauges)],
        }

    def restore(self, state: Mapping[str, Any], metrics: Mapping[str, Metric]) -> None:
        """Go on from `snapshot`; a series whose metric is no longer in the mapping, or of another kind, is let go."""
        self.start_ns, self.made, self.overflowed = state["start"], state["made"], set(state["overflowed"])
        # A snapshot of an older version does not have it.
        self.left_out = Counter(state.get("left_out", {}))
        for plain in state["series"]:
            metric = metrics.get(plain["metric"])
            # A histogram that has become a sum begins anew, and the other way round.
            if metric is not None and isinstance(plain["value"], dict) == (metric.kind == "histogram"):
                series = _restored(plain, metric)
                self._tables.setdefault(series.metric.name, {})[series.attributes] = series
        for name, attributes in state["changed"]:
            series_of = self._tables.get(name, {}).get(tuple((k, v) for k, v in attributes))
            if series_of is not None:
                series_of.changed = True
                (self._gauges if series_of.metric.kind == "gauge" else self._changed).append(series_of)


def _plain(series: Series) -> dict[str, Any]:
    e = series.exemplar
    return {
        "metric": series.metric.name,
        "attributes": [list(a) for a in series.attributes],
        "time": series.time_ns,
        "value": series.value.snapshot() if isinstance(series.value, ExponentialHistogram) else series.value,
        "exemplar": [e.time_ns, e.value, e.trace_id.hex(), e.span_id.hex()] if e else None,
    }


def _restored(plain: Mapping[str, Any], metric: Metric) -> Series:
    series = Series(metric, tuple((k, v) for k, v in plain["attributes"]))
    value = plain["value"]
    series.value = ExponentialHistogram.restored(value) if isinstance(value, dict) else value
    series.time_ns = plain["time"]
    if plain["exemplar"]:
        time_ns, measured, trace, span = plain["exemplar"]
        series.exemplar = Exemplar(time_ns, measured, bytes.fromhex(trace), bytes.fromhex(span))
    return series
