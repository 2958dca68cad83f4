"""Reads `spans:`: pairs of begin and end events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, cast

from otelbridge.mapping import language
from otelbridge.mapping.attributes import check_together
from otelbridge.mapping.binding import Sides
from otelbridge.mapping.evaluators import key_of
from otelbridge.mapping.events import EventWith, condition_text
from otelbridge.mapping.expressions import Reference, Where, compile_expression
from otelbridge.mapping.key import Key, read_key
from otelbridge.mapping.readers import FileReaders
from otelbridge.mapping.rules import BeginOn, EndOn, Evaluate, Keep, KeyOf, LinkTo, SpanRule
from otelbridge.mapping.source import Node, Noted
from otelbridge.records import INTERNAL

_REPEATED = ("close", "stack", "queue", "ignore", "prefer")


class NamedRule(NamedTuple):
    """A place where a rule names another one.

    `inside` is the rule that would be inside it, `keeper` the one that keeps its slowest spans per it; else both are empty.
    """

    problem: Noted
    node: Node
    wanted: Literal["rule", "span", "machine"]
    inside: str = ""
    keeper: str = ""


class SpanReader:
    """Reads the span rules of one file.

    Args:
        readers: Of the file.
        named: Where it puts the places that name other rules, which can be checked when all files were read.
    """

    def __init__(self, readers: FileReaders, named: list[NamedRule]) -> None:
        self._readers, self._named = readers, named
        self._nodes, self._binder, self._events = readers.nodes, readers.binder, readers.events

    def read(self, key_node: Node, node: Node) -> SpanRule | None:
        """One rule; None where it lacks what begins or ends it."""
        rule_id, nodes = key_node.text, self._nodes
        keys = nodes.keys(node, language.SPAN, f"the span '{rule_id}'", key_node)
        if "begin" not in keys:
            return None
        begins = self._events.each_with(keys["begin"], language.BEGIN, "'begin'")
        self._each_once(begins)
        ends = self._events.each_with(keys["end"], language.END, "'end'") if "end" in keys else []
        until_next = "until" in keys and nodes.choice(keys["until"], ["next"], "'until'") is not None
        if ("end" in keys) == ("until" in keys):
            what = "both 'end' and 'until'" if "end" in keys else "neither 'end' nor 'until'"
            nodes.problem(key_node, f"the span '{rule_id}' has {what}", "it ends by events, or lasts until the next begins")
        begin_events = list(dict.fromkeys(begin.event for begin in begins))
        end_events = list(dict.fromkeys(end.event for end in ends))
        if not begin_events or ("end" in keys and not end_events):
            return None
        self._check_versions(keys, begin_events, end_events)
        key = read_key(nodes, self._binder, keys.get("key"), begin_events, end_events)
        recalls = self._recalls(keys.get("attributes"), begin_events)
        attributes, ordinals, names = self._attributes(keys.get("attributes"), begin_events, end_events)
        repeated = nodes.choice(keys["repeated_begin"], _REPEATED, "'repeated_begin'") if "repeated_begin" in keys else "close"
        inside = self._inside(keys.get("inside"), rule_id)
        return SpanRule(
            id=rule_id,
            name=nodes.named(keys["name"]) if "name" in keys else rule_id,
            kind=language.KINDS[nodes.choice(keys["kind"], language.KINDS, "'kind'") or "internal"]
            if "kind" in keys
            else INTERNAL,
            scope=self._readers.scope,
            begins=self._begins(begins, key),
            ends=self._ends(ends, begin_events, key),
            thread=key.thread,
            key_names=key.names,
            repeated_begin=cast("Literal['close', 'stack', 'queue', 'ignore', 'prefer']", repeated or "close"),
            until_next=until_next,
            timeout_ns=self._timeout(keys.get("timeout")),
            inside=inside,
            attributes=attributes,
            told_by=attributes.events,
            recalls=recalls,
            ordinals=ordinals,
            notes=self._events.notes(keys.get("events"), language.EVENT, key),
            links=self._links(keys.get("links"), rule_id, begin_events),
            keep=self._keep(keys.get("keep"), rule_id),
            duration=self._readers.instruments.duration(keys.get("duration"), names, f"{rule_id} spans"),
            path=self._readers.path,
        )

    # --- begin and end ----------------------------------------------------------------------------

    def _each_once(self, begins: Sequence[EventWith]) -> None:
        """An event begins a span under one condition."""
        seen = set()
        for node, event, _ in begins:
            if event in seen:
                self._nodes.problem(node, f"'{event}' begins this span twice", "join the two conditions with 'or'")
            seen.add(event)

    def _check_versions(self, keys: dict[str, Node], begins: Sequence[str], ends: Sequence[str]) -> None:
        """A pair whose halves no version of QEMU has together never makes a span."""
        if ends and not self._binder.versions(begins) & self._binder.versions(ends):
            self._nodes.problem(
                keys["end"],
                "no version of QEMU has a begin and an end of this rule, so it can never fire",
                "name the events of one version",
            )

    def _begins(self, begins: Sequence[EventWith], key: Key) -> dict[str, BeginOn]:
        return {
            event: BeginOn(event, rank, self._events.when(keys.get("when"), event), key.of_begin(event), condition_text(keys))
            for rank, (_, event, keys) in enumerate(begins)
        }

    def _ends(self, ends: Sequence[EventWith], begins: Sequence[str], key: Key) -> dict[str, tuple[EndOn, ...]]:
        found: dict[str, tuple[EndOn, ...]] = {}
        for _, event, keys in ends:
            end = EndOn(
                event,
                self._events.when(keys.get("when"), event),
                key.of_end(event),
                self._events.failure(keys.get("error"), event, begins),
                condition_text(keys),
            )
            found[event] = (*found.get(event, ()), end)
        return found

    def _timeout(self, node: Node | None) -> int | None:
        found = None if node is None else self._nodes.duration(node)
        if node is not None and found == 0:
            self._nodes.problem(node, "a timeout of 0 gives every span up at once", "a length of time, for example 10m")
        return found

    # --- attributes -------------------------------------------------------------------------------

    def _attributes(
        self, node: Node | None, begins: Sequence[str], ends: Sequence[str]
    ) -> tuple[_AttributesByPair, tuple[tuple[str, str], ...], list[str]]:
        """The attributes bound for each pair of events, the ordinals, and all names."""
        ordinals, names = [], []
        read: set[str] = set()
        pairs: dict[tuple[str, str | None], list[tuple[str, Evaluate]]] = {(b, e): [] for b in begins for e in (None, *ends)}
        sides: dict[str, Sequence[str]] = {"": begins, "begin": begins}
        if ends:
            sides["end"] = ends
        for key, value in self._readers.attributes.named(node, language.RESERVED):
            names.append(key.text)
            if value.kind == "map" and any(k.text == "ordinal" for k, _ in value.entries):
                machine = self._ordinal(value)
                if machine is not None:
                    ordinals.append((key.text, machine))
            else:
                self._bind(key.text, value, sides, pairs, read)
        return _AttributesByPair({pair: tuple(found) for pair, found in pairs.items()}, read), tuple(ordinals), names

    def _ordinal(self, node: Node) -> str | None:
        """The machine within whose open span the spans are numbered."""
        keys = self._nodes.keys(node, language.ATTRIBUTE, "an attribute")
        check_together(self._nodes, keys, "ordinal")
        return self._name(keys["ordinal"], "a machine", "machine") if "ordinal" in keys else None

    def _bind(
        self,
        name: str,
        node: Node,
        sides: Sides,
        pairs: Mapping[tuple[str, str | None], list[tuple[str, Evaluate]]],
        read: set[str],
    ) -> None:
        """Add an attribute to each pair of events, and to `read` those of which it reads arguments."""
        for place, ((begin, end), found) in enumerate(pairs.items()):
            where = self._binder.where({"": ("b", begin), "begin": ("b", begin), "end": ("e", end)})
            with self._nodes.noted_once(again=place > 0):
                attribute = self._readers.attributes.attribute(node, sides, _noting(where, {"b": begin, "e": end}, read))
            if attribute is not None:
                found.append((name, attribute[0]))

    def _recalls(self, node: Node | None, begins: Sequence[str]) -> tuple[tuple[str, dict[str, KeyOf]], ...]:
        """The attributes that an earlier span may lend, with the key that both agree in."""
        found = []
        for key, value in node.entries if node is not None and node.kind == "map" else ():
            by = next((v for k, v in value.entries if k.text == "remembered_by"), None) if value.kind == "map" else None
            keys = self._keys_by_begin(by, begins) if by is not None else None
            if keys is not None:
                found.append((key.text, keys))
        return tuple(found)

    def _keys_by_begin(self, node: Node, begins: Sequence[str]) -> dict[str, KeyOf] | None:
        """A key of one expression, as each begin event tells it."""
        expression = self._binder.expression(node, {"": begins})
        if expression is None:
            return None
        return {begin: key_of([compile_expression(expression, self._binder.one(begin))]) for begin in begins}

    # --- other rules ------------------------------------------------------------------------------

    def _name(self, node: Node, what: str, wanted: Literal["rule", "span", "machine"], inside: str = "") -> str:
        """The rule that a node names."""
        self._named.append(NamedRule(self._nodes.problem, node, wanted, inside))
        return self._nodes.text(node, what)

    def _inside(self, node: Node | None, rule_id: str) -> tuple[str, ...]:
        parts = [] if node is None else self._nodes.some(node, "'inside'")
        return tuple([self._name(part, "a rule", "rule", rule_id) for part in parts])

    def _links(self, node: Node | None, rule_id: str, begins: Sequence[str]) -> tuple[LinkTo, ...]:
        found = []
        for target, value in self._nodes.entries(node, "'links'"):
            self._named.append(NamedRule(self._nodes.problem, target, "span"))
            if target.text == rule_id:
                self._nodes.problem(target, f"'{rule_id}' links to itself", "a link goes to the rule of the other host")
            keys = self._keys_by_begin(value, begins)
            if keys is not None and target.text != rule_id:
                found.append(LinkTo(target.text, keys))
        return tuple(found)

    def _keep(self, node: Node | None, rule_id: str) -> Keep | None:
        if node is None:
            return None
        keys = self._nodes.keys(node, language.KEEP, "'keep'")
        if "slowest" not in keys or "per" not in keys:
            return None
        number = self._nodes.at_least_one(keys["slowest"], "'slowest' of")
        self._named.append(NamedRule(self._nodes.problem, keys["per"], "machine", keeper=rule_id))
        return Keep(number or 1, self._nodes.text(keys["per"], "a machine"))


def _noting(where: Where, events: Mapping[str, str | None], read: set[str]) -> Where:
    """Places of arguments; the event of each that is asked for goes to `read`."""

    def noted(reference: Reference) -> str | None:
        place = where(reference)
        event = events.get(place[0]) if place else None
        if event is not None:
            read.add(event)
        return place

    return noted


class _AttributesByPair:
    """The attributes of a span rule, by the events that began and ended the span; `events` are those that they read."""

    def __init__(self, pairs: Mapping[tuple[str, str | None], tuple[tuple[str, Evaluate], ...]], events: set[str]) -> None:
        self._pairs, self.events = pairs, frozenset(events)

    def __call__(self, begin_event: str, end_event: str | None) -> tuple[tuple[str, Evaluate], ...]:
        found = self._pairs.get((begin_event, end_event))
        return found if found is not None else self._pairs.get((begin_event, None), ())
