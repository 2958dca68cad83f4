"""The trees of the shipped mappings, read before and kept: reading YAML is a sixth of what a short conversion takes.

They lie in `trees.json`, by a digest of the text that they were read from, so one that is out of date is passed over. Nodes
of kept trees do not know where they stand. `./dev trees` writes the file anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from otelbridge.mapping.source import Node

FILE = Path(__file__).with_name("trees.json")
_LIST, _MAP, _QUOTED = 0, 1, 2
"""What begins the list that stands for such a node. A plain scalar is a string, and null is null."""


def kept_tree(text: str, path: str) -> Node | None:
    """The tree of a text that was read before, None for any other."""
    name = _digest(text)
    trees = _trees()
    return _node(trees[name], path) if name in trees else None


@cache
def _trees() -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(FILE.read_text("ascii"))
    except FileNotFoundError:
        return {}
    return found


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _node(plain: Any, path: str) -> Node:  # noqa: ANN401  # JSON
    if isinstance(plain, str):
        return Node("text", path, None, None, plain)
    if plain is None:
        return Node("null", path, None, None)
    kind, *parts = plain
    if kind == _QUOTED:
        return Node("text", path, None, None, parts[0], quoted=True)
    nodes = [_node(part, path) for part in parts]
    if kind == _LIST:
        return Node("list", path, None, None, items=nodes)
    return Node("map", path, None, None, entries=list(zip(nodes[::2], nodes[1::2], strict=True)))


# --- writing ----------------------------------------------------------------------------------------


def written(texts: Iterable[str]) -> str:
    """What the file must hold for these texts of mappings."""
    from otelbridge.mapping.yaml_nodes import parse  # noqa: PLC0415  # only to write it

    lines = [f'"{_digest(text)}": {json.dumps(_plain(parse(text, "")[0]))}' for text in texts]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _plain(node: Node | None) -> Any:  # noqa: ANN401  # JSON
    if node is None or node.kind == "null":
        return None
    if node.kind == "text":
        return [_QUOTED, node.text] if node.quoted else node.text
    if node.kind == "list":
        return [_LIST, *map(_plain, node.items)]
    return [_MAP, *(_plain(part) for entry in node.entries for part in entry)]
