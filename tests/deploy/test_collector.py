"""The Collector's configurations that are shipped, run by the real Collector in front of the real backends."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from google.protobuf.message import Message
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelbridge.records import Signal
from tests.deploy.asking import (
    attribute,
    jaeger_spans,
    length_ms,
    prometheus_at,
    prometheus_exemplars,
    searched,
    tempo_spans,
)
from tests.deploy.backends import DEPLOY, Backend, collector, collector_program, free_ports, gateway
from tests.receiver import Receiver
from tests.service.running import (
    OTELBRIDGE,
    Spans,
    bodies,
    convert,
    converted,
    environment,
    points_in,
    running,
    spans_in,
    until,
)

RECORDINGS = Path(__file__).resolve().parents[1] / "recordings"
BUSY = RECORDINGS / "qemu-10.2.0-log" / "precopy-busy"
LOGS = [BUSY / "src.log", BUSY / "dst.log"]
FROM_S, TO_S = 1_795_408_100, 1_795_408_300
"""The recording is of 2026-11-23 04:29 UTC."""
CONFIGS = sorted((DEPLOY / "collector").glob("*.yaml"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_the_real_collector_takes_the_configuration(config: Path) -> None:
    command = [collector_program(), "validate", "--config", config]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_the_real_collector_would_refuse_a_misspelt_option(config: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(config.read_text().replace("sending_queue:", "sending_queues:"))
    command = [collector_program(), "validate", "--config", wrong]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode != 0
    assert "sending_queues" in done.stderr


class Stack(NamedTuple):
    """Everything that a migration's trace went through."""

    tempo: Backend
    jaeger: Backend
    prometheus: Backend
    trace_id: str
    expected: Spans


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """`otelbridge run` follows both hosts' logs and sends to the agent, that to the gateway, and that to all three."""
    folder = tmp_path_factory.mktemp("stack")
    with ExitStack() as on:
        behind = on.enter_context(gateway(folder))
        agent = on.enter_context(
            collector(DEPLOY / "collector" / "agent.yaml", folder / "agent", GATEWAY_ENDPOINT=behind.collector.otlp_grpc)
        )
        logs = folder / "logs"
        logs.mkdir()
        for log in LOGS:
            (logs / log.name).write_bytes(log.read_bytes())
        config = DEPLOY / "compose" / "otelbridge.yaml"
        service = on.enter_context(
            running(
                folder / "bridge", {}, arguments=("--config", str(config)), LOGS_FOLDER=str(logs), HOST_NAME="hv-1",
                STATE_DIRECTORY=str(folder), COLLECTOR_ENDPOINT=agent.otlp_http, HEALTH_ADDRESS="127.0.0.1:0",
            )
        )  # fmt: skip
        expected, _ = converted(LOGS, together=True)
        trace_id = next(iter(expected))[0].hex()
        until(lambda: len(tempo_spans(behind.tempo, trace_id)) >= len(expected), 30.0, 0.5)
        until(lambda: len(jaeger_spans(behind.jaeger, trace_id)) >= len(expected), 30.0, 0.5)
        assert service.stop() == 0
        yield Stack(behind.tempo, behind.jaeger, behind.prometheus, trace_id, expected)


def qmp(figure: str) -> float:
    """What `query-migrate` said on the source when it was over."""
    said: Any = json.loads((BUSY / "truth.json").read_text())["vms"]["src"]["final"]["query-migrate"]
    return float(said[figure])


def both_hosts(spans: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {attribute(span, "qemu.migration.role"): span for span in spans if span["name"] == "migration"}


def test_tempo_and_jaeger_have_both_hosts_in_one_trace(stack: Stack) -> None:
    for spans in (tempo_spans(stack.tempo, stack.trace_id), jaeger_spans(stack.jaeger, stack.trace_id)):
        found = both_hosts(spans)
        assert set(found) == {"source", "destination"}
        assert found["destination"]["parentSpanId"] == found["source"]["spanId"]


def test_tempo_and_jaeger_have_every_span_that_a_conversion_gives_once(stack: Stack) -> None:
    expected = sorted(span.hex() for _, span in stack.expected)
    assert sorted(span["spanId"] for span in tempo_spans(stack.tempo, stack.trace_id)) == expected
    assert sorted(span["spanId"] for span in jaeger_spans(stack.jaeger, stack.trace_id)) == expected


def test_durations_are_those_that_qmp_told(stack: Stack) -> None:
    spans = tempo_spans(stack.tempo, stack.trace_id)
    assert length_ms(both_hosts(spans)["source"]) == pytest.approx(qmp("total-time"), abs=10)
    downtimes = [length_ms(span) for span in spans if span["name"] == "migration.downtime"]
    assert downtimes == [pytest.approx(qmp("downtime"), abs=5)]


def test_tempo_finds_the_destinations_sections_below_the_source(stack: Stack) -> None:
    query = '{ span.qemu.migration.role = "source" } >> { name = "loadvm.section" }'
    assert [trace["traceID"].rjust(32, "0") for trace in searched(stack.tempo, query, FROM_S, TO_S)] == [stack.trace_id]


def test_prometheus_has_the_metrics_of_both_hosts(stack: Stack) -> None:
    query = "sum by (qemu_migration_role) (last_over_time(qemu_migration_completed_total[1h]))"
    found = until(lambda: prometheus_at(stack.prometheus, query, TO_S), 30.0, 0.5)
    assert prometheus_at(stack.prometheus, 'last_over_time(qemu_migration_active{host_name="hv-1"}[1h])', TO_S)
    assert {one["metric"]["qemu_migration_role"]: one["value"][1] for one in found} == {"source": "1", "destination": "1"}
    query = 'histogram_sum(last_over_time(qemu_migration_duration_seconds{qemu_migration_role="source"}[1h]))'
    (duration,) = prometheus_at(stack.prometheus, query, TO_S)
    assert float(duration["value"][1]) * 1000 == pytest.approx(qmp("total-time"), abs=10)


def test_exemplars_in_prometheus_lead_to_the_trace(stack: Stack) -> None:
    found = prometheus_exemplars(stack.prometheus, "qemu_migration_duration_seconds", FROM_S, TO_S)
    assert {exemplar["labels"]["trace_id"] for exemplar in found} == {stack.trace_id}


def test_a_conversion_afterwards_adds_no_second_copy_to_jaeger(stack: Stack) -> None:
    env = environment(
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{stack.jaeger.otlp_http}/v1/traces",
        OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"{stack.prometheus.otlp_http}/v1/metrics",
        OTEL_RESOURCE_ATTRIBUTES="host.name=hv-1",
    )
    done = subprocess.run([*OTELBRIDGE, "convert", *map(str, LOGS)], env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(jaeger_spans(stack.jaeger, stack.trace_id)) == len(stack.expected)


def test_what_waits_for_tempo_outlives_the_gateway(tmp_path: Path) -> None:
    """Tempo and the others are away, the gateway is stopped and started again, and then Tempo, here a receiver, is back."""
    config, absent = DEPLOY / "collector" / "gateway.yaml", f"127.0.0.1:{free_ports(1)[0]}"
    away = {"JAEGER_ENDPOINT": absent, "PROMETHEUS_ENDPOINT": f"http://{absent}"}
    with collector(config, tmp_path / "gateway", TEMPO_ENDPOINT=absent, **away) as first:
        command = [*OTELBRIDGE, "convert", *map(str, LOGS), "--to", first.otlp_http]
        assert subprocess.run(command, env=environment(), capture_output=True, check=False).returncode == 0
    with Receiver() as direct, Receiver() as back:
        convert(LOGS, direct)
        with collector(config, tmp_path / "gateway", TEMPO_ENDPOINT=back.grpc_url.partition("//")[2], **away):
            until(lambda: len(arrived(back)[0]) >= len(arrived(direct)[0]), 30.0, 0.2)
        assert arrived(back)[0] == arrived(direct)[0]


def pruned(message: Message) -> None:
    """The Collector writes messages with nothing in them, a status that is unset among them, which mean the same as none."""
    for field, value in message.ListFields():
        if not isinstance(value, Message):
            for part in value if field.message_type is not None else ():
                pruned(part)
        elif value.ByteSize() == 0:
            message.ClearField(field.name)
        else:
            pruned(value)


def arrived(receiver: Receiver) -> tuple[Any, Any]:
    """All spans and points that a receiver has got."""
    found: dict[Signal, list[bytes]] = {"traces": [], "metrics": []}
    for signal, kind in (("traces", ExportTraceServiceRequest), ("metrics", ExportMetricsServiceRequest)):
        for body in bodies(receiver, signal):
            request = kind.FromString(body)
            pruned(request)
            found[signal].append(request.SerializeToString(deterministic=True))
    return spans_in(found["traces"]), points_in(found["metrics"])


def test_the_collector_reads_what_convert_wrote_to_files(tmp_path: Path) -> None:
    """Every span and point arrives with all that there is to it, as if it had been sent directly."""
    written = [*OTELBRIDGE, "convert", *map(str, LOGS), "--to", f"file:{tmp_path / 'converted' / 'one'}"]
    assert subprocess.run(written, env=environment(), capture_output=True, check=False).returncode == 0
    with Receiver() as direct:
        convert(LOGS, direct)
    config = DEPLOY / "collector" / "otlpjsonfile.yaml"
    expected = arrived(direct)
    with (
        Receiver() as receiver,
        collector(
            config, tmp_path / "run", CONVERTED_FOLDER=str(tmp_path / "converted"),
            GATEWAY_ENDPOINT=receiver.grpc_url.partition("//")[2],
        ),
    ):  # fmt: skip
        until(lambda: len(arrived(receiver)[0]) >= len(expected[0]), 30.0, 0.2)
        until(lambda: arrived(receiver)[1].total() >= expected[1].total(), 30.0, 0.2)
        spans, points = arrived(receiver)
    assert spans == expected[0]
    assert points == expected[1]
