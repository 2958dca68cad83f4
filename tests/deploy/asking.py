"""What the backends' APIs say of migrations."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from typing import Any

from tests.deploy.backends import Backend, get_json
from tests.service.running import until

FOUND_S = 60.0
"""Tempo's search finds a trace when it has cut a block; on a busy machine that may take a while."""


def tempo_search(tempo: Backend, query: str, begin_s: int, end_s: int) -> list[dict[str, Any]]:
    """The traces of a TraceQL query in a range of time."""
    return list(get_json(f"{tempo.http}/api/search", q=query, start=begin_s, end=end_s, limit=50, spss=100).get("traces", []))


def tempo_spans(tempo: Backend, trace_id: str) -> list[dict[str, Any]]:
    """Every span of a trace as Tempo gives it, its ids in hexadecimal digits; none where it does not know the trace."""
    found = get_json(f"{tempo.http}/api/v2/traces/{trace_id}", absent={})
    return [
        {**span, **{key: base64.b64decode(span[key]).hex() for key in ("spanId", "parentSpanId") if key in span}}
        for resource in found.get("trace", {}).get("resourceSpans", ())
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


def jaeger_spans(jaeger: Backend, trace_id: str) -> list[dict[str, Any]]:
    """Every span of a trace as Jaeger gives it by its API of version 3; none where it does not know the trace."""
    found = get_json(f"{jaeger.http}/api/v3/traces/{trace_id}", absent={}).get("result", {}).get("resourceSpans", ())
    return [span for resource in found for scope in resource["scopeSpans"] for span in scope.get("spans", ())]


def jaeger_resources(jaeger: Backend, trace_id: str) -> dict[str, dict[str, str]]:
    """The text attributes of the resource that each span of a trace has in Jaeger, by the span's id."""
    found = get_json(f"{jaeger.http}/api/v3/traces/{trace_id}", absent={}).get("result", {}).get("resourceSpans", ())
    return {
        span["spanId"]: {a["key"]: str(a["value"].get("stringValue", "")) for a in resource["resource"]["attributes"]}
        for resource in found
        for scope in resource["scopeSpans"]
        for span in scope.get("spans", ())
    }


def attribute(span: dict[str, Any], key: str) -> str:
    """A text attribute of a span, empty where it has none of that name."""
    return next((str(a["value"]["stringValue"]) for a in span["attributes"] if a["key"] == key), "")


def length_ms(span: dict[str, Any]) -> float:
    """How long a span took."""
    return (int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"])) / 1e6


def prometheus_at(prometheus: Backend, query: str, time_s: float) -> list[dict[str, Any]]:
    """The series of a query at a moment."""
    return list(get_json(f"{prometheus.http}/api/v1/query", query=query, time=time_s)["data"]["result"])


def prometheus_range(prometheus: Backend, query: str, begin_s: int, end_s: int, step_s: int) -> list[dict[str, Any]]:
    """The series of a query over a range of time."""
    found = get_json(f"{prometheus.http}/api/v1/query_range", query=query, start=begin_s, end=end_s, step=step_s)
    return list(found["data"]["result"])


def prometheus_exemplars(prometheus: Backend, query: str, begin_s: int, end_s: int) -> Iterator[dict[str, Any]]:
    """The exemplars of a query's series in a range of time."""
    found = get_json(f"{prometheus.http}/api/v1/query_exemplars", query=query, start=begin_s, end=end_s)
    return (exemplar for series in found["data"] for exemplar in series["exemplars"])


def searched(tempo: Backend, query: str, begin_s: int, end_s: int) -> list[dict[str, Any]]:
    """The traces of a TraceQL query, as soon as there are any."""
    return list(until(lambda: tempo_search(tempo, query, begin_s, end_s), FOUND_S, 0.5))


def now_s() -> int:
    """The moment, for backends that want a range of time to look in."""
    return int(time.time())
