"""The language's reference is the one that the program goes by, and no key of it is there for nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from otelbridge.catalogue import builtin
from otelbridge.errors import MappingError
from otelbridge.mapping import File, compile_mappings, language, listing, shipped_files, shipped_folder
from otelbridge.mapping.source import Node
from otelbridge.mapping.yaml_nodes import parse
from otelbridge.pipeline.cases import run_mapping_tests

README = shipped_folder() / "README.md"
SHIPPED_HEAD = "`<state>` in it stands for one name for each state.\n\n"
KEYS_HEAD = "a value counts, or a table as described below. A duration is a number with its unit: `250us`, `1.5s`, `10m`.\n\n"

EVERY_KEY = Path(__file__).with_name("every_key.yaml").read_text("utf-8")


def generated() -> dict[str, str]:
    """What stands in the README's generated sections, by the line that they begin after."""
    return {SHIPPED_HEAD: listing.reference(compile_mappings(shipped_files(), builtin())), KEYS_HEAD: language.reference()}


def with_generated(text: str) -> str:
    """The README with its generated sections as they should be: each goes on to the next `## ` heading or the end."""
    for head, section in generated().items():
        before, found, after = text.partition(head)
        assert found, head
        _, heading, rest = f"\n{after}".partition("\n## ")
        text = before + head + section + heading + rest
    return text


def test_the_references_are_in_the_readme_word_for_word() -> None:
    found = README.read_text("utf-8")
    wanted = with_generated(found)
    if os.environ.get("OTELBRIDGE_REGENERATE") == "1":
        README.write_text(wanted, "utf-8")
        return
    assert found == wanted, "mappings/README.md is not what the program says; OTELBRIDGE_REGENERATE=1 pytest writes it anew"


def shown(kind: str) -> str:
    """What the README shows in its block of this kind."""
    blocks = README.read_text("utf-8").split("```")[1::2]
    (found,) = (text for block in blocks for first, _, text in [block.partition("\n")] if first == kind)
    return found


def test_the_message_in_the_readme_is_what_the_program_says_of_its_example_with_a_typo() -> None:
    typo = shown("yaml").replace("section_id]", "section_ids]")
    with pytest.raises(MappingError) as caught:
        compile_mappings([File("my.yaml", typo), *shipped_files()], builtin())
    assert str(caught.value) + "\n" == shown("text")


def test_the_readmes_own_test_passes() -> None:
    assert_passes(File("my.yaml", shown("yaml")))


def assert_passes(file: File) -> None:
    results = run_mapping_tests(compile_mappings([file, *shipped_files()], builtin()), builtin(), [file.path])
    assert [result.differences for result in results] == [()]


def test_the_file_of_every_key_does_what_it_says() -> None:
    assert_passes(File("my.yaml", EVERY_KEY))


def test_every_key_of_the_language_is_used() -> None:
    used: set[str] = set()
    for text in (EVERY_KEY, *(file.text for file in shipped_files(with_tests=True))):
        root, _ = parse(text, "")
        assert root is not None
        used |= words(root)
    unused = {key for _, section in language.SECTIONS for key in section} - used
    assert not unused


def words(node: Node) -> set[str]:
    found = {key.text for key, _ in node.entries}
    for part in (*node.items, *(value for _, value in node.entries)):
        found |= words(part)
    return found


def test_every_key_has_a_sentence_and_tells_what_it_takes() -> None:
    for _, section in language.SECTIONS:
        for key in section.values():
            assert key.text.endswith((".", "`.", "`"))
            assert key.form


def test_the_shipped_folder_has_nothing_but_mappings_and_the_readme() -> None:
    assert {Path(path).suffix for path in shipped_folder().iterdir()} == {".yaml", ".md"}
