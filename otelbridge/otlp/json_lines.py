"""Spans and points as OTLP/JSON: what `otelbridge.otlp.encode` writes, one request a line, pure ASCII.

Ids are hexadecimal, 64-bit integers are strings, enums are integers, keys are lowerCamelCase. As in protobuf, numbers that
are 0 and strings that are empty are left out.

Source: opentelemetry-proto, docs/specification.md, JSON Protobuf Encoding; protobuf.dev, ProtoJSON.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, MutableSequence, Sequence
from itertools import groupby
from json.encoder import encode_basestring_ascii
from operator import attrgetter
from typing import Any

from otelbridge.otlp.encode import CACHE_ENTRIES, INT64_MAX, UINT32_MAX, UINT64_MAX, plain_number, plain_value, well_formed
from otelbridge.otlp.requests import parse
from otelbridge.records import (
    ERROR,
    Attributes,
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
    Value,
)

CACHED_TEXT_CHARACTERS = 256
_MAX_KNOWN = 1024
_MAX_KNOWN_CHARACTERS = 1024
_QUOTED_COMMA = '","'

# FieldDescriptor.CPPTYPE_INT64 and CPPTYPE_UINT64, without the import.
_64_BITS = (2, 4)

# --- lines --------------------------------------------------------------------------------------------


def spans_line(resource: Resource, spans: Iterable[FinishedSpan]) -> str:
    """An ExportTraceServiceRequest, without a line's end; scopes stand in the order in which they first appear."""
    groups: dict[Scope, list[str]] = {}
    for scope, run in groupby(spans, attrgetter("scope")):
        groups.setdefault(scope, []).extend(map(span_text, run))
    return assemble_spans(resource, groups)


def points_line(resource: Resource, points: Iterable[MetricPoint]) -> str:
    """An ExportMetricsServiceRequest, without a line's end; metrics stand in the order in which they first appear."""
    groups: dict[Metric, list[str]] = {}
    for metric, run in groupby(points, attrgetter("metric")):
        groups.setdefault(metric, []).extend(map(point_text, run))
    return assemble_points(resource, groups)


def request_line(request: Request) -> str:
    """The line of a request that is kept as protobuf bytes.

    Raises:
        SpoolError: The bytes are no request of that signal.
    """
    return _message_text(parse(request))


# --- spans --------------------------------------------------------------------------------------------


def span_text(span: FinishedSpan) -> str:
    """The span as one object of ScopeSpans.spans."""
    (
        trace_id, span_id, parent_id, _, name, kind, start_ns, end_ns, attributes, events, links, status, _, dropped, others,
    ) = span  # fmt: skip
    if events or links or status or dropped or others or not attributes or not 0 < start_ns <= end_ns <= UINT64_MAX:
        return any_span_text(span)
    parent = f',"parentSpanId":"{parent_id.hex()}"' if parent_id else ""
    head = _heads.get((name, kind)) or _remember_head(name, kind)
    return (
        f'{{"traceId":"{trace_id.hex()}","spanId":"{span_id.hex()}"{parent}{head},"startTimeUnixNano":"{start_ns}",'
        f'"endTimeUnixNano":"{end_ns}"{_known_attributes(attributes)}}}'
    )


def any_span_text(span: FinishedSpan) -> str:
    """The same without a short way for what most spans are."""
    parent = f',"parentSpanId":"{span.parent_id.hex()}"' if span.parent_id else ""
    return "".join(
        (
            f'{{"traceId":"{span.trace_id.hex()}","spanId":"{span.span_id.hex()}"{parent}',
            _head(span.name, span.kind),
            _time("startTimeUnixNano", span.start_ns),
            _time("endTimeUnixNano", span.end_ns),
            _attributes("attributes", span.attributes),
            _count("droppedAttributesCount", span.dropped_attributes),
            _list("events", map(_event, span.events)) if span.events else "",
            _count("droppedEventsCount", span.dropped_events),
            _list("links", map(_link, span.links)) if span.links else "",
            _member("status", _object(_string("message", span.message), ',"code":2')) if span.status == ERROR else "",
            "}",
        )
    )


def _head(name: str, kind: int) -> str:
    return _string("name", name) + (f',"kind":{kind}' if kind else "")


_heads: dict[tuple[str, int], str] = {}


def _remember_head(name: str, kind: int) -> str:
    if len(_heads) >= CACHE_ENTRIES:
        _heads.clear()
    head = _heads[name, kind] = _head(name, kind)
    return head


def _event(event: SpanEvent) -> str:
    return _object(
        _time("timeUnixNano", event.time_ns), _string("name", event.name), _attributes("attributes", event.attributes)
    )


def _link(link: Link) -> str:
    ids = f',"traceId":"{link.trace_id.hex()}","spanId":"{link.span_id.hex()}"'
    return _object(ids, _attributes("attributes", link.attributes))


# --- points -------------------------------------------------------------------------------------------


def point_text(point: MetricPoint) -> str:
    """The point as one object of dataPoints."""
    _, attributes, start_ns, time_ns, value, exemplars = point
    if not 0 < start_ns <= time_ns <= UINT64_MAX:
        return any_point_text(point)
    times = f'"startTimeUnixNano":"{start_ns}","timeUnixNano":"{time_ns}"'
    known = _known_attributes(attributes) if attributes else ""
    if type(value) is int and -INT64_MAX <= value <= INT64_MAX and not exemplars:
        return f'{{{times},"asInt":"{value}"{known}}}'
    if type(value) is Histogram and value.count:
        shown = _list("exemplars", map(_exemplar, exemplars)) if exemplars else ""
        first = f"{known[1:]}," if known else ""
        return f'{{{first}{times}{_histogram(value)}{shown},"min":{_double(value.min)},"max":{_double(value.max)}}}'
    return any_point_text(point)


def any_point_text(point: MetricPoint) -> str:
    """The same without a short way for what most points are."""
    times = _time("startTimeUnixNano", point.start_ns) + _time("timeUnixNano", point.time_ns)
    exemplars = _list("exemplars", map(_exemplar, point.exemplars)) if point.exemplars else ""
    attributes = _attributes("attributes", point.attributes)
    if isinstance(point.value, Histogram):
        low, high = _member("min", _double(point.value.min)), _member("max", _double(point.value.max))
        return _object(attributes, times, _histogram(point.value), exemplars, low, high)
    value = plain_number(point.value)
    if isinstance(value, float):
        return _object(times, _member("asDouble", _double(value)), exemplars, attributes)
    return _object(times, exemplars, f',"asInt":"{value}"', attributes)


def _histogram(value: Histogram) -> str:
    buckets = f',"bucketCounts":["{_QUOTED_COMMA.join(map(str, value.buckets))}"]' if value.buckets else ""
    count, zero_count = _time("count", value.count), _time("zeroCount", value.zero_count) if value.zero_count else ""
    positive = f"{_count('offset', value.offset)}{buckets}"[1:]
    return f'{count},"sum":{_double(value.sum)}{_count("scale", value.scale)}{zero_count},"positive":{{{positive}}}'


def _exemplar(exemplar: Exemplar) -> str:
    time_ns, value, trace_id, span_id = exemplar
    ids = f'"asDouble":{_double(value)},"spanId":"{span_id.hex()}","traceId":"{trace_id.hex()}"'
    return f"{{{_time('timeUnixNano', time_ns)[1:]},{ids}}}" if time_ns > 0 else f"{{{ids}}}"


# --- requests -----------------------------------------------------------------------------------------


def assemble_spans(resource: Resource, groups: Mapping[Scope, Sequence[str]]) -> str:
    """An ExportTraceServiceRequest of spans that `span_text` gave."""
    scopes = (_object(_scope(scope), _list("spans", spans)) for scope, spans in groups.items())
    return _request("resourceSpans", resource, _list("scopeSpans", scopes))


def assemble_points(resource: Resource, groups: Mapping[Metric, Sequence[str]]) -> str:
    """An ExportMetricsServiceRequest of points that `point_text` gave."""
    scopes: dict[Scope, list[str]] = {}
    for metric, points in groups.items():
        scopes.setdefault(metric.scope, []).append(_metric(metric, points))
    texts = (_object(_scope(scope), _list("metrics", metrics)) for scope, metrics in scopes.items())
    return _request("resourceMetrics", resource, _list("scopeMetrics", texts))


def _request(key: str, resource: Resource, scopes: str) -> str:
    head = _member("resource", _object(_attributes("attributes", resource.attributes)))
    return _object(_list(key, (_object(head, scopes, _string("schemaUrl", resource.schema_url)),)))


def _scope(scope: Scope) -> str:
    return _member("scope", _object(_string("name", scope.name), _string("version", scope.version)))


def _metric(metric: Metric, points: Iterable[str]) -> str:
    head = _string("name", metric.name) + _string("description", metric.description) + _string("unit", metric.unit)
    data = _list("dataPoints", points)
    if metric.kind == "gauge":
        return _object(head, _member("gauge", _object(data)))
    if metric.kind == "sum":
        monotonic = ',"isMonotonic":true' if metric.monotonic else ""
        return _object(head, _member("sum", _object(data, ',"aggregationTemporality":2', monotonic)))
    return _object(head, _member("exponentialHistogram", _object(data, ',"aggregationTemporality":2')))


# --- members: each begins with a comma, and is empty where proto3 leaves the field out ------------------


def _object(*members: str) -> str:
    return f"{{{''.join(members)[1:]}}}"


def _member(key: str, text: str) -> str:
    return f',"{key}":{text}'


def _list(key: str, texts: Iterable[str]) -> str:
    joined = ",".join(texts)
    return f',"{key}":[{joined}]' if joined else ""


def _string(key: str, text: str) -> str:
    return f',"{key}":{_quoted(text)}' if text else ""


def _time(key: str, number: int) -> str:
    return f',"{key}":"{min(number, UINT64_MAX)}"' if number > 0 else ""


def _count(key: str, number: int) -> str:
    return f',"{key}":{min(number, UINT32_MAX)}' if number else ""


def _quoted(text: str) -> str:
    return encode_basestring_ascii(well_formed(text))


def _double(number: float) -> str:
    number = float(number)
    if -math.inf < number < math.inf:
        return repr(number)
    return '"NaN"' if math.isnan(number) else '"Infinity"' if number > 0 else '"-Infinity"'


# --- attributes ---------------------------------------------------------------------------------------

_attribute_texts: dict[tuple[str, str], str] = {}
_key_texts: dict[str, str] = {}
_known: dict[int, tuple[Attributes, str]] = {}
"""Texts of attributes by their identity: the engine gives the same object where spans tell the same."""


def _attributes(key: str, attributes: Attributes) -> str:
    return _list(key, map(_attribute, attributes)) if attributes else ""


def _known_attributes(attributes: Attributes) -> str:
    known = _known.get(id(attributes))
    if known is not None:
        return known[1]
    text = _attributes("attributes", attributes)
    if len(text) <= _MAX_KNOWN_CHARACTERS:
        if len(_known) >= _MAX_KNOWN:
            _known.clear()
        # With the attributes themselves, so that nothing else can get their identity.
        _known[id(attributes)] = attributes, text
    return text


def _attribute(attribute: tuple[str, Value]) -> str:
    key, value = attribute
    if type(value) is int and -INT64_MAX <= value <= INT64_MAX:
        return f'{_key_texts.get(key) or _remember_key(key)}{{"intValue":"{value}"}}}}'
    if type(value) is not str:
        return _key_value(key, value)
    known = _attribute_texts.get(attribute)  # type: ignore[arg-type]
    return known or _remember(key, value)


def _remember_key(key: str) -> str:
    """The attribute up to its value."""
    if len(_key_texts) >= CACHE_ENTRIES:
        _key_texts.clear()
    text = _key_texts[key] = _object(_string("key", key), ',"value":')[:-1]
    return text


def _remember(key: str, value: str) -> str:
    text = _key_value(key, value)
    if len(text) <= CACHED_TEXT_CHARACTERS:
        if len(_attribute_texts) >= CACHE_ENTRIES:
            _attribute_texts.clear()
        _attribute_texts[key, value] = text
    return text


def _key_value(key: str, value: Value) -> str:
    return _object(_string("key", key), _member("value", _any_value(plain_value(value))))


def _any_value(value: Value) -> str:
    if isinstance(value, str):
        return f'{{"stringValue":{_quoted(value)}}}'
    if isinstance(value, bool):
        return f'{{"boolValue":{"true" if value else "false"}}}'
    if isinstance(value, int):
        return f'{{"intValue":"{value}"}}'
    return f'{{"doubleValue":{_double(value)}}}'


# --- messages of the generated classes ----------------------------------------------------------------


def _message_text(message: Any) -> str:  # noqa: ANN401 - any message
    """The message as OTLP/JSON; protobuf's own JSON has ids in base64 and enums by name."""
    return _object(*(_member(field.json_name, _field_text(field, value)) for field, value in message.ListFields()))


def _field_text(field: Any, value: Any) -> str:  # noqa: ANN401 - no public types
    if isinstance(value, MutableSequence):
        return f"[{','.join(_item_text(field, item) for item in value)}]"
    return _item_text(field, value)


def _item_text(field: Any, value: Any) -> str:  # noqa: ANN401
    if field.message_type is not None:
        return _message_text(value)
    if isinstance(value, bytes):
        return f'"{value.hex()}"'
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _double(value)
    return f'"{value}"' if field.cpp_type in _64_BITS else str(value)
