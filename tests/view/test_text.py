from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from otelbridge.view.cells import crop, padded, wrapped
from otelbridge.view.text import bytes_text, clean, count_text, duration_text, time_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0000:00:03.0/virtio-net", "0000:00:03.0/virtio-net"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\r\tc", "a\\x0ab\\x0d\\x09c"),
        ("\x9b2J", "\\x9b2J"),
        ("ab\u202egnp", "ab\\u202egnp"),
        ("lone \udc80", "lone \\udc80"),
        ("\u2028", "\\u2028"),
        ("\U000e0041", "\\U000e0041"),
        ("Größe 大", "Größe 大"),
        ("[bold]x[/bold]", "[bold]x[/bold]"),
    ],
)
def test_what_a_terminal_would_act_on_is_written_out(text: str, expected: str) -> None:
    assert clean(text) == expected


@given(st.text(st.characters(codec=None)))
def test_cleaned_text_holds_no_control_format_or_surrogate_character(text: str) -> None:
    assert not {unicodedata.category(c) for c in clean(text)} & {"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("nanoseconds", "expected"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (45_000, "45 us"),
        (310_000_000, "310 ms"),
        (999_999_999, "1 s"),
        (2_040_000_000, "2.04 s"),
        (59_999_999_999, "1 min 00 s"),
        (72_000_000_000, "1 min 12 s"),
        (3_599_600_000_000, "1 h 00 min"),
        (7_500_000_000_000, "2 h 05 min"),
        (-2_040_000_000, "-2.04 s"),
    ],
)
def test_durations_have_three_digits_and_a_unit(nanoseconds: int, expected: str) -> None:
    assert duration_text(nanoseconds) == expected


def test_counts_bytes_and_times() -> None:
    assert [count_text(1, "span"), count_text(4812, "span"), count_text(12345)] == ["1 span", "4,812 spans", "12,345"]
    assert [bytes_text(512), bytes_text(1536), bytes_text(3 << 30)] == ["512 B", "1.5 KiB", "3 GiB"]
    assert time_text(1_772_334_012_345_678_901) == "2026-03-01 03:00:12.345 UTC"


def test_a_time_beyond_the_calendar_is_shown_as_a_number() -> None:
    assert time_text(10**30) == f"{10**30} ns since 1970"


@given(st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"])), st.integers(4, 40))
def test_a_cropped_or_wrapped_text_fits(text: str, width: int) -> None:
    assert cell_len(crop(text, width)) <= width
    assert cell_len(padded(text, width)) == width
    lines = wrapped(text, width, 3)
    assert len(lines) <= 3
    assert all(cell_len(line) <= width for line in lines)


def test_wrapping_keeps_every_word_where_there_is_room() -> None:
    text = "the role of dst.log was guessed from what its threads do"
    assert " ".join(wrapped(text, 20, 10)) == text
    assert wrapped(text, 20, 2)[-1].endswith("…")
