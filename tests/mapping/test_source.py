"""Every piece of a file knows where it stands, and is what YAML says it is."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from otelbridge.mapping import shipped_files
from otelbridge.mapping.source import Node, did_you_mean
from otelbridge.mapping.yaml_nodes import parse

SHIPPED = {file.path: file.text for file in shipped_files(with_tests=True)}


def tree(text: str) -> Node:
    root, problems = parse(text, "my.yaml")
    assert root is not None
    assert not problems.found
    return root


def composed(text: str) -> yaml.Node:
    # The two loaders do not agree where a value stands that is not there.
    root = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    assert root is not None
    return root


def assert_same(node: Node, other: yaml.Node) -> None:
    """The same piece at the same place as the YAML library's own composer has it."""
    start, end = other.start_mark, other.end_mark
    assert (node.location.line, node.location.column) == (start.line + 1, start.column + 1)
    if isinstance(other, yaml.ScalarNode):
        assert node.kind == ("null" if other.tag.endswith(":null") else "text")
        assert node.text == (other.value if node.kind == "text" else "")
        assert node.quoted == (node.kind == "text" and bool(other.style))
        if start.line == end.line:
            assert node.location.length == max(1, end.column - start.column)
        return
    assert node.kind == ("list" if isinstance(other, yaml.SequenceNode) else "map")
    parts = node.items + [part for entry in node.entries for part in entry]
    others = [part for value in other.value for part in (value if isinstance(value, tuple) else [value])]
    for part, one in zip(parts, others, strict=True):
        assert_same(part, one)


@pytest.mark.parametrize("path", SHIPPED)
def test_every_piece_of_a_shipped_file_stands_where_yaml_has_it(path: str) -> None:
    assert_same(tree(SHIPPED[path]), composed(SHIPPED[path]))


@pytest.mark.parametrize(
    "text",
    [
        "é: [ü, '𝄞 x', \"a\\tb\"]\n𝄞: {x: ~, y: , z: null}\n",
        "a: |\n  first\n  second\nb: >-\n  folded\n  text\n",
        "a:\n- b\n-   c: d\n    e: 'it''s'\n- []\n- {}\n",
        "a: plain text\n  over two lines\nb: 'quoted\n  over two'\n",
        "a: &x [1, 2]\nb: *x\n",
    ],
)
def test_every_piece_stands_where_yaml_has_it(text: str) -> None:
    assert_same(tree(text), composed(text))


@pytest.mark.parametrize(
    "word", ["yes", "no", "on", "true", "1", "1.0", "0x1f", "1_000", "2026-01-02", "12:30:45", "1e3", "=", "10m"]
)
def test_a_word_stays_what_is_written(word: str) -> None:
    ((_, value),) = tree(f"a: {word}\n").entries
    assert (value.kind, value.text) == ("text", word)


@given(st.text(max_size=200))
def test_any_text_is_a_tree_or_a_problem_with_its_place(text: str) -> None:
    _, problems = parse(text, "my.yaml")
    lines = text.splitlines() or [""]
    for problem in problems.found:
        assert 1 <= problem.location.line <= len(lines) + 1
        assert problem.location.column >= 1


@pytest.mark.parametrize(
    ("word", "words", "repair"),
    [
        ("timout", ["key", "timeout"], "did you mean 'timeout'?"),
        ("colour", ["key", "timeout"], "one of: key, timeout"),
        ("later", ["next"], "only 'next' can be here"),
        ("x", [], ""),
        ("zzz", [f"word{i}" for i in range(31)], ""),
    ],
)
def test_a_repair_names_what_can_stand_there(word: str, words: list[str], repair: str) -> None:
    assert did_you_mean(word, words) == repair
