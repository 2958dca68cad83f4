"""What the chart renders is taken by otelbridge itself: its configuration, and the command lines of a Job."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from otelbridge.service.config.parse import load_config
from tests.deploy.charts import CHART, config_of, objects, of_kind, parent_chart, pod_of, render, values_in
from tests.deploy.test_chart_renders import COMBINATIONS, values_for
from tests.otlp.test_tls import Authority
from tests.service.running import environment

SERVICE = {name: values for name, values in (values_in("ci") | values_in("examples")).items() if values["mode"] != "job"}


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `existingSecret` would be mounted."""
    folder = tmp_path_factory.mktemp("secrets")
    authority = Authority.make(folder, "ca")
    certificate, key = authority.issue("client", "localhost")
    (folder / "ca.crt").write_bytes((folder / "ca.pem").read_bytes())
    certificate.rename(folder / "tls.crt")
    key.rename(folder / "tls.key")
    (folder / "token").write_text("hunter2\n")
    return folder


def configured(values: Any, folder: Path, secrets: Path) -> Path:
    """The rendered otelbridge.yaml as a file, with the secrets where they are here."""
    path = folder / "otelbridge.yaml"
    text = yaml.safe_dump(config_of(objects(render(values))))
    path.write_text(text.replace("/run/secrets/otelbridge", str(secrets)), "utf-8")
    return path


@pytest.mark.parametrize("name", SERVICE)
def test_run_check_takes_the_rendered_configuration(name: str, tmp_path: Path, secrets: Path) -> None:
    command = [sys.executable, "-m", "otelbridge", "run", "--check", "--config", configured(SERVICE[name], tmp_path, secrets)]
    env = environment(OTEL_K8S_NODE_NAME="node-1", OTEL_EXPORTER_OTLP_ENDPOINT="http://collector:4318")
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["outbox"]["folder"] == "/var/lib/otelbridge/outbox"


@pytest.mark.parametrize("mode", ["daemonset", "deployment", "sidecar"])
def test_every_combination_gives_a_configuration_that_can_be_loaded(mode: str, tmp_path: Path, secrets: Path) -> None:
    for on in COMBINATIONS:
        if "existing" not in on:
            config = load_config(configured(values_for(mode, on), tmp_path, secrets), {"OTEL_K8S_NODE_NAME": "node-1"})
            assert [one.name for one in config.destinations] == ["far" if "tls" in on else "collector"]
            assert (config.health.host, config.health.port) == ("0.0.0.0", 13133)  # noqa: S104  # what probes reach


@pytest.mark.parametrize("mode", ["daemonset", "deployment"])
def test_the_service_ends_by_itself_before_it_is_killed(mode: str, tmp_path: Path, secrets: Path) -> None:
    values = values_for(mode, ()) | {"terminationGracePeriodSeconds": 90}
    assert load_config(configured(values, tmp_path, secrets), {}).grace_ns == 85 * 10**9
    assert (
        pod_of(objects(render(values)), {"daemonset": "DaemonSet"}.get(mode, "Deployment"))["terminationGracePeriodSeconds"]
        == 90
    )


def test_a_node_s_name_is_the_host_of_its_traces(tmp_path: Path, secrets: Path) -> None:
    config = load_config(configured(values_for("daemonset", ()), tmp_path, secrets), {"OTEL_K8S_NODE_NAME": "node-1"})
    assert dict(config.resource) == {"host.name": "node-1", "k8s.node.name": "node-1"}


@pytest.mark.parametrize("mode", ["daemonset", "deployment", "sidecar"])
def test_what_is_read_and_kept_is_mounted(mode: str, tmp_path: Path) -> None:
    """A folder of the configuration without a volume would be an empty one, or of a read-only file system."""
    values = values_for(mode, ("tls", "persistence"))
    chart = parent_chart(tmp_path) if mode == "sidecar" else CHART
    found = objects(render({"otelbridge": values} if mode == "sidecar" else values, chart))
    config = config_of(found)
    pod = (
        of_kind(found, "Pod")["spec"]
        if mode == "sidecar"
        else pod_of(found, {"daemonset": "DaemonSet"}.get(mode, "Deployment"))
    )
    (container,) = [one for one in (*pod["containers"], *pod.get("initContainers", ())) if one["name"] == "otelbridge"]
    mounts = {one["mountPath"]: one for one in container["volumeMounts"]}
    assert {one["name"] for one in mounts.values()} <= {one["name"] for one in pod["volumes"]}
    for path in (*(one["files"][0] for one in config["inputs"]), *config["destinations"]["far"]["tls"].values()):
        (mount,) = [mount for mount in mounts if path.startswith(f"{mount}/")]
        assert mounts[mount]["readOnly"]
    assert "readOnly" not in mounts[os.path.dirname(config["outbox"]["folder"])]  # noqa: PTH120  # a path of the container


def test_a_changed_configuration_starts_new_pods() -> None:
    def checksum(**config: Any) -> Any:
        values = values_for("daemonset", ()) | {"config": config}
        return of_kind(objects(render(values)), "DaemonSet")["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    assert checksum(log={"level": "debug"}) != checksum(log={"level": "info"}) == checksum(log={"level": "info"})


# --- a Job's conversions --------------------------------------------------------------------------------


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A folder of programs as the image has them on its PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "python3").symlink_to(sys.executable)
    (folder / "otelbridge").write_text(f'#!/bin/sh\nexec {sys.executable} -m otelbridge "$@"\n')
    (folder / "otelbridge").chmod(0o755)
    return folder


def test_each_completion_of_a_job_converts_what_stands_under_its_index(tmp_path: Path, image: Path, recordings: Path) -> None:
    values = values_for("job", ("tls",)) | {
        "logs": {"mountPath": str(recordings), "volume": {"emptyDir": {}}},
        "job": {
            "to": [f"file:{tmp_path}/out"],
            "conversions": [
                {"files": ["nothing.log"]},
                {"source": ["debian-7.2/precopy-busy/src.log"], "destination": ["debian-7.2/precopy-busy/dst.log"]},
            ],
        },
    }
    found = objects(render(values))
    for name, text in of_kind(found, "ConfigMap")["data"].items():
        (tmp_path / name).write_text(text)
    job = of_kind(found, "Job")["spec"]
    (container,) = job["template"]["spec"]["containers"]

    def run(index: int) -> subprocess.CompletedProcess[str]:
        command = [
            word.replace("$(JOB_COMPLETION_INDEX)", str(index)).replace("/conf", str(tmp_path)) for word in container["command"]
        ]
        env = environment(PATH=f"{image}:/usr/bin:/bin")
        return subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=120)

    done = run(1)
    assert done.returncode == 0, done.stderr
    assert "Delivered" in done.stderr
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert run(0).returncode in (2, 4), "a file that is not there"
    assert (job["completionMode"], job["completions"]) == ("Indexed", 2)


def test_an_upgrade_that_changes_nothing_converts_nothing_again() -> None:
    def name(**job: Any) -> Any:
        values = values_for("job", ("tls",))
        return of_kind(objects(render(values | {"job": values["job"] | job})), "Job")["metadata"]["name"]

    assert name() == name() != name(conversions=[{"files": ["other.log"]}])
