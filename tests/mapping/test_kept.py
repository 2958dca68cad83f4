"""The kept trees of the shipped mappings are those that their files give."""

from __future__ import annotations

import subprocess
import sys

import pytest

from otelbridge.catalogue import builtin
from otelbridge.errors import MappingError
from otelbridge.mapping import File, compile_mappings, kept, shipped_files
from otelbridge.mapping.source import Node
from otelbridge.mapping.yaml_nodes import parse


def shape(node: Node | None) -> object:
    """A node without its place."""
    if node is None:
        return None
    entries = [(shape(key), shape(value)) for key, value in node.entries]
    return node.kind, node.path, node.text, node.quoted, [shape(item) for item in node.items], entries


def test_the_kept_trees_are_those_of_the_files() -> None:
    assert kept.FILE.read_text("ascii") == kept.written(file.text for file in shipped_files()), (
        "a mapping was changed: run ./dev trees"
    )


@pytest.mark.parametrize("file", shipped_files(), ids=lambda file: file.path)
def test_a_kept_tree_says_what_the_file_says(file: File) -> None:
    assert shape(kept.kept_tree(file.text, file.path)) == shape(parse(file.text, file.path)[0])


def test_a_changed_file_is_read_itself() -> None:
    changed = [file._replace(text=file.text.replace("scope: qemu.migration.tls", "scope: changed")) for file in shipped_files()]
    assert "changed" in {rule.scope.name for rule in compile_mappings(changed, builtin()).spans}


def test_a_problem_has_its_place_beside_kept_trees() -> None:
    own = File("own.yaml", "version: 1\nscope: own\ndisable: [no.such.rule]\n")
    with pytest.raises(MappingError) as caught:
        compile_mappings([own, *shipped_files()], builtin())
    assert [problem.location[:3] for problem in caught.value.problems] == [("own.yaml", 3, 11)]


def test_no_yaml_is_read_for_what_ships() -> None:
    code = (
        "import sys; from otelbridge.catalogue import builtin; from otelbridge.mapping import load_with_shipped; "
        "load_with_shipped((), builtin()); sys.exit('yaml' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_ships_is_right_with_the_built_in_catalogue() -> None:
    """Kept trees are taken to be; a file beside them that is not makes all be read and checked from their texts."""
    with pytest.raises(MappingError) as error:
        compile_mappings(
            [File("my.yaml", "version: 1\nscope: x\nspans: {y: {}}\n"), *shipped_files(with_tests=True)], builtin()
        )
    assert {problem.location.path for problem in error.value.problems} == {"my.yaml"}
