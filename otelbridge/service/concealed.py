"""Secrets of the configuration file: which nodes are some, and how problems are shown without them.

What stands below an unknown key counts as a secret too: the key may be a misspelt `headers`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from otelbridge.errors import Problem
from otelbridge.mapping.language import Section
from otelbridge.mapping.source import Node
from otelbridge.otlp.settings import is_header_name
from otelbridge.service import keys

HIDDEN = "***"


class Span(NamedTuple):
    """A piece of the file that no message may show; lines and columns count from 1, the end is not in it."""

    first_line: int
    first_column: int
    last_line: int
    last_column: int


def hide(root: Node) -> list[Span]:
    """Mark every node that is a secret as one, and give their places."""
    spans = []
    for node in _secrets(root):
        node.hidden = True
        if node.start is not None and node.end is not None:
            spans.append(Span(node.start.line + 1, node.start.column + 1, node.end.line + 1, node.end.column + 1))
    return sorted(spans)


def _secrets(root: Node) -> Iterator[Node]:
    for key, node in _known(root, keys.FILE):
        if key == "destinations":
            for _, destination in node.entries:
                yield from _of_destination(destination)
            yield from _scalars(node) if node.kind != "map" else ()
        elif key == "inputs":
            for one in node.items:
                yield from _unknown(one, keys.INPUT)
        elif key in keys.SECTIONS:
            yield from _unknown(node, keys.SECTIONS[key])
    yield from _unknown(root, keys.FILE) if root.kind == "map" else _scalars(root)


def _of_destination(node: Node) -> Iterator[Node]:
    yield from _unknown(node, keys.DESTINATION) if node.kind == "map" else _scalars(node)
    for key, value in _known(node, keys.DESTINATION):
        if key == "headers":
            yield from _of_headers(value)
        elif key == "tls":
            yield from _unknown(value, keys.TLS)
        elif key == "endpoint" and ("@" in value.text or "?" in value.text):
            yield value


def _of_headers(node: Node) -> Iterator[Node]:
    if node.kind != "map":
        yield from _scalars(node)
    for key, value in node.entries:
        if not is_header_name(key.text.lower(), "http/protobuf"):
            yield key
        files = [entry for entry in value.entries if entry[0].text == "file"]
        if not (value.kind == "map" and len(files) == len(value.entries) == 1):
            yield from _scalars(value)


def _known(node: Node, section: Section) -> Iterator[tuple[str, Node]]:
    return ((key.text, value) for key, value in node.entries if key.text in section)


def _unknown(node: Node, section: Section) -> Iterator[Node]:
    """All scalars below keys that a table does not have, and those that stand where the table should."""
    if node.kind == "list":
        yield from _scalars(node)
    for key, value in node.entries:
        if key.text not in section:
            yield from _scalars(value)


def _scalars(node: Node) -> Iterator[Node]:
    """All texts in a node, keys too; what aliases repeat comes up once."""
    seen, waiting = set[int](), [node]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        waiting += one.items
        waiting += [part for entry in one.entries for part in entry]
        if one.kind == "text":
            yield one


# --- problems ---------------------------------------------------------------------------------------

_MAY_BE_SECRET = re.compile(r"headers|authorization|token|key|password|secret|@", re.IGNORECASE)
_QUOTED = re.compile(r"'[^']*'")


def shown(problem: Problem, spans: Sequence[Span]) -> Problem:
    """A problem with the secrets of its line left out."""
    for span in reversed(spans):  # from the right, so that the columns of the rest stay as they are
        problem = _without(problem, span)
    return problem


def shown_early(problem: Problem, spans: Sequence[Span]) -> Problem:
    """The same for a problem that was noted before it was known what is secret, so that it may quote some."""
    place = (problem.location.line, problem.location.column)
    if any((span.first_line, span.first_column) <= place < (span.last_line, span.last_column) for span in spans):
        problem = _unquoted(problem)
    return shown(problem, spans)


def shown_unparsed(problem: Problem, text: str) -> Problem:
    """A problem of a file that has no tree, so that nothing tells which pieces are secrets: no line, no quotation."""
    if not _MAY_BE_SECRET.search(text):
        return problem
    return _unquoted(problem)._replace(source="")


def _unquoted(problem: Problem) -> Problem:
    return problem._replace(text=_QUOTED.sub("'…'", problem.text), help=_QUOTED.sub("'…'", problem.help))


def _without(problem: Problem, span: Span) -> Problem:
    """The problem without one secret; without its line, where what is left out would move what the caret shows."""
    place, line = problem.location, problem.source
    if not (line and span.first_line <= place.line <= span.last_line):
        return problem
    start = span.first_column - 1 if span.first_line == place.line else len(line) - len(line.lstrip())
    end = min(span.last_column - 1 if span.last_line == place.line else len(line), len(line))
    if end <= start:
        return problem
    if place.column > start + 1:
        return problem._replace(location=place._replace(length=1), source="")
    source = line[:start] + HIDDEN + line[end:]
    reach = len(HIDDEN) if place.column == start + 1 else place.length
    return problem._replace(location=place._replace(length=min(reach, len(source) - place.column + 1)), source=source)
