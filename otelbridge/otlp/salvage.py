"""What still holds of a damaged outbox, taken over into a new one row by row."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from otelbridge.errors import SpoolInUseError
from otelbridge.otlp.outbox import DATABASE_ERRORS, Change, Entry, Outbox, Row, StateRow, connect, kept_of

_MAX_ID = (1 << 63) - 1
_GAPS = 4096
"""How many ranges of row numbers are looked into, of those that damaged pages leave between rows that can be read."""
_CHUNK_BYTES = 4 * 1024 * 1024

_UPWARDS, _DOWNWARDS = "ASC", "DESC"
_REQUESTS = """
SELECT id, destination, signal, items, reason, checksum, body FROM requests WHERE id > ? AND id < ? ORDER BY id {} LIMIT 1
"""
_STATES = "SELECT rowid, key, checksum, body FROM states WHERE rowid > ? AND rowid < ? ORDER BY rowid {} LIMIT 1"

RowT = TypeVar("RowT", Row, StateRow)


class Salvaged(NamedTuple):
    """How many states and requests were taken over."""

    states: int
    requests: int


def salvage(path: Path, into: Outbox) -> Salvaged:
    """Copy every state and request of the damaged database at `path` whose checksum holds.

    SQLite may fail at any page; the rows around it are looked up by themselves.

    Raises:
        SpoolInUseError: Another process has the damaged one.
        SpoolError: `into` cannot be written; what was written so far is in it.
    """
    states: dict[str, bytes | None] = {}
    requests: dict[int, Entry] = {}
    number = held_bytes = 0
    try:
        damaged = connect(path)
    except sqlite3.Error:
        return Salvaged(0, 0)
    with closing(damaged) as db:
        states |= {row.name: row.body for row in _rows(db, _STATES, StateRow)}
        into.apply(Change(states, {}, ()))
        for row in _rows(db, _REQUESTS, Row):
            kept = kept_of(row)
            reason = None if row.reason is None else row.reason.decode("utf-8", "replace")
            requests[kept.id] = Entry(kept.destination, kept.request, reason)
            number, held_bytes = number + 1, held_bytes + len(row.body)
            if held_bytes >= _CHUNK_BYTES:
                into.apply(Change({}, requests, ()))
                requests, held_bytes = {}, 0
        into.apply(Change({}, requests, ()))
    return Salvaged(len(states), number)


def _rows(db: sqlite3.Connection, query: str, kind: Callable[..., RowT]) -> Iterator[RowT]:
    """Every intact row that can be reached: from both ends up to what fails, then within the halves of what is between."""
    ranges = deque([(0, _MAX_ID)])
    for _ in range(_GAPS):
        if not ranges:
            return
        low, high = ranges.popleft()
        is_whole = False
        for direction in (_UPWARDS, _DOWNWARDS):
            while (row := _read(db, query.format(direction), (low, high), kind)) and row.is_intact:
                yield row
                low, high = (row[0], high) if direction == _UPWARDS else (low, row[0])
            is_whole = is_whole or row is None
        # One number between two that are settled has been looked at.
        if not is_whole and high - low > 2:  # noqa: PLR2004
            middle = (low + high) // 2
            ranges += [(low, middle + 1), (middle, high)]


def _read(
    db: sqlite3.Connection, query: str, between: tuple[int, int], kind: Callable[..., RowT]
) -> RowT | Literal[False] | None:
    """The row of the query: False where SQLite cannot read it, None where there is none between the two numbers."""
    try:
        found = db.execute(query, between).fetchone()
    except DATABASE_ERRORS as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise SpoolInUseError("The damaged spool is in use by another process. Nothing was taken over.") from error
        return False
    if found is None:
        return None
    row = kind(*found)
    return row if between[0] < row[0] < between[1] else False
