"""An outbox with its senders in the test's own process, and what they counted."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelbridge.otlp.outbox import Kept
from otelbridge.otlp.retry import Backoff
from otelbridge.otlp.settings import endpoints
from otelbridge.records import Request, Signal
from otelbridge.service.config import DestinationConfig
from otelbridge.service.outbox import ServiceOutbox
from otelbridge.service.senders import Senders

NAME = "collector"
MIB = 1 << 20
BACKOFF = Backoff(initial_s=0.02, longest_s=0.1)


def eventually(is_so: Callable[[], object], what: str = "", timeout_s: float = 30.0) -> None:
    """Poll until something is so."""
    deadline_s = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline_s, what or "it did not happen"
        time.sleep(0.005)


def traces(number: int, items: int = 3, text: str = "") -> Request:
    """A request of spans whose names tell which it is."""
    message = ExportTraceServiceRequest()
    spans = message.resource_spans.add().scope_spans.add().spans
    for item in range(items):
        name = f"{number}/{item}{text}"
        ids = {"trace_id": number.to_bytes(8) + b"-trace-x", "span_id": (number * 1000 + item + 1).to_bytes(8)}
        spans.add(name=name, start_time_unix_nano=1, end_time_unix_nano=2, **ids)
    return Request("traces", message.SerializeToString(), items)


def points(number: int, items: int = 3) -> Request:
    """A request of points whose values tell which it is."""
    message = ExportMetricsServiceRequest()
    metric = message.resource_metrics.add().scope_metrics.add().metrics.add(name="m")
    for item in range(items):
        metric.gauge.data_points.add(time_unix_nano=number * 1000 + item + 1, as_int=number)
    return Request("metrics", message.SerializeToString(), items)


def names(bodies: Iterable[bytes]) -> list[str]:
    """The names of the spans of requests."""
    messages = [ExportTraceServiceRequest.FromString(body) for body in bodies]
    return [s.name for m in messages for r in m.resource_spans for scope in r.scope_spans for s in scope.spans]


def destination(address: str, env: Mapping[str, str] | None = None, name: str = NAME) -> DestinationConfig:
    return DestinationConfig(name, endpoints(address, {"OTEL_EXPORTER_OTLP_TIMEOUT": "5000", **(env or {})}))


class Counts:
    """What was counted, by the last part of the name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.all: list[tuple[str, float, Mapping[str, str]]] = []

    def __call__(self, name: str, number: float, attributes: Mapping[str, str]) -> None:
        with self._lock:
            self.all.append((name, number, attributes))

    def __getitem__(self, name: str) -> float:
        with self._lock:
            return sum(number for found, number, _ in self.all if found == f"otelbridge.{name}")

    def by(self, name: str, attribute: str) -> Counter[str]:
        found: Counter[str] = Counter()
        with self._lock:
            for known, number, attributes in self.all:
                if known == f"otelbridge.{name}":
                    found[attributes[attribute]] += number
        return found


class Rig:
    """An outbox in `folder` and senders to `destinations`."""

    def __init__(self, folder: Path, destinations: Sequence[DestinationConfig], *, backoff: Backoff = BACKOFF) -> None:
        self.counts = Counts()
        self.outbox = ServiceOutbox(folder, limit_bytes=64 * MIB, rejected_limit_bytes=16 * MIB, count=self.counts)
        self.senders = Senders(self.outbox, destinations, self.counts, backoff=backoff, tls_check_s=0.1)

    def put(self, *requests: Request, name: str = NAME) -> None:
        self.outbox.commit({}, [(name, request) for request in requests])

    def pending(self) -> int:
        return sum(amount.requests for amount in self.outbox.status().pending.values())

    def rejected(self) -> int:
        return sum(amount.requests for amount in self.outbox.status().rejected.values())

    def drained(self) -> None:
        eventually(lambda: self.pending() == 0, "requests still wait in the outbox")

    def status(self, signal: Signal = "traces", name: str = NAME):  # type: ignore[no-untyped-def]  # noqa: ANN201
        return next(s for s in self.senders.status() if (s.destination, s.signal) == (name, signal))


@contextmanager
def rig(folder: Path, *destinations: DestinationConfig, backoff: Backoff = BACKOFF) -> Iterator[Rig]:
    built = Rig(folder, destinations, backoff=backoff)
    try:
        yield built
    finally:
        built.senders.stop(time.monotonic() + 10)
        built.outbox.close()


def take(outbox: ServiceOutbox, signal: Signal = "traces", name: str = NAME, timeout_s: float = 0.0) -> Kept | None:
    """What a sender would get."""
    return outbox.next(name, signal, stop=threading.Event(), timeout_s=timeout_s)
