"""Which rules use an event, and what it is to each of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from otelbridge.mapping.rules import MachineRule, Mapping, SpanRule

How = Literal["begin", "end", "attribute", "state", "event", "metric", "role", "reason"]


class Use(NamedTuple):
    """One use of an event: `rule` is the rule's id or the metric's name, `path` the file it stands in."""

    event: str
    how: How
    rule: str
    path: str


def uses_of(mapping: Mapping) -> dict[str, list[Use]]:
    """Every use of every event, each once: spans first, then machines and metrics, in the order of the files."""
    found: dict[str, dict[Use, None]] = {}
    for use in _every(mapping):
        found.setdefault(use.event, {})[use] = None
    return {event: list(uses) for event, uses in found.items()}


def _every(mapping: Mapping) -> Iterator[Use]:
    for span in mapping.spans:
        yield from _of_span(span)
    for machine in mapping.machines:
        yield from _of_machine(machine)
    for metric in mapping.metrics:
        yield Use(metric.event, "metric", metric.metric.name, metric.path)


def _of_span(rule: SpanRule) -> Iterator[Use]:
    yield from (Use(event, "begin", rule.id, rule.path) for event in rule.begins)
    yield from (Use(event, "end", rule.id, rule.path) for event in rule.ends)
    yield from (Use(event, "attribute", rule.id, rule.path) for event in sorted(rule.told_by))
    yield from (Use(event, "event", rule.id, rule.path) for event in rule.notes)


def _of_machine(rule: MachineRule) -> Iterator[Use]:
    yield Use(rule.event, "state", rule.id, rule.path)
    yield from (Use(event, "event", rule.id, rule.path) for event in rule.notes)
    yield from (Use(event, "role", rule.id, rule.path) for event in rule.roles)
    yield from (Use(event, "reason", rule.id, rule.path) for event in rule.reasons)
