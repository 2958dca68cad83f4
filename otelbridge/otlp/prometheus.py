"""The page that Prometheus reads. Only with the extra `prometheus`: this module cannot be imported without."""

from __future__ import annotations

import threading
from collections.abc import Callable

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.export import MetricsData
from prometheus_client import CollectorRegistry, generate_latest


class PageReader(PrometheusMetricReader):
    """The SDK's reader for Prometheus, with a registry of its own.

    Args:
        complete: Adds what the SDK did not collect.
    """

    def __init__(self, complete: Callable[[MetricsData], MetricsData]) -> None:
        self._complete = complete
        self._own_registry = CollectorRegistry()
        # Two scrapes at once would put the series of both into both pages.
        self._one_at_a_time = threading.Lock()
        super().__init__(scope_info_enabled=False, registry=self._own_registry)

    def page(self) -> bytes:
        """The page in Prometheus' text format 0.0.4."""
        with self._one_at_a_time:
            return generate_latest(self._own_registry)

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 0, **_: object) -> None:
        super()._receive_metrics(self._complete(metrics_data), timeout_millis)
