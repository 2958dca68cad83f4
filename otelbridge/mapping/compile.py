"""From files to rules: everything is checked against the catalogue, and all problems are reported at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import otelbridge
from otelbridge.catalogue import Catalogue, builtin
from otelbridge.errors import Location, MappingError
from otelbridge.mapping import language
from otelbridge.mapping.attributes import AttributeReader
from otelbridge.mapping.binding import Binder, Layout
from otelbridge.mapping.cases import read_test
from otelbridge.mapping.events import EventReader
from otelbridge.mapping.instruments import InstrumentReader
from otelbridge.mapping.kept import kept_tree
from otelbridge.mapping.machine_rules import MachineReader
from otelbridge.mapping.metric_rules import MetricReader, placed, summed_arguments
from otelbridge.mapping.nodes import NodeReader
from otelbridge.mapping.readers import FileReaders
from otelbridge.mapping.rules import MachineRule, Mapping, MappingTest, MetricRule, SpanRule
from otelbridge.mapping.source import Node, Problems, did_you_mean
from otelbridge.mapping.span_rules import NamedRule, SpanReader
from otelbridge.records import Metric, Plan, Scope


class File(NamedTuple):
    """A mapping file. A shipped one gives way where another file defines the same rule."""

    path: str
    text: str
    shipped: bool = False


_LISTED = "an id is what a rule stands under in 'spans' or 'machines'; mappings/README.md lists those that ship"


@dataclass(slots=True)
class _Compiled:
    """What all files come to."""

    spans: dict[str, SpanRule] = field(default_factory=dict)
    machines: dict[str, MachineRule] = field(default_factory=dict)
    metrics: dict[str, list[MetricRule]] = field(default_factory=dict)
    unmapped: dict[str, str] = field(default_factory=dict)
    tests: list[MappingTest] = field(default_factory=list)
    instruments: dict[str, Metric] = field(default_factory=dict)
    places: dict[tuple[str, str], Node] = field(default_factory=dict)
    """Where each rule is defined, good or not, by (section, id): spans and machines share a section."""
    named: list[NamedRule] = field(default_factory=list)
    """References to other rules, checked when all files were read."""
    layout: Layout = field(default_factory=Layout)
    disabled: frozenset[str] = frozenset()
    """Ids of rules that do not count."""


def compile_mappings(files: Sequence[File], catalogue: Catalogue) -> Mapping:
    """The rules of all files.

    Raises:
        MappingError: With every problem of every file.
    """
    try:
        return _all_of(files, catalogue, kept=True)
    except MappingError:
        # Kept trees have no places, so what is wrong is looked for in the files themselves.
        return _all_of(files, catalogue, kept=False)


def _all_of(files: Sequence[File], catalogue: Catalogue, *, kept: bool) -> Mapping:
    compiled = _Compiled()
    # What the user wrote comes first, so that it is there before the shipped rule that it replaces.
    parsed = [(file, *_tree(file, kept=kept)) for file in sorted(files, key=lambda f: f.shipped)]
    compiled.disabled = frozenset(node.text for _, root, _ in parsed for node in _disabling(root))
    for file, root, found in parsed:
        if root is not None and root.kind != "null":
            _compile(file, root, found, catalogue, compiled)
        elif not found.found:
            start = Location(file.path, 1, 1)
            found.add(start, "the file is empty", "a mapping begins with 'version: 1' and 'scope: NAME'")
    for _, root, found in parsed:
        _check_disabling(_disabling(root), found, compiled)
    _check_named(compiled)
    every = [problem for _, _, found in parsed for problem in found.found]
    if every:
        raise MappingError(every)
    rows = compiled.layout.rows
    metrics = tuple(placed(rule, compiled.layout) for rules in compiled.metrics.values() for rule in rules)
    return Mapping(
        tuple(compiled.spans.values()),
        tuple(compiled.machines.values()),
        metrics,
        compiled.unmapped,
        Plan({event: tuple(names) for event, names in rows.items()}, summed_arguments(metrics, rows)),
        tuple(compiled.tests),
    )


def _tree(file: File, *, kept: bool) -> tuple[Node | None, Problems]:
    tree = kept_tree(file.text, file.path) if kept and file.shipped else None
    if tree is not None:
        return tree, Problems(file.path, file.text)
    from otelbridge.mapping.yaml_nodes import parse  # noqa: PLC0415  # what ships was read before, and the package takes long

    return parse(file.text, file.path)


# --- one file ---------------------------------------------------------------------------------------


def _compile(file: File, root: Node, problems: Problems, catalogue: Catalogue, compiled: _Compiled) -> None:
    """Add what one file says to what is common to all."""
    nodes = NodeReader(problems)
    found = nodes.keys(root, language.FILE, "the file")
    version = found.get("version")
    if version is not None and version.text != "1":
        nodes.problem(version, f"version {version.what} is not known", "this otelbridge reads version 1")
    scope = nodes.named(found["scope"]) if "scope" in found else ""
    readers = _readers(file, root, nodes, Scope(scope, otelbridge.__version__), catalogue, compiled)
    _rules(file, found, readers, compiled)
    _unmapped(found.get("unmapped"), readers, compiled)
    for node in nodes.items(found.get("disable"), "'disable'"):
        nodes.text(node, "the id of a rule")
    for node in nodes.items(found.get("tests"), "'tests'"):
        test = read_test(nodes, node, file.path)
        if test is not None:
            compiled.tests.append(test)


def _readers(file: File, root: Node, nodes: NodeReader, scope: Scope, catalogue: Catalogue, compiled: _Compiled) -> FileReaders:
    is_checked = file.shipped and root.start is None and catalogue is builtin()
    binder = Binder(nodes, catalogue, compiled.layout, shipped=file.shipped, checked=is_checked)
    attributes = AttributeReader(nodes, binder)
    events = EventReader(nodes, binder, attributes)
    return FileReaders(
        file.path, scope, nodes, binder, attributes, events, InstrumentReader(nodes, scope, compiled.instruments)
    )


def _rules(file: File, found: dict[str, Node], readers: FileReaders, compiled: _Compiled) -> None:
    machines, spans, metrics = MachineReader(readers), SpanReader(readers, compiled.named), MetricReader(readers)
    for key, node in readers.nodes.entries(found.get("machines"), "'machines'"):
        readers.nodes.named(key, "the id of a machine")
        if _is_new("rules", key, file, readers.nodes, compiled) and (machine := machines.read(key, node)) is not None:
            compiled.machines[key.text] = machine
    for key, node in readers.nodes.entries(found.get("spans"), "'spans'"):
        readers.nodes.named(key, "the id of a span")
        if _is_new("rules", key, file, readers.nodes, compiled) and (span := spans.read(key, node)) is not None:
            compiled.spans[key.text] = span
    for key, node in readers.nodes.entries(found.get("metrics"), "'metrics'"):
        if _is_new("metrics", key, file, readers.nodes, compiled):
            compiled.metrics[key.text] = metrics.read(key, node)


def _is_new(section: str, key: Node, file: File, nodes: NodeReader, compiled: _Compiled) -> bool:
    """Whether the rule counts: a disabled one does not, and a shipped one gives way to a user's of the same id."""
    first = compiled.places.setdefault((section, key.text), key)
    if first is not key and not file.shipped:
        defined = f"'{key.text}' is defined already at {first.path}:{first.location.line}"
        nodes.problem(key, defined, "give one of the two another name")
    return first is key and key.text not in compiled.disabled


def _unmapped(node: Node | None, readers: FileReaders, compiled: _Compiled) -> None:
    """Events that are left out on purpose."""
    for key, reason in readers.nodes.entries(node, "'unmapped'"):
        if readers.binder.event(key) and not reason.text:
            readers.nodes.problem(key, f"'{key.text}' is left out without a reason", "say why nobody needs it")
        compiled.unmapped.setdefault(key.text, reason.text)


# --- what crosses files -----------------------------------------------------------------------------


def _disabling(root: Node | None) -> list[Node]:
    """The ids that a file disables."""
    entries = root.entries if root is not None and root.kind == "map" else []
    return [node for key, value in entries if key.text == "disable" for node in value.items if node.kind == "text"]


def _check_disabling(nodes: Sequence[Node], problems: Problems, compiled: _Compiled) -> None:
    """What is disabled exists, and not in the same file."""
    known = list(dict.fromkeys(name for _, name in compiled.places))
    for node in nodes:
        own = [p for (_, name), p in compiled.places.items() if name == node.text and p.path == problems.path]
        if own:
            problems.add(
                node, f"'{node.text}' is defined in this file, in line {own[0].location.line}", "remove one of the two"
            )
        elif node.text in compiled.instruments and node.text not in known:
            problems.add(node, f"'{node.text}' is the metric of another rule", "disable or replace that rule")
        elif node.text not in known:
            repair = did_you_mean(node.text, known) or "an id is what a rule stands under in 'spans', 'machines' or 'metrics'"
            problems.add(node, f"there is no rule '{node.text}' to disable", repair)
        for keeper in [named.keeper for named in compiled.named if named.keeper and named.node.text == node.text]:
            problems.add(
                node,
                f"'{node.text}' cannot be disabled, because '{keeper}' keeps its slowest spans per '{node.text}'",
                f"disable '{keeper}' too, or put a rule of your own in its place",
            )


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
    for problem, node, wanted, inside, _ in compiled.named:
        name = node.text
        if name and name not in known[wanted] and name not in broken:
            other = f"'{name}' is no {wanted}" if name in known["rule"] else f"there is no {wanted} '{name}'"
            problem(node, other, did_you_mean(name, known[wanted]) or _LISTED)
        circle = _path(compiled, name, inside) if inside else []
        if circle and frozenset(circle) not in told:
            told.add(frozenset(circle))
            steps = ", which is inside ".join(f"'{step}'" for step in circle)
            problem(node, f"'{inside}' is inside {steps}", "break the circle: a parent is open before its child")


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
