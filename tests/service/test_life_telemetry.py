"""What the service says of itself arrives where its data goes, and its totals go on over restarts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from tests.readers.simple_files import T0, Writer, preamble
from tests.receiver import Receiver, data_points
from tests.service.living import HALF, RECORDING, all_read, append, attributes, counter, ended, log_in
from tests.service.running import bodies, config_for, running, until

TELEMETRY = {"destination": "receiver", "interval": "500ms"}


class Told(NamedTuple):
    """An export of the service's own counters."""

    resource: dict[str, Any]
    totals: dict[str, float]
    starts: set[int]


def told_by(receiver: Receiver) -> list[Told]:
    """Every export so far; series of one counter as one."""
    found = []
    for body in bodies(receiver, "metrics"):
        for of_resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            resource = attributes(list(of_resource.resource.attributes))
            if resource["service.name"] != "otelbridge":
                continue
            metrics = [metric for scope in of_resource.scope_metrics for metric in scope.metrics if metric.HasField("sum")]
            totals = {m.name: sum(point.as_int or point.as_double for point in data_points(m)) for m in metrics}
            found.append(Told(resource, totals, {point.start_time_unix_nano for m in metrics for point in data_points(m)}))
    return found


def last_total(receiver: Receiver, name: str) -> float:
    """What the last export said, 0 where it said nothing."""
    exports = told_by(receiver)
    return exports[-1].totals.get(name, 0) if exports else 0


def test_the_counters_arrive_and_go_on_over_a_restart(tmp_path: Path) -> None:
    path = log_in(tmp_path, RECORDING[:HALF])
    with Receiver() as receiver, running(tmp_path, config_for(tmp_path, receiver, telemetry=TELEMETRY)) as service:
        all_read(service, HALF)
        until(lambda: last_total(receiver, "otelbridge.reader.data_read") == HALF)
        assert last_total(receiver, "otelbridge.service.restarts") == 0
        assert service.stop() == 0
        before = told_by(receiver)[-1]
        append(path, RECORDING[HALF:])
        service.start()
        ended(service)
        until(lambda: last_total(receiver, "otelbridge.reader.data_read") == len(RECORDING))
        service.kill()
        service.start()
        until(lambda: last_total(receiver, "otelbridge.service.restarts") == 2)
        assert service.stop() == 0
        exports = told_by(receiver)
        after = exports[-1]
    assert before.resource["service.instance.id"]
    assert {told.resource["service.instance.id"] for told in exports} == {before.resource["service.instance.id"]}
    assert len({start for told in exports for start in told.starts}) == 1
    assert after.totals["otelbridge.reader.data_read"] == len(RECORDING)
    assert after.totals["otelbridge.reader.lines_read"] == RECORDING.count(b"\n")
    for name, total in before.totals.items():
        assert after.totals[name] >= total, name


def test_what_was_lost_is_counted_there_and_in_the_status(tmp_path: Path) -> None:
    first, *lines = RECORDING.splitlines(keepends=True)
    stamp = first.split(b":")[0]
    malformed = stamp + b":savevm_section_start without anything\n"
    torn = lines[3][: len(lines[3]) // 2] + lines[4]
    log_in(tmp_path, b"".join([first, *lines[:3], malformed, torn, *lines[5:]]))
    made = Writer()
    (tmp_path / "logs" / "other.trace").write_bytes(
        preamble(made) + made.event(300, T0, [b"setup"]) + made.dropped(T0 + 1, 7) + made.event(300, T0 + 2, [b"active"])
    )
    (tmp_path / "logs" / "none.log").write_bytes(b"savevm_state_setup \n" * 10)
    inputs = [{"files": [str(tmp_path / "logs" / "*.log"), str(tmp_path / "logs" / "*.trace")], "idle_timeout": "2s"}]
    wanted = {
        "otelbridge.reader.lines_malformed": 1,
        "otelbridge.reader.lines_torn": 1,
        "otelbridge.reader.events_dropped_by_qemu": 7,
        "otelbridge.reader.data_refused": (tmp_path / "logs" / "none.log").stat().st_size,
    }
    config_more = {"inputs": inputs, "telemetry": TELEMETRY}
    with Receiver() as receiver, running(tmp_path, {**config_for(tmp_path, receiver), **config_more}) as service:
        ended(service)
        until(lambda: {name: last_total(receiver, name) for name in wanted} == wanted)
        assert service.status()["losses"] == wanted
        assert {name: counter(service, name) for name in wanted} == wanted
        assert service.stop() == 0
