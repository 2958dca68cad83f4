"""Reads `machines:`: the events that carry a state, what opens and closes the whole, and what it says of itself."""

from __future__ import annotations

from collections.abc import Sequence

from otelbridge.mapping import language
from otelbridge.mapping.attributes import check_together
from otelbridge.mapping.evaluators import fixed
from otelbridge.mapping.expressions import Template, compile_expression, compile_template
from otelbridge.mapping.readers import FileReaders
from otelbridge.mapping.rules import Evaluate, Failure, MachineRule
from otelbridge.mapping.source import Node, did_you_mean
from otelbridge.records import Value

_MOVES = {"start": "opens", "final": "closes"}
_EXAMPLES = {"start": "for example {source: setup}", "final": "for example {completed: unset, failed: error}"}
_NOTE: language.Section = {word: key for word, key in language.EVENT.items() if word != "error"}
"""A machine fails by its final states alone."""

ByState = tuple[tuple[str, dict[str, Value], Value | None], ...]


class MachineReader:
    """Reads the machines of one file."""

    def __init__(self, readers: FileReaders) -> None:
        self._readers = readers
        self._nodes, self._binder = readers.nodes, readers.binder

    def read(self, key_node: Node, node: Node) -> MachineRule | None:
        """One machine; None where it lacks its event or what the event says."""
        rule_id, nodes, binder, readers = key_node.text, self._nodes, self._binder, self._readers
        keys = nodes.keys(node, language.MACHINE, f"the machine '{rule_id}'", key_node)
        event = binder.event(keys["event"]) if "event" in keys else None
        if event is None or not {"state", "start", "final"} <= keys.keys():
            return None
        binder.row(event)
        state = binder.expression(keys["state"], {"": [event]})
        starts = self._by_role(keys["start"], "'start'")
        for word, found in (("start", starts), ("final", keys["final"].entries)):
            if not found:
                nodes.problem(keys[word], f"'{word}' names no state, so the machine never {_MOVES[word]}", _EXAMPLES[word])
        finals = {k.text: self._final(k, v, event) for k, v in nodes.entries(keys["final"], "'final'")}
        roles = self._roles(keys.get("roles"))
        order = tuple(
            dict.fromkeys(
                [*(k.text for k, _ in nodes.entries(keys.get("roles"), "'roles'")), *(r for rs in starts.values() for r in rs)]
            )
        )
        attributes, by_state, names = self._attributes(keys.get("attributes"), event)
        states = nodes.keys(keys["states"], language.STATES, "'states'") if "states" in keys else {}
        state_attributes = readers.attributes.of_one(states.get("attributes"), event, language.RESERVED)
        unknown = (
            nodes.choice(keys["unknown_state"], ["keep", "drop"], "'unknown_state'") if "unknown_state" in keys else "keep"
        )
        return MachineRule(
            id=rule_id,
            event=event,
            scope=readers.scope,
            state=compile_expression(state, binder.one(event)) if state is not None else fixed(""),
            starts=starts,
            finals=finals,
            keep_unknown=unknown != "drop",
            known=frozenset([*starts, *finals, *(s for _, values, _ in by_state for s in values)]),
            roles=roles,
            role_order=order,
            kinds=self._kinds(keys.get("kind"), order),
            reasons=self._reasons(keys.get("reasons")),
            attributes=attributes,
            by_state=by_state,
            state_attributes=state_attributes,
            notes=readers.events.notes(keys.get("events"), _NOTE, None),
            duration=readers.instruments.duration(keys.get("duration"), names, f"{rule_id} spans"),
            state_duration=readers.instruments.duration(
                states.get("duration"), [n for n, _ in state_attributes], f"the states of {rule_id}"
            ),
            active=readers.instruments.active(keys.get("active"), rule_id),
            completed=readers.instruments.completed(keys.get("completed"), rule_id, names),
            path=readers.path,
        )

    def _by_role(self, node: Node, what: str) -> dict[str, tuple[str, ...]]:
        """Word -> the roles that name it."""
        found: dict[str, tuple[str, ...]] = {}
        for role, words in self._nodes.entries(node, what):
            for word in self._nodes.some(words, what):
                text = self._nodes.text(word, "a state")
                found[text] = (*found.get(text, ()), role.text)
        return found

    def _final(self, key: Node, node: Node, event: str) -> Failure | None:
        """The outcome of a final state."""
        if node.kind == "text":
            if self._nodes.choice(node, ["unset", "error"], "an outcome") != "error":
                return None
            kind = message = key.text
            return Failure(None, fixed(message), fixed(kind))
        keys = self._nodes.keys(node, language.FINAL, f"'{key.text}'")
        template = self._binder.template(keys["message"], {"": [event]}) if "message" in keys else Template((key.text,))
        if template is None or "error" not in keys:
            return None
        kind = self._nodes.named(keys["error"], "a type")
        return Failure(None, compile_template(template, self._binder.one(event)), fixed(kind))

    def _roles(self, node: Node | None) -> dict[str, tuple[str, ...]]:
        """Event -> the roles that it is evidence of."""
        found: dict[str, tuple[str, ...]] = {}
        for role, events in self._nodes.entries(node, "'roles'"):
            for part in self._nodes.some(events, "'roles'"):
                event = self._binder.event(part)
                if event:
                    found[self._binder.row(event)] = (*found.get(event, ()), role.text)
        return found

    def _kinds(self, node: Node | None, roles: Sequence[str]) -> dict[str, int]:
        """The span kind by role."""
        found = {}
        for role, kind in self._nodes.entries(node, "'kind'"):
            if role.text not in roles:
                self._nodes.problem(role, f"the machine has no role '{role.text}'", did_you_mean(role.text, list(roles)))
            found[role.text] = language.KINDS[self._nodes.choice(kind, language.KINDS, "'kind'") or "internal"]
        return found

    def _reasons(self, node: Node | None) -> dict[str, Evaluate]:
        """Event -> what reads the error's text from it."""
        found = {}
        for key, value in self._nodes.entries(node, "'reasons'"):
            event = self._binder.event(key)
            if event:
                expression = self._binder.expression(value, {"": [self._binder.row(event)]})
                if expression is not None:
                    found[event] = compile_expression(expression, self._binder.one(event))
        return found

    def _attributes(self, node: Node | None, event: str) -> tuple[tuple[tuple[str, Evaluate], ...], ByState, list[str]]:
        """The attributes that the event gives, those that the states passed through give, and all names."""
        plain, by_state, names = [], [], []
        where = self._binder.one(event)
        for key, value in self._readers.attributes.named(node, language.RESERVED):
            names.append(key.text)
            if value.kind == "map" and any(k.text == "by_state" for k, _ in value.entries):
                by_state.append((key.text, *self._by_state(value)))
                continue
            attribute = self._readers.attributes.attribute(value, {"": [event]}, where)
            if attribute is not None:
                plain.append((key.text, attribute[0]))
        return tuple(plain), tuple(by_state), names

    def _by_state(self, node: Node) -> tuple[dict[str, Value], Value | None]:
        """`{by_state: {state: value}, otherwise: value}`."""
        nodes = self._nodes
        keys = nodes.keys(node, language.ATTRIBUTE, "an attribute")
        check_together(nodes, keys, "by_state")
        values: dict[str, Value] = {k.text: nodes.text(v, "a value") for k, v in nodes.entries(keys["by_state"], "'by_state'")}
        return values, nodes.text(keys["otherwise"], "a value") if "otherwise" in keys else None
