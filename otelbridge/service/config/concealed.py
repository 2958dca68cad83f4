"""Secrets of the configuration file: which nodes are some, and how problems are shown without them.

What stands below an unknown key counts as a secret too: the key may be a misspelt `headers`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from otelbridge.errors import Problem
from otelbridge.mapping.language import Section
from otelbridge.mapping.source import Node
from otelbridge.otlp.settings import is_header_name, may_hold_secret
from otelbridge.service.config import keys

HIDDEN = "***"


class Piece(NamedTuple):
    """A scalar of the file: where it stands (lines and columns count from 1, the end is not in it), and what it says.

    `text` is None for a secret.
    """

    first_line: int
    first_column: int
    last_line: int
    last_column: int
    text: str | None


Pieces = Mapping[int, Sequence[Piece]]
"""Scalars by the lines that they stand in, from left to right."""


def hide(root: Node) -> Pieces:
    """Mark every node that is a secret as one, and give the places of all scalars, as `shown` needs them."""
    for node in _secrets(root):
        node.hidden = True
    pieces = sorted(
        Piece(
            node.start.line + 1, node.start.column + 1, node.end.line + 1, node.end.column + 1,
            None if node.hidden else node.text,
        )
        for node in _scalars(root) if node.start is not None and node.end is not None
    )  # fmt: skip
    by_line: dict[int, list[Piece]] = {}
    for piece in pieces:
        for line in range(piece.first_line, piece.last_line + 1):
            by_line.setdefault(line, []).append(piece)
    return by_line


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
    for table in _no_words(root):
        yield from _scalars(table)


def _of_destination(node: Node) -> Iterator[Node]:
    yield from _unknown(node, keys.DESTINATION) if node.kind == "map" else _scalars(node)
    for key, value in _known(node, keys.DESTINATION):
        if key == "headers":
            yield from _of_headers(value)
        elif key == "tls":
            yield from _unknown(value, keys.TLS)
        elif key == "endpoint" and may_hold_secret(value.text):
            yield value


def _of_headers(node: Node) -> Iterator[Node]:
    if node.kind != "map":
        yield from _scalars(node)
    for key, value in node.entries:
        if value.kind == "null" or not is_header_name(key.text.lower(), "http/protobuf"):
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


def _no_words(root: Node) -> Iterator[Node]:
    """Keys that are tables or lists: `? endpoint: http://…`, which a stray `?` makes of an entry."""
    for node in _all(root):
        yield from (key for key, _ in node.entries if key.kind in ("map", "list"))


def _scalars(node: Node) -> Iterator[Node]:
    """All texts in a node, keys too."""
    return (one for one in _all(node) if one.kind == "text")


def _all(node: Node) -> Iterator[Node]:
    """The node and all in it; what aliases repeat comes up once."""
    seen, waiting = set[int](), [node]
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            seen.add(id(one))
            waiting += [*one.items, *(part for entry in one.entries for part in entry)]
            yield one


# --- problems ---------------------------------------------------------------------------------------

_MAY_BE_SECRET = re.compile(r"headers|authorization|token|key|password|secret|@", re.IGNORECASE)
_QUOTED = re.compile(r"'[^']*'")
_PUNCTUATION = re.compile(r"[ \t\[\]{},:?-]*")
_CUT = " …"


def shown(problem: Problem, pieces: Pieces) -> Problem:
    """A problem whose line shows nothing but punctuation and scalars that are no secrets.

    Comments, tags and anchors are left out: `endpoint: #http://user:password@host` is one slip away from its password. There
    is no line where what is left out would move what the caret shows.
    """
    place, line = problem.location, problem.source
    cleaned, done, caret_length = "", 0, place.length
    for start, end, is_visible in _in_line(line, place.line, pieces):
        cleaned += _punctuation(line[done:start])
        if place.column == start + 1 and not is_visible:
            caret_length = len(HIDDEN)
        cleaned += line[start:end] if is_visible else HIDDEN
        done = end
    cleaned += _punctuation(line[done:])
    before = line[: place.column - 1]
    if not cleaned.startswith(before):
        return problem._replace(source="")
    return problem._replace(
        location=place._replace(length=max(1, min(caret_length, len(cleaned) - len(before)))), source=cleaned.rstrip()
    )


def shown_early(problem: Problem, text: str, pieces: Pieces) -> Problem:
    """The same for a problem that was noted before it was known what is secret, so that it may quote some."""
    return shown(_unquoted(problem) if _MAY_BE_SECRET.search(text) else problem, pieces)


def shown_unparsed(problem: Problem, text: str) -> Problem:
    """A problem of a file that has no tree, so that nothing tells which pieces are secrets: no line, no quotation."""
    return _unquoted(problem)._replace(source="") if _MAY_BE_SECRET.search(text) else problem


def _unquoted(problem: Problem) -> Problem:
    return problem._replace(text=_QUOTED.sub("'…'", problem.text), help=_QUOTED.sub("'…'", problem.help))


def _in_line(line: str, number: int, pieces: Pieces) -> Iterator[tuple[int, int, bool]]:
    """The scalars in a line: from where to where, and whether they may be seen."""
    for piece in pieces.get(number, ()):
        start = piece.first_column - 1 if piece.first_line == number else len(line) - len(line.lstrip())
        end = min(piece.last_column - 1 if piece.last_line == number else len(line), len(line))
        if start < end:
            written = line[start:end].removesuffix(_CUT)
            # Before a scalar its tag and its anchor are part of it: `&anchor text`.
            is_whole = written[:1] in ("'", '"') or (piece.text or "").startswith(written)
            yield start, end, piece.text is not None and is_whole


def _punctuation(text: str) -> str:
    """What stands between scalars, up to the first character that has no business there; nothing of a comment."""
    found = _PUNCTUATION.match(text)
    kept = found[0] if found is not None else ""
    return kept if kept == text or text[len(kept)] == "#" else f"{kept}…"
