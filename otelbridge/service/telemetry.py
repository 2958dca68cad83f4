"""What the service says of itself, as its configuration has it."""

from __future__ import annotations

from collections.abc import Sequence

from otelbridge import __version__
from otelbridge.errors import UsageError
from otelbridge.otlp.settings import Endpoint
from otelbridge.otlp.telemetry import Telemetry
from otelbridge.records import SECOND_NS, Attributes
from otelbridge.service.config import DestinationConfig, TelemetryConfig
from otelbridge.service.counters import Counters


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
