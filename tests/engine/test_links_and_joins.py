"""Two hosts, one trace: which destination belongs to which source, and what points to what."""

from __future__ import annotations

import pytest

from otelbridge.engine.machines import Join
from otelbridge.records import FinishedSpan
from tests.engine.builders import RECORDINGS, Seen, attribute, hosts, joined_of, lines, run, shipped

Event = tuple[float, int, str]


def sections(start_s: float, *numbers: int, step_s: float = 0.01) -> tuple[list[Event], list[Event]]:
    """A source's sections and the headers of the same on the destination."""
    saved: list[Event] = []
    loaded: list[Event] = []
    for place, number in enumerate(numbers):
        at = start_s + place * step_s
        saved += [(at, 1, f"savevm_section_start s{number}, section_id {number}"),
                  (at + step_s / 2, 1, f"savevm_section_end s{number}, section_id {number} -> 0")]  # fmt: skip
        loaded.append((at + step_s / 2, 1, f"qemu_loadvm_state_section_startfull {number}(s{number}) 0 4"))
    return saved, loaded


def source(start_s: float, saved: list[Event], *, length_s: float = 1.0) -> list[Event]:
    return [
        (start_s, 1, "migrate_set_state new state setup"),
        (start_s + 0.01, 1, "migration_set_outgoing_channel ioc=0x1 ioctype=qio-channel-socket hostname=b err=(nil)"),
        (start_s + 0.02, 1, "migrate_set_state new state active"),
        *saved,
        (start_s + length_s, 1, "migrate_set_state new state completed"),
    ]


def destination(start_s: float, loaded: list[Event], *, length_s: float = 1.0) -> list[Event]:
    return [
        (start_s, 1, "migration_set_incoming_channel ioc=0x1 ioctype=qio-channel-socket"),
        (start_s, 1, "migrate_set_state new state active"),
        *loaded,
        (start_s + length_s, 1, "migrate_set_state new state completed"),
    ]


def roots(stream: Seen) -> list[FinishedSpan]:
    return sorted(stream.named("migration"), key=lambda s: s.start_ns)


def linked(stream: Seen, rule: str, other: Seen) -> list[tuple[object, list[object]]]:
    """Of each span the section it is of, and what the spans it points to are of."""
    names = {s.span_id: attribute(s, "qemu.migration.section.id") for s in other.spans}
    return [(attribute(s, "qemu.migration.section.id"), [names[link.span_id] for link in s.links]) for s in stream.named(rule)]


def test_the_destination_is_a_child_of_the_source_in_its_trace() -> None:
    saved, loaded = sections(10.1, 2, 3)
    src, dst = hosts(lines(*source(10, saved)), lines(*destination(10.02, loaded)))
    (top,), (below,) = roots(src), roots(dst)
    assert (top.parent_id, below.parent_id) == (b"", top.span_id)
    assert {s.trace_id for s in [*src.spans, *dst.spans]} == {top.trace_id}
    assert {s.parent_id for s in dst.named("migration.active")} == {below.span_id}


def test_each_loaded_section_points_to_the_saved_one_of_the_same_number_and_place() -> None:
    """RAM comes in many sections of one number; the n-th was saved as the n-th."""
    saved, loaded = sections(10.1, 2, 2, 3, 2)
    src, dst = hosts(lines(*source(10, saved)), lines(*destination(10.02, loaded)))
    assert linked(dst, "loadvm.section", src) == [(2, [2]), (2, [2]), (3, [3]), (2, [2])]
    targets = [link.span_id for s in dst.named("loadvm.section") for link in s.links]
    assert targets == [s.span_id for s in src.named("savevm.section")]
    assert {link.trace_id for s in dst.named("loadvm.section") for link in s.links} == {roots(src)[0].trace_id}


def test_a_section_whose_setup_is_only_traced_where_it_is_loaded_points_from_its_second_part_on() -> None:
    """`save_setup` writes the first part of an iterative section, and QEMU does not trace that as a section."""
    saved, _ = sections(10.1, 2, 2, 3)
    _, loaded = sections(10.1, 2, 2, 2, 3)
    src, dst = hosts(lines(*source(10, saved)), lines(*destination(10.02, loaded)))
    assert linked(dst, "loadvm.section", src) == [(2, []), (2, [2]), (2, [2]), (3, [3])]
    assert [s.links[0].span_id for s in dst.named("loadvm.section")[1:]] == [s.span_id for s in src.named("savevm.section")]


def test_in_a_migration_that_was_cut_short_only_what_is_there_but_once_points() -> None:
    """Without the last parts nobody can tell which is the same."""
    saved, loaded = sections(10.1, 2, 2, 3)
    src, dst = hosts(lines(*source(10, saved)[:-1]), lines(*destination(10.02, loaded)[:-1]))
    assert linked(dst, "loadvm.section", src) == [(2, []), (2, []), (3, [3])]


def test_what_is_open_when_the_destination_opens_its_migration_points_too() -> None:
    """Threads of the channels start before the first state."""
    sending: list[Event] = [(10.1 + n / 100, 5 + n, f"multifd_send_thread_start {n}") for n in range(2)]
    receiving: list[Event] = [(10.2 + n / 100, 5 + n, f"multifd_recv_thread_start {n}") for n in range(2)]
    src, dst = hosts(lines(*source(10, sending)), lines(*receiving, *destination(10.205, [])))
    targets = {link.span_id for s in dst.named("multifd.recv") for link in s.links}
    assert targets == {s.span_id for s in src.named("multifd.send")}
    first, second = sorted(dst.named("multifd.recv"), key=lambda s: s.start_ns)
    assert (first.parent_id, second.parent_id) == (roots(src)[0].span_id, roots(dst)[0].span_id)


def test_where_the_hosts_disagree_on_the_number_of_sections_nothing_points_anywhere() -> None:
    """Places would be wrong; numbers that agree still count. The user must have said that the two belong together."""
    saved, _ = sections(10.1, 2, 2, 3)
    _, loaded = sections(10.1, 2, 3)
    src, dst = hosts(lines(*source(10, saved)), lines(*destination(10.02, loaded)), told=True)
    assert linked(dst, "loadvm.section", src) == [(2, []), (3, [3])]


def test_two_migrations_with_many_messages_alike_belong_together_whatever_their_clocks_say() -> None:
    saved, loaded = sections(10.1, *[2] * 60)
    late = [(at + 3600, thread, event) for at, thread, event in destination(10.02, loaded)]
    src, dst = hosts(lines(*source(10, saved)), lines(*late))
    assert roots(dst)[0].parent_id == roots(src)[0].span_id


def test_two_migrations_at_different_times_with_nothing_in_common_are_two() -> None:
    _, dst = hosts(lines(*source(10, [])), lines(*destination(80, [])))
    assert roots(dst)[0].parent_id == b""
    (note,) = joined_of(lines(*source(10, [])), lines(*destination(80, []))).notes
    assert note.startswith("host1: its migration belongs to no other log that was given (nearest is host0, but their clocks")


def test_what_the_user_names_belongs_together_whatever_the_clocks_say() -> None:
    src, dst = hosts(lines(*source(10, [])), lines(*destination(80, [])), told=True)
    assert roots(dst)[0].parent_id == roots(src)[0].span_id
    (note,) = joined_of(lines(*source(10, [])), lines(*destination(80, [])), told=True).notes
    assert "because they were named so, but their clocks would have to be 70.000 s apart" in note


@pytest.mark.parametrize(
    ("sent", "arrived", "why"),
    [
        ([2, 2, 3], [2, 2, 3, 4], "section 4 arrived once and was sent never"),
        ([2, 2, 3, 4], [2, 2, 3], "1 of the 4 sections that were sent did not arrive"),
    ],
)
def test_migrations_whose_sections_differ_are_two(sent: list[int], arrived: list[int], why: str) -> None:
    saved, _ = sections(10.1, *sent)
    _, loaded = sections(10.1, *arrived)
    logs = lines(*source(10, saved)), lines(*destination(10.02, loaded))
    src, dst = hosts(*logs)
    assert roots(dst)[0].trace_id != roots(src)[0].trace_id
    assert dst.named("loadvm.section")[0].links == ()
    (note,) = joined_of(*logs).notes
    assert why in note


def test_a_source_that_goes_on_after_the_destination_is_gone_is_of_another_migration() -> None:
    saved, loaded = sections(10.1, *[2] * 30, step_s=0.1)
    logs = lines(*source(10, saved, length_s=4)), lines(*destination(10.02, loaded[:10], length_s=1.5)[:-1])
    (note,) = joined_of(*logs).notes
    assert "sections were sent when the other had been gone for a second" in note


def test_a_source_that_never_became_active_has_no_destination_that_completed() -> None:
    failed: list[Event] = [(10, 1, "migrate_set_state new state setup"), (10.1, 1, "migration_socket_outgoing_error err=no"),
                           (10.1, 1, "migrate_set_state new state failed")]  # fmt: skip
    assert not joined_of(lines(*failed), lines(*destination(10.02, []))).joins


def test_of_several_migrations_none_is_joined_to_one_at_another_time() -> None:
    src, dst = hosts(lines(*source(10, []), *source(60, [])), lines(*destination(30, []), *destination(60.1, [])))
    first, second = roots(src)
    alone, joined = roots(dst)
    assert (alone.parent_id, joined.parent_id) == (b"", second.span_id)
    assert alone.trace_id not in {first.trace_id, second.trace_id}


def test_four_logs_of_two_migrations_at_the_same_time_find_each_other_by_their_sections() -> None:
    """The clocks say nothing, the sections do; the order of the files does not matter."""
    saved_a, loaded_a = sections(10.1, 2, 2, 3)
    saved_b, loaded_b = sections(10.1, 2, 4, 4)
    src_a, src_b, dst_b, dst_a = hosts(
        lines(*source(10, saved_a)),
        lines(*source(10, saved_b)),
        lines(*destination(10.02, loaded_b)),
        lines(*destination(10.02, loaded_a)),
    )
    assert roots(dst_a)[0].parent_id == roots(src_a)[0].span_id
    assert roots(dst_b)[0].parent_id == roots(src_b)[0].span_id


def test_a_chain_of_three_hosts_is_two_migrations() -> None:
    """The one in the middle is the destination of the first and the source of the second."""
    a, b, c = hosts(
        lines(*source(10, [])),
        lines(*destination(10.02, []), *source(20, [])),
        lines(*destination(20.02, [])),
    )
    incoming, outgoing = roots(b)
    assert incoming.parent_id == roots(a)[0].span_id
    assert outgoing.parent_id == b""
    assert roots(c)[0].parent_id == outgoing.span_id
    assert len({s.trace_id for s in [*roots(a), *roots(b), *roots(c)]}) == 2


def test_a_log_that_tells_no_side_is_said_to_be_joined_to_nothing() -> None:
    states = [(10.0, 1, "migrate_set_state new state active"), (11.0, 1, "migrate_set_state new state completed")]
    joined = joined_of(lines(*source(10, [])), lines(*states))
    assert not joined.joins
    assert joined.notes[0].startswith("host1: nothing in it tells whether it is the source's or the destination's")


def test_a_clock_that_was_set_back_moves_nothing_where_no_answer_tells_by_how_much() -> None:
    """Half of what arrived seems to have come before it was sent; which half is right nobody knows."""
    saved, loaded = sections(10.1, *[2] * 30)
    back = [(at - 0.5 * (place > 15), thread, event) for place, (at, thread, event) in enumerate(loaded)]
    joined = joined_of(lines(*source(10, saved)), lines(*destination(10.02, back)))
    (note,) = joined.notes
    assert "it is not known by how much: stamps go back in one of the two" in note
    assert [shifts.amounts for shifts in joined.shifts.values()] == [[0]]


def test_a_source_has_one_destination() -> None:
    src, near, far = hosts(lines(*source(10, [])), lines(*destination(10.02, [])), lines(*destination(10.5, [])))
    assert roots(near)[0].parent_id == roots(src)[0].span_id
    assert roots(far)[0].parent_id == b""


def test_a_migration_is_not_joined_to_one_of_its_own_stream() -> None:
    (both,) = hosts(lines(*source(10, []), *destination(11.5, [])))
    assert [s.parent_id for s in roots(both)] == [b"", b""]


def test_what_the_destination_does_before_its_migration_opens_hangs_below_the_source() -> None:
    """A handshake comes before the destination's first state, but within the source's migration."""
    shakes: list[Event] = [(10.05, 1, "migration_tls_incoming_handshake_start "),
                           (10.07, 1, "migration_tls_incoming_handshake_complete ")]  # fmt: skip
    src, dst = hosts(lines(*source(10, [])), lines(*shakes, *destination(10.1, [])))
    shake = dst.only("tls.handshake")
    assert (shake.parent_id, shake.trace_id) == (roots(src)[0].span_id, roots(src)[0].trace_id)


def test_a_join_changes_no_span_id() -> None:
    _, loaded = sections(10.1, 2, 3)
    log = lines(*destination(10.02, loaded))
    alone = run(shipped(), log)
    (root,) = roots(alone)
    joined = run(shipped(), log, joins={root.span_id: Join(bytes(range(16)), b"parent__", root.start_ns)})
    assert [s.span_id for s in joined.spans] == [s.span_id for s in alone.spans]


def test_every_section_of_a_real_migration_points_to_its_own() -> None:
    """QEMU 7.2 to itself: as many sections on both sides, each pointing to one that began before it."""
    folder = RECORDINGS / "debian-7.2" / "precopy-busy"
    src, dst = hosts((folder / "src.log").read_bytes(), (folder / "dst.log").read_bytes())
    saved = {s.span_id: s for s in src.named("savevm.section")}
    loaded = dst.named("loadvm.section")
    pointing = [s for s in loaded if s.links]
    assert len(saved) > 100
    assert [link.span_id for s in pointing for link in s.links] == list(saved)
    for s in pointing:
        target = saved[s.links[0].span_id]
        assert attribute(target, "qemu.migration.section.id") == attribute(s, "qemu.migration.section.id")
        assert target.start_ns < s.start_ns
    # The first part of the memory is written by the setup, which QEMU does not trace as a section.
    assert [attribute(s, "qemu.migration.section") for s in loaded if not s.links] == ["ram"]


def test_every_receiving_channel_of_a_real_migration_points_to_its_sending_one() -> None:
    folder = RECORDINGS / "debian-7.2" / "multifd"
    src, dst = hosts((folder / "src.log").read_bytes(), (folder / "dst.log").read_bytes())
    sending = {s.span_id: attribute(s, "qemu.migration.channel.id") for s in src.named("multifd.send")}
    receiving = dst.named("multifd.recv")
    assert len(receiving) == len(sending) > 1
    assert all([sending[link.span_id] for link in s.links] == [attribute(s, "qemu.migration.channel.id")] for s in receiving)
