"""Every rule with what it makes: for a list on a screen, and for the reference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from otelbridge.mapping import language
from otelbridge.mapping.rules import Duration, MachineRule, Mapping, MetricRule, SpanRule
from otelbridge.records import INTERNAL, Metric

_KIND_WORDS = {number: word for word, number in language.KINDS.items()}


class Listed(NamedTuple):
    """A rule: `span`, `machine` or `metric`, its id, the file it stands in, and the names of what it makes."""

    kind: str
    id: str
    path: str
    makes: tuple[str, ...]


def listing(mapping: Mapping) -> list[Listed]:
    """All rules, in the order of spans, machines and metrics, each as in the files; a metric once, whatever feeds it."""
    found = [Listed("machine", rule.id, rule.path, _of_machine(rule)) for rule in mapping.machines]
    found += [Listed("span", rule.id, rule.path, _of_span(rule)) for rule in mapping.spans]
    metrics = dict.fromkeys((rule.metric.name, rule.path, _metric(rule.metric)) for rule in mapping.metrics)
    return found + [Listed("metric", name, path, (made,)) for name, path, made in metrics]


def _of_span(rule: SpanRule) -> tuple[str, ...]:
    return (f"span {rule.name}", *_durations(rule.duration))


def _of_machine(rule: MachineRule) -> tuple[str, ...]:
    more = [_metric(rule.active)] if rule.active else []
    more += [_metric(rule.completed[0])] if rule.completed else []
    return (f"span {rule.id}", f"span {rule.id}.<state>", *_durations(rule.duration, rule.state_duration), *more)


def _durations(*durations: Duration | None) -> list[str]:
    return [_metric(duration.metric) for duration in durations if duration]


def _metric(metric: Metric) -> str:
    return f"{instrument(metric)} {metric.name}"


def instrument(metric: Metric) -> str:
    """`counter`, `up-down counter`, `gauge` or `histogram`."""
    if metric.kind != "sum":
        return metric.kind
    return "counter" if metric.monotonic else "up-down counter"


# --- the reference ------------------------------------------------------------------------------------


def reference(mapping: Mapping) -> str:
    """The tables of all spans and metrics that the rules make, in Markdown."""
    spans = [*(row for rule in mapping.machines for row in _machine_rows(rule)), *(_span_row(rule) for rule in mapping.spans)]
    parts = [
        "### Spans\n\n| span | kind | begins with | ends with | attributes |\n|---|---|---|---|---|",
        *spans,
        "\n### Metrics\n\n| metric | kind | unit | attributes | description |\n|---|---|---|---|---|",
        *_metric_rows(mapping),
    ]
    return "\n".join(parts) + "\n"


def _machine_rows(rule: MachineRule) -> Iterator[str]:
    kinds = ", ".join(f"{_KIND_WORDS[kind]} ({role})" for role, kind in rule.kinds.items()) or _KIND_WORDS[INTERNAL]
    attributes = [name for name, _ in rule.attributes] + [name for name, _, _ in rule.by_state]
    starts, finals = _codes(rule.starts), _codes(rule.finals)
    yield _row(rule.id, kinds, f"`{rule.event}`: {starts}", f"`{rule.event}`: {finals}", _codes(attributes))
    states = _codes(name for name, _ in rule.state_attributes)
    yield _row(f"{rule.id}.<state>", _KIND_WORDS[INTERNAL], f"`{rule.event}`", "the next state", states)


def _span_row(rule: SpanRule) -> str:
    ends = "the next one, or the end of its parent" if rule.until_next else _codes(rule.ends)
    return _row(rule.name, _KIND_WORDS[rule.kind], _codes(rule.begins), ends, _codes(span_attributes(rule)))


def span_attributes(rule: SpanRule) -> list[str]:
    """The names of the attributes that spans of the rule can have, in the order of the file."""
    pairs = [(begin, end) for begin in rule.begins for end in (None, *rule.ends)]
    names = dict.fromkeys(name for pair in pairs for name, _ in rule.attributes(*pair))
    return list(dict.fromkeys([*names, *(name for name, _ in rule.ordinals)]))


def _metric_rows(mapping: Mapping) -> list[str]:
    """The instruments by name, each with all attributes that its series are kept apart by."""
    metrics: dict[str, Metric] = {}
    attributes: dict[str, dict[str, None]] = {}
    for metric, names in _instruments(mapping):
        metrics.setdefault(metric.name, metric)
        attributes.setdefault(metric.name, {}).update(dict.fromkeys(names))
    return [
        _row(name, instrument(metric), f"`{metric.unit}`", _codes(attributes[name]), metric.description)
        for name, metric in sorted(metrics.items())
    ]


def _instruments(mapping: Mapping) -> Iterator[tuple[Metric, Iterable[str]]]:
    for metric in mapping.metrics:
        yield metric.metric, _attributes_of(metric)
    durations = [rule.duration for rule in mapping.spans]
    for machine in mapping.machines:
        durations += [machine.duration, machine.state_duration]
        if machine.active:
            yield machine.active, ()
        if machine.completed:
            yield machine.completed
    yield from ((duration.metric, duration.by) for duration in durations if duration)


def _attributes_of(rule: MetricRule) -> list[str]:
    return [name for name, _ in rule.attributes]


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _row(name: str, *cells: str) -> str:
    return "| " + " | ".join([f"`{name}`", *(cell.replace("|", "\\|") for cell in cells)]) + " |"
