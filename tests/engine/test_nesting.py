"""Where a span hangs."""

from __future__ import annotations

from tests.engine.builders import Seen, attribute, lines, parents, run, shipped

MACHINE = """
machines:
  migration: {event: migrate_set_state, state: new_state, start: {source: [setup, active]}, final: {completed: unset}}
spans:
  load: {begin: loadvm_state_setup, end: loadvm_state_cleanup, inside: migration}
  section:
    inside: [load, migration]
    begin: qemu_loadvm_state_section_startfull
    until: next
    key: [thread]
    attributes: {of: idstr}
  state:
    inside: [section, load]
    begin: vmstate_load_state
    end: vmstate_load_state_end
    key: [thread]
    repeated_begin: stack
    attributes: {of: name}
  alone: {begin: savevm_send_ping, end: source_return_path_thread_pong, key: [{value: val}]}
"""


def of(seen: Seen, name: str) -> dict[object, object]:
    """What the spans of a rule hang below, by what they are of."""
    by_id = {s.span_id: (s.name, attribute(s, "of")) for s in seen.spans}
    return {attribute(s, "of"): by_id.get(s.parent_id) for s in seen.named(name)}


def test_each_hangs_below_the_innermost_that_is_open() -> None:
    seen = run(
        MACHINE,
        """
        1@10.000000:migrate_set_state new state active
        1@10.001000:qemu_loadvm_state_section_startfull 1(early) 0 4
        1@10.010000:loadvm_state_setup
        1@10.011000:vmstate_load_state header v1
        1@10.012000:vmstate_load_state_end header end/0
        1@10.020000:qemu_loadvm_state_section_startfull 2(ram) 0 4
        1@10.030000:vmstate_load_state cpu v1
        1@10.040000:vmstate_load_state_end cpu end/0
        1@10.050000:loadvm_state_cleanup
        1@10.060000:migrate_set_state new state completed
        """,
    )
    assert of(seen, "section") == {"early": ("migration", None), "ram": ("load", None)}
    assert of(seen, "state") == {"header": ("section", "early"), "cpu": ("section", "ram")}
    assert len({s.trace_id for s in seen.spans}) == 1


def test_what_lasts_until_the_next_ends_with_its_parent() -> None:
    """The last section of a load ends with the load, not with the migration, and is complete."""
    seen = run(
        MACHINE,
        """
        1@10.000000:migrate_set_state new state active
        1@10.010000:loadvm_state_setup
        1@10.020000:qemu_loadvm_state_section_startfull 2(ram) 0 4
        1@10.050000:loadvm_state_cleanup
        1@10.060000:migrate_set_state new state completed
        """,
    )
    section, load = seen.only("section"), seen.only("load")
    assert section.end_ns == load.end_ns
    assert attribute(section, "qemu.event.end") == "loadvm_state_cleanup"
    assert attribute(section, "otelbridge.incomplete") is None


def test_what_lasts_until_the_next_ends_with_the_migration_it_hangs_below() -> None:
    log = lines(
        (10, 1, "migrate_set_state new state active"),
        (10.1, 1, "qemu_loadvm_state_section_startfull 2(ram) 0 4"),
        (10.3, 2, "migrate_set_state new state completed"),
        (10.9, 2, "migrate_fd_cancel "),
    )
    section = run(MACHINE, log).only("section")
    assert (section.end_ns, attribute(section, "qemu.event.end")) == (10_300_000_000, "migrate_set_state")


def test_of_several_open_parents_it_is_the_youngest_of_the_same_thread() -> None:
    log = lines(
        (10.0, 1, "migrate_set_state new state active"),
        (10.1, 1, "qemu_loadvm_state_section_startfull 2(one) 0 4"),
        (10.2, 2, "qemu_loadvm_state_section_startfull 3(two) 0 4"),
        (10.3, 1, "vmstate_load_state a v1"),
        (10.4, 2, "vmstate_load_state b v1"),
        (10.5, 3, "vmstate_load_state c v1"),
        (10.6, 1, "vmstate_load_state_end a end/0"),
        (10.7, 2, "vmstate_load_state_end b end/0"),
        (10.8, 3, "vmstate_load_state_end c end/0"),
        (10.9, 1, "migrate_set_state new state completed"),
    )
    expected = {"a": ("section", "one"), "b": ("section", "two"), "c": ("section", "two")}
    assert of(run(MACHINE, log), "state") == expected


def test_a_rule_without_a_parent_hangs_below_the_open_migration() -> None:
    log = lines(
        (10.0, 1, "migrate_set_state new state active"),
        (10.1, 1, "savevm_send_ping 0x1"),
        (10.2, 1, "source_return_path_thread_pong 0x1"),
        (10.9, 1, "migrate_set_state new state completed"),
    )
    assert parents(run(MACHINE, log).spans) == {"migration": None, "migration.active": "migration", "alone": "migration"}


def test_a_span_outlives_its_migration_in_the_same_trace() -> None:
    """A return path ends after the last state."""
    log = lines(
        (10.0, 1, "migrate_set_state new state active"),
        (10.1, 1, "savevm_send_ping 0x1"),
        (10.2, 1, "migrate_set_state new state completed"),
        (10.3, 1, "source_return_path_thread_pong 0x1"),
    )
    seen = run(MACHINE, log)
    assert parents(seen.spans)["alone"] == "migration"
    assert seen.only("alone").end_ns == 10_300_000_000


# --- before any migration -------------------------------------------------------------------------------


def test_what_ended_shortly_before_a_migration_is_in_its_trace_and_beside_its_root() -> None:
    """It began before the root, so it is no child of it."""
    log = lines(
        (10.0, 1, "savevm_send_ping 0x1"),
        (10.1, 1, "source_return_path_thread_pong 0x1"),
        (19.9, 1, "migrate_set_state new state active"),
        (20.0, 1, "migrate_set_state new state completed"),
    )
    seen = run(MACHINE, log)
    assert parents(seen.spans) == {"alone": None, "migration": None, "migration.active": "migration"}
    assert seen.only("alone").trace_id == seen.only("migration").trace_id


def test_what_ended_long_before_a_migration_is_a_trace_of_its_own() -> None:
    log = lines(
        (10.0, 1, "savevm_send_ping 0x1"),
        (10.1, 1, "source_return_path_thread_pong 0x1"),
        (20.2, 1, "migrate_set_state new state active"),
        (20.3, 1, "migrate_set_state new state completed"),
    )
    seen = run(MACHINE, log)
    assert seen.only("alone").parent_id == b""
    assert seen.only("alone").trace_id != seen.only("migration").trace_id


def test_what_is_open_when_a_migration_opens_is_in_its_trace_with_all_that_is_below_it() -> None:
    log = lines(
        (10.0, 1, "loadvm_state_setup "),
        (10.1, 1, "qemu_loadvm_state_section_startfull 2(ram) 0 4"),
        (55.0, 1, "migrate_set_state new state active"),
        (55.1, 1, "vmstate_load_state cpu v1"),
        (55.2, 1, "vmstate_load_state_end cpu end/0"),
        (55.3, 1, "loadvm_state_cleanup "),
        (55.4, 1, "migrate_set_state new state completed"),
    )
    seen = run(MACHINE, log)
    expected = {"migration": None, "migration.active": "migration", "load": None, "section": "load", "state": "section"}
    assert parents(seen.spans) == expected
    assert {s.trace_id for s in seen.spans} == {seen.only("migration").trace_id}


def test_without_any_migration_each_goes_out_with_its_children_in_a_trace_of_its_own() -> None:
    log = lines(
        (10.0, 1, "loadvm_state_setup "),
        (10.1, 1, "vmstate_load_state cpu v1"),
        (10.2, 1, "vmstate_load_state_end cpu end/0"),
        (10.3, 1, "loadvm_state_cleanup "),
        (10.4, 1, "savevm_send_ping 0x1"),
        (10.5, 1, "source_return_path_thread_pong 0x1"),
        (99.0, 1, "migrate_fd_cancel "),
    )
    seen = run(MACHINE, log)
    assert parents(seen.spans) == {"load": None, "state": "load", "alone": None}
    assert seen.only("load").trace_id == seen.only("state").trace_id != seen.only("alone").trace_id
    assert all(any(s.trace_id) for s in seen.spans)


def test_what_waits_for_a_migration_does_not_wait_for_the_end_of_the_stream() -> None:
    """A service must not hold spans back for months."""
    quiet = [(11.0 + n, 1, "migrate_fd_cancel ") for n in range(12)]
    seen = run(MACHINE, lines((10.0, 1, "savevm_send_ping 0x1"), (10.1, 1, "source_return_path_thread_pong 0x1"), *quiet,
                              (22.5, 1, "savevm_send_ping 0x2")))  # fmt: skip
    assert [s.start_ns for s in seen.named("alone")] == [10_000_000_000, 22_500_000_000]


def test_the_spans_of_a_real_kind_of_handshake_before_setup_belong_to_the_migration() -> None:
    """The destination shakes hands before its first state is traced (QEMU 4.1 to 8)."""
    log = lines(
        (10.0, 1, "migration_tls_incoming_handshake_start "),
        (10.1, 1, "migration_tls_incoming_handshake_complete "),
        (10.2, 1, "migrate_set_state new state active"),
        (10.3, 1, "migrate_set_state new state completed"),
    )
    seen = run(shipped(), log)
    assert seen.only("tls.handshake").trace_id == seen.only("migration").trace_id
    assert attribute(seen.only("migration"), "qemu.migration.role") == "destination"
