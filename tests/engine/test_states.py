"""State machines: roots, states, roles, outcomes."""

from __future__ import annotations

import pytest

from otelbridge.records import CLIENT, ERROR, INTERNAL, SERVER, UNSET
from tests.engine.builders import Seen, attribute, incomplete, length_ms, lines, ms, run, shipped

SOURCE, DESTINATION, SNAPSHOT = "migration_set_outgoing_channel", "migration_set_incoming_channel", "savevm_state_header"
EVIDENCE = {
    "source": "migration_socket_outgoing_connected hostname=b",
    "destination": "migration_socket_incoming_accepted ",
    "snapshot": "savevm_state_header ",
}

MACHINE = """
machines:
  m:
    event: migrate_set_state
    state: new_state
    start: {source: [setup], destination: [active]}
    roles: {source: [savevm_state_setup], destination: [loadvm_state_setup]}
    kind: {source: client, destination: server}
    final:
      completed: unset
      failed: {error: failed, message: "it failed"}
      cancelled: {error: cancelled, message: "it was cancelled"}
    unknown_state: keep
    reasons: {migrate_fd_error: error_desc}
    attributes: {role: role, state: state}
    events: {migrate_fd_cancel: }
"""


def states(*names: str, start_s: float = 10.0, step_s: float = 0.1, thread: int = 1) -> list[tuple[float, int, str]]:
    """The machine's events, one each step."""
    return [(start_s + n * step_s, thread, f"migrate_set_state new state {name}") for n, name in enumerate(names)]


def passed(seen: Seen) -> list[str]:
    """The states that got a span, in order."""
    found = [s for s in seen.spans if s.name.startswith("migration.") and attribute(s, "qemu.migration.state")]
    return [s.name.removeprefix("migration.") for s in sorted(found, key=lambda s: s.start_ns)]


POSTCOPY_RECOVERY = "active postcopy-active postcopy-paused {} postcopy-active completed"

# The table of state sequences that QEMU was seen to go through (4.1, 7.2, 9.2 and 10.2).
SEQUENCES = [
    ("precopy, source, 4.1", "source", "setup active completed", "precopy"),
    ("precopy, source, 10.2", "source", "setup active device completed", "precopy"),
    ("precopy, destination, 4.1", "destination", "active completed", "precopy"),
    ("precopy, destination, 10.2", "destination", "setup active completed", "precopy"),
    ("pause before switchover", "source", "setup active pre-switchover device completed", "precopy"),
    ("wait-unplug", "source", "setup wait-unplug active completed", "precopy"),
    ("postcopy, source, 4.1", "source", "setup active postcopy-active completed", "postcopy"),
    ("postcopy, source, 10.2", "source", "setup active device postcopy-device postcopy-active completed", "postcopy"),
    ("postcopy, destination, 4.1", "destination", "active postcopy-active completed", "postcopy"),
    ("postcopy, destination, 10.2", "destination", "setup active postcopy-device postcopy-active completed", "postcopy"),
    ("cancelled, source", "source", "setup active cancelling cancelled", "precopy"),
    ("cancelled, destination, 4.1", "destination", "active failed", "precopy"),
    ("cancelled, destination, 10.2", "destination", "setup active failed", "precopy"),
    ("TLS failure, source", "source", "setup failed", "precopy"),
    ("destination killed, source", "source", "setup active failed", "precopy"),
    ("recovery, source, 4.1", "source", "setup " + POSTCOPY_RECOVERY.format("postcopy-recover"), "postcopy"),
    ("recovery, source, 10.2", "source", "setup " + POSTCOPY_RECOVERY.format("postcopy-recover-setup postcopy-recover"),
     "postcopy"),
    ("snapshot", "snapshot", "setup active completed", "precopy"),
]  # fmt: skip


@pytest.mark.parametrize(("role", "sequence", "mode"), [case[1:] for case in SEQUENCES], ids=[case[0] for case in SEQUENCES])
def test_every_sequence_that_was_seen_is_one_migration(role: str, sequence: str, mode: str) -> None:
    names = sequence.split()
    events = states(*names)
    seen = run(shipped(), lines(events[0], (10.05, 1, EVIDENCE[role]), *events[1:]))
    root = seen.only("migration")
    assert passed(seen) == names[:-1]
    children = [span for span in seen.spans if span.name.startswith("migration.")]
    assert all(length_ms(span) == pytest.approx(100) and span.parent_id == root.span_id for span in children)
    assert length_ms(root) == pytest.approx(100 * (len(names) - 1))
    wanted = {"qemu.migration.role": role, "qemu.migration.state": names[-1], "qemu.migration.mode": mode}
    assert wanted.items() <= dict(root.attributes).items()
    assert root.kind == {"source": CLIENT, "destination": SERVER, "snapshot": INTERNAL}[role]
    assert root.status == (UNSET if names[-1] == "completed" else ERROR)
    assert attribute(root, "error.type") == (None if names[-1] == "completed" else names[-1])
    assert not incomplete(root)
    assert seen.open == 0
    assert seen.last("qemu.migration.completed", qemu__migration__role=role, qemu__migration__state=names[-1]).value == 1


@pytest.mark.parametrize("name", ["colo", "none", "a-state-of-qemu-12", "x" * 200])
def test_a_state_that_no_one_knows_is_a_state_like_any_other(name: str) -> None:
    seen = run(shipped(), lines(*states("setup", "active", name, "completed")))
    assert passed(seen) == ["setup", "active", name]
    assert seen.only("migration").status == UNSET


def test_an_unknown_state_can_be_left_out() -> None:
    seen = run(MACHINE.replace("keep", "drop"), lines(*states("setup", "odd", "completed")))
    assert sorted((s.name, round(length_ms(s))) for s in seen.spans) == [("m", 200), ("m.setup", 200)]


@pytest.mark.parametrize("first", ["device", "postcopy-active", "cancelling", "completed", "failed", "odd"])
def test_a_state_that_opens_nothing_is_only_counted(first: str) -> None:
    """Tracing that was switched on in the midst of a migration."""
    seen = run(shipped(), lines(*states(first)))
    assert seen.spans == []
    assert sum(seen.buckets().values()) == 1
    assert "orphan_end" not in seen.buckets()


# --- outcomes ---------------------------------------------------------------------------------------------


def test_the_last_reason_describes_the_error() -> None:
    log = lines(
        *states("setup", "active"),
        (10.11, 1, "migrate_fd_error error=first"),
        (10.12, 1, "migrate_fd_error error=Unable to write to socket: Broken pipe"),
        (10.13, 1, "migrate_set_state new state failed"),
    )
    root = run(MACHINE, log).only("m")
    assert (root.status, root.message, attribute(root, "error.type")) == (
        ERROR,
        "Unable to write to socket: Broken pipe",
        "failed",
    )


def test_without_a_reason_the_outcome_has_its_own_words() -> None:
    root = run(MACHINE, lines(*states("setup", "active", "cancelling", "cancelled"))).only("m")
    assert (root.status, root.message, attribute(root, "error.type")) == (ERROR, "it was cancelled", "cancelled")


def test_a_reason_is_forgotten_with_its_migration() -> None:
    log = lines(
        *states("setup"),
        (10.05, 1, "migrate_fd_error error=old"),
        (10.06, 1, "migrate_set_state new state failed"),
        (10.07, 1, "migrate_fd_error error=between"),
        *states("setup", "failed", start_s=11),
    )
    assert [s.message for s in run(MACHINE, log).named("m")] == ["old", "it failed"]


def test_a_reason_does_not_make_an_error_of_a_success() -> None:
    log = lines(*states("setup"), (10.05, 1, "migrate_fd_error error=x"), (10.06, 1, "migrate_set_state new state completed"))
    root = run(MACHINE, log).only("m")
    assert (root.status, root.message, attribute(root, "error.type")) == (UNSET, "", None)


def test_the_cancel_event_at_the_exit_of_qemu_is_no_cancellation() -> None:
    seen = run(MACHINE, lines(*states("setup", "completed"), (12, 1, "migrate_fd_cancel ")))
    root = seen.only("m")
    assert (root.status, root.events) == (UNSET, ())
    assert seen.buckets()["counted"] == 1


def test_a_cancel_event_in_a_migration_is_an_event_of_it() -> None:
    log = lines(*states("setup"), (10.05, 1, "migrate_fd_cancel "), *states("cancelling", "cancelled", start_s=10.1))
    (event,) = run(MACHINE, log).only("m").events
    assert (event.name, event.time_ns) == ("migrate_fd_cancel", 10_050_000_000)


# --- several in turn --------------------------------------------------------------------------------------


def test_a_second_migration_in_the_same_stream_is_a_trace_of_its_own() -> None:
    log = lines(*states("setup", "active", "cancelled"), *states("setup", "active", "completed", start_s=20))
    first, second = run(MACHINE, log).named("m")
    assert (ms(first), ms(second)) == ((10000, 10200), (20000, 20200))
    assert first.trace_id != second.trace_id
    assert first.span_id != second.span_id
    assert (first.status, second.status) == (ERROR, UNSET)


def test_a_process_can_be_destination_and_then_source() -> None:
    log = lines(
        *states("active"),
        (10.01, 1, "loadvm_state_setup "),
        (10.3, 1, "migrate_set_state new state completed"),
        *states("setup", start_s=20),
        (20.01, 1, "savevm_state_setup "),
        (20.3, 1, "migrate_set_state new state completed"),
    )
    found = [(attribute(s, "role"), s.kind) for s in run(MACHINE, log).named("m")]
    assert found == [("destination", SERVER), ("source", CLIENT)]


def test_a_state_that_comes_again_is_a_span_again() -> None:
    seen = run(MACHINE, lines(*states("setup", "active", "device", "active", "completed")))
    assert [s.name for s in seen.spans] == ["m.setup", "m.active", "m.device", "m.active", "m"]
    assert len({s.span_id for s in seen.spans}) == 5


# --- roles ------------------------------------------------------------------------------------------------


def test_the_first_state_tells_the_role_where_no_event_does() -> None:
    assert attribute(run(MACHINE, lines(*states("setup", "completed"))).only("m"), "role") == "source"
    assert attribute(run(MACHINE, lines(*states("active", "completed"))).only("m"), "role") == "destination"


def test_the_state_that_opened_it_tells_the_role_even_if_it_comes_again() -> None:
    """A migration that goes back to its first state is still the same."""
    log = lines(*states("setup", "odd", "setup", "completed"))
    assert attribute(run(MACHINE, log).only("m"), "role") == "source"


def test_events_tell_the_role_whatever_the_first_state_says() -> None:
    events = [*states("setup"), (10.05, 1, "loadvm_state_setup "), (10.1, 1, "migrate_set_state new state completed")]
    assert attribute(run(MACHINE, lines(*events)).only("m"), "role") == "destination"


def test_evidence_from_before_the_first_state_counts() -> None:
    """The destination accepts a connection before it has any state."""
    log = lines((9.9, 1, "loadvm_state_setup "), *states("setup", "completed"))
    assert attribute(run(MACHINE, log).only("m"), "role") == "destination"


def test_evidence_within_a_migration_stands_above_that_from_before() -> None:
    log = lines(
        (9.9, 1, "loadvm_state_setup "),
        *states("setup"),
        (10.05, 1, "savevm_state_setup "),
        (10.1, 1, "migrate_set_state new state completed"),
    )
    assert attribute(run(MACHINE, log).only("m"), "role") == "source"


def test_of_two_roles_with_evidence_the_first_of_the_file_counts() -> None:
    log = lines(
        *states("setup"),
        (10.05, 1, "loadvm_state_setup "),
        (10.06, 1, "savevm_state_setup "),
        (10.1, 1, "migrate_set_state new state completed"),
    )
    assert attribute(run(MACHINE, log).only("m"), "role") == "source"


def test_what_the_user_says_stands_above_what_the_events_say() -> None:
    log = lines(*states("setup"), (10.05, 1, "savevm_state_setup "), (10.1, 1, "migrate_set_state new state completed"))
    root = run(MACHINE, log, role="destination").only("m")
    assert (attribute(root, "role"), root.kind) == ("destination", SERVER)


# --- histograms and what lies in the root -------------------------------------------------------------------


def test_the_mode_is_that_of_the_last_state_that_tells_one() -> None:
    rule = MACHINE.replace("state: state}", "state: state, mode: {by_state: {active: a, device: d}, otherwise: o}}")
    assert attribute(run(rule, lines(*states("setup", "completed"))).only("m"), "mode") == "o"
    assert attribute(run(rule, lines(*states("setup", "active", "device", "completed"))).only("m"), "mode") == "d"
    assert attribute(run(rule, lines(*states("setup", "active", "device", "active", "completed"))).only("m"), "mode") == "a"


def test_a_span_rule_may_read_the_state_and_the_role() -> None:
    """They are those of the migration that the span lies in."""
    rule = MACHINE + (
        "spans: {ping: {inside: m, begin: savevm_send_ping, end: source_return_path_thread_pong, "
        "attributes: {state: state, role: role}}}\n"
    )
    log = lines(
        *states("setup", "active"),
        (10.15, 1, "savevm_state_setup "),
        (10.2, 1, "savevm_send_ping 0x1"),
        (10.3, 1, "source_return_path_thread_pong 0x1"),
        (10.4, 1, "migrate_set_state new state completed"),
    )
    ping = run(rule, log).only("ping")
    assert (attribute(ping, "state"), attribute(ping, "role")) == ("active", "source")


def test_a_rule_may_ask_for_the_version_of_qemu() -> None:
    """The catalogue deduces it: `migration_completion_vm_stop` came with 6.1, `migrate_fd_cancel` went with 10.0."""
    rule = MACHINE.replace("state: state}", "state: state, version: qemu_version}") + (
        "spans: {ping: {inside: m, begin: savevm_send_ping, end: source_return_path_thread_pong, "
        "attributes: {version: qemu_version}}}\n"
    )
    log = lines(
        *states("setup"),
        (10.01, 1, "migrate_fd_cancel "),
        (10.1, 1, "savevm_send_ping 0x1"),
        (10.3, 1, "source_return_path_thread_pong 0x1"),
        (10.4, 1, "migrate_set_state new state completed"),
    )
    seen = run(rule, log)
    assert attribute(seen.only("ping"), "version") == attribute(seen.only("m"), "version") is not None
