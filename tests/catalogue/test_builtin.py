"""The built-in declarations against QEMU's own trace-events files of every release, read here by other means."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from otelbridge.catalogue import VERSIONS, builtin
from otelbridge.catalogue.versions import between
from otelbridge.records import EventSpec

LENGTHS = {"8": "hh", "16": "h", "32": "", "64": "l"}
Declared = dict[str, tuple[tuple[tuple[str, str], ...], str]]


def declared_in(text: str) -> Declared:
    """Name -> arguments as (type without blanks, name), format; a format is put together by Python's own string literals."""
    found: Declared = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        name, arguments, formats = re.fullmatch(r"(\w+)\((.*?)\)\s*(.*)", line).groups()  # type: ignore[union-attr]
        pairs = [re.fullmatch(r"\s*(.*?)(\w+)\s*", part) for part in arguments.split(",") if part.strip() != "void"]
        quoted = re.sub(r"PRI([diuxX])(8|16|32|64)", lambda macro: f' "{LENGTHS[macro[2]]}{macro[1]}" ', formats)
        found[name] = tuple((p[1].replace(" ", ""), p[2]) for p in pairs if p), str(ast.literal_eval(quoted))
    return found


def as_declared(spec: EventSpec) -> tuple[tuple[tuple[str, str], ...], str]:
    return tuple((argument.ctype.replace(" ", ""), argument.name) for argument in spec.arguments), spec.format


def known_of(version: str) -> Declared:
    bit = between(version, version)
    return {
        name: as_declared(spec)
        for name in builtin().declared()
        for spec in builtin().variants(name)
        if between(spec.first, spec.last) & bit
    }


def catalogue_file(shared: Path, version: str) -> str:
    (path,) = [
        p for p in (shared / "catalogs").glob("*.trace-events") if p.name.startswith(f"{version}.") or f"{version}-" in p.name
    ]
    return path.read_text("utf-8")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_release_declares_what_is_built_in_for_it(shared: Path, version: str) -> None:
    """Events, arguments and formats are the same, none is missing and none is too many."""
    assert known_of(version) == declared_in(catalogue_file(shared, version))


def test_no_release_has_two_declarations_of_one_event() -> None:
    for name in builtin().declared():
        taken = 0
        for spec in builtin().variants(name):
            versions = between(spec.first, spec.last)
            assert not taken & versions, name
            taken |= versions


def test_variants_come_newest_first() -> None:
    for name in builtin().declared():
        lasts = [VERSIONS.index(spec.last or "") for spec in builtin().variants(name)]
        assert lasts == sorted(lasts, reverse=True), name


def test_qemu_4_1_has_all_its_262_migration_events() -> None:
    assert len(known_of("4.1.0")) == 262


def test_every_event_of_a_whole_qemu_is_known_by_name(shared: Path) -> None:
    paths = sorted((shared / "catalogs").glob("*.trace-events-all"))
    assert len(paths) == 4
    for path in paths:
        names = set(re.findall(r"^(?:(?:disable|vcpu) +)*(\w+) *\(", path.read_text("utf-8"), re.MULTILINE))
        assert len(names) > 2000, path
        assert {name for name in names if not builtin().is_event(name)} == set(), path


@pytest.mark.parametrize("name", ["qemu", "CPU", "", "migrate_set_state_", "EAX", "char"])
def test_words_of_other_lines_are_no_events(name: str) -> None:
    assert not builtin().is_event(name)
