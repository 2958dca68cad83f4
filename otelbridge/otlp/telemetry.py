"""The program's own counters as metrics, through the OpenTelemetry SDK: over OTLP with our own senders, and for Prometheus."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricReader,
    MetricsData,
    NumberDataPoint,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource

from otelbridge import __version__
from otelbridge.otlp.delivery import sender_for
from otelbridge.otlp.retry import Accepted, Verdict
from otelbridge.otlp.settings import DEFAULT_TIMEOUT_S, Endpoint
from otelbridge.records import Attributes, Request
from otelbridge.stats import STATS, Distribution, Reading, Stat

SCOPE = "otelbridge"

_LONGEST_WAIT_S = 3600.0
_log = logging.getLogger(__name__)


class Meters(Protocol):
    """The counters that are told. Any thread may call any method."""

    @property
    def since_ns(self) -> int:
        """When the totals began, UTC."""

    def read(self, name: str) -> Sequence[Reading]:
        """The series of one row of the table."""

    def add(self, name: str, number: float = 1) -> None:
        """Count on."""


class Telemetry:
    """Tells the counters every `interval_s`, from a thread of its own, until `shutdown`.

    Whatever is not accepted is told once in the log and counted. It is not sent again: the next export has the same totals.

    Args:
        meters: The counters.
        resource: Who tells them. Attributes of OTEL_RESOURCE_ATTRIBUTES join it, but do not replace any.
        endpoint: Where OTLP goes, None for nowhere.
        interval_s: The time between exports.

    Attributes:
        page: Makes the page that Prometheus reads, from any thread; None where the exporter for it is not installed.

    Raises:
        UsageError: A TLS file of the endpoint cannot be read.
    """

    def __init__(self, meters: Meters, resource: Attributes, *, endpoint: Endpoint | None, interval_s: float) -> None:
        readers: list[MetricReader] = []
        if endpoint is not None:
            timeout_s = min(endpoint.timeout_s, max(interval_s, DEFAULT_TIMEOUT_S))
            exporter = _Exporter(meters, replace(endpoint, timeout_s=timeout_s))
            readers.append(PeriodicExportingMetricReader(exporter, interval_s * 1_000, timeout_s * 1_000))
        self.page: Callable[[], bytes] | None = None
        # An extra of this package.
        with suppress(ImportError):
            from otelbridge.otlp.prometheus import PageReader  # noqa: PLC0415

            page_reader = PageReader(lambda data: completed(data, meters))
            readers.append(page_reader)
            self.page = page_reader.page
        self._provider = MeterProvider(readers, Resource.create(dict(resource)), shutdown_on_exit=False)
        _observe(self._provider, meters)

    def shutdown(self, deadline_s: float) -> None:
        """Export a last time, and be done by the time the monotonic clock shows `deadline_s`, delivered or not."""
        left_s = min(max(deadline_s - time.monotonic(), 0.001), _LONGEST_WAIT_S)
        # It raises where time ran out, which the next start makes good: totals go on.
        with suppress(Exception):
            self._provider.shutdown(timeout_millis=left_s * 1_000)


# --- counters -> the SDK's data ---------------------------------------------------------------------


def _is_observed(stat: Stat) -> bool:
    """Whether an observable instrument of the SDK can tell a row.

    There is none for histograms. And an instrument remembers the attributes of every series that it ever had, up to 2,000, then
    puts all new ones together: those of inputs come and go.
    """
    return stat.kind != "histogram" and "input" not in stat.attributes


def _observe(provider: MeterProvider, meters: Meters) -> None:
    meter = provider.get_meter(SCOPE, __version__)
    for stat in filter(_is_observed, STATS):
        create = meter.create_observable_counter if stat.kind == "sum" else meter.create_observable_gauge
        create(stat.name, [_callback(meters, stat.name)], stat.unit, stat.text)


def _callback(meters: Meters, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_options: CallbackOptions) -> Iterator[Observation]:
        for attributes, value in meters.read(name):
            if not isinstance(value, Distribution):
                yield Observation(value, dict(attributes))

    return observe


def completed(data: MetricsData, meters: Meters) -> MetricsData:
    """What the SDK collected, and the rows that its instruments cannot tell."""
    now_ns = time.time_ns()
    rows = [_metric(stat, meters.read(stat.name), meters.since_ns, now_ns) for stat in STATS if not _is_observed(stat)]
    told = [row for row in rows if row.data.data_points]
    (of_resource,) = data.resource_metrics
    # The SDK can be told to count its own doings too, in a scope of its own.
    scopes = [
        replace(of_scope, metrics=[*of_scope.metrics, *told]) if of_scope.scope.name == SCOPE else of_scope
        for of_scope in of_resource.scope_metrics
    ]
    return replace(data, resource_metrics=[replace(of_resource, scope_metrics=scopes)])


def _metric(stat: Stat, readings: Sequence[Reading], since_ns: int, now_ns: int) -> Metric:
    numbers, spreads = [], []
    for key, value in readings:
        attributes = dict(key)
        if isinstance(value, Distribution):
            count = sum(value.buckets)
            spreads.append(
                HistogramDataPoint(
                    attributes, since_ns, now_ns, count, value.sum, value.buckets, value.bounds, value.min, value.max
                )
            )
        else:
            numbers.append(NumberDataPoint(attributes, since_ns, now_ns, value))
    told = Histogram(spreads, AggregationTemporality.CUMULATIVE) if stat.kind == "histogram" else Gauge(numbers)
    return Metric(stat.name, stat.text, stat.unit, told)


# --- the SDK's data -> OTLP -------------------------------------------------------------------------


class _Exporter(MetricExporter):
    """Sends what is collected once, as data is sent: the same TLS, headers and compression."""

    def __init__(self, meters: Meters, endpoint: Endpoint) -> None:
        super().__init__()
        self._meters, self._name = meters, endpoint.name
        self._sender = sender_for(endpoint)
        self._is_troubled = False

    def export(self, metrics_data: MetricsData, timeout_millis: float = 0, **_: object) -> MetricExportResult:  # noqa: ARG002
        """Send once. The time-out is the endpoint's."""
        verdict = self._sender.send(_request(completed(metrics_data, self._meters), self._meters.since_ns))
        is_accepted = isinstance(verdict, Accepted) and not verdict.rejected_items
        if not is_accepted:
            self._meters.add("otelbridge.telemetry.exports_failed")
        self._tell(_words(verdict))
        return MetricExportResult.SUCCESS if is_accepted else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 0) -> bool:  # noqa: ARG002
        """Nothing is held."""
        return True

    def shutdown(self, timeout_millis: float = 0, **_: object) -> None:  # noqa: ARG002
        """Give the connections back."""
        self._sender.close()

    def _tell(self, words: str) -> None:
        if words and not self._is_troubled:
            _log.warning("%s does not take otelbridge's own metrics as it should: %s. The next export has the same totals; "
                         "only what they were in between is not known.", self._name, words)  # fmt: skip
        elif self._is_troubled and not words:
            _log.info("%s takes otelbridge's own metrics again.", self._name)
        self._is_troubled = bool(words)


def _words(verdict: Verdict) -> str:
    """What is not as it should be."""
    if not isinstance(verdict, Accepted):
        return verdict.reason
    if verdict.rejected_items:
        return f"{verdict.rejected_items} points were refused: {verdict.message or 'without a reason'}"
    return verdict.message


def _request(data: MetricsData, since_ns: int) -> Request:
    """The request, with totals that began at `since_ns`: they are older than this process and its instruments."""
    message = encode_metrics(data)
    items = 0
    for of_scope in message.resource_metrics[0].scope_metrics:
        for metric in of_scope.metrics:
            kind = metric.WhichOneof("data") or "gauge"
            points = getattr(metric, kind).data_points
            items += len(points)
            if of_scope.scope.name == SCOPE and kind != "gauge":
                for point in points:
                    point.start_time_unix_nano = min(since_ns, point.time_unix_nano)
    return Request("metrics", message.SerializeToString(deterministic=True), items)
