"""The hand-written protobuf and JSON against the generated classes, over odd values."""

import base64
import json
import math
import re
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelbridge.otlp import encode, json_lines
from otelbridge.records import (
    ERROR,
    UNSET,
    Exemplar,
    FinishedSpan,
    Histogram,
    Link,
    Metric,
    MetricPoint,
    Request,
    Resource,
    Scope,
    SpanEvent,
)

TRACE_ID, SPAN_ID, PARENT_ID = bytes(range(16)), bytes(range(8)), b"\xff" * 8
SCOPE = Scope("qemu/migration", "0.1.0")
RESOURCE = Resource((("service.name", "qemu"),), "https://opentelemetry.io/schemas/1.44.0")
DURATION = Metric("qemu.migration.duration", "histogram", "s", "How long migrations took.", SCOPE)
EVENTS = Metric("qemu.trace.events", "sum", "{event}", "Trace events.", SCOPE, monotonic=True)

# --- odd values -------------------------------------------------------------------------------------

INT64 = st.sampled_from([0, 1, -1, 127, 128, 16383, 16384, 2**31, 2**63 - 1, -(2**63), 2**63, 2**64 - 1, 2**64, -(2**63) - 1])
integers = INT64 | st.integers(-(2**80), 2**80)
# JSON has but one NaN.
doubles = st.floats(allow_nan=False) | st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf])
# Every code point is allowed, surrogates too.
texts = st.text(st.characters(codec=None), max_size=300) | st.sampled_from(
    ["", "\ud800", "a\udfffb", "\U0001f600", "\0", '"\\\n']
)
keys = st.sampled_from(["", "qemu.event.begin", "qemu.migration.section.id", "ключ", "\ud800"]) | texts
values = st.booleans() | integers | doubles | texts
attributes = st.lists(st.tuples(keys, values), max_size=6).map(tuple)
times = st.sampled_from([0, 1, 1_795_400_000_123_456_789, 2**64 - 1]) | st.integers(0, 2**64 - 1)
trace_ids, span_ids = st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8)
scopes = st.builds(Scope, texts, texts) | st.sampled_from([SCOPE, Scope("qemu/savevm", "0.1.0")])
resources = st.builds(Resource, attributes, texts)
uint32 = st.sampled_from([0, 1, 300]) | st.integers(0, 2**32 - 1)

spans = st.builds(
    FinishedSpan,
    trace_ids,
    span_ids,
    span_ids | st.just(b""),
    scopes,
    texts,
    st.integers(0, 5),
    times,
    times,
    attributes,
    st.lists(st.builds(SpanEvent, times, texts, attributes), max_size=3).map(tuple),
    st.lists(st.builds(Link, trace_ids, span_ids, attributes), max_size=3).map(tuple),
    st.sampled_from([UNSET, ERROR]),
    texts,
    uint32,
    uint32,
)
exemplars = st.lists(st.builds(Exemplar, times, doubles, trace_ids, span_ids), max_size=3).map(tuple)
uint64 = st.sampled_from([0, 1, 2**63]) | st.integers(0, 2**64 - 1)
histograms = st.builds(
    Histogram,
    uint64,
    doubles,
    doubles,
    doubles,
    st.integers(-11, 20),
    uint64,
    st.sampled_from([0, -1, 2**31 - 1, -(2**31)]) | st.integers(-(2**31), 2**31 - 1),
    st.lists(uint64, max_size=20).map(tuple),
)


def metric(kinds: st.SearchStrategy[str]) -> st.SearchStrategy[Metric]:
    return st.builds(Metric, texts, kinds, texts, texts, scopes, st.booleans())


number_points = st.builds(
    MetricPoint,
    metric(st.sampled_from(["sum", "gauge"])) | st.just(EVENTS),
    attributes,
    times,
    times,
    integers | doubles | st.booleans() | st.sampled_from([10**400, -(10**400)]),
    exemplars,
)
histogram_points = st.builds(
    MetricPoint, metric(st.just("histogram")) | st.just(DURATION), attributes, times, times, histograms, exemplars
)
points = number_points | histogram_points


# --- the short ways of JSON -------------------------------------------------------------------------

ordinary_spans = st.builds(
    lambda span, times_ns: span._replace(
        start_ns=min(times_ns), end_ns=max(times_ns), events=(), links=(), status=UNSET, message="", dropped_events=0,
        dropped_attributes=0,
    ),
    spans,
    st.tuples(times, times),
)  # fmt: skip
ordinary_points = st.builds(
    lambda point, times_ns: point._replace(start_ns=min(times_ns), time_ns=max(times_ns)), points, st.tuples(times, times)
)


@given(ordinary_spans | spans)
def test_the_short_way_of_a_span_is_the_same(span: FinishedSpan) -> None:
    # From the second time on its attributes are known.
    for _ in range(2):
        assert json_lines.span_text(span) == json_lines.any_span_text(span)
        assert encode.encode_span(span) == encode.encode_any_span(span)


@given(ordinary_points | points)
def test_the_short_way_of_a_point_is_the_same_text(point: MetricPoint) -> None:
    assert json_lines.point_text(point) == json_lines.any_point_text(point)


# --- the same through the generated classes -----------------------------------------------------------


def legal(text: str) -> str:
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def fill_attributes(field: Any, given_attributes: Any) -> None:
    for key, value in given_attributes:
        added = field.add(key=legal(key))
        if isinstance(value, bool):
            added.value.bool_value = value
        elif isinstance(value, int) and -(2**63) <= value < 2**63:
            added.value.int_value = value
        elif isinstance(value, float):
            added.value.double_value = value
        else:
            added.value.string_value = legal(str(value))


def fill_resource(message: Any, resource: Resource) -> None:
    message.resource.SetInParent()
    fill_attributes(message.resource.attributes, resource.attributes)
    message.schema_url = legal(resource.schema_url)


def fill_scope(message: Any, scope: Scope) -> None:
    message.scope.SetInParent()
    message.scope.name, message.scope.version = legal(scope.name), legal(scope.version)


def fill_span(message: Any, span: FinishedSpan) -> None:
    message.trace_id, message.span_id, message.parent_span_id = span.trace_id, span.span_id, span.parent_id
    message.name, message.kind = legal(span.name), span.kind
    message.start_time_unix_nano, message.end_time_unix_nano = span.start_ns, span.end_ns
    fill_attributes(message.attributes, span.attributes)
    message.dropped_attributes_count, message.dropped_events_count = span.dropped_attributes, span.dropped_events
    for event in span.events:
        added = message.events.add(time_unix_nano=event.time_ns, name=legal(event.name))
        fill_attributes(added.attributes, event.attributes)
    for link in span.links:
        fill_attributes(message.links.add(trace_id=link.trace_id, span_id=link.span_id).attributes, link.attributes)
    if span.status == ERROR:
        message.status.code, message.status.message = 2, legal(span.message)


def trace_message(resource: Resource, given_spans: list[FinishedSpan]) -> ExportTraceServiceRequest:
    message = ExportTraceServiceRequest()
    fill_resource(message.resource_spans.add(), resource)
    for scope in dict.fromkeys(span.scope for span in given_spans):
        scope_spans = message.resource_spans[0].scope_spans.add()
        fill_scope(scope_spans, scope)
        for span in given_spans:
            if span.scope == scope:
                fill_span(scope_spans.spans.add(), span)
    return message


def number_value(message: Any, value: Any) -> None:
    if isinstance(value, float):
        message.as_double = value
    elif -(2**63) <= value < 2**63:
        message.as_int = int(value)
    else:
        message.as_double = float(value) if abs(value) < 2**1000 else math.copysign(math.inf, value > 0 or -1)


def fill_point(message: Any, point: MetricPoint) -> None:
    fill_attributes(message.attributes, point.attributes)
    message.start_time_unix_nano, message.time_unix_nano = point.start_ns, point.time_ns
    for exemplar in point.exemplars:
        message.exemplars.add(
            time_unix_nano=exemplar.time_ns, as_double=exemplar.value, span_id=exemplar.span_id, trace_id=exemplar.trace_id
        )
    if not isinstance(point.value, Histogram):
        number_value(message, point.value)
        return
    value = point.value
    message.count, message.sum, message.min, message.max = value.count, value.sum, value.min, value.max
    message.scale, message.zero_count = value.scale, value.zero_count
    message.positive.SetInParent()
    message.positive.offset = value.offset
    message.positive.bucket_counts.extend(value.buckets)


def fill_metric(message: Any, identity: Metric) -> Any:
    message.name, message.description = legal(identity.name), legal(identity.description)
    message.unit = legal(identity.unit)
    data = {"gauge": message.gauge, "sum": message.sum, "histogram": message.exponential_histogram}[identity.kind]
    data.SetInParent()
    if identity.kind != "gauge":
        data.aggregation_temporality = 2
    if identity.kind == "sum":
        data.is_monotonic = identity.monotonic
    return data


def metrics_message(resource: Resource, given_points: list[MetricPoint]) -> ExportMetricsServiceRequest:
    message = ExportMetricsServiceRequest()
    fill_resource(message.resource_metrics.add(), resource)
    identities = dict.fromkeys(point.metric for point in given_points)
    for scope in dict.fromkeys(identity.scope for identity in identities):
        scope_metrics = message.resource_metrics[0].scope_metrics.add()
        fill_scope(scope_metrics, scope)
        for identity in identities:
            if identity.scope == scope:
                data = fill_metric(scope_metrics.metrics.add(), identity)
                for point in given_points:
                    if point.metric == identity:
                        fill_point(data.data_points.add(), point)
    return message


ID_KEYS = {"traceId", "spanId", "parentSpanId"}


def with_base64_ids(node: Any) -> Any:
    """OTLP/JSON as protobuf's own JSON, which has ids in base64."""
    if isinstance(node, list):
        return [with_base64_ids(child) for child in node]
    if not isinstance(node, dict):
        return node
    return {
        key: base64.b64encode(bytes.fromhex(value)).decode() if key in ID_KEYS else with_base64_ids(value)
        for key, value in node.items()
    }


def encoded_from_json(line: str, message: Any) -> bytes:
    body: bytes = json_format.ParseDict(with_base64_ids(json.loads(line)), message).SerializeToString(deterministic=True)
    return body


# --- tests --------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(resources, st.lists(spans, max_size=4))
def test_spans_are_the_bytes_that_the_generated_classes_give(resource: Resource, given_spans: list[FinishedSpan]) -> None:
    message = trace_message(resource, given_spans)
    assert encode.encode_spans(resource, given_spans) == message.SerializeToString(deterministic=True)


@settings(max_examples=300, deadline=None)
@given(resources, st.lists(points, max_size=4))
def test_points_are_the_bytes_that_the_generated_classes_give(resource: Resource, given_points: list[MetricPoint]) -> None:
    message = metrics_message(resource, given_points)
    assert encode.encode_points(resource, given_points) == message.SerializeToString(deterministic=True)


@settings(max_examples=200, deadline=None)
@given(resources, st.lists(spans, max_size=3))
def test_a_line_of_spans_holds_what_the_protobuf_holds(resource: Resource, given_spans: list[FinishedSpan]) -> None:
    body, line = encode.encode_spans(resource, given_spans), json_lines.spans_line(resource, given_spans)
    assert encoded_from_json(line, ExportTraceServiceRequest()) == body
    assert json_lines.request_line(Request("traces", body, len(given_spans))) == line
    assert "\n" not in line


@settings(max_examples=200, deadline=None)
@given(resources, st.lists(points, max_size=3))
def test_a_line_of_points_holds_what_the_protobuf_holds(resource: Resource, given_points: list[MetricPoint]) -> None:
    body, line = encode.encode_points(resource, given_points), json_lines.points_line(resource, given_points)
    assert encoded_from_json(line, ExportMetricsServiceRequest()) == body
    assert json_lines.request_line(Request("metrics", body, len(given_points))) == line


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (True, {"boolValue": True}),
        (1, {"intValue": "1"}),
        (1.0, {"doubleValue": 1.0}),
        (-1, {"intValue": "-1"}),
        (0xFFFF_8000_0000_0000, {"stringValue": "18446603336221196288"}),
        (math.nan, {"doubleValue": "NaN"}),
        (-math.inf, {"doubleValue": "-Infinity"}),
        ("\udc80", {"stringValue": "\ufffd"}),
        ("", {"stringValue": ""}),
    ],
)
def test_an_attribute_keeps_its_type(value: Any, sent: Any) -> None:
    """True, 1 and 1.0 are equal in Python and must not be taken for each other."""
    everything = ("k", True), ("k", 1), ("k", 1.0), ("k", value)
    span = FinishedSpan(TRACE_ID, SPAN_ID, b"", SCOPE, "migration", 1, 1, 2, everything)
    line = json.loads(json_lines.spans_line(RESOURCE, [span]))
    assert line["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"][3]["value"] == sent
    body = encode.encode_spans(RESOURCE, [span])
    assert body == trace_message(RESOURCE, [span]).SerializeToString(deterministic=True)


@pytest.mark.parametrize(("time_ns", "sent"), [(-5, 0), (2**64, 2**64 - 1), (2**70, 2**64 - 1)])
def test_times_that_do_not_fit_are_clamped(time_ns: int, sent: int) -> None:
    span = FinishedSpan(TRACE_ID, SPAN_ID, PARENT_ID, SCOPE, "migration", 1, time_ns, 2, ())
    fitting = span._replace(start_ns=sent)
    assert encode.encode_spans(RESOURCE, [span]) == encode.encode_spans(RESOURCE, [fitting])
    assert json_lines.spans_line(RESOURCE, [span]) == json_lines.spans_line(RESOURCE, [fitting])


def test_more_texts_than_the_cache_holds_stay_right() -> None:
    many = [
        FinishedSpan(TRACE_ID, SPAN_ID, b"", SCOPE, f"name {n}", 1, 1, 2, (("page", hex(n)), (f"key {n}", n)))
        for n in range(encode.CACHE_ENTRIES + 10)
    ]
    assert encode.encode_spans(RESOURCE, many) == trace_message(RESOURCE, many).SerializeToString(deterministic=True)
    assert len(encode._SPAN_ATTRIBUTES.texts) <= encode.CACHE_ENTRIES
    assert len(encode._SPAN_ATTRIBUTES.numbers) <= encode.CACHE_ENTRIES
    assert (
        json.loads(json_lines.spans_line(RESOURCE, many))["resourceSpans"][0]["scopeSpans"][0]["spans"][-1]["name"]
        == many[-1].name
    )


def test_a_long_text_arrives_whole() -> None:
    span = FinishedSpan(TRACE_ID, SPAN_ID, b"", SCOPE, "migration", 1, 1, 2, (("text", "x" * 3_000_000),))
    message = ExportTraceServiceRequest.FromString(encode.encode_spans(RESOURCE, [span]))
    assert message.resource_spans[0].scope_spans[0].spans[0].attributes[0].value.string_value == "x" * 3_000_000


def test_scopes_and_metrics_stand_in_the_order_of_first_appearance() -> None:
    other = Scope("qemu/savevm", "0.1.0")
    metrics = [Metric(name, "gauge", "1", "", scope) for name, scope in (("b", other), ("a", SCOPE), ("c", other))]
    points_given = [MetricPoint(metrics[i], (), 1, 2, i) for i in (0, 1, 2, 0)]
    message = ExportMetricsServiceRequest.FromString(encode.encode_points(RESOURCE, points_given))
    found = [
        (scope.scope.name, one.name, [p.as_int for p in one.gauge.data_points])
        for scope in message.resource_metrics[0].scope_metrics
        for one in scope.metrics
    ]
    assert found == [("qemu/savevm", "b", [0, 0]), ("qemu/savevm", "c", [2]), ("qemu/migration", "a", [1])]
