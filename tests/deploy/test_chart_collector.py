"""The Collector that the chart brings is configured so that the real one takes it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.backends import collector_program
from tests.deploy.charts import collector_config_of, config_of, objects, render, values_in
from tests.deploy.test_chart_renders import values_for

RENDERED = {
    "matrix": values_for("daemonset", ("persistence",)),
    **{name: values for name, values in (values_in("ci") | values_in("examples")).items() if "collector" in values},
}


def rendered(name: str) -> Any:
    return collector_config_of(objects(render(RENDERED[name])))


def said_to(config: Any, folder: Path) -> str:
    """What `validate` says against a configuration; nothing where it is taken."""
    (folder / "relay.yaml").write_text(yaml.safe_dump(config))
    command = [collector_program(), "validate", "--config", folder / "relay.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env={"TEMPO_AUTHORIZATION": "x"})
    return "" if done.returncode == 0 else done.stderr


@pytest.mark.parametrize("name", RENDERED)
def test_the_real_collector_takes_the_configuration(name: str, tmp_path: Path) -> None:
    assert not said_to(rendered(name), tmp_path)


def test_the_real_collector_refuses_a_misspelt_option(tmp_path: Path) -> None:
    config = rendered("matrix")
    config["processors"]["memory_limiter"]["limit_percent"] = 80
    assert "limit_percent" in said_to(config, tmp_path)


@pytest.mark.parametrize(
    ("exporters", "signals"),
    [(["tempo"], ["traces"]), (["prometheus"], ["metrics"]), (["jaeger", "prometheus"], ["traces", "metrics"])],
)
def test_bridges_send_only_what_the_collector_passes_on(exporters: list[str], signals: list[str]) -> None:
    values = values_for("daemonset", ()) | {
        "collector": {"enabled": True, "exporters": {one: {"enabled": True} for one in exporters}}
    }
    found = objects(render(values))
    assert config_of(found)["destinations"]["collector"]["signals"] == signals
    assert sorted(collector_config_of(found)["service"]["pipelines"]) == sorted(signals)


def test_every_queue_is_on_disk_and_on_a_volume() -> None:
    config = rendered("matrix")
    assert {one["sending_queue"]["storage"] for one in config["exporters"].values()} == {"file_storage"}
    (found,) = [one for one in objects(render(RENDERED["matrix"])) if one["kind"] == "StatefulSet"]
    (container,) = found["spec"]["template"]["spec"]["containers"]
    (mount,) = [one for one in container["volumeMounts"] if one["name"] == "queue"]
    assert config["extensions"]["file_storage"]["directory"].startswith(f"{mount['mountPath']}/")
    assert [one["metadata"]["name"] for one in found["spec"]["volumeClaimTemplates"]] == ["queue"]


def test_points_of_several_requests_are_not_put_into_one() -> None:
    """Prometheus refuses all of a request for one point that is too old."""
    queue = rendered("matrix")["exporters"]["otlp_http/prometheus"]["sending_queue"]
    assert "batch" not in queue
    assert queue["num_consumers"] == 1
