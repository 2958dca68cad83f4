"""Reads `metrics:`: which events feed an instrument with what, and whether readers may count and sum for it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from otelbridge.mapping import language
from otelbridge.mapping.binding import Layout
from otelbridge.mapping.evaluators import argument, first
from otelbridge.mapping.events import condition_text
from otelbridge.mapping.expressions import Expression, compile_expression
from otelbridge.mapping.readers import FileReaders
from otelbridge.mapping.rules import Arguments, Evaluate, MetricRule, Now
from otelbridge.mapping.source import Node
from otelbridge.records import Metric, Value

_UNIT = re.compile(r"[!-~]{1,63}")
_OPERATIONS: dict[str, Literal["add", "set", "record"]] = {"counter": "add", "gauge": "set", "histogram": "record"}
_KINDS: dict[str, Literal["sum", "gauge", "histogram"]] = {"counter": "sum", "gauge": "gauge", "histogram": "histogram"}


class MetricReader:
    """Reads the metric rules of one file."""

    def __init__(self, readers: FileReaders) -> None:
        self._readers = readers
        self._nodes, self._binder = readers.nodes, readers.binder

    def read(self, key_node: Node, node: Node) -> list[MetricRule]:
        """The rules that feed one instrument, one for each event."""
        return [rule for part in self._nodes.some(node, f"'{key_node.text}'") for rule in self._rules(key_node, part)]

    def _rules(self, key_node: Node, node: Node) -> list[MetricRule]:
        keys = self._nodes.keys(node, language.METRIC, f"the metric '{key_node.text}'", key_node)
        word = self._kind(key_node, keys)
        if word is None:
            return []
        metric = self._instrument(key_node, keys, word)
        events = [e for e in (self._binder.event(part) for part in self._nodes.some(keys[word], f"'{word}'")) if e]
        limit = self._readers.instruments.limit(keys.get("limit"))
        found = []
        for place, event in enumerate(events):
            with self._nodes.noted_once(again=place > 0):
                rule = self._rule(metric, event, events, _OPERATIONS[word], keys, limit)
            if rule is not None:
                found.append(rule)
        return found

    def _kind(self, key_node: Node, keys: dict[str, Node]) -> str | None:
        """`counter`, `gauge` or `histogram`, with what goes with it."""
        kinds = [word for word in _OPERATIONS if word in keys]
        if len(kinds) != 1:
            self._nodes.problem(
                key_node,
                f"the metric '{key_node.text}' has {' and '.join(kinds) or 'no counter, gauge or histogram'}",
                "one of them says which event feeds it: 'counter: EVENT'",
            )
            return None
        word = kinds[0]
        operation = _OPERATIONS[word]
        for other in set(_OPERATIONS.values()) & keys.keys() - {operation}:
            self._nodes.problem(keys[other], f"a {word} has no '{other}'", f"use '{operation}'")
        if operation != "add" and operation not in keys:
            self._nodes.problem(
                key_node, f"a {word} needs '{operation}'", f"write '{operation}: …' ({language.METRIC[operation].form})"
            )
            return None
        return word

    def _instrument(self, key_node: Node, keys: dict[str, Node], word: str) -> Metric:
        unit = self._nodes.text(keys["unit"], "a unit") if "unit" in keys else "1"
        if unit and not _UNIT.fullmatch(unit):
            self._nodes.problem(keys["unit"], f"'{unit}' is no UCUM unit", "for example By, s, {page}")
        text = self._nodes.text(keys["description"], "a text") if "description" in keys else ""
        return self._readers.instruments.instrument(
            key_node, key_node.text, _KINDS[word], unit, text, monotonic=word == "counter"
        )

    def _rule(
        self,
        metric: Metric,
        event: str,
        events: Sequence[str],
        operation: Literal["add", "set", "record"],
        keys: dict[str, Node],
        limit: int,
    ) -> MetricRule | None:
        value: Evaluate | None = None
        names: tuple[str, ...] = ()
        where = self._binder.one(event)
        given: list[Expression] = []
        if operation in keys:
            given = self._binder.any_of(keys[operation], {"": events}, f"'{operation}'")
            if not given or not self._numbers(keys[operation], given, events):
                return None
            if operation == "add" and all(e.plain_name for e in given):
                plain = [e.plain_name for e in given if e.plain_name and self._binder.has([event], e.plain_name)]
                if all(self._binder.is_never_negative([event], name) for name in plain):
                    names = tuple(plain)
            # What is only summed must not make its event a row; it gets its place when all rules are known.
            summed = names and "when" not in keys
            value = _unplaced if summed else first([compile_expression(e, where) for e in given])
        attributes, constant = [], True
        for key, node in self._readers.attributes.named(keys.get("attributes"), language.RESERVED_IN_METRICS):
            attribute = self._readers.attributes.attribute(node, {"": events}, where)
            if attribute is not None:
                attributes.append((key.text, attribute[0]))
                constant = constant and attribute[1]
        when = self._readers.events.when(keys.get("when"), event)
        path = self._readers.path
        rule = MetricRule(
            metric, event, operation, value, names, when, tuple(attributes), constant, limit, path, condition_text(keys)
        )
        if rule.from_counts:
            return rule
        self._binder.row(event)
        return rule._replace(value=first([compile_expression(e, where) for e in given])) if value is _unplaced else rule

    def _numbers(self, node: Node, expressions: Sequence[Expression], events: Sequence[str]) -> bool:
        """Whether all expressions give numbers."""
        for part, expression in zip(self._nodes.some(node, ""), expressions, strict=True):
            if self._binder.check(expression, {"": events}, one_of_many=True) == "text":
                self._nodes.problem(
                    part, f"'{expression.text}' is text, but a metric takes numbers", "name an argument that is a number"
                )
                return False
        return True


def _unplaced(_begin: Arguments, _end: Arguments | None, _now: Now) -> Value | None:
    """Stands for an argument that readers sum."""
    return None


def placed(rule: MetricRule, layout: Layout) -> MetricRule:
    """A rule that sums an argument reads it from the row where other rules make the event a row all the same."""
    if not (rule.from_counts and rule.argument and rule.event in layout.rows):
        return rule
    places = [layout.place(rule.event, name) for name in rule.argument]
    return rule._replace(value=first([argument(place) for place in places]))


def summed_arguments(rules: Sequence[MetricRule], rows: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    """The arguments that are summed without a row, by event."""
    sums: dict[str, tuple[str, ...]] = {}
    for rule in rules:
        if rule.from_counts and rule.argument and rule.event not in rows:
            sums[rule.event] = tuple(dict.fromkeys((*sums.get(rule.event, ()), *rule.argument)))
    return sums
