"""One stream from several files: `-d tid -D name-%d.log` makes QEMU write a file for each thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import groupby

from otelbridge.records import Batch, Row


def merged(parts: Iterable[Iterator[Batch]]) -> Iterator[Batch]:
    """The batches of several files as those of one: a batch for each event-time window, its rows in the order of time.

    Each part's windows must go forward, as a reader's do. One window of all parts is held in memory. Parts without stamps
    have no common order; they come one after another.
    """
    in_order = merge(*parts, key=_window)
    for window_ns, batches in groupby(in_order, key=_window):
        if window_ns < 0:
            yield from batches
        else:
            yield _joined(list(batches))


def _window(batch: Batch) -> int:
    return -1 if batch.window_ns is None else batch.window_ns


def _joined(batches: list[Batch]) -> Batch:
    rows: list[Row] = [row for batch in batches for row in batch.rows]
    rows.sort(key=lambda row: row.time_ns or 0)
    counts: Counter[str] = Counter()
    sums: Counter[tuple[str, str]] = Counter()
    units: Counter[str] = Counter()
    for batch in batches:
        counts.update(batch.counts)
        sums.update(batch.sums)
        units.update(batch.units)
    last_ns = max((batch.last_ns for batch in batches if batch.last_ns is not None), default=None)
    return Batch(batches[0].window_ns, rows, counts, sums, units, sum(batch.total for batch in batches), last_ns)
