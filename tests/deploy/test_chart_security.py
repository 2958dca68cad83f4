"""Pods keep to the restricted Pod Security Standard, but for what following a node's logs cannot do without.

Source: kubernetes.io, Pod Security Standards, "Restricted", as of Kubernetes 1.33.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.charts import Object, objects, of_kind, parent_chart, pod_of, render
from tests.deploy.test_chart_renders import values_for

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
KINDS = {"daemonset": "DaemonSet", "deployment": "Deployment", "job": "Job"}


def violations(pod: Object) -> Iterator[str]:
    """What the restricted standard does not allow."""
    yield from (f"{name} is shared" for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name))
    for volume in pod["volumes"]:
        yield from (f"volume of type {kind}" for kind in volume.keys() - {"name"} - VOLUMES)
    for container in (*pod["containers"], *pod.get("initContainers", ())):
        own = container["securityContext"]
        has = pod.get("securityContext", {}) | own
        yield from (f"port {one['hostPort']} of the host" for one in container.get("ports", ()) if one.get("hostPort"))
        if own.get("privileged"):
            yield "privileged"
        if own.get("allowPrivilegeEscalation") is not False:
            yield "privilege escalation"
        if "ALL" not in own.get("capabilities", {}).get("drop", ()):
            yield "capabilities are not dropped"
        yield from (f"capability {one}" for one in own["capabilities"].get("add", ()) if one != "NET_BIND_SERVICE")
        if has.get("runAsNonRoot") is not True:
            yield "may run as root"
        if has.get("runAsUser") == 0:
            yield "user 0"
        if has.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            yield "no seccomp profile"


def daemonset(**more: Any) -> Object:
    return pod_of(objects(render(values_for("daemonset", ("persistence",)) | more)), "DaemonSet")


@pytest.mark.parametrize("mode", ["deployment", "job"])
def test_pods_on_volumes_are_restricted(mode: str) -> None:
    assert not list(violations(pod_of(objects(render(values_for(mode, ("persistence", "existing", "tls")))), KINDS[mode])))


def test_a_pod_with_the_sidecar_is_restricted(tmp_path: Path) -> None:
    assert not list(violations(of_kind(objects(render({}, parent_chart(tmp_path))), "Pod")["spec"]))


def test_the_collector_is_restricted() -> None:
    assert not list(violations(pod_of(objects(render(values_for("daemonset", ("persistence",)))), "StatefulSet")))


def test_a_node_s_logs_need_its_folders_root_and_one_capability() -> None:
    assert set(violations(daemonset())) == {
        "volume of type hostPath", "may run as root", "user 0", "capability DAC_READ_SEARCH",
    }  # fmt: skip


def test_where_a_group_may_read_the_logs_only_the_node_s_folders_are_left() -> None:
    assert set(violations(daemonset(presets={"rootOnlyLogs": {"enabled": False}}))) == {"volume of type hostPath"}


@pytest.mark.parametrize("mode", KINDS)
def test_nothing_can_be_written_but_state_and_temporary_files(mode: str) -> None:
    (container,) = pod_of(objects(render(values_for(mode, ("tls",)))), KINDS[mode])["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert {one["mountPath"] for one in container["volumeMounts"] if not one.get("readOnly")} == {"/tmp", "/var/lib/otelbridge"}  # noqa: S108


@pytest.mark.parametrize("mode", KINDS)
def test_no_pod_holds_a_token_of_the_kubernetes_api(mode: str) -> None:
    found = objects(render(values_for(mode, ())))
    assert not any(one.get("automountServiceAccountToken", True) for one in found if one["kind"] == "ServiceAccount")
    assert not pod_of(found, KINDS[mode])["automountServiceAccountToken"]
