"""The outbox: requests that could not be delivered yet, kept in one SQLite database until they are."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self, cast
from urllib.parse import quote

from otelbridge.errors import SpoolError
from otelbridge.records import Request, Signal

DATABASE = "outbox.db"
LIMIT_BYTES = 256 * 1024 * 1024

APPLICATION_ID = int.from_bytes(b"OtBr")
USER_VERSION = 1
_LOCK_TIMEOUT_S = 1.0
_WAL_KEPT_BYTES = 4 * 1024 * 1024
_DIGEST_BYTES = 16

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


@dataclass(frozen=True, slots=True)
class Counts:
    """What an outbox holds. `bytes` are those of the requests' bodies; the file is a little larger."""

    pending: int
    pending_items: int
    pending_bytes: int
    rejected: int
    rejected_items: int
    rejected_bytes: int


class _Row(NamedTuple):
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
        return _checksum(self) == self.checksum


def _checksum(row: _Row) -> bytes:
    """A digest of every column but itself, each with its length in front, so that no byte can change sides."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES, person=b"otelbridge")
    kept_apart = b"" if row.reason is None else b"r" + row.reason
    for part in (str(row.id).encode(), row.destination, row.signal, str(row.items).encode(), kept_apart, row.body):
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.digest()


def _text(words: str) -> bytes:
    return words.encode("utf-8", "replace")


def _row(number: int, destination: str, request: Request, reason: str | None) -> _Row:
    """The row of a request, with its checksum."""
    words = None if reason is None else _text(reason)
    bare = _Row(number, _text(destination), request.signal.encode(), request.items, words, b"", bytes(request.body))
    return bare._replace(checksum=_checksum(bare))


def _kept(row: _Row) -> Kept:
    # The checksum has been compared: the signal is one of the two that were put in.
    signal = cast("Signal", row.signal.decode())
    return Kept(row.id, row.destination.decode(), Request(signal, row.body, row.items))


class Outbox:
    """Requests kept on disk, in the order in which they were put.

    One process at a time has an outbox open, so that nothing is sent twice by two of them; in that process any thread may
    call any method. What a method has done is on the disk when it returns, and it does all or nothing.

    Args:
        folder: Where `outbox.db` lies; it is made when it is not there.
        limit_bytes: The most bytes of requests that are kept, pending and rejected together.

    Raises:
        SpoolError: The folder or the database in it cannot be used. So does every method when the disk is full, fails or
            holds a damaged database.
    """

    def __init__(self, folder: Path, *, limit_bytes: int = LIMIT_BYTES) -> None:
        _make_folder(folder)
        _check_rights(folder)
        self.folder = folder
        self.limit_bytes = limit_bytes
        self._path = folder / DATABASE
        self._lock = threading.RLock()
        self._damaged: dict[int, str] = {}
        with self._explained("Nothing was read or changed."):
            self._db = _connect(self._path)
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
                yield _kept(row)
            else:
                self._damaged[row.id] = _damage(row)

    def damage(self) -> tuple[str, ...]:
        """What `pending` left out so far because it is damaged, in words."""
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
            row = _Row(*found) if found else None
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
        """The requests kept apart, each with the words with which it was refused; damaged ones are left out."""
        last = 0
        while (row := self._next(last, "reason IS NOT NULL")) is not None:
            last = row.id
            if row.is_intact and row.reason is not None:
                yield _kept(row), row.reason.decode()

    def verify(self) -> list[str]:
        """Every problem of the database and of its rows, in words; empty when all is as it was put."""
        try:
            return [*self._structure_problems(), *self._row_problems()]
        except SpoolError as error:
            return [str(error)]

    def drop(self) -> int:
        """Throw everything away, pending and rejected; how many requests that were. The file shrinks."""
        with self._transaction("Nothing was dropped."):
            count = self._db.execute("DELETE FROM requests").rowcount
        with self._lock, self._explained("All requests are dropped, but the file did not shrink."):
            self._held_bytes = 0
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

    def _limit_words(self, lost: str) -> str:
        counts = self.counts()
        return (
            f"{self._path}: the spool is full: {counts.pending_bytes} bytes are pending and {counts.rejected_bytes} rejected, "
            f"at most {self.limit_bytes} may be kept. {lost} Replay or drop what is there, or raise the limit."
        )

    def _next(self, after: int, which: str = "TRUE") -> _Row | None:
        query = f"SELECT {_COLUMNS} FROM requests WHERE id > ? AND {which} ORDER BY id LIMIT 1"  # noqa: S608
        with self._lock, self._explained("What is in it stays as it is; what was not read was not sent."):
            found = self._db.execute(query, (after,)).fetchone()
        return _Row(*found) if found else None

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

    def _prepare(self) -> None:
        """Take the lock, then make the table in a new file, or see that an old one is ours."""
        # Set before the first access: the index of the WAL is then in memory and no second process gets in.
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        mark, version, tables = self._identity()
        if (mark, tables) != (0, 0):
            _check_identity(self._path, mark, version)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT_BYTES}")
        with self._transaction("Nothing was read or changed."):
            if tables == 0:
                self._db.execute(_SCHEMA)
                self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
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
        except sqlite3.Error as error:
            raise SpoolError(f"{self._path}: {_explanation(error)} {fate}") from error


def _connect(path: Path) -> sqlite3.Connection:
    address = f"file:{quote(str(path.absolute()))}"
    db = sqlite3.connect(address, uri=True, timeout=_LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    db.text_factory = bytes
    return db


def _check_identity(path: Path, mark: int, version: int) -> None:
    if mark != APPLICATION_ID:
        raise SpoolError(f"{path}: this is a database of another program. Nothing was changed. Name another folder.")
    if version > USER_VERSION:
        raise SpoolError(
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


def _check_rights(folder: Path) -> None:
    """Refuse what may only be read: SQLite would say `disk I/O error` when it takes its lock."""
    # Asked, not tried: closing any handle of the file would give the locks free that this process has on it.
    for place in (folder, folder / DATABASE):
        if place.exists() and not os.access(place, os.R_OK | os.W_OK, effective_ids=True):
            raise SpoolError(f"{place}: {_EXPLANATIONS[sqlite3.SQLITE_READONLY]} Nothing was read or changed.")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_EXPLANATIONS = {
    sqlite3.SQLITE_BUSY: "the spool is in use by another process. Wait until that has ended, or name another folder.",
    sqlite3.SQLITE_LOCKED: "the spool is in use by another process. Wait until that has ended, or name another folder.",
    sqlite3.SQLITE_FULL: "the disk is full. Make room on it.",
    sqlite3.SQLITE_READONLY: "the spool cannot be written. Give this user the right to read and write the folder and the file.",
    sqlite3.SQLITE_CANTOPEN: "the spool cannot be opened. Is the name taken by a folder, or is a right missing?",
    sqlite3.SQLITE_NOTADB: "this is not a SQLite database. Name another folder, or move the file away.",
    sqlite3.SQLITE_CORRUPT: "the database is damaged. Move it away; `sqlite3 outbox.db .recover` may save some of it.",
}


def _explanation(error: sqlite3.Error) -> str:
    """What went wrong and what to do, from SQLite's result code (its low byte; the rest only says where)."""
    # Errors of the sqlite3 module itself (a closed database) have no code.
    code = getattr(error, "sqlite_errorcode", None)
    words = _EXPLANATIONS.get(code & 0xFF) if code is not None else None
    return words or f"the spool cannot be used: {error}."


def _damage(row: _Row) -> str:
    return (
        f"request {row.id} for {row.destination.decode('utf-8', 'replace')} is damaged: it is not what was put. "
        "It is kept, but never sent."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
