"""Simple traces that are made up: damage, cuts, windows, headers, dropped records, traces without a header."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from otelbridge.catalogue import builtin, catalogue_from
from otelbridge.errors import FormatError
from otelbridge.readers.simple import MAX_NAME_BYTES, MAX_RECORD_BYTES, ByteOrder, SimpleReader, extent_of
from otelbridge.records import SECOND_NS, WINDOW_NS, Batch, Plan
from tests.readers.simple_files import (
    DROPPED,
    MUTATION,
    NAMES,
    OFFSET_NS,
    PLAN,
    T0,
    OneByOne,
    Outcome,
    Writer,
    batches_of,
    cut,
    damaged,
    outcome,
    preamble,
    recordings_in,
    records_in,
    small_trace,
    sum_of,
    swapped,
)

LITTLE = Writer()
PAGE, BYTES, ITERATE, SEND, STATE, SECTION, FOREIGN = 4149, 4240, 5, 12, 300, 3001, 13


def page(time_ns: int, offset: int = 0) -> bytes:
    return LITTLE.event(PAGE, time_ns, [b"pc.ram", offset, 0x7F00])


def state(time_ns: int, name: bytes = b"setup") -> bytes:
    return LITTLE.event(STATE, time_ns, [name])


# --- header -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"19625@1795407950.847563:migrate_set_state new state setup\n", "19625@1795407950"),
        (b"\0" * 64, "not the header of QEMU's simple trace backend"),
        (LITTLE.header()[:20], "ends after 20 bytes, within its header"),
        (LITTLE.header(0), "version 0 of the simple trace format, which QEMU 0.14 to 1.1 wrote"),
        (LITTLE.header(2), "QEMU 1.2 to 2.0"),
        (LITTLE.header(3), "QEMU 2.1 to 2.7"),
        (Writer("big").header(5), "version 5 of the simple trace format; only version 4"),
        (page(T0) + page(T0), "give that QEMU's trace-events-all with --catalogue"),
    ],
)
@pytest.mark.parametrize("size", [None, 1])
def test_what_cannot_be_read_is_refused_with_the_reason(data: bytes, words: str, size: int | None) -> None:
    with pytest.raises(FormatError) as caught:
        batches_of(data, size)
    assert words in str(caught.value)
    assert "othing of it was converted" in str(caught.value)
    assert caught.value.offset == (16 if data.startswith(b"\xff") and len(data) == len(LITTLE.header()) else 0)


def test_an_empty_input_and_one_without_events_are_no_error() -> None:
    assert batches_of(b"") == Outcome([], None, [])
    assert batches_of(preamble(LITTLE)) == Outcome([], None, [])


# --- records ----------------------------------------------------------------------------------------


def test_every_kind_of_event_goes_where_the_plan_says() -> None:
    data = preamble(LITTLE) + b"".join(
        [
            state(T0),
            LITTLE.event(SECTION, T0 + 1, [b"ram", 2, -5], process=78),
            page(T0 + 2),
            LITTLE.event(SEND, T0 + 3, [1, 2, 300, 4]),
            LITTLE.event(SEND, T0 + 4, [1]),
            LITTLE.event(FOREIGN, T0 + 5),
        ]
    )
    found = batches_of(data)
    assert [(row.event, row.time_ns, row.thread, row.process, row.raw) for row in found.rows] == [
        ("migrate_set_state", T0 + OFFSET_NS, None, 77, b"\x05\0\0\0setup"),
        ("savevm_section_end", T0 + 1 + OFFSET_NS, None, 78, LITTLE.payload([b"ram", 2, -5])),
    ]
    assert found.counts == {"ram_save_page": 1, "multifd_send": 1}
    assert found.windows[0][3] == {("multifd_send", "used"): 300}
    assert found.units == {"malformed": 1, "unmapped": 1}
    assert found.total == 6
    assert found.last_ns == T0 + 5 + OFFSET_NS


def test_names_may_come_in_mid_file_and_change() -> None:
    """A module that is loaded brings its own."""
    data = (
        LITTLE.header()
        + LITTLE.name(1, b"ram_save_page")
        + LITTLE.event(1, T0)
        + LITTLE.name(2, b"migrate_set_state")
        + LITTLE.event(2, T0, [b"setup"])
        + LITTLE.name(1, b"savevm_section_start")
        + LITTLE.event(1, T0)
    )
    found = batches_of(data)
    assert [row.event for row in found.rows] == ["migrate_set_state", "savevm_section_start"]
    assert found.counts == {"ram_save_page": 1}
    assert batches_of(data, 1) == found


def test_a_name_given_to_a_hot_event_ends_its_being_only_counted() -> None:
    pages = [page(T0 + i) for i in range(4000)]
    data = preamble(LITTLE) + b"".join(pages) + LITTLE.name(PAGE, b"savevm_section_start") + b"".join(pages)
    found = batches_of(data, 1 << 16)
    assert (found.counts["ram_save_page"], len(found.rows)) == (4000, 4000)


def test_the_declared_names_are_told_before_any_event() -> None:
    told: list[str] = []
    batches_of(preamble(LITTLE), declared=told.append)
    assert told == [name.decode() for name in NAMES.values()]


def test_counts_lie_in_the_windows_of_their_events() -> None:
    """Records of two threads step back by some microseconds at the window's edge: the window does not go back."""
    edge = (T0 + OFFSET_NS) // WINDOW_NS * WINDOW_NS + WINDOW_NS - OFFSET_NS
    times = [edge - 2, edge - 1, edge, edge - 3_000, edge + 1, edge + WINDOW_NS]
    found = batches_of(preamble(LITTLE) + b"".join(page(time) for time in times))
    assert [(window[0], window[2]["ram_save_page"]) for window in found.windows] == [
        (edge + OFFSET_NS - WINDOW_NS, 2),
        (edge + OFFSET_NS, 3),
        (edge + OFFSET_NS + WINDOW_NS, 1),
    ]


@pytest.mark.parametrize("offset_ns", [0, -T0 + 5, OFFSET_NS])
def test_a_time_that_cannot_be_is_malformed(offset_ns: int) -> None:
    """Before 1970 or after 2262, where OTLP's times end."""
    data = preamble(LITTLE) + state(T0) + page((1 << 64) - 1) + state((1 << 64) - 5) + page(T0 + 1)
    found = batches_of(data, offset_ns=offset_ns)
    assert found.units == {"malformed": 2}
    assert (len(found.rows), found.counts["ram_save_page"]) == (1, 1)
    early = batches_of(preamble(LITTLE) + page(3) + page(T0), offset_ns=-4)
    assert early.units == {"malformed": 1}


# --- dropped ----------------------------------------------------------------------------------------


def test_dropped_events_stand_outside_the_total_and_end_their_batch() -> None:
    """The record's own time is that of its writing, later than what follows it: it moves no window."""
    data = preamble(LITTLE) + state(T0) + LITTLE.dropped(T0 + 60 * SECOND_NS, 11654) + page(T0 + 1) + LITTLE.dropped(T0, 3)
    reader = SimpleReader(PLAN, builtin().is_event, sum_of, offset_ns=OFFSET_NS)
    first, second = reader.feed(data) + reader.finish()
    assert (first.units, first.total, len(first.rows)) == ({"dropped_by_qemu": 11654}, 1, 1)
    assert (second.units, second.total, second.counts) == ({"dropped_by_qemu": 3}, 1, {"ram_save_page": 1})
    assert first.window_ns == second.window_ns
    assert first.last_ns == T0 + OFFSET_NS
    assert batches_of(data, 1) == batches_of(data)


def test_the_extent_is_that_of_the_events() -> None:
    data = preamble(LITTLE) + state(T0) + page(T0 + 5) + LITTLE.dropped(T0 + 60 * SECOND_NS, 1)
    assert extent_of(cut(data, 100)) == (T0, T0 + 5)
    assert extent_of([preamble(LITTLE)]) is None


# --- several traces in one --------------------------------------------------------------------------


def test_traces_of_one_clock_put_together_are_read_in_a_row() -> None:
    again = LITTLE.header() + LITTLE.name(7, b"migrate_set_state") + LITTLE.event(7, T0 + 50, [b"active"], process=99)
    found = batches_of(preamble(LITTLE) + state(T0) + page(T0 + 1) + again)
    assert [(row.event, row.process) for row in found.rows] == [("migrate_set_state", 77), ("migrate_set_state", 99)]
    assert found.units == {}


def test_an_id_of_the_first_trace_means_nothing_in_the_second() -> None:
    again = LITTLE.header() + LITTLE.name(7, b"migrate_set_state") + LITTLE.event(7, T0 + 2, [b"x"])
    found = batches_of(preamble(LITTLE) + state(T0) + again + page(T0 + 3))
    assert found.units == {"malformed": 1}
    assert found.counts == {}


@pytest.mark.parametrize(
    ("again", "words"),
    [
        (preamble(LITTLE) + state(T0 - SECOND_NS), "lies 1.000 s before the end of the one before it"),
        (Writer("big").header(), "the other byte order"),
        (LITTLE.header(3), "version 3"),
    ],
)
@pytest.mark.parametrize("size", [None, 1])
def test_traces_that_cannot_be_one_stream_are_refused(again: bytes, words: str, size: int | None) -> None:
    before = preamble(LITTLE) + state(T0)
    with pytest.raises(FormatError, match=words) as caught:
        batches_of(before + again, size)
    assert caught.value.offset is not None
    assert caught.value.offset >= len(before)


# --- damage -----------------------------------------------------------------------------------------

PAGES = [page(T0 + i, i) for i in range(20)]


@pytest.mark.parametrize(
    ("garbage", "units", "gap"),
    [
        (b"x", {"malformed": 1}, "1 stretch of 1 bytes"),
        (b"\0" * 4096, {"malformed": 1}, "1 stretch of 4096 bytes"),
        (b"\xff" * 100, {"malformed": 1}, "1 stretch of 100 bytes"),
        (PAGES[0][5:], {"malformed": 1}, f"1 stretch of {len(PAGES[0]) - 5} bytes"),
        (LITTLE.event(PAGE, T0, [b"x" * MAX_RECORD_BYTES]), {"malformed": 1}, "1 stretch of 8227 bytes"),
        (LITTLE.event(999_999, T0, [1, 2]), {"malformed": 1}, None),
        (LITTLE.event(PAGE, T0)[:24] + b"\x01\0\0\0" + b"\x4d\0\0\0", {"malformed": 1}, "1 stretch of 32 bytes"),
        (LITTLE.name(9, b"no name!"), {"malformed": 1}, "1 stretch of 28 bytes"),
        (LITTLE.name(9, b"n" * (MAX_NAME_BYTES + 1)), {"malformed": 1}, "1 stretch of 532 bytes"),
        (LITTLE.dropped(T0, 1 << 60), {"malformed": 1}, None),
    ],
)
def test_after_damage_the_next_whole_record_is_found(garbage: bytes, units: dict[str, int], gap: str | None) -> None:
    data = preamble(LITTLE) + b"".join(PAGES[:10]) + garbage + b"".join(PAGES[10:]) + state(T0 + 99)
    found = batches_of(data)
    assert found.units == units
    assert (found.counts["ram_save_page"], len(found.rows)) == (20, 1)
    assert [text.startswith(gap or "-") for text in found.gaps] == [True] * (gap is not None)
    assert batches_of(data, 1) == batches_of(data, 37) == found


def test_two_processes_that_wrote_over_each_other_are_both_read() -> None:
    """Given the same file, each writes at its own place in it; what was overwritten last stands in the midst of records."""
    one = [page(T0 + i, i) for i in range(100)]
    other = [LITTLE.event(STATE, T0 + i, [b"active"], process=99) for i in range(100)]
    mixed = b"".join(one)[:1000] + b"".join(other)[1000:3000] + b"".join(one)[3000:]
    found = batches_of(preamble(LITTLE) + mixed, plan=Plan({"ram_save_page": (), "migrate_set_state": ()}))
    assert found.accounted == found.total
    size, other_size = len(one[0]), len(other[0])
    assert Counter(row.process for row in found.rows) == {
        77: len([at for at in range(0, len(one) * size, size) if at + 32 <= 1000 or at >= 3000]),
        99: len([at for at in range(0, len(other) * other_size, other_size) if at >= 1000 and at + 32 <= 3000]),
    }
    assert found.units == {"malformed": 2}


def test_a_name_or_a_header_ends_damage_too() -> None:
    for after in (LITTLE.name(99, b"savevm_section_start"), LITTLE.header() + LITTLE.name(99, b"savevm_section_start")):
        data = preamble(LITTLE) + page(T0) + b"garbage" * 10 + after + LITTLE.event(99, T0 + 1)
        found = batches_of(data)
        assert found.units == {"malformed": 1}
        assert [row.event for row in found.rows] == ["savevm_section_start"]


@pytest.mark.parametrize("left", [1, 7, 8, 20, 31, 32, 40, len(PAGES[0]) - 1])
def test_an_end_in_mid_record_is_torn(left: int) -> None:
    data = preamble(LITTLE) + page(T0) + PAGES[1][:left]
    found = batches_of(data)
    assert (found.units, found.total, found.counts["ram_save_page"]) == ({"torn": 1}, 2, 1)
    assert found.gaps == []
    assert batches_of(data, 1) == found


def test_records_behind_a_wrong_length_near_the_end_are_found() -> None:
    """The record seems to be cut by the end, and would have swallowed those behind it."""
    wrong = bytearray(page(T0))
    wrong[24:26] = b"\x00\x1f"
    found = batches_of(preamble(LITTLE) + page(T0) + bytes(wrong) + b"".join(PAGES[:10]))
    assert found.units == {"torn": 1}
    assert found.counts["ram_save_page"] == 11


def test_more_names_than_any_qemu_has_are_refused_before_they_fill_the_memory() -> None:
    reader = SimpleReader(PLAN, builtin().is_event, sum_of, offset_ns=0)
    reader.feed(LITTLE.header())
    for number in range(100_000):
        reader.feed(LITTLE.name(number, b"event"))
    with pytest.raises(FormatError, match="more than 100000 events"):
        reader.feed(LITTLE.name(100_000, b"event"))


# --- any bytes, any cut, both ways ------------------------------------------------------------------

EDGE = (T0 + OFFSET_NS) // WINDOW_NS * WINDOW_NS + WINDOW_NS - OFFSET_NS
HOT = st.tuples(
    st.sampled_from([1, 3, 40, 400]),
    st.sampled_from([0, 1, 700, 30_000, 40_000_000, 3 * SECOND_NS, 9 * SECOND_NS, -1, -900, -2_000_000]),
    st.sampled_from(
        ["page", "bytes", "both", "iterate", "short page", "like a mark", "state", "send", "dropped", "name", "swarm"]
    ),
)


def built(order: ByteOrder, pieces: list[tuple[int, int, str]]) -> bytes:
    """Stretches of events of one kind at equal distances, the first just before a window's edge."""
    writer, time_ns, found = Writer(order), EDGE - 900_000, [preamble(Writer(order))]
    for repeat, step_ns, kind in pieces:
        for i in range(repeat):
            time_ns = max(EDGE - 60 * SECOND_NS, time_ns + step_ns)
            big = writer.event(PAGE, time_ns, [b"pc.ram", i, 0x7F00])
            found.append(
                {
                    "page": big,
                    "bytes": writer.event(BYTES, time_ns, [i, 0, 0]),
                    "both": big + writer.event(BYTES, time_ns - i, [i, 0, 0]),
                    "iterate": writer.event(ITERATE, time_ns),
                    "short page": writer.event(PAGE, time_ns, [b"rom", i, 0x7F00]),
                    "like a mark": writer.event(PAGE, time_ns, [b"pc.ram", 1, BYTES]),
                    "state": writer.event(STATE, time_ns, [b"active"]),
                    "send": writer.event(SEND, time_ns, [1, 2, i, 4]),
                    "dropped": writer.dropped(time_ns + SECOND_NS, 5),
                    "name": writer.name(BYTES, b"migration_transferred_bytes"),
                    "swarm": writer.event(PAGE, time_ns, [b"pc.ram", i, 0x7F00], process=77 + i % 2),
                }[kind]
            )
    return b"".join(found)


@pytest.mark.parametrize("order", ["little", "big"])
@settings(max_examples=100, deadline=None)
@given(pieces=st.lists(HOT, max_size=8), size=st.sampled_from([61, 1000, 1 << 14]))
@example(pieces=[(400, 700, "both"), (400, 30_000, "both"), (40, -900, "both")], size=1000)
def test_runs_and_single_records_give_the_same_however_they_are_cut(
    order: ByteOrder, pieces: list[tuple[int, int, str]], size: int
) -> None:
    data = built(order, [(400, 700, "both"), *pieces])
    expected = batches_of(data, kind=OneByOne)
    assert expected.accounted == expected.total
    assert expected.gaps == []
    assert batches_of(data) == expected
    assert batches_of(data, size) == expected


@settings(max_examples=150, deadline=None)
@given(mutations=st.lists(MUTATION, min_size=1, max_size=6), end=st.integers(0, 1 << 20), big=st.booleans())
def test_damaged_bytes_are_counted_or_refused_and_never_fail(
    recordings: Path, mutations: list[tuple[str, int, bytes]], end: int, *, big: bool
) -> None:
    data = damaged(swapped(small_trace(recordings), builtin()) if big else small_trace(recordings), mutations)
    data = data[: end % (len(data) + 1)] if end % 3 == 0 else data
    found = tried(data)
    assert tried(data, 101) == found == tried(data, kind=OneByOne)


def tried(data: bytes, size: int | None = None, kind: type[SimpleReader] = SimpleReader) -> Outcome | tuple[str, int]:
    """What comes out, or the refusal with its place."""
    try:
        found = batches_of(data, size, kind)
    except FormatError as error:
        return str(error), error.offset or 0
    assert found.accounted == found.total
    return found


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=400), headed=st.booleans())
def test_no_bytes_at_all_make_the_reader_fail(data: bytes, *, headed: bool) -> None:
    data = preamble(LITTLE) * headed + data
    assert tried(data) == tried(data, 1)


def test_little_is_kept_of_a_record_that_never_ends() -> None:
    reader = SimpleReader(PLAN, builtin().is_event, sum_of, offset_ns=0)
    reader.feed(preamble(LITTLE) + page(T0))
    for garbage in (b"\0", b"\x01\0\0\0\0\0\0\0", b"\xff", bytes(range(256))):
        reader.feed(garbage * 300_000)
        assert len(reader._partial) <= MAX_RECORD_BYTES


# --- snapshots --------------------------------------------------------------------------------------


def again(reader: SimpleReader) -> SimpleReader:
    """Another reader, restored from the snapshot as it comes back from a file."""
    other = SimpleReader(PLAN, builtin().is_event, sum_of, offset_ns=OFFSET_NS)
    other.restore(json.loads(json.dumps(reader.snapshot())))
    return other


STREAMS = {
    "plain": preamble(LITTLE) + b"".join(PAGES) + state(T0 + 5) + LITTLE.dropped(T0, 9) + page(T0 + 10),
    "damaged": preamble(LITTLE) + page(T0) + b"x" * 40 + b"".join(PAGES) + b"y" * 40 + state(T0) + PAGES[0][:50],
    "appended": preamble(LITTLE) + page(T0) + preamble(LITTLE) + page(T0 + 1),
    "big": built("big", [(20, 40_000_000, "both"), (3, 9 * SECOND_NS, "state")]),
}


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("size", [1, 50])
def test_a_reader_restored_after_every_block_gives_the_same(stream: str, size: int) -> None:
    data = STREAMS[stream]
    reader = SimpleReader(PLAN, builtin().is_event, sum_of, offset_ns=OFFSET_NS)
    batches: list[Batch] = []
    for block in cut(data, size):
        batches += reader.feed(block)
        reader = again(reader)
    batches += reader.finish()
    assert outcome(batches, reader.gaps) == batches_of(data)


# --- without a header -------------------------------------------------------------------------------


def headless(data: bytes, numbers: dict[str, int], shift_ns: int) -> bytes:
    """What simpletrace.stp writes of the same events: their numbers in trace-events-all, times in UTC, NULL written out."""
    writer, names, found = Writer(), {}, []
    for kind, _, record in records_in(data):
        number = int.from_bytes(record[8:16], "little")
        if kind == 0:
            names[number] = record[20:].decode()
        elif number != DROPPED:
            time_ns, process = int.from_bytes(record[16:24], "little"), int.from_bytes(record[28:32], "little")
            event = writer.event(numbers[names[number]], time_ns + shift_ns, process=process)
            found.append(event[:24] + record[24:28] + event[28:] + record[32:])
    return b"".join(found)


def test_records_of_systemtap_are_read_by_their_place_in_trace_events_all(shared: Path) -> None:
    for recording in recordings_in(shared / "recordings"):
        path = shared / "catalogs" / f"{recording.version}.trace-events-all"
        catalogue, declarations = catalogue_from(path.read_text(), str(path))
        numbers = declarations.numbers
        plan = Plan(dict.fromkeys(catalogue.declared(), ()))
        expected = batches_of(recording.data, plan=plan)
        if not expected.rows:
            continue
        data = headless(recording.data, {name: number for number, name in numbers.items()}, OFFSET_NS)
        options: dict[str, Any] = {"plan": plan, "numbers": numbers, "offset_ns": 12345}
        found = batches_of(data, **options)
        assert found.rows == expected.rows
        assert (found.counts, found.total) == (expected.counts, expected.total)
        assert batches_of(data, 1000, **options) == found


def test_every_declaration_of_qemus_own_files_has_a_number(shared: Path) -> None:
    """QEMU's reader takes each line that is neither empty nor a comment for one event, or two of the guest's code."""
    for version in ("4.1.0", "9.2.0", "10.2.0"):
        text = (shared / "catalogs" / f"{version}.trace-events-all").read_text()
        lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        names = [line.split("(")[0].split()[-1] for line in lines]
        twice = {name for name, line in zip(names, lines, strict=True) if "tcg" in line.split("(")[0].split()[:-1]}
        expected = [n for name in names for n in ([f"{name}_trans", f"{name}_exec"] if name in twice else [name])]
        _, declarations = catalogue_from(text, version)
        assert list(declarations.numbers.values()) == expected


def test_disabled_events_count_among_the_numbers() -> None:
    """`simpletrace.py --no-header` does the same; qemu 4.1's file has `disable`d and `tcg` events."""
    text = 'a_one(void) ""\ndisable b_two(int x) "%d"\ntcg c_three(int x) "%d", "%d"\nd_four(void) ""\n'
    _, declarations = catalogue_from(text, "trace-events-all")
    assert declarations.numbers == {0: "a_one", 1: "b_two", 2: "c_three_trans", 3: "c_three_exec", 4: "d_four"}


def test_a_trace_with_a_header_after_one_without_is_refused() -> None:
    with pytest.raises(FormatError, match="a trace with a header begins") as caught:
        batches_of(page(T0) + preamble(LITTLE), numbers={PAGE: "ram_save_page"})
    assert caught.value.offset == len(page(T0))


def test_what_is_neither_with_nor_without_a_header_is_refused() -> None:
    with pytest.raises(FormatError, match=r"neither the header .* nor an event record of simpletrace.stp"):
        batches_of(b"some text that is no trace", numbers={0: "migrate_set_state"})
