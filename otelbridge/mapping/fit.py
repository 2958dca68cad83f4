"""Whether rules can work with the events that one QEMU declares."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping as MappingType
from typing import NamedTuple

from otelbridge.catalogue import builtin
from otelbridge.catalogue.declared import declaration_text, same_form
from otelbridge.mapping.rules import MachineRule, Mapping, SpanRule
from otelbridge.mapping.uses import Use, uses_of
from otelbridge.records import EventSpec


class Dead(NamedTuple):
    """A rule that can never fire: what it is, its id, and the events that it would need, of which QEMU lacks all."""

    kind: str
    id: str
    path: str
    needs: str
    events: tuple[str, ...]


class Changed(NamedTuple):
    """An event that is declared as no known version declares it.

    Attributes:
        event: Its name.
        declared: How it is declared.
        known: How the newest known version that has it declares it.
        lost: Arguments that rules read and that it does not have.
        uses: What rules use it for.
    """

    event: str
    declared: str
    known: str
    lost: tuple[str, ...]
    uses: tuple[Use, ...]


class Lacking(NamedTuple):
    """An event that QEMU lacks, and what rules would use it for; they work without it, but tell less or by other events."""

    event: str
    uses: tuple[Use, ...]


class Fit(NamedTuple):
    """What stands between the rules and a QEMU, the worst first."""

    dead: tuple[Dead, ...]
    changed: tuple[Changed, ...]
    lacking: tuple[Lacking, ...]
    used: int
    """Events that rules name and that the QEMU has."""


def fit(mapping: Mapping, specs: Iterable[EventSpec]) -> Fit:
    """How the rules fit the events that these declarations are all of.

    Args:
        mapping: The rules, compiled for all versions of QEMU.
        specs: The declarations of the one QEMU.
    """
    declared = {spec.name: spec for spec in specs}
    uses = uses_of(mapping)
    dead = _dead(mapping, declared)
    names = {(one.kind, one.id) for one in dead}
    lacking = [
        Lacking(event, tuple(use for use in of_event if _rule_of(use) not in names))
        for event, of_event in uses.items()
        if event not in declared
    ]
    changed = [
        found
        for event, of_event in uses.items()
        if event in declared and (found := _changed(mapping, declared[event], of_event))
    ]
    return Fit(
        tuple(dead),
        tuple(sorted(changed, key=lambda one: (-len(one.lost), -len(one.uses), one.event))),
        tuple(sorted((one for one in lacking if one.uses), key=lambda one: (-len(one.uses), one.event))),
        sum(event in declared for event in uses),
    )


def _rule_of(use: Use) -> tuple[str, str]:
    if use.how in ("state", "role", "reason"):
        return "machine", use.rule
    return ("metric" if use.how == "metric" else "span"), use.rule


def _dead(mapping: Mapping, declared: MappingType[str, EventSpec]) -> list[Dead]:
    found = [one for machine in mapping.machines if (one := _dead_machine(machine, declared))]
    found += [one for span in mapping.spans if (one := _dead_span(span, declared))]
    feeds: dict[tuple[str, str], list[str]] = {}
    for rule in mapping.metrics:
        feeds.setdefault((rule.metric.name, rule.path), []).append(rule.event)
    for (name, path), events in feeds.items():
        if not declared.keys() & set(events):
            found.append(Dead("metric", name, path, "what feeds it", tuple(dict.fromkeys(events))))
    return found


def _dead_machine(rule: MachineRule, declared: MappingType[str, EventSpec]) -> Dead | None:
    return None if rule.event in declared else Dead("machine", rule.id, rule.path, "its states", (rule.event,))


def _dead_span(rule: SpanRule, declared: MappingType[str, EventSpec]) -> Dead | None:
    if not declared.keys() & rule.begins.keys():
        return Dead("span", rule.id, rule.path, "its begin", tuple(rule.begins))
    if not rule.until_next and not declared.keys() & rule.ends.keys():
        return Dead("span", rule.id, rule.path, "its end", tuple(rule.ends))
    return None


def _changed(mapping: Mapping, spec: EventSpec, uses: Iterable[Use]) -> Changed | None:
    """None for an event that is declared as some known version declares it, or that is not known."""
    known = builtin().variants(spec.name)
    if not known or any(same_form(spec, other) for other in known):
        return None
    read = {*mapping.plan.rows.get(spec.name, ()), *mapping.plan.sums.get(spec.name, ())}
    had, has = ({argument.name for argument in one.arguments} for one in (known[0], spec))
    lost = tuple(sorted((read & had) - has))
    return Changed(spec.name, declaration_text(spec), declaration_text(known[0]), lost, tuple(uses))
