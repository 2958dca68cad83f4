"""Several QEMU processes in one file: which row belongs to which.

Where rows carry a process id, that is the answer. The log backend of 4.0 to 10.0 names threads, never processes, so there it
is a guess from what threads do. Some events come
from a process's main thread alone; when a second thread does what only a main thread does, it is a second process. Every
other thread joins a process of its side of the migration, the one that last had reason to start such a thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any

from otelbridge.records import Row

# 24948@1795408304.942435:migrate_set_state new state setup
# 24985@1795408304.944649:migration_socket_incoming_accepted
_MAIN = {
    "migration_socket_incoming_accepted": "destination",
    "migration_tls_incoming_handshake_start": "destination",
    "migration_set_incoming_channel": "destination",
    "migration_socket_outgoing_connected": "source",
    "migration_socket_outgoing_error": "source",
    "migration_tls_outgoing_handshake_start": "source",
    "migration_set_outgoing_channel": "source",
}
_SETUP = ("migrate_set_state", b"new state setup")
_TELLING = {*_MAIN, _SETUP[0]}
_PARTS = itemgetter(2), itemgetter(1), itemgetter(5)
"""Event, thread and process of a row."""
_SOURCE = (
    "savevm_", "migration_thread_", "migration_bitmap_", "migration_rate_", "migrate_pending", "migrate_transferred",
    "multifd_send", "source_return_path", "ram_save", "migration_completion", "open_return_path", "vmstate_save",
)  # fmt: skip
_DESTINATION = ("loadvm_", "qemu_loadvm", "multifd_recv", "postcopy_ram_", "postcopy_place", "ram_load", "vmstate_load")


_SOME_IDS = 20
MAX_THREADS = 10_000
"""So many threads are told apart; a migration has some ten."""

_MARKS = {"source": b"savevm_state_setup", "destination": b"loadvm_state_setup"}
MARK_BYTES = max(map(len, _MARKS.values()))


def two_sided(block: bytes, known: set[str]) -> set[str]:
    """The sides of a migration whose setup is traced in a block of text, without those known already: a quick look."""
    return {side for side, mark in _MARKS.items() if side not in known and mark in block}


def side(event: str) -> str | None:
    """The side of a migration that an event is written on, None if both write it."""
    if event in _MAIN:
        return _MAIN[event]
    if event.startswith(_SOURCE):
        return "source"
    return "destination" if event.startswith(_DESTINATION) else None


class _Process:
    __slots__ = ("families", "main", "role", "spawned")

    def __init__(self) -> None:
        self.main: int | None = None
        self.role: str | None = None
        self.spawned = 0
        """When its main thread last did something, in rows."""
        self.families: set[str] = set()
        """The first words of what its other threads do: a second migration thread is another process's."""


class Processes:
    """Assigns rows to processes, numbered from 0 in the order of their appearance."""

    def __init__(self) -> None:
        self._of: dict[int | None, int] = {None: 0}
        self._all = [_Process()]
        self._by_id: dict[int, int] = {}
        self._told_so_far = 0
        self._rows = 0

    def __len__(self) -> int:
        return max(len(self._all), self._told_so_far)

    def role(self, number: int) -> str | None:
        """The side that a process is on, as far as its threads show it."""
        return self._all[number].role

    def split(self, rows: list[Row]) -> list[list[Row]]:
        """The rows of each process, by its number."""
        if len(self._all) == 1 and not self._by_id and self._known(rows):
            self._rows += len(rows)
            return [rows]
        found: list[list[Row]] = [[]]
        for row in rows:
            number = self.of(row)
            while len(found) <= number:
                found.append([])
            found[number].append(row)
        return found

    def _known(self, rows: list[Row]) -> bool:
        """Whether all threads were seen before and none of the rows tells more of them."""
        events, threads, processes = (set(map(part, rows)) for part in _PARTS)
        return processes == {None} and threads <= self._of.keys() and events.isdisjoint(_TELLING)

    def known(self, row: Row) -> int | None:
        """The process that a row comes from if rows before it tell."""
        return self._of.get(row.thread) if row.process is None else self._by_id.get(row.process)

    def of(self, row: Row) -> int:
        """The process that a row comes from."""
        if row.process is not None:
            return self._told(row)
        self._rows += 1
        number = self._of.get(row.thread)
        if number is None:
            if len(self._of) > MAX_THREADS:
                self._forget_threads()
            number = self._of[row.thread] = self._assign(row)
        process = self._all[number]
        if row.event in _MAIN or (row.event, row.raw) == _SETUP:
            if process.main not in (None, row.thread) and not self._recovers(row):
                # What it did before could be any thread's; a second main thread is another process's.
                self._all.append(_Process())
                number = self._of[row.thread] = len(self._all) - 1
                process = self._all[number]
            process.main = row.thread if process.main is None else process.main
            process.role = process.role or _MAIN.get(row.event)
            process.spawned = self._rows
        return number

    def _told(self, row: Row) -> int:
        """The process that a row names."""
        number = self._by_id.get(row.process or 0)
        if number is None:
            number = self._by_id[row.process or 0] = self._told_so_far
            self._told_so_far += 1
        return number

    def forget(self, number: int) -> None:
        """A process that the input names has ended: if its id comes again, it is another's."""
        self._by_id = {process: known for process, known in self._by_id.items() if known != number}

    @property
    def ids(self) -> dict[int, int]:
        """The ids of the processes, by the numbers that they have here; empty where the input tells none."""
        return {number: process for process, number in self._by_id.items()}

    @property
    def some_ids(self) -> list[int]:
        """Ids of processes if the input tells them, else of threads, the last ones first; not all where there are many."""
        known = [process for process in (self._by_id or self._of) if process is not None]
        return known[:-_SOME_IDS:-1]

    def _assign(self, row: Row) -> int:
        """A thread that was not seen before."""
        main = row.event in _MAIN or (row.event, row.raw) == _SETUP
        if main and self._all[-1].main is not None and not self._recovers(row):
            self._all.append(_Process())
            return len(self._all) - 1
        wanted, family = side(row.event), row.event.split("_")[0]
        fitting = [n for n, p in enumerate(self._all) if wanted is None or p.role in (None, wanted)] or [*range(len(self._all))]
        free = [n for n in fitting if family not in self._all[n].families] or fitting
        number = max(free, key=lambda n: self._all[n].spawned)
        if not main:
            self._all[number].families.add(family)
        return number

    def _forget_threads(self) -> None:
        """The older half of the threads, but for main ones, which live as long as their process."""
        main = {process.main for process in self._all}
        old = [thread for thread in self._of if thread is not None and thread not in main]
        for thread in old[: len(old) // 2]:
            del self._of[thread]

    def _recovers(self, row: Row) -> bool:
        """A paused postcopy is taken up again by a thread of the monitor, which then sets the state too."""
        return row.event == _SETUP[0] and any("postcopy" in p.families for p in self._all)

    def snapshot(self) -> dict[str, Any]:
        """The state as plain data."""
        return {
            "rows": self._rows,
            "ids": [[process, number] for process, number in self._by_id.items()],
            "told": self._told_so_far,
            "of": [[thread, number] for thread, number in self._of.items()],
            "all": [[p.main, p.role, p.spawned, sorted(p.families)] for p in self._all],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `snapshot`."""
        self._rows, self._told_so_far = state["rows"], state["told"]
        self._of, self._by_id = dict(state["of"]), dict(state["ids"])
        self._all = []
        for main, role, spawned, families in state["all"]:
            process = _Process()
            process.main, process.role, process.spawned, process.families = main, role, spawned, set(families)
            self._all.append(process)
