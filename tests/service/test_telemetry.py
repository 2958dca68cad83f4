"""What the service says of itself, at a real receiver and on the page for Prometheus."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from otelbridge import __version__
from otelbridge.errors import UsageError
from otelbridge.otlp.settings import endpoints
from otelbridge.otlp.telemetry import Telemetry
from otelbridge.records import SECOND_NS
from otelbridge.service.config import DestinationConfig, TelemetryConfig
from otelbridge.service.counters import Counters
from otelbridge.service.telemetry import start_telemetry
from otelbridge.stats import STATS
from tests.receiver import UNAVAILABLE, Answer, Receiver

TORN = "otelbridge.reader.lines_torn"
DELIVERED = "otelbridge.export.spans_delivered"
UNREAD = "otelbridge.reader.data_unread"
OPEN = "otelbridge.engine.spans_open"
LATENCY = "otelbridge.export.latency"
FAILED = "otelbridge.telemetry.exports_failed"
HOUR_NS = 3_600 * SECOND_NS


def start(counters: Counters, to: str | None, *, interval_s: float = 3_600.0, **env: str) -> Telemetry:
    """Only the last export comes, unless an interval is given."""
    destinations = [DestinationConfig("here", endpoints(to or "http://localhost:1", env))]
    config = TelemetryConfig(None if to is None else "here", int(interval_s * SECOND_NS))
    return start_telemetry(config, destinations, counters, host="node-1")


def stop(telemetry: Telemetry) -> None:
    telemetry.shutdown(time.monotonic() + 10)


def wait_for(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def plain(attributes: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in attributes}


def series(receiver: Receiver, name: str) -> list[tuple[dict[str, Any], Any]]:
    """The points of a metric in the order in which they came."""
    return [(plain(p.attributes), p) for metric, p in receiver.points() if metric.name == name]


def samples(page: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What a parser of Prometheus reads: each sample with its labels once."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


def filled(instance: str = "4f2a", since_ns: int | None = None) -> Counters:
    counters = Counters(instance, time.time_ns() - HOUR_NS if since_ns is None else since_ns)
    counters.add(TORN, 3)
    counters.add(DELIVERED, 5, destination="tempo")
    counters.add(DELIVERED, 6, destination="jaeger")
    counters.set(UNREAD, 4_096, input="/var/log/a.log")
    counters.set(OPEN, 7)
    counters.record(LATENCY, 0.02, destination="tempo", signal="traces")
    counters.record(LATENCY, 70.0, destination="tempo", signal="traces")
    return counters


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_every_counter_arrives_as_a_metric(protocol: str) -> None:
    """The receiver checks the requests themselves."""
    counters = filled()
    with Receiver() as receiver:
        stop(start(counters, receiver.http_url if protocol == "http" else receiver.grpc_url))
        ((_, torn),) = series(receiver, TORN)
        assert (torn.as_int, torn.start_time_unix_nano) == (3, counters.since_ns)
        delivered = {tuple(attributes.items()): point.as_int for attributes, point in series(receiver, DELIVERED)}
        assert delivered == {(("destination", "tempo"),): 5, (("destination", "jaeger"),): 6}
        ((attributes, unread),) = series(receiver, UNREAD)
        assert (attributes, unread.as_int) == ({"input": "/var/log/a.log"}, 4_096)
        ((attributes, latency),) = series(receiver, LATENCY)
        assert attributes == {"destination": "tempo", "signal": "traces"}
        assert (latency.count, latency.sum, latency.min, latency.max) == (2, pytest.approx(70.02), 0.02, 70.0)
        assert len(latency.bucket_counts) == len(latency.explicit_bounds) + 1
        assert latency.bucket_counts[-1] == 1
        rows = {stat.name: stat for stat in STATS}
        for metric, _ in receiver.points():
            row = rows[metric.name]
            assert (metric.unit, metric.description, metric.WhichOneof("data")) == (row.unit, row.text, row.kind)
            if row.kind == "sum":
                assert metric.sum.is_monotonic
                assert metric.sum.aggregation_temporality == 2
        told = {metric.name for metric, _ in receiver.points()}
        assert {stat.name for stat in STATS if stat.kind == "sum" and not stat.attributes} <= told


def test_the_resource_says_whose_counters_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment adds to it, and replaces nothing."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=qemu,deployment.environment.name=prod")
    with Receiver() as receiver:
        stop(start(filled(), receiver.http_url))
        (of_resource,) = ExportMetricsServiceRequest.FromString(receiver.requests[0][1]).resource_metrics
    found = plain(of_resource.resource.attributes)
    assert (
        found
        | {
            "service.name": "otelbridge",
            "service.version": __version__,
            "service.instance.id": "4f2a",
            "host.name": "node-1",
            "deployment.environment.name": "prod",
        }
        == found
    )


def test_counters_are_sent_at_every_interval_with_headers_and_compression() -> None:
    counters = filled()
    with Receiver() as receiver:
        env = {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=s3cret", "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}
        telemetry = start(counters, receiver.http_url, interval_s=0.05, **env)
        wait_for(lambda: len(series(receiver, TORN)) >= 2)
        counters.add(TORN)
        wait_for(lambda: series(receiver, TORN)[-1][1].as_int == 4)
        stop(telemetry)
        assert {headers["api-key"] for headers in receiver.headers} == {"s3cret"}
        assert {headers["content-encoding"] for headers in receiver.headers} == {"gzip"}
        values = [point.as_int for _, point in series(receiver, TORN)]
        assert values == sorted(values)


def test_the_last_export_has_what_was_counted_up_to_the_end() -> None:
    counters = filled()
    with Receiver() as receiver:
        telemetry = start(counters, receiver.http_url)
        counters.add(TORN, 10)
        stop(telemetry)
        assert [point.as_int for _, point in series(receiver, TORN)] == [13]


def test_totals_of_a_restarted_service_are_those_of_the_same_series() -> None:
    """The same begin and the same instance: nobody takes it for a reset."""
    counters = filled()
    with Receiver() as receiver:
        stop(start(counters, receiver.http_url))
        again = Counters("other", time.time_ns())
        again.restore(json.loads(json.dumps(counters.snapshot())))
        again.add(TORN)
        stop(start(again, receiver.http_url))
        points = [point for _, point in series(receiver, TORN)]
        assert [point.as_int for point in points] == [3, 4]
        assert {point.start_time_unix_nano for point in points} == {counters.since_ns}
        latencies = [point for _, point in series(receiver, LATENCY)]
        assert [point.count for point in latencies] == [2, 2]
        resources = [ExportMetricsServiceRequest.FromString(body).resource_metrics[0] for _, body in receiver.requests]
        assert resources[0].resource == resources[1].resource


def test_what_the_sdk_counts_of_itself_keeps_its_own_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")
    counters = filled()
    with Receiver() as receiver:
        telemetry = start(counters, receiver.http_url, interval_s=0.05)
        wait_for(lambda: any(not metric.name.startswith("otelbridge.") for metric, _ in receiver.points()))
        stop(telemetry)
        begins = {
            (m.name.startswith("otelbridge."), p.start_time_unix_nano > counters.since_ns)
            for m, p in receiver.points()
            if m.WhichOneof("data") != "gauge"
        }
        assert begins == {(True, False), (False, True)}


def test_a_clock_that_was_set_back_makes_no_begin_after_the_end() -> None:
    with Receiver() as receiver:
        stop(start(filled(since_ns=time.time_ns() + HOUR_NS), receiver.http_url))
        assert receiver.faults == []
        assert len(receiver.requests) == 1


def test_a_destination_that_takes_nothing_is_told_once_and_not_asked_in_between(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    counters = filled()
    with Receiver() as receiver:
        receiver.script("metrics", [UNAVAILABLE] * 3 + [Answer(rejected=2, message="too old")])
        telemetry = start(counters, receiver.http_url, interval_s=0.1)
        wait_for(lambda: len(receiver.requests) >= 2)
        wait_for(lambda: "again" in caplog.text)
        stop(telemetry)
        assert counters.total(FAILED) == 4
        assert series(receiver, FAILED)[-1][1].as_int == 4
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "503" in caplog.messages[0]
    assert "the backend restarts" in caplog.messages[0]


def test_an_export_is_tried_once() -> None:
    counters = filled()
    with Receiver() as receiver:
        receiver.script("metrics", [UNAVAILABLE])
        stop(start(counters, receiver.http_url))
        assert receiver.attempts == ["metrics"]
    assert counters.total(FAILED) == 1


def test_a_destination_that_hangs_does_not_hold_up_the_end() -> None:
    with Receiver() as receiver:
        receiver.script("metrics", [Answer(action="hang")])
        telemetry = start(filled(), receiver.http_url)
        began_s = time.monotonic()
        telemetry.shutdown(began_s + 0.3)
        assert time.monotonic() - began_s < 1.5


def test_a_deadline_that_has_passed_ends_at_once() -> None:
    with Receiver() as receiver:
        telemetry = start(filled(), receiver.http_url)
        began_s = time.monotonic()
        telemetry.shutdown(began_s - 1)
        assert time.monotonic() - began_s < 1


def test_inputs_that_come_and_go_for_months_do_not_fill_anything_up() -> None:
    """An instrument of the SDK would know no new ones after 2,000."""
    counters = filled()
    with Receiver() as receiver:
        telemetry = start(counters, receiver.http_url)
        assert telemetry.page is not None
        counters.forget(input="/var/log/a.log")
        for number in range(2_100):
            counters.set(UNREAD, number, input=f"{number}.log")
            if number % 300 == 0:
                telemetry.page()
            counters.forget(input=f"{number}.log")
        counters.set(UNREAD, 1, input="last.log")
        found = samples(telemetry.page())
        stop(telemetry)
        assert [attributes for attributes, _ in series(receiver, UNREAD)] == [{"input": "last.log"}]
    assert [labels for name, labels in found if name == "otelbridge_reader_data_unread_bytes"] == [(("input", "last.log"),)]


# --- Prometheus -------------------------------------------------------------------------------------


def test_the_page_has_every_counter_under_its_name_in_prometheus() -> None:
    counters = filled()
    counters.set(UNREAD, 1, input='odd "name"\n\\')
    telemetry = start(counters, None)
    assert telemetry.page is not None
    found = samples(telemetry.page())
    assert found["otelbridge_reader_lines_torn_total", ()] == 3
    assert found["otelbridge_reader_data_read_bytes_total", ()] == 0
    assert found["otelbridge_engine_spans_open", ()] == 7
    assert found["otelbridge_export_spans_delivered_total", (("destination", "tempo"),)] == 5
    assert found["otelbridge_reader_data_unread_bytes", (("input", "/var/log/a.log"),)] == 4_096
    assert found["otelbridge_reader_data_unread_bytes", (("input", 'odd "name"\n\\'),)] == 1
    way = (("destination", "tempo"), ("signal", "traces"))
    assert found["otelbridge_export_latency_seconds_count", way] == 2
    assert found["otelbridge_export_latency_seconds_bucket", (way[0], ("le", "0.025"), way[1])] == 1
    assert found["otelbridge_export_latency_seconds_bucket", (way[0], ("le", "+Inf"), way[1])] == 2
    ((_, target),) = (key for key in found if key[0] == "target_info")
    assert {("service_name", "otelbridge"), ("service_instance_id", "4f2a"), ("host_name", "node-1")} <= set(target)
    stop(telemetry)


def test_the_page_is_of_the_moment() -> None:
    counters = filled()
    telemetry = start(counters, None)
    assert telemetry.page is not None
    telemetry.page()
    counters.add(TORN)
    assert samples(telemetry.page())["otelbridge_reader_lines_torn_total", ()] == 4
    stop(telemetry)


def test_scrapes_at_once_and_exports_do_not_mix() -> None:
    counters = filled()
    with Receiver() as receiver, ThreadPoolExecutor(8) as pool:
        telemetry = start(counters, receiver.http_url, interval_s=0.02)
        assert telemetry.page is not None
        pages = [pool.submit(telemetry.page) for _ in range(40)]
        assert {samples(page.result())["otelbridge_reader_lines_torn_total", ()] for page in pages} == {3}
        stop(telemetry)


def test_two_services_in_one_process_have_a_page_each() -> None:
    """A reload starts the new one before the old one has ended."""
    first, second = start(filled(), None), start(Counters("b"), None)
    assert first.page is not None
    assert second.page is not None
    assert samples(first.page())["otelbridge_reader_lines_torn_total", ()] == 3
    assert samples(second.page())["otelbridge_reader_lines_torn_total", ()] == 0
    stop(first)
    stop(second)


def test_without_the_package_for_prometheus_there_is_no_page() -> None:
    code = """if True:
        import sys
        sys.modules["prometheus_client"] = None
        from otelbridge.service.config import TelemetryConfig
        from otelbridge.service.counters import Counters
        from otelbridge.service.telemetry import start_telemetry
        print(start_telemetry(TelemetryConfig(), (), Counters("a"), host="h").page)
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "None\n"


def test_a_destination_that_takes_no_metrics_is_told_in_words() -> None:
    both = DestinationConfig("here", endpoints("http://localhost:1", {}))
    traces = replace(both, name="tempo", endpoints={"traces": both.endpoints["traces"]})
    with pytest.raises(UsageError, match=r"found the destination 'tempo', expected one .* \(here\)"):
        start_telemetry(TelemetryConfig("tempo"), [both, traces], Counters(), host="h")
