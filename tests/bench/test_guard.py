"""A slow way does not come back unseen: what a line, a span, a rule and a start take, in counts that no machine changes.

Each bound is 15 % above what it was when it was set, with Python 3.11; newer ones need fewer calls.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from otelbridge.otlp.encode import encode_spans
from otelbridge.records import Resource
from tests.bench import growing, inputs
from tests.bench.counting import Counts, counted, peak_bytes
from tests.bench.encoding import spans
from tests.bench.growing import Work
from tests.bench.inputs import Input

SHORT, LONG = 20_000, 40_000
CALLS_PER_LINE: dict[Callable[[int], Input], float] = {inputs.page_heavy: 1.25, inputs.span_rich: 7.9, inputs.postcopy: 20.0}
CALLS_PER_SPAN = 201.0
"""With all that the 25 lines take that there are for each span."""
CALLS_PER_RULE = 1_210.0
CALLS_OF_A_START = 129_000
FILE_BYTES_PER_SPAN = 697.0
REQUEST_BYTES_PER_SPAN = 278.0
PEAK_BYTES = 2_015_000
BYTES_PER_OPEN_SPAN = 545.0

WHAT_TO_DO = (
    "Look at what changed: `python -m cProfile -s ncalls -m otelbridge convert FILE --to file:DIR` names what is called, "
    "before and after. If it must take more, raise the bound in tests/bench/test_guard.py to 15 % above the new figure, and "
    "say in the commit what the more is for and what `./dev bench --only page-heavy --only span-rich` says before and after."
)


def check(what: str, got: float, bound: float, counts: Counts | None = None) -> None:
    often = "" if counts is None else "\nCalled most often: " + ", ".join(f"{name} {times:,}" for name, times in counts.python)
    assert got <= bound, f"{what}: {got:,.2f}, and the bound is {bound:,.2f}. {WHAT_TO_DO}{often}"


@pytest.fixture(scope="module", params=CALLS_PER_LINE, ids=lambda make: make.__name__)
def make(request: pytest.FixtureRequest) -> Callable[[int], Input]:
    made: Callable[[int], Input] = request.param
    return made


@cache
def both(make: Callable[[int], Input]) -> tuple[Counts, Counts]:
    """A short log and one twice as long: what one has more than the other is no matter of the start."""
    short, long = (counted(Work((str(make(size).path),))) for size in (SHORT, LONG))
    return short, long


def test_a_line_takes_no_more_calls_than_it_did(make: Callable[[int], Input]) -> None:
    short, long = both(make)
    check(f"calls for a line of {make.__name__}", (long.calls - short.calls) / (LONG - SHORT), CALLS_PER_LINE[make], long)


def test_a_span_takes_no_more_calls_and_no_more_bytes_than_it_did() -> None:
    short, long = both(inputs.span_rich)
    number = long.spans - short.spans
    check("calls for a span", (long.calls - short.calls) / number, CALLS_PER_SPAN, long)
    check("bytes of OTLP/JSON for a span", (long.written - short.written) / number, FILE_BYTES_PER_SPAN)


def test_a_span_takes_no_more_bytes_in_a_request_than_it_did() -> None:
    made = spans(2_048)
    check("bytes of a request for a span", len(encode_spans(Resource(()), made)) / len(made), REQUEST_BYTES_PER_SPAN)


def test_a_start_takes_no_more_calls_than_it_did(tmp_path: Path) -> None:
    """All mappings bound, and a log of 1,000 lines; in a folder of its own, since names beside a log are looked at."""
    counts = counted(growing.lines(tmp_path, 1_000))
    check("calls for the conversion of 1,000 lines", counts.calls, CALLS_OF_A_START, counts)


def test_a_rule_takes_no_more_calls_than_it_did(tmp_path: Path) -> None:
    few, many = (counted(growing.rules(tmp_path, size, number=1_000)) for size in (50, 100))
    check("calls for a rule", (many.calls - few.calls) / 50, CALLS_PER_RULE, many)


def test_a_conversion_holds_no_more_memory_than_it_did() -> None:
    check("bytes held at once", peak_bytes(Work((str(inputs.page_heavy(SHORT).path),))), PEAK_BYTES)


def test_an_open_span_holds_no_more_memory_than_it_did(tmp_path: Path) -> None:
    few, many = (peak_bytes(growing.open_spans(tmp_path, size, number=20_000)) for size in (2_500, 10_000))
    check("bytes held for an open span", (many - few) / 7_500, BYTES_PER_OPEN_SPAN)
