"""Reading text traces to their ends, for the tests of all their readers."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from otelbridge.catalogue import builtin
from otelbridge.records import Batch, Plan, Row

CATALOGUE = builtin()
ALL_ROWS = Plan(dict.fromkeys(sorted(CATALOGUE.names), ()))
NO_ROWS = Plan({})


class Reader(Protocol):
    """What every reader of a format offers."""

    @property
    def gaps(self) -> list[str]: ...

    def feed(self, block: bytes) -> list[Batch]: ...

    def finish(self) -> list[Batch]: ...

    def snapshot(self) -> dict[str, Any]: ...

    def restore(self, state: Any) -> None: ...


class Read(NamedTuple):
    """All that came out of a trace: rows, and the rest window by window."""

    rows: list[Row]
    windows: dict[int | None, tuple[Counter[str], Counter[tuple[str, str]], Counter[str], int]]
    last_ns: int | None
    gaps: list[str]

    @property
    def units(self) -> Counter[str]:
        return sum((window[2] for window in self.windows.values()), Counter())

    @property
    def counts(self) -> Counter[str]:
        return sum((window[0] for window in self.windows.values()), Counter())

    @property
    def sums(self) -> Counter[tuple[str, str]]:
        # Addition of counters would leave out what is negative.
        found: Counter[tuple[str, str]] = Counter()
        for window in self.windows.values():
            found.update(window[1])
        return found

    @property
    def total(self) -> int:
        return sum(window[3] for window in self.windows.values())

    @property
    def accounted(self) -> int:
        """What stands in the buckets, `dropped_by_qemu` left out."""
        units = self.units.total() - self.units["dropped_by_qemu"]
        return units + self.counts.total() + sum(row.unit for row in self.rows)


def no_sums(_event: str, _raw: bytes) -> None:
    return None


def is_event(name: str) -> bool:
    return CATALOGUE.is_event(name)


def read(reader: Reader, data: bytes, blocks: Iterable[bytes] | None = None) -> Read:
    """Feed a trace, whole unless `blocks` cuts it up."""
    batches: list[Batch] = []
    for block in [data] if blocks is None else blocks:
        batches += reader.feed(block)
    batches += reader.finish()
    windows = [batch.window_ns for batch in batches if batch.window_ns is not None]
    assert windows == sorted(windows), "a window went back"
    found: dict[int | None, tuple[Counter[str], Counter[tuple[str, str]], Counter[str], int]] = {}
    for batch in batches:
        counts, sums, units, total = found.get(batch.window_ns, (Counter(), Counter(), Counter(), 0))
        counts.update(batch.counts)
        sums.update(batch.sums)
        units.update(batch.units)
        found[batch.window_ns] = counts, sums, units, total + batch.total
    rows = [row for batch in batches for row in batch.rows]
    return Read(rows, found, batches[-1].last_ns if batches else None, reader.gaps)


def cut(data: bytes, size: int) -> Iterator[bytes]:
    """The trace in blocks of that size."""
    return (data[i : i + size] for i in range(0, len(data), size))


def content(path: Path) -> bytes:
    """A recording, unpacked."""
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data
