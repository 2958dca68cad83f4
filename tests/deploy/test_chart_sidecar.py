"""The sidecar in somebody else's pod starts before its containers and ends after them."""

from __future__ import annotations

from pathlib import Path

from tests.deploy.charts import objects, of_kind, parent_chart, refusal, render


def test_it_is_a_native_sidecar_that_the_pod_waits_for(tmp_path: Path) -> None:
    pod = of_kind(objects(render({}, parent_chart(tmp_path))), "Pod")["spec"]
    (sidecar,) = pod["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["startupProbe"]["httpGet"] == {"path": "/healthz", "port": "health"}
    assert [one["containerPort"] for one in sidecar["ports"] if one["name"] == "health"] == [13133]


def test_it_reads_the_folder_that_qemu_writes_to_and_cannot_write_there(tmp_path: Path) -> None:
    pod = of_kind(objects(render({}, parent_chart(tmp_path))), "Pod")["spec"]
    mounts = {
        one["name"]: mount.get("readOnly", False)
        for one in (*pod["containers"], *pod["initContainers"])
        for mount in one["volumeMounts"]
        if mount["name"] == "qemu-logs"
    }
    assert mounts == {"qemu": False, "otelbridge": True}


def test_its_volumes_have_names_of_their_own(tmp_path: Path) -> None:
    pod = of_kind(objects(render({}, parent_chart(tmp_path))), "Pod")["spec"]
    names = [one["name"] for one in pod["volumes"]]
    assert sorted(names) == ["otelbridge-config", "otelbridge-state", "otelbridge-tmp", "qemu-logs"]


def test_another_mode_cannot_be_included(tmp_path: Path) -> None:
    said = refusal({"otelbridge": {"mode": "daemonset"}}, parent_chart(tmp_path))
    assert 'mode is "daemonset": the template otelbridge.sidecar needs `mode: sidecar`' in said
