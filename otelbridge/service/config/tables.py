"""Reads tables of the configuration file, and the words and paths in them."""

from __future__ import annotations

import os
from pathlib import Path

from otelbridge.mapping.language import Section
from otelbridge.mapping.nodes import NodeReader
from otelbridge.mapping.source import Node


class TableReader:
    """Reads nodes with the rules of this file: relative paths are those beside it, a key without a value is not there."""

    def __init__(self, nodes: NodeReader, folder: Path) -> None:
        self.nodes, self.folder = nodes, folder
        self.problem = nodes.problem

    def table(self, node: Node, section: Section, what: str) -> dict[str, Node]:
        """The entries of a table that have a value; unknown, duplicate and missing keys are problems."""
        found = self.nodes.keys(node, section, what)
        for name, value in found.items():
            if value.kind == "null" and section[name].required:
                self.problem(value, f"'{name}' has no value", f"write '{name}: …' ({section[name].form})")
        return {name: value for name, value in found.items() if value.kind != "null"}

    def word(self, node: Node, what: str) -> str:
        """A text that is not empty; empty where something else stands."""
        text = self.nodes.text(node, what)
        if node.kind == "text" and (not text or "\0" in text):
            self.problem(node, f"{what} is expected here, but {'a null character' if text else 'an empty text'} stands here")
            return ""
        return text

    def path(self, node: Node, what: str) -> Path | None:
        """An absolute path."""
        text = self.word(node, what)
        return self.folder / text if text else None

    def check_readable(self, node: Node, path: Path) -> bool:
        """Note a problem if a file or folder is not there or may not be read."""
        if not os.access(path, os.F_OK):
            self.problem(node, f"there is no file '{path}'", "relative paths are those beside the configuration file")
        elif not os.access(path, os.R_OK):
            self.problem(node, f"'{path}' may not be read", "give otelbridge's user the permission")
        else:
            return True
        return False

    def positive(self, node: Node, number: int | None) -> int | None:
        """The number; a problem if it is zero."""
        if number == 0:
            self.problem(node, f"'{node.text}' is nothing", "more than zero is needed")
            return None
        return number
