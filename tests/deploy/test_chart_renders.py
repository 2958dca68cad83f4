"""Every combination of the chart's switches is rendered and linted by Helm, and taken by Kubernetes' own schemas."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.charts import (
    CHART,
    KUBERNETES,
    MODES,
    Object,
    faults,
    helm,
    objects,
    of_kind,
    parent_chart,
    render,
    values_in,
)

SWITCHES = ("podMonitor", "serviceMonitor", "networkPolicy", "existing", "tls", "persistence")
COMBINATIONS = [
    tuple(itertools.compress(SWITCHES, on)) for on in itertools.product((False, True), repeat=len(SWITCHES))
]  # fmt: skip
BASE = {
    "image": {"repository": "registry.example.com/otelbridge"},
    "logs": {"volume": {"persistentVolumeClaim": {"claimName": "vm-logs"}}},
    "job": {"conversions": [{"files": ["a.log"]}, {"source": ["b.log"], "destination": ["c.log"]}], "parallelism": 2},
}
TLS = {
    "ca": "/run/secrets/otelbridge/ca.crt",
    "cert": "/run/secrets/otelbridge/tls.crt",
    "key": "/run/secrets/otelbridge/tls.key",
}
EVERYWHERE = {
    "tempo": {"enabled": True},
    "jaeger": {"enabled": True, "endpoint": "http://jaeger:4318"},
    "prometheus": {"enabled": True},
}


def values_for(mode: str, on: tuple[str, ...]) -> dict[str, Any]:
    """The values of one combination. Without TLS it goes to the chart's own Collector."""
    found: dict[str, Any] = {**BASE, "mode": mode, "persistence": {"enabled": "persistence" in on}}
    for monitor in ("podMonitor", "serviceMonitor", "networkPolicy"):
        found[monitor] = {"enabled": monitor in on}
    found["service"] = {"enabled": "serviceMonitor" in on}
    found["podDisruptionBudget"] = {"enabled": "networkPolicy" in on}
    if "existing" in on:
        found["configMap"] = {"create": False, "existingName": "there-already"}
        found["persistence"]["existingClaim"] = "there-already"
        found["extraEnvsFrom"] = [{"secretRef": {"name": "there-already"}}]
    if "tls" in on:
        found["existingSecret"] = {"name": "client-certificate"}
        found["config"] = {"destinations": {"far": {"endpoint": "grpcs://far.example.com:4317", "tls": TLS}}}
        found["job"] = BASE["job"] | {"to": ["grpcs://far.example.com:4317"]}
    else:
        found["collector"] = {"enabled": True, "exporters": EVERYWHERE, "persistence": {"enabled": "persistence" in on}}
    return found


@cache
def all_objects() -> dict[str, Object]:
    """Every object that any combination renders, each once, by its JSON."""
    found = [values_for(mode, on) for mode in MODES for on in COMBINATIONS]
    found += [*values_in("ci").values(), *values_in("examples").values()]
    return {json.dumps(one, sort_keys=True): one for values in found for one in objects(render(values))}


def lint(values: dict[str, Any], version: str, chart: Path = CHART) -> Iterator[str]:
    """What `helm lint --strict` says, but for the picture that the chart does not have."""
    report = helm().lint(chart, values, strict=True, namespace="virt", kube_version=f"v{version}.0")
    assert not report["errors"]
    yield from (one["error"] for one in report["messages"] if one["error"] != "icon is recommended")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("on", COMBINATIONS, ids="-".join)
def test_every_combination_passes_the_strict_linter(mode: str, on: tuple[str, ...]) -> None:
    assert not list(lint(values_for(mode, on), "1.37"))


@pytest.mark.parametrize("version", ["1.29", "1.33", "1.37"])
@pytest.mark.parametrize("name", values_in("ci") | values_in("examples"))
def test_shipped_values_pass_the_strict_linter_of_every_kubernetes(name: str, version: str) -> None:
    assert not list(lint((values_in("ci") | values_in("examples"))[name], version))


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_every_object(version: str) -> None:
    assert not [fault for one in all_objects().values() for fault in faults(one, version)]


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_a_pod_with_the_sidecar(version: str, tmp_path: Path) -> None:
    found = objects(render({}, parent_chart(tmp_path)))
    assert {one["kind"] for one in found} == {"ConfigMap", "Pod"}
    assert not [fault for one in found for fault in faults(one, version)]


@pytest.mark.parametrize("mode", MODES)
def test_names_that_look_like_numbers_stay_names(mode: str) -> None:
    number = "1234"
    named = {
        "nameOverride": number, "fullnameOverride": number, "priorityClassName": number, "image": {"repository": number},
        "configMap": {"create": False, "existingName": number}, "existingSecret": {"name": number},
        "serviceAccount": {"create": False, "name": number}, "persistence": {"existingClaim": number},
    }  # fmt: skip
    found = objects(
        render(values_for(mode, ("podMonitor", "networkPolicy", "persistence")) | named, name=number, namespace=number)
    )
    assert not [fault for one in found for fault in faults(one, "newest")]


@pytest.mark.parametrize("mode", MODES)
def test_the_longest_name_of_a_release_leaves_room_for_what_kubernetes_adds(mode: str) -> None:
    """A StatefulSet's name and a hash of 10 become a label, a Job's name and an index the name of a host: 63 at most."""
    added = {"StatefulSet": len("-0123456789"), "Job": len("-99999")}
    for one in objects(render(values_for(mode, ("persistence", "serviceMonitor")), name="r" * 53)):
        assert len(one["metadata"]["name"]) + added.get(one["kind"], 0) <= 63


@pytest.mark.parametrize("version", KUBERNETES)
def test_a_field_that_kubernetes_does_not_have_is_seen(version: str) -> None:
    job = of_kind(objects(render(values_for("job", ()))), "Job")
    job["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    assert "imagePullPolice" in "".join(faults(job, version))


@pytest.mark.parametrize(
    ("mode", "on", "kinds"),
    [
        ("daemonset", ("podMonitor", "serviceMonitor"), {"DaemonSet", "PodMonitor", "Service", "ServiceMonitor"}),
        ("daemonset", ("networkPolicy",), {"DaemonSet", "NetworkPolicy"}),
        ("deployment", ("persistence", "networkPolicy"), {"Deployment", "PersistentVolumeClaim", "NetworkPolicy",
                                                          "PodDisruptionBudget"}),
        ("deployment", ("persistence", "existing"), {"Deployment"}),
        ("job", ("podMonitor",), {"Job"}),
        ("sidecar", ("podMonitor", "networkPolicy"), set()),
    ],
)  # fmt: skip
def test_switches_bring_what_they_say(mode: str, on: tuple[str, ...], kinds: set[str]) -> None:
    common = set() if mode == "sidecar" else {"ServiceAccount"}
    common |= set() if "existing" in on else {"ConfigMap"}
    assert {one["kind"] for one in objects(render(values_for(mode, (*on, "tls"))))} == kinds | common


@pytest.mark.parametrize("mode", ["daemonset", "deployment", "job"])
def test_selectors_find_the_pods_and_nothing_else(mode: str) -> None:
    """A selector that also fits the Collector's pods would send probes, metrics and disruptions astray."""
    found = objects(render(values_for(mode, ("podMonitor", "serviceMonitor", "networkPolicy"))))
    pods = {one["kind"]: one["spec"]["template"]["metadata"]["labels"] for one in found if "template" in one.get("spec", {})}
    assert len(pods) == 2
    for one in found:
        labels = _selected(one)
        if labels:
            fits = [kind for kind, has in pods.items() if labels.items() <= has.items()]
            is_the_collectors = one["metadata"]["name"].endswith("-collector")
            assert fits == ["StatefulSet" if is_the_collectors else next(kind for kind in pods if kind != "StatefulSet")]


def _selected(one: Object) -> dict[str, str]:
    selector = one["spec"].get("selector", one["spec"].get("podSelector", {})) if "spec" in one else {}
    return dict(selector.get("matchLabels", selector))
