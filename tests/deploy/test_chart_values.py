"""Wrong values are refused with their place, and the schema of the values knows exactly what there is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

import otelbridge
from otelbridge.service.config import keys
from tests.deploy.charts import CHART, objects, of_kind, pod_of, refusal, render
from tests.service.test_config_example import all_lines

GOOD = """
mode: daemonset
image: {repository: registry.example.com/otelbridge}
config: {destinations: {collector: {endpoint: "http://collector:4318"}}}
"""
SCHEMA = json.loads((CHART / "values.schema.json").read_text("utf-8"))


def with_good(text: str) -> dict[str, Any]:
    return merged(yaml.safe_load(GOOD), yaml.safe_load(text))


def merged(one: Any, other: Any) -> Any:
    if not isinstance(one, dict) or not isinstance(other, dict):
        return other
    return {key: merged(one.get(key), other[key]) if key in other else one[key] for key in one | other}


@pytest.mark.parametrize(
    ("wrong", "place", "found"),
    [
        ("mode: statefulset", "/mode", "'daemonset'"),
        ("imagee: {}", "at ''", "'imagee' not allowed"),
        ("image: {repo: x}", "/image", "'repo' not allowed"),
        ("image: {digest: latest}", "/image/digest", "'latest'"),
        ("replicaCount: 2", "/replicaCount", "maximum: got 2, want 1"),
        ("terminationGracePeriodSeconds: 3", "/terminationGracePeriodSeconds", "minimum: got 3"),
        ("presets: {libvirtLogs: {hostPath: logs}}", "/presets/libvirtLogs/hostPath", "'logs'"),
        ("config: {inputs: [{fils: a}]}", "/config/inputs/0", "'fils' not allowed"),
        ("config: {inputs: [{files: a, pipe: b}]}", "/config/inputs/0", "oneOf"),
        ("config: {inputs: [{files: a, from: middle}]}", "/config/inputs/0/from", "'start', 'end'"),
        ("config: {inputs: [{files: a, idle_timeout: 10}]}", "/config/inputs/0/idle_timeout", "got number, want string"),
        ("config: {outbox: {limit: 256MB}}", "/config/outbox/limit", "'256MB'"),
        ("config: {health: {address: somewhere}}", "/config/health/address", "'somewhere'"),
        ("config: {shutdown: {grace: soon}}", "/config/shutdown/grace", "'soon'"),
        ("config: {destinations: {tempo: {endpoint: 'tempo:4317'}}}", "/config/destinations/tempo/endpoint", "'tempo:4317'"),
        ("config: {destinations: {tempo: {signals: [traces]}}}", "/config/destinations/tempo", "missing property 'endpoint'"),
        ("job: {conversions: [{files: [/etc/passwd]}]}", "/job/conversions/0/files/0", "'/etc/passwd'"),
        ("job: {conversions: [{}]}", "/job/conversions/0", "minProperties"),
        ("job: {to: ['tempo:4317']}", "/job/to/0", "'tempo:4317'"),
        ("ports: {health: {containerPort: 70000}}", "/ports/health/containerPort", "maximum: got 70,000"),
        ("extraEnvs: {A: b}", "/extraEnvs", "got object, want array"),
        ("podAnnotations: {a: 1}", "/podAnnotations/a", "got number, want string"),
        ("collector: {exporters: {loki: {}}}", "/collector/exporters", "'loki' not allowed"),
        ("collector: {exporters: {tempo: {endpoint: tempo}}}", "/collector/exporters/tempo/endpoint", "'tempo'"),
        ("collector: {persistence: {size: much}}", "/collector/persistence/size", "'much'"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(wrong: str, place: str, found: str) -> None:
    said = refusal(with_good(wrong))
    (line,) = [line for line in said.splitlines() if found in line]
    assert place in line


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ("{}", "mode is empty: expected daemonset, deployment, job or sidecar"),
        ("mode: daemonset", "image.repository is empty"),
        ("{mode: daemonset, image: {repository: a}}", "config.destinations is empty"),
        ("{mode: deployment, image: {repository: a}}", "logs.volume is empty"),
        ("{mode: job, image: {repository: a}}", "job.conversions is empty"),
        ("{mode: job, image: {repository: a}, job: {conversions: [{files: [a]}]}}", "job.to is empty"),
        ("{mode: daemonset, image: {repository: a}, collector: {enabled: true}}", "collector.exporters: none is enabled"),
        ("{mode: daemonset, image: {repository: a}, configMap: {create: false}}", "configMap.existingName"),
        (GOOD + "presets: {libvirtLogs: {enabled: false}}", "config.inputs is empty"),
        (GOOD + "serviceMonitor: {enabled: true}", "serviceMonitor.enabled needs service.enabled"),
    ],
)
def test_what_is_missing_is_said_and_how_to_give_it(values: str, says: str) -> None:
    assert says in refusal(yaml.safe_load(values))


@pytest.mark.parametrize("name", ["authorization", "Authorization", "x-api-key", "PRIVATE-TOKEN", "cookie"])
@pytest.mark.parametrize("where", ["config: {destinations: {collector: HEADERS}}", "collector: {exporters: {tempo: HEADERS}}"])
def test_a_secret_is_not_put_into_a_configmap(where: str, name: str) -> None:
    headers = f'{{headers: {{{name}: "Basic dm06aHVudGVyMg=="}}}}'
    assert f"/headers/{name}" in refusal(with_good(where.replace("HEADERS", headers)))


@pytest.mark.parametrize(
    "where",
    [
        "config: {destinations: {collector: {endpoint: URL}}}",
        "collector: {exporters: {tempo: {endpoint: URL}}}",
        "job: {to: [URL]}",
    ],
)
def test_an_address_with_a_password_is_not_put_into_a_configmap(where: str) -> None:
    assert "does not match pattern" in refusal(with_good(where.replace("URL", "https://vm:hunter2@tempo.example.com")))


def test_a_header_may_come_from_the_environment_or_a_file() -> None:
    headers = '{authorization: "Bearer ${env:TOKEN}", x-api-key: {file: /run/secrets/otelbridge/key}, x-scope-orgid: vms}'
    found = objects(render(with_good(f"config: {{destinations: {{collector: {{headers: {headers}}}}}}}")))
    assert "Bearer ${env:TOKEN}" in of_kind(found, "ConfigMap")["data"]["otelbridge.yaml"]


def test_a_digest_wins_over_a_tag_and_a_tag_over_the_version_of_the_chart() -> None:
    def image(**more: str) -> Any:
        values = with_good("{}") | {"image": {"repository": "example.com/otelbridge"} | more}
        return pod_of(objects(render(values)), "DaemonSet")["containers"][0]["image"]

    digest = f"sha256:{'0' * 64}"
    assert image() == f"example.com/otelbridge:{otelbridge.__version__}"
    assert image(tag="edge") == "example.com/otelbridge:edge"
    assert image(tag="edge", digest=digest) == f"example.com/otelbridge@{digest}"


def test_null_removes_what_the_mode_gives() -> None:
    found = objects(render(with_good("{config: {log: null}, podSecurityContext: {runAsUser: null}}")))
    assert "log:" not in of_kind(found, "ConfigMap")["data"]["otelbridge.yaml"]
    assert "runAsUser" not in pod_of(found, "DaemonSet")["securityContext"]


def test_the_schema_knows_every_option_of_the_service() -> None:
    config, destination = SCHEMA["definitions"]["config"]["properties"], SCHEMA["definitions"]["destination"]["properties"]
    sections = {
        "": config,
        "inputs": config["inputs"]["items"]["properties"],
        "destinations": destination,
        "headers": SCHEMA["definitions"]["headerFile"]["properties"],
        "tls": destination["tls"]["properties"],
        **{name: config[name]["properties"] for name in ("outbox", "limits", "telemetry", "health", "log", "shutdown")},
    }
    assert {name: set(section) for name, section in sections.items()} == {
        name: set(section) for name, section in keys.SECTIONS.items()
    }


def test_the_commented_example_of_the_service_can_be_given_as_config() -> None:
    assert render(with_good("config: {}") | {"config": yaml.safe_load("\n".join(all_lines()))})


def test_every_value_that_the_schema_allows_stands_in_values_yaml() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    assert set(unlisted(SCHEMA, values, "")) == {"/global"}


def unlisted(schema: Any, value: Any, place: str) -> Iterator[str]:
    """Places that the schema of an object of ours names, and the values do not have."""
    if "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
    if place == "/config" or not isinstance(value, dict):
        return
    for name, inner in schema.get("properties", {}).items():
        if name in value:
            yield from unlisted(inner, value[name], f"{place}/{name}")
        elif not place.endswith("/resources"):
            yield f"{place}/{name}"
