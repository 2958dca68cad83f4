"""What the chart renders runs: otelbridge and the Collector with the rendered files, and a migration that comes out in Jaeger.

Only what Kubernetes would do is done here: names of services become addresses, and mounted folders are elsewhere.
"""

from __future__ import annotations

import shutil
import urllib.request
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.backends import Backend, collector_program, free_ports, get_json, jaeger, started
from tests.deploy.charts import Object, collector_config_of, config_of, objects, pod_of, render
from tests.deploy.test_chart_renders import BASE
from tests.service.running import running, until

EVER = {"start_time_min": "2020-01-01T00:00:00Z", "start_time_max": "2040-01-01T00:00:00Z"}


def translated(config: Any, here: Mapping[str, str]) -> Any:
    """A configuration with what Kubernetes would have put in the place of these texts."""
    text = yaml.safe_dump(config)
    for there, place in here.items():
        assert there in text, f"{there} is not in {text}"
        text = text.replace(there, place)
    return yaml.safe_load(text)


def relay_of(found: list[Object], port: Mapping[str, int], folder: Path) -> Any:
    """The Collector's configuration for here."""
    here = {
        "0.0.0.0:4317": f"127.0.0.1:{port['grpc']}", "0.0.0.0:4318": f"127.0.0.1:{port['http']}", "8888": str(port["metrics"]),
        "0.0.0.0:13133": f"127.0.0.1:{port['relay']}", "/var/lib/otelcol": str(folder / "otelcol"),
    }  # fmt: skip
    return translated(collector_config_of(found), here)


def bridge_of(found: list[Object], port: Mapping[str, int], folder: Path) -> Any:
    """otelbridge.yaml for here."""
    here = {
        "example-otelbridge-collector.virt.svc:4318": f"127.0.0.1:{port['http']}",
        "/var/log/libvirt/qemu": str(folder / "logs"),
        "/var/lib/otelbridge": str(folder / "state"),
        "0.0.0.0:13133": f"127.0.0.1:{port['bridge']}",
    }
    return translated(config_of(found), here)


def test_a_migration_goes_through_the_rendered_collector_to_jaeger(tmp_path: Path, recordings: Path) -> None:
    port = dict(zip(("grpc", "http", "metrics", "relay", "bridge"), free_ports(5), strict=True))
    (tmp_path / "otelcol").mkdir()
    (tmp_path / "logs").mkdir()
    for side in ("src.log", "dst.log"):
        shutil.copyfile(recordings / "debian-7.2" / "precopy-busy" / side, tmp_path / "logs" / side)
    with jaeger(tmp_path / "jaeger") as backend:
        exporters = {"jaeger": {"enabled": True, "endpoint": backend.otlp_grpc}}
        found = objects(render({**BASE, "mode": "daemonset", "collector": {"enabled": True, "exporters": exporters}}))
        relay = tmp_path / "relay.yaml"
        relay.write_text(yaml.safe_dump(relay_of(found, port, tmp_path)))
        collector = started(
            [collector_program(), "--config", relay], f"http://127.0.0.1:{port['relay']}", tmp_path / "relay.log", {}
        )
        with collector, running(tmp_path / "bridge", bridge_of(found, port, tmp_path), OTEL_K8S_NODE_NAME="node-1"):
            parts = until(lambda: migrations(backend), timeout_s=60)
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                path = pod_of(found, "DaemonSet")["containers"][0][probe]["httpGet"]["path"]
                with urllib.request.urlopen(f"http://127.0.0.1:{port['bridge']}{path}", timeout=5) as page:
                    assert page.status == HTTPStatus.OK, probe
    assert {attribute_of(one, "host.name") for one in parts} == {"node-1"}
    assert len({span["traceId"] for one in parts for span in one["spans"]}) == 1, "both sides are one trace"


def migrations(backend: Backend) -> list[Any]:
    """The parts of Jaeger's traces that are migrations, as soon as both sides are there."""
    parameters = {"service_name": "qemu", "num_traces": "20", **EVER}
    asked = {f"query.{name}": value for name, value in parameters.items()}
    found = get_json(f"{backend.http}/api/v3/traces", absent={}, **asked)
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
