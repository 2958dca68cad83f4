"""Any stock exporter of the OpenTelemetry SDK as a destination, so that every vendor's Python exporter works."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any, Generic, Protocol, TypeVar

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.metrics import Exemplar as SdkExemplar
from opentelemetry.sdk.metrics import export as sdk_metrics
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricExportResult
from opentelemetry.sdk.resources import Resource as SdkResource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from otelbridge.errors import UsageError
from otelbridge.otlp.encode import UINT64_MAX, plain_number, plain_value, well_formed
from otelbridge.otlp.requests import MAX_SPREAD_NS
from otelbridge.records import (
    CLIENT,
    CONSUMER,
    ERROR,
    INTERNAL,
    PRODUCER,
    SERVER,
    Attributes,
    Exemplar,
    FinishedSpan,
    Histogram,
    Metric,
    MetricPoint,
    Outcome,
    Resource,
    Scope,
    Signal,
    Value,
)

BATCH_ITEMS = 512
"""OTEL_BSP_MAX_EXPORT_BATCH_SIZE's default: what exporters are used to."""

_GROUPS: Mapping[Signal, str] = {
    "traces": "opentelemetry_traces_exporter",
    "metrics": "opentelemetry_metrics_exporter",
}
_NOUNS: Mapping[Signal, str] = {"traces": "span", "metrics": "data point"}
_MAX_REASONS = 10

ItemT = TypeVar("ItemT")


class _Exporter(Protocol):
    """What a SpanExporter and a MetricExporter have in common."""

    def export(self, batch: object, /) -> object: ...

    def force_flush(self) -> bool: ...

    def shutdown(self) -> None: ...


class SdkSink:
    """A sink that hands everything to the installed exporters called `name`, one for spans and one for metrics.

    An exporter says SUCCESS or FAILURE for a whole batch and no more; FAILURE and exceptions count the batch as rejected. What
    the one of the two exporters would take that is not installed is rejected too, and the outcome says so.

    Args:
        name: As in OTEL_TRACES_EXPORTER and OTEL_METRICS_EXPORTER, like `console` or `otlp_proto_http`.
        env: The environment from which the exporters configure themselves.

    Raises:
        UsageError: No exporter has that name, or one cannot be loaded or made.
    """

    def __init__(self, name: str, env: Mapping[str, str]) -> None:
        with _environment(env):
            exporters: dict[Signal, _Exporter | None] = {signal: _exporter(name, signal) for signal in _GROUPS}
        if not any(exporters.values()):
            raise UsageError(f"sdk:{name}: no exporter called `{name}` is installed. Installed are: {_installed()}.")
        self._spans = _Lane[ReadableSpan](name, "traces", exporters["traces"], tuple, SpanExportResult.SUCCESS)
        self._points = _Lane[tuple[Resource, MetricPoint]](
            name, "metrics", exporters["metrics"], metrics_data, MetricExportResult.SUCCESS
        )
        self._held = _Held()
        self._notes = _temporality_notes(self._points.words, exporters["metrics"])

    def spans(self, resource: Resource, spans: Sequence[FinishedSpan]) -> None:
        """Take finished spans of one resource; full batches are exported at once."""
        for span in spans:
            self._spans.batch.append(readable_span(resource, span))
            if len(self._spans.batch) == BATCH_ITEMS:
                self._spans.export()

    def points(self, resource: Resource, points: Sequence[MetricPoint]) -> None:
        """Take data points of one resource; full batches are exported at once.

        As where a reader of the SDK collects, a batch has at most one point of a series.
        """
        for point in points:
            if not self._held.takes(resource, point):
                self._points.export()
                self._held = _Held()
                self._held.takes(resource, point)
            self._points.batch.append((resource, point))

    def flush(self) -> None:
        """Nothing is to be done: a batch may hold several inputs' items."""

    def close(self) -> Mapping[Signal, Outcome]:
        """Export what is still held, shut the exporters down and say what became of everything."""
        self._spans.close()
        self._points.close()
        return {"traces": self._spans.outcome(), "metrics": self._points.outcome(self._notes)}


@dataclass(slots=True)
class _Held:
    """Which series the batch of points that is being filled holds, and which time it spans."""

    series: set[tuple[Resource, Metric, Attributes]] = field(default_factory=set)
    first_ns: int = 0
    last_ns: int = 0

    def takes(self, resource: Resource, point: MetricPoint) -> bool:
        """Note the point, unless the batch has no room for it; an empty batch takes anything."""
        series = (resource, point.metric, point.attributes)
        if not self.series:
            self.first_ns = self.last_ns = point.time_ns
        first_ns, last_ns = min(self.first_ns, point.time_ns), max(self.last_ns, point.time_ns)
        if series in self.series or len(self.series) == BATCH_ITEMS or last_ns - first_ns > MAX_SPREAD_NS:
            return False
        self.series.add(series)
        self.first_ns, self.last_ns = first_ns, last_ns
        return True


class _Lane(Generic[ItemT]):
    """One exporter with the batch that is being filled for it, and what became of the batches before.

    Args:
        name: The exporter's name.
        signal: What it takes.
        exporter: A SpanExporter or a MetricExporter, None where none of that name is installed.
        pack: Makes a batch into what `export` takes.
        success: What `export` returns for a delivered batch.
    """

    def __init__(
        self,
        name: str,
        signal: Signal,
        exporter: _Exporter | None,
        pack: Callable[[Sequence[ItemT]], object],
        success: object,
    ) -> None:
        self.words = f"sdk:{name}" if exporter is None else f"sdk:{name} ({type(exporter).__name__})"
        self.batch: list[ItemT] = []
        self._signal: Signal = signal
        self._exporter = exporter
        self._pack = pack
        self._success = success
        self._delivered = 0
        self._rejected: dict[str, int] = {}
        self._troubles: list[str] = []

    def export(self) -> None:
        """Hand the batch over and begin a new one."""
        batch, self.batch = self.batch, []
        if not batch:
            return
        refusal = self._refusal(batch)
        if refusal is None:
            self._delivered += len(batch)
            return
        if len(self._rejected) >= _MAX_REASONS and refusal not in self._rejected:
            refusal = "and other reasons"
        self._rejected[refusal] = self._rejected.get(refusal, 0) + len(batch)

    def close(self) -> None:
        """Hand over the last batch and shut the exporter down."""
        self.export()
        if self._exporter is None:
            return
        for what in (self._exporter.force_flush, self._exporter.shutdown):
            try:
                done = what()
            except Exception as error:  # noqa: BLE001 - the exporter is anybody's code
                self._troubles.append(f"{self.words}: {what.__name__} failed: {_error_words(error)}; what it held may be lost")
            else:
                if done is False:
                    self._troubles.append(f"{self.words}: {what.__name__} did not finish; what it held may be lost")

    def outcome(self, notes: Sequence[str] = ()) -> Outcome:
        """What became of everything; `notes` follow only where there was something to hand over."""
        noun = _NOUNS[self._signal]
        refusals = [f"{self.words}: {why} ({n} {noun}{'' if n == 1 else 's'})" for why, n in self._rejected.items()]
        rejected = sum(self._rejected.values())
        if not self._delivered and not rejected:
            notes = ()
        return Outcome(delivered=self._delivered, rejected=rejected, reasons=(*refusals, *self._troubles, *notes))

    def _refusal(self, batch: Sequence[ItemT]) -> str | None:
        """Why the exporter did not take the batch; None when it took it."""
        if self._exporter is None:
            return f"there is no exporter of this name for {self._signal}"
        packed = self._pack(batch)
        try:
            result = self._exporter.export(packed)
        except Exception as error:  # noqa: BLE001 - the exporter is anybody's code
            return f"the exporter failed: {_error_words(error)}"
        if result is self._success:
            return None
        return f"the exporter returned {getattr(result, 'name', result)} and gives no reason; its log may say more"


# --- exporters ----------------------------------------------------------------------------------------


def _exporter(name: str, signal: Signal) -> _Exporter | None:
    """A new exporter as the SDK's own configuration would make it, None where none is installed."""
    for entry in entry_points(group=_GROUPS[signal], name=name):
        try:
            exporter: _Exporter = entry.load()()
        except Exception as error:
            raise UsageError(
                f"sdk:{name}: the exporter {entry.value} cannot be made: {_error_words(error)}. "
                "Nothing was sent; mend its settings (OTEL_EXPORTER_...) or its installation."
            ) from error
        return exporter
    return None


def _installed() -> str:
    signals: dict[str, list[str]] = {}
    for signal, group in _GROUPS.items():
        for name in sorted(entry_points(group=group).names):
            signals.setdefault(name, []).append(signal)
    return ", ".join(f"{name} ({' and '.join(of)})" for name, of in sorted(signals.items())) or "none at all"


@contextmanager
def _environment(env: Mapping[str, str]) -> Iterator[None]:
    """Let exporters see `env`: they have no other way in than the environment of the process."""
    before = dict(os.environ)
    if env == before:
        yield
        return
    os.environ.clear()
    os.environ.update(env)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _temporality_notes(words: str, exporter: _Exporter | None) -> list[str]:
    # The SDK's readers ask exporters in the same way.
    preferred = getattr(exporter, "_preferred_temporality", None) or {}
    if AggregationTemporality.DELTA not in preferred.values():
        return []
    return [f"{words}: prefers delta temporality; otelbridge sends cumulative points only"]


def _error_words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


# --- spans --------------------------------------------------------------------------------------------

_KINDS = {
    INTERNAL: SpanKind.INTERNAL,
    SERVER: SpanKind.SERVER,
    CLIENT: SpanKind.CLIENT,
    PRODUCER: SpanKind.PRODUCER,
    CONSUMER: SpanKind.CONSUMER,
}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


def readable_span(resource: Resource, span: FinishedSpan) -> ReadableSpan:
    """The span as the SDK has it.

    Integers beyond 64 bits become their decimal text, which OTLP exporters would drop otherwise.
    """
    return ReadableSpan(
        name=well_formed(span.name),
        context=_context(span.trace_id, span.span_id),
        # The SDK has no "unknown" here; a parent of the other host is not told apart.
        parent=_context(span.trace_id, span.parent_id) if span.parent_id else None,
        resource=_sdk_resource(resource),
        attributes=_span_attributes(span),
        events=_span_events(span),
        links=[
            Link(_context(link.trace_id, link.span_id, is_remote=True), _attributes(link.attributes)) for link in span.links
        ],
        kind=_KINDS[span.kind],
        status=Status(StatusCode.ERROR, well_formed(span.message)) if span.status == ERROR else Status(StatusCode.UNSET),
        start_time=_clamped_ns(span.start_ns),
        end_time=_clamped_ns(span.end_ns),
        instrumentation_scope=_sdk_scope(span.scope),
    )


def _context(trace_id: bytes, span_id: bytes, *, is_remote: bool = False) -> SpanContext:
    return SpanContext(int.from_bytes(trace_id), int.from_bytes(span_id), is_remote=is_remote, trace_flags=_SAMPLED)


def _clamped_ns(time_ns: int) -> int:
    """The time in the range of OTLP's 64 bits without a sign; one time beyond it would fail the whole batch."""
    return min(max(time_ns, 0), UINT64_MAX)


def _attributes(attributes: Attributes) -> dict[str, Value]:
    return {well_formed(key): plain_value(value) for key, value in attributes}


def _span_attributes(span: FinishedSpan) -> Mapping[str, Any]:
    plain = _attributes(span.attributes)
    if not span.dropped_attributes:
        return plain
    # Only the SDK's own container says how many are missing.
    bounded = BoundedAttributes(attributes=plain)
    bounded.dropped = span.dropped_attributes
    return bounded


def _span_events(span: FinishedSpan) -> Sequence[Event]:
    events = [
        Event(well_formed(event.name), _attributes(event.attributes), _clamped_ns(event.time_ns)) for event in span.events
    ]
    if not span.dropped_events:
        return events
    bounded: BoundedList[Event] = BoundedList(None)
    bounded.extend(events)
    bounded.dropped = span.dropped_events
    return bounded


@lru_cache(maxsize=256)
def _sdk_resource(resource: Resource) -> SdkResource:
    # Not `Resource.create`, which adds a random service.instance.id.
    return SdkResource(_attributes(resource.attributes), resource.schema_url)


@lru_cache(maxsize=256)
def _sdk_scope(scope: Scope) -> InstrumentationScope:
    return InstrumentationScope(scope.name, scope.version)


# --- points -------------------------------------------------------------------------------------------


def metrics_data(points: Sequence[tuple[Resource, MetricPoint]]) -> sdk_metrics.MetricsData:
    """The points as the SDK has them, grouped by resource, scope and metric in the order in which these first appear."""
    tree: dict[Resource, dict[Scope, dict[Metric, list[MetricPoint]]]] = {}
    for resource, point in points:
        metric = point.metric
        tree.setdefault(resource, {}).setdefault(metric.scope, {}).setdefault(metric, []).append(point)
    return sdk_metrics.MetricsData([_resource_metrics(resource, scopes) for resource, scopes in tree.items()])


def _resource_metrics(
    resource: Resource, scopes: Mapping[Scope, Mapping[Metric, Sequence[MetricPoint]]]
) -> sdk_metrics.ResourceMetrics:
    parts = [
        sdk_metrics.ScopeMetrics(_sdk_scope(scope), [_sdk_metric(metric, points) for metric, points in metrics.items()], "")
        for scope, metrics in scopes.items()
    ]
    return sdk_metrics.ResourceMetrics(_sdk_resource(resource), parts, resource.schema_url)


def _sdk_metric(metric: Metric, points: Sequence[MetricPoint]) -> sdk_metrics.Metric:
    cumulative = AggregationTemporality.CUMULATIVE
    data: sdk_metrics.Sum | sdk_metrics.Gauge | sdk_metrics.ExponentialHistogram
    if metric.kind == "sum":
        data = sdk_metrics.Sum([_number_point(point) for point in points], cumulative, metric.monotonic)
    elif metric.kind == "gauge":
        data = sdk_metrics.Gauge([_number_point(point) for point in points])
    else:
        data = sdk_metrics.ExponentialHistogram([_histogram_point(point) for point in points], cumulative)
    return sdk_metrics.Metric(metric.name, metric.description, metric.unit, data)


def _number_point(point: MetricPoint) -> sdk_metrics.NumberDataPoint:
    if isinstance(point.value, Histogram):
        raise TypeError(f"{point.metric.name} is a {point.metric.kind}, but its value is a histogram")
    return sdk_metrics.NumberDataPoint(
        _attributes(point.attributes),
        _clamped_ns(point.start_ns),
        _clamped_ns(point.time_ns),
        plain_number(point.value),
        _exemplars(point.exemplars),
    )


def _histogram_point(point: MetricPoint) -> sdk_metrics.ExponentialHistogramDataPoint:
    value = point.value
    if not isinstance(value, Histogram):
        raise TypeError(f"{point.metric.name} is a histogram, but its value is a number")
    return sdk_metrics.ExponentialHistogramDataPoint(
        attributes=_attributes(point.attributes),
        start_time_unix_nano=_clamped_ns(point.start_ns),
        time_unix_nano=_clamped_ns(point.time_ns),
        count=value.count,
        sum=value.sum,
        scale=value.scale,
        zero_count=value.zero_count,
        positive=sdk_metrics.Buckets(value.offset, list(value.buckets)),
        negative=sdk_metrics.Buckets(0, []),
        flags=0,
        min=value.min,
        max=value.max,
        exemplars=_exemplars(point.exemplars),
    )


def _exemplars(exemplars: Sequence[Exemplar]) -> list[SdkExemplar]:
    return [
        SdkExemplar({}, e.value, _clamped_ns(e.time_ns), int.from_bytes(e.span_id), int.from_bytes(e.trace_id))
        for e in exemplars
    ]
