"""Requests: their bounds, that nothing is lost or doubled between them, and halving."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelbridge.errors import SpoolError
from otelbridge.otlp.encode import encode_points, encode_spans
from otelbridge.otlp.json_lines import request_line
from otelbridge.otlp.requests import RequestBuilder, split
from otelbridge.records import FinishedSpan, Metric, MetricPoint, Request, Resource, Scope

SECOND = 1_000_000_000
MIB = 1_048_576
SCOPES = Scope("qemu/migration", "0.1.0"), Scope("qemu/savevm", "0.1.0")
SOURCE, DESTINATION = Resource((("host.name", "src"),)), Resource((("host.name", "dst"),))
PAGES = Metric("qemu.migration.pages", "sum", "{page}", "", SCOPES[0], monotonic=True)
REMAINING = Metric("qemu.migration.remaining", "gauge", "By", "", SCOPES[0])
THROUGHPUT = Metric("qemu.migration.throughput", "gauge", "By/s", "", SCOPES[1])


def span(number: int, *, size: int = 0, scope: int = 0) -> FinishedSpan:
    attributes = (("text", "x" * size),) if size else ()
    return FinishedSpan(bytes(16), number.to_bytes(8, "big"), b"", SCOPES[scope], "migration", 1, 1, 2, attributes)


def point(time_ns: int, value: int = 0, metric: Metric = PAGES, *, size: int = 0) -> MetricPoint:
    return MetricPoint(metric, (("text", "x" * size),) if size else (), 1, time_ns, value)


def span_numbers(request: Request) -> list[int]:
    message = ExportTraceServiceRequest.FromString(request.body)
    (resource,) = message.resource_spans
    return [int.from_bytes(s.span_id, "big") for scope in resource.scope_spans for s in scope.spans]


def points_of(request: Request) -> list[tuple[str, int, int]]:
    message = ExportMetricsServiceRequest.FromString(request.body)
    (resource,) = message.resource_metrics
    return [
        (metric.name, data_point.time_unix_nano, data_point.as_int)
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for data_point in (metric.sum if metric.HasField("sum") else metric.gauge).data_points
    ]


def built(spans: Sequence[FinishedSpan] = (), points: Sequence[MetricPoint] = (), step: int = 100) -> list[Request]:
    builder = RequestBuilder()
    requests = []
    for begin in range(0, len(spans), step):
        requests += builder.add_spans(SOURCE, spans[begin : begin + step])
    for begin in range(0, len(points), step):
        requests += builder.add_points(SOURCE, points[begin : begin + step])
    return requests + builder.flush()


# --- bounds -------------------------------------------------------------------------------------------


def test_a_request_has_at_most_2048_spans() -> None:
    requests = built([span(n) for n in range(5000)])
    assert [request.items for request in requests] == [2048, 2048, 904]
    assert list(itertools.chain(*map(span_numbers, requests))) == list(range(5000))


def test_what_fits_into_one_request_is_the_bytes_of_the_encoder() -> None:
    spans, points = [span(n, scope=n % 2) for n in range(10)], [point(n, n, REMAINING) for n in range(1, 10)]
    assert built(spans, points, step=3) == [
        Request("traces", encode_spans(SOURCE, spans), 10),
        Request("metrics", encode_points(SOURCE, points), 9),
    ]


def test_a_request_has_at_most_one_mebibyte_and_is_nearly_full() -> None:
    requests = built([span(n, size=1000) for n in range(3000)])
    assert all(MIB - 2000 < len(request.body) <= MIB for request in requests[:-1])
    assert sum(request.items for request in requests) == 3000


def test_an_item_larger_than_a_mebibyte_goes_alone() -> None:
    requests = built([span(0), span(1, size=2 * MIB), span(2)])
    assert [span_numbers(request) for request in requests] == [[0], [1], [2]]
    requests = built(points=[point(1), point(2, 7, size=2 * MIB), point(3)])
    assert [points_of(request) for request in requests] == [
        [(PAGES.name, 1, 0)],
        [(PAGES.name, 2, 7)],
        [(PAGES.name, 3, 0)],
    ]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 100, 30_000, 400_000, 1_100_000]), st.integers(0, 1)), max_size=25),
    st.integers(1, 9),
)
def test_no_size_of_spans_breaks_the_bounds(sizes: list[tuple[int, int]], step: int) -> None:
    requests = built([span(n, size=size, scope=scope) for n, (size, scope) in enumerate(sizes)], step=step)
    assert sorted(itertools.chain(*map(span_numbers, requests))) == list(range(len(sizes)))
    assert all(len(request.body) <= MIB or request.items == 1 for request in requests)
    assert all(request.items == len(span_numbers(request)) > 0 for request in requests)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 400), st.sampled_from([PAGES, REMAINING, THROUGHPUT]), st.sampled_from([0, 300_000])),
        max_size=40,
    ),
    st.integers(1, 9),
)
def test_points_of_a_request_lie_within_60_s_and_in_the_order_of_time(parts: list[tuple[int, Metric, int]], step: int) -> None:
    points = [point(second * SECOND, n, metric, size=size) for n, (second, metric, size) in enumerate(parts)]
    requests = built(points=points, step=step)
    for request in requests:
        found = points_of(request)
        times = [time_ns for _, time_ns, _ in found]
        assert max(times) - min(times) <= 60 * SECOND
        assert len(request.body) <= MIB
        assert request.items == len(found)
    assert sorted(value for request in requests for _, _, value in points_of(request)) == list(range(len(parts)))


def test_a_series_given_as_a_whole_shares_requests_with_the_others_of_its_minute() -> None:
    """Series by series or second by second: the requests are cut by time."""
    points = [point(second * SECOND, second, metric) for metric in (PAGES, REMAINING) for second in range(1, 180)]
    requests = built(points=points, step=1000)
    assert len(requests) == 3
    for request in requests:
        for _, series in itertools.groupby(points_of(request), key=lambda found: found[0]):
            times = [time_ns for _, time_ns, _ in series]
            assert times == sorted(times)
            assert len(times) > 50


# --- resources ----------------------------------------------------------------------------------------


def test_two_resources_in_turn_share_no_request_and_do_not_cut_each_other_short() -> None:
    builder = RequestBuilder()
    for n in range(100):
        assert builder.add_spans((SOURCE, DESTINATION)[n % 2], [span(n)]) == []
    source, destination = builder.flush()
    assert span_numbers(source) == list(range(0, 100, 2))
    assert span_numbers(destination) == list(range(1, 100, 2))


def test_many_resources_do_not_gather_without_end() -> None:
    builder = RequestBuilder()
    early: list[Request] = []
    for n in range(100):
        early += builder.add_spans(Resource((("process.pid", n),)), [span(n)])
    late = builder.flush()
    assert len(late) < 20
    assert [span_numbers(request) for request in early + late] == [[n] for n in range(100)]


def test_nothing_given_nothing_made() -> None:
    builder = RequestBuilder()
    assert builder.add_spans(SOURCE, []) + builder.add_points(SOURCE, []) + builder.flush() == []


def test_a_builder_goes_on_after_a_flush() -> None:
    builder = RequestBuilder()
    builder.add_spans(SOURCE, [span(1)])
    first = builder.flush()
    builder.add_spans(SOURCE, [span(2)])
    assert [span_numbers(request) for request in first + builder.flush()] == [[1], [2]]


# --- halving ------------------------------------------------------------------------------------------


def fully_split(request: Request) -> Iterable[Request]:
    halves = split(request)
    return [request] if halves is None else itertools.chain(*map(fully_split, halves))


@pytest.mark.parametrize("count", [2, 3, 7])
def test_halves_hold_all_spans_in_their_order(count: int) -> None:
    spans = [span(n, scope=n * 2 // count) for n in range(count)]
    request = Request("traces", encode_spans(SOURCE, spans), count)
    halves = split(request)
    assert halves is not None
    middle = (count + 1) // 2
    assert halves[0] == Request("traces", encode_spans(SOURCE, spans[:middle]), middle)
    assert halves[1] == Request("traces", encode_spans(SOURCE, spans[middle:]), count - middle)
    assert [span_numbers(one) for one in fully_split(request)] == [[n] for n in range(count)]


def test_halves_hold_all_points_and_no_empty_metric() -> None:
    points = [point(n + 1, n, metric) for metric in (PAGES, REMAINING, THROUGHPUT) for n in range(2)]
    request = Request("metrics", encode_points(SOURCE, points), 6)
    halves = split(request)
    assert halves == (
        Request("metrics", encode_points(SOURCE, points[:3]), 3),
        Request("metrics", encode_points(SOURCE, points[3:]), 3),
    )
    assert list(fully_split(request)) == [Request("metrics", encode_points(SOURCE, [one]), 1) for one in points]


def test_one_item_cannot_be_halved() -> None:
    assert split(Request("traces", encode_spans(SOURCE, [span(1)]), 1)) is None


@pytest.mark.parametrize("act", [split, request_line])
def test_damaged_bytes_are_a_problem_of_the_spool(act: Any) -> None:
    body = encode_spans(SOURCE, [span(1), span(2)])
    with pytest.raises(SpoolError, match=r"traces, \d+ bytes and 2 items, is not OTLP protobuf"):
        act(Request("traces", body[:-3], 2))


def together(added: Sequence[tuple[Resource, Sequence[MetricPoint]]]) -> list[Request]:
    builder = RequestBuilder(max_drafts=100)
    for resource, points in added:
        assert builder.add_points(resource, points) == []
    return builder.flush_together()


def test_resources_share_requests_within_the_bounds() -> None:
    hosts = [Resource((("host.name", str(n)),)) for n in range(40)]
    requests = together([(host, [point(n * 10 * SECOND, n)]) for n, host in enumerate(hosts)])
    messages = [ExportMetricsServiceRequest.FromString(request.body) for request in requests]
    # 0 s to 60 s, 70 s to 130 s, ...
    assert [len(message.resource_metrics) for message in messages] == [7, 7, 7, 7, 7, 5]
    assert [request.items for request in requests] == [7, 7, 7, 7, 7, 5]
    found = [r.resource.attributes[0].value.string_value for message in messages for r in message.resource_metrics]
    assert found == [str(n) for n in range(40)]


def test_requests_of_several_resources_stay_within_bytes_and_items() -> None:
    hosts = [Resource((("host.name", str(n)),)) for n in range(8)]
    large = together([(host, [point(1, size=MIB // 3)]) for host in hosts])
    assert [request.items for request in large] == [2, 2, 2, 2]
    assert all(len(request.body) <= MIB for request in large)
    many = together([(host, [point(time) for time in range(1, 1001)]) for host in hosts])
    assert [request.items for request in many] == [2000] * 4
