"""Nodes from YAML, as libyaml or its twin in Python reads it."""

from __future__ import annotations

from typing import Any, Literal

import yaml
from yaml.reader import ReaderError

from otelbridge.errors import Location
from otelbridge.mapping.source import MAX_BYTES, MAX_DEPTH, MAX_NODES, Node, Problems, location_of

_NULLS = ("", "~", "null")
_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq"))
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse(text: str, path: str) -> tuple[Node | None, Problems]:
    """The file's tree, None where it is not YAML or goes beyond the bounds; the problems say why."""
    problems = Problems(path, text)
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        problems.add(Location(path, 1, 1), f"the file is larger than {MAX_BYTES >> 20} MiB", "split it into several files")
        return None, problems
    return _checked(text, path, problems), problems


def _checked(text: str, path: str, problems: Problems) -> Node | None:
    try:
        return _parsed(text, path, problems)
    except ReaderError as error:
        problems.add(_character(error, text, path), f"this is not YAML: {_reason(error)}", "remove that character")
    except yaml.YAMLError as error:
        problems.add(*_told(error, path))
    except _BoundError as error:
        problems.add(error.location, error.text, error.repair)
    return None


class _BoundError(Exception):
    def __init__(self, location: Location, text: str, repair: str) -> None:
        self.location, self.text, self.repair = location, text, repair


def _parsed(text: str, path: str, problems: Problems) -> Node | None:
    """The tree of the text.

    libyaml can give up on a deep file before it hands out a single level; in Python the level that is one too many is found.
    """
    try:
        return _tree(text, path, problems, _Loader)
    except yaml.YAMLError as error:
        if "nesting depth" not in str(error):
            raise
        return _tree(text, path, Problems(path, text), yaml.SafeLoader)


def _tree(text: str, path: str, problems: Problems, loader: Any) -> Node | None:  # noqa: ANN401  # yaml's loaders share no type
    builder = _Builder(path, problems)
    for event in yaml.parse(text, Loader=loader):
        builder.take(event)
    return builder.root


class _Builder:
    """Builds nodes from events with a stack of its own: a deep file must not exhaust the interpreter's."""

    def __init__(self, path: str, problems: Problems) -> None:
        self.root: Node | None = None
        self._path, self._problems = path, problems
        self._open: list[Node] = []
        self._keys: list[Node | None] = []
        self._anchors: dict[str, Node] = {}
        self._sizes: dict[str, int] = {}
        self._nodes = 0

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            quoted, value = bool(event.style), event.value
            if not quoted and value in _NULLS:
                self._put(Node("null", self._path, event.start_mark, event.end_mark), event)
            else:
                self._put(Node("text", self._path, event.start_mark, event.end_mark, value, quoted), event)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            self._begin(event)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self._open.pop()
            self._keys.pop()
        elif isinstance(event, yaml.AliasEvent):
            node = self._anchors.get(event.anchor or "")
            if node is None:
                raise _BoundError(
                    self._at(event),
                    f"'*{event.anchor}' refers to no anchor before it",
                    f"write '&{event.anchor}' before what it stands for",
                )
            self._count(event, _size(node))
            self._attach(node)
        elif isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
            raise _BoundError(self._at(event), "a second document begins here", "one file is one document; remove '---'")

    def _begin(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        kind: Literal["map", "list"] = "map" if isinstance(event, yaml.MappingStartEvent) else "list"
        node = Node(kind, self._path, event.start_mark, event.end_mark)
        if len(self._open) >= MAX_DEPTH:
            raise _BoundError(node.location, f"more than {MAX_DEPTH} levels are nested here", "no mapping needs so many")
        self._put(node, event)
        self._open.append(node)
        self._keys.append(None)

    def _put(self, node: Node, event: yaml.ScalarEvent | yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        if event.tag not in (None, "!") and event.tag not in _TAGS:
            tag = str(event.tag).replace("tag:yaml.org,2002:", "!!")
            self._problems.add(node, f"the tag '{tag}' has no meaning here", "remove it")
        self._count(event, 1)
        if event.anchor:
            self._anchors[event.anchor] = node
        self._attach(node)

    def _count(self, event: yaml.Event, number: int) -> None:
        self._nodes += number
        if self._nodes > MAX_NODES:
            raise _BoundError(
                self._at(event), f"the file has more than {MAX_NODES} values", "split it; aliases repeat what they refer to"
            )

    def _attach(self, node: Node) -> None:
        if not self._open:
            self.root = node
            return
        holder = self._open[-1]
        if holder.kind == "list":
            holder.items.append(node)
            return
        key = self._keys[-1]
        if key is None:
            self._keys[-1] = node
            if node.kind != "text":
                self._problems.add(node, f"{node.what} cannot be a key", "keys are words; put quotes around what is one")
        else:
            holder.entries.append((key, node))
            self._keys[-1] = None

    def _at(self, event: yaml.Event) -> Location:
        return location_of(self._path, event.start_mark, event.end_mark)


def _size(node: Node) -> int:
    total, waiting = 0, [node]
    while waiting:
        one = waiting.pop()
        total += 1
        waiting += one.items
        waiting += [part for entry in one.entries for part in entry]
        if total > MAX_NODES:
            break
    return total


def _character(error: ReaderError, text: str, path: str) -> Location:
    """Where the character stands that cannot be read. Loaders count differently, so it is looked for."""
    before = text[: max(0, text.find(chr(error.character)))]
    return Location(path, before.count("\n") + 1, len(before) - before.rfind("\n"))


def _told(error: yaml.YAMLError, path: str) -> tuple[Location, str, str]:
    """Where, why and what to do. A quote that is not closed is one where it opens: the end of the file tells nothing."""
    opening = getattr(error, "context_mark", None)
    if opening is not None and "quoted scalar" in _reason(error) and "end of stream" in _reason(error):
        place = Location(path, opening.line + 1, opening.column + 1)
        return place, "this is not YAML: the quote that opens here is never closed", "close it where the text ends"
    return _marked(error, path), f"this is not YAML: {_reason(error)}", "check quotes, brackets and indentation"


def _marked(error: yaml.YAMLError, path: str) -> Location:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return Location(path, mark.line + 1, mark.column + 1) if mark is not None else Location(path, 1, 1)


def _reason(error: yaml.YAMLError) -> str:
    if isinstance(error, ReaderError):
        return f"the character U+{error.character:04X} is not allowed"
    parts = [getattr(error, "context", None), getattr(error, "problem", None)]
    return ", ".join(str(part) for part in parts if part) or str(error).splitlines()[0]
