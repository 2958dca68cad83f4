"""The key of a span rule: what makes a begin and an end belong together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from otelbridge.mapping.binding import Binder
from otelbridge.mapping.evaluators import key_of
from otelbridge.mapping.expressions import Expression, compile_expression
from otelbridge.mapping.nodes import NodeReader
from otelbridge.mapping.rules import KeyOf
from otelbridge.mapping.source import Node


class _Part(NamedTuple):
    """A part of the key, as the begin and as the end tell it."""

    name: str
    begin: Expression
    end: Expression


class Key:
    """What makes a begin and an end belong together.

    Attributes:
        thread: Threads must agree where the stream has them.
        names: The names of the other parts.
    """

    def __init__(self, binder: Binder, parts: Sequence[_Part], *, thread: bool) -> None:
        self._binder, self._parts = binder, parts
        self.thread = thread
        self.names = tuple(part.name for part in parts)

    def of_begin(self, event: str) -> KeyOf:
        """The key as an event tells it that begins a span."""
        return key_of([compile_expression(part.begin, self._binder.one(event)) for part in self._parts], thread=self.thread)

    def of_end(self, event: str) -> KeyOf:
        """The key as an event tells it that ends a span."""
        return key_of([compile_expression(part.end, self._binder.one(event)) for part in self._parts], thread=self.thread)

    def of_note(self, event: str) -> KeyOf | None:
        """The key as a noted event tells it, None where it does not have all its arguments."""
        if not self._parts:
            return None
        references = [reference for part in self._parts for reference in part.begin.references]
        if not all(self._binder.has([event], reference.name) for reference in references):
            return None
        return self.of_begin(event)


def read_key(nodes: NodeReader, binder: Binder, node: Node | None, begins: Sequence[str], ends: Sequence[str]) -> Key:
    """The key that a rule with these begin and end events names."""
    thread = False
    parts: list[_Part | None] = []
    for item in nodes.items(node, "'key'"):
        if item.kind == "map":
            parts += [_part(nodes, binder, name, value, begins, ends) for name, value in nodes.entries(item, "'key'")]
        elif item.text == "thread":
            thread = True
        else:
            parts.append(_part(nodes, binder, item, item, begins, ends))
    return Key(binder, [part for part in parts if part is not None], thread=thread)


def _part(
    nodes: NodeReader, binder: Binder, name: Node, value: Node, begins: Sequence[str], ends: Sequence[str]
) -> _Part | None:
    begin = end = value
    if value.kind == "map":
        both = {key.text: side for key, side in nodes.entries(value, f"'{name.text}'")}
        if both.keys() != {"begin", "end"}:
            nodes.problem(
                value, f"the part '{name.text}' of the key needs 'begin' and 'end'", "{begin: EXPRESSION, end: EXPRESSION}"
            )
            return None
        begin, end = both["begin"], both["end"]
        if not ends:
            nodes.problem(
                end, "'end' of a key has no meaning here: no event ends the span", f"write {{{name.text}: EXPRESSION}}"
            )
            return None
    first = binder.expression(begin, {"": begins})
    second = binder.expression(end, {"": ends}) if ends and first is not None else first
    if first is None or second is None:
        return None
    if ends:
        _check_sides(nodes, value, binder.check(first, {"": begins}), binder.check(second, {"": ends}))
    return _Part(name.text, first, second)


def _check_sides(nodes: NodeReader, value: Node, begin: str, end: str) -> None:
    """A text and a number are never the same, so a begin and an end with these types would never meet."""
    if "any" in (begin, end) or (begin == "text") == (end == "text"):
        return
    words = {True: "text", False: "an integer"}
    nodes.problem(
        value,
        f"the begin tells {words[begin == 'text']} here and the end {words[end == 'text']}, so they never belong together",
        "name arguments of one type on both sides",
    )
