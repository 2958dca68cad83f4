"""The Helm chart as its users have it: rendered by Helm's own engine, without a cluster.

Helm comes from PyPI's `helm-python-sdk`, the schemas of Kubernetes from `kubernetes-validate`.
"""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from tests.deploy.backends import DEPLOY, missing

CHART = DEPLOY / "helm" / "otelbridge"
MODES = ("daemonset", "deployment", "job", "sidecar")
KUBERNETES = ("1.29", "1.33", "newest")

Values = Mapping[str, Any]
Object = dict[str, Any]


def need_module(name: str, package: str) -> ModuleType:
    """A module that only tests of the chart need."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        missing(f"{name} cannot be imported ({error}): pip install {package}, which there is for Linux on x86_64 alone")


# --- Helm ---------------------------------------------------------------------------------------------


def helm() -> Any:
    """Helm's engine."""
    return need_module("helm_python", "helm-python-sdk")


@cache
def _chart(folder: Path) -> Any:
    return helm().Chart.load(folder)


def render(values: Values, chart: Path = CHART, *, name: str = "example", namespace: str = "virt") -> dict[str, str]:
    """What Helm makes of the values, by the template's path in the chart; NOTES.txt is among them."""
    found = _chart(chart).render(dict(values), name=name, namespace=namespace)
    return {path.partition("/templates/")[2]: text.strip() + "\n" for path, text in found.items() if text.strip()}


def objects(rendered: Mapping[str, str]) -> list[Object]:
    """The objects that would be installed, those of embedded charts too."""
    return [found for path, text in rendered.items() if path != "NOTES.txt" for found in yaml.safe_load_all(text) if found]


def refusal(values: Values, chart: Path = CHART) -> str:
    """What Helm says to values that it does not take."""
    with pytest.raises(helm().HelmError) as caught:
        render(values, chart)
    return str(caught.value)


def of_kind(found: list[Object], kind: str, name: str = "") -> Object:
    """The one object of a kind whose name ends so."""
    (one,) = [each for each in found if each["kind"] == kind and each["metadata"]["name"].endswith(name)]
    return one


def config_of(found: list[Object]) -> Any:
    """otelbridge.yaml of the ConfigMap."""
    (text,) = [each["data"]["otelbridge.yaml"] for each in found if "otelbridge.yaml" in each.get("data", {})]
    return yaml.safe_load(text)


def collector_config_of(found: list[Object]) -> Any:
    """The Collector's configuration of its ConfigMap."""
    return yaml.safe_load(of_kind(found, "ConfigMap", "-collector")["data"]["relay.yaml"])


def pod_of(found: list[Object], kind: str) -> Object:
    """The specification of the pods that an object makes."""
    spec: Object = of_kind(found, kind)["spec"]["template"]["spec"]
    return spec


def parent_chart(folder: Path) -> Path:
    """The example of a chart that includes the sidecar, with its dependency in place."""
    parent = folder / "one-vm"
    shutil.copytree(CHART / "examples" / "sidecar", parent, ignore=shutil.ignore_patterns("rendered"))
    shutil.copytree(CHART, parent / "charts" / "otelbridge", ignore=shutil.ignore_patterns("examples", "ci"))
    return parent


def values_in(folder: str) -> dict[str, Any]:
    """All files of values in `ci` or `examples`, by name; the sidecar's example is a chart of its own."""
    pattern = "*-values.yaml" if folder == "ci" else "*/values.yaml"
    return {
        str(path.relative_to(CHART)): yaml.safe_load(path.read_text("utf-8"))
        for path in sorted((CHART / folder).glob(pattern))
        if path.parent.name != "sidecar"
    }


# --- what is valid ------------------------------------------------------------------------------------


@cache
def _validator(version: str, kind: str, api_version: str) -> Any:
    """A strict validator of one kind, as `kubernetes-validate --strict` makes it, kept.

    Raises:
        FileNotFoundError: That Kubernetes has no such kind.
    """
    registry = _definitions(version) @ Registry()
    group = api_version.partition("/")[0].partition(".")[0] + "-" if "/" in api_version else ""
    name = f"{kind.lower()}-{group}{api_version.rpartition('/')[2]}.json"
    return Draft202012Validator(json.loads((_schemas(version) / name).read_text("utf-8")), registry=registry)


def _schemas(version: str) -> Path:
    utils = need_module("kubernetes_validate.utils", "kubernetes-validate")
    found = [one for one in utils.all_versions() if version in (utils.major_minor(one), "newest")]
    return Path(utils.__file__).parent / "kubernetes-json-schema" / f"v{found[-1]}-local-strict"


@cache
def _definitions(version: str) -> Any:
    return Resource.from_contents(json.loads((_schemas(version) / "_definitions.json").read_text("utf-8")))


_NAMED = {"type": "object", "additionalProperties": {"type": "string"}}
_ENDPOINT = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"port": {"type": "string"}, "path": {"type": "string"}, "interval": {"type": "string"}},
}


def _monitor(endpoints: str) -> Object:
    """What of the Prometheus operator's definitions the chart uses: no registry of packages has them."""
    selector = {"type": "object", "additionalProperties": False, "properties": {"matchLabels": _NAMED}}
    spec = {
        "type": "object",
        "additionalProperties": False,
        "required": ["selector", endpoints],
        "properties": {"selector": selector, endpoints: {"type": "array", "items": _ENDPOINT, "minItems": 1}},
    }
    return {"type": "object", "required": ["metadata", "spec"], "properties": {"spec": spec}}


MONITORS = {"PodMonitor": _monitor("podMetricsEndpoints"), "ServiceMonitor": _monitor("endpoints")}


def faults(found: Object, version: str) -> Iterator[str]:
    """What a Kubernetes of that version would not take, with its place in the object."""
    kind, api_version = found["kind"], found["apiVersion"]
    if kind in MONITORS:
        assert api_version == "monitoring.coreos.com/v1"
        validator = Draft202012Validator(MONITORS[kind])
    else:
        validator = _validator(version, kind, api_version)
    for error in validator.iter_errors(found):
        yield f"{kind} {found['metadata']['name']}: {error.json_path}: {error.message}"
