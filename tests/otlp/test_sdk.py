"""Stock exporters of the SDK as destinations: what they get, and what is made of their answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelbridge.errors import UsageError
from otelbridge.otlp import encode
from otelbridge.otlp.sdk import SdkSink, metrics_data, readable_span
from otelbridge.records import (
    CLIENT,
    CONSUMER,
    ERROR,
    INTERNAL,
    PRODUCER,
    SECOND_NS,
    SERVER,
    Exemplar,
    FinishedSpan,
    Histogram,
    Link,
    Metric,
    MetricPoint,
    Outcome,
    Resource,
    Scope,
    SpanEvent,
)
from tests.receiver import Answer, Receiver

START_NS = 1_700_000_000_123_456_789
HUGE = 0xFFFF888000000000
SCOPE = Scope("qemu.migration.savevm", "0.1.0")
QEMU = Resource(
    (("service.name", "qemu"), ("process.pid", 4711), ("qemu.base", HUGE)), "https://opentelemetry.io/schemas/1.37.0"
)
TRACE_ID, SPAN_ID, PARENT_ID = bytes(range(1, 17)), b"spanspan", b"parentid"

ROOT = FinishedSpan(TRACE_ID, PARENT_ID, b"", SCOPE, "migration", CLIENT, START_NS, START_NS + 40 * SECOND_NS, ())
CHILD = FinishedSpan(
    trace_id=TRACE_ID,
    span_id=SPAN_ID,
    parent_id=PARENT_ID,
    scope=SCOPE,
    name="savevm.section",
    kind=INTERNAL,
    start_ns=START_NS + 1,
    end_ns=START_NS + 250_001,
    attributes=(("text", "ram"), ("number", -3), ("huge", HUGE), ("real", 0.5), ("flag", True)),
    events=(SpanEvent(START_NS + 5, "savevm_send_ping", (("host", HUGE),)), SpanEvent(START_NS + 6, "cancel")),
    links=(Link(bytes(range(16, 32)), b"otherone", (("side", "source"),)),),
    status=ERROR,
    message="section returned -5",
    dropped_events=7,
    dropped_attributes=2,
)

BYTES = Metric("qemu.migration.transferred", "sum", "By", "Bytes sent", SCOPE, monotonic=True)
ACTIVE = Metric("qemu.migration.active", "sum", "{migration}", "Migrations under way", SCOPE)
REMAINING = Metric("qemu.migration.remaining", "gauge", "By", "Bytes left", SCOPE)
DURATION = Metric("qemu.migration.section.duration", "histogram", "s", "Time of a section", Scope("other", "1"))
SECTIONS = Histogram(count=7, sum=12.5, min=0.0, max=8.0, scale=-1, zero_count=1, offset=-2, buckets=(1, 0, 5))


def point(metric: Metric, value: float | Histogram, seconds: int = 1, side: str = "source") -> MetricPoint:
    return MetricPoint(metric, (("side", side),), START_NS, START_NS + seconds * SECOND_NS, value)


EXPORTERS = """
from opentelemetry.sdk.metrics import Counter
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricExporter, MetricExportResult
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

calls = []
result = "SUCCESS"

class Spans(SpanExporter):
    def export(self, spans):
        calls.append(spans)
        if result == "raise":
            raise RuntimeError("the token has expired")
        return SpanExportResult[result]

    def shutdown(self):
        calls.append("spans shut down")

class Metrics(MetricExporter):
    def export(self, metrics_data, timeout_millis=10_000, **kwargs):
        calls.append(metrics_data)
        if result == "raise":
            raise RuntimeError("the token has expired")
        return MetricExportResult[result]

    def force_flush(self, timeout_millis=10_000):
        return result != "FAILURE"

    def shutdown(self, timeout_millis=30_000, **kwargs):
        calls.append("metrics shut down")

def delta():
    return Metrics(preferred_temporality={Counter: AggregationTemporality.DELTA})

def broken():
    raise ValueError("EXAMPLE_TOKEN is not set")
"""

ENTRY_POINTS = """
[opentelemetry_traces_exporter]
recorder = recording_exporters:Spans
only_spans = recording_exporters:Spans
broken = recording_exporters:broken
missing = no_such_module_anywhere:Spans

[opentelemetry_metrics_exporter]
recorder = recording_exporters:Metrics
delta = recording_exporters:delta
"""


@pytest.fixture
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A distribution with exporters that remember what they got, as pip would have installed it."""
    (tmp_path / "recording_exporters.py").write_text(EXPORTERS)
    info = tmp_path / "recording_exporters-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: recording-exporters\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    import recording_exporters  # type: ignore[import-not-found]  # noqa: PLC0415

    yield recording_exporters
    del sys.modules["recording_exporters"]


def exported(recorder: Any) -> list[Any]:
    """The batches, without the calls that shut the exporters down."""
    return [call for call in recorder.calls if not isinstance(call, str)]


def sink(name: str) -> SdkSink:
    return SdkSink(name, dict(os.environ))


def test_a_span_says_to_the_sdk_what_our_own_encoder_says_to_otlp() -> None:
    """The stock encoder's reading of a ReadableSpan is the outside truth; it alone writes flags and empty statuses."""
    spans = [ROOT, CHILD, *(CHILD._replace(kind=kind) for kind in (SERVER, CLIENT, PRODUCER, CONSUMER))]
    theirs = encode_spans([readable_span(QEMU, span) for span in spans])
    for span in theirs.resource_spans[0].scope_spans[0].spans:
        span.flags = 0
        if not span.status.code:
            span.ClearField("status")
        for link in span.links:
            link.flags = 0
    assert theirs == ExportTraceServiceRequest.FromString(encode.encode_spans(QEMU, spans))


def test_points_say_to_the_sdk_what_our_own_encoder_says_to_otlp() -> None:
    exemplar = Exemplar(START_NS + 9, 8.0, TRACE_ID, SPAN_ID)
    points = [
        point(BYTES, 123),
        point(BYTES, 124, side="destination"),
        point(ACTIVE, -1),
        point(REMAINING, 0.25)._replace(start_ns=0),
        point(DURATION, SECTIONS)._replace(exemplars=(exemplar,)),
    ]
    theirs = encode_metrics(metrics_data([(QEMU, p) for p in points]))
    ours = ExportMetricsServiceRequest.FromString(encode.encode_points(QEMU, points))
    # The stock encoder always writes the negative buckets, empty as they are.
    theirs.resource_metrics[0].scope_metrics[1].metrics[0].exponential_histogram.data_points[0].ClearField("negative")
    assert theirs == ours


def test_integers_beyond_64_bits_are_not_lost(recorder: Any) -> None:
    target = sink("recorder")
    target.spans(QEMU, [CHILD])
    target.points(QEMU, [point(BYTES, 2**64), point(REMAINING, 10**400)])
    target.close()
    (span,), data = exported(recorder)
    # The SDK drops values that are no attributes; both the span's and the event's must be there.
    assert span.attributes["huge"] == span.events[0].attributes["host"] == span.resource.attributes["qemu.base"] == str(HUGE)
    values = [m.data.data_points[0].value for m in data.resource_metrics[0].scope_metrics[0].metrics]
    assert values == [float(2**64), float("inf")]


def test_spans_go_in_batches_of_at_most_512_and_all_are_counted(recorder: Any) -> None:
    target = sink("recorder")
    target.spans(QEMU, [CHILD] * 1000)
    assert [len(batch) for batch in recorder.calls] == [512]
    target.spans(QEMU, [CHILD] * 100)
    outcome = target.close()["traces"]
    assert outcome == Outcome(delivered=1100)
    assert [len(batch) for batch in exported(recorder)] == [512, 512, 76]
    assert recorder.calls[-2:] == ["spans shut down", "metrics shut down"]


def test_a_batch_of_points_never_holds_two_points_of_one_series_nor_old_and_new_ones(recorder: Any) -> None:
    target = sink("recorder")
    target.points(QEMU, [point(BYTES, 1), point(REMAINING, 9), point(BYTES, 2, 2), point(REMAINING, 8, 200)])
    assert target.close()["metrics"] == Outcome(delivered=4)
    seen = [
        [(m.name, p.value) for m in data.resource_metrics[0].scope_metrics[0].metrics for p in m.data.data_points]
        for data in exported(recorder)
    ]
    assert seen == [[(BYTES.name, 1), (REMAINING.name, 9)], [(BYTES.name, 2)], [(REMAINING.name, 8)]]


def test_points_go_in_batches_of_at_most_512(recorder: Any) -> None:
    target = sink("recorder")
    target.points(QEMU, [point(BYTES, n, side=str(n)) for n in range(600)])
    assert target.close()["metrics"].delivered == 600
    batches = [data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points for data in exported(recorder)]
    assert [len(points) for points in batches] == [512, 88]


def test_resources_and_scopes_stay_apart(recorder: Any) -> None:
    other = Resource((("service.name", "qemu"), ("process.pid", 1)))
    target = sink("recorder")
    target.spans(QEMU, [ROOT])
    target.spans(other, [ROOT])
    target.points(QEMU, [point(BYTES, 1), point(DURATION, SECTIONS)])
    target.points(other, [point(BYTES, 2)])
    target.close()
    spans, data = exported(recorder)
    assert [span.resource.attributes["process.pid"] for span in spans] == [4711, 1]
    assert [span.resource.schema_url for span in spans] == [QEMU.schema_url, ""]
    shape = [
        (r.resource.attributes["process.pid"], s.scope.name, [m.name for m in s.metrics])
        for r in data.resource_metrics
        for s in r.scope_metrics
    ]
    assert shape == [(4711, SCOPE.name, [BYTES.name]), (4711, "other", [DURATION.name]), (1, SCOPE.name, [BYTES.name])]


def test_failure_counts_the_batch_as_rejected_and_names_the_exporter(recorder: Any) -> None:
    target = sink("recorder")
    target.spans(QEMU, [CHILD] * 512)
    recorder.result = "FAILURE"
    target.spans(QEMU, [CHILD] * 3)
    target.points(QEMU, [point(BYTES, 1)])
    outcomes = target.close()
    assert (outcomes["traces"].delivered, outcomes["traces"].rejected) == (512, 3)
    assert outcomes["metrics"].rejected == 1
    (why,) = outcomes["traces"].reasons
    assert why.startswith("sdk:recorder (Spans): the exporter returned FAILURE")
    assert why.endswith("(3 spans)")
    assert any("force_flush did not finish" in why for why in outcomes["metrics"].reasons)


def test_an_exception_counts_the_batch_as_rejected_with_its_words(recorder: Any) -> None:
    recorder.result = "raise"
    target = sink("recorder")
    target.spans(QEMU, [CHILD])
    target.points(QEMU, [point(BYTES, 1)])
    outcomes = target.close()
    assert outcomes["traces"] == Outcome(
        rejected=1, reasons=("sdk:recorder (Spans): the exporter failed: RuntimeError: the token has expired (1 span)",)
    )
    assert outcomes["metrics"].rejected == 1
    assert "spans shut down" in recorder.calls


@pytest.mark.usefixtures("recorder")
def test_what_no_exporter_of_that_name_takes_is_rejected_and_said() -> None:
    target = sink("only_spans")
    target.spans(QEMU, [CHILD])
    target.points(QEMU, [point(BYTES, 1), point(REMAINING, 1)])
    outcomes = target.close()
    assert outcomes["traces"] == Outcome(delivered=1)
    assert outcomes["metrics"] == Outcome(
        rejected=2, reasons=("sdk:only_spans: there is no exporter of this name for metrics (2 data points)",)
    )


@pytest.mark.usefixtures("recorder")
def test_an_exporter_that_prefers_delta_is_told_about() -> None:
    target = sink("delta")
    target.points(QEMU, [point(BYTES, 1)])
    outcome = target.close()["metrics"]
    assert outcome.delivered == 1
    assert outcome.reasons == ("sdk:delta (Metrics): prefers delta temporality; otelbridge sends cumulative points only",)
    assert sink("delta").close()["metrics"] == Outcome()


@pytest.mark.usefixtures("recorder")
def test_an_unknown_name_lists_what_is_installed() -> None:
    with pytest.raises(UsageError) as raised:
        sink("zipkin")
    said = str(raised.value)
    assert said.startswith("sdk:zipkin: no exporter called `zipkin` is installed. Installed are: ")
    assert "console (traces and metrics)" in said
    assert "only_spans (traces)" in said
    assert "delta (metrics)" in said


@pytest.mark.usefixtures("recorder")
@pytest.mark.parametrize(
    ("name", "words"), [("broken", "ValueError: EXAMPLE_TOKEN is not set"), ("missing", "no_such_module_anywhere")]
)
def test_an_exporter_that_cannot_be_made_is_a_usage_error(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=rf"sdk:{name}: the exporter .* cannot be made: .*{words}"):
        sink(name)


@pytest.mark.parametrize("name", ["otlp_proto_http", "otlp_proto_grpc"])
def test_the_real_otlp_exporter_delivers_everything(name: str) -> None:
    with Receiver() as receiver:
        url = receiver.http_url if name.endswith("http") else receiver.grpc_url.replace("grpc://", "http://")
        before = dict(os.environ)
        target = SdkSink(name, {**before, "OTEL_EXPORTER_OTLP_ENDPOINT": url})
        assert dict(os.environ) == before
        target.spans(QEMU, [ROOT, CHILD])
        target.points(QEMU, [point(BYTES, 1), point(DURATION, SECTIONS)])
        outcomes = target.close()
        assert outcomes == {"traces": Outcome(delivered=2), "metrics": Outcome(delivered=2)}
        assert [(span.name, span.start_time_unix_nano) for span in receiver.spans()] == [
            ("migration", START_NS),
            ("savevm.section", START_NS + 1),
        ]
        assert [p.metric.name for p in receiver.points()] == [BYTES.name, DURATION.name]
        assert receiver.faults == []


def test_a_server_kind_survives() -> None:
    assert (
        encode_spans([readable_span(QEMU, ROOT._replace(kind=SERVER))]).resource_spans[0].scope_spans[0].spans[0].kind == SERVER
    )


def test_the_real_otlp_exporter_that_is_refused_counts_as_rejected() -> None:
    with Receiver() as receiver:
        receiver.script("traces", [Answer(status=400)])
        target = SdkSink("otlp_proto_http", {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.http_url})
        target.spans(QEMU, [ROOT])
        outcome = target.close()["traces"]
    assert (outcome.delivered, outcome.rejected) == (0, 1)
    assert outcome.reasons[0].startswith("sdk:otlp_proto_http (OTLPSpanExporter): the exporter returned FAILURE")


def test_the_real_console_exporter_prints_spans_and_points() -> None:
    """In a process of its own, since the exporter binds the standard output that it finds when it is imported."""
    program = """
import os
from tests.otlp.test_sdk import BYTES, CHILD, DURATION, QEMU, SECTIONS, point
from otelbridge.otlp.sdk import SdkSink
sink = SdkSink("console", dict(os.environ))
sink.spans(QEMU, [CHILD])
sink.points(QEMU, [point(BYTES, 5), point(DURATION, SECTIONS)])
assert [o.delivered for o in sink.close().values()] == [1, 2]
"""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")
    span, end = json.JSONDecoder().raw_decode(ran.stdout)
    assert span["name"] == "savevm.section"
    assert span["context"]["trace_id"] == f"0x{TRACE_ID.hex()}"
    assert span["parent_id"] == f"0x{PARENT_ID.hex()}"
    assert span["start_time"] == "2023-11-14T22:13:20.123457Z"
    assert span["status"] == {"status_code": "ERROR", "description": "section returned -5"}
    assert span["attributes"]["huge"] == str(HUGE)
    metrics = json.loads(ran.stdout[end:])["resource_metrics"][0]["scope_metrics"]
    assert [m["metrics"][0]["name"] for m in metrics] == [BYTES.name, DURATION.name]
    assert metrics[1]["metrics"][0]["data"]["data_points"][0]["positive"] == {"offset": -2, "bucket_counts": [1, 0, 5]}
