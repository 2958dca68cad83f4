"""Writes the dashboards beside it, `dashboards/*.json`, and the rules for Prometheus, `rules/otelbridge.yml`.

    python deploy/grafana/generate.py

A QEMU process is a series of its own, and most migrate once: their counters and histograms come up with what happened, and
`rate()` and `increase()` say 0. So what happened in a window is its last value less the last one before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from otelbridge.stats import STATS, Stat

FOLDER = Path(__file__).parent
PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}
TEMPO = {"type": "tempo", "uid": "${tempo}"}
WHERE = 'host_name=~"$host",qemu_domain_name=~"$domain"'
SENT = 'qemu_migration_role!="destination"'
"""The destination counts the same migration once more."""
WIDTH = 24
_BEFORE = "1d"
_LINK = {"title": "One migration", "url": "/d/otelbridge-migration?var-trace_id=${__value.raw}&${__url_time_range}"}
TO_ONE_MIGRATION = {
    "matcher": {"id": "byName", "options": "traceID"},
    "properties": [{"id": "links", "value": [_LINK]}],
}
"""Of a list of traces: the id leads to the dashboard that shows it."""


def happened(metric: str, labels: str, window: str) -> str:
    """A counter's or histogram's growth in a window, also where its series came up in it."""
    series = f"{metric}{{{labels}}}"
    last = f"last_over_time({series}[{window}])"
    return f"({last} - last_over_time({series}[{_BEFORE}] offset {window}) or {last})"


def quantile(share: float, metric: str, window: str, *, by: str = "", labels: str = WHERE) -> str:
    """A quantile of the durations of a window."""
    grouped = f"sum by ({by})" if by else "sum"
    return f"histogram_quantile({share}, {grouped} ({happened(metric, labels, window)}))"


@dataclass(frozen=True)
class Panel:
    """A panel of a dashboard.

    Attributes:
        title: Above it.
        targets: PromQL or TraceQL with what its series are called.
        unit: Grafana's name of it.
        kind: Grafana's name of the visualisation.
        text: What the reader should know.
        size: Width and height in the dashboard's grid.
        exemplars: Whether single spans are shown on it.
        bars: Whether values are drawn one by one.
    """

    title: str
    targets: Sequence[tuple[str, str]]
    unit: str = "short"
    kind: str = "timeseries"
    text: str = ""
    size: tuple[int, int] = (12, 8)
    exemplars: bool = False
    bars: bool = False

    def as_json(self, x: int, y: int) -> dict[str, Any]:
        """The panel as Grafana has it, at a place of the grid."""
        is_tempo = self.kind in {"traces", "table"}
        source = TEMPO if is_tempo else PROMETHEUS
        make = self._traces if is_tempo else self._series
        return {
            "type": self.kind,
            "title": self.title,
            "description": self.text,
            "datasource": source,
            "gridPos": {"x": x, "y": y, "w": self.size[0], "h": self.size[1]},
            "fieldConfig": {
                "defaults": {"unit": self.unit, **self._drawing()},
                "overrides": [TO_ONE_MIGRATION] if is_tempo else [],
            },
            "options": self._options(),
            "targets": [
                {"refId": chr(ord("A") + number), "datasource": source, **make(query, legend)}
                for number, (query, legend) in enumerate(self.targets)
            ],
        }

    def _series(self, query: str, legend: str) -> dict[str, Any]:
        is_instant = self.kind in {"stat", "bargauge"}
        which = {"instant": True, "range": False} if is_instant else {"range": True, "interval": "1m"}
        return {"expr": query, "legendFormat": legend, "exemplar": self.exemplars, **which}

    def _traces(self, query: str, legend: str) -> dict[str, Any]:
        return {"queryType": "traceql", "query": query, "tableType": legend, "limit": 50, "spss": 20}

    def _drawing(self) -> dict[str, Any]:
        if self.kind != "timeseries":
            return {}
        style: dict[str, Any] = {"drawStyle": "bars", "fillOpacity": 80, "stacking": {"mode": "normal"}}
        return {"custom": style if self.bars else {"drawStyle": "line", "showPoints": "always", "spanNulls": 120_000}, "min": 0}

    def _options(self) -> dict[str, Any]:
        if self.kind == "timeseries":
            return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
        if self.kind in {"stat", "bargauge"}:
            return {"reduceOptions": {"calcs": ["lastNotNull"]}, "orientation": "horizontal"}
        return {}


def placed(panels: Sequence[Panel]) -> Iterator[dict[str, Any]]:
    """The panels in rows, each as high as its highest."""
    x = y = height = 0
    for number, panel in enumerate(panels, 1):
        if x + panel.size[0] > WIDTH:
            x, y, height = 0, y + height, 0
        yield {"id": number, **panel.as_json(x, y)}
        x, height = x + panel.size[0], max(height, panel.size[1])


def source_variable(name: str, kind: str, label: str) -> dict[str, Any]:
    """A choice among the data sources of a kind."""
    return {"type": "datasource", "name": name, "label": label, "query": kind, "current": {}, "hide": 0}


def label_variable(name: str, label: str, query: str) -> dict[str, Any]:
    """A choice among the values of a label; all, also series without it, unless chosen."""
    return {
        "type": "query", "name": name, "label": label, "datasource": PROMETHEUS, "query": query, "refresh": 2, "sort": 1,
        "includeAll": True, "multi": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"},
    }  # fmt: skip


def text_variable(name: str, label: str, value: str) -> dict[str, Any]:
    """A text that the reader writes."""
    current = {"text": value, "value": value}
    return {"type": "textbox", "name": name, "label": label, "query": value, "current": current}


SOURCES = (source_variable("datasource", "prometheus", "Prometheus"), source_variable("tempo", "tempo", "Tempo"))
HOST = label_variable("host", "Host", "label_values(qemu_migration_completed_total, host_name)")
DOMAIN = label_variable("domain", "Domain", "label_values(qemu_migration_completed_total, qemu_domain_name)")
PAGE_BYTES = text_variable("page_bytes", "Page size (bytes)", "4096")
THROUGHPUT = f"sum(avg_over_time(qemu_migration_throughput_bytes_per_second{{{WHERE}}}[1m]))"


def dirty_rate(labels: str, window: str, step_s: int) -> str:
    """Pages a second that passes found dirty, each pass a sample; the window or as much of it as the migration has run."""
    pages = f"qemu_migration_dirty_pages{{{labels}}}"
    return f"sum_over_time({pages}[{window}]) / (count_over_time({pages}[{window}:{step_s}s]) * {step_s})"


DIRTY_RATE = f"sum({dirty_rate(WHERE, '1m', 1)}) * $page_bytes"


def dashboard(uid: str, title: str, variables: Sequence[dict[str, Any]], panels: Sequence[Panel]) -> dict[str, Any]:
    """A dashboard as Grafana 10 and newer read it."""
    links = {"type": "dashboards", "title": "otelbridge", "tags": ["otelbridge"], "asDropdown": True, "keepTime": True}
    return {
        "uid": uid,
        "title": title,
        "tags": ["otelbridge", "qemu"],
        "schemaVersion": 42,
        "version": 1,
        "editable": True,
        "timezone": "browser",
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "1m",
        "links": [links],
        "annotations": {"list": []},
        "templating": {"list": list(variables)},
        "panels": list(placed(panels)),
    }


def quantiles(metric: str, labels: str = WHERE) -> list[tuple[str, str]]:
    """The median and the slowest twentieth."""
    return [(quantile(share, metric, "$__interval", labels=labels), name) for share, name in ((0.5, "median"), (0.95, "95 %"))]


def migrations() -> dict[str, Any]:
    """How migrations go, over all hosts."""
    completed, duration = "qemu_migration_completed_total", "qemu_migration_duration_seconds"
    downtime, section = "qemu_migration_downtime_duration_seconds", "qemu_migration_section_duration_seconds"
    state = "qemu_migration_state_duration_seconds"
    of_source = f"{WHERE},{SENT}"
    not_completed = f'{WHERE},qemu_migration_state!="completed"'
    small = (4, 4)
    ended = f"sum({happened(completed, of_source, '$__range')})"
    failures = f"sum({happened(completed, f'{not_completed},{SENT}', '$__range')})"
    panels = [
        Panel("Ended", [(ended, "")], kind="stat", size=small, text="Migrations that came to an end, in the range."),
        Panel(
            "Failed or cancelled", [(f"({failures} or 0 * {ended}) / {ended}", "")], "percentunit", "stat", size=small,
            text="Their share of all that ended.",
        ),
        Panel(
            "Running", [(f"sum(qemu_migration_active{{{WHERE}}})", "")], kind="stat", size=small,
            text="Both hosts count a migration.",
        ),
        Panel(
            "Duration, 95 %", [(quantile(0.95, duration, "$__range", labels=of_source), "")], "s", "stat", size=small
        ),
        Panel("Downtime, 95 %", [(quantile(0.95, downtime, "$__range"), "")], "s", "stat", size=small),
        Panel(
            "Passes a migration", [(f"sum({happened('qemu_migration_passes_total', WHERE, '$__range')}) / {ended}", "")],
            kind="stat", size=small, text="How often the guest's memory was gone through.",
        ),
        Panel(
            "Migrations ended",
            [(f"sum by (qemu_migration_state) ({happened(completed, of_source, '$__interval')})", "{{qemu_migration_state}}")],
            bars=True,
        ),
        Panel(
            "Failures by state",
            [
                (
                    f"sum by (qemu_migration_state, qemu_migration_role) ({happened(completed, not_completed, '$__interval')})",
                    "{{qemu_migration_role}} {{qemu_migration_state}}",
                )
            ],
            bars=True, text="The state that a migration ended in, on each side, where it is not `completed`.",
        ),
        Panel(
            "Duration", quantiles(duration, of_source), "s", exemplars=True, text="Click a point for its trace.",
        ),
        Panel(
            "Downtime", quantiles(downtime), "s", exemplars=True,
            text="From when the guest was stopped on the source; click a point for its trace.",
        ),
        Panel(
            "Throughput against dirty rate", [(THROUGHPUT, "throughput"), (DIRTY_RATE, "dirty rate")], "Bps",
            text="A migration comes to an end when it sends faster than the guest writes. The dirty rate is what "
            "the passes of the last minute found.",
        ),
        Panel(
            "Time in each state",
            [
                (
                    f"histogram_avg(sum by (qemu_migration_state) ({happened(state, WHERE, '$__interval')}))",
                    "{{qemu_migration_state}}",
                )
            ],
            "s", text="The mean.",
        ),
        Panel(
            "Passes", [(f"sum({happened('qemu_migration_passes_total', WHERE, '$__interval')})", "passes")], bars=True
        ),
        Panel("Bitmap synchronisation", quantiles("qemu_migration_bitmap_sync_duration_seconds"), "s", exemplars=True),
        Panel(
            "Slowest sections",
            [(f"topk(15, {quantile(1, section, '$__range', by='qemu_migration_section')})", "{{qemu_migration_section}}")],
            "s", "bargauge", size=(12, 10), text="The longest time that one section of a device took in the range.",
        ),
        Panel(
            "Page faults after the switch to postcopy", quantiles("qemu_migration_postcopy_fault_duration_seconds"), "s",
            size=(12, 10), exemplars=True, text="How long the guest waited for a page of the other host.",
        ),
        Panel("TLS handshakes", quantiles("qemu_migration_tls_handshake_duration_seconds"), "s", exemplars=True),
        Panel(
            "Migrations that failed", [('{ name = "migration" && status = error }', "traces")], kind="table",
            text="Click a trace's id to see it.",
        ),
        Panel(
            "Longest downtimes", [('{ name = "migration.downtime" && duration > 50ms }', "spans")], kind="table",
        ),
        Panel("Slowest page faults", [('{ name = "postcopy.fault" && duration > 1ms }', "spans")], kind="table"),
    ]  # fmt: skip
    return dashboard("otelbridge-migrations", "Migrations", [*SOURCES, HOST, DOMAIN, PAGE_BYTES], panels)


def one_migration() -> dict[str, Any]:
    """A migration's trace and what it did over its time."""
    of_trace = 'trace:id = "$trace_id"'
    panels = [
        Panel(
            "Migrations of the domain",
            [('{ name = "migration" && resource.qemu.domain.name =~ "$domain" && kind = client }', "traces")],
            kind="table", size=(24, 7), text="Click a trace's id to see it below.",
        ),
        Panel("Trace", [("$trace_id", "traces")], kind="traces", size=(24, 16)),
        Panel("Remaining", [(f"qemu_migration_remaining_bytes{{{WHERE}}}", "{{qemu_domain_name}} {{instance}}")], "bytes"),
        Panel("Throughput against dirty rate", [(THROUGHPUT, "throughput"), (DIRTY_RATE, "dirty rate")], "Bps"),
        Panel("Dirty pages a pass", [(f"qemu_migration_dirty_pages{{{WHERE}}}", "{{qemu_domain_name}} {{instance}}")]),
        Panel("Transferred", [(f"qemu_migration_transferred_bytes_total{{{WHERE}}}", "{{instance}}")], "bytes"),
        Panel(
            "States", [(f'{{ {of_trace} && name =~ "migration[.].+" }} | select(span.qemu.migration.state)', "spans")],
            kind="table",
        ),
        Panel(
            "Sections, sent",
            [(f'{{ {of_trace} && name = "savevm.section" }} | select(span.qemu.migration.section)', "spans")], kind="table",
        ),
        Panel(
            "Sections, loaded",
            [(f'{{ {of_trace} && name = "loadvm.section" }} | select(span.qemu.migration.section)', "spans")], kind="table",
        ),
        Panel("Errors", [(f"{{ {of_trace} && status = error }} | select(span.error.type)", "spans")], kind="table"),
    ]  # fmt: skip
    variables = [*SOURCES, HOST, DOMAIN, text_variable("trace_id", "Trace", ""), PAGE_BYTES]
    return dashboard("otelbridge-migration", "One migration", variables, panels)


_SUFFIX = {"By": "_bytes", "s": "_seconds"}
WHOSE = 'instance=~"$instance"'


def series_of(stat: Stat) -> str:
    """The name of a counter in Prometheus."""
    name = stat.name.replace(".", "_")
    unit = "" if name.endswith("_bytes") else _SUFFIX.get(stat.unit, "")
    return name + unit + ("_total" if stat.kind == "sum" else "")


def named(stats: Sequence[Stat]) -> str:
    """A matcher of several counters."""
    return '__name__=~"' + "|".join(series_of(stat) for stat in stats) + '"'


LOSSES = [stat for stat in STATS if stat.severity == "data-loss"]
NOTICES = [stat for stat in STATS if stat.severity == "notice"]
_OTHERS = [stat for stat in STATS if stat.severity == "info" and stat.kind != "histogram"]
_UNITS = {"By": "bytes", "s": "s"}


def own_panel(stat: Stat) -> Panel:
    """What a counter did, a line for each of its series."""
    legend = " ".join(f"{{{{{name}}}}}" for name in ("instance", *stat.attributes))
    series = f"{series_of(stat)}{{{WHOSE}}}"
    unit = _UNITS.get(stat.unit, "short")
    if stat.kind == "gauge":
        return Panel(stat.name, [(series, legend)], unit, text=stat.text, size=(8, 7))
    rate_unit = {"bytes": "Bps"}.get(unit, "cps")
    rate = f"rate({series}[$__rate_interval])"
    return Panel(f"{stat.name}, a second", [(rate, legend)], rate_unit, text=stat.text, size=(8, 7))


def otelbridge_itself() -> dict[str, Any]:
    """The service's own counters."""
    latency = f"otelbridge_export_latency_seconds_bucket{{{WHOSE}}}"
    in_all = "sum by (__name__, instance, destination, signal, reason) ({%s," + WHOSE + "})"
    panels = [
        Panel(
            "Data lost, in all", [(in_all % named(LOSSES), "{{__name__}} {{instance}} {{destination}} {{reason}}")],
            size=(12, 9), text="Something is missing from the result because of it. " + "; ".join(map(words, LOSSES)),
        ),
        Panel(
            "Worth a look, in all", [(in_all % named(NOTICES), "{{__name__}} {{instance}} {{destination}}")],
            size=(12, 9), text="; ".join(map(words, NOTICES)),
        ),
        Panel(
            "otelbridge.export.latency, 95 %",
            [
                (
                    f"histogram_quantile(0.95, sum by (le, destination, signal) (rate({latency}[$__rate_interval])))",
                    "{{destination}} {{signal}}",
                )
            ],
            "s", size=(8, 7), text=next(stat.text for stat in STATS if stat.kind == "histogram"),
        ),
        *map(own_panel, _OTHERS),
    ]  # fmt: skip
    instance = label_variable("instance", "Service", "label_values(otelbridge_service_uptime_seconds, instance)")
    return dashboard("otelbridge-itself", "otelbridge itself", [*SOURCES[:1], instance], panels)


def words(stat: Stat) -> str:
    """A counter and what it means."""
    return f"{stat.name}: {stat.text.rstrip('.')}"


def rules() -> dict[str, Any]:
    """Recording and alert rules."""
    completed, downtime = "qemu_migration_completed_total", "qemu_migration_downtime_duration_seconds"
    by = "host_name, qemu_domain_name"
    failed = happened(completed, 'qemu_migration_state="failed"', "15m")
    dirty = f"sum by ({by}) ({dirty_rate('', '5m', 5)}) * 4096"
    counter = '"counter", "$1", "__name__", "otelbridge_(.+)_total"'
    lost = f"label_replace({{{named(LOSSES)}}}, {counter})"
    lost_before = f"label_replace(last_over_time({{{named(LOSSES)}}}[{_BEFORE}] offset 15m), {counter})"
    recording = [
        {
            "record": "qemu:migration_ended:increase1h",
            "expr": f"sum by (host_name, qemu_migration_role, qemu_migration_state) ({happened(completed, '', '1h')})",
        },
        {"record": "qemu:migration_active:sum", "expr": "sum by (host_name) (qemu_migration_active)"},
        {
            "record": "qemu:migration_duration_seconds:p95_1d",
            "expr": quantile(0.95, "qemu_migration_duration_seconds", "1d", by="host_name, qemu_migration_role", labels=""),
        },
        {"record": "qemu:migration_downtime_seconds:p95_1d", "expr": quantile(0.95, downtime, "1d", by="host_name", labels="")},
    ]
    migration_alerts = [
        alert(
            "QemuMigrationFailed",
            f"sum by ({by}, qemu_migration_role) ({failed}) > 0",
            "A migration of {{ $labels.qemu_domain_name }} failed on its {{ $labels.qemu_migration_role }}.",
            "Its trace's root span has the reason, and the state before is the last child.",
        ),
        alert(
            "QemuMigrationRunsLong", f"max by ({by}) (qemu_migration_active) > 0",
            "A migration of {{ $labels.qemu_domain_name }} has run for half an hour.",
            "Compare its throughput with its dirty rate on the dashboard `One migration`.", wait="30m",
        ),
        alert(
            "QemuMigrationDoesNotConverge",
            f"({dirty}) / sum by ({by}) (avg_over_time(qemu_migration_throughput_bytes_per_second[5m])) > 1",
            "{{ $labels.qemu_domain_name }} writes to its memory faster than it is sent.",
            "Raise max-bandwidth or allow auto-converge or postcopy. A page is taken for 4 KiB.",
            wait="5m",
        ),
        alert(
            "QemuMigrationDowntimeHigh", f"{quantile(1, downtime, '15m', by=by, labels='')} > 1",
            "{{ $labels.qemu_domain_name }} stood still for {{ $value | humanizeDuration }}.",
            "The spans below migration.downtime say which device took the time.",
        ),
    ]  # fmt: skip
    own_alerts = [
        alert(
            "OtelbridgeDown", 'up{job="otelbridge"} < 1', "otelbridge on {{ $labels.instance }} does not answer.",
            "Ask its log; what it has not read yet is lost when the logs rotate away.", wait="5m", severity="critical",
        ),
        alert(
            "OtelbridgeLosesData", f"{lost} - ({lost_before} or 0 * {lost}) > 0",
            "otelbridge on {{ $labels.instance }} lost data: {{ $labels.counter }} rose by {{ $value }}.",
            "The counter's meaning is in the README's list; /status and the log say which input or destination.",
        ),
        alert(
            "OtelbridgeFallsBehind", "otelbridge_reader_delay_seconds > 300",
            "otelbridge on {{ $labels.instance }} is {{ $value | humanizeDuration }} behind {{ $labels.input }}.",
            "Either its outbox is full, or it has too little CPU.", wait="5m",
        ),
        alert(
            "OtelbridgeDestinationRefusesOrIsAway", "min_over_time(otelbridge_outbox_pending_requests[15m]) > 0",
            "Requests of otelbridge on {{ $labels.instance }} wait for {{ $labels.destination }}.",
            "The log has the last answer. Nothing is lost until the outbox is full.", wait="15m",
        ),
        alert(
            "OtelbridgeReloadRefused", "increase(otelbridge_service_reloads_refused_total[15m]) > 0",
            "otelbridge on {{ $labels.instance }} goes on with its old configuration.",
            "The log lists what is wrong in the new one.",
        ),
    ]  # fmt: skip
    return {
        "groups": [
            {"name": "qemu-migrations", "rules": recording},
            {"name": "qemu-migrations-alerts", "rules": migration_alerts},
            {"name": "otelbridge-alerts", "rules": own_alerts},
        ]
    }


def alert(name: str, expr: str, summary: str, todo: str, *, wait: str = "0m", severity: str = "warning") -> dict[str, Any]:
    """An alert rule."""
    about = {"summary": summary, "description": todo}
    return {"alert": name, "expr": expr, "for": wait, "labels": {"severity": severity}, "annotations": about}


def files() -> dict[Path, str]:
    """Everything that is generated, by its path."""
    dashboards = {"migrations": migrations(), "one-migration": one_migration(), "otelbridge-itself": otelbridge_itself()}
    head = "# Written by generate.py beside this folder.\n"
    return {
        **{FOLDER / "dashboards" / f"{name}.json": json.dumps(one, indent=1) + "\n" for name, one in dashboards.items()},
        FOLDER / "rules" / "otelbridge.yml": head + yaml.safe_dump(rules(), sort_keys=False, width=120),
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
