"""Span events: what has a moment but no length."""

from __future__ import annotations

from otelbridge.engine.state import MAX_NOTES
from otelbridge.records import ERROR, UNSET
from tests.engine.builders import attribute, lines, run

PATH = """
spans:
  path:
    begin: source_return_path_thread_entry
    end: source_return_path_thread_end
    key: [thread]
    events:
      migrate_pending: {when: size > 0, attributes: {bytes: size}}
      source_return_path_thread_bad_end: {error: {type: bad_end, message: "it ended badly"}}
"""
PENDING = "migrate_pending pending size {} max 0 (pre = 0 compat=0 post=0)"


def test_an_event_is_put_into_the_open_span_with_its_time_and_attributes() -> None:
    log = lines(
        (10.0, 1, "source_return_path_thread_entry "),
        (10.1, 1, PENDING.format(7)),
        (10.2, 1, PENDING.format(0)),
        (10.3, 1, "source_return_path_thread_end "),
    )
    seen = run(PATH, log)
    (event,) = seen.only("path").events
    assert (event.time_ns, event.name, event.attributes) == (10_100_000_000, "migrate_pending", (("bytes", 7),))
    assert seen.buckets() == {"begin": 1, "span_event": 1, "counted": 1, "end": 1}


def test_an_event_without_an_open_span_is_only_counted() -> None:
    seen = run(PATH, lines((10.1, 1, PENDING.format(7))))
    assert (seen.spans, seen.buckets()) == ([], {"counted": 1})


def test_an_event_goes_to_the_youngest_span_of_its_thread() -> None:
    log = lines(
        (10.0, 1, "source_return_path_thread_entry "),
        (10.1, 2, "source_return_path_thread_entry "),
        (10.2, 1, PENDING.format(1)),
        (10.3, 2, PENDING.format(2)),
        (10.4, 3, PENDING.format(3)),
        (10.5, 1, "source_return_path_thread_end "),
        (10.6, 2, "source_return_path_thread_end "),
    )
    found = [[dict(e.attributes)["bytes"] for e in span.events] for span in run(PATH, log).spans]
    assert found == [[1], [2, 3]]


def test_an_event_can_make_its_span_an_error_whose_end_is_still_seen() -> None:
    log = lines(
        (10.0, 1, "source_return_path_thread_entry "),
        (10.1, 1, "source_return_path_thread_bad_end "),
        (10.2, 1, "source_return_path_thread_end "),
        (11.0, 1, "source_return_path_thread_entry "),
        (11.2, 1, "source_return_path_thread_end "),
    )
    bad, good = run(PATH, log).spans
    assert (bad.status, bad.message, attribute(bad, "error.type")) == (ERROR, "it ended badly", "bad_end")
    assert (good.status, good.message, attribute(good, "error.type")) == (UNSET, "", None)


def test_an_event_that_has_the_key_goes_to_the_span_of_that_key() -> None:
    rule = """
spans:
  section:
    begin: savevm_section_start
    end: savevm_section_end
    key: [section_id]
    attributes: {of: id}
    events: {savevm_section_skip: }
"""
    log = lines(
        (10.0, 1, "savevm_section_start ram, section_id 2"),
        (10.1, 1, "savevm_section_start vfio, section_id 3"),
        (10.2, 1, "savevm_section_skip ram, section_id 2"),
        (10.3, 1, "savevm_section_skip none, section_id 4"),
        (10.4, 1, "savevm_section_end vfio, section_id 3 -> 0"),
        (10.5, 1, "savevm_section_end ram, section_id 2 -> 0"),
    )
    seen = run(rule, log)
    assert {attribute(s, "of"): len(s.events) for s in seen.spans} == {"ram": 1, "vfio": 0}
    assert seen.buckets()["counted"] == 1


def test_what_ends_a_span_is_no_event_of_it_and_what_begins_one_neither() -> None:
    rule = """
spans:
  downtime:
    begin: {vmstate_downtime_checkpoint: {when: checkpoint == "src-downtime-start"}}
    end: {vmstate_downtime_checkpoint: {when: checkpoint == "src-downtime-end"}}
    events: {vmstate_downtime_checkpoint: {attributes: {of: checkpoint}}}
"""
    names = ["src-downtime-start", "src-vm-stopped", "src-iterable-saved", "src-downtime-end", "other"]
    seen = run(rule, lines(*((10 + n / 10, 1, f"vmstate_downtime_checkpoint {name}") for n, name in enumerate(names))))
    events = seen.only("downtime").events
    assert [dict(e.attributes)["of"] for e in events] == ["src-vm-stopped", "src-iterable-saved"]


def test_beyond_the_limit_events_are_counted_as_dropped() -> None:
    assert MAX_NOTES == 128  # the specification's EventCountLimit
    pending = [(10.1 + n / 1000, 1, PENDING.format(n + 1)) for n in range(MAX_NOTES + 5)]
    log = lines((10.0, 1, "source_return_path_thread_entry "), *pending, (10.9, 1, "source_return_path_thread_end "))
    seen = run(PATH, log)
    span = seen.only("path")
    assert (len(span.events), span.dropped_events) == (MAX_NOTES, 5)
    assert [dict(e.attributes)["bytes"] for e in span.events] == list(range(1, MAX_NOTES + 1))
    assert seen.buckets()["span_event"] == MAX_NOTES + 5


def test_beyond_the_limit_an_error_still_counts() -> None:
    pending = [(10.1 + n / 1000, 1, PENDING.format(n + 1)) for n in range(MAX_NOTES)]
    log = lines((10.0, 1, "source_return_path_thread_entry "), *pending, (10.8, 1, "source_return_path_thread_bad_end "),
                (10.9, 1, "source_return_path_thread_end "))  # fmt: skip
    span = run(PATH, log).only("path")
    assert (span.status, span.dropped_events) == (ERROR, 1)


def test_the_first_of_several_errors_explains_the_span() -> None:
    text = """
spans:
  state:
    begin: vmstate_load_state
    end: vmstate_load_state_end
    key: [thread]
    events: {vmstate_load_field_error: {error: {type: field, message: "{field}"}}}
"""
    log = lines(
        (10.0, 1, "vmstate_load_state virtio-rng v1"),
        (10.1, 1, 'vmstate_load_field_error field "id" load failed, ret = -22'),
        (10.2, 1, 'vmstate_load_field_error field "parent_obj" load failed, ret = -22'),
    )
    span = run(text, log).only("state")
    assert (span.status, span.message, len(span.events)) == (ERROR, "id", 2)


def test_events_of_a_migration_have_the_same_limit() -> None:
    rule = """
machines:
  m:
    event: migrate_set_state
    state: new_state
    start: {source: [setup]}
    final: {completed: unset}
    events: {migration_throttle: }
"""
    throttled = [(10.1 + n / 1000, 1, "migration_throttle ") for n in range(MAX_NOTES + 3)]
    log = lines((10.0, 1, "migrate_set_state new state setup"), *throttled, (10.9, 1, "migrate_set_state new state completed"))
    root = run(rule, log).only("m")
    assert (len(root.events), root.dropped_events) == (MAX_NOTES, 3)
