"""What the service says of itself, as its configuration has it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from otelbridge import __version__
from otelbridge.errors import UsageError
from otelbridge.otlp.settings import Endpoint
from otelbridge.records import SECOND_NS, Attributes
from otelbridge.service.config import DestinationConfig, ServiceConfig, TelemetryConfig
from otelbridge.service.counters import Counters

if TYPE_CHECKING:
    from otelbridge.otlp.telemetry import Telemetry

_LAST_WORD_S = 2.0


class SelfTelemetry:
    """The counters on their way to where the configuration wants them. The SDK is loaded when somebody wants them.

    Args:
        config: The configuration.
        counters: What is told, totals restored.

    Raises:
        UsageError: A TLS file of the destination cannot be read.
    """

    def __init__(self, config: ServiceConfig, counters: Counters) -> None:
        self._config, self._counters = config, counters
        self._lock = threading.Lock()
        self._running: Telemetry | None = None
        if config.telemetry.destination is not None:
            self._start()

    def _start(self) -> Telemetry:
        config = self._config
        self._running = start_telemetry(config.telemetry, config.destinations, self._counters, host=socket.gethostname())
        return self._running

    @property
    def page(self) -> Callable[[], bytes] | None:
        """Makes the page that Prometheus reads; None where the exporter for it is not installed."""
        return self._page if find_spec("opentelemetry.exporter.prometheus") else None

    def _page(self) -> bytes:
        with self._lock:
            running = self._running or self._start()
        return b"" if running.page is None else running.page()

    def update(self, config: ServiceConfig) -> None:
        """Go on with another configuration."""
        same = (config.telemetry, config.destinations) == (self._config.telemetry, self._config.destinations)
        with self._lock:
            self._config = config
            if same:
                return
            running, self._running = self._running, None
            if running is not None:
                running.shutdown(time.monotonic() + _LAST_WORD_S)
            if config.telemetry.destination is not None:
                self._start()

    def shutdown(self, deadline_s: float) -> None:
        """Export a last time, and be done by the time the monotonic clock shows `deadline_s`, delivered or not."""
        with self._lock:
            if self._running is not None:
                self._running.shutdown(deadline_s)


def start_telemetry(
    config: TelemetryConfig, destinations: Sequence[DestinationConfig], counters: Counters, *, host: str
) -> Telemetry:
    """The counters on their way to the destination that is configured, and as a page for Prometheus.

    Args:
        config: Where to and how often.
        destinations: Those that the name in `config` can mean.
        counters: What is told, totals restored: their instance is the resource's.
        host: The name of this host.

    Raises:
        UsageError: There is no destination of that name that takes metrics, or one of its TLS files cannot be read.
    """
    from otelbridge.otlp.telemetry import Telemetry  # noqa: PLC0415  # it brings the SDK

    endpoint = None if config.destination is None else _endpoint(config.destination, destinations)
    return Telemetry(counters, resource(counters.instance, host), endpoint=endpoint, interval_s=config.interval_ns / SECOND_NS)


def resource(instance: str, host: str) -> Attributes:
    """Who tells the counters."""
    return (
        ("service.name", "otelbridge"),
        ("service.version", __version__),
        ("service.instance.id", instance),
        ("host.name", host),
    )


def _endpoint(name: str, destinations: Sequence[DestinationConfig]) -> Endpoint:
    taking = {
        destination.name: destination.endpoints["metrics"] for destination in destinations if "metrics" in destination.endpoints
    }
    if name not in taking:
        raise UsageError(
            f"telemetry: found the destination {name!r}, expected one of those that take metrics "
            f"({', '.join(taking) or 'none does'}); nothing was started"
        )
    return taking[name]
