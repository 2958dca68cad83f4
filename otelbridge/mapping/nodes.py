"""Reads the nodes of one file as what they are to be: tables, lists, words, numbers. What is wrong is noted as a problem."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from otelbridge.catalogue.versions import resolve_version
from otelbridge.durations import duration_ns
from otelbridge.errors import UsageError
from otelbridge.mapping import language
from otelbridge.mapping.source import Node, Problems, did_you_mean
from otelbridge.sizes import size_bytes


class NodeReader:
    """Reads the nodes of one file. A problem is noted and what it is in is left out."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self.problem = problems.add

    @contextmanager
    def noted_once(self, *, again: bool) -> Iterator[None]:
        """Forgets the problems that are noted within, if a node is read `again` and so has the same ones again."""
        seen = len(self._problems.found)
        yield
        if again:
            del self._problems.found[seen:]

    def keys(self, node: Node, section: language.Section, what: str, place: Node | None = None) -> dict[str, Node]:
        """The entries of a section; unknown, duplicate and missing keys are problems, the latter at `place`."""
        found: dict[str, Node] = {}
        for key, value in self.entries(node, what):
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

    def only_one_of(self, keys: dict[str, Node], names: Sequence[str]) -> None:
        """Keys that exclude each other."""
        given = [name for name in names if name in keys]
        for name in given[1:]:
            self.problem(keys[name], f"'{name}' does not go with '{given[0]}'", "remove one of the two")

    def entries(self, node: Node | None, what: str) -> list[tuple[Node, Node]]:
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

    def items(self, node: Node | None, what: str) -> list[Node]:
        """The items of a list."""
        if node is None or node.kind == "null":
            return []
        if node.kind != "list":
            self.problem(node, f"{what} is a list, but {node.what} stands here", "write '- …' lines or [a, b]")
            return []
        return node.items

    def some(self, node: Node, what: str) -> list[Node]:
        """One thing or a list of it."""
        return self.items(node, what) if node.kind == "list" else [node]

    def text(self, node: Node, what: str, repair: str = "") -> str:
        """A scalar as it is written; empty where something else stands."""
        if node.kind != "text":
            self.problem(node, f"{what} is expected here, but {node.what} stands here", repair)
            return ""
        return node.text

    def named(self, node: Node, what: str = "a name") -> str:
        """A scalar with something in it; empty where something else stands."""
        name = self.text(node, what)
        if node.kind == "text" and not name.strip():
            self.problem(node, f"{what} is expected here, but an empty text stands here", "for example my.name")
        return name

    def choice(self, node: Node, words: Iterable[str], what: str) -> str | None:
        """One of some words."""
        known = list(words)
        text = self.text(node, what)
        if text and text not in known:
            self.problem(node, f"{what} cannot be '{text}'", did_you_mean(text, known))
        return text if text in known else None

    def duration(self, node: Node) -> int | None:
        """Nanoseconds."""
        found = duration_ns(self.text(node, "a duration"))
        if found is None and node.kind == "text":
            self.problem(node, f"'{node.text}' is no duration", "a number with its unit: 250us, 1.5s, 10m")
        return found

    def size(self, node: Node) -> int | None:
        """Bytes."""
        found = size_bytes(self.text(node, "a size"))
        if found is None and node.kind == "text":
            self.problem(node, f"'{node.text}' is no size", "a number with its unit: 512KiB, 256MiB, 1GiB")
        return found

    def integer(self, node: Node) -> int | None:
        """A whole number."""
        text = self.text(node, "a number")
        if re.fullmatch(r"-?\d{1,18}", text):
            return int(text)
        if text:
            self.problem(node, f"'{text}' is no whole number", "for example 20")
        return None

    def at_least_one(self, node: Node, what: str) -> int | None:
        """A whole number above zero."""
        number = self.integer(node)
        if number is not None and number < 1:
            self.problem(node, f"{what} {number} lets nothing through", "a number from 1 on")
            return None
        return number

    def number(self, node: Node) -> float | None:
        """A number."""
        text = self.text(node, "a number")
        if re.fullmatch(r"-?\d{1,18}(\.\d{1,18})?", text):
            return float(text)
        if text:
            self.problem(node, f"'{text}' is no number", "for example 20 or 0.5")
        return None

    def version(self, node: Node) -> str | None:
        """A version of QEMU."""
        try:
            return resolve_version(self.text(node, "a version"))
        except UsageError:
            self.problem(node, f"'{node.text}' is no version of QEMU", "for example 7.2 or 10.2.0, from 3.1 on")
            return None
