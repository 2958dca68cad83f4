from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from otelbridge.records import FinishedSpan, SpanEvent
from otelbridge.view.picture import Picture
from otelbridge.view.waterfall import draw
from tests.view.builders import (
    DST,
    HOUR_LATER_NS,
    MS,
    SRC,
    accounting,
    destination_spans,
    fault_points,
    picture_of,
    postcopy_spans,
    resource,
    root,
    section,
    shown,
    source_spans,
    span,
    state,
    trace_id,
    two_hosts,
)

WIDTHS = [40, 60, 80, 120, 200]


def line_with(text: str, words: str) -> str:
    return next(line for line in text.splitlines() if words in line)


def without_stamps(spans: list[FinishedSpan]) -> list[FinishedSpan]:
    """The same spans as from a log without stamps: a thousand for each line."""
    lines = sorted({time for one in spans for time in (one.start_ns, one.end_ns)})
    number = {time: 1000 * (place + 12) for place, time in enumerate(lines)}
    return [
        one._replace(
            start_ns=number[one.start_ns],
            end_ns=number[one.end_ns],
            attributes=(*one.attributes, ("otelbridge.clock", "none")),
            events=(),
        )
        for one in spans
    ]


def nasty() -> Picture:
    """A log that tries to steer the terminal in every text that it can put into a span."""
    evil = "\x1b[2J\x9b31m\u202e[bold red]大[/bold red]\r\n\udc80" * 20
    picture = Picture()
    owner = resource(evil)
    picture.spans(
        owner,
        [
            section(1, 50, evil, error=evil),
            span("tls.handshake", 1, 2, {"server.address": evil, "qemu.migration.channel": evil}),
            span("postcopy.fault", 3, 4, {"qemu.migration.ram_block": evil}),
            span(evil, 5, 6),
            state(evil, 0, 80),
            span("migration.downtime", 0, 80, {"qemu.migration.downtime.basis": evil}),
            root(100, state=evil, error=evil, events=[SpanEvent(1, evil)], attributes={"qemu.version": evil}),
        ],
    )
    return picture


def test_one_look_answers_why_it_took_so_long_and_what_stopped_the_guest() -> None:
    text = shown(two_hosts())
    assert text.startswith("migration completed after 40.2 s, guest stopped for 2.04 s, precopy\n")
    assert "src.log, QEMU 6.1.0 - 7.2.0" in line_with(text, "  source")
    assert "dst.log" in line_with(text, "  destination")
    assert "2026-03-01 03:00:00.000 UTC" in text
    assert "12.1 GiB" in line_with(text, "transferred")
    filled = text[text.index("what filled it") :]
    assert re.search(r"src savevm.section 0000:00:03.0/vfio-gpu +1.61 s +79%", filled)
    assert re.search(r"in no span of this host +116 ms +6%", filled)
    assert re.search(r"src ram +21 +37.1 s +1.84 s", text)
    assert "passes over memory: 20" in text
    assert "… 8 more" in text
    assert "main to host-b" in text
    assert re.search(r"channel 0 +38.3 s +1,200 packets", text)
    assert "migration_throttle x3" in text
    assert "1 multifd.recv. They are drawn" in text


def test_the_destination_hangs_below_the_source_with_its_states_below_it() -> None:
    tree = shown(two_hosts()).split("\n\n")[1].splitlines()
    assert [re.split(r"  ", line)[0] for line in tree] == [
        "source",
        "├─ setup",
        "├─ active",
        "├─ device",
        "├─ downtime",
        "└─ destination",
        "",
        "",
    ]
    assert [line.split()[1] for line in tree[-2:]] == ["setup", "active"]


def test_a_bar_stands_where_its_time_is() -> None:
    row = line_with(shown(two_hosts()), "├─ device")
    bars = row[48:]
    assert bars.strip() == "██"
    assert bars.index("█") == 30  # 38.12 s of 40.16 s, in 32 cells


def test_the_accounting_says_where_everything_went() -> None:
    text = shown(two_hosts())
    assert "2 inputs, 4,812 lines, 215 trace events" in text
    assert "80 spans, 41 points; 2 more only counted" in text
    assert "nothing was lost" in text


def test_what_was_not_delivered_or_lost_is_said() -> None:
    document = accounting(
        spans={"delivered": 70, "spooled": 8, "rejected": 2, "not_kept": 0},
        loss=[f"src.log: {n} lines are cut" for n in range(12)],
    )
    text = shown(two_hosts(), document=document)
    assert "70 of 80 spans (8 spooled, 2 rejected)" in text
    assert "src.log: 9 lines are cut" in text
    assert "… 2 more" in text
    assert "nothing was lost" not in text


def test_notes_are_shown_whole() -> None:
    note = "the role of dst.log was guessed from what its threads do; name the files with --source and --destination"
    assert note in re.sub(r"\s+", " ", shown(two_hosts(), width=60, notes=[note]))


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["two hosts", "nasty", "ordered", "postcopy", "many", "empty"])
def test_no_line_is_wider_than_the_console(kind: str, width: int, terminal: bool) -> None:
    picture = {
        "two hosts": two_hosts,
        "nasty": nasty,
        "ordered": lambda: picture_of(*without_stamps(source_spans())),
        "postcopy": lambda: picture_of(*postcopy_spans()),
        "many": lambda: picture_of(*(root(100 * n, trace=n) for n in range(1, 150))),
        "empty": Picture,
    }[kind]()
    text = shown(picture, width=width, terminal=terminal, notes=["word " * 50 + "x" * 300])
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert max(cell_len(line) for line in plain.split("\n")) <= width


def test_plain_text_has_no_escape_sequences_and_a_terminal_has_colours() -> None:
    assert "\x1b" not in shown(two_hosts())
    assert "\x1b[" in shown(two_hosts(), terminal=True)


def test_no_color_turns_all_styles_off_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    file = io.StringIO()
    draw(two_hosts(), accounting(), (), Console(file=file, force_terminal=True, width=80), now_ns=HOUR_LATER_NS)
    assert "\x1b" not in file.getvalue()


def test_a_pipe_without_columns_gets_100_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    file = io.StringIO()
    draw(two_hosts(), accounting(), (), Console(file=file), now_ns=HOUR_LATER_NS)
    assert max(map(cell_len, file.getvalue().splitlines())) == 100


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_in_a_log_steers_the_terminal(terminal: bool) -> None:
    text = shown(nasty(), width=200, terminal=terminal, notes=["\x1b]0;title\x07"], document=accounting(loss=["\x1b[2J"]))
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert not [c for c in plain if c != "\n" and (ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or c in "\u202e\udc80")]
    assert "[bold red]大[/bold red]" in plain
    assert "\\x1b]0;title\\x07" in plain


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_encoding_without_blocks_gets_ascii(encoding: str) -> None:
    picture = two_hosts()
    picture.spans(SRC, [section(1, 39_000, "大", error="größer")])
    text = shown(picture, file=io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True))
    assert "|- active" in text
    assert "###" in text
    assert "\\u5927" in text


def test_a_log_without_stamps_is_shown_as_an_order_and_never_as_durations() -> None:
    text = shown(picture_of(*without_stamps(source_spans())), width=120)
    assert "The log has no time stamps" in text
    assert "-msg timestamp=on" in text
    assert "--assume-start" in text
    assert re.search(r"├─ setup +line 12 – \d+ ", text)  # noqa: RUF001
    before_ids = text[: text.index("accounting")]
    assert not re.search(r"\d (ns|us|ms|s|min)\b", before_ids)
    assert "1970" not in before_ids


def test_lines_of_two_files_without_stamps_are_not_compared() -> None:
    picture = picture_of(*without_stamps(source_spans()))
    stopped = next(one for one in without_stamps(source_spans()) if one.name == "migration.downtime")
    (loaded,) = without_stamps([section(0, 1, "gpu", kind_of="loadvm.section")])
    same_lines = loaded._replace(start_ns=stopped.start_ns, end_ns=stopped.end_ns)
    picture.spans(DST, [same_lines, *without_stamps(destination_spans())])
    filled = shown(picture, width=120).split("what filled it")[1].split("\n\n")[0]
    assert "src savevm.section" in filled
    assert "dst" not in filled


def test_assumed_times_are_said_to_be_assumed() -> None:
    text = shown(picture_of(root(100, attributes={"otelbridge.clock": "assumed"})))
    assert "The times are assumed" in text
    assert "assumed" not in shown(picture_of(root(100)))


def test_a_failed_migration_says_why_and_when() -> None:
    spans = [
        span("tls.handshake", 1, 30, {"qemu.migration.channel": "main"}, error="certificate expired"),
        state("setup", 0, 40),
        root(40, state="failed", error="TLS handshake failed: certificate expired"),
    ]
    text = shown(picture_of(*spans))
    assert text.startswith("migration failed after 40 ms, precopy\n")
    assert "errors: 2" in text
    assert "+30 ms  tls.handshake: certificate expired" in text
    assert "+40 ms  migration: TLS handshake failed: certificate expired" in text


def test_of_many_errors_ten_are_shown_and_all_are_counted() -> None:
    spans = [section(n, n + 1, f"device {n}", n, error="section returned -5") for n in range(70)]
    text = shown(picture_of(*spans, root(100)))
    errors = text[text.index("errors: 70") :].split("\n\n")[0].splitlines()
    assert len(errors) == 12
    assert errors[-1].strip() == "… 60 more"


def test_a_migration_that_was_cut_off_has_no_known_end() -> None:
    mark = {"otelbridge.incomplete": True}
    text = shown(picture_of(state("active", 0, 100, attributes=mark), root(100, state="active", attributes=mark)))
    assert text.startswith("migration without a known end after 100 ms")
    assert re.search(r"└─ active \(no end seen\) +> 100 ms", text)


def test_several_migrations_are_listed_before_they_are_drawn() -> None:
    text = shown(picture_of(root(100), root(40, trace=2, start_ms=10, state="failed", error="no route")))
    assert text.startswith("2 migrations\n")
    assert len(re.findall(r"UTC  migration (?:completed|failed) after", text)) == 2
    assert text.count("\nmigration ") == 2
    assert all(trace_id(number).hex() in text for number in (1, 2))


def test_of_many_migrations_the_failed_and_the_longest_are_drawn() -> None:
    spans = [root(1_000 + n, trace=n) for n in range(1, 30)]
    text = shown(picture_of(*spans, root(1, trace=40, state="failed", error="no route")))
    drawn = text[text.index("Drawn below") :]
    assert re.findall(r"^migration (\w+) after ([\d.]+ m?s)", drawn, re.MULTILINE).count(("failed", "1 ms")) == 1
    assert drawn.count("\nmigration ") == 5
    assert all(trace_id(number).hex() in text for number in (1, 29, 40))


def test_without_a_migration_it_says_what_was_seen_and_which_event_is_missing() -> None:
    document = accounting(events={"savevm_section_start": 207, "savevm_section_end": 206})
    text = shown(picture_of(span("savevm.section", 0, 1, trace=5, parent=b"")), document=document)
    assert text.startswith("no migration found: 1 span")
    assert re.search(r"207 +savevm_section_start", text)
    assert "migrate_set_state" in text
    assert "1  span savevm.section" in text


def test_a_destination_alone_is_a_migration_too() -> None:
    picture = Picture()
    picture.spans(DST, destination_spans())
    text = shown(picture)
    assert text.startswith("migration completed after 40.1 s")
    assert re.search(r"^destination +40.1 s", text, re.MULTILINE)


def test_postcopy_faults_are_counted_by_the_histogram_and_the_slowest_shown() -> None:
    picture = picture_of(*postcopy_spans())
    picture.points(SRC, fault_points(12_345, 5.3))
    text = shown(picture, width=120)
    assert "postcopy faults: 100 kept; 12,345 in all, guest threads blocked for 5.3 s in total" in text
    assert re.search(r"pc.ram 0x7f0000001000 +10 ms", text)
    assert re.search(r"postcopy.listen +1 +3.1 s", text)


def test_a_counter_of_two_migrations_is_not_claimed_by_either() -> None:
    picture = picture_of(*postcopy_spans(), root(10_000, trace=2))
    picture.points(SRC, fault_points(12_345, 5.3))
    assert "12,345" not in shown(picture, width=120)


@pytest.mark.parametrize(("age_ms", "expected"), [(60_000, False), (3_000_000, True)])
def test_trace_ids_come_last_with_a_hint_where_a_search_would_not_find_them(age_ms: int, expected: bool) -> None:
    end_ms = (HOUR_LATER_NS - root(0).start_ns) // MS - age_ms
    text = shown(picture_of(root(end_ms)))
    tail: Any = text[text.rindex("trace id\n") :]
    assert trace_id(1).hex() in tail
    assert ("ingestion_time_range_slack" in tail) is expected


@pytest.mark.parametrize(
    ("offset", "words"),
    [
        (
            (2_999_973_000, 3_000_146_000, 3_000_059_600),
            "is 3.000060 s ahead of the source's, give or take 86.5 us; its times are shown as much earlier",
        ),
        (
            (-3_000_027_000, -2_999_854_000, -2_999_940_600),
            "is 2.999941 s behind the source's, give or take 86.5 us; its times are shown as much later",
        ),
        (
            (None, -2_999_940_000, -2_999_940_000),
            "is at least 2.999940 s behind the source's; its times are shown as much later",
        ),
        ((None, 3_000_060_000, 0), "may be up to 3 s ahead of the source's"),
    ],
)
def test_a_clock_that_differs_is_told_with_how_far_and_how_certain(offset: tuple[int | None, ...], words: str) -> None:
    names = (f"otelbridge.clock.offset_{name}" for name in ("min", "max", "applied"))
    given = {name: value for name, value in zip(names, offset, strict=True) if value is not None}
    picture = Picture()
    picture.spans(SRC, source_spans())
    picture.spans(DST, [root(40_150, "destination", start_ms=5, attributes=given)])
    text = " ".join(shown(picture, width=200).split())
    assert f"clocks dst.log: its clock {words}" in text


def test_clocks_that_agree_are_not_spoken_of() -> None:
    given = {"otelbridge.clock.offset_max": 60_000, "otelbridge.clock.offset_applied": 0}
    picture = Picture()
    picture.spans(SRC, source_spans())
    picture.spans(DST, [root(40_150, "destination", start_ms=5, attributes=given)])
    assert "clock" not in shown(picture)
