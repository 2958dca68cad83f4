"""What the chart renders runs: otelbridge and the Collector with the rendered files, and a migration that comes out in Jaeger.

Only what Kubernetes would do is done here: names of services become addresses, and mounted folders are elsewhere.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.charts import (
    BACKENDS,
    Object,
    absent,
    backend,
    collector,
    collector_config_of,
    config_of,
    objects,
    pod_of,
    render,
    without,
)
from tests.deploy.test_chart_renders import BASE
from tests.service.running import environment, running, until

PORTS = (
    "health", "query", "query_grpc", "jaeger", "jaeger_http", "grpc", "http", "metrics", "relay", "bridge",
)  # fmt: skip
EVER = {"start_time_min": "2020-01-01T00:00:00Z", "start_time_max": "2040-01-01T00:00:00Z"}


def free_ports() -> dict[str, str]:
    """A port for each of PORTS that nobody listens on now."""
    sockets = {name: socket.create_server(("127.0.0.1", 0)) for name in PORTS}
    found = {name: str(one.getsockname()[1]) for name, one in sockets.items()}
    for one in sockets.values():
        one.close()
    return found


def is_open(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@contextmanager
def program(folder: Path, *command: str | Path, **env: str) -> Iterator[Path]:
    """A program that runs until the end of the block; what it says, as a file."""
    log = folder / f"{Path(command[0]).name}.log"
    with log.open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=environment(**env), cwd=folder)
    try:
        yield log
    finally:
        process.terminate()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answer(url: str) -> Any:
    """The JSON behind an address, None as long as there is none."""
    try:
        with urllib.request.urlopen(url, timeout=5) as found:  # noqa: S310  # of loopback
            return json.load(found)
    except OSError:
        return None


def translated(config: Any, here: Mapping[str, str]) -> Any:
    """A configuration with what Kubernetes would have put in the place of these texts."""
    text = yaml.safe_dump(config)
    for there, place in here.items():
        assert there in text, f"{there} is not in {text}"
        text = text.replace(there, place)
    return yaml.safe_load(text)


def relay_of(found: list[Object], port: Mapping[str, str], folder: Path) -> Any:
    """The Collector's configuration for here, without what this Collector was built without."""
    relay = collector_config_of(found)
    gap = absent(relay, collector())
    here = {"0.0.0.0:4317": f"127.0.0.1:{port['grpc']}", "0.0.0.0:4318": f"127.0.0.1:{port['http']}", "8888": port["metrics"]}
    here |= {"0.0.0.0:13133": f"127.0.0.1:{port['relay']}"} if "health_check" not in gap else {}
    here |= {"/var/lib/otelcol": str(folder / "otelcol")} if "file_storage" not in gap else {}
    return translated(without(relay, gap), here)


def bridge_of(found: list[Object], port: Mapping[str, str], folder: Path) -> Any:
    """otelbridge.yaml for here."""
    here = {
        "example-otelbridge-collector.virt.svc:4318": f"127.0.0.1:{port['http']}",
        "/var/log/libvirt/qemu": str(folder / "logs"),
        "/var/lib/otelbridge": str(folder / "state"),
        "0.0.0.0:13133": f"127.0.0.1:{port['bridge']}",
    }
    return translated(config_of(found), here)


def test_a_migration_goes_through_the_rendered_collector_to_jaeger(tmp_path: Path, recordings: Path) -> None:
    port = free_ports()
    exporters = {"jaeger": {"enabled": True, "endpoint": f"127.0.0.1:{port['jaeger']}"}}
    found = objects(render({**BASE, "mode": "daemonset", "collector": {"enabled": True, "exporters": exporters}}))
    (tmp_path / "relay.yaml").write_text(yaml.safe_dump(relay_of(found, port, tmp_path)))
    (tmp_path / "otelcol").mkdir()
    (tmp_path / "logs").mkdir()
    for side in ("src.log", "dst.log"):
        shutil.copyfile(recordings / "debian-7.2" / "precopy-busy" / side, tmp_path / "logs" / side)

    jaeger = program(
        tmp_path, backend("jaeger-2.13.0-linux-amd64.xz"), "--config", BACKENDS / "jaeger.yaml",
        P_HEALTH=port["health"], P_QUERY=port["query"], P_QGRPC=port["query_grpc"], P_OTLP=port["jaeger"],
        P_OTLPH=port["jaeger_http"],
    )  # fmt: skip
    with jaeger, program(tmp_path, collector(), "--config", tmp_path / "relay.yaml"):
        until(lambda: answer(f"http://127.0.0.1:{port['health']}/status"))
        until(lambda: is_open(int(port["http"])))
        with running(tmp_path / "bridge", bridge_of(found, port, tmp_path), OTEL_K8S_NODE_NAME="node-1"):
            parts = until(lambda: migrations(port["query"]), timeout_s=60)
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                path = pod_of(found, "DaemonSet")["containers"][0][probe]["httpGet"]["path"]
                with urllib.request.urlopen(f"http://127.0.0.1:{port['bridge']}{path}", timeout=5) as page:
                    assert page.status == HTTPStatus.OK, probe
    assert {attribute_of(one, "host.name") for one in parts} == {"node-1"}
    assert len({span["traceId"] for one in parts for span in one["spans"]}) == 1, "both sides are one trace"


def migrations(port: str) -> list[Any]:
    """The parts of Jaeger's traces that are migrations, as soon as both sides are there."""
    parameters = {"service_name": "qemu", "num_traces": "20", **EVER}
    question = urllib.parse.urlencode({f"query.{name}": value for name, value in parameters.items()})
    found = answer(f"http://127.0.0.1:{port}/api/v3/traces?{question}") or {}
    parts = [
        {"resource": one["resource"], "spans": spans}
        for one in found.get("result", {}).get("resourceSpans", ())
        for scope in one["scopeSpans"]
        if (spans := [span for span in scope.get("spans", ()) if span["name"].startswith("migration")])
    ]
    return parts if {attribute_of(one, "log.file.name") for one in parts} == {"src.log", "dst.log"} else []


def attribute_of(part: Any, name: str) -> Any:
    """A text among the attributes of a part's resource."""
    return {one["key"]: one["value"].get("stringValue") for one in part["resource"]["attributes"]}.get(name)
