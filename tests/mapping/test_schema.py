"""The JSON Schema of the language accepts what the compiler accepts, and refuses what is wrong in its shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from otelbridge.mapping import language, shipped_files
from otelbridge.mapping.schema import schema

HERE = Path(__file__).parent
SHIPPED = {file.path: file.text for file in shipped_files(with_tests=True)}
GOOD = {**SHIPPED, "every_key.yaml": HERE.joinpath("every_key.yaml").read_text("utf-8")}
VALIDATOR = Draft202012Validator(schema())

WRONG_IN_SHAPE = {
    "unknown key", "unknown key like no other", "end and until", "neither end nor until", "until what", "bad duration",
    "bad repeated_begin", "begin missing", "empty rule", "unit missing", "metric fed by nothing", "metric of two kinds",
    "gauge without set", "gauge with add", "list for a table", "table for an event", "text for a list", "list for attributes",
    "list for the file", "half a part of the key", "attribute of nothing", "attribute of two things", "scope missing",
    "version 2", "merge of rules", "nothing as a key", "empty file", "comments alone", "unmapped without a reason",
    "unknown key of a test", "machine of wrong words", "wrong expectations", "remembering of a fixed text",
    "number that is fixed",
}  # fmt: skip


def mistakes() -> dict[str, str]:
    """The wrong files by what is wrong in them."""
    _, *cases = HERE.joinpath("mistakes.txt").read_text("utf-8").split("\n=== ")
    parts = [case.partition("\n") for case in cases]
    return {title: rest.partition("==>\n")[0] for title, _, rest in parts}


MISTAKES = mistakes()


def errors(text: str) -> list[str]:
    return [f"{error.json_path}: {error.message[:200]}" for error in VALIDATOR.iter_errors(yaml.safe_load(text))]


def test_it_is_a_schema_of_2020_12() -> None:
    Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("path", GOOD)
def test_a_good_file_is_accepted(path: str) -> None:
    assert errors(GOOD[path]) == []


def test_every_mistake_of_shape_is_one_of_the_mistakes() -> None:
    assert MISTAKES.keys() >= WRONG_IN_SHAPE


@pytest.mark.parametrize("title", sorted(WRONG_IN_SHAPE))
def test_a_file_of_the_wrong_shape_is_refused(title: str) -> None:
    assert errors(MISTAKES[title])


@pytest.mark.parametrize("title", ["unknown event", "unknown argument", "call", "inside itself", "event known by name only"])
def test_what_only_a_catalogue_can_tell_is_left_to_the_compiler(title: str) -> None:
    assert errors(MISTAKES[title]) == []


def test_every_key_is_in_it_with_its_sentence() -> None:
    described: set[tuple[str, str]] = set()

    def walk(part: Any) -> None:
        if isinstance(part, dict):
            for name, value in part.get("properties", {}).items():
                if isinstance(value, dict):
                    described.add((name, value.get("description", "")))
            for value in part.values():
                walk(value)

    walk(schema())
    wanted = {(name, key.text) for _, section in language.SECTIONS for name, key in section.items()}
    assert wanted <= described


def test_events_are_offered() -> None:
    assert "migrate_set_state" in schema()["$defs"]["event"]["anyOf"][0]["enum"]
