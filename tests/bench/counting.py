"""What a conversion does, in counts that are the same on every machine: calls, bytes of memory, bytes written."""

from __future__ import annotations

import gc
import sys
import tempfile
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from otelbridge.pipeline import Conversion, ConvertOptions, convert
from otelbridge.readers.source import Progress
from tests.bench.growing import Work


class Counts(NamedTuple):
    """What a conversion into files did.

    Attributes:
        calls: Of Python functions and of functions written in C.
        written: Bytes of the file with the spans.
        spans: Spans in it.
        python: The functions of Python that were called most often, with how often.
    """

    calls: int
    written: int
    spans: int
    python: list[tuple[str, int]]


def counted(work: Work) -> Counts:
    """Convert and count. What is loaded once is loaded before."""
    _in_files(work)
    python: Counter[str] = Counter()
    others: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            python[f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name}"] += 1
        elif event == "c_call":
            others[event] += 1

    gc.disable()  # what others have told it to call would be counted too
    try:
        conversion, written = _in_files(work, lambda: sys.setprofile(count))
    finally:
        sys.setprofile(None)
        gc.enable()
    spans = conversion.accounting["spans"]["delivered"]
    return Counts(python.total() + others.total(), written, spans, python.most_common(8))


def peak_bytes(work: Work) -> int:
    """The most memory that a conversion holds at once, of what Python allocates. What is loaded once is loaded before."""
    _in_files(work)
    tracemalloc.start()
    try:
        _in_files(work)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def held_bytes(work: Work) -> int:
    """The most memory that a conversion holds after a block that was read, without what the collector would take away."""
    _in_files(work)
    held = 0

    def look(_done: int, _size: int | None) -> None:
        nonlocal held
        gc.collect()
        held = max(held, tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    try:
        _in_files(work, progress=look)
        return held
    finally:
        tracemalloc.stop()


def _in_files(
    work: Work, just_before: Callable[[], None] = lambda: None, progress: Progress = lambda _done, _size: None
) -> tuple[Conversion, int]:
    """The conversion, and the size of the file with its spans."""
    with tempfile.TemporaryDirectory(prefix="otelbridge-count-") as out:
        options = ConvertOptions(work.files, catalogue=work.catalogue, mappings=work.mappings, to=(f"file:{out}",))
        just_before()
        conversion = convert(options, env={}, progress=progress)
        sys.setprofile(None)
        return conversion, Path(out, "traces.jsonl").stat().st_size
