"""From files to rules: everything is checked against the catalogue, and all problems are reported at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, cast

import otelbridge
from otelbridge.catalogue import Catalogue, builtin
from otelbridge.catalogue.printf import is_text
from otelbridge.catalogue.versions import between, resolve_version
from otelbridge.errors import Location, MappingError, UsageError
from otelbridge.mapping import language
from otelbridge.mapping.cases import read_test
from otelbridge.mapping.expressions import (
    Expression,
    ExpressionError,
    Reference,
    Template,
    Where,
    check_types,
    compile_expression,
    compile_template,
    parse_expression,
    parse_template,
)
from otelbridge.mapping.rules import (
    Arguments,
    BeginOn,
    Duration,
    EndOn,
    Evaluate,
    Failure,
    Keep,
    KeyOf,
    LinkTo,
    MachineRule,
    Mapping,
    MappingTest,
    MetricRule,
    NoteOn,
    Now,
    SpanRule,
)
from otelbridge.mapping.source import Node, Problems, did_you_mean, parse
from otelbridge.records import INTERNAL, SECOND_NS, Metric, Plan, Scope, Value

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ns|us|ms|s|m|h)")
_UNITS_NS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": SECOND_NS, "m": 60 * SECOND_NS, "h": 3600 * SECOND_NS}
_METRIC_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_./-]{0,254}")
_UNIT = re.compile(r"[!-~]{1,63}")
_OPERATIONS = {"counter": "add", "gauge": "set", "histogram": "record"}
_KINDS: dict[str, Literal["sum", "gauge", "histogram"]] = {"counter": "sum", "gauge": "gauge", "histogram": "histogram"}
_REPEATED = ("close", "stack", "queue", "ignore", "prefer")
_SERIES_LIMIT = 2000
_MOVES = {"start": "opens", "final": "closes"}
_EXAMPLES = {"start": "for example {source: setup}", "final": "for example {completed: unset, failed: error}"}


def duration_ns(text: str) -> int | None:
    """Nanoseconds of `250us`, `1.5s`, `10m`; None for anything else."""
    found = _DURATION.fullmatch(text.strip())
    return round(float(found[1]) * _UNITS_NS[found[2]]) if found else None


@dataclass(frozen=True, slots=True)
class File:
    """A mapping file. A shipped one gives way where another file defines the same rule."""

    path: str
    text: str
    shipped: bool = False


@dataclass(slots=True)
class _Layout:
    """Which arguments of each event are read, in the order of their first use: the places never change."""

    rows: dict[str, list[str]] = field(default_factory=dict)

    def place(self, event: str, name: str) -> int:
        names = self.rows.setdefault(event, [])
        if name not in names:
            names.append(name)
        return names.index(name)


class _Named(NamedTuple):
    """A place where a rule names another one. `inside` is the rule that would be inside it, else empty."""

    compiler: _FileCompiler
    node: Node
    wanted: Literal["rule", "span", "machine"]
    inside: str = ""


@dataclass(slots=True)
class _Compiled:
    """What all files come to."""

    spans: dict[str, SpanRule] = field(default_factory=dict)
    machines: dict[str, MachineRule] = field(default_factory=dict)
    metrics: dict[str, list[MetricRule]] = field(default_factory=dict)
    unmapped: dict[str, str] = field(default_factory=dict)
    tests: list[MappingTest] = field(default_factory=list)
    instruments: dict[str, Metric] = field(default_factory=dict)
    places: dict[tuple[str, str], Location] = field(default_factory=dict)
    """Where each rule is defined, good or not, by (section, id): spans and machines share a section."""
    named: list[_Named] = field(default_factory=list)
    """References to other rules, checked when all files were read."""


Sides = MappingType[str, Sequence[str]]
"""Events by the side of an expression that their arguments are read on: empty for bare names, `begin`, `end`."""


def compile_mappings(files: Sequence[File], catalogue: Catalogue) -> Mapping:
    """The rules of all files.

    Raises:
        MappingError: With every problem of every file.
    """
    compiled, layout = _Compiled(), _Layout()
    problems: list[Problems] = []
    # What the user wrote comes first, so that it is there before the shipped rule that it replaces.
    for file in sorted(files, key=lambda f: f.shipped):
        root, found = parse(file.text, file.path)
        problems.append(found)
        if root is None or root.kind == "null":
            if not found.found:
                start = Location(file.path, 1, 1)
                found.add(start, "the file is empty", "a mapping begins with 'version: 1' and 'scope: NAME'")
            continue
        _FileCompiler(file, found, catalogue, compiled, layout).compile(root)
    _check_named(compiled)
    every = [problem for found in problems for problem in found.found]
    if every:
        raise MappingError(every)
    metrics = tuple(_placed(rule, layout) for rules in compiled.metrics.values() for rule in rules)
    sums = _sums(metrics, layout)
    return Mapping(
        tuple(compiled.spans.values()),
        tuple(compiled.machines.values()),
        metrics,
        compiled.unmapped,
        Plan({event: tuple(names) for event, names in layout.rows.items()}, sums),
        tuple(compiled.tests),
    )


def _sums(metrics: Sequence[MetricRule], layout: _Layout) -> dict[str, tuple[str, ...]]:
    """The arguments that are summed without a row."""
    sums: dict[str, tuple[str, ...]] = {}
    for rule in metrics:
        if rule.from_counts and rule.argument and rule.event not in layout.rows:
            sums[rule.event] = tuple(dict.fromkeys((*sums.get(rule.event, ()), *rule.argument)))
    return sums


def _check_named(compiled: _Compiled) -> None:
    """Every rule that is named exists and is of the kind that is wanted, and no rule is inside itself."""
    # A rule with problems of its own is no reason for further ones where it is named.
    broken = (
        {name for section, name in compiled.places if section == "rules"} - compiled.spans.keys() - compiled.machines.keys()
    )
    known = {
        "rule": [*compiled.spans, *compiled.machines],
        "span": list(compiled.spans),
        "machine": list(compiled.machines),
    }
    told: set[frozenset[str]] = set()
    for compiler, node, wanted, inside in compiled.named:
        name = node.text
        if name and name not in known[wanted] and name not in broken:
            other = f"'{name}' is no {wanted}" if name in known["rule"] else f"there is no {wanted} '{name}'"
            compiler.problem(node, other, did_you_mean(name, known[wanted]))
        circle = _path(compiled, name, inside) if inside else []
        if circle and frozenset(circle) not in told:
            told.add(frozenset(circle))
            steps = ", which is inside ".join(f"'{step}'" for step in circle)
            compiler.problem(node, f"'{inside}' is inside {steps}", "break the circle: a parent is open before its child")


def _path(compiled: _Compiled, start: str, goal: str) -> list[str]:
    """The rules from one to another, each inside the next; empty where there is no way."""
    before: dict[str, str] = {start: ""}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name == goal:
            path = [name]
            while before[path[0]]:
                path.insert(0, before[path[0]])
            return path
        for parent in compiled.spans[name].inside if name in compiled.spans else ():
            if parent not in before:
                before[parent] = name
                waiting.append(parent)
    return []


class _FileCompiler:
    """Compiles one file into what is common to all. A problem is noted and what it is in is left out."""

    def __init__(self, file: File, problems: Problems, catalogue: Catalogue, compiled: _Compiled, layout: _Layout) -> None:
        self._file, self._problems, self._catalogue = file, problems, catalogue
        self._compiled, self._layout = compiled, layout
        self._scope = Scope("", otelbridge.__version__)
        self.problem = problems.add

    def compile(self, root: Node) -> None:
        """The whole file."""
        found = self._keys(root, language.FILE, "the file")
        version = found.get("version")
        if version is not None and version.text != "1":
            self.problem(version, f"version {version.what} is not known", "this otelbridge reads version 1")
        if (scope := found.get("scope")) is not None:
            self._scope = Scope(self._text(scope, "a name"), otelbridge.__version__)
        for section, one in (("machines", self._machine), ("spans", self._span), ("metrics", self._metric)):
            if section in found:
                for key, node in self._entries(found[section], f"'{section}'"):
                    if self._is_new("metrics" if section == "metrics" else "rules", key):
                        one(key, node)
        self._unmapped(found.get("unmapped"))
        for node in self._list(found.get("tests"), "'tests'"):
            test = read_test(self, node, self._file.path)
            if test is not None:
                self._compiled.tests.append(test)

    def _unmapped(self, node: Node | None) -> None:
        """Events that are left out on purpose."""
        for key, reason in self._entries(node, "'unmapped'"):
            if self._event(key) and not reason.text:
                self.problem(key, f"'{key.text}' is left out without a reason", "say why nobody needs it")
            self._compiled.unmapped.setdefault(key.text, reason.text)

    def _is_new(self, section: str, key: Node) -> bool:
        """Whether the rule counts: a shipped one gives way to a user's of the same id."""
        first = self._compiled.places.setdefault((section, key.text), key.location)
        if first is not key.location and not self._file.shipped:
            self.problem(
                key, f"'{key.text}' is defined already at {first.path}:{first.line}", "give one of the two another name"
            )
        return first is key.location

    # --- nodes ------------------------------------------------------------------------------------

    def keys(self, node: Node, section: language.Section, what: str) -> dict[str, Node]:
        """As `_keys`, for the reader of tests."""
        return self._keys(node, section, what)

    def _keys(self, node: Node, section: language.Section, what: str, place: Node | None = None) -> dict[str, Node]:
        """The entries of a section; unknown, duplicate and missing keys are problems, the latter at `place`."""
        found: dict[str, Node] = {}
        for key, value in self._entries(node, what):
            if key.text not in section:
                self.problem(key, f"{what} has no key '{key.text}'", did_you_mean(key.text, list(section)))
            else:
                found[key.text] = value
        merged = any(key.text == "<<" for key, _ in node.entries)
        if node.kind in ("map", "null") and not merged:
            for name, key_ in section.items():
                if key_.required and name not in found:
                    self.problem(place or node, f"{what} lacks '{name}'", f"write '{name}: …' ({key_.form.replace('`', '')})")
        return found

    def _entries(self, node: Node | None, what: str) -> list[tuple[Node, Node]]:
        """The entries of a table; a key that is there twice is a problem, and the first one counts."""
        if node is None or node.kind == "null":
            return []
        if node.kind != "map":
            self.problem(node, f"{what} is a table of keys, but {node.what} stands here", "write 'key: value' lines")
            return []
        seen: dict[str, Node] = {}
        entries = []
        for key, value in node.entries:
            if key.text in seen:
                first = seen[key.text].location.line
                self.problem(key, f"the key '{key.text}' is already in line {first}", "remove one of the two")
            elif key.text == "<<" and not key.quoted:
                self.problem(key, "'<<' merges are not allowed", "write the keys out")
            elif key.kind == "text":
                seen[key.text] = key
                entries.append((key, value))
        return entries

    def _list(self, node: Node | None, what: str) -> list[Node]:
        if node is None or node.kind == "null":
            return []
        if node.kind != "list":
            self.problem(node, f"{what} is a list, but {node.what} stands here", "write '- …' lines or [a, b]")
            return []
        return node.items

    def _some(self, node: Node, what: str) -> list[Node]:
        """One thing or a list of it."""
        return self._list(node, what) if node.kind == "list" else [node]

    def _text(self, node: Node, what: str, repair: str = "") -> str:
        if node.kind != "text":
            self.problem(
                node,
                f"{what} is expected here, but {node.what} stands here",
                repair,
            )
            return ""
        return node.text

    def text(self, node: Node, what: str) -> str:
        """As `_text`, for the reader of tests."""
        return self._text(node, what)

    def entries(self, node: Node | None, what: str) -> list[tuple[Node, Node]]:
        """As `_entries`, for the reader of tests."""
        return self._entries(node, what)

    def items(self, node: Node | None, what: str) -> list[Node]:
        """As `_list`, for the reader of tests."""
        return self._list(node, what)

    def choice(self, node: Node, words: Iterable[str], what: str) -> str | None:
        """One of some words."""
        known = list(words)
        text = self._text(node, what)
        if text and text not in known:
            self.problem(node, f"{what} cannot be '{text}'", did_you_mean(text, known))
        return text if text in known else None

    def duration(self, node: Node) -> int | None:
        """Nanoseconds."""
        found = duration_ns(self._text(node, "a duration"))
        if found is None and node.kind == "text":
            self.problem(node, f"'{node.text}' is no duration", "a number with its unit: 250us, 1.5s, 10m")
        return found

    def integer(self, node: Node) -> int | None:
        """A whole number."""
        text = self._text(node, "a number")
        if re.fullmatch(r"-?\d{1,18}", text):
            return int(text)
        if text:
            self.problem(node, f"'{text}' is no whole number", "for example 20")
        return None

    def number(self, node: Node) -> float | None:
        """A number."""
        text = self._text(node, "a number")
        if re.fullmatch(r"-?\d{1,18}(\.\d{1,18})?", text):
            return float(text)
        if text:
            self.problem(node, f"'{text}' is no number", "for example 20 or 0.5")
        return None

    def _at_least_one(self, node: Node, what: str) -> int | None:
        """A whole number above zero."""
        number = self.integer(node)
        if number is not None and number < 1:
            self.problem(node, f"{what} {number} lets nothing through", "a number from 1 on")
            return None
        return number

    def version(self, node: Node) -> str | None:
        """A version of QEMU."""
        try:
            return resolve_version(self._text(node, "a version"))
        except UsageError:
            self.problem(node, f"'{node.text}' is no version of QEMU", "for example 7.2 or 10.2.0, from 3.1 on")
            return None

    # --- events and expressions -------------------------------------------------------------------

    def _event(self, node: Node) -> str | None:
        """The event that a node names."""
        name = self._text(node, "an event", "conditions need the form 'EVENT: {when: …}' for every event, not a list")
        if not name:
            return None
        if self._catalogue.variants(name):
            return name
        if self._catalogue.is_event(name):
            self.problem(
                node,
                f"the arguments of the event '{name}' are not built in",
                "give that QEMU's trace-events-all with --catalogue",
            )
            return None
        close = self._catalogue.closest(name)
        repair = (
            f"did you mean '{close}'?" if close else "the names are in QEMU's trace-events files; give others with --catalogue"
        )
        self.problem(node, f"there is no event '{name}'", repair)
        return None

    def _row(self, event: str) -> str:
        """Note that rules need the event one by one."""
        self._layout.rows.setdefault(event, [])
        return event

    def _types(self, events: Sequence[str], name: str) -> set[str]:
        return _types(self._catalogue, events, name)

    def _expression(self, node: Node, sides: Sides, *, one_of_many: bool = False) -> Expression | None:
        """A checked expression; its names are arguments of the sides' events, see `_known` for `one_of_many`."""
        text = self._text(node, "an expression")
        if not text:
            if node.kind == "text":
                self.problem(node, "an expression is expected here, but an empty text stands here", "for example ret < 0")
            return None
        try:
            expression = parse_expression(text)
            self._check(expression, sides, one_of_many=one_of_many)
        except ExpressionError as error:
            self._at(node, error)
            return None
        return expression

    def _template(self, node: Node, sides: Sides) -> Template | None:
        try:
            template = parse_template(self._text(node, "a text"))
            for expression in template.expressions:
                self._check(expression, sides)
        except ExpressionError as error:
            self._at(node, error)
            return None
        return template

    def _at(self, node: Node, error: ExpressionError) -> None:
        """A problem within a text; at the whole of it where it is not written as it is read."""
        place, quotes = node.location, 2 if node.quoted else 0
        inside = replace(place, column=place.column + quotes // 2 + error.column, length=error.length)
        self.problem(inside if place.length == len(node.text) + quotes else place, str(error), error.repair)

    def _check(self, expression: Expression, sides: Sides, *, one_of_many: bool = False) -> str:
        """The type of an expression whose names and types are right."""
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
            kinds = {"text" if is_text(ctype) else "integer" for ctype in self._types(sides[reference.side], reference.name)}
            return kinds.pop() if len(kinds) == 1 else "any"

        def unsigned(reference: Reference) -> bool:
            types = self._types(sides[reference.side], reference.name)
            return bool(types) and all(t.startswith(("uint", "unsigned", "size_t")) for t in types)

        return check_types(expression, type_of, unsigned)

    def _known(self, reference: Reference, sides: Sides, *, one_of_many: bool) -> None:
        """Every argument exists in one of the events it is read from.

        What ships with otelbridge is for all versions of QEMU, and a list names what one version or another has: with a
        catalogue of one version, an argument that the built-in catalogue knows is only missing there.
        """
        events = sides[reference.side]
        if self._types(events, reference.name):
            return
        if (self._file.shipped or one_of_many) and _types(builtin(), events, reference.name):
            return
        known = sorted({a.name for e in events for spec in self._catalogue.variants(e) for a in spec.arguments})
        named = " or ".join(f"'{event}'" for event in events[:3])
        repair = did_you_mean(reference.name, [*known, *language.PSEUDO_ARGUMENTS]) if known else "it has no arguments at all"
        for side, others in sides.items():
            if side != reference.side and self._types(others, reference.name):
                repair = f"did you mean '{side and side + '.'}{reference.name}'?"
        raise ExpressionError(f"event {named} has no argument '{reference.name}'", reference.column, reference.length, repair)

    def _where(self, sides: MappingType[str, tuple[str, str | None]]) -> Where:
        """Places of arguments, from (variable, event) by side."""

        def where(reference: Reference) -> str | None:
            variable, event = sides.get(reference.side, ("", None))
            if event is None or not self._types([event], reference.name):
                return None
            return f"{variable}[{self._layout.place(event, reference.name)}]"

        return where

    def _one(self, event: str) -> Where:
        """For what reads one event alone."""
        return self._where({"": ("b", event)})

    # --- parts of rules ---------------------------------------------------------------------------

    def _condition(self, node: Node, sides: Sides) -> Expression | None:
        """An expression that decides something."""
        expression = self._expression(node, sides)
        if expression is not None and expression.is_constant:
            self.problem(
                node, f"'{expression.text}' reads nothing of the event, so it is always or never true", "compare an argument"
            )
            return None
        return expression

    def _when(self, node: Node | None, event: str) -> Evaluate | None:
        expression = None if node is None else self._condition(node, {"": [event]})
        return None if expression is None else compile_expression(expression, self._one(event))

    def _events_with(self, node: Node, section: language.Section, what: str) -> list[tuple[Node, str, dict[str, Node]]]:
        """Events that stand alone, in a list, or with conditions: (node, event, conditions)."""
        found = []
        if node.kind == "map":
            for key, value in self._entries(node, what):
                event = self._event(key)
                for part in self._list(value, what) if value.kind == "list" else [value]:
                    conditions = self._keys(part, section, f"'{key.text}'") if part.kind != "null" else {}
                    if event:
                        found.append((key, self._row(event), conditions))
            return found
        for part in self._some(node, what):
            event = self._event(part)
            if event:
                found.append((part, self._row(event), {}))
        return found

    def _attribute(
        self, node: Node, sides: Sides, bind: Callable[[Callable[[Where], Evaluate]], Evaluate]
    ) -> tuple[Evaluate, bool] | None:
        """An attribute's value, bound, and whether it is the same for all."""
        if node.kind == "map":
            keys = self._keys(node, language.ATTRIBUTE, "an attribute")
            self._only_one_of(keys, ("from", "value", "ordinal", "by_state"))
            self._only_one_of(keys, ("value", "remembered_by"))
            if "remembered_by" in keys and "begin" not in sides:
                self.problem(keys["remembered_by"], "'remembered_by' has no meaning here", "only attributes of spans remember")
            if "value" in keys:
                fixed = self._text(keys["value"], "a text")
                return (lambda _b, _e, _n: fixed), True
            if "from" not in keys:
                self.problem(node, "an attribute needs 'from' or 'value'", "for example {from: hostname, unless: ['(null)']}")
                return None
            inner = self._first_of(keys["from"], sides, bind)
            unless = frozenset(self._text(n, "a value") for n in self._list(keys.get("unless"), "'unless'"))
            as_hex = "as" in keys and self.choice(keys["as"], ["hex"], "'as'") is not None
            return None if inner is None else (_shaped(inner, unless, as_hex=as_hex), False)
        inner = self._first_of(node, sides, bind)
        return None if inner is None else (inner, False)

    def _only_one_of(self, keys: dict[str, Node], names: Sequence[str]) -> None:
        """Keys that exclude each other."""
        given = [name for name in names if name in keys]
        for name in given[1:]:
            self.problem(keys[name], f"'{name}' does not go with '{given[0]}'", "remove one of the two")

    def _first_of(self, node: Node, sides: Sides, bind: Callable[[Callable[[Where], Evaluate]], Evaluate]) -> Evaluate | None:
        """An expression, or of a list of them the first that has a value."""
        expressions = self._any_of(node, sides, "a value") or []
        found = [bind(lambda where, e=expression: compile_expression(e, where)) for expression in expressions]  # type: ignore[misc]
        return _first(found) if found else None

    def _any_of(self, node: Node, sides: Sides, what: str) -> list[Expression] | None:
        """An expression or a list of them, of which this QEMU has to have one."""
        parts = self._some(node, what)
        found = [self._expression(part, sides, one_of_many=len(parts) > 1) for part in parts]
        good = [expression for expression in found if expression is not None]
        if not parts and node.kind == "list":
            self.problem(node, "an empty list gives no value", "name an argument")
        if not good or len(good) < len(parts):
            return None
        if not any(all(self._types(sides[r.side], r.name) for r in e.references) for e in good) and not self._file.shipped:
            self.problem(node, "this QEMU has none of these arguments", "name one that it has")
            return None
        return good

    def _attributes_of_one(self, node: Node | None, event: str) -> tuple[tuple[str, Evaluate], ...]:
        """Attributes that read one event."""
        found = []
        where = self._one(event)
        for key, value in self._entries(node, "'attributes'"):
            attribute = self._attribute(value, {"": [event]}, lambda make: make(where))
            if attribute is not None:
                found.append((key.text, attribute[0]))
        return tuple(found)

    def _failure(self, node: Node | None, event: str, begins: Sequence[str]) -> Failure | None:
        """`{when, type, message}` of an event that ends, or is noted in, a span that one of `begins` began."""
        if node is None:
            return None
        variable = "e" if begins else "b"
        keys = self._keys(node, language.ERROR, "'error'") if node.kind != "null" else {}
        sides: dict[str, Sequence[str]] = {"": [event]}
        if begins:
            sides |= {"begin": begins, "end": [event]}

        def bound(make: Callable[[Where], Evaluate], references: Sequence[Reference]) -> Evaluate:
            fixed = {"": (variable, event), "end": (variable, event)}
            if not any(reference.side == "begin" for reference in references):
                return make(self._where(fixed))
            table = {begin: make(self._where({**fixed, "begin": ("b", begin)})) for begin in begins}
            return _by_begin(table)

        when: Evaluate | None = None
        if "when" in keys:
            condition = self._condition(keys["when"], sides)
            if condition is not None:
                when = bound(lambda where: compile_expression(condition, where), condition.references)
        texts: list[Evaluate] = []
        for word, otherwise in (("message", ""), ("type", "_OTHER")):
            template = self._template(keys[word], sides) if word in keys else Template((otherwise,) if otherwise else ())
            if template is None:
                return None
            references = [r for e in template.expressions for r in e.references]
            texts.append(bound(lambda where, t=template: compile_template(t, where), references))  # type: ignore[misc]
        return Failure(when, *texts)

    def _notes(self, node: Node | None, key: _Key | None, *, fails: bool) -> dict[str, tuple[NoteOn, ...]]:
        """`events:` of a rule."""
        found: dict[str, tuple[NoteOn, ...]] = {}
        if node is None:
            return found
        section = language.EVENT if fails else {k: v for k, v in language.EVENT.items() if k != "error"}
        for _, event, keys in self._events_with(node, section, "'events'"):
            note = NoteOn(
                event,
                self._when(keys.get("when"), event),
                self._attributes_of_one(keys.get("attributes"), event),
                self._failure(keys.get("error"), event, ()),
                key.of_note(self, event) if key is not None else None,
            )
            found[event] = (*found.get(event, ()), note)
        return found

    def metric(
        self,
        node: Node,
        name: str,
        kind: Literal["sum", "gauge", "histogram"],
        unit: str,
        text: str,
        *,
        monotonic: bool = False,
    ) -> Metric:
        """The instrument of this name; two rules that feed one must agree what it is."""
        if not _METRIC_NAME.fullmatch(name):
            self.problem(node, f"'{name}' is no name of a metric", "letters, digits, and . _ - / after a letter")
        known = self._compiled.instruments.get(name)
        if known is not None:
            if (known.kind, known.unit, known.monotonic) != (kind, unit, monotonic):
                self.problem(
                    node,
                    f"the metric '{name}' is a {known.kind} in '{known.unit}' elsewhere, here a {kind} in '{unit}'",
                    "rename one of them",
                )
            return known
        self._compiled.instruments[name] = Metric(name, kind, unit, text, self._scope, monotonic)
        return self._compiled.instruments[name]

    def _duration(self, node: Node | None, attributes: Iterable[str], of: str) -> Duration | None:
        if node is None:
            return None
        keys = self._keys(node, language.DURATION, "'duration'")
        if "histogram" not in keys:
            return None
        name = self._text(keys["histogram"], "a metric's name")
        by = self._by(keys.get("by"), attributes)
        limit = self._at_least_one(keys["limit"], "a limit of") if "limit" in keys else None
        metric = self.metric(keys["histogram"], name, "histogram", "s", f"Duration of {of}.")
        return Duration(metric, by, limit or _SERIES_LIMIT)

    def _by(self, node: Node | None, attributes: Iterable[str]) -> tuple[str, ...]:
        known = [*attributes, "qemu.event.begin", "qemu.event.end"]
        found = []
        for part in self._list(node, "'by'"):
            name = self._text(part, "an attribute")
            if name and name not in known:
                self.problem(part, f"the span has no attribute '{name}'", did_you_mean(name, known))
            found.append(name)
        return tuple(found)

    # --- spans ------------------------------------------------------------------------------------

    def _span(self, key_node: Node, node: Node) -> None:
        rule_id = key_node.text
        keys = self._keys(node, language.SPAN, f"the span '{rule_id}'", key_node)
        if "begin" not in keys:
            return
        begins = self._events_with(keys["begin"], language.BEGIN, "'begin'")
        self._each_once(begins)
        ends = self._events_with(keys["end"], language.END, "'end'") if "end" in keys else []
        until_next = "until" in keys and self.choice(keys["until"], ["next"], "'until'") is not None
        if ("end" in keys) == ("until" in keys):
            what = "both 'end' and 'until'" if "end" in keys else "neither 'end' nor 'until'"
            self.problem(key_node, f"the span '{rule_id}' has {what}", "it ends by events, or lasts until the next begins")
        begin_events = list(dict.fromkeys(event for _, event, _ in begins))
        end_events = list(dict.fromkeys(event for _, event, _ in ends))
        if not begin_events or ("end" in keys and not end_events):
            return
        self._check_versions(keys, begin_events, end_events)
        key = _Key.read(self, keys.get("key"), begin_events, end_events)
        recalls = self._recalls(keys.get("attributes"), begin_events)
        attributes, ordinals, names = self._span_attributes(keys.get("attributes"), begin_events, end_events)
        repeated = self.choice(keys["repeated_begin"], _REPEATED, "'repeated_begin'") if "repeated_begin" in keys else "close"
        inside = self._inside(keys.get("inside"), rule_id)
        rule = SpanRule(
            id=rule_id,
            name=self._text(keys["name"], "a name") if "name" in keys else rule_id,
            kind=language.KINDS[self.choice(keys["kind"], language.KINDS, "'kind'") or "internal"]
            if "kind" in keys
            else INTERNAL,
            scope=self._scope,
            begins={
                event: BeginOn(event, rank, self._when(conditions.get("when"), event), key.of_begin(self, event))
                for rank, (_, event, conditions) in enumerate(begins)
            },
            ends=self._ends(ends, begin_events, key),
            thread=key.thread,
            key_names=key.names,
            repeated_begin=cast("Literal['close', 'stack', 'queue', 'ignore', 'prefer']", repeated or "close"),
            until_next=until_next,
            timeout_ns=self._timeout(keys.get("timeout")),
            inside=inside,
            attributes=attributes,
            recalls=recalls,
            ordinals=ordinals,
            notes=self._notes(keys.get("events"), key, fails=True),
            links=self._links(keys.get("links"), rule_id, begin_events),
            keep=self._keep(keys.get("keep"), rule_id),
            duration=self._duration(keys.get("duration"), names, f"{rule_id} spans"),
            path=self._file.path,
        )
        self._compiled.spans[rule_id] = rule

    def _each_once(self, begins: Sequence[tuple[Node, str, dict[str, Node]]]) -> None:
        """An event begins a span under one condition."""
        seen = set()
        for node, event, _ in begins:
            if event in seen:
                self.problem(node, f"'{event}' begins this span twice", "join the two conditions with 'or'")
            seen.add(event)

    def _timeout(self, node: Node | None) -> int | None:
        found = None if node is None else self.duration(node)
        if node is not None and found == 0:
            self.problem(node, "a timeout of 0 gives every span up at once", "a length of time, for example 10m")
        return found

    def _check_versions(self, keys: dict[str, Node], begins: Sequence[str], ends: Sequence[str]) -> None:
        """A pair whose halves no version of QEMU has together never makes a span."""
        if not ends:
            return
        have = [self._versions(events) for events in (begins, ends)]
        if not have[0] & have[1]:
            self.problem(
                keys["end"],
                "no version of QEMU has a begin and an end of this rule, so it can never fire",
                "name the events of one version",
            )

    def _versions(self, events: Sequence[str]) -> int:
        found = 0
        for event in events:
            for spec in self._catalogue.variants(event):
                found |= between(spec.first, spec.last)
        return found

    def _ends(
        self, ends: Sequence[tuple[Node, str, dict[str, Node]]], begins: Sequence[str], key: _Key
    ) -> dict[str, tuple[EndOn, ...]]:
        found: dict[str, tuple[EndOn, ...]] = {}
        for _, event, conditions in ends:
            end = EndOn(
                event,
                self._when(conditions.get("when"), event),
                key.of_end(self, event),
                self._failure(conditions.get("error"), event, begins),
            )
            found[event] = (*found.get(event, ()), end)
        return found

    def _span_attributes(
        self, node: Node | None, begins: Sequence[str], ends: Sequence[str]
    ) -> tuple[_AttributesByPair, tuple[tuple[str, str], ...], list[str]]:
        """The attributes bound for each pair of events, the ordinals, and all names."""
        ordinals, names = [], []
        pairs: dict[tuple[str, str | None], list[tuple[str, Evaluate]]] = {(b, e): [] for b in begins for e in (None, *ends)}
        sides: dict[str, Sequence[str]] = {"": begins, "begin": begins}
        if ends:
            sides["end"] = ends
        for key, value in self._entries(node, "'attributes'"):
            names.append(key.text)
            if value.kind == "map" and any(k.text == "ordinal" for k, _ in value.entries):
                parts = self._keys(value, language.ATTRIBUTE, "an attribute")
                self._only_one_of(parts, ("ordinal", "from", "value", "by_state", "remembered_by"))
                machine = parts.get("ordinal")
                if machine is not None:
                    ordinals.append((key.text, self._text(machine, "a machine")))
                    self._compiled.named.append(_Named(self, machine, "machine"))
                continue
            for place, (begin, end) in enumerate(pairs):
                where = self._where({"": ("b", begin), "begin": ("b", begin), "end": ("e", end)})
                seen = len(self._problems.found)
                attribute = self._attribute(value, sides, lambda make, w=where: make(w))  # type: ignore[misc]
                if place:
                    # The same problem is found for every pair; once is enough.
                    del self._problems.found[seen:]
                if attribute is not None:
                    pairs[begin, end].append((key.text, attribute[0]))
        return _AttributesByPair({pair: tuple(found) for pair, found in pairs.items()}), tuple(ordinals), names

    def _recalls(self, node: Node | None, begins: Sequence[str]) -> tuple[tuple[str, dict[str, KeyOf]], ...]:
        """The attributes that an earlier span may lend, with the key that both agree in."""
        found = []
        for key, value in node.entries if node is not None and node.kind == "map" else ():
            by = next((v for k, v in value.entries if k.text == "remembered_by"), None) if value.kind == "map" else None
            expression = self._expression(by, {"": begins}) if by is not None else None
            if expression is not None:
                keys = {begin: _key_of([compile_expression(expression, self._one(begin))]) for begin in begins}
                found.append((key.text, keys))
        return tuple(found)

    def _inside(self, node: Node | None, rule_id: str) -> tuple[str, ...]:
        if node is None:
            return ()
        found = []
        for part in self._some(node, "'inside'"):
            found.append(self._text(part, "a rule"))
            self._compiled.named.append(_Named(self, part, "rule", rule_id))
        return tuple(found)

    def _links(self, node: Node | None, rule_id: str, begins: Sequence[str]) -> tuple[LinkTo, ...]:
        found = []
        for target, value in self._entries(node, "'links'"):
            self._compiled.named.append(_Named(self, target, "span"))
            if target.text == rule_id:
                self.problem(target, f"'{rule_id}' links to itself", "a link goes to the rule of the other host")
            expression = self._expression(value, {"": begins})
            if expression is not None and target.text != rule_id:
                keys = {begin: _key_of([compile_expression(expression, self._one(begin))]) for begin in begins}
                found.append(LinkTo(target.text, keys))
        return tuple(found)

    def _keep(self, node: Node | None, rule_id: str) -> Keep | None:
        if node is None:
            return None
        keys = self._keys(node, language.KEEP, "'keep'")
        if "slowest" not in keys or "per" not in keys:
            return None
        number = self._at_least_one(keys["slowest"], "'slowest' of")
        machine = self._text(keys["per"], "a machine")
        self._compiled.named.append(_Named(self, keys["per"], "machine"))
        return Keep(number or 1, machine) if rule_id else None

    # --- machines ---------------------------------------------------------------------------------

    def _machine(self, key_node: Node, node: Node) -> None:
        rule_id = key_node.text
        keys = self._keys(node, language.MACHINE, f"the machine '{rule_id}'", key_node)
        event = self._event(keys["event"]) if "event" in keys else None
        if event is None or not {"state", "start", "final"} <= keys.keys():
            return
        self._row(event)
        state = self._expression(keys["state"], {"": [event]})
        starts = self._by_role(keys["start"], "'start'")
        for word, found in (("start", starts), ("final", keys["final"].entries)):
            if not found:
                self.problem(keys[word], f"'{word}' names no state, so the machine never {_MOVES[word]}", _EXAMPLES[word])
        finals = {k.text: self._final(k, v, event) for k, v in self._entries(keys["final"], "'final'")}
        roles = self._roles(keys.get("roles"))
        order = tuple(
            dict.fromkeys(
                [*(k.text for k, _ in self._entries(keys.get("roles"), "'roles'")), *(r for rs in starts.values() for r in rs)]
            )
        )
        attributes, by_state, names = self._machine_attributes(keys.get("attributes"), event)
        states = self._keys(keys["states"], language.STATES, "'states'") if "states" in keys else {}
        state_attributes = self._attributes_of_one(states.get("attributes"), event)
        unknown = self.choice(keys["unknown_state"], ["keep", "drop"], "'unknown_state'") if "unknown_state" in keys else "keep"
        self._compiled.machines[rule_id] = MachineRule(
            id=rule_id,
            event=event,
            scope=self._scope,
            state=compile_expression(state, self._one(event)) if state is not None else _fixed(""),
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
            notes=self._notes(keys.get("events"), None, fails=False),
            duration=self._duration(keys.get("duration"), names, f"{rule_id} spans"),
            state_duration=self._duration(states.get("duration"), [n for n, _ in state_attributes], f"the states of {rule_id}"),
            active=self._active(keys.get("active"), rule_id),
            completed=self._completed(keys.get("completed"), rule_id, names),
            path=self._file.path,
        )

    def _kinds(self, node: Node | None, roles: Sequence[str]) -> dict[str, int]:
        """The span kind by role."""
        found = {}
        for role, kind in self._entries(node, "'kind'"):
            if role.text not in roles:
                self.problem(role, f"the machine has no role '{role.text}'", did_you_mean(role.text, list(roles)))
            found[role.text] = language.KINDS[self.choice(kind, language.KINDS, "'kind'") or "internal"]
        return found

    def _by_role(self, node: Node, what: str) -> dict[str, tuple[str, ...]]:
        """Word -> the roles that name it."""
        found: dict[str, tuple[str, ...]] = {}
        for role, words in self._entries(node, what):
            for word in self._some(words, what):
                text = self._text(word, "a state")
                found[text] = (*found.get(text, ()), role.text)
        return found

    def _roles(self, node: Node | None) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for role, events in self._entries(node, "'roles'"):
            for part in self._some(events, "'roles'"):
                event = self._event(part)
                if event:
                    found[self._row(event)] = (*found.get(event, ()), role.text)
        return found

    def _final(self, key: Node, node: Node, event: str) -> Failure | None:
        """The outcome of a final state."""
        if node.kind == "text":
            if self.choice(node, ["unset", "error"], "an outcome") != "error":
                return None
            kind = message = key.text
            return Failure(None, _fixed(message), _fixed(kind))
        keys = self._keys(node, language.FINAL, f"'{key.text}'")
        template = self._template(keys["message"], {"": [event]}) if "message" in keys else Template((key.text,))
        if template is None or "error" not in keys:
            return None
        return Failure(None, compile_template(template, self._one(event)), _fixed(self._text(keys["error"], "a type")))

    def _reasons(self, node: Node | None) -> dict[str, Evaluate]:
        found = {}
        for key, value in self._entries(node, "'reasons'"):
            event = self._event(key)
            if event:
                expression = self._expression(value, {"": [self._row(event)]})
                if expression is not None:
                    found[event] = compile_expression(expression, self._one(event))
        return found

    def _machine_attributes(
        self, node: Node | None, event: str
    ) -> tuple[tuple[tuple[str, Evaluate], ...], tuple[tuple[str, dict[str, Value], Value | None], ...], list[str]]:
        plain, by_state, names = [], [], []
        where = self._one(event)
        for key, value in self._entries(node, "'attributes'"):
            names.append(key.text)
            if value.kind == "map" and any(k.text == "by_state" for k, _ in value.entries):
                keys = self._keys(value, language.ATTRIBUTE, "an attribute")
                self._only_one_of(keys, ("by_state", "from", "value", "ordinal"))
                values: dict[str, Value] = {
                    k.text: self._text(v, "a value") for k, v in self._entries(keys["by_state"], "'by_state'")
                }
                otherwise = self._text(keys["otherwise"], "a value") if "otherwise" in keys else None
                by_state.append((key.text, values, otherwise))
                continue
            attribute = self._attribute(value, {"": [event]}, lambda make: make(where))
            if attribute is not None:
                plain.append((key.text, attribute[0]))
        return tuple(plain), tuple(by_state), names

    def _active(self, node: Node | None, rule_id: str) -> Metric | None:
        if node is None:
            return None
        return self.metric(node, self._text(node, "a metric's name"), "sum", f"{{{rule_id}}}", f"Open {rule_id} spans.")

    def _completed(self, node: Node | None, rule_id: str, names: Iterable[str]) -> tuple[Metric, tuple[str, ...]] | None:
        if node is None:
            return None
        keys = self._keys(node, language.COMPLETED, "'completed'")
        if "counter" not in keys:
            return None
        name = self._text(keys["counter"], "a metric's name")
        metric = self.metric(keys["counter"], name, "sum", f"{{{rule_id}}}", f"Ended {rule_id} spans.", monotonic=True)
        return metric, self._by(keys.get("by"), names)

    # --- metrics ----------------------------------------------------------------------------------

    def _metric(self, key_node: Node, node: Node) -> None:
        rules: list[MetricRule] = []
        for part in self._some(node, f"'{key_node.text}'"):
            rules += self._metric_rules(key_node, part)
        self._compiled.metrics[key_node.text] = rules

    def _metric_rules(self, key_node: Node, node: Node) -> list[MetricRule]:
        keys = self._keys(node, language.METRIC, f"the metric '{key_node.text}'", key_node)
        kinds = [word for word in _OPERATIONS if word in keys]
        if len(kinds) != 1:
            self.problem(
                key_node,
                f"the metric '{key_node.text}' has {' and '.join(kinds) or 'no counter, gauge or histogram'}",
                "one of them says which event feeds it: 'counter: EVENT'",
            )
            return []
        word = kinds[0]
        operation = _OPERATIONS[word]
        for other in set(_OPERATIONS.values()) & keys.keys() - {operation}:
            self.problem(keys[other], f"a {word} has no '{other}'", f"use '{operation}'")
        if operation != "add" and operation not in keys:
            self.problem(
                key_node, f"a {word} needs '{operation}'", f"write '{operation}: …' ({language.METRIC[operation].form})"
            )
            return []
        unit = self._text(keys["unit"], "a unit") if "unit" in keys else "1"
        if unit and not _UNIT.fullmatch(unit):
            self.problem(keys["unit"], f"'{unit}' is no UCUM unit", "for example By, s, {page}")
        text = self._text(keys["description"], "a text") if "description" in keys else ""
        metric = self.metric(key_node, key_node.text, _KINDS[word], unit, text, monotonic=word == "counter")
        events = [e for e in (self._event(part) for part in self._some(keys[word], f"'{word}'")) if e]
        limit = self._at_least_one(keys["limit"], "a limit of") if "limit" in keys else None
        found = []
        for place, event in enumerate(events):
            seen = len(self._problems.found)
            rule = self._metric_rule(metric, event, events, operation, keys, limit or _SERIES_LIMIT)
            if place:
                del self._problems.found[seen:]
            if rule is not None:
                found.append(rule)
        return found

    def _metric_rule(
        self, metric: Metric, event: str, events: Sequence[str], operation: str, keys: dict[str, Node], limit: int
    ) -> MetricRule | None:
        value: Evaluate | None = None
        argument: tuple[str, ...] = ()
        if operation in keys:
            given = self._any_of(keys[operation], {"": events}, f"'{operation}'") or []
            if not given or not self._numbers(keys[operation], given, events):
                return None
            if operation == "add" and all(e.plain_name for e in given):
                argument = tuple(e.plain_name for e in given if e.plain_name and self._types([event], e.plain_name))
            # What is only summed must not make its event a row; it gets its place when all rules are known.
            summed = argument and "when" not in keys
            value = _unplaced if summed else _first([compile_expression(e, self._one(event)) for e in given])
        attributes, constant = [], True
        where = self._one(event)
        for key, node in self._entries(keys.get("attributes"), "'attributes'"):
            attribute = self._attribute(node, {"": events}, lambda make: make(where))
            if attribute is not None:
                attributes.append((key.text, attribute[0]))
                constant = constant and attribute[1]
        when = self._when(keys.get("when"), event)
        rule = MetricRule(
            metric,
            event,
            cast("Literal['add', 'set', 'record']", operation),
            value,
            argument,
            when,
            tuple(attributes),
            constant,
            limit,
            self._file.path,
        )
        if not rule.from_counts:
            self._row(event)
            if value is _unplaced:
                rule = replace(rule, value=_first([compile_expression(e, where) for e in given]))
        return rule

    def _numbers(self, node: Node, expressions: Sequence[Expression], events: Sequence[str]) -> bool:
        """Whether all expressions give numbers."""
        for part, expression in zip(self._some(node, ""), expressions, strict=True):
            if self._check(expression, {"": events}, one_of_many=True) == "text":
                self.problem(
                    part, f"'{expression.text}' is text, but a metric takes numbers", "name an argument that is a number"
                )
                return False
        return True


def _types(catalogue: Catalogue, events: Sequence[str], name: str) -> set[str]:
    """The C types that an argument of one of the events has; empty where none has it."""
    return {a.ctype for e in events for spec in catalogue.variants(e) for a in spec.arguments if a.name == name}


class _Key:
    """What makes a begin and an end belong together."""

    def __init__(self, *, thread: bool, parts: Sequence[tuple[str, Expression, Expression]]) -> None:
        self.thread = thread
        self._parts = parts
        self.names = tuple(name for name, _, _ in parts)

    @classmethod
    def read(cls, compiler: _FileCompiler, node: Node | None, begins: Sequence[str], ends: Sequence[str]) -> _Key:
        thread, parts = False, []
        for part in compiler.items(node, "'key'"):
            if part.kind == "map":
                for name, value in compiler.entries(part, "'key'"):
                    parts += _sides(compiler, name, value, begins, ends)
            elif part.text == "thread":
                thread = True
            else:
                parts += _sides(compiler, part, part, begins, ends)
        return cls(thread=thread, parts=parts)

    def of_begin(self, compiler: _FileCompiler, event: str) -> KeyOf:
        return _key_of([compile_expression(begin, compiler._one(event)) for _, begin, _ in self._parts])  # noqa: SLF001

    def of_end(self, compiler: _FileCompiler, event: str) -> KeyOf:
        return _key_of([compile_expression(end, compiler._one(event)) for _, _, end in self._parts])  # noqa: SLF001

    def of_note(self, compiler: _FileCompiler, event: str) -> KeyOf | None:
        """The key as a noted event tells it, None where it does not have all its arguments."""
        if not self._parts:
            return None
        references = [r for _, begin, _ in self._parts for r in begin.references]
        if not all(compiler._types([event], r.name) for r in references):  # noqa: SLF001
            return None
        return self.of_begin(compiler, event)


def _sides(
    compiler: _FileCompiler, name: Node, value: Node, begins: Sequence[str], ends: Sequence[str]
) -> list[tuple[str, Expression, Expression]]:
    """A part of the key, as the begin and as the end tell it."""
    if value.kind == "map":
        both = {k.text: v for k, v in compiler.entries(value, f"'{name.text}'")}
        if both.keys() != {"begin", "end"}:
            compiler.problem(
                value, f"the part '{name.text}' of the key needs 'begin' and 'end'", "{begin: EXPRESSION, end: EXPRESSION}"
            )
            return []
        begin, end = both["begin"], both["end"]
    else:
        begin = end = value
    first = compiler._expression(begin, {"": begins})  # noqa: SLF001
    second = compiler._expression(end, {"": ends}) if ends and first is not None else first  # noqa: SLF001
    return [] if first is None or second is None else [(name.text, first, second)]


class _AttributesByPair:
    """The attributes of a span rule, by the events that began and ended the span."""

    def __init__(self, pairs: MappingType[tuple[str, str | None], tuple[tuple[str, Evaluate], ...]]) -> None:
        self._pairs = pairs

    def __call__(self, begin_event: str, end_event: str | None) -> tuple[tuple[str, Evaluate], ...]:
        found = self._pairs.get((begin_event, end_event))
        return found if found is not None else self._pairs.get((begin_event, None), ())


def _placed(rule: MetricRule, layout: _Layout) -> MetricRule:
    """A rule that sums an argument reads it from the row where other rules make the event a row all the same."""
    if not (rule.from_counts and rule.argument and rule.event in layout.rows):
        return rule
    places = [layout.place(rule.event, name) for name in rule.argument]
    return replace(rule, value=_first([_lookup(place) for place in places]))


def _lookup(place: int) -> Evaluate:
    return lambda begin, _end, _now: begin[place]


def _key_of(parts: Sequence[Evaluate]) -> KeyOf:
    """The parts of a key, read from one event."""
    if not parts:
        return lambda _arguments, _now: ()
    if len(parts) == 1:
        only = parts[0]
        return lambda arguments, now: (only(arguments, None, now),)
    return lambda arguments, now: tuple([part(arguments, None, now) for part in parts])


def _unplaced(_begin: Arguments, _end: Arguments | None, _now: Now) -> Value | None:
    """Stands for an argument that readers sum."""
    return None


def _fixed(text: str) -> Evaluate:
    return lambda _begin, _end, _now: text


def _first(found: Sequence[Evaluate]) -> Evaluate:
    """The first value that is there."""
    if len(found) == 1:
        return found[0]

    def evaluate(begin: Arguments, end: Arguments | None, now: Now) -> Value | None:
        for one in found:
            value = one(begin, end, now)
            if value is not None:
                return value
        return None

    return evaluate


def _by_begin(table: MappingType[str, Evaluate]) -> Evaluate:
    """What reads the begin event's arguments, whichever event it was."""

    def evaluate(begin: Arguments, end: Arguments | None, now: Now) -> Value | None:
        one = table.get(now.begin_event or "")
        return one(begin, end, now) if one is not None else None

    return evaluate


def _shaped(inner: Evaluate, unless: frozenset[str], *, as_hex: bool) -> Evaluate:
    """A value that is left out if it means nothing, and written as wanted."""

    def evaluate(begin: Arguments, end: Arguments | None, now: Now) -> Value | None:
        value = inner(begin, end, now)
        if value is None or str(value) in unless:
            return None
        return f"{value & 0xFFFF_FFFF_FFFF_FFFF:#x}" if as_hex and isinstance(value, int) else value

    return evaluate
