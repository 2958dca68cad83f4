"""Ends without a begin, begins without an end."""

from __future__ import annotations

from otelbridge.records import UNSET
from tests.engine.builders import attribute, incomplete, ms, run

SECTION = "spans: {section: {begin: savevm_section_start, end: savevm_section_end, key: [section_id]}}"


def test_an_end_without_a_begin_is_counted_as_an_orphan_and_makes_no_span() -> None:
    seen = run(SECTION, "1@10.000000:savevm_section_end ram, section_id 2 -> 0")
    assert seen.spans == []
    assert seen.buckets() == {"orphan_end": 1}


def test_an_end_of_another_key_is_an_orphan() -> None:
    seen = run(
        SECTION,
        """
        1@10.000000:savevm_section_start ram, section_id 2
        1@10.001000:savevm_section_end ram, section_id 3 -> 0
        1@10.002000:savevm_section_end ram, section_id 2 -> 0
        1@10.003000:savevm_section_end ram, section_id 2 -> 0
        """,
    )
    assert ms(seen.only("section")) == (10000, 10002)
    assert seen.buckets() == {"begin": 1, "end": 1, "orphan_end": 2}


def test_a_begin_without_an_end_is_incomplete_at_the_last_time_seen_and_no_error() -> None:
    seen = run(
        SECTION,
        """
        1@10.000000:savevm_section_start ram, section_id 2
        1@12.500000:migrate_fd_cancel
        """,
    )
    span = seen.only("section")
    assert ms(span)[0] == 10000
    assert incomplete(span)
    assert (span.status, span.message) == (UNSET, "")
    assert attribute(span, "qemu.event.end") is None
    assert seen.open == 1
    assert (seen.accounting.finished, seen.accounting.incomplete) == (1, 1)


def test_the_last_time_seen_may_be_that_of_an_event_that_no_rule_names() -> None:
    seen = run(SECTION, "1@10.000000:savevm_section_start ram, section_id 2\n1@12.500000:migrate_fd_cancel")
    assert ms(seen.only("section")) == (10000, 12500)


def test_an_incomplete_span_is_in_no_histogram() -> None:
    """Its length is not known."""
    rule = SECTION.replace("key:", "duration: {histogram: h}, key:")
    seen = run(rule, "1@10.000000:savevm_section_start ram, section_id 2\n1@12.500000:migrate_fd_cancel")
    assert [p.metric.name for p in seen.points if p.metric.name == "h"] == []


def test_a_killed_migration_leaves_an_incomplete_root_and_state_that_are_no_errors() -> None:
    rule = """
machines:
  migration: {event: migrate_set_state, state: new_state, start: {source: [setup]}, final: {completed: unset}}
"""
    seen = run(
        rule,
        """
        1@10.000000:migrate_set_state new state setup
        1@10.100000:migrate_set_state new state active
        1@12.500000:migrate_set_state new state device
        """,
    )
    found = {s.name: (ms(s), incomplete(s), s.status) for s in seen.spans}
    assert found == {
        "migration": ((10000, 12500), True, UNSET),
        "migration.setup": ((10000, 10100), False, UNSET),
        "migration.active": ((10100, 12500), False, UNSET),
        "migration.device": ((12500, 12500), True, UNSET),
    }


def test_nothing_but_ends_makes_nothing_but_counts() -> None:
    seen = run(SECTION, "\n".join(["1@10.000000:savevm_section_end ram, section_id 2 -> 0"] * 50))
    assert (seen.spans, seen.buckets(), seen.open) == ([], {"orphan_end": 50}, 0)
