"""From finished spans and points to OTLP: the encoder, requests of bounded size, and the places they can go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from otelbridge.records import FinishedSpan, MetricPoint, Outcome, Resource, Signal


class Sink(Protocol):
    """A destination. Spans and points are handed in as they come; what became of them is known at the end."""

    def spans(self, resource: Resource, spans: Sequence[FinishedSpan]) -> None:
        """Take finished spans of one resource."""

    def points(self, resource: Resource, points: Sequence[MetricPoint]) -> None:
        """Take data points of one resource; those of one series come in the order of their times."""

    def close(self) -> Mapping[Signal, Outcome]:
        """Deliver what is still held and say what became of everything, for both signals.

        Raises:
            ExportError: The destination cannot be used at all.
        """
