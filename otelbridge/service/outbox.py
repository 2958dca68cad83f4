"""The service's outbox: states and requests that are on the disk if that allows, and in memory until it does.

Locks: `_disk` is held around everything that touches the database or what is not written yet, `_changed` around the index in
memory. Who needs both takes `_disk` first. So neither a sender that waits nor the health page stands behind a slow disk.
"""

from __future__ import annotations

import heapq
import logging
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from otelbridge.errors import SpoolError, SpoolInUseError, SpoolUnreadableError
from otelbridge.otlp.outbox import DATABASE, Change, Entry, Kept, Outbox
from otelbridge.otlp.salvage import salvage
from otelbridge.records import SECOND_NS, Request, Signal
from otelbridge.service import outbox_files

Count = Callable[[str, float, Mapping[str, str]], None]
"""Takes the name of a counter of stats.py, how much to add (or to record, where it is a histogram), and attributes."""
Route = tuple[str, Signal]

MEMORY_LIMIT_BYTES = 64 * 1024 * 1024

_NO_LIMIT = 1 << 62
_TRY_AGAIN_S = 1.0
_LONGEST_TRY_AGAIN_S = 60.0
_ANEW_EVERY_S = 10.0
_TELL_AGAIN_S = 60.0
_MICROSECOND_NS = 1_000
_FIRST_TIMED_ID = 10**14
"""Ids are the microsecond of their making, so that the age of what waits is known after a restart; smaller ones only count."""
# With these the connection goes on by itself once the disk does, and what is on it can be read meanwhile.
_PASSING = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR}
_NOUNS: Mapping[Signal, str] = {"traces": "spans", "metrics": "points"}

ResultT = TypeVar("ResultT")
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Amount:
    """How much there is of something."""

    requests: int = 0
    items: int = 0
    bytes: int = 0

    def add(self, entry: _Indexed, sign: int) -> None:
        """Count a request in (1) or out (-1)."""
        self.requests += sign
        self.items += sign * entry.items
        self.bytes += sign * entry.size


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """What health shows of an outbox.

    Attributes:
        state: `ok`, `memory` where the disk does not take what is to be kept, `full` where nothing more should be read.
        words: Why it is not `ok`; empty where it is.
        since_ns: Since when the disk does not take it, UTC; None where it does.
        pending: What waits, by destination and signal.
        rejected: What was refused and is kept apart, likewise.
        memory_bytes: What is in memory only.
        oldest_ns: For how long the oldest request has waited; None where none waits, or that is not known.
    """

    state: Literal["ok", "memory", "full"]
    words: str
    since_ns: int | None
    pending: Mapping[Route, Amount]
    rejected: Mapping[Route, Amount]
    memory_bytes: int
    oldest_ns: int | None


@dataclass(slots=True)
class _Indexed:
    """What is known of a request without its body."""

    route: Route
    items: int
    size: int
    is_rejected: bool
    is_on_disk: bool


class _Trouble(NamedTuple):
    words: str
    since_ns: int


@dataclass(slots=True)
class _Unwritten:
    """What is to be changed on the disk and is not yet. `size_bytes` are those of states and bodies."""

    states: dict[str, bytes | None] = field(default_factory=dict)
    requests: dict[int, Entry] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)
    size_bytes: int = 0

    def __bool__(self) -> bool:
        return bool(self.states or self.requests or self.removed)

    def set_states(self, states: Mapping[str, bytes | None]) -> None:
        for key, body in states.items():
            self.size_bytes += len(body or b"") - len(self.states.get(key) or b"")
            self.states[key] = body

    def put(self, number: int, entry: Entry) -> None:
        self.forget(number)
        self.requests[number] = entry
        self.size_bytes += len(entry.request.body)

    def remove(self, number: int, *, is_on_disk: bool) -> None:
        self.forget(number)
        if is_on_disk:
            self.removed.add(number)

    def forget(self, number: int) -> None:
        known = self.requests.pop(number, None)
        if known is not None:
            self.size_bytes -= len(known.request.body)

    def change(self) -> Change:
        return Change(self.states, self.requests, self.removed)


def _ignore(_name: str, _number: float, _attributes: Mapping[str, str]) -> None: ...


class ServiceOutbox:
    """Keeps states and requests, whatever the disk does.

    What a method has done is on the disk when it returns. Where that is full, read-only or failing, it is in memory, and
    tried again as a whole with later calls, once a second; `commit({}, [])` only tries. A database that is damaged is set
    aside, and what holds of it is taken over into a new one. No method raises for any of that; any thread may call any.

    Args:
        folder: Where the database lies.
        limit_bytes: Pending bytes from which on `is_full` says that nothing more should be read.
        rejected_limit_bytes: How much of what was refused is kept; the oldest goes first.
        memory_limit_bytes: Bytes that are in memory only from which on `is_full` says the same.
        count: Takes what is counted.
        now_ns: The time, UTC.

    Raises:
        SpoolInUseError: Another process has it: two would send everything twice.
    """

    def __init__(
        self,
        folder: Path,
        *,
        limit_bytes: int,
        rejected_limit_bytes: int,
        memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
        count: Count = _ignore,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._folder, self._path = folder, folder / DATABASE
        self._limit_bytes, self._rejected_limit_bytes = limit_bytes, rejected_limit_bytes
        self._memory_limit_bytes = memory_limit_bytes
        self._count, self._now_ns = count, now_ns

        self._disk = threading.RLock()
        self._outbox: Outbox | None = None
        self._identity: tuple[int, int] | None = None
        self._unwritten = _Unwritten()
        self._unreadable = ""
        self._trouble: _Trouble | None = None
        self._try_again_s, self._wait_s = 0.0, _TRY_AGAIN_S
        self._anew_s, self._trouble_told_s = -_ANEW_EVERY_S, -_TELL_AGAIN_S
        self._wants_states = self._is_closed = False

        self._changed = threading.Condition()
        self._entries: dict[int, _Indexed] = {}
        self._queues: dict[Route, list[int]] = {}
        self._leased: dict[int, Kept] = {}
        self._refused: dict[int, None] = {}
        self._pending: dict[Route, Amount] = {}
        self._rejected: dict[Route, Amount] = {}
        self._pending_bytes = self._rejected_bytes = 0
        self._last_id = 0
        self._dropped: Counter[str] = Counter()
        self._told_s = -_TELL_AGAIN_S

        with self._disk:
            self._do(lambda _: True, is_start=True)

    # --- for the main loop ------------------------------------------------------------------------------

    def states(self) -> dict[str, bytes]:
        """The states as they were committed last; damaged ones are not among them."""
        with self._disk:
            found = self._do(lambda outbox: outbox.states()) or {}
            changed = self._unwritten.states
            kept = {key: body for key, body in found.items() if key not in changed}
            return kept | {key: body for key, body in changed.items() if body is not None}

    def commit(self, states: Mapping[str, bytes | None], requests: Sequence[tuple[str, Request]]) -> None:
        """Keep states (None deletes one) and requests, each with its destination, in one step; then senders may have them."""
        with self._disk:
            entries = {self._new_id(): Entry(destination, request) for destination, request in requests}
            self._unwritten.set_states(states)
            for number, entry in entries.items():
                self._unwritten.put(number, entry)
            # Known before they can be sent, so that a damaged database that is found now is not taken for their end.
            with self._changed:
                for number, entry in entries.items():
                    self._index(number, _indexed(entry), is_ready=False)
            self._flush()
            with self._changed:
                for number, entry in entries.items():
                    self._make_ready(number, (entry.destination, entry.request.signal))
                self._changed.notify_all()

    def states_wanted(self) -> bool:
        """True once after the database was begun anew: what is committed next should be all states, not the changed ones."""
        with self._disk:
            wanted, self._wants_states = self._wants_states, False
            return wanted

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be read."""
        is_memory_full = self._trouble is not None and self._unwritten.size_bytes >= self._memory_limit_bytes
        return self._pending_bytes >= self._limit_bytes or is_memory_full

    def make_room(self, needed_bytes: int) -> int:
        """Drop the oldest requests that wait until there is room for data that would be lost otherwise; how many went."""
        dropped = 0
        with self._disk:
            while (number := self._to_drop(needed_bytes)) is not None:
                with self._changed:
                    entry = self._forget(number)
                if entry is not None:
                    self._unwritten.remove(number, is_on_disk=entry.is_on_disk)
                    self._count_loss("dropped", entry)
                    self._dropped += Counter({"requests": 1, _NOUNS[entry.route[1]]: entry.items})
                    dropped += 1
            if dropped:
                self._flush()
                self._tell_dropped()
        return dropped

    def status(self) -> OutboxStatus:
        """What there is to say for health; waits for no disk."""
        trouble, memory_bytes, is_full = self._trouble, self._unwritten.size_bytes, self.is_full
        words = trouble.words if trouble else ""
        if self._pending_bytes >= self._limit_bytes:
            full = f"{self._pending_bytes} bytes wait and the limit is {self._limit_bytes}: reading waits until some are sent."
            words = f"{full} {words}".strip()
        elif is_full:
            words = f"{memory_bytes} bytes are in memory only, the most that may be: reading waits. {words}"
        with self._changed:
            pending, rejected = _copied(self._pending), _copied(self._rejected)
            oldest = min(self._waiting_ids(), default=0)
        oldest_ns = max(0, self._now_ns() - oldest * _MICROSECOND_NS) if oldest >= _FIRST_TIMED_ID else None
        state: Literal["ok", "memory", "full"] = "full" if is_full else "memory" if trouble else "ok"
        return OutboxStatus(state, words, trouble.since_ns if trouble else None, pending, rejected, memory_bytes, oldest_ns)

    def close(self) -> None:
        """Write what is not on the disk, if that allows, and give the database free for others."""
        with self._disk:
            if self._is_closed:
                return
            self._try_again_s = 0.0
            self._flush()
            self._told_s = -_TELL_AGAIN_S
            self._tell_dropped()
            if self._unwritten:
                with self._changed:
                    lost = [self._entries[number] for number in self._unwritten.requests if number in self._entries]
                for entry in lost:
                    self._count_loss("lost", entry)
                _log.error(
                    "The outbox could not be written: %d requests and %d states that were in memory only are lost. path=%s",
                    len(lost), len(self._unwritten.states), self._path,
                )  # fmt: skip
            self._is_closed = True
            self._close_database()
        self.wake()

    # --- for the senders --------------------------------------------------------------------------------

    def next(self, destination: str, signal: Signal, *, stop: threading.Event, timeout_s: float) -> Kept | None:
        """The oldest request for a destination that nobody has; it is the caller's until it is settled or given back.

        Args:
            destination: Its name.
            signal: What is sent there.
            stop: Set, with `wake` after it, it ends the waiting.
            timeout_s: How long to wait for one.
        """
        route = (destination, signal)
        with self._changed:
            self._changed.wait_for(lambda: stop.is_set() or self._is_closed or self._queues.get(route), timeout_s)
            queue = None if stop.is_set() or self._is_closed else self._queues.get(route)
            number = heapq.heappop(queue) if queue else None
        if number is None:
            if self._is_closed:
                stop.wait(timeout_s)
            return None
        with self._disk:
            entry = self._unwritten.requests.get(number) or self._do(lambda outbox: self._fetch(outbox, number))
            with self._changed:
                if entry is not None and number in self._entries:
                    self._leased[number] = kept = Kept(number, destination, entry.request)
                    return kept
                if number in self._entries:
                    self._make_ready(number, route)
        # It cannot be read for now.
        stop.wait(min(timeout_s, _TRY_AGAIN_S))
        return None

    def wake(self) -> None:
        """Let every sender look again whether it is to stop."""
        with self._changed:
            self._changed.notify_all()

    def settle(self, number: int) -> None:
        """Remove a request that was accepted."""
        with self._disk:
            with self._changed:
                entry = self._forget(number)
            if entry is not None:
                self._unwritten.remove(number, is_on_disk=entry.is_on_disk)
                self._flush()

    def reject(self, number: int, reason: str) -> None:
        """Keep a request apart that was refused with these words."""
        self.keep_rest(number, None, (None, reason))

    def keep_rest(self, number: int, rest: Request | None, refused: tuple[Request | None, str] | None = None) -> None:
        """Put `rest` in the place of a request that the caller has, and keep the `refused` part of it apart, in one step.

        Args:
            number: The request, of which a part was settled.
            rest: What has still to be sent; the caller goes on having it. None for nothing.
            refused: The part that was refused, None for the whole, and the words.
        """
        with self._disk:
            with self._changed:
                kept = self._leased.get(number)
                entry = None if kept is None else self._forget(number)
            if kept is None or entry is None:
                return
            self._unwritten.remove(number, is_on_disk=entry.is_on_disk)
            if rest is not None:
                self._put_again(number, Entry(kept.destination, rest), is_on_disk=entry.is_on_disk)
                with self._changed:
                    self._leased[number] = Kept(number, kept.destination, rest)
            if refused is not None:
                part = Entry(kept.destination, refused[0] or kept.request, refused[1])
                self._put_again(self._new_id(), part, is_on_disk=False)
                self._bound_refused()
            self._flush()

    def give_back(self, number: int) -> None:
        """Let others have a request that was not settled."""
        with self._changed:
            kept = self._leased.pop(number, None)
            if kept is not None and number in self._entries:
                self._make_ready(number, (kept.destination, kept.request.signal))
                self._changed.notify_all()

    # --- the index; all of it with `_changed` held ------------------------------------------------------

    def _index(self, number: int, entry: _Indexed, *, is_ready: bool) -> None:
        self._entries[number] = entry
        if entry.is_rejected:
            self._refused[number] = None
            self._rejected_bytes += entry.size
        else:
            self._pending_bytes += entry.size
            if is_ready:
                self._make_ready(number, entry.route)
        (self._rejected if entry.is_rejected else self._pending).setdefault(entry.route, Amount()).add(entry, 1)

    def _forget(self, number: int) -> _Indexed | None:
        entry = self._entries.pop(number, None)
        self._leased.pop(number, None)
        if entry is None:
            return None
        if entry.is_rejected:
            self._refused.pop(number, None)
            self._rejected_bytes -= entry.size
        else:
            self._pending_bytes -= entry.size
        (self._rejected if entry.is_rejected else self._pending)[entry.route].add(entry, -1)
        return entry

    def _make_ready(self, number: int, route: Route) -> None:
        heapq.heappush(self._queues.setdefault(route, []), number)

    def _waiting_ids(self) -> Iterator[int]:
        """The oldest request of each route, and those that senders have."""
        yield from (queue[0] for queue in self._queues.values() if queue)
        yield from self._leased

    # --- what is to be written; all of it with `_disk` held ---------------------------------------------

    def _new_id(self) -> int:
        self._last_id = max(self._last_id + 1, self._now_ns() // _MICROSECOND_NS)
        return self._last_id

    def _put_again(self, number: int, entry: Entry, *, is_on_disk: bool) -> None:
        self._unwritten.put(number, entry)
        indexed = _indexed(entry)
        indexed.is_on_disk = is_on_disk
        with self._changed:
            self._index(number, indexed, is_ready=False)

    def _bound_refused(self) -> None:
        while self._rejected_bytes > self._rejected_limit_bytes:
            with self._changed:
                number = next(iter(self._refused))
                entry = self._forget(number)
            if entry is not None:
                self._unwritten.remove(number, is_on_disk=entry.is_on_disk)
                self._count("otelbridge.outbox.rejected_dropped", 1, _attributes(entry.route))

    def _to_drop(self, needed_bytes: int) -> int | None:
        """The request that has to go next, out of its queue; None where there is room, or nothing that may go."""
        is_memory_short = self._trouble is not None and self._unwritten.size_bytes + needed_bytes > self._memory_limit_bytes
        if self._pending_bytes + needed_bytes <= self._limit_bytes and not is_memory_short:
            return None
        with self._changed:
            if self._pending_bytes + needed_bytes > self._limit_bytes:
                queue = min((queue for queue in self._queues.values() if queue), default=None)
                return None if queue is None else heapq.heappop(queue)
            # Only what is in memory makes room there.
            ready = (
                (number, queue) for queue in self._queues.values() for number in queue if number in self._unwritten.requests
            )
            number, queue = min(ready, default=(0, []))
            if not queue:
                return None
            queue.remove(number)
            heapq.heapify(queue)
            return number

    def _count_loss(self, fate: Literal["dropped", "lost"], entry: _Indexed) -> None:
        attributes = _attributes(entry.route)
        self._count(f"otelbridge.outbox.requests_{fate}", 1, attributes)
        self._count(f"otelbridge.outbox.{_NOUNS[entry.route[1]]}_{fate}", entry.items, attributes)

    def _tell_dropped(self) -> None:
        if not self._dropped or time.monotonic() - self._told_s < _TELL_AGAIN_S:
            return
        self._told_s = time.monotonic()
        _log.error(
            "The outbox is full: dropped the oldest %d requests with %d spans and %d points that no destination had taken yet, "
            "to keep newer data that would be lost otherwise. limit_bytes=%d path=%s",
            self._dropped["requests"], self._dropped["spans"], self._dropped["points"], self._limit_bytes, self._path,
        )  # fmt: skip
        self._dropped.clear()

    # --- the disk; all of it with `_disk` held ----------------------------------------------------------

    def _flush(self) -> None:
        """Write what is not written, unless that did not go a moment ago."""
        if self._is_closed or (not self._unwritten and self._trouble is None):
            return
        if self._trouble is not None and time.monotonic() < self._try_again_s:
            return
        self._notice_replaced()
        if self._do(self._write):
            self._recovered()

    def _write(self, outbox: Outbox) -> bool:
        outbox.apply(self._unwritten.change())
        with self._changed:
            for number in self._unwritten.requests:
                if number in self._entries:
                    self._entries[number].is_on_disk = True
        self._unwritten = _Unwritten()
        return True

    def _fetch(self, outbox: Outbox, number: int) -> Entry | None:
        """A request from the disk; None where it was lost with a database that has been set aside."""
        if number not in self._entries:
            return None
        entry = outbox.get(number)
        if entry is None:
            raise SpoolUnreadableError(f"{self._path}: request {number} is no longer in the database.")
        return entry

    def _do(self, action: Callable[[Outbox], ResultT], *, is_start: bool = False) -> ResultT | None:
        """What the action gives; None where the disk does not allow it. What is damaged is begun anew in between."""
        if self._is_closed or (self._outbox is None and self._trouble and time.monotonic() < self._try_again_s):
            return None
        for is_last in (False, True):
            try:
                return action(self._outbox or self._open())
            except SpoolUnreadableError as error:
                self._unreadable = str(error)
                self._close_database()
                if is_last:
                    self._in_trouble(error)
            except SpoolInUseError as error:
                if is_start:
                    raise
                self._in_trouble(error)
                break
            except SpoolError as error:
                self._in_trouble(error)
                break
        return None

    def _open(self) -> Outbox:
        """Open the database, a new one where the old one was found damaged, and bring the index in step with it.

        Raises:
            SpoolError: That cannot be done now.
        """
        if os.path.isdir(self._path):  # noqa: PTH112  # says no where it may not look
            self._unreadable = f"{self._path}: this is a folder; a file was expected."
        if self._unreadable:
            self._begin_anew()
        outbox_files.finish_renaming(self._folder)
        outbox = Outbox(self._folder, limit_bytes=_NO_LIMIT)
        try:
            self._take_in(outbox)
        except BaseException:
            _close(outbox)
            raise
        self._outbox, self._identity = outbox, outbox_files.identity(self._path)
        return outbox

    def _begin_anew(self) -> None:
        """Set the damaged database aside and put in its place a new one with what holds of it."""
        why = self._unreadable
        if time.monotonic() < self._anew_s + _ANEW_EVERY_S:
            raise SpoolError(f"{why} It was begun anew a moment ago; that is tried again a little later.")
        with outbox_files.as_spool_error(self._folder):
            outbox_files.delete(self._folder / outbox_files.FRESH)
        with Outbox(self._folder, limit_bytes=_NO_LIMIT, database=outbox_files.FRESH) as fresh:
            taken = salvage(self._path, fresh)
        with outbox_files.as_spool_error(self._folder):
            aside = outbox_files.set_aside(self._path, datetime.fromtimestamp(self._now_ns() / SECOND_NS, UTC))
            (self._folder / outbox_files.FRESH).rename(self._path)
        self._unreadable, self._anew_s = "", time.monotonic()
        self._wants_states = True
        self._count("otelbridge.outbox.databases_set_aside", 1, {})
        _log.error(
            "The outbox was damaged and is begun anew: %s %d states and %d requests that hold were taken over; the damaged "
            "file was set aside. path=%s", why, taken.states, taken.requests, aside,
        )  # fmt: skip

    def _take_in(self, outbox: Outbox) -> None:
        """Bring the index in step with what is on the disk.

        Raises:
            SpoolUnreadableError: Something on it is not what was put.
        """
        found = {kept.id: _indexed(Entry(kept.destination, kept.request)) for kept in outbox.pending()}
        found |= {kept.id: _indexed(Entry(kept.destination, kept.request, why)) for kept, why in outbox.rejected()}
        outbox.states()
        if damage := outbox.damage():
            raise SpoolUnreadableError(f"{len(damage)} of its rows are not what was put; {damage[0]}")
        with self._changed:
            self._last_id = max([self._last_id, *found])
            lost = [self._missing(number) for number in [*self._entries] if number not in found]
            for number, entry in sorted(found.items()):
                entry.is_on_disk = True
                if number in self._entries:
                    self._entries[number].is_on_disk = True
                elif number not in self._unwritten.removed:
                    self._index(number, entry, is_ready=not entry.is_rejected)
            self._queues = {
                route: [number for number in queue if number in self._entries] for route, queue in self._queues.items()
            }
            for queue in self._queues.values():
                heapq.heapify(queue)
            self._changed.notify_all()
        gone = [entry for entry in lost if entry is not None]
        for entry in gone:
            self._count_loss("lost", entry)
        if gone:
            _log.error("%d requests were lost with the damaged or removed outbox. path=%s", len(gone), self._path)

    def _missing(self, number: int) -> _Indexed | None:
        """Settle what to do about a request that is not on the disk; it is returned where it is lost."""
        entry = self._entries[number]
        entry.is_on_disk = False
        if number in self._unwritten.requests:
            return None
        if (kept := self._leased.get(number)) is not None:
            self._unwritten.put(number, Entry(kept.destination, kept.request))
            return None
        self._forget(number)
        return entry

    def _notice_replaced(self) -> None:
        """Close a database whose file was removed: SQLite would go on writing to what nobody will find again."""
        if self._outbox is not None and outbox_files.identity(self._path) != self._identity:
            _log.error("The outbox's file was removed or replaced by something else; it is opened anew. path=%s", self._path)
            self._wants_states = True
            self._close_database()

    def _close_database(self) -> None:
        if self._outbox is not None:
            _close(self._outbox)
        self._outbox = None

    def _in_trouble(self, error: SpoolError) -> None:
        code = getattr(error.__cause__, "sqlite_errorcode", None)
        if self._outbox is not None and (code is None or code & 0xFF not in _PASSING):
            self._close_database()
        # Beginning anew reads all that is there: not every second.
        self._wait_s = min(2 * self._wait_s, _LONGEST_TRY_AGAIN_S) if self._unreadable else _TRY_AGAIN_S
        self._try_again_s = time.monotonic() + self._wait_s
        words = f"The outbox is in memory only, and is lost if the service ends: {error}"
        is_due = time.monotonic() - self._trouble_told_s >= _TELL_AGAIN_S
        if self._trouble is None or (self._trouble.words != words and is_due):
            self._trouble_told_s = time.monotonic()
            _log.error("%s", words)
        self._trouble = _Trouble(words, self._trouble.since_ns if self._trouble else self._now_ns())

    def _recovered(self) -> None:
        if self._trouble is not None:
            lasted_s = (self._now_ns() - self._trouble.since_ns) / SECOND_NS
            _log.warning("The outbox is on the disk again, with everything that was in memory. lasted_s=%.0f", lasted_s)
        self._trouble, self._wait_s = None, _TRY_AGAIN_S


def _indexed(entry: Entry) -> _Indexed:
    request = entry.request
    is_rejected = entry.reason is not None
    return _Indexed((entry.destination, request.signal), request.items, len(request.body), is_rejected, is_on_disk=False)


def _copied(amounts: Mapping[Route, Amount]) -> dict[Route, Amount]:
    return {route: replace(amount) for route, amount in amounts.items() if amount.requests}


def _attributes(route: Route) -> dict[str, str]:
    return {"destination": route[0], "signal": route[1]}


def _close(outbox: Outbox) -> None:
    try:
        outbox.close()
    except SpoolError as error:
        _log.debug("The database could not be closed properly. error=%s", error)
