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
from tests.deploy.backends import DEPLOY, Backend, collector, collector_program, jaeger, prometheus, tempo
from tests.receiver import Receiver
from tests.service.running import OTELBRIDGE, bodies, config_for, convert, environment, points_in, running, spans_in, until

RECORDINGS = Path(__file__).resolve().parents[1] / "recordings"
BUSY = RECORDINGS / "qemu-10.2.0-log" / "precopy-busy"
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


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """`otelbridge run` follows both hosts' logs and sends to the agent, that to the gateway, and that to all three."""
    folder = tmp_path_factory.mktemp("stack")
    with ExitStack() as on:
        backends = tuple(on.enter_context(one(folder / one.__name__)) for one in (tempo, jaeger, prometheus))
        gateway = on.enter_context(
            collector(
                DEPLOY / "collector" / "gateway.yaml", folder / "gateway",
                TEMPO_ENDPOINT=backends[0].otlp_grpc, JAEGER_ENDPOINT=backends[1].otlp_grpc,
                PROMETHEUS_ENDPOINT=backends[2].otlp_http,
            )
        )  # fmt: skip
        agent = on.enter_context(
            collector(DEPLOY / "collector" / "agent.yaml", folder / "agent", GATEWAY_ENDPOINT=gateway.otlp_grpc)
        )
        service = on.enter_context(running(folder / "bridge", config_for(folder / "bridge", agent.otlp_http), start=False))
        logs = folder / "bridge" / "logs"
        logs.mkdir()
        for name in ("src.log", "dst.log"):
            (logs / name).write_bytes((BUSY / name).read_bytes())
        service.start()
        found = searched(backends[0], '{ name = "migration" && span.qemu.migration.role = "destination" }', FROM_S, TO_S)
        assert len(found) == 1
        assert service.stop() == 0
        yield Stack(*backends, found[0]["traceID"].rjust(32, "0"))


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


def test_tempo_and_jaeger_have_the_same_spans_once(stack: Stack) -> None:
    in_tempo, in_jaeger = tempo_spans(stack.tempo, stack.trace_id), jaeger_spans(stack.jaeger, stack.trace_id)
    ids = [span["spanId"] for span in in_tempo]
    assert len(set(ids)) == len(ids)
    assert sorted(ids) == sorted(span["spanId"] for span in in_jaeger)


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
    assert {one["metric"]["qemu_migration_role"]: one["value"][1] for one in found} == {"source": "1", "destination": "1"}
    query = 'histogram_sum(last_over_time(qemu_migration_duration_seconds{qemu_migration_role="source"}[1h]))'
    (duration,) = prometheus_at(stack.prometheus, query, TO_S)
    assert float(duration["value"][1]) * 1000 == pytest.approx(qmp("total-time"), abs=10)


def test_exemplars_in_prometheus_lead_to_the_trace(stack: Stack) -> None:
    found = prometheus_exemplars(stack.prometheus, "qemu_migration_duration_seconds", FROM_S, TO_S)
    assert {exemplar["labels"]["trace_id"] for exemplar in found} == {stack.trace_id}


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
    logs = [BUSY / "src.log", BUSY / "dst.log"]
    written = [*OTELBRIDGE, "convert", *map(str, logs), "--to", f"file:{tmp_path / 'converted' / 'one'}"]
    assert subprocess.run(written, env=environment(), capture_output=True, check=False).returncode == 0
    with Receiver() as direct:
        convert(logs, direct)
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
