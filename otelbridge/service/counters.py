"""The service's counters: what the table of `otelbridge.stats` names, counted from any thread, continued after a restart."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from otelbridge.records import Attributes, Value
from otelbridge.stats import STATS, Distribution, Kind, Reading, Stat

MAX_SERIES = 1_000
"""Series of one counter. The SDK's own limit is 2,000."""

BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Of the histograms, which are all of seconds. Those of HTTP in the semantic conventions, and what hangs."""

OVERFLOW: Attributes = (("otel.metric.overflow", True),)
"""The series that has what a full counter had no series for, as in the SDK's specification (cardinality limits)."""

_LEFT_OUT = "otelbridge.telemetry.values_left_out"
_ROWS: Mapping[str, Stat] = {stat.name: stat for stat in STATS}


@dataclass(slots=True)
class _Spread:
    """A histogram that is being filled."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    sum: float = 0.0
    min: float = 0.0
    max: float = 0.0

    def take(self, value: float) -> None:
        is_first = not any(self.buckets)
        self.min = value if is_first else min(self.min, value)
        self.max = value if is_first else max(self.max, value)
        self.sum += value
        self.buckets[bisect_left(BOUNDS_S, value)] += 1

    def joined(self, other: _Spread | None) -> _Spread:
        """Both as one."""
        if other is None or not any(other.buckets):
            return self
        if not any(self.buckets):
            return other
        buckets = [mine + others for mine, others in zip(self.buckets, other.buckets, strict=True)]
        return _Spread(buckets, self.sum + other.sum, min(self.min, other.min), max(self.max, other.max))

    def distribution(self) -> Distribution:
        return Distribution(BOUNDS_S, tuple(self.buckets), self.sum, self.min, self.max)


class Counters:
    """Every counter of the table by its name. Any thread may call any method.

    A name or an attribute that the table does not have, and a method of another kind, is a bug: KeyError or ValueError.

    Args:
        instance: Whose totals these are, for `service.instance.id`; it goes where the totals go.
        since_ns: When the totals began, UTC.
        limit: Series of one counter. What a sum or a histogram counts beyond goes into one series that says so; a gauge beyond
            it is left out and counted.
    """

    def __init__(self, instance: str = "", since_ns: int = 0, *, limit: int = MAX_SERIES) -> None:
        self.instance, self.since_ns = instance, since_ns
        self._limit = limit
        self._lock = threading.Lock()
        self._sums: dict[str, dict[Attributes, int | float]] = {}
        self._gauges: dict[str, dict[Attributes, int | float]] = {}
        self._spreads: dict[str, dict[Attributes, _Spread]] = {}

    def add(self, name: str, number: float = 1, **attributes: Value) -> None:
        """Count on. With 0 the series is there before anything happened, so that its first step is seen."""
        key = _key(name, "sum", attributes)
        if number < 0:
            raise ValueError(f"{name} is a sum, which only grows; {number} was to be added")
        with self._lock:
            self._add(name, key, number)

    def set(self, name: str, number: float, **attributes: Value) -> None:
        """What a gauge shows from now on."""
        key = _key(name, "gauge", attributes)
        with self._lock:
            series = self._gauges.setdefault(name, {})
            if key in series or len(series) < self._limit:
                series[key] = number
            else:
                self._add(_LEFT_OUT, (), 1)

    def forget(self, **attributes: Value) -> None:
        """Drop the gauges that have all these attributes: what they were about is gone."""
        gone = set(attributes.items())
        if not gone:
            return
        with self._lock:
            for name, series in self._gauges.items():
                self._gauges[name] = {key: number for key, number in series.items() if not gone <= set(key)}

    def record(self, name: str, value: float, **attributes: Value) -> None:
        """Take a value into a histogram."""
        key = _key(name, "histogram", attributes)
        with self._lock:
            series = self._spreads.setdefault(name, {})
            series.setdefault(self._bounded(series, key), _Spread()).take(value)

    def read(self, name: str) -> tuple[Reading, ...]:
        """The series of one counter. A sum that needs no attributes is there from the beginning."""
        stat = _ROWS[name]
        with self._lock:
            if stat.kind == "histogram":
                spreads = self._spreads.get(name, {})
                return tuple(Reading(key, spread.distribution()) for key, spread in spreads.items())
            numbers = (self._gauges if stat.kind == "gauge" else self._sums).get(name, {})
            if not numbers and stat.kind == "sum" and not stat.attributes:
                return (Reading((), 0),)
            return tuple(Reading(key, number) for key, number in numbers.items())

    def values(self) -> dict[str, tuple[Reading, ...]]:
        """The series of every counter, in the order of the table."""
        return {name: self.read(name) for name in _ROWS}

    def total(self, name: str) -> float:
        """The sum over all series of a sum or a gauge."""
        return sum(reading.value for reading in self.read(name) if not isinstance(reading.value, Distribution))

    def snapshot(self) -> dict[str, Any]:
        """The totals as plain JSON data. Gauges are of the moment and stay behind."""
        with self._lock:
            return {
                "instance": self.instance,
                "since": self.since_ns,
                "sums": [[name, dict(key), number] for name, series in self._sums.items() for key, number in series.items()],
                "histograms": [
                    [name, dict(key), spread.distribution()._asdict()]
                    for name, series in self._spreads.items()
                    for key, spread in series.items()
                ],
            }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Count on from where `snapshot` was made; what was counted up to now is added.

        Totals of another version whose counters are no more are left out; so are histograms with other bounds.
        """
        with self._lock:
            self.instance, self.since_ns = snapshot["instance"], snapshot["since"]
            for name, attributes, number in snapshot["sums"]:
                if _is_row(name, "sum"):
                    self._add(name, tuple(attributes.items()), number)
            for name, attributes, state in snapshot["histograms"]:
                if _is_row(name, "histogram") and tuple(state["bounds"]) == BOUNDS_S:
                    spread = _Spread(list(state["buckets"]), state["sum"], state["min"], state["max"])
                    series = self._spreads.setdefault(name, {})
                    key = self._bounded(series, tuple(attributes.items()))
                    series[key] = spread.joined(series.get(key))

    def _add(self, name: str, key: Attributes, number: float) -> None:
        series = self._sums.setdefault(name, {})
        key = self._bounded(series, key)
        series[key] = series.get(key, 0) + number

    def _bounded(self, series: Mapping[Attributes, object], key: Attributes) -> Attributes:
        """The series to use: one of the limit is kept for what overflows."""
        return key if key in series or len(series) < self._limit - 1 else OVERFLOW


def _is_row(name: str, kind: Kind) -> bool:
    return name in _ROWS and _ROWS[name].kind == kind


def _key(name: str, kind: Kind, attributes: Mapping[str, Value]) -> Attributes:
    """The attributes of a series in the order of the table.

    Raises:
        KeyError: The table has no such name.
        ValueError: It is of another kind, or has no such attribute.
    """
    stat = _ROWS[name]
    if stat.kind != kind:
        raise ValueError(f"{name} is a {stat.kind}, not a {kind}")
    if strange := attributes.keys() - set(stat.attributes):
        raise ValueError(f"{name} has no attribute {', '.join(sorted(strange))}; it has {', '.join(stat.attributes) or 'none'}")
    return tuple((attribute, attributes[attribute]) for attribute in stat.attributes if attribute in attributes)
