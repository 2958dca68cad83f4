"""What a configuration file says, and what counts where it says nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from otelbridge.service.config import (
    HealthConfig,
    InputConfig,
    LogConfig,
    OutboxConfig,
    ServiceConfig,
    TelemetryConfig,
)
from otelbridge.service.config.arguments import environment_destinations
from otelbridge.service.config.parse import load_config

HEAD = "version: 1\ninputs: [{files: /a.log}]\n"
ENV = {"HOME": "/home/someone"}
Load = Callable[..., ServiceConfig]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def loaded(text: str, **env: str) -> ServiceConfig:
        path = tmp_path / "otelbridge.yaml"
        path.write_text(text, "utf-8")
        return load_config(path, ENV | env)

    return loaded


def test_the_shortest_file_has_the_documented_defaults(load: Load, tmp_path: Path) -> None:
    found = load(HEAD)
    assert found == ServiceConfig(
        inputs=(InputConfig("files", ("/a.log",)),),
        destinations=environment_destinations({}),
        outbox=OutboxConfig(Path("/home/someone/.local/state/otelbridge")),
        source=tmp_path / "otelbridge.yaml",
    )


def test_every_option_arrives(load: Load, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").touch()
    (tmp_path / "events").touch()
    (tmp_path / "clock.json").write_text('{"realtime_ns": 1795408314740585660, "monotonic_ns": 2611259152318}')
    found = load(
        """\
version: 1
inputs:
  - files: [logs/*.log, /var/log/b.log]
    exclude: [old/*, '*-rescue.log']
    format: log
    from: end
    role: destination
    name: <namespace>_<vmi>.log
    attributes: {deployment.environment.name: production, answer: 42, on: "off"}
    idle_timeout: 1h
    qemu_version: 7.2.0
    clock: clock.json
  - pipe: trace.fifo
  - journald: [SYSLOG_IDENTIFIER=qemu-system-x86_64, _UID=107]
    journal: /var/log/journal
    from: end
mappings: [my.yaml]
catalogue: events
destinations:
  all: {endpoint: "http://h:4318/base", compression: gzip, timeout: 0s}
  metrics-only: {endpoint: "grpcs://g:4317", signals: metrics, headers: {X-Scope: a}, timeout: 1500ms}
outbox: {folder: box, limit: 1.5GiB, rejected_limit: 0B}
resource: {host.name: node-1}
limits: {streams: 7}
telemetry: {destination: metrics-only, interval: 15s}
health: {address: "[::1]:0"}
log: {format: json, level: debug}
shutdown: {grace: 0s}
"""
    )
    assert found.inputs == (
        InputConfig(
            "files", (f"{tmp_path}/logs/*.log", "/var/log/b.log"), exclude=(f"{tmp_path}/old/*", "*-rescue.log"),
            format="log", start="end",
            role="destination", name="<namespace>_<vmi>.log",
            attributes=(("deployment.environment.name", "production"), ("answer", "42"), ("on", "off")),
            idle_timeout_ns=3_600_000_000_000, qemu_version="7.2.0", clock=tmp_path / "clock.json",
        ),
        InputConfig("pipe", (f"{tmp_path}/trace.fifo",)),
        InputConfig(
            "journald", ("SYSLOG_IDENTIFIER=qemu-system-x86_64", "_UID=107"), journal=Path("/var/log/journal"),
            format="journald", start="end",
        ),
    )  # fmt: skip
    every, metrics = found.destinations
    assert (every.name, metrics.name) == ("all", "metrics-only")
    assert {signal: endpoint.url for signal, endpoint in every.endpoints.items()} == {
        "traces": "http://h:4318/base/v1/traces",
        "metrics": "http://h:4318/base/v1/metrics",
    }
    assert (every.endpoints["traces"].gzip, every.endpoints["traces"].timeout_s) == (True, math.inf)
    assert list(metrics.endpoints) == ["metrics"]
    endpoint = metrics.endpoints["metrics"]
    assert (endpoint.url, endpoint.protocol, endpoint.insecure, endpoint.gzip) == ("g:4317", "grpc", False, False)
    assert (endpoint.headers, endpoint.timeout_s) == ((("x-scope", "a"),), 1.5)
    assert found.outbox == OutboxConfig(tmp_path / "box", 3 << 29, 0)
    assert (found.mappings, found.catalogue) == ((tmp_path / "my.yaml",), tmp_path / "events")
    assert (found.resource, found.max_streams, found.grace_ns) == ((("host.name", "node-1"),), 7, 0)
    assert found.telemetry == TelemetryConfig("metrics-only", 15_000_000_000)
    assert (found.health, found.log) == (HealthConfig("::1", 0), LogConfig("json", "debug"))


@pytest.mark.parametrize("text", ["health: none", "health: {address: none}"])
def test_the_health_server_can_be_left_out(load: Load, text: str) -> None:
    assert load(HEAD + text).health.host is None


def test_keys_with_nothing_behind_them_are_as_good_as_not_there(load: Load) -> None:
    empty = "outbox:\nresource: {a: }\nlog: {level: ~}\nhealth:\n  address:\ndestinations:\nmappings:\ncatalogue: null\n"
    assert load(HEAD + empty) == load(HEAD)


def test_patterns_beside_a_folder_with_brackets_in_its_name_are_patterns_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "a[b]"
    folder.mkdir()
    (folder / "x.yaml").write_text("version: 1\ninputs: [{files: '*.log'}]\n")
    assert load_config(folder / "x.yaml", ENV).inputs[0].paths == (f"{tmp_path}/a[[]b]/*.log",)


# --- the environment ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${env:A}", "one"),
        ("x-${env:A}-${env:A}", "x-one-one"),
        ("${env:UNSET:-two}", "two"),
        ("${env:A:-two}", "one"),
        ("${env:EMPTY:-two}x", "x"),
        ("${env:UNSET:-}x", "x"),
        ("${env:UNSET:-${env:A}}", "one"),
        ("${env:UNSET:-${env:UNSET:-a}b}c", "abc"),
        ("${env:A:-${env:UNSET}}", "one"),
        ("${env:UNSET:-a:-b}", "a:-b"),
        ("$$", "$"),
        ("$${env:A}", "${env:A}"),
        ("$$$${env:A}", "$${env:A}"),
        ("$$${env:A}", "$one"),
        ("$A and $", "$A and $"),
        ("${env:DOLLARS}", "$$ ${env:A}"),
        ("${env:UNSET:-$$}", "$"),
    ],
)
@pytest.mark.parametrize("quotes", ["", "'", '"'])
def test_variables_are_written_as_in_the_collector(load: Load, written: str, value: str, quotes: str) -> None:
    found = load(f"{HEAD}resource:\n  a: {quotes}{written}{quotes}\n", A="one", EMPTY="", DOLLARS="$$ ${env:A}")
    assert found.resource == (("a", value),)


def test_a_variable_can_be_any_value_but_no_key(load: Load) -> None:
    text = HEAD + "limits: {streams: '${env:N}'}\nlog: {level: '${env:LEVEL}'}\nresource: {'${env:N}': x}\n"
    found = load(text, N="12", LEVEL="error")
    assert (found.max_streams, found.log.level, found.resource) == (12, "error", (("${env:N}", "x"),))


def test_a_variable_that_is_empty_leaves_the_default(load: Load) -> None:
    assert load(HEAD + "log:\n  level: ${env:L}\n  format: ${env:F:-}\n", L="").log == LogConfig()


def test_what_the_environment_says_of_the_resource_wins(load: Load) -> None:
    found = load(
        HEAD + "resource: {host.name: file, service.name: file, k: file}\n",
        OTEL_RESOURCE_ATTRIBUTES="host.name=env,service.name=env", OTEL_SERVICE_NAME="vms",
    )  # fmt: skip
    assert dict(found.resource) == {"host.name": "env", "service.name": "vms", "k": "file"}


def test_without_destinations_the_environment_names_one(load: Load) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://env:4318", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://m/api"}
    found = load(HEAD + "telemetry: {destination: environment}\n", **env)
    (destination,) = found.destinations
    assert (destination.name, found.telemetry.destination) == ("environment", "environment")
    assert destination.endpoints["traces"].url == "http://env:4318/v1/traces"
    assert destination.endpoints["metrics"].url == "http://m/api"


def test_with_destinations_the_environment_s_do_not_count(load: Load) -> None:
    found = load(
        HEAD + "destinations: {a: {endpoint: 'http://a'}}\n", OTEL_EXPORTER_OTLP_HEADERS="k=v", OTEL_EXPORTER_OTLP_TIMEOUT="x"
    )
    (destination,) = found.destinations
    assert (destination.name, destination.endpoints["traces"].headers) == ("a", ())


@pytest.mark.parametrize(
    ("env", "folder"),
    [
        ({"STATE_DIRECTORY": "/var/lib/otelbridge", "XDG_STATE_HOME": "/x", "HOME": "/h"}, "/var/lib/otelbridge"),
        ({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}, "/var/lib/a"),
        ({"STATE_DIRECTORY": "", "XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/otelbridge"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/h"}, "/h/.local/state/otelbridge"),
    ],
)
def test_the_outbox_is_where_services_keep_their_state(tmp_path: Path, env: dict[str, str], folder: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(HEAD)
    assert load_config(path, env).outbox.folder == Path(folder)
