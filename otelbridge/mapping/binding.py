"""Binds names to the catalogue: events exist, expressions read arguments that they have, and every argument has its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from otelbridge.catalogue import Catalogue, builtin
from otelbridge.catalogue.printf import is_text
from otelbridge.catalogue.versions import between
from otelbridge.mapping import language
from otelbridge.mapping.expressions import (
    Expression,
    ExpressionError,
    Reference,
    Template,
    Where,
    check_types,
    parse_expression,
    parse_template,
)
from otelbridge.mapping.nodes import NodeReader
from otelbridge.mapping.source import Node, did_you_mean

Sides = Mapping[str, Sequence[str]]
"""Events by the side of an expression that their arguments are read on: empty for bare names, `begin`, `end`."""


@dataclass(slots=True)
class Layout:
    """Which arguments of each event are read, in the order of their first use: the places never change."""

    rows: dict[str, list[str]] = field(default_factory=dict)

    def place(self, event: str, name: str) -> int:
        """The place of an argument in the event's row."""
        names = self.rows.setdefault(event, [])
        if name not in names:
            names.append(name)
        return names.index(name)


class Binder:
    """Reads what names events and arguments.

    Args:
        nodes: Reads the nodes of the file.
        catalogue: The events of the QEMU that the rules are for.
        layout: The places of arguments, common to all files.
        shipped: The file ships with otelbridge and is for all versions of QEMU.
        checked: Its expressions are known to be right with this catalogue, as those that ship are with the built-in one.
    """

    def __init__(
        self, nodes: NodeReader, catalogue: Catalogue, layout: Layout, *, shipped: bool, checked: bool = False
    ) -> None:
        self._nodes, self._catalogue, self._layout, self._shipped = nodes, catalogue, layout, shipped
        self._checked_before = checked

    # --- events -----------------------------------------------------------------------------------

    def event(self, node: Node) -> str | None:
        """The event that a node names."""
        name = self._nodes.text(node, "an event", "conditions need the form 'EVENT: {when: …}' for every event, not a list")
        if not name:
            return None
        if self._catalogue.variants(name):
            return name
        if self._catalogue.is_event(name):
            self._nodes.problem(
                node,
                f"the arguments of the event '{name}' are not built in",
                "give that QEMU's trace-events-all with --catalogue",
            )
            return None
        close = self._catalogue.closest(name)
        repair = (
            f"did you mean '{close}'?" if close else "the names are in QEMU's trace-events files; give others with --catalogue"
        )
        self._nodes.problem(node, f"there is no event '{name}'", repair)
        return None

    def row(self, event: str) -> str:
        """Note that rules need the event one by one."""
        self._layout.rows.setdefault(event, [])
        return event

    def versions(self, events: Sequence[str]) -> int:
        """The versions of QEMU that have one of the events, as a set of bits."""
        found = 0
        for event in events:
            for spec in self._catalogue.variants(event):
                found |= between(spec.first, spec.last)
        return found

    def has(self, events: Sequence[str], name: str) -> bool:
        """Whether one of the events has that argument."""
        return bool(_types(self._catalogue, events, name))

    def is_never_negative(self, events: Sequence[str], name: str) -> bool:
        """Whether that argument cannot be negative: by its type, or, in what ships with otelbridge, by what it is."""
        return self._shipped or _is_unsigned(_types(self._catalogue, events, name))

    # --- expressions ------------------------------------------------------------------------------

    def expression(self, node: Node, sides: Sides, *, one_of_many: bool = False) -> Expression | None:
        """A checked expression; its names are arguments of the sides' events, see `_known` for `one_of_many`."""
        text = self._nodes.text(node, "an expression")
        if not text:
            if node.kind == "text":
                self._nodes.problem(
                    node, "an expression is expected here, but an empty text stands here", "for example ret < 0"
                )
            return None
        try:
            expression = parse_expression(text)
            self.check(expression, sides, one_of_many=one_of_many)
        except ExpressionError as error:
            self._note(node, error)
            return None
        return expression

    def any_of(self, node: Node, sides: Sides, what: str) -> list[Expression]:
        """An expression or a list of them, of which this QEMU has to have one; empty if something is wrong."""
        parts = self._nodes.some(node, what)
        found = [self.expression(part, sides, one_of_many=len(parts) > 1) for part in parts]
        good = [expression for expression in found if expression is not None]
        if not parts and node.kind == "list":
            self._nodes.problem(node, "an empty list gives no value", "name an argument")
        if not good or len(good) < len(parts):
            return []
        if not self._shipped and not any(all(self.has(sides[r.side], r.name) for r in e.references) for e in good):
            self._nodes.problem(node, "this QEMU has none of these arguments", "name one that it has")
            return []
        return good

    def condition(self, node: Node, sides: Sides) -> Expression | None:
        """An expression that decides something."""
        expression = self.expression(node, sides)
        if expression is not None and expression.is_constant:
            self._nodes.problem(
                node, f"'{expression.text}' reads nothing of the event, so it is always or never true", "compare an argument"
            )
            return None
        return expression

    def template(self, node: Node, sides: Sides) -> Template | None:
        """A text with checked expressions in it."""
        try:
            template = parse_template(self._nodes.text(node, "a text"))
            for expression in template.expressions:
                self.check(expression, sides)
        except ExpressionError as error:
            self._note(node, error)
            return None
        return template

    def _note(self, node: Node, error: ExpressionError) -> None:
        """The problems within a text; at the whole of it where it is not written as it is read."""
        place, quotes = node.location, 2 if node.quoted else 0
        for one in (error, *error.others):
            inside = place._replace(column=place.column + quotes // 2 + one.column, length=one.length)
            self._nodes.problem(inside if place.length == len(node.text) + quotes else place, str(one), one.repair)

    # --- names and types --------------------------------------------------------------------------

    def check(self, expression: Expression, sides: Sides, *, one_of_many: bool = False) -> str:
        """The type of an expression whose names and types are right: integer, text, truth or any; any if nobody has to look.

        Raises:
            ExpressionError: They are not.
        """
        if self._checked_before:
            return "any"
        try:
            return self._checked(expression, sides, one_of_many=one_of_many)
        except ExpressionError as error:
            raise error.moved(expression.column) from None

    def _checked(self, expression: Expression, sides: Sides, *, one_of_many: bool) -> str:
        for reference in expression.references:
            if reference.side not in sides:
                raise ExpressionError(
                    f"'{reference.side}.' has no meaning here",
                    reference.column,
                    reference.length,
                    f"'{reference.name}' alone is the argument of the event that is read here",
                )
            self._known(reference, sides, one_of_many=one_of_many)
        if expression.is_constant and not isinstance(getattr(expression.tree, "value", None), (int, str)):
            raise ExpressionError(
                f"'{expression.text}' is the same for every event, so it decides nothing",
                0,
                len(expression.text),
                "compare an argument",
            )

        def type_of(reference: Reference) -> str:
            types = _types(self._catalogue, sides[reference.side], reference.name)
            kinds = {"text" if is_text(ctype) else "integer" for ctype in types}
            return kinds.pop() if len(kinds) == 1 else "any"

        def unsigned(reference: Reference) -> bool:
            return _is_unsigned(_types(self._catalogue, sides[reference.side], reference.name))

        return check_types(expression, type_of, unsigned)

    def _known(self, reference: Reference, sides: Sides, *, one_of_many: bool) -> None:
        """Every argument exists in one of the events it is read from.

        What ships with otelbridge is for all versions of QEMU, and a list names what one version or another has: with a
        catalogue of one version, an argument that the built-in catalogue knows is only missing there.
        """
        events = sides[reference.side]
        if self.has(events, reference.name):
            return
        if (self._shipped or one_of_many) and _types(builtin(), events, reference.name):
            return
        known = sorted({a.name for e in events for spec in self._catalogue.variants(e) for a in spec.arguments})
        named = " or ".join(f"'{event}'" for event in events[:3])
        repair = did_you_mean(reference.name, [*known, *language.PSEUDO_ARGUMENTS]) if known else "it has no arguments at all"
        for side, others in sides.items():
            if side != reference.side and self.has(others, reference.name):
                repair = f"did you mean '{side and side + '.'}{reference.name}'?"
        raise ExpressionError(f"event {named} has no argument '{reference.name}'", reference.column, reference.length, repair)

    # --- places -----------------------------------------------------------------------------------

    def where(self, sides: Mapping[str, tuple[str, str | None]]) -> Where:
        """Places of arguments, from (variable, event) by side."""

        def where(reference: Reference) -> str | None:
            variable, event = sides.get(reference.side, ("", None))
            if event is None or not self.has([event], reference.name):
                return None
            return f"{variable}[{self._layout.place(event, reference.name)}]"

        return where

    def one(self, event: str) -> Where:
        """Places for what reads one event alone."""
        return self.where({"": ("b", event)})


def _is_unsigned(types: set[str]) -> bool:
    """Whether all of these C types, if there are any, are unsigned."""
    return bool(types) and all(ctype.startswith(("uint", "unsigned", "size_t")) for ctype in types)


def _types(catalogue: Catalogue, events: Sequence[str], name: str) -> set[str]:
    """The C types that an argument of one of the events has; empty where none has it."""
    return {a.ctype for e in events for spec in catalogue.variants(e) for a in spec.arguments if a.name == name}
