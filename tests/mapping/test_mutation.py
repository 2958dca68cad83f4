"""No rule of the shipped mappings is there untested: without it some test of the files fails."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import pytest

from otelbridge.catalogue import builtin
from otelbridge.mapping import Mapping, MappingTest, compile_mappings, shipped_files
from otelbridge.mapping.rules import MetricRule
from otelbridge.mapping.source import Node
from otelbridge.mapping.yaml_nodes import parse
from otelbridge.pipeline.cases import run_mapping_tests

SHIPPED = {file.path: file for file in shipped_files(with_tests=True)}


class Mutant(NamedTuple):
    """A mapping that lacks one rule: which, the file it stood in, and what is left."""

    rule: str
    path: str
    mapping: Mapping


@cache
def whole() -> Mapping:
    return compile_mappings(list(SHIPPED.values()), builtin())


def entries(path: str, section: str) -> list[tuple[Node, Node]]:
    root, _ = parse(SHIPPED[path].text, path)
    assert root is not None
    return next((node.entries for key, node in root.entries if key.text == section), [])


def events_of(element: Node) -> int:
    """How many events an element of a metric names: each of them makes a rule."""
    (events,) = (node for key, node in element.entries if key.text in ("counter", "gauge", "histogram"))
    return len(events.items) if events.kind == "list" else 1


def without_elements(path: str, name: str, node: Node) -> Iterator[Mutant]:
    """For each element of a metric the mapping that lacks it."""
    elements = node.items if node.kind == "list" else [node]
    rules = [rule for rule in whole().metrics if rule.metric.name == name]
    assert len(rules) == sum(map(events_of, elements))
    for number, element in enumerate(elements, 1):
        gone, rules = rules[: events_of(element)], rules[events_of(element) :]
        left = tuple(rule for rule in whole().metrics if not is_one_of(rule, gone))
        title = name if len(elements) == 1 else f"{name}, element {number}"
        yield Mutant(title, path, whole()._replace(metrics=left))


def is_one_of(rule: MetricRule, rules: list[MetricRule]) -> bool:
    """By identity: two elements can be equal in all but what they compute."""
    return any(rule is other for other in rules)


def mutants() -> Iterator[Mutant]:
    mapping = whole()
    for span in mapping.spans:
        yield Mutant(span.id, span.path, mapping._replace(spans=tuple(s for s in mapping.spans if s is not span)))
    for machine in mapping.machines:
        left = tuple(m for m in mapping.machines if m is not machine)
        yield Mutant(machine.id, machine.path, mapping._replace(machines=left))
    for path in SHIPPED:
        for key, node in entries(path, "metrics"):
            yield from without_elements(path, key.text, node)


def is_passed(mapping: Mapping, test: MappingTest) -> bool:
    return not run_mapping_tests(mapping._replace(tests=(test,)), builtin(), [test.path])[0].differences


@cache
def passing() -> list[MappingTest]:
    """The tests that pass while no rule is missing."""
    return [test for test in whole().tests if is_passed(whole(), test)]


def is_missed(mutant: Mutant) -> bool:
    """Whether a test fails for the missing rule, looked for in the rule's own file first; one is enough."""
    return any(not is_passed(mutant.mapping, test) for test in sorted(passing(), key=lambda test: test.path != mutant.path))


def test_nothing_fails_while_no_rule_is_missing() -> None:
    assert [test.name for test in whole().tests if test not in passing()] == []


@pytest.mark.parametrize("mutant", list(mutants()), ids=lambda mutant: mutant.rule)
def test_a_rule_that_is_removed_is_missed(mutant: Mutant) -> None:
    assert is_missed(mutant), f"no test fails without '{mutant.rule}' of {mutant.path}; add one that does to its 'tests:'"
