"""Reads what a rule does with events: under which condition, with which error, and which of them it notes in a span."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from otelbridge.mapping import language
from otelbridge.mapping.attributes import AttributeReader
from otelbridge.mapping.binding import Binder
from otelbridge.mapping.evaluators import by_begin
from otelbridge.mapping.expressions import (
    Expression,
    Reference,
    Template,
    Where,
    compile_expression,
    compile_template,
    parse_expression,
)
from otelbridge.mapping.key import Key
from otelbridge.mapping.nodes import NodeReader
from otelbridge.mapping.rules import Evaluate, Failure, NoteOn
from otelbridge.mapping.source import Node


class EventWith(NamedTuple):
    """An event that a rule names, and what stands below it."""

    node: Node
    event: str
    keys: dict[str, Node]


def condition_text(keys: Mapping[str, Node]) -> str:
    """`when` as it is written, empty for none."""
    return keys["when"].text if "when" in keys else ""


def _told(event: str, condition: Expression | None) -> Template:
    """The description of an error that a mapping gives none: `savevm_section_end: ret < 0 (ret -5)`."""
    if condition is None:
        return Template((event,))
    names = dict.fromkeys(f"{reference.side}.{reference.name}".lstrip(".") for reference in condition.references)
    pieces: list[str | Expression] = [f"{event}: {condition.text}"]
    for place, name in enumerate(names):
        pieces += [f"{', ' if place else ' ('}{name} ", parse_expression(name)]
    return Template((*pieces, ")") if names else tuple(pieces))


class EventReader:
    """Reads events with what stands below them."""

    def __init__(self, nodes: NodeReader, binder: Binder, attributes: AttributeReader) -> None:
        self._nodes, self._binder, self._attributes = nodes, binder, attributes

    def each_with(self, node: Node, section: language.Section, what: str) -> list[EventWith]:
        """Events that stand alone, in a list, or with conditions."""
        nodes, binder = self._nodes, self._binder
        found = []
        if node.kind == "map":
            for key, value in nodes.entries(node, what):
                event = binder.event(key)
                for part in nodes.some(value, what):
                    keys = nodes.keys(part, section, f"'{key.text}'") if part.kind != "null" else {}
                    if event:
                        found.append(EventWith(key, binder.row(event), keys))
            return found
        for part in nodes.some(node, what):
            event = binder.event(part)
            if event:
                found.append(EventWith(part, binder.row(event), {}))
        return found

    def when(self, node: Node | None, event: str) -> Evaluate | None:
        """The condition that one event is under, None for always."""
        expression = None if node is None else self._binder.condition(node, {"": [event]})
        return None if expression is None else compile_expression(expression, self._binder.one(event))

    def failure(self, node: Node | None, event: str, begins: Sequence[str]) -> Failure | None:
        """`{when, type, message}` of an event that ends, or is noted in, a span that one of `begins` began."""
        if node is None:
            return None
        keys = self._nodes.keys(node, language.ERROR, "'error'") if node.kind != "null" else {}
        sides: dict[str, Sequence[str]] = {"": [event]}
        if begins:
            sides |= {"begin": begins, "end": [event]}
        when: Evaluate | None = None
        condition = self._binder.condition(keys["when"], sides) if "when" in keys else None
        if condition is not None:
            when = self._bound(partial(compile_expression, condition), condition.references, event, begins)
        texts: list[Evaluate] = []
        for word, otherwise in (("message", _told(event, condition)), ("type", Template(("_OTHER",)))):
            template = self._binder.template(keys[word], sides) if word in keys else otherwise
            if template is None:
                return None
            references = [r for e in template.expressions for r in e.references]
            texts.append(self._bound(partial(compile_template, template), references, event, begins))
        return Failure(when, *texts)

    def _bound(
        self, make: Callable[[Where], Evaluate], references: Sequence[Reference], event: str, begins: Sequence[str]
    ) -> Evaluate:
        """What reads an event, and the one that began the span where there is one."""
        variable = "e" if begins else "b"
        fixed = {"": (variable, event), "end": (variable, event)}
        if not any(reference.side == "begin" for reference in references):
            return make(self._binder.where(fixed))
        return by_begin({begin: make(self._binder.where({**fixed, "begin": ("b", begin)})) for begin in begins})

    def notes(self, node: Node | None, section: language.Section, key: Key | None) -> dict[str, tuple[NoteOn, ...]]:
        """`events:` of a rule, with the keys of `section` below each; `key` is the rule's."""
        found: dict[str, tuple[NoteOn, ...]] = {}
        if node is None:
            return found
        for _, event, keys in self.each_with(node, section, "'events'"):
            note = NoteOn(
                event,
                self.when(keys.get("when"), event),
                self._attributes.of_one(keys.get("attributes"), event),
                self.failure(keys.get("error"), event, ()),
                key.of_note(event) if key is not None else None,
                condition_text(keys),
            )
            found[event] = (*found.get(event, ()), note)
        return found
