"""The dashboards and rules that are shipped: what they ask is what otelbridge tells."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from otelbridge.stats import STATS
from tests.deploy.asking import (
    FOUND_S,
    now_s,
    prometheus_at,
    prometheus_exemplars,
    prometheus_range,
    searched,
    tempo_search,
    tempo_spans,
)
from tests.deploy.backends import DEPLOY, Backend, free_ports, get_json, prometheus, tempo
from tests.service.running import OTELBRIDGE, Running, config_for, environment, running, until

GRAFANA = DEPLOY / "grafana"
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((GRAFANA / "dashboards").glob("*.json"))}
RULES = [
    rule
    for path in sorted((GRAFANA / "rules").glob("*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
FROM_S, TO_S = 1_795_407_600, 1_795_409_400
"""All recordings are of one half hour of 2026-11-23."""
OWN = "otelbridge-itself"
LANGUAGE = {"prometheus": "${datasource}", "tempo": "${tempo}"}


class Asked(NamedTuple):
    """A query of a panel."""

    dashboard: str
    panel: dict[str, Any]
    target: dict[str, Any]

    @property
    def id(self) -> str:
        """What a failure of it is called."""
        return f"{self.dashboard}: {self.panel['title']} {self.target['refId']}"


ASKED = [
    Asked(name, panel, target) for name, one in DASHBOARDS.items() for panel in one["panels"] for target in panel["targets"]
]
OF_PROMETHEUS = [asked for asked in ASKED if asked.target["datasource"]["type"] == "prometheus"]
OF_TEMPO = [asked for asked in ASKED if asked.target["datasource"]["type"] == "tempo"]


class Filled(NamedTuple):
    """Backends that otelbridge has filled, and when it began to tell of itself."""

    prometheus: Backend
    tempo: Backend
    since_s: int
    service: Running


def recorded(shared_recordings: Path, recordings: Path) -> dict[str, tuple[Path, Path]]:
    """A name for the domain, and both hosts' logs."""
    blocktime = shared_recordings / "debian-7.2" / "postcopy-blocktime"
    return {
        "busy": (recordings / "qemu-10.2.0-log/precopy-busy/src.log", recordings / "qemu-10.2.0-log/precopy-busy/dst.log"),
        "tls": (recordings / "qemu-10.2.0-log/multifd-tls/src.log", recordings / "qemu-10.2.0-log/multifd-tls/dst.log"),
        "cancelled": (recordings / "debian-7.2/cancelled/src.log", recordings / "debian-7.2/cancelled/dst.log"),
        "failed": (recordings / "debian-7.2/tls-fail-stderr/src.log", recordings / "debian-7.2/tls-fail-stderr/dst.log"),
        "postcopy": (blocktime / "src.log.gz", blocktime / "dst.log.gz"),
    }


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, shared_recordings: Path, recordings: Path) -> Iterator[Filled]:
    """Recordings converted into Tempo and Prometheus, and a service with one good, one refusing and one absent destination."""
    folder = tmp_path_factory.mktemp("filled")
    with ExitStack() as on:
        metrics, traces = on.enter_context(prometheus(folder / "prometheus")), on.enter_context(tempo(folder / "tempo"))
        for domain, logs in recorded(shared_recordings, recordings).items():
            env = environment(
                OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{traces.otlp_http}/v1/traces",
                OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"{metrics.otlp_http}/v1/metrics",
                OTEL_RESOURCE_ATTRIBUTES=f"host.name=hv-1,qemu.domain.name={domain}",
            )
            done = subprocess.run([*OTELBRIDGE, "convert", *map(str, logs)], env=env, capture_output=True, check=False)
            assert done.returncode == 0, done.stderr
        since_s = now_s()
        destinations = {
            "prometheus": {"endpoint": metrics.otlp_http, "signals": ["metrics"]},
            "tempo": {"endpoint": f"grpc://{traces.otlp_grpc}", "signals": ["traces"]},
            "refusing": {"endpoint": metrics.otlp_http, "signals": ["traces"]},
            "absent": {"endpoint": f"http://127.0.0.1:{free_ports(1)[0]}", "signals": ["traces"]},
        }
        config = config_for(
            folder / "own", "", destinations=destinations, telemetry={"destination": "prometheus", "interval": "1s"}
        )
        service = on.enter_context(running(folder / "own", config, start=False))
        (folder / "own" / "logs").mkdir()
        (folder / "own" / "logs" / "vm.log").write_bytes((recordings / "debian-7.2/precopy-busy/src.log").read_bytes())
        service.start()
        yield Filled(metrics, traces, since_s, service)


def plain(query: str, **values: str) -> str:
    """A query with its variables replaced, as Grafana does it."""
    known = {
        "__interval": "1m", "__rate_interval": "75s", "__range": f"{TO_S - FROM_S}s", "host": ".*", "domain": ".*",
        "instance": ".*", "page_bytes": "4096", **values,
    }  # fmt: skip
    return re.sub(r"\$(\w+)", lambda match: known[match[1]], query)


def has_values(series: list[dict[str, Any]]) -> bool:
    """Whether there is a number among them."""
    found = [value for one in series for _, value in one.get("values", [one.get("value")])]
    return any(value != "NaN" for value in found)


def told(ask: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The series of a query, as soon as it has any."""
    end_s = time.monotonic() + FOUND_S
    while not has_values(found := ask()):
        assert time.monotonic() < end_s, "it returns nothing"
        time.sleep(1)
    return found


@pytest.mark.parametrize("asked", OF_PROMETHEUS, ids=lambda asked: asked.id)
def test_a_panel_shows_something_of_prometheus(filled: Filled, asked: Asked) -> None:
    query = plain(asked.target["expr"])

    def ask() -> list[dict[str, Any]]:
        if "$__range" in asked.target["expr"]:
            return prometheus_at(filled.prometheus, query, TO_S)
        begin_s, end_s, step_s = (filled.since_s, now_s(), 1) if asked.dashboard == OWN else (FROM_S, TO_S, 15)
        return prometheus_range(filled.prometheus, query, begin_s, end_s, step_s)

    found = told(ask)
    assert set(re.findall(r"{{(\w+)}}", asked.target["legendFormat"])) <= {label for one in found for label in one["metric"]}


def shown(filled: Filled, title: str, **values: str) -> list[float]:
    """The numbers that a panel of the dashboard "Migrations" shows over its range."""
    found = []
    for asked in (one for one in OF_PROMETHEUS if one.dashboard == "migrations" and one.panel["title"] == title):
        series = prometheus_range(filled.prometheus, plain(asked.target["expr"], **values), TO_S - 1, TO_S - 1, 1)
        found += [float(value) for one in series for _, value in one["values"]]
    return found


def test_the_numbers_are_those_of_the_recordings(filled: Filled) -> None:
    """Five migrations, of which one was cancelled and one failed; figures of `query-migrate` of one of them."""
    assert shown(filled, "Ended", domain="[a-z]+") == [5]
    assert shown(filled, "Failed or cancelled", domain="[a-z]+") == [0.4]
    assert shown(filled, "Ended", domain="busy") == [1]
    assert shown(filled, "Failed or cancelled", domain="busy") == [0]
    assert shown(filled, "Duration, 95 %", domain="busy") == [pytest.approx(15.603, rel=0.01)]
    assert shown(filled, "Downtime, 95 %", domain="busy") == [pytest.approx(0.080, rel=0.05)]


def test_the_dirty_rate_is_about_what_qmp_told(filled: Filled) -> None:
    """While the guest was busy `query-migrate` said between 14200 and 14900 pages a second."""
    (asked,) = [one for one in OF_PROMETHEUS if one.id == "migrations: Throughput against dirty rate B"]
    (series,) = prometheus_range(filled.prometheus, plain(asked.target["expr"], domain="busy"), FROM_S, TO_S, 1)
    assert max(float(value) for _, value in series["values"]) / 4096 == pytest.approx(14_500, rel=0.25)


@pytest.mark.parametrize("asked", [one for one in OF_PROMETHEUS if one.target["exemplar"]], ids=lambda asked: asked.id)
def test_a_panels_exemplars_are_spans_in_tempo(filled: Filled, asked: Asked) -> None:
    found = list(prometheus_exemplars(filled.prometheus, plain(asked.target["expr"]), FROM_S, TO_S))
    assert found
    ids = found[0]["labels"]
    assert ids["span_id"] in {span["spanId"] for span in tempo_spans(filled.tempo, ids["trace_id"])}


@pytest.mark.parametrize("asked", OF_TEMPO, ids=lambda asked: asked.id)
def test_a_panel_shows_something_of_tempo(filled: Filled, asked: Asked) -> None:
    query = asked.target["query"]
    traces = [one["traceID"] for one in searched(filled.tempo, '{ name = "migration" }', FROM_S, TO_S)]
    if query == "$trace_id":
        assert tempo_spans(filled.tempo, traces[0])
        return
    asks = [plain(query, trace_id=trace) for trace in traces] if "$trace_id" in query else [plain(query)]
    until(lambda: any(tempo_search(filled.tempo, one, FROM_S, TO_S) for one in asks), FOUND_S, 1.0)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("record") or rule["alert"])
def test_a_rule_is_about_something(filled: Filled, rule: dict[str, Any]) -> None:
    """An alert is asked without what it compares with, so that it must have something to compare."""
    query = re.sub(r" [<>] \d+$", "", rule["expr"])
    assert (query == rule["expr"]) == ("record" in rule)
    if rule.get("alert", "").startswith("Otelbridge"):
        found = told(lambda: prometheus_at(filled.prometheus, query, now_s()))
    else:
        found = told(lambda: prometheus_range(filled.prometheus, query, FROM_S, TO_S, 15))
    labels = {label for one in found for label in one["metric"]}
    assert set(re.findall(r"\$labels\.(\w+)", str(rule.get("annotations")))) <= labels


def test_prometheus_has_read_every_rule(filled: Filled) -> None:
    groups = get_json(f"{filled.prometheus.http}/api/v1/rules")["data"]["groups"]
    found = {rule["name"] for group in groups for rule in group["rules"]}
    assert found == {rule.get("record") or rule["alert"] for rule in RULES}


def test_the_counters_have_the_same_names_when_they_are_scraped(filled: Filled) -> None:
    """compose.yaml's Prometheus reads /metrics; here they came over OTLP."""
    url = f"{filled.prometheus.http}/api/v1/label/__name__/values"
    until(lambda: "otelbridge_export_spans_rejected_total" in filled.service.page("/metrics").decode())
    until(lambda: "otelbridge_export_spans_rejected_total" in get_json(url)["data"], 30.0, 0.5)
    page = set(re.findall(r"^(otelbridge_\w+)", filled.service.page("/metrics").decode(), re.MULTILINE))
    assert {name for name in get_json(url)["data"] if name.startswith("otelbridge_")} == page


def test_variables_offer_what_there_is_to_choose(filled: Filled) -> None:
    """`label_values(METRIC, LABEL)` is asked as Grafana asks it."""
    offered = {}
    for one in DASHBOARDS.values():
        for variable in one["templating"]["list"]:
            if variable["type"] != "query":
                continue
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]).groups()  # type: ignore[union-attr]
            url = f"{filled.prometheus.http}/api/v1/label/{label}/values"
            offered[variable["name"]] = until(lambda m=metric, u=url: get_json(u, **{"match[]": m})["data"], FOUND_S, 1.0)
    assert offered["host"] == ["hv-1"]
    assert offered["domain"] == ["busy", "cancelled", "failed", "postcopy", "tls"]
    assert len(offered["instance"]) >= 1


def test_every_counter_of_otelbridge_is_on_its_dashboard() -> None:
    text = json.dumps(DASHBOARDS[OWN])
    assert [stat.name for stat in STATS if stat.name not in text] == []


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_asks_the_source_that_its_reader_has_chosen(name: str) -> None:
    variables = {variable["name"] for variable in DASHBOARDS[name]["templating"]["list"]}
    for asked in (one for one in ASKED if one.dashboard == name):
        for source in (asked.panel["datasource"], asked.target["datasource"]):
            assert source["uid"] == LANGUAGE[source["type"]]
            assert source["uid"].strip("${}") in variables
        used = set(re.findall(r"\$(\w+)", asked.target.get("expr", "") + asked.target.get("query", "")))
        assert {one for one in used if not one.startswith("__")} <= variables


@pytest.mark.parametrize("name", DASHBOARDS)
def test_no_panel_lies_on_another(name: str) -> None:
    taken = [
        (x, y)
        for panel in DASHBOARDS[name]["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < 24


def test_the_files_are_what_the_generator_writes() -> None:
    for path, text in runpy.run_path(str(GRAFANA / "generate.py"))["files"]().items():
        assert path.read_text() == text, f"{path} is not what generate.py makes: run it"


def test_data_sources_have_the_names_that_exemplars_and_traces_lead_to() -> None:
    sources = yaml.safe_load((GRAFANA / "provisioning/datasources/datasources.yaml").read_text())["datasources"]
    (of_prometheus,) = [one for one in sources if one["type"] == "prometheus"]
    (leads_to,) = of_prometheus["jsonData"]["exemplarTraceIdDestinations"]
    assert leads_to["datasourceUid"] in {one["uid"] for one in sources if one["type"] == "tempo"}


@pytest.mark.parametrize("command", [("check", "rules"), ("test", "rules")], ids=" ".join)
def test_promtool_has_nothing_against_the_rules(need: Any, command: tuple[str, ...]) -> None:
    need("promtool", "apt install prometheus")
    file = GRAFANA / "rules" / "otelbridge.yml" if command[0] == "check" else Path(__file__).with_name("rules_test.yml")
    done = subprocess.run(["promtool", *command, file], capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stdout + done.stderr
