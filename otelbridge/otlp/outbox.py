"""The outbox: requests that could not be delivered yet, and the state of what makes them, kept in one SQLite database."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self, cast
from urllib.parse import quote

from otelbridge.errors import SpoolError, SpoolInUseError, SpoolUnreadableError
from otelbridge.records import Request, Signal

DATABASE = "outbox.db"
LIMIT_BYTES = 256 * 1024 * 1024

APPLICATION_ID = int.from_bytes(b"OtBr")
USER_VERSION = 2
_LOCK_TIMEOUT_S = 1.0
_WAL_KEPT_BYTES = 4 * 1024 * 1024
_DIGEST_BYTES = 16
_FREE_PAGES, _PAGES_AT_ONCE = 4096, 512
"""Of 4 KiB: so much stays for what comes next, and so much is given back with a change."""

# `body` comes last: SQLite walks all pages of a long value to reach the columns behind it.
_SCHEMA = """
CREATE TABLE requests (
    id INTEGER PRIMARY KEY,
    destination TEXT NOT NULL,
    signal TEXT NOT NULL,
    items INTEGER NOT NULL,
    reason TEXT,
    checksum BLOB NOT NULL,
    body BLOB NOT NULL
) STRICT
"""
# Version 2 added it. The rowid stays, so that a damaged table can be read from any number on.
_STATES_SCHEMA = """
CREATE TABLE IF NOT EXISTS states (
    key TEXT PRIMARY KEY,
    checksum BLOB NOT NULL,
    body BLOB NOT NULL
) STRICT
"""
_SET_STATE = """
INSERT INTO states (key, checksum, body) VALUES (cast(? AS TEXT), ?, ?)
ON CONFLICT (key) DO UPDATE SET checksum = excluded.checksum, body = excluded.body
"""
_COLUMNS = "id, destination, signal, items, reason, checksum, body"
_INSERT = f"""
INSERT INTO requests ({_COLUMNS})
VALUES (?, cast(? AS TEXT), cast(? AS TEXT), ?, cast(? AS TEXT), ?, ?)
"""  # noqa: S608


class Kept(NamedTuple):
    """A request of the outbox that waits to be sent to `destination`."""

    id: int
    destination: str
    request: Request


class Entry(NamedTuple):
    """A request and where it belongs. With a `reason` it was refused with these words and is kept apart."""

    destination: str
    request: Request
    reason: str | None = None


class Change(NamedTuple):
    """What is to become of an outbox in one step.

    Attributes:
        states: What stands under a key from now on; None deletes it.
        requests: By their ids. What stood under an id is replaced.
        removed: The ids of requests that go; those that are not there are no error.
    """

    states: Mapping[str, bytes | None]
    requests: Mapping[int, Entry]
    removed: Collection[int]


@dataclass(frozen=True, slots=True)
class Counts:
    """What an outbox holds. `bytes` are those of the requests' bodies; the file is a little larger."""

    pending: int
    pending_items: int
    pending_bytes: int
    rejected: int
    rejected_items: int
    rejected_bytes: int


class Row(NamedTuple):
    """A row as the file holds it; texts are bytes, since a damaged one need not be UTF-8."""

    id: int
    destination: bytes
    signal: bytes
    items: int
    reason: bytes | None
    checksum: bytes
    body: bytes

    @property
    def is_intact(self) -> bool:
        """Whether it is what was put."""
        # A damaged record can hold anything under any column.
        words = (self.destination, self.signal, self.checksum, self.body, b"" if self.reason is None else self.reason)
        is_typed = all(isinstance(word, bytes) for word in words) and isinstance(self.items, int)
        return is_typed and _checksum(self) == self.checksum


class StateRow(NamedTuple):
    """A row of the states as the file holds it."""

    rowid: int
    key: bytes
    checksum: bytes
    body: bytes

    @property
    def is_intact(self) -> bool:
        """Whether it is what was put."""
        is_typed = isinstance(self.key, bytes) and isinstance(self.body, bytes)
        return is_typed and _digest(b"state", self.key, self.body) == self.checksum

    @property
    def name(self) -> str:
        """The key, as it was given."""
        return self.key.decode("utf-8", "surrogateescape")


def _checksum(row: Row) -> bytes:
    """A digest of every column but itself."""
    kept_apart = b"" if row.reason is None else b"r" + row.reason
    return _digest(str(row.id).encode(), row.destination, row.signal, str(row.items).encode(), kept_apart, row.body)


def _digest(*parts: bytes) -> bytes:
    """A digest of the parts, each with its length in front, so that no byte can change sides."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES, person=b"otelbridge")
    for part in parts:
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.digest()


def _key(name: str) -> bytes:
    # A key may hold the name of a file, which need not be UTF-8.
    return name.encode("utf-8", "surrogateescape")


def _text(words: str) -> bytes:
    return words.encode("utf-8", "replace")


def _row(number: int, destination: str, request: Request, reason: str | None) -> Row:
    """The row of a request, with its checksum."""
    words = None if reason is None else _text(reason)
    bare = Row(number, _text(destination), request.signal.encode(), request.items, words, b"", bytes(request.body))
    return bare._replace(checksum=_checksum(bare))


def kept_of(row: Row) -> Kept:
    """The request of an intact row."""
    # The checksum has been compared: the signal is one of the two that were put in.
    signal = cast("Signal", row.signal.decode())
    return Kept(row.id, row.destination.decode(), Request(signal, row.body, row.items))


class Outbox:
    """Requests kept on disk, in the order in which they were put, and states by their keys.

    One process at a time has an outbox open, so that nothing is sent twice by two of them; in that process any thread may
    call any method. What a method has done is on the disk when it returns, and it does all or nothing.

    Args:
        folder: Where `outbox.db` lies; it is made when it is not there.
        limit_bytes: The most bytes of requests that are kept, pending and rejected together.
        database: The name of the database in the folder.

    Raises:
        SpoolInUseError: Another process has it.
        SpoolUnreadableError: It is damaged, or of another program or a newer version.
        SpoolError: The folder or the database in it cannot be used. So does every method when the disk is full, fails or
            holds a damaged database.
    """

    def __init__(self, folder: Path, *, limit_bytes: int = LIMIT_BYTES, database: str = DATABASE) -> None:
        _make_folder(folder)
        self.folder = folder
        self.limit_bytes = limit_bytes
        self._path = folder / database
        _check_rights(folder, self._path)
        self._lock = threading.RLock()
        self._damaged: dict[int | str, str] = {}
        with self._explained("Nothing was read or changed."):
            self._db = connect(self._path)
            try:
                self._prepare()
                (last,) = self._db.execute("SELECT coalesce(max(id), 0) FROM requests").fetchone()
                (held,) = self._db.execute("SELECT coalesce(sum(length(body)), 0) FROM requests").fetchone()
            except BaseException:
                self._db.close()
                raise
        # Ids are never used twice by one process: a late `remove` cannot hit another request.
        self._last_id: int = last
        self._held_bytes: int = held

    @classmethod
    def existing(cls, folder: Path, *, limit_bytes: int = LIMIT_BYTES) -> Self:
        """The outbox that is in `folder`; none is made.

        Raises:
            SpoolError: There is none, or it cannot be used.
        """
        path = folder / DATABASE
        try:
            is_there = path.is_file()
        except OSError as error:
            raise SpoolError(f"{path}: cannot be opened: {error.strerror}. Nothing was read or changed.") from error
        if not is_there:
            raise SpoolError(f"{folder}: there is no spool here: it has no file {DATABASE}. Nothing was made.")
        return cls(folder, limit_bytes=limit_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def put(self, destination: str, request: Request) -> None:
        """Keep a request until it is removed.

        Raises:
            SpoolError: It would pass the limit, or the disk is full; it is not kept.
        """
        self.put_many([(destination, request)])

    def put_many(self, requests: Sequence[tuple[str, Request]]) -> None:
        """Keep several requests, each with its destination: all of them or, with an error, none.

        Raises:
            SpoolError: They would pass the limit, or the disk is full.
        """
        self._insert(requests, None)

    def commit(self, states: Mapping[str, bytes | None], requests: Sequence[tuple[str, Request]]) -> list[int]:
        """Keep states and requests, each with its destination: all of them or, with an error, none.

        Args:
            states: By their keys; None deletes one.
            requests: What is to be sent.

        Returns:
            The ids of the requests.

        Raises:
            SpoolError: The requests would pass the limit, or the disk is full.
        """
        with self._lock:
            new_bytes = sum(len(request.body) for _, request in requests)
            if self._held_bytes + new_bytes > self.limit_bytes:
                raise SpoolError(self._limit_words(f"{_count(len(requests), 'request')} and the states not kept."))
            first = self._last_id + 1
            entries = {first + i: Entry(where, request) for i, (where, request) in enumerate(requests)}
            self.apply(Change(states, entries, ()))
        return list(entries)

    def apply(self, change: Change) -> None:
        """Make a change: the whole of it or, with an error, nothing. The limit is not looked at.

        Raises:
            SpoolError: The disk is full, or fails.
        """
        rows = [_row(number, *entry) for number, entry in change.requests.items()]
        gone = [(number,) for number in {*change.removed, *change.requests}]
        new = [(_key(key), body) for key, body in change.states.items() if body is not None]
        set_states = [(key, _digest(b"state", key, body), body) for key, body in new]
        ended = [(_key(key),) for key, body in change.states.items() if body is None]
        with self._lock:
            with self._transaction("Nothing of the change was kept."):
                freed = sum(self._size(number) for (number,) in gone)
                self._db.executemany("DELETE FROM requests WHERE id = ?", gone)
                self._db.executemany(_INSERT, rows)
                self._db.executemany("DELETE FROM states WHERE key = cast(? AS TEXT)", ended)
                self._db.executemany(_SET_STATE, set_states)
                self._give_back()
            self._last_id = max([self._last_id, *change.requests])
            self._held_bytes += sum(len(row.body) for row in rows) - freed

    def _give_back(self) -> None:
        """Let the file shrink a little where much of it is empty, as after a long outage."""
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        if free > _FREE_PAGES:
            # Python takes one step of a statement without columns, and each step gives one page back.
            for _ in range(_PAGES_AT_ONCE):
                self._db.execute("PRAGMA incremental_vacuum")

    def states(self) -> dict[str, bytes]:
        """The states by their keys; those that are damaged are left out, and named by `damage`."""
        found: dict[str, bytes] = {}
        for row in self._state_rows():
            if row.is_intact:
                found[row.name] = row.body
            else:
                self._damaged[_shown_key(row)] = _state_damage(row)
        return found

    def get(self, number: int) -> Entry | None:
        """The request of that id; None where there is none.

        Raises:
            SpoolUnreadableError: It is damaged.
        """
        row = self._next(number - 1, f"id = {number:d}")
        if row is None:
            return None
        if not row.is_intact:
            raise SpoolUnreadableError(f"{self._path}: {_damage(row)}")
        kept = kept_of(row)
        return Entry(kept.destination, kept.request, None if row.reason is None else row.reason.decode("utf-8", "replace"))

    def reject(self, destination: str, request: Request, reason: str) -> None:
        """Keep a request apart that `destination` refused, with its words; it is not sent again.

        Raises:
            SpoolError: It would pass the limit, or the disk is full; it is not kept.
        """
        self._insert([(destination, request)], reason)

    def pending(self) -> Iterator[Kept]:
        """The requests that wait to be sent, in the order in which they were put; also those put meanwhile.

        A request that is no longer what was put is left out, and named by `damage`. Requests may be removed or moved
        while this runs.
        """
        last = 0
        while (row := self._next(last, "reason IS NULL")) is not None:
            last = row.id
            if row.is_intact:
                yield kept_of(row)
            else:
                self._damaged[row.id] = _damage(row)

    def damage(self) -> tuple[str, ...]:
        """What `pending`, `rejected` and `states` left out so far because it is damaged, in words."""
        return tuple(self._damaged.values())

    def remove(self, number: int) -> None:
        """Forget a request: it was accepted. One that is not there any more is no error."""
        with self._lock:
            with self._transaction(f"Request {number} is still in the spool and will be sent again."):
                found = self._db.execute("SELECT length(body) FROM requests WHERE id = ?", (number,)).fetchone()
                self._db.execute("DELETE FROM requests WHERE id = ?", (number,))
            self._held_bytes -= found[0] if found else 0

    def move_to_rejected(self, number: int, reason: str) -> None:
        """Keep a pending request apart from now on, with the words with which it was refused.

        Raises:
            SpoolError: It is not there, or damaged.
        """
        with self._transaction(f"Request {number} is still in the spool as it was."):
            found = self._db.execute(f"SELECT {_COLUMNS} FROM requests WHERE id = ?", (number,)).fetchone()  # noqa: S608
            row = Row(*found) if found else None
            if row is None or not row.is_intact:
                state = "is not there" if row is None else "is damaged"
                raise SpoolError(f"{self._path}: request {number} {state} and cannot be marked as rejected: {reason}")
            moved = row._replace(reason=_text(reason))
            words = (moved.reason, _checksum(moved), number)
            self._db.execute("UPDATE requests SET reason = cast(? AS TEXT), checksum = ? WHERE id = ?", words)

    def keep_rest(self, number: int, rest: Request | None, refused: tuple[Request, str] | None = None) -> None:
        """Put `rest` in a pending request's place, and keep the `refused` part of it apart, in one step.

        Args:
            number: The request, of which a part was settled.
            rest: What has still to be sent; None forgets the request.
            refused: The part that was refused, with the words.

        Raises:
            SpoolError: The request is not there.
        """
        with self._lock:
            last = self._last_id
            with self._transaction(f"Request {number} is still in the spool as it was."):
                found = self._db.execute("SELECT length(body), destination FROM requests WHERE id = ?", (number,)).fetchone()
                if found is None:
                    raise SpoolError(f"{self._path}: request {number} is not there; nothing was changed.")
                destination = found[1].decode("utf-8", "replace")
                rows = [] if rest is None else [_row(number, destination, rest, None)]
                rows += [] if refused is None else [_row(last + 1, destination, *refused)]
                self._db.execute("DELETE FROM requests WHERE id = ?", (number,))
                self._db.executemany(_INSERT, rows)
            self._last_id = max([last, *(row.id for row in rows)])
            self._held_bytes += sum(len(row.body) for row in rows) - found[0]

    def counts(self) -> Counts:
        """How much is pending and how much was rejected; damaged ones count with what their row says."""
        sums = "SELECT count(*), coalesce(sum(items), 0), coalesce(sum(length(body)), 0) FROM requests WHERE reason IS "
        with self._lock, self._explained("Nothing was changed."):
            pending = self._db.execute(sums + "NULL").fetchone()
            rejected = self._db.execute(sums + "NOT NULL").fetchone()
        return Counts(*pending, *rejected)

    def rejected(self) -> Iterator[tuple[Kept, str]]:
        """The requests kept apart, each with the words with which it was refused; damaged ones as in `pending`."""
        last = 0
        while (row := self._next(last, "reason IS NOT NULL")) is not None:
            last = row.id
            if row.is_intact and row.reason is not None:
                yield kept_of(row), row.reason.decode("utf-8", "replace")
            else:
                self._damaged[row.id] = _damage(row)

    def verify(self) -> list[str]:
        """Every problem of the database and of its rows, in words; empty when all is as it was put."""
        try:
            return [*self._structure_problems(), *self._row_problems()]
        except SpoolError as error:
            return [str(error)]

    def drop(self, *, only_rejected: bool = False) -> int:
        """Throw requests away, all or those that were refused; how many they were. States stay, and the file shrinks."""
        which = "reason IS NOT NULL" if only_rejected else "TRUE"
        with self._lock:
            with self._transaction("Nothing was dropped."):
                count = self._db.execute(f"DELETE FROM requests WHERE {which}").rowcount  # noqa: S608
                (held,) = self._db.execute("SELECT coalesce(sum(length(body)), 0) FROM requests").fetchone()
            self._held_bytes = held
            with self._explained("The requests are dropped, but the file did not shrink."):
                self._db.execute("VACUUM")
        return count

    def close(self) -> None:
        """Give the outbox free for others. Closing twice is no error."""
        with self._lock, self._explained("All requests are in the spool."):
            self._db.close()

    def _insert(self, requests: Sequence[tuple[str, Request]], reason: str | None) -> None:
        new_bytes = sum(len(request.body) for _, request in requests)
        lost = f"{_count(len(requests), 'request')} ({_count(new_bytes, 'byte')}) not kept."
        with self._lock:
            if self._held_bytes + new_bytes > self.limit_bytes:
                raise SpoolError(self._limit_words(lost))
            first = self._last_id + 1
            rows = [_row(first + i, where, request, reason) for i, (where, request) in enumerate(requests)]
            with self._transaction(lost):
                self._db.executemany(_INSERT, rows)
            self._last_id += len(rows)
            self._held_bytes += new_bytes

    def _size(self, number: int) -> int:
        found = self._db.execute("SELECT length(body) FROM requests WHERE id = ?", (number,)).fetchone()
        return found[0] if found else 0

    def _limit_words(self, lost: str) -> str:
        counts = self.counts()
        return (
            f"{self._path}: the spool is full: {counts.pending_bytes} bytes are pending and {counts.rejected_bytes} rejected, "
            f"at most {self.limit_bytes} may be kept. {lost} Replay or drop what is there, or raise the limit."
        )

    def _next(self, after: int, which: str = "TRUE") -> Row | None:
        query = f"SELECT {_COLUMNS} FROM requests WHERE id > ? AND {which} ORDER BY id LIMIT 1"  # noqa: S608
        with self._lock, self._explained("What is in it stays as it is; what was not read was not sent."):
            found = self._db.execute(query, (after,)).fetchone()
        self._check_order(after, found)
        return Row(*found) if found else None

    def _state_rows(self) -> Iterator[StateRow]:
        last, query = 0, "SELECT rowid, key, checksum, body FROM states WHERE rowid > ? ORDER BY rowid LIMIT 1"
        while True:
            with self._lock, self._explained("What is in it stays as it is."):
                found = self._db.execute(query, (last,)).fetchone()
            if found is None:
                return
            self._check_order(last, found)
            row = StateRow(*found)
            last = row.rowid
            yield row

    def _check_order(self, after: int, found: tuple[Any, ...] | None) -> None:
        """Refuse rows that a damaged table would give for ever."""
        if found is not None and found[0] <= after:
            raise SpoolUnreadableError(f"{self._path}: {_EXPLANATIONS[sqlite3.SQLITE_CORRUPT]} Its rows are out of order.")

    def _structure_problems(self) -> list[str]:
        with self._lock, self._explained("Nothing was changed."):
            found = [line.decode("utf-8", "replace") for (line,) in self._db.execute("PRAGMA integrity_check")]
        return [f"{self._path}: {line}" for line in found if line != "ok"]

    def _row_problems(self) -> Iterator[str]:
        last = 0
        while (row := self._next(last)) is not None:
            last = row.id
            if not row.is_intact:
                yield f"{self._path}: {_damage(row)}"
        for state in self._state_rows():
            if not state.is_intact:
                yield f"{self._path}: {_state_damage(state)}"

    def _prepare(self) -> None:
        """Take the lock, then make the tables in a new file, or see that an old one is ours; what version 1 lacks is made."""
        # Set before the first access: the index of the WAL is then in memory and no second process gets in.
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        mark, version, tables = self._identity()
        if (mark, tables) != (0, 0):
            _check_identity(self._path, mark, version)
        if tables == 0:
            # Counts only for a file in which nothing was ever written.
            self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT_BYTES}")
        with self._transaction("Nothing was read or changed."):
            if tables == 0:
                self._db.execute(_SCHEMA)
                self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self._db.execute(_STATES_SCHEMA)
            # Written every time: a disk without room is found before anything is sent that could not be removed then.
            self._db.execute(f"PRAGMA user_version = {USER_VERSION}")

    def _identity(self) -> tuple[int, int, int]:
        """The database's application id, its version, and how many tables it has."""
        (mark,) = self._db.execute("PRAGMA application_id").fetchone()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        return mark, version, tables

    @contextmanager
    def _transaction(self, fate: str) -> Iterator[None]:
        """All or nothing, on disk at the end; `fate` says what became of the data when it fails."""
        with self._lock, self._explained(fate):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                # A full disk ends the transaction by itself.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _explained(self, fate: str) -> Iterator[None]:
        try:
            yield
        except DATABASE_ERRORS as error:
            raise _kind(error)(f"{self._path}: {_explanation(error)} {fate}") from error


DATABASE_ERRORS = (sqlite3.Error, MemoryError, OverflowError, UnicodeDecodeError)
"""What a database fails with: a damaged one may give absurd lengths, and repeats in its messages what it holds."""


def connect(path: Path) -> sqlite3.Connection:
    """A connection that gives texts as bytes and begins no transaction by itself."""
    address = f"file:{quote(str(path.absolute()))}"
    db = sqlite3.connect(address, uri=True, timeout=_LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    db.text_factory = bytes
    return db


def _check_identity(path: Path, mark: int, version: int) -> None:
    if mark != APPLICATION_ID:
        raise SpoolUnreadableError(f"{path}: this is a database of another program. Nothing was changed. Name another folder.")
    if version > USER_VERSION:
        raise SpoolUnreadableError(
            f"{path}: a newer otelbridge made this spool (version {version}, this one knows up to {USER_VERSION}). "
            "Nothing was changed. Use the newer otelbridge, or name another folder."
        )


def _make_folder(folder: Path) -> None:
    """Make the folder and what leads to it, on disk when this returns."""
    try:
        missing = [place for place in (folder, *folder.parents) if not place.exists()]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for place in missing:
            _sync_folder(place.parent)
    except FileExistsError as error:
        raise SpoolError(f"{folder}: is a file; a spool needs a folder. Nothing was changed.") from error
    except OSError as error:
        raise SpoolError(f"{folder}: the folder of the spool cannot be made: {error.strerror}. Nothing was kept.") from error


def _check_rights(folder: Path, database: Path) -> None:
    """Refuse what may only be read: SQLite would say `disk I/O error` when it takes its lock."""
    # Asked, not tried: closing any handle of the file would give the locks free that this process has on it.
    for place in (folder, database):
        if place.exists() and not os.access(place, os.R_OK | os.W_OK, effective_ids=True):
            raise SpoolError(f"{place}: {_EXPLANATIONS[sqlite3.SQLITE_READONLY]} Nothing was read or changed.")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_IN_USE = (
    "the spool is in use by another process: a service (`otelbridge run`) or another command has it open. "
    "Stop that or wait until it has ended, or name another folder."
)
_EXPLANATIONS = {
    sqlite3.SQLITE_BUSY: _IN_USE,
    sqlite3.SQLITE_LOCKED: _IN_USE,
    sqlite3.SQLITE_FULL: "the disk is full. Make room on it.",
    sqlite3.SQLITE_READONLY: "the spool cannot be written. Give this user the right to read and write the folder and the file.",
    sqlite3.SQLITE_CANTOPEN: "the spool cannot be opened. Is the name taken by a folder, or is a right missing?",
    sqlite3.SQLITE_NOTADB: "this is not a SQLite database. Name another folder, or move the file away.",
    sqlite3.SQLITE_CORRUPT: "the database is damaged. Move it away; `sqlite3 outbox.db .recover` may save some of it.",
}


# What a damaged database is found by, apart from SQLite's two codes for it: values that its tables cannot hold.
_DAMAGE = {
    sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG,
}  # fmt: skip


def _kind(error: Exception) -> type[SpoolError]:
    code = _code(error)
    # no such table: states; unsupported file format. The statements are right, so it is the file.
    is_schema = code == sqlite3.SQLITE_ERROR and not str(error).startswith("cannot ")
    if is_schema or code in _DAMAGE or not isinstance(error, sqlite3.Error):
        return SpoolUnreadableError
    return SpoolInUseError if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) else SpoolError


def _code(error: Exception) -> int | None:
    """SQLite's result code: its low byte, the rest only says where. The sqlite3 module's own errors have none."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _explanation(error: Exception) -> str:
    """What went wrong and what to do."""
    code = _code(error)
    words = _EXPLANATIONS.get(code) if code is not None else None
    return words or f"the spool cannot be used: {error}."


def _damage(row: Row) -> str:
    destination = row.destination.decode("utf-8", "replace") if isinstance(row.destination, bytes) else row.destination
    return f"request {row.id} for {destination} is damaged: it is not what was put. It is kept, but never sent."


def _state_damage(row: StateRow) -> str:
    return f"the state {_shown_key(row)} is damaged: it is not what was put. It is kept, but never used."


def _shown_key(row: StateRow) -> str:
    return repr(row.name) if isinstance(row.key, bytes) else f"of row {row.rowid}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
