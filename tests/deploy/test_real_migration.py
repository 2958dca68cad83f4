"""Real migrations, followed as they happen: QEMU, otelbridge, the Collector, and what Tempo, Jaeger and Prometheus answer."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.deploy.asking import (
    attribute,
    jaeger_resources,
    jaeger_spans,
    length_ms,
    now_s,
    prometheus_at,
    searched,
    tempo_spans,
)
from tests.deploy.backends import DEPLOY, Backend, collector, jaeger, missing, prometheus, tempo
from tests.deploy.qemu import PASSES, QEMU, Kind, QemuError, Told, migrated
from tests.service.running import OTELBRIDGE, Spans, converted, environment, running, until

KINDS = [
    Kind("precopy", is_tls=False),
    Kind("precopy", is_tls=True),
    Kind("postcopy", is_tls=False),
    Kind("postcopy", is_tls=True),
]
HOSTS = {"source": "hv-1", "destination": "hv-2"}
ARRIVED_S = 30.0
Need = Callable[[Path | str, str], None]


class Stack(NamedTuple):
    """Everything that a migration's trace goes through, and the folder of the two hosts' logs."""

    folder: Path
    gateway: Backend
    tempo: Backend
    jaeger: Backend
    prometheus: Backend


class Seen(NamedTuple):
    """A migration that is over.

    Attributes:
        logs: Of the source and of the destination.
        began_s: A moment before it.
        told: What QMP told of it.
        trace_id: Of its trace.
        expected: Its spans, of a conversion of both logs.
    """

    kind: Kind
    stack: Stack
    logs: tuple[Path, Path]
    began_s: int
    told: Told
    trace_id: str
    expected: Spans


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, need: Need) -> Iterator[Stack]:
    """`otelbridge run` that follows two hosts' logs and sends to the gateway, and that to all three."""
    need(QEMU, "it migrates: apt-get install qemu-system-x86")
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
        for host in HOSTS.values():
            (folder / host).mkdir()
        config = {
            "inputs": [{"files": str(folder / host / "*.log"), "attributes": {"host.name": host}} for host in HOSTS.values()],
            "destinations": {"collector": {"endpoint": gateway.otlp_http}},
            "outbox": {"folder": str(folder / "outbox")},
            "health": {"address": "127.0.0.1:0"},
        }
        on.enter_context(running(folder / "bridge", config))
        yield Stack(folder, gateway, *backends)


@pytest.fixture(scope="module", params=KINDS, ids=str)
def seen(request: pytest.FixtureRequest, stack: Stack) -> Seen:
    """A migration whose trace has arrived at Tempo and Jaeger while both QEMU processes were still there."""
    kind: Kind = request.param
    source, destination = (stack.folder / host / f"{kind}.log" for host in HOSTS.values())
    began_s = now_s()
    try:
        with migrated(stack.folder / str(kind), kind, source, destination) as told:
            expected, _ = converted([source, destination], together=True)
            (trace_id,) = {trace.hex() for trace, _ in expected}
            until(lambda: len(tempo_spans(stack.tempo, trace_id)) >= len(expected), ARRIVED_S, 0.2)
            until(lambda: len(jaeger_spans(stack.jaeger, trace_id)) >= len(expected), ARRIVED_S, 0.2)
    except QemuError as error:
        if "Postcopy is not supported" not in str(error):
            raise
        missing(f"QEMU cannot do postcopy here, it needs userfaultfd, as root has it: {'; '.join(error.__notes__)}")
    return Seen(kind, stack, (source, destination), began_s, told, trace_id, expected)


def roots(spans: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Both sides' `migration`, by their role."""
    return {attribute(span, "qemu.migration.role"): span for span in spans if span["name"] == "migration"}


def in_search(seen: Seen) -> list[dict[str, Any]]:
    """The traces in which the second host's migration hangs below the first one's, as soon as Tempo's search finds one."""
    source, destination = (
        f'{{ resource.host.name = "{host}" && resource.log.file.name = "{seen.kind}.log" && name = "migration" }}'
        for host in HOSTS.values()
    )
    return searched(seen.stack.tempo, f"{source} > {destination}", seen.began_s - 1, now_s() + 1)


def instance_of(seen: Seen, role: str) -> str:
    """`service.instance.id` of a host's QEMU, as Jaeger has it."""
    resources = jaeger_resources(seen.stack.jaeger, seen.trace_id)
    return resources[roots(jaeger_spans(seen.stack.jaeger, seen.trace_id))[role]["spanId"]]["service.instance.id"]


def series(seen: Seen, query: str, role: str) -> float:
    """The one value of a query for what a host's QEMU told; `QEMU` in it stands for the labels of that."""
    query = query.replace("QEMU", f'host_name="{HOSTS[role]}", service_instance_id="{instance_of(seen, role)}"')
    (found,) = until(lambda: prometheus_at(seen.stack.prometheus, query, time.time()), ARRIVED_S, 0.2)
    return float(found["value"][1])


def test_traceql_finds_one_trace_with_both_hosts(seen: Seen) -> None:
    assert [trace["traceID"].rjust(32, "0") for trace in in_search(seen)] == [seen.trace_id]


def test_jaeger_has_both_hosts_in_one_trace(seen: Seen) -> None:
    found = roots(jaeger_spans(seen.stack.jaeger, seen.trace_id))
    resources = jaeger_resources(seen.stack.jaeger, seen.trace_id)
    assert {role: resources[span["spanId"]]["host.name"] for role, span in found.items()} == HOSTS
    assert found["destination"]["parentSpanId"] == found["source"]["spanId"]


def test_every_span_of_a_conversion_came_once(seen: Seen) -> None:
    expected = sorted(span.hex() for _, span in seen.expected)
    assert sorted(span["spanId"] for span in tempo_spans(seen.stack.tempo, seen.trace_id)) == expected
    assert sorted(span["spanId"] for span in jaeger_spans(seen.stack.jaeger, seen.trace_id)) == expected


def test_the_migration_took_as_long_as_qmp_told(seen: Seen) -> None:
    for spans in (tempo_spans(seen.stack.tempo, seen.trace_id), jaeger_spans(seen.stack.jaeger, seen.trace_id)):
        source = roots(spans)["source"]
        assert length_ms(source) == pytest.approx(seen.told.total_ms, abs=10)
        assert attribute(source, "qemu.migration.mode") == seen.kind.mode
    found_s = series(seen, "histogram_sum(qemu_migration_duration_seconds{QEMU})", "source")
    assert found_s * 1000 == pytest.approx(seen.told.total_ms, abs=10)


def test_the_guest_stood_still_for_as_long_as_qmp_told(seen: Seen) -> None:
    """In postcopy QEMU 7.2 has no event for when the guest goes on, so nothing is said of its downtime."""
    spans = tempo_spans(seen.stack.tempo, seen.trace_id)
    expected = [pytest.approx(seen.told.downtime_ms, abs=5)] if seen.kind.mode == "precopy" else []
    assert [length_ms(span) for span in spans if span["name"] == "migration.downtime"] == expected
    if expected:
        found_s = series(seen, "histogram_sum(qemu_migration_downtime_duration_seconds{QEMU})", "source")
        assert [found_s * 1000] == expected


def test_every_pass_over_memory_is_a_span(seen: Seen) -> None:
    names = [span["name"] for span in tempo_spans(seen.stack.tempo, seen.trace_id)]
    assert seen.told.passes >= PASSES
    assert names.count("ram.bitmap_sync") == seen.told.passes
    assert series(seen, "qemu_migration_passes_total{QEMU}", "source") == seen.told.passes


def test_handshakes_and_postcopy_are_there_where_they_were(seen: Seen) -> None:
    names = [span["name"] for span in tempo_spans(seen.stack.tempo, seen.trace_id)]
    assert names.count("tls.handshake") == (2 if seen.kind.is_tls else 0)
    assert names.count("postcopy.listen") == (1 if seen.kind.mode == "postcopy" else 0)
    assert (seen.told.requests > 0) == (seen.kind.mode == "postcopy")


@pytest.mark.parametrize("role", HOSTS)
def test_promql_counts_the_migration_on_both_hosts(seen: Seen, role: str) -> None:
    query = f'qemu_migration_completed_total{{QEMU, qemu_migration_role="{role}", qemu_migration_state="completed"}}'
    assert series(seen, query, role) == 1


def test_a_conversion_afterwards_adds_no_second_copy(seen: Seen) -> None:
    """Where the backend merges by id: Tempo does, for a trace that is in a block."""
    in_search(seen)  # so it is in a block: before that, Tempo shows both copies of each span, and goes on to
    before = traces_put_down(seen.stack.tempo)
    env = environment(OTEL_RESOURCE_ATTRIBUTES=f"host.name={HOSTS['source']}")
    command = [*OTELBRIDGE, "convert", *map(str, seen.logs), "--to", seen.stack.gateway.otlp_http]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    until(lambda: traces_put_down(seen.stack.tempo) > before, ARRIVED_S, 0.2)
    assert len(tempo_spans(seen.stack.tempo, seen.trace_id)) == len(seen.expected)
    # Jaeger folds copies that are equal in all. These are so in what a span says, but one conversion gives both hosts one name,
    # and Jaeger keeps its own warnings on spans that it was asked for before their parent was there: such it shows twice.
    said = {(span["spanId"], without_warnings(span)) for span in jaeger_spans(seen.stack.jaeger, seen.trace_id)}
    assert len(said) == len(seen.expected)


def without_warnings(span: dict[str, Any]) -> str:
    """All that a span says by itself."""
    own = [one for one in span["attributes"] if not one["key"].startswith("@jaeger@")]
    return json.dumps({**span, "attributes": own}, sort_keys=True)


def traces_put_down(tempo: Backend) -> int:
    """How many parts of traces Tempo has written into blocks."""
    with urllib.request.urlopen(f"{tempo.http}/metrics") as answer:  # noqa: S310 - loopback
        found = re.search(rb"^tempo_live_store_traces_created_total\{.*\} (\d+)$", answer.read(), re.MULTILINE)
    return int(found[1]) if found else 0
