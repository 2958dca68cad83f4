"""The cost of a conversion grows no faster than what it is given, along every axis on which it can be large.

Counted are calls and memory, which depend on no machine; the same in seconds shows `python -m tests.bench.growth`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.bench import growing
from tests.bench.counting import counted, held_bytes, peak_bytes
from tests.bench.growing import Work

Make = Callable[[Path, int], Work]
AXES: dict[str, tuple[Make, int]] = {
    "lines": (growing.lines, 20_000),
    "files": (growing.files, 2),
    "rules": (partial(growing.rules, number=1_000), 25),
    "lines of many spans": (lambda folder, size: growing.open_spans(folder, 10, number=size), 1_000),
}
AS_MUCH = 1.15
"""How much more is still the same: chunks and windows end where they do."""
BYTES_PER_FILE = 25_000
"""For joining and for the accounting."""


@pytest.mark.parametrize("axis", AXES)
def test_twice_the_work_takes_no_more_than_twice_the_calls(tmp_path: Path, axis: str) -> None:
    """From 2n to 4n no more than twice the calls are added that are from n to 2n; so a start does not count."""
    make, size = AXES[axis]
    one, two, four = (counted(make(tmp_path, times * size)).calls for times in (1, 2, 4))
    assert four - two <= 2 * (two - one) * AS_MUCH, (
        f"{axis}: {one:,}, {two:,}, {four:,} calls at {size:,} and 2 and 4 times that"
    )


def test_how_many_spans_are_open_does_not_change_what_a_line_takes(tmp_path: Path) -> None:
    few, many = (counted(growing.open_spans(tmp_path, size, number=5_000)).calls for size in (1, 2_000))
    assert many <= few * AS_MUCH


def test_each_file_adds_no_more_memory_than_those_before(tmp_path: Path) -> None:
    one, two, four = (held_bytes(growing.files(tmp_path, size)) for size in (8, 16, 32))
    assert four - two <= 2 * (two - one) * AS_MUCH, f"{one:,}, {two:,}, {four:,} bytes with 8, 16 and 32 files"
    assert (four - one) / 24 <= BYTES_PER_FILE


def test_memory_does_not_grow_with_the_length_of_a_log(tmp_path: Path) -> None:
    """What is remembered of texts and endings is full after some 300,000 lines."""
    short, long = (peak_bytes(growing.lines(tmp_path, size)) for size in (400_000, 800_000))
    assert long <= short * AS_MUCH
