"""Mapping files as nodes that know where they stand: YAML, each scalar as it is written, bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from otelbridge.errors import LocatedError, Location, Problem, UsageError

MAX_BYTES = 1 << 20
MAX_DEPTH = 20
MAX_NODES = 100_000
"""With what aliases repeat counted again, so that a small file cannot grow into a large one."""

_MAX_SHOWN = 160
"""So much of a line is shown in a message."""


class Mark(Protocol):
    """A place in a file, counted from 0, as both of yaml's loaders give it."""

    line: int
    column: int


@dataclass(slots=True)
class Node:
    """A piece of a file.

    `text` is a scalar as it is written, `quoted` whether in quotes or as a block, `hidden` whether it is a secret, which
    no message shows.
    """

    kind: Literal["text", "null", "list", "map"]
    path: str
    start: Mark | None
    end: Mark | None
    text: str = ""
    quoted: bool = False
    items: list[Node] = field(default_factory=list)
    entries: list[tuple[Node, Node]] = field(default_factory=list)
    hidden: bool = False

    @property
    def location(self) -> Location:
        """Where it stands; most are never asked."""
        return location_of(self.path, self.start, self.end)

    @property
    def what(self) -> str:
        """What it is, for messages."""
        text = "a text" if self.hidden else f"'{self.text}'"
        return {"text": text, "null": "nothing", "list": "a list", "map": "a table of keys"}[self.kind]


Noted = Callable[..., None]
"""Notes a problem: (node or place, text, repair)."""


class Problems:
    """Collects what is wrong in one file."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.found: list[Problem] = []
        self._lines = text.splitlines()

    def add(self, place: Node | Location, text: str, repair: str = "") -> None:
        """Note a problem at a node."""
        location = place.location if isinstance(place, Node) else place
        line = self._lines[location.line - 1] if location.line <= len(self._lines) else ""
        if len(line) > _MAX_SHOWN:
            line = line[: _MAX_SHOWN - 2] + " …" if location.column < _MAX_SHOWN else ""
            location = location._replace(length=max(1, min(location.length, _MAX_SHOWN - location.column)))
        self.found.append(Problem(location, text, repair, line))


def did_you_mean(word: str, words: Iterator[str] | list[str] | tuple[str, ...]) -> str:
    """A repair that names the nearest word, or all of them if they are few."""
    from difflib import get_close_matches  # noqa: PLC0415  # only for a mistake

    known = list(words)
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    if len(known) == 1:
        return f"only '{known[0]}' can be here"
    return f"one of: {', '.join(known)}" if 0 < len(known) <= 30 else ""  # noqa: PLR2004  # more would fill the screen


def read_text(path: Path, what: str, refused: type[LocatedError]) -> str:
    """The text of a file; of one that is too large, enough for `parse` to say so.

    Args:
        path: The file.
        what: What it is, for messages: `The mapping`.
        refused: What is raised if it is no text.

    Raises:
        UsageError: It cannot be read.
        LocatedError: It is no UTF-8 text.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{what} '{path}' cannot be read: {error.strerror or error}.") from None
    if len(data) > MAX_BYTES:
        return data.decode("utf-8-sig", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = Problem(Location(str(path), line, 1), "the file is no UTF-8 text", "save it as UTF-8")
        raise refused([problem]) from None


def location_of(path: str, start: Mark | None, end: Mark | None) -> Location:
    """The place from one mark to another; the beginning of the file where there are none."""
    if start is None or end is None:
        return Location(path, 1, 1)
    length = end.column - start.column if end.line == start.line else 1
    return Location(path, start.line + 1, start.column + 1, max(1, length))
