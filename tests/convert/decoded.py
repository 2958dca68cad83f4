"""Spans and points as plain data, out of OTLP/JSON lines and out of received protobuf, so that the two can be compared."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.receiver import Receiver

_IDS = ("traceId", "spanId", "parentSpanId")
_MESSAGES: Mapping[str, Any] = {"traces": ExportTraceServiceRequest, "metrics": ExportMetricsServiceRequest}


def spans_of(requests: Iterable[dict[str, Any]]) -> Counter[str]:
    """Every span with its resource and scope; equal ones are counted."""
    return Counter(
        _canonical([resource.get("resource"), resource.get("schemaUrl"), scope.get("scope"), span])
        for request in requests
        for resource in request.get("resourceSpans", ())
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    )


def points_of(requests: Iterable[dict[str, Any]]) -> Counter[str]:
    """Every data point with its resource, scope and metric; equal ones are counted."""
    return Counter(
        _canonical([resource.get("resource"), resource.get("schemaUrl"), scope.get("scope"), metric_of, point])
        for request in requests
        for resource in request.get("resourceMetrics", ())
        for scope in resource["scopeMetrics"]
        for metric in scope["metrics"]
        for metric_of, point in _points(metric)
    )


def lines(text: str) -> list[dict[str, Any]]:
    """The requests of OTLP/JSON lines."""
    return [json.loads(line) for line in text.splitlines()]


def received(receiver: Receiver) -> list[dict[str, Any]]:
    """The requests that a receiver kept, as OTLP/JSON has them."""
    return [
        _hex_ids(MessageToDict(_MESSAGES[signal].FromString(body), use_integers_for_enums=True))
        for signal, body in receiver.requests
    ]


def _points(metric: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    kind = next(key for key in ("sum", "gauge", "histogram", "exponentialHistogram") if key in metric)
    frame = {**metric, kind: {key: value for key, value in metric[kind].items() if key != "dataPoints"}}
    for point in metric[kind]["dataPoints"]:
        yield frame, point


def _hex_ids(node: Any) -> Any:
    """Ids are base64 in protobuf's own JSON and hexadecimal in OTLP's."""
    if isinstance(node, list):
        return [_hex_ids(value) for value in node]
    if not isinstance(node, dict):
        return node
    return {key: base64.b64decode(value).hex() if key in _IDS else _hex_ids(value) for key, value in node.items()}


def _canonical(value: Any) -> str:
    return json.dumps(_sorted_attributes(value), sort_keys=True)


def _sorted_attributes(node: Any) -> Any:
    """Attributes are a set; their order says nothing."""
    if isinstance(node, list):
        return [_sorted_attributes(value) for value in node]
    if not isinstance(node, dict):
        return node
    found = {key: _sorted_attributes(value) for key, value in node.items()}
    if "attributes" in found:
        found["attributes"] = sorted(found["attributes"], key=lambda pair: pair["key"])
    return found
