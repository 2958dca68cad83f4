"""What an OTLP response says of a request that was taken.

Source: opentelemetry-proto, docs/specification.md, Partial Success; opentelemetry-specification, protocol/exporter.md,
Maximum Response Size.
"""

from __future__ import annotations

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from otelbridge.otlp.retry import Accepted
from otelbridge.records import Signal

LIMIT_BYTES = 4 * 1024 * 1024


def read_response(signal: Signal, answer: bytes) -> Accepted:
    """How many items the destination refused, and its words. Bytes that are no response say nothing of losses."""
    try:
        return _partial_success(_empty(signal).FromString(answer))
    except DecodeError:
        return Accepted(0, "its answer is no OTLP response; is this an OTLP receiver?")


def read_json_response(signal: Signal, answer: bytes) -> Accepted:
    """The same of a response in JSON, which some destinations send although they were asked for protobuf."""
    try:
        return _partial_success(json_format.Parse(answer, _empty(signal), ignore_unknown_fields=True))
    except (json_format.ParseError, UnicodeDecodeError):
        return Accepted(0, "its answer is no OTLP response; is this an OTLP receiver?")


def _empty(signal: Signal) -> ExportTraceServiceResponse | ExportMetricsServiceResponse:
    return ExportTraceServiceResponse() if signal == "traces" else ExportMetricsServiceResponse()


def _partial_success(response: ExportTraceServiceResponse | ExportMetricsServiceResponse) -> Accepted:
    partial = response.partial_success
    if isinstance(response, ExportTraceServiceResponse):
        return Accepted(response.partial_success.rejected_spans, partial.error_message)
    return Accepted(response.partial_success.rejected_data_points, partial.error_message)
