"""The mappings that ship: each is said to be for something, holds for every version of QEMU, and is tested."""

from __future__ import annotations

import re
from functools import cache

import pytest

from otelbridge.catalogue import Catalogue, builtin
from otelbridge.catalogue.declared import migration_events
from otelbridge.catalogue.versions import VERSIONS, between
from otelbridge.mapping import File, Mapping, MappingTest, compile_mappings, load_with_shipped, shipped_files
from otelbridge.mapping.coverage import coverage
from otelbridge.mapping.rules import SpanRule
from otelbridge.pipeline.cases import run_mapping_tests

SHIPPED = {file.path: file for file in shipped_files(with_tests=True)}


@cache
def mapping() -> Mapping:
    return compile_mappings(list(SHIPPED.values()), builtin())


def catalogue_of(version: str) -> Catalogue:
    """What a trace-events file of that version declares, as `--catalogue` puts it over the built-in one."""
    full = builtin()
    only = {}
    for event in full.declared():
        specs = full.variants(event)
        of_version = tuple(spec for spec in specs if between(spec.first, spec.last) & between(version, version))
        only[event] = of_version or specs
    return Catalogue(only, full.names)


@pytest.mark.parametrize("path", SHIPPED)
def test_a_file_opens_with_a_sentence_of_purpose(path: str) -> None:
    assert re.match(r"# [A-Z][^\n]+\.\nversion: 1\nscope: qemu\.migration", SHIPPED[path].text)


@pytest.mark.parametrize("path", SHIPPED)
def test_a_file_compiles_with_the_others(path: str) -> None:
    others = [file for file in SHIPPED.values() if file.path != path]
    # Taken as a user's own it gets no leave to be replaced silently.
    compile_mappings([File(path, SHIPPED[path].text), *others], builtin())


def test_no_two_files_define_one_rule() -> None:
    compile_mappings([File(file.path, file.text) for file in SHIPPED.values()], builtin())


@pytest.mark.parametrize("version", VERSIONS)
def test_all_files_compile_with_the_catalogue_of_one_version(version: str) -> None:
    assert compile_mappings(list(SHIPPED.values()), catalogue_of(version)).spans


@pytest.mark.parametrize("path", SHIPPED)
def test_the_tests_of_a_file_pass(path: str) -> None:
    results = run_mapping_tests(mapping(), builtin(), [path])
    assert results
    assert not {result.test.name: result.differences for result in results if result.differences}


def expected(path: str, section: str, status: str | None = None) -> set[str]:
    """The names that the tests of a file expect, of spans whose end was seen or of metrics."""
    found = set()
    for test in mapping().tests:
        wanted = test.expect.get(section, [])
        assert isinstance(wanted, list)
        if test.path == path:
            found |= {one["name"] for one in wanted if not one.get("incomplete") and status in (None, one.get("status"))}
    return found


@pytest.mark.parametrize("path", SHIPPED)
def test_every_span_and_metric_of_a_file_is_made_in_one_of_its_tests(path: str) -> None:
    spans = {rule.name for rule in mapping().spans if rule.path == path}
    spans |= {rule.id for rule in mapping().machines if rule.path == path}
    assert spans <= expected(path, "spans")
    assert {rule.metric.name for rule in mapping().metrics if rule.path == path} <= expected(path, "metrics")


def cases_of(path: str) -> list[MappingTest]:
    return [test for test in mapping().tests if test.path == path]


@pytest.mark.parametrize("rule", mapping().spans, ids=lambda rule: rule.id)
def test_every_rule_has_lines_that_begin_and_end_it(rule: SpanRule) -> None:
    lines = "\n".join(test.events for test in cases_of(rule.path))
    for events in (rule.begins, rule.ends):
        assert not events or any(re.search(rf"[: ]{event}\b", lines) for event in events)


@pytest.mark.parametrize("rule", mapping().spans, ids=lambda rule: rule.id)
def test_every_rule_that_can_fail_has_a_test_of_its_failure(rule: SpanRule) -> None:
    if any(end.failure for ends in rule.ends.values() for end in ends) or any(
        n.failure for ns in rule.notes.values() for n in ns
    ):
        assert rule.name in expected(rule.path, "spans", status="error")


def test_every_event_that_is_named_exists() -> None:
    for event in (*mapping().plan.rows, *mapping().plan.sums, *(rule.event for rule in mapping().metrics), *mapping().unmapped):
        assert builtin().variants(event), event


def test_every_event_that_is_left_out_exists_and_feeds_nothing() -> None:
    used = mapping().plan.rows.keys() | {rule.event for rule in mapping().metrics}
    for event in mapping().unmapped:
        assert builtin().variants(event)
        assert event not in used


def test_a_rule_of_the_user_takes_the_place_of_the_shipped_one_of_its_name() -> None:
    text = "version: 1\nscope: my.scope\nspans:\n  loadvm:\n    begin: loadvm_state_setup\n    end: loadvm_state_cleanup\n"
    mine = compile_mappings([*SHIPPED.values(), File("my.yaml", text)], builtin())
    (rule,) = (rule for rule in mine.spans if rule.id == "loadvm")
    assert (rule.path, rule.scope.name, rule.inside) == ("my.yaml", "my.scope", ())
    assert len(mine.spans) == len(mapping().spans)


def test_a_metric_of_the_user_takes_the_place_of_all_rules_that_feed_the_shipped_one() -> None:
    text = "version: 1\nscope: my.scope\nmetrics:\n  qemu.migration.pages: {counter: ram_save_page, unit: '{page}'}\n"
    mine = compile_mappings([*SHIPPED.values(), File("my.yaml", text)], builtin())
    (rule,) = (rule for rule in mine.metrics if rule.metric.name == "qemu.migration.pages")
    assert rule.path == "my.yaml"


def test_a_page_event_is_counted_without_being_looked_at() -> None:
    """The flood of per-page events must not become rows."""
    assert "ram_save_page" not in mapping().plan.rows
    assert "migration_transferred_bytes" not in mapping().plan.rows


HOT = [
    "vmstate_n_elems",
    "vmstate_save_state_top",
    "vmstate_save_state_loop",
    "vmstate_load_state_field",
    "vmstate_field_exists",
    "vmstate_subsection_save_top",
    "vmstate_subsection_load",
    "vmstate_subsection_load_good",
    "vmstate_subsection_load_bad",
    "ram_load_loop",
    "save_xbzrle_page_skipping",
    "save_xbzrle_page_overflow",
    "savevm_state_iterate",
    "send_bitmap_bits",
    "send_bitmap_header_enter",
    "dirty_bitmap_load_header",
    "dirty_bitmap_load_bits_enter",
    "dirty_bitmap_load_bits_zeroes",
    "migration_block_save",
    "get_ramblock_vfn_hash",
    "qemu_file_fclose",
]


@pytest.mark.parametrize("event", HOT)
def test_what_comes_for_each_page_field_or_round_feeds_a_metric_and_is_no_row(event: str) -> None:
    assert event not in mapping().plan.rows
    assert event in {rule.event for rule in mapping().metrics}


@pytest.mark.parametrize("path", SHIPPED)
def test_the_lines_of_the_tests_are_lines_of_the_log_backend(path: str) -> None:
    for test in cases_of(path):
        for line in test.events.splitlines():
            found = re.fullmatch(r"(?:\d+@\d+\.\d{6}:|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z )(\w+) ?(.*)", line)
            assert found, line
            assert builtin().is_event(found[1]), line


def test_tests_are_the_last_section_so_that_a_conversion_need_not_read_them() -> None:
    rules_alone = {file.path: file.text for file in shipped_files()}
    for path, file in SHIPPED.items():
        tests = file.text.removeprefix(rules_alone[path])
        assert tests.startswith("\ntests:\n")
        assert all(line.startswith((" ", "#")) for line in tests.splitlines()[2:] if line)


@pytest.mark.parametrize("version", [None, *VERSIONS])
def test_every_migration_event_of_every_qemu_is_used_or_left_out_with_a_reason(version: str | None) -> None:
    events = migration_events(builtin(), version, of_file=False)
    assert len(events) >= (262 if version == "4.1.0" else 200)
    found = coverage(load_with_shipped((), builtin()), events, {})
    assert [one.event for one in found if not one.is_covered] == []
    assert all(one.uses or one.reason.strip() for one in found)
