"""Which end belongs to which begin."""

from __future__ import annotations

import pytest

from otelbridge.engine import pairs
from otelbridge.records import ERROR, UNSET
from tests.engine.builders import attribute, incomplete, length_ms, lines, ms, run, threadless

SECTION = """
spans:
  section:
    begin: savevm_section_start
    end: savevm_section_end
    key: [thread, section_id]
    attributes: {number: section_id, result: end.ret}
"""


def loads(repeated_begin: str) -> str:
    """Loads of a state, whose key is its name."""
    return f"""
spans:
  load:
    begin: vmstate_load_state
    end: {{vmstate_load_state_end: {{error: {{when: val != 0, type: load, message: "{{reason}} {{begin.name}} {{val}}"}}}}}}
    key: [name]
    repeated_begin: {repeated_begin}
    attributes: {{version: version_id}}
"""


# The version tells the begins apart, the value the ends.
TWICE = """
    1@10.000000:vmstate_load_state cpu v1
    1@10.010000:vmstate_load_state cpu v2
    1@10.030000:vmstate_load_state_end cpu end/0
    1@10.070000:vmstate_load_state_end cpu end/0
"""


def versions(repeated_begin: str, log: str = TWICE) -> list[tuple[object, float, bool]]:
    """Of each span its version, its length and whether its end was not seen."""
    return [(attribute(s, "version"), length_ms(s), incomplete(s)) for s in run(loads(repeated_begin), log).spans]


def test_the_key_decides_whatever_order_the_ends_come_in() -> None:
    seen = run(
        SECTION,
        """
        1@10.000000:savevm_section_start ram, section_id 2
        1@10.001000:savevm_section_start vfio, section_id 3
        1@10.004000:savevm_section_end ram, section_id 2 -> 1
        1@10.009000:savevm_section_end vfio, section_id 3 -> 0
        """,
    )
    assert [(attribute(s, "number"), *ms(s)) for s in seen.spans] == [(2, 10000, 10004), (3, 10001, 10009)]
    assert [attribute(s, "result") for s in seen.spans] == [1, 0]
    assert seen.open == 0


def test_the_same_key_in_two_threads_is_two_spans() -> None:
    seen = run(
        SECTION,
        """
        1@10.000000:savevm_section_start ram, section_id 2
        2@10.001000:savevm_section_start ram, section_id 2
        1@10.004000:savevm_section_end ram, section_id 2 -> 0
        2@10.009000:savevm_section_end ram, section_id 2 -> 0
        """,
    )
    assert [length_ms(s) for s in seen.spans] == [4, 8]
    assert all(attribute(s, "otelbridge.pairing") is None for s in seen.spans)


def test_an_end_in_another_thread_than_its_begin_is_none_of_its_own() -> None:
    log = lines((10, 1, "savevm_section_start ram, section_id 2"), (10.1, 2, "savevm_section_end ram, section_id 2 -> 0"))
    seen = run(SECTION, log)
    assert seen.buckets()["orphan_end"] == 1
    assert incomplete(seen.only("section"))


def test_without_threads_the_rest_of_the_key_decides_and_the_span_says_so() -> None:
    log = """
        1@10.000000:savevm_section_start ram, section_id 2
        2@10.001000:savevm_section_start vfio, section_id 3
        1@10.004000:savevm_section_end ram, section_id 2 -> 0
        2@10.009000:savevm_section_end vfio, section_id 3 -> 0
        """
    seen = run(SECTION, threadless(log))
    assert [length_ms(s) for s in seen.spans] == [4, 8]
    assert [attribute(s, "otelbridge.pairing") for s in seen.spans] == ["section_id", "section_id"]


def test_without_threads_and_any_other_key_the_order_decides_and_the_span_says_so() -> None:
    rule = "spans: {pass: {begin: migration_bitmap_sync_start, end: migration_bitmap_sync_end, key: [thread]}}"
    log = "1@10.000000:migration_bitmap_sync_start\n1@10.004000:migration_bitmap_sync_end dirty_pages 7"
    assert attribute(run(rule, threadless(log)).only("pass"), "otelbridge.pairing") == "order"
    assert attribute(run(rule, log).only("pass"), "otelbridge.pairing") is None


# --- begins that repeat ---------------------------------------------------------------------------------


def test_close_ends_the_first_one_at_the_second_begin_without_an_end() -> None:
    assert versions("close") == [(1, 10, True), (2, 20, False)]


def test_stack_ends_the_youngest_first() -> None:
    assert versions("stack") == [(2, 20, False), (1, 70, False)]


def test_queue_ends_the_oldest_first() -> None:
    assert versions("queue") == [(1, 30, False), (2, 60, False)]


def test_ignore_lets_the_first_begin_count() -> None:
    seen = run(loads("ignore"), TWICE)
    assert [(attribute(s, "version"), length_ms(s)) for s in seen.spans] == [(1, 30)]
    assert seen.buckets() == {"begin": 1, "end": 1, "counted": 1, "orphan_end": 1}


def test_only_the_same_key_repeats() -> None:
    log = """
        1@10.000000:vmstate_load_state cpu v1
        1@10.010000:vmstate_load_state timer v2
        1@10.030000:vmstate_load_state_end cpu end/0
        1@10.070000:vmstate_load_state_end timer end/0
        """
    assert versions("close", log) == [(1, 30, False), (2, 60, False)]


DOWNTIME = """
spans:
  downtime:
    begin:
      vmstate_downtime_checkpoint: {when: checkpoint == "src-downtime-start"}
      migration_completion_vm_stop:
      migration_thread_low_pending:
    repeated_begin: prefer
    end: {vmstate_downtime_checkpoint: {when: checkpoint == "src-downtime-end"}}
    attributes: {basis: begin_event}
"""


@pytest.mark.parametrize(
    ("begins", "begin_ms", "basis"),
    [
        (["migration_thread_low_pending 1"], 10000, "migration_thread_low_pending"),
        (["migration_thread_low_pending 1", "migration_completion_vm_stop ret 0"], 10001, "migration_completion_vm_stop"),
        (["migration_completion_vm_stop ret 0", "migration_thread_low_pending 1"], 10000, "migration_completion_vm_stop"),
        (["vmstate_downtime_checkpoint src-downtime-start", "migration_completion_vm_stop ret 0"], 10000,
         "vmstate_downtime_checkpoint"),
        (["migration_thread_low_pending 1", "migration_completion_vm_stop ret 0",
          "vmstate_downtime_checkpoint src-downtime-start"], 10002, "vmstate_downtime_checkpoint"),
        (["migration_thread_low_pending 1", "migration_thread_low_pending 0"], 10001, "migration_thread_low_pending"),
    ],
)  # fmt: skip
def test_prefer_takes_the_best_begin_and_of_equal_ones_the_last(begins: list[str], begin_ms: float, basis: str) -> None:
    events = [(10 + n / 1000, 1, text) for n, text in enumerate(begins)]
    seen = run(DOWNTIME, lines(*events, (10.050, 1, "vmstate_downtime_checkpoint src-downtime-end")))
    span = seen.only("downtime")
    assert ms(span) == (begin_ms, 10050)
    assert (attribute(span, "basis"), attribute(span, "qemu.event.begin")) == (basis, basis)


# --- several ends, conditions, errors ---------------------------------------------------------------------

HANDSHAKE = """
spans:
  handshake:
    begin: migration_tls_outgoing_handshake_start
    end:
      migration_tls_outgoing_handshake_complete:
      migration_tls_outgoing_handshake_error: {error: {type: tls_handshake, message: "to {begin.hostname}: {err}"}}
"""


def test_of_several_ends_each_has_its_own_outcome() -> None:
    seen = run(
        HANDSHAKE,
        """
        1@10.000000:migration_tls_outgoing_handshake_start hostname=b
        1@10.010000:migration_tls_outgoing_handshake_complete
        1@11.000000:migration_tls_outgoing_handshake_start hostname=b
        1@11.020000:migration_tls_outgoing_handshake_error err=Certificate does not match
        """,
    )
    good, bad = seen.spans
    assert (good.status, good.message, length_ms(good)) == (UNSET, "", 10)
    assert attribute(good, "error.type") is None
    assert attribute(good, "qemu.event.end") == "migration_tls_outgoing_handshake_complete"
    assert (bad.status, bad.message, length_ms(bad)) == (ERROR, "to b: Certificate does not match", 20)
    assert attribute(bad, "error.type") == "tls_handshake"
    assert attribute(bad, "qemu.event.end") == "migration_tls_outgoing_handshake_error"


def test_an_error_only_when_its_condition_holds() -> None:
    log = "1@10.000000:vmstate_load_state cpu v1\n1@10.001000:vmstate_load_state_end cpu {}"
    good = run(loads("stack"), log.format("end/0")).only("load")
    bad = run(loads("stack"), log.format("truncated/-22")).only("load")
    assert (good.status, good.message) == (UNSET, "")
    assert (bad.status, bad.message, attribute(bad, "error.type")) == (ERROR, "truncated cpu -22", "load")


def test_begin_and_end_only_when_their_conditions_hold() -> None:
    rule = """
spans:
  ram:
    begin: {savevm_section_start: {when: id == "ram"}}
    end: {savevm_section_end: {when: ret != 0}}
    key: [section_id]
"""
    seen = run(
        rule,
        """
        1@10.000000:savevm_section_start vfio, section_id 2
        1@10.001000:savevm_section_start ram, section_id 2
        1@10.002000:savevm_section_end ram, section_id 2 -> 0
        1@10.005000:savevm_section_end ram, section_id 2 -> 1
        """,
    )
    assert ms(seen.only("ram")) == (10001, 10005)


def test_until_next_each_begin_ends_the_one_before_and_the_last_is_incomplete() -> None:
    rule = """
spans:
  section: {begin: qemu_loadvm_state_section_startfull, until: next, key: [thread], attributes: {of: idstr}}
"""
    seen = run(
        rule,
        """
        1@10.000000:qemu_loadvm_state_section_startfull 2(ram) 0 4
        1@10.030000:qemu_loadvm_state_section_startfull 3(timer) 0 2
        2@10.040000:qemu_loadvm_state_section_startfull 4(cpu) 0 2
        1@10.070000:qemu_loadvm_state_section_startfull 5(vfio) 0 2
        """,
    )
    found = {attribute(s, "of"): (length_ms(s), incomplete(s), attribute(s, "qemu.event.end")) for s in seen.spans}
    end = "qemu_loadvm_state_section_startfull"
    assert found == {
        "ram": (30, False, end),
        "timer": (40, False, end),
        "cpu": (30, True, None),
        "vfio": (0, True, None),
    }


# --- timeouts ---------------------------------------------------------------------------------------------

PING = "spans: {ping: {begin: savevm_send_ping, end: source_return_path_thread_pong, key: [{value: val}], timeout: 1500ms}}"


@pytest.mark.parametrize("pong", [10.8, 11.0, 12.1, 12.2])
def test_an_end_within_the_timeout_counts(pong: float) -> None:
    """To the microsecond, wherever the borders of the windows lie."""
    seen = run(PING, lines((10.7, 1, "savevm_send_ping 0x1"), (pong, 1, "source_return_path_thread_pong 0x1")))
    assert ms(seen.only("ping")) == (10700, pong * 1000)
    assert not incomplete(seen.only("ping"))


@pytest.mark.parametrize("pong", [12.200001, 12.3, 12.9, 13.1, 99])
def test_after_its_timeout_a_span_is_incomplete_and_the_end_an_orphan(pong: float) -> None:
    """The time is that of the events, not that of the windows in which they are counted."""
    seen = run(PING, lines((10.7, 1, "savevm_send_ping 0x1"), (pong, 1, "source_return_path_thread_pong 0x1")))
    span = seen.only("ping")
    assert incomplete(span)
    assert length_ms(span) == 1500
    assert seen.buckets() == {"begin": 1, "orphan_end": 1}


def test_a_begin_after_the_timeout_of_the_one_before_does_not_lengthen_it() -> None:
    seen = run(PING, lines((10.1, 1, "savevm_send_ping 0x1"), (11.9, 1, "savevm_send_ping 0x1"),
                           (11.95, 1, "source_return_path_thread_pong 0x1")))  # fmt: skip
    assert [(ms(s), incomplete(s)) for s in seen.spans] == [((10100, 11600), True), ((11900, 11950), False)]


def test_what_is_open_at_the_end_ends_at_its_timeout_if_that_is_earlier() -> None:
    seen = run(PING, lines((10.1, 1, "savevm_send_ping 0x1"), (11.8, 1, "savevm_send_ping 0x2")))
    assert [ms(s) for s in seen.spans] == [(10100, 11600), (11800, 11800)]


def test_a_moved_begin_has_its_own_timeout() -> None:
    """`prefer` begins anew, so that it no longer is the oldest."""
    rule = DOWNTIME + "    key: [thread]\n    timeout: 2s\n"
    seen = run(
        rule,
        lines(
            (10.0, 1, "migration_thread_low_pending 1"),
            (10.5, 2, "migration_thread_low_pending 1"),
            (11.9, 1, "migration_completion_vm_stop ret 0"),
            (13.2, 3, "vmstate_downtime_checkpoint other"),
            (13.3, 1, "vmstate_downtime_checkpoint src-downtime-end"),
        ),
    )
    assert [(ms(s), incomplete(s)) for s in seen.spans] == [((10500, 12500), True), ((11900, 13300), False)]


# --- bounds -----------------------------------------------------------------------------------------------


def test_of_too_many_open_spans_the_oldest_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory stays bounded where an end is never traced."""
    monkeypatch.setattr(pairs, "MAX_OPEN", 3)
    seen = run(PING, lines(*((10 + n / 100, 1, f"savevm_send_ping 0x{n}") for n in range(5))))
    assert seen.open == 3
    assert [length_ms(s) for s in seen.spans if incomplete(s)][:2] == [30, 30]
    assert len(seen.spans) == 5


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("", "savevm_section_end"),
        ("type: section", "savevm_section_end"),
        ("when: ret < 0", "savevm_section_end: ret < 0 (ret -5)"),
        (
            "when: ret < 0 and begin.id == end.id",
            "savevm_section_end: ret < 0 and begin.id == end.id (ret -5, begin.id s, end.id s)",
        ),
    ],
)
def test_an_error_without_a_message_is_told_by_its_event_and_what_it_read(error: str, message: str) -> None:
    rule = f"spans: {{s: {{begin: savevm_section_start, end: {{savevm_section_end: {{error: {{{error}}}}}}}}}}}"
    log = lines((10, 1, "savevm_section_start s, section_id 1"), (11, 1, "savevm_section_end s, section_id 1 -> -5"))
    span = run(rule, log).only("s")
    assert (span.status, span.message) == (ERROR, message)


def test_a_span_event_that_is_an_error_is_told_by_its_name() -> None:
    rule = "spans: {s: {begin: savevm_section_start, end: savevm_section_end, events: {savevm_section_skip: {error: }}}}"
    events = (
        "savevm_section_start s, section_id 1",
        "savevm_section_skip s, section_id 1",
        "savevm_section_end s, section_id 1 -> 0",
    )
    span = run(rule, lines(*((10 + n, 1, event) for n, event in enumerate(events)))).only("s")
    assert (span.status, span.message) == (ERROR, "savevm_section_skip")
