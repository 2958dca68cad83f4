"""From finished spans and points to OTLP: the encoder, requests of bounded size, and the places they can go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from otelbridge.records import FinishedSpan, MetricPoint, Outcome, Request, Resource, Signal


class Sink(Protocol):
    """A destination. Spans and points are handed in as they come; what became of them is known at the end."""

    def spans(self, resource: Resource, spans: Sequence[FinishedSpan]) -> None:
        """Take finished spans of one resource."""

    def points(self, resource: Resource, points: Sequence[MetricPoint]) -> None:
        """Take data points of one resource; those of one series come in the order of their times."""

    def flush(self) -> None:
        """An input has ended: requests hold nothing of the next, so that what goes out does not depend on the company."""

    def close(self) -> Mapping[Signal, Outcome]:
        """Deliver what is still held and say what became of everything, for both signals.

        Raises:
            ExportError: The destination cannot be used at all.
        """


class Builder(Protocol):
    """Packs what comes into requests of bounded size, in the encoding of one kind of destination."""

    def add_spans(self, resource: Resource, spans: Sequence[FinishedSpan]) -> list[Request]:
        """Take spans; the requests that they complete come out."""

    def add_points(self, resource: Resource, points: Sequence[MetricPoint]) -> list[Request]:
        """Take points; the requests that they complete come out."""

    def flush(self) -> list[Request]:
        """Requests of all that is still held."""


@runtime_checkable
class RequestSink(Sink, Protocol):
    """A destination that can be given requests, too.

    Attributes:
        new_builder: Makes what packs them, in whichever process.
    """

    new_builder: Callable[[], Builder]

    def take(self, requests: Sequence[Request]) -> None:
        """Deliver them in this order."""
