"""The configuration as it counts can be read again, and says the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from otelbridge.service.config import ServiceConfig
from otelbridge.service.config.arguments import config_of_arguments
from otelbridge.service.config.effective import effective
from otelbridge.service.config.parse import load_config

ENV = {"HOME": "/home/someone"}


def again(config: ServiceConfig, folder: Path, env: dict[str, str]) -> ServiceConfig:
    path = folder / "again.yaml"
    path.write_text(effective(config), "utf-8")
    return replace(load_config(path, env), source=config.source)


FILES = {
    "short": "version: 1\ninputs: [{files: a.log}]\n",
    "long": """\
version: 1
inputs:
  - {files: ["*.log", /b], exclude: x, format: log, from: end, role: source, name: <domain>.log, idle_timeout: 1500ms}
  - {pipe: p, qemu_version: 6.2, attributes: {a: "1", b: "null", c: "$$x", d: "yes", "e: f": "${env:Q:-'\\"#}", ü: ö}}
  - {journald: A=b, journal: j}
destinations:
  web: {endpoint: "https://h/base", timeout: 0s, compression: gzip}
  rpc: {endpoint: "grpc://h", signals: metrics, timeout: 2500ms}
  tls: {endpoint: "grpcs://[::1]:1", signals: [metrics, traces]}
outbox: {folder: box, limit: 1.5KiB, rejected_limit: 0B}
resource: {host.name: "${env:HOME}"}
telemetry: {destination: rpc}
health: none
log: {format: json, level: error}
shutdown: {grace: 1h}
""",
}


@pytest.mark.parametrize("file", FILES)
def test_what_is_printed_says_the_same_when_it_is_read_again(file: str, tmp_path: Path) -> None:
    path = tmp_path / "otelbridge.yaml"
    path.write_text(FILES[file].replace("\\\\", "\\"), "utf-8")
    found = load_config(path, ENV)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert again(found, elsewhere, ENV) == found
    assert effective(again(found, elsewhere, ENV)) == effective(found)


def test_the_environment_s_destination_is_shown_and_stays_the_environment_s(tmp_path: Path) -> None:
    env = ENV | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:hunter2@all:4318",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://m/api?key=hunter2",
        "OTEL_EXPORTER_OTLP_METRICS_HEADERS": "x-key=hunter2",
        "OTEL_RESOURCE_ATTRIBUTES": "a=b",
    }
    found = config_of_arguments(["/a.log"], env)
    shown = effective(found)
    assert "hunter2" not in shown
    assert "#     url: http://all:4318/v1/traces" in shown
    assert "#     url: http://m/api?***" in shown
    assert "#     headers: {x-key: '***'}" in shown
    assert again(found, tmp_path, env) == found
