"""What comes out of a log does not depend on how it was cut, nor on which way through the reader its lines took."""

from __future__ import annotations

import gzip
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from otelbridge.catalogue import builtin
from otelbridge.readers import log
from otelbridge.readers.log import LogReader
from otelbridge.records import SECOND_NS, Batch, Plan, Row

PLAN = Plan(
    rows={"migrate_set_state": ("new_state",), "savevm_section_start": (), "savevm_section_end": (), "savevm_state_setup": ()},
    sums={"migration_rate_limit_pre": ("ms",)},
)
COUNTED = ("ram_save_page", "migration_rate_limit_post", "vmstate_downtime_save", "savevm_state_iterate")


def decode_sums(event: str, raw: bytes) -> tuple[int] | None:
    """`5 ms`, the text of the one event that is summed."""
    assert event == "migration_rate_limit_pre"
    found = re.fullmatch(rb"(\d+) ms", raw)
    return (int(found[1]),) if found else None


class LineByLine(LogReader):
    """The reader without its block scanner: the way that defines what is right."""

    def _chunk(self, data: bytes, start: int, end: int) -> None:
        self._plain(data, start, end)


class Outcome(NamedTuple):
    """All that a reader gave, window by window."""

    windows: list[tuple[int | None, list[Row], dict[str, int], dict[tuple[str, str], int], dict[str, int], int]]
    last_ns: int | None
    gaps: list[str]


def whole(data: bytes) -> Iterator[bytes]:
    yield data


def bytewise(data: bytes) -> Iterator[bytes]:
    return (data[i : i + 1] for i in range(len(data)))


def blockwise(size: int) -> Callable[[bytes], Iterator[bytes]]:
    return lambda data: (data[i : i + size] for i in range(0, len(data), size))


def outcome(batches: Iterable[Batch], gaps: list[str]) -> Outcome:
    windows: dict[int | None, tuple[list[Row], Counter[str], Counter[tuple[str, str]], Counter[str], list[int]]] = {}
    last_ns, before = None, -1
    for batch in batches:
        at = -1 if batch.window_ns is None else batch.window_ns
        assert at >= before, "a window went back"
        before = at
        rows, counts, sums, units, total = windows.setdefault(batch.window_ns, ([], Counter(), Counter(), Counter(), [0]))
        rows += batch.rows
        counts.update(batch.counts)
        sums.update(batch.sums)
        units.update(batch.units)
        total[0] += batch.total
        last_ns = batch.last_ns
    plain = [
        (at, rows, dict(+counts), dict(sums), dict(+units), total[0])
        for at, (rows, counts, sums, units, total) in windows.items()
    ]
    return Outcome(plain, last_ns, gaps)


def read(
    data: bytes, cut: Callable[[bytes], Iterator[bytes]] = whole, kind: type[LogReader] = LogReader, **options: Any
) -> Outcome:
    reader = kind(PLAN, builtin().is_event, decode_sums, **options)
    batches = [batch for block in cut(data) for batch in reader.feed(block)]
    batches += reader.finish()
    return outcome(batches, reader.gaps)


def accounted(found: Outcome) -> int:
    """Every unit in exactly one place."""
    return sum(
        sum(row.unit for row in rows) + sum(counts.values()) + sum(units.values())
        for _, rows, counts, _, units, _ in found.windows
    )


def total(found: Outcome) -> int:
    return sum(window[-1] for window in found.windows)


# --- logs made up -----------------------------------------------------------------------------------

T0 = 1795407950


def thread_stamp(time_us: int, thread: int) -> bytes:
    return b"%d@%d.%06d:" % (thread, *divmod(time_us, 1_000_000))


def iso_stamp(time_us: int, _thread: int = 0) -> bytes:
    second, micros = divmod(time_us, 1_000_000)
    fraction = f".{micros:06}" if micros else ""
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}{fraction}Z ".encode()


TEXTS = (
    b"ram_save_page pc.ram: offset: 0x1000 host: 0x7f00",
    b"ram_save_page pc.ram: offset: 0x2000 host: 0x7f00",
    b"ram_save_page /rom@etc/acpi/tables: offset: 0x0 host: 0x7f00",
    b"ram_save_page",
    b"migration_rate_limit_pre 5 ms",
    b"migration_rate_limit_pre ms",
    b"migration_rate_limit_post urgent: 0",
    b"savevm_state_iterate ",
    b"savevm_state_iterate",
    b"migrate_set_state new state active",
    b"savevm_section_start ram, section_id 2",
    b"savevm_section_end ram, section_id 2 -> 0",
    b"savevm_state_setup ",
    b"savevm_state_setup",
    b"migrate_set_state new state x:ram_save_page y",
    b"migrate_set_state new state Z ram_save_page y",
    b"vmstate_downtime_save at 2026-11-23T04:25:50Z ok",
    b"migrate_set_state @1795407951. and @1795407950.",
    b"migrate_set_state @1795407950 and @1795407960.000001: x",
    b"ram_save_page @179540795.000001:ram_save_page ",
    b"handle_other_thing not an event",
    b"qemu-system-x86_64: an error message",
    b"SMM: enter",
)
FOREIGN = (
    b"",
    b"EAX=00000000 EBX=00000000",
    b"qemu-system-x86_64: terminating on signal 15",
    b"char device redirected to /dev/pts/1 (label serial0)",
    b"12@345",
    b"1795407950.000001:ram_save_page x",
    b"x@1795407950.000001:",
    b"tail of a line with :ram_save_page and more",
    b"ram_save_page pc.ram: unstamped",
    b"migrate_set_state new state setup",
    b"savevm_state_setup",
    b"2026-11-23T04:25:51.000001Z qemu-system-x86_64: error",
    b"2026-13-23T04:25:51.000001Z ram_save_page x",
    b"1969-01-01T00:00:00Z migrate_set_state new state x",
    b"\0\0\0\0",
    b"head\0\0tail",
)


@pytest.fixture(autouse=True, scope="module")
def short_logs_are_read_like_long_ones() -> Iterator[None]:
    """What long logs are read by starts at once, so that logs of some lines try it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "_WARM_LINES", 64)
        patch.setattr(log, "_SHORT_BYTES", 0)
        patch.setattr(log, "_DETOURS", 1)
        yield


class Piece(NamedTuple):
    """Some lines of one kind: how often, how far each is from the one before, its text, and what is odd about it."""

    repeat: int
    step_us: int
    thread: int
    text: bytes
    oddity: str


def built(stamp: Callable[[int, int], bytes], pieces: list[Piece], *, end: bytes) -> bytes:
    time_us, lines = T0 * 1_000_000, []
    for piece in pieces:
        for _ in range(piece.repeat):
            time_us = max(1_000_000, time_us + piece.step_us)
            head = stamp(time_us, piece.thread)
            line = {
                "plain": head + piece.text,
                "unstamped": piece.text,
                "other form": (iso_stamp if stamp is thread_stamp else thread_stamp)(time_us, piece.thread) + piece.text,
                "stamped twice": head + head + piece.text,
                "run together": head + piece.text + stamp(time_us + 3, 25) + b"ram_save_page pc.ram: y",
                "after text": b"error: " + head + piece.text,
                "after a hole": b"\0\0\0" + head + piece.text,
                "with a hole": head + piece.text + b"\0\0\0" + head + piece.text,
                "carriage return": head + piece.text + b"\r",
            }[piece.oddity]
            lines.append(line)
    return b"\n".join(lines) + end


ODDITIES = (
    "unstamped", "other form", "stamped twice", "run together", "after text", "after a hole", "with a hole", "carriage return",
)  # fmt: skip
STEPS_S = [0, 1e-6, 7e-6, 3e-4, 0.02, 0.4, 1, 2.5, 9, 10, 25, 4000, -1e-6, -3e-4, -0.9, -1.5, -9.5, -30]
STEPS = st.sampled_from([int(step_s * 1e6) for step_s in STEPS_S])
EVENTS = st.builds(
    Piece,
    st.sampled_from([1, 1, 2, 5, 40, 90]),
    STEPS,
    st.sampled_from([7, 19625, 19630, 9999999999]),
    st.sampled_from(TEXTS),
    st.just("plain"),
)
ODD = st.builds(Piece, st.just(1), STEPS, st.just(19625), st.sampled_from(TEXTS), st.sampled_from(ODDITIES))
OTHERS = st.builds(Piece, st.just(1), st.just(0), st.just(0), st.sampled_from(FOREIGN), st.just("unstamped"))
BEGIN = Piece(1, 0, 19625, b"migrate_set_state new state setup", "plain")
HOT = [Piece(90, 10, 19625, TEXTS[0], "plain"), Piece(90, 10, 19625, b"savevm_state_iterate ", "plain")]


@pytest.mark.parametrize("stamp", [thread_stamp, iso_stamp])
@settings(max_examples=400, deadline=None)
@given(
    warm=st.integers(0, 2),
    pieces=st.lists(st.one_of(EVENTS, EVENTS, ODD, OTHERS), max_size=12),
    end=st.sampled_from([b"\n", b"\n", b""]),
    size=st.sampled_from([13, 100, 1000, 4096, 1 << 16]),
)
@example(warm=2, pieces=[], end=b"", size=13)
@example(
    warm=1,
    pieces=[
        Piece(1, 10_000_000, 7, b"ram_save_page pc.ram: offset: 0x1000 host: 0x7f00", "plain"),
        Piece(1, 0, 0, b"2026-13-23T04:25:51.000001Z ram_save_page x", "unstamped"),
    ],
    end=b"\n",
    size=13,
)
def test_every_way_to_cut_a_log_and_both_ways_to_read_it_give_the_same(
    stamp: Callable[[int, int], bytes], *, warm: int, pieces: list[Piece], end: bytes, size: int
) -> None:
    """Lines of several threads and forms, foreign lines, holes, time that jumps; the expected is read line by line."""
    data = built(stamp, [BEGIN, *HOT[:warm], *pieces], end=end)
    expected = read(data, kind=LineByLine)
    assert accounted(expected) == total(expected) == data.count(b"\n") + (not data.endswith(b"\n"))
    assert read(data) == expected
    assert read(data, blockwise(size)) == expected
    if len(data) < 10_000:
        assert read(data, bytewise) == expected


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300) | st.text("0123456789@.:-TZ abcmigrate_set_state\n\r\0", max_size=200).map(str.encode))
def test_no_bytes_at_all_make_the_reader_fail_or_lose_a_line(data: bytes) -> None:
    found = read(data, assume_start_ns=T0 * SECOND_NS)
    assert accounted(found) == total(found) == data.count(b"\n") + bool(data[data.rfind(b"\n") + 1 :])
    assert read(data, bytewise, assume_start_ns=T0 * SECOND_NS) == found


def random_log(chance: random.Random) -> bytes:
    """A log of some pieces: mostly one event again and again, as in a real one, and seldom anything odd."""
    stamp, thread = chance.choice((thread_stamp, iso_stamp)), chance.choice((7, 19625, 9999999999))
    pieces = [BEGIN, *HOT[: chance.randrange(3)]]
    for _ in range(chance.randrange(7)):
        step_us, text = int(chance.choice(STEPS_S) * 1e6), chance.choice(TEXTS)
        kind = chance.random()
        if kind < 0.7:
            pieces.append(Piece(chance.choice((1, 1, 2, 5, 40, 90)), step_us, thread, text, "plain"))
        elif kind < 0.8:
            pieces.append(Piece(1, step_us, 19630, text, "plain"))
        elif kind < 0.9:
            pieces.append(Piece(1, step_us, thread, text, chance.choice(ODDITIES)))
        else:
            pieces.append(Piece(1, 0, 0, chance.choice(FOREIGN), "unstamped"))
    return built(stamp, pieces, end=chance.choice((b"\n", b"\n", b"")))


@pytest.mark.parametrize("seed", range(10))
def test_ten_thousand_logs_give_the_same_by_the_block_and_line_by_line(seed: int) -> None:
    """The same logs every time, a tenth of them from each seed."""
    chance = random.Random(seed)  # noqa: S311 - logs, not secrets
    for number in range(1000):
        data, size = random_log(chance), chance.choice((100, 1000, 4096, 1 << 16))
        assert read(data, blockwise(size)) == read(data, kind=LineByLine), f"seed {seed}, log {number}: {data!r}"


@pytest.mark.parametrize("stamp", [thread_stamp, iso_stamp])
def test_a_torn_pair_of_lines_does_not_pass_for_two_whole_ones(stamp: Callable[[int, int], bytes]) -> None:
    """One line holds two events, the next none: the number of stamps is right, the lines are not."""
    hot = [stamp(T0 * 1_000_000 + i, 19625) + TEXTS[0] for i in range(200)]
    torn = [stamp(T0 * 1_000_000 + 300, 19625) + b"ram_save_page pc.r" + hot[0], b"am: offset: 0x1000 host: 0x7f00"]
    data = b"\n".join([*hot, *torn, *hot]) + b"\n"
    reader = LogReader(PLAN, builtin().is_event, decode_sums)
    batches = reader.feed(b"\n".join(hot) + b"\n") + reader.feed(b"\n".join([*hot, *torn, *hot]) + b"\n")
    units: Counter[str] = Counter()
    for batch in batches:
        units.update(batch.units)
    assert +units == {"torn": 1, "not_trace": 1}
    assert read(data) == read(data, kind=LineByLine)


def test_an_event_in_the_text_of_another_does_not_make_up_for_one_without_its_blank() -> None:
    hot = [iso_stamp(T0 * 1_000_000 + i) + HOT[i % 2].text for i in range(1, 200)]
    odd = [
        iso_stamp(T0 * 1_000_000 + 300) + text for text in (b"savevm_state_iterate", b"migrate_set_state a Z ram_save_page b")
    ]
    reader = LogReader(PLAN, builtin().is_event, decode_sums)
    found = outcome([*reader.feed(b"\n".join(hot) + b"\n"), *reader.feed(b"\n".join(hot + odd) + b"\n")], [])
    assert found.windows[0][2] == {"ram_save_page": 2 * 99, "savevm_state_iterate": 2 * 100 + 1}


def test_more_names_than_are_remembered_do_no_harm() -> None:
    lines = (thread_stamp(T0 * 1_000_000 + i, 19625) + b"no_event_%d x" % i for i in range(220_000))
    data = thread_stamp(T0 * 1_000_000, 1) + b"migrate_set_state new state setup\n" + b"\n".join(lines) + b"\n"
    found = read(data)
    assert accounted(found) == total(found) == 220_001
    assert sum(window[4].get("unmapped", 0) for window in found.windows) == 220_000


# --- real logs --------------------------------------------------------------------------------------

SIMPLE = re.compile(rb"(?:(\d+)@(\d+)\.(\d{6}):|(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{6}))?Z )([a-z_]\w*)(?: (.*))?")


def simply(data: bytes) -> tuple[list[Row], Counter[str]]:
    """Rows and counts of a log whose events all have a stamp, each line by itself."""
    rows, counts = [], Counter[str]()
    for line in data.split(b"\n")[:-1]:
        found = SIMPLE.fullmatch(line)
        if found is None or not builtin().is_event(found[6].decode()):
            continue
        name = found[6].decode()
        if name not in PLAN.rows:
            counts[name] += 1
            continue
        if found[1]:
            time_ns, thread = int(found[2] + found[3]) * 1000, int(found[1])
        else:
            moment = datetime.fromisoformat(found[4].decode() + "+00:00")
            time_ns, thread = int(moment.timestamp()) * SECOND_NS + int(found[5] or b"0") * 1000, None
        rows.append(Row(time_ns, thread, name, found[7] or b""))
    return rows, counts


def real_logs(folder: Path) -> list[Path]:
    return sorted(
        p for p in folder.glob("*/*/*.log*") if "syslog" not in str(p) and "nots" not in str(p) and "colo" not in str(p)
    )


def content(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def check_real(paths: list[Path]) -> None:
    assert paths
    for path in paths:
        data = content(path)
        found = read(data, blockwise(1 << 16))
        assert accounted(found) == total(found) == data.count(b"\n"), path
        rows, counts = simply(data)
        assert [row for window in found.windows for row in window[1]] == rows, path
        together: Counter[str] = Counter()
        for window in found.windows:
            together.update(window[2])
        assert together == counts, path
        assert read(data) == found == read(data, kind=LineByLine), path


def test_real_logs_are_read_as_a_simple_parser_reads_them(recordings: Path) -> None:
    check_real(real_logs(recordings))


def test_all_real_logs_are_read_as_a_simple_parser_reads_them(shared_recordings: Path) -> None:
    check_real(real_logs(shared_recordings))


def test_logs_of_every_kind_give_the_same_by_the_block_and_line_by_line(shared_recordings: Path) -> None:
    """Those without stamps too, and of a standby that goes on and on."""
    paths = sorted(path for path in shared_recordings.glob("*/*/*.log*") if "syslog" not in str(path))
    assert paths
    for path in paths:
        data = content(path)
        expected = read(data, kind=LineByLine, assume_start_ns=T0 * SECOND_NS)
        assert read(data, blockwise(1 << 16), assume_start_ns=T0 * SECOND_NS) == expected, path


def test_a_real_log_byte_by_byte(recordings: Path) -> None:
    data = content(recordings / "debian-7.2" / "cancelled" / "src.log")
    assert read(data, bytewise) == read(data)
