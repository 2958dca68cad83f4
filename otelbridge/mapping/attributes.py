"""Reads `attributes:`: where each value comes from, and how it is written."""

from __future__ import annotations

from collections.abc import Sequence

from otelbridge.mapping import language
from otelbridge.mapping.binding import Binder, Sides
from otelbridge.mapping.evaluators import first, fixed, shaped
from otelbridge.mapping.expressions import Where, compile_expression
from otelbridge.mapping.nodes import NodeReader
from otelbridge.mapping.rules import Evaluate
from otelbridge.mapping.source import Node

_GOES_WITH: dict[str, frozenset[str]] = {
    "from": frozenset({"unless", "remembered_by", "as"}),
    "value": frozenset(),
    "ordinal": frozenset(),
    "by_state": frozenset({"otherwise"}),
}
"""What an attribute is made of, and which keys have an effect beside that."""


def check_together(nodes: NodeReader, keys: dict[str, Node], made_of: str) -> None:
    """Note what has no effect beside the key that an attribute is made of."""
    nodes.only_one_of(keys, (made_of, *(word for word in _GOES_WITH if word != made_of)))
    for word in keys:
        if word not in _GOES_WITH and word not in _GOES_WITH[made_of]:
            nodes.only_one_of(keys, (made_of, word))


class AttributeReader:
    """Reads the attributes of spans, states, span events and metrics."""

    def __init__(self, nodes: NodeReader, binder: Binder) -> None:
        self._nodes, self._binder = nodes, binder

    def attribute(self, node: Node, sides: Sides, where: Where) -> tuple[Evaluate, bool] | None:
        """An attribute's value, and whether it is the same for all."""
        if node.kind == "map":
            return self._described(node, sides, where)
        value = self._value(node, sides, where)
        return None if value is None else (value, False)

    def named(self, node: Node | None, reserved: Sequence[str] = ()) -> list[tuple[Node, Node]]:
        """The entries of a table of attributes; an empty name, or one of those that otelbridge sets itself, is a problem."""
        entries = self._nodes.entries(node, "'attributes'")
        for key, _ in entries:
            self._nodes.named(key, "the name of an attribute")
            if any(key.text == name or (name.endswith("*") and key.text.startswith(name[:-1])) for name in reserved):
                self._nodes.problem(
                    key,
                    f"the attribute '{key.text}' is set by otelbridge itself, and nothing may have one attribute twice",
                    f"choose a name of your own; reserved here: {', '.join(reserved)}",
                )
        return entries

    def of_one(self, node: Node | None, event: str, reserved: Sequence[str] = ()) -> tuple[tuple[str, Evaluate], ...]:
        """Attributes that read one event."""
        found = []
        where = self._binder.one(event)
        for key, value in self.named(node, reserved):
            attribute = self.attribute(value, {"": [event]}, where)
            if attribute is not None:
                found.append((key.text, attribute[0]))
        return tuple(found)

    def _described(self, node: Node, sides: Sides, where: Where) -> tuple[Evaluate, bool] | None:
        """`{from: hostname, unless: ['(null)']}`."""
        nodes = self._nodes
        keys = nodes.keys(node, language.ATTRIBUTE, "an attribute")
        made_of = next((word for word in _GOES_WITH if word in keys), None)
        if made_of is not None:
            check_together(nodes, keys, made_of)
        for word, whose in (("by_state", "machines"), ("ordinal", "spans")):
            if made_of == word:
                nodes.problem(keys[word], f"'{word}' is for the attributes of {whose}", "use 'from' or 'value' here")
                return None
        if "remembered_by" in keys and "begin" not in sides:
            nodes.problem(keys["remembered_by"], "'remembered_by' has no meaning here", "only attributes of spans remember")
        if "value" in keys:
            return fixed(nodes.text(keys["value"], "a text")), True
        if "from" not in keys:
            nodes.problem(node, "an attribute needs 'from' or 'value'", "for example {from: hostname, unless: ['(null)']}")
            return None
        value = self._value(keys["from"], sides, where)
        unless = frozenset(nodes.text(n, "a value") for n in nodes.items(keys.get("unless"), "'unless'"))
        as_hex = "as" in keys and nodes.choice(keys["as"], ["hex"], "'as'") is not None
        return None if value is None else (shaped(value, unless, as_hex=as_hex), False)

    def _value(self, node: Node, sides: Sides, where: Where) -> Evaluate | None:
        """An expression, or of a list of them the first that has a value."""
        expressions = self._binder.any_of(node, sides, "a value")
        return first([compile_expression(expression, where) for expression in expressions]) if expressions else None
