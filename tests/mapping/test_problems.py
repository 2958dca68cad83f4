"""What a person reads who made a mistake in a mapping file: where, what was found, what to do about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from otelbridge.catalogue import builtin
from otelbridge.catalogue.catalogue import catalogue_from
from otelbridge.errors import MappingError, UsageError
from otelbridge.mapping import File, compile_mappings, load_with_shipped, shipped_files, user_files
from otelbridge.mapping.source import MAX_NODES

HEAD = "version: 1\nscope: my.scope\n"
PAIR = "    begin: savevm_section_start\n    end: savevm_section_end\n"


def _mistakes() -> dict[str, tuple[str, str]]:
    """The files of `mistakes.txt` and what is said of each, by what is wrong in it."""
    _, *cases = Path(__file__).with_name("mistakes.txt").read_text("utf-8").split("\n=== ")
    parts = [(*case.partition("\n")[::2],) for case in cases]
    return {title: (rest.partition("==>\n")[0], rest.partition("==>\n")[2].rstrip("\n") + "\n") for title, rest in parts}


MISTAKES = _mistakes()


def said_of(*files: File) -> str:
    with pytest.raises(MappingError) as caught:
        compile_mappings(files, builtin())
    return str(caught.value)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_shown_where_it_is_with_what_to_do(mistake: str) -> None:
    text, message = MISTAKES[mistake]
    count = message.count(": error: ")
    tail = f"\n{count} problem{'s' if count > 1 else ''} in my.yaml; nothing was loaded."
    assert said_of(File("my.yaml", text)) == message + tail


def test_a_misspelt_parent_is_looked_for_among_all_rules() -> None:
    text = f"{HEAD}spans:\n  my.span:\n    inside: migraton\n{PAIR}"
    assert said_of(File("my.yaml", text), *shipped_files()) == (
        """\
my.yaml:5:13: error: there is no rule 'migraton'
  5 |      inside: migraton
    |              ^^^^^^^^
  help: did you mean 'migration'?

1 problem in my.yaml; nothing was loaded."""
    )


def test_a_parent_like_no_rule_is_told_where_rules_are_listed() -> None:
    text = f"{HEAD}spans:\n  my.span:\n    inside: nope\n{PAIR}"
    assert said_of(File("my.yaml", text), *shipped_files()) == (
        """\
my.yaml:5:13: error: there is no rule 'nope'
  5 |      inside: nope
    |              ^^^^
  help: an id is what a rule stands under in 'spans' or 'machines'; mappings/README.md lists those that ship

1 problem in my.yaml; nothing was loaded."""
    )


def test_what_counts_in_a_machine_must_be_a_machine() -> None:
    keys = "    keep: {slowest: 0, per: loadvm}\n    attributes: {my.n: {ordinal: loadvm}}\n"
    text = f"{HEAD}spans:\n  my.span:\n{keys}{PAIR}"
    assert said_of(File("my.yaml", text), *shipped_files()) == (
        """\
my.yaml:5:21: error: 'slowest' of 0 lets nothing through
  5 |      keep: {slowest: 0, per: loadvm}
    |                      ^
  help: a number from 1 on

my.yaml:5:29: error: 'loadvm' is no machine
  5 |      keep: {slowest: 0, per: loadvm}
    |                              ^^^^^^
  help: only 'migration' can be here

my.yaml:6:34: error: 'loadvm' is no machine
  6 |      attributes: {my.n: {ordinal: loadvm}}
    |                                   ^^^^^^
  help: only 'migration' can be here

3 problems in my.yaml; nothing was loaded."""
    )


def test_a_rule_with_a_problem_is_no_further_problem_where_it_is_named() -> None:
    text = f"{HEAD}spans:\n  outer:\n    end: savevm_section_end\n  inner:\n    inside: outer\n{PAIR}"
    assert said_of(File("my.yaml", text)).count(": error: ") == 1


def test_a_parent_outside_a_circle_of_others_is_none_of_its_problems() -> None:
    text = f"{HEAD}spans:\n  a:\n    inside: b\n{PAIR}  b:\n    inside: a\n{PAIR}  c:\n    inside: a\n{PAIR}"
    assert said_of(File("my.yaml", text)).count(": error: ") == 1


def test_two_files_may_not_define_one_rule() -> None:
    text = f"{HEAD}spans:\n  my.span:\n{PAIR}"
    assert said_of(File("a.yaml", text), File("b.yaml", text)) == (
        """\
b.yaml:4:3: error: 'my.span' is defined already at a.yaml:4
  4 |    my.span:
    |    ^^^^^^^
  help: give one of the two another name

1 problem in b.yaml; nothing was loaded."""
    )


def test_qemus_own_misspelling_is_found_out_with_the_catalogue_of_that_version() -> None:
    declared = (
        "migrate_transferred(uint64_t tranferred, uint64_t time_spent, uint64_t bandwidth, uint64_t size) "
        '"transferred %" PRIu64 " time_spent %" PRIu64 " bandwidth %" PRIu64 " max_size %" PRId64\n'
    )
    catalogue, _ = catalogue_from(declared, "trace-events")
    text = f"{HEAD}metrics:\n  my.transferred:\n    counter: migrate_transferred\n    add: transferred\n    unit: By\n"
    with pytest.raises(MappingError) as caught:
        compile_mappings([File("my.yaml", text)], catalogue)
    assert str(caught.value) == (
        """\
my.yaml:6:10: error: event 'migrate_transferred' has no argument 'transferred'
  6 |      add: transferred
    |           ^^^^^^^^^^^
  help: did you mean 'tranferred'?

1 problem in my.yaml; nothing was loaded."""
    )


def test_all_problems_of_all_files_are_told_at_once_in_the_order_of_the_files() -> None:
    first = File("a.yaml", f"{HEAD}spans:\n  a:\n    key: [idd]\n{PAIR}    timout: 1s\n")
    second = File("b.yaml", "version: 2\nscope: my.scope\n")
    good = File("c.yaml", HEAD)
    message = said_of(second, good, first)
    assert [line for line in message.splitlines() if ": error: " in line] == [
        "a.yaml:5:11: error: event 'savevm_section_start' has no argument 'idd'",
        "a.yaml:8:5: error: the span 'a' has no key 'timout'",
        "b.yaml:1:10: error: version '2' is not known",
    ]
    assert message.endswith("\n\n3 problems in a.yaml, b.yaml; nothing was loaded.")


def test_a_control_character_is_told_with_its_place_and_number() -> None:
    message = said_of(File("my.yaml", "version: 1\nscope: a\x07b\n"))
    assert message.startswith("my.yaml:2:9: error: this is not YAML: the character U+0007 is not allowed\n")


# --- files that are too much ------------------------------------------------------------------------


def test_a_deep_file_is_refused_before_it_is_deep() -> None:
    message = said_of(File("my.yaml", "a: " + "[" * 100_000))
    assert message.startswith("my.yaml:1:23: error: more than 20 levels are nested here\n")
    assert max(map(len, message.splitlines())) < 200


def test_a_small_file_of_aliases_does_not_grow_into_a_large_one() -> None:
    lines = ["a: &a [1,1,1,1,1,1,1,1,1,1]"]
    lines += [f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]" for old, new in zip("abcdefghi", "bcdefghij", strict=True)]
    message = said_of(File("my.yaml", "\n".join(lines)))
    assert message.startswith(f"my.yaml:5:29: error: the file has more than {MAX_NODES} values\n")
    assert "help: split it; aliases repeat what they refer to" in message


def test_an_alias_of_what_it_stands_in_is_no_endless_rule() -> None:
    assert "an event is expected here, but a list stands here" in said_of(
        File("my.yaml", f"{HEAD}spans:\n  a:\n    begin: &a [*a]\n    until: next\n")
    )


def test_a_file_of_more_than_a_mebibyte_is_refused_without_being_shown(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    # The letters have two bytes, so that a cut at the limit would part one.
    path.write_text("#" + "ä" * (1 << 20), "utf-8")
    with pytest.raises(MappingError) as caught:
        load_with_shipped([path], builtin())
    assert str(caught.value).startswith(f"{path}:1:1: error: the file is larger than 1 MiB\n")
    assert "help: split it into several files" in str(caught.value)
    assert max(map(len, str(caught.value).splitlines())) < 200


def test_a_long_expression_is_refused_and_shown_in_part() -> None:
    condition = " or ".join(["ret == 1"] * 100)
    text = f"{HEAD}spans:\n  a:\n    begin: savevm_section_start\n    end: {{savevm_section_end: {{when: {condition}}}}}\n"
    message = said_of(File("my.yaml", text))
    assert "my.yaml:6:38: error: an expression has at most 1000 characters, this one has 1196\n" in message
    assert max(map(len, message.splitlines())) < 200


def test_a_deeply_nested_expression_is_refused() -> None:
    text = f"{HEAD}spans:\n  a:\n    begin: savevm_section_start\n    end: {{savevm_section_end: {{when: {'~' * 900}ret}}}}\n"
    assert "my.yaml:6:38: error: the expression is nested more than 50 levels deep\n" in said_of(File("my.yaml", text))


# --- files that cannot be read ----------------------------------------------------------------------


def test_a_file_that_is_no_utf_8_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_bytes(b"version: 1\nscope: caf\xe9\n")
    with pytest.raises(MappingError) as caught:
        user_files([path])
    assert str(caught.value) == (
        f"{path}:2:1: error: the file is no UTF-8 text\n  help: save it as UTF-8\n\n1 problem in {path}; nothing was loaded."
    )


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + HEAD.encode())
    load_with_shipped([path], builtin())


def test_a_missing_file_and_an_empty_folder_are_mistakes_of_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file or directory"):
        user_files([tmp_path / "my.yaml"])
    with pytest.raises(UsageError, match=r"has no \.yaml file in it; name a mapping file"):
        user_files([tmp_path])


def test_a_folder_stands_for_the_mappings_in_it(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "notes.txt"):
        (tmp_path / name).write_text(HEAD, "utf-8")
    assert [Path(file.path).name for file in user_files([tmp_path])] == ["a.yml", "b.yaml"]
