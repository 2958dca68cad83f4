"""Events in the order of their time.

QEMU takes an event's time before it takes the lock of the log, so lines of several threads stand in a file up to some
milliseconds out of order. A short buffer puts them right. What comes out does not depend on how the input was cut.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from operator import itemgetter
from typing import Any, NamedTuple

from otelbridge.records import Batch, Row

HORIZON_NS = 50_000_000
"""Events are put right within this; QEMU 7.2 was seen to step back by 7.1 ms."""

_by_time = itemgetter(0)


class Counts(NamedTuple):
    """What a batch counted, waiting for the rows before its window to be handled.

    With `dropped` it is the mark of a batch at whose end QEMU says that it dropped events, waiting for the batch's rows.
    """

    window_ns: int
    counts: Mapping[str, int]
    sums: Mapping[tuple[str, str], int]
    dropped: bool = False


Item = tuple[int, Row | Counts]


class Order:
    """Rows and counts, released in the order of their time once nothing earlier can come any more."""

    def __init__(self) -> None:
        self._waiting: list[Item] = []
        self._high = 0
        self.late = 0
        """Rows that came more than the horizon late and were put as early as possible."""
        self.latest_ns = 0
        """How late the latest of them was."""

    def put(self, batch: Batch) -> list[Item]:
        """Take a batch with stamps; give what is ready now, with the time it is put at."""
        waiting, high = self._waiting, self._high
        window_ns = batch.window_ns or 0
        high = max(high, window_ns)
        if batch.counts or batch.sums or batch.rows:
            waiting.append((window_ns, Counts(window_ns, batch.counts, batch.sums)))
        for row in batch.rows:
            time_ns = row[0] or 0
            if time_ns > high:
                high = time_ns
            elif time_ns < high - HORIZON_NS:
                self.late += 1
                self.latest_ns = max(self.latest_ns, high - time_ns)
                time_ns = high - HORIZON_NS
            waiting.append((time_ns, row))
        if "dropped_by_qemu" in batch.units:
            waiting.append((high, Counts(window_ns, {}, {}, dropped=True)))
        self._high = high
        waiting.sort(key=_by_time)
        ready = bisect_right(waiting, high - HORIZON_NS, key=_by_time)
        released = waiting[:ready]
        del waiting[:ready]
        return released

    def rest(self) -> list[Item]:
        """Everything still waiting, at the end of the stream."""
        released, self._waiting = self._waiting, []
        return released

    def snapshot(self) -> dict[str, Any]:
        """The state as plain data."""
        waiting = [[t, _plain(item)] for t, item in self._waiting]
        return {"high": self._high, "late": self.late, "latest": self.latest_ns, "waiting": waiting}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `snapshot`."""
        # A snapshot of an older version does not have how late.
        self._high, self.late, self.latest_ns = state["high"], state["late"], state.get("latest", 0)
        self._waiting = [(t, _item(plain)) for t, plain in state["waiting"]]


def _plain(item: Row | Counts) -> list[Any]:
    if isinstance(item, Counts):
        return ["counts", item.window_ns, dict(item.counts), [[e, a, n] for (e, a), n in item.sums.items()], item.dropped]
    return plain_row(item)


def _item(plain: list[Any]) -> Row | Counts:
    if plain[0] == "counts":
        return Counts(plain[1], plain[2], {(e, a): n for e, a, n in plain[3]}, plain[4])
    return row_of(plain)


def plain_row(row: Row) -> list[Any]:
    """A row as JSON-able data; bytes go through latin-1, which keeps every byte."""
    return [row.time_ns, row.thread, row.event, row.raw.decode("latin-1"), row.unit, row.process]


def row_of(plain: list[Any]) -> Row:
    """The row that `plain_row` gave."""
    return Row(plain[0], plain[1], plain[2], plain[3].encode("latin-1"), plain[4], plain[5])


def plain_batch(batch: Batch) -> list[Any]:
    """A batch as JSON-able data."""
    sums = [[event, argument, number] for (event, argument), number in batch.sums.items()]
    rows = [plain_row(row) for row in batch.rows]
    return [batch.window_ns, rows, dict(batch.counts), sums, dict(batch.units), batch.total, batch.last_ns]


def batch_of(plain: list[Any]) -> Batch:
    """The batch that `plain_batch` gave."""
    window_ns, rows, counts, sums, units, total, last_ns = plain
    by_argument = {(event, argument): number for event, argument, number in sums}
    return Batch(window_ns, [row_of(row) for row in rows], counts, by_argument, units, total, last_ns)
