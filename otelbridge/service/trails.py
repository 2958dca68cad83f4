"""What a stream leaves behind for the question with which other stream's migrations its own belong together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from otelbridge.engine import Join, LinkIndex
from otelbridge.engine.clocks import ARGUMENTS, Listener
from otelbridge.engine.fits import Log, Seen, seen
from otelbridge.engine.shifts import Shifts
from otelbridge.engine.state import link_of, plain_link, plain_span, span_of
from otelbridge.records import SECOND_NS, FinishedSpan, Row, Value

MAX_HEARD = 20_000
"""Ends of messages between hosts; a migration has some hundreds a minute, in postcopy one for each page."""
REMEMBER_NS = 60 * SECOND_NS
"""The other side of a migration that has ended so long ago will not come any more."""
_BEFORE_NS = SECOND_NS


class Trail:
    """The messages of a stream's migrations, their roots that have ended, and what their spans offer to links and ask of them.

    Args:
        machines: The names of root spans.
        decode: Gives the arguments of an event as clocks.ARGUMENTS has them.
    """

    def __init__(self, machines: Collection[str], decode: Callable[[str, bytes], Sequence[Value | None] | None]) -> None:
        self._machines, self._listener = machines, Listener(decode)
        self._decode = decode
        self._roots: dict[int, list[FinishedSpan]] = {}
        self._indexes: dict[int, LinkIndex] = {}
        self.has_overflowed = False
        """Whether there were too many messages, so that nothing can be said of the migration that they are of."""

    def index(self, number: int) -> LinkIndex:
        """What the engine of a process fills."""
        return self._indexes.setdefault(number, LinkIndex())

    def hear(self, number: int, rows: Sequence[Row]) -> None:
        """Take note of rows of a process."""
        for row in rows:
            if row.event in ARGUMENTS:
                self._listener.hear(row, number)
        if self._listener.heard > MAX_HEARD:
            self._listener = Listener(self._decode)
            self.has_overflowed = True

    def saw(self, number: int, spans: Sequence[FinishedSpan]) -> None:
        """Take note of the roots among the spans of a process."""
        for span in spans:
            if span.name in self._machines:
                self._ended(number, span)

    def _ended(self, number: int, root: FinishedSpan) -> None:
        """A migration has ended; what ended long before it is forgotten."""
        if self.has_overflowed:
            self.forget()
            return
        roots = [*self._roots.get(number, ()), root]
        kept = self._roots[number] = [one for one in roots if one.end_ns >= root.end_ns - REMEMBER_NS]
        for old in roots:
            if old not in kept:
                self._indexes[number].offered.pop(old.span_id, None)
                self._indexes[number].asked.pop(old.span_id, None)
        if len(kept) < len(roots):
            self._listener.forget(number, min(one.start_ns for one in kept) - _BEFORE_NS)

    def begins(self) -> list[int]:
        """When the sources' migrations that have ended began."""
        return [
            root.start_ns
            for roots in self._roots.values()
            for root in roots
            if ("qemu.migration.role", "source") in root.attributes
        ]

    def migrations(self, first: int, log: Log) -> list[Seen]:
        """The migrations that have ended. Processes are streams of their own, numbered from `first`."""
        if self.has_overflowed:
            return []
        log = log._replace(whole=log.whole and not self._listener.unread)
        return [
            one
            for number, roots in self._roots.items()
            for machine in self._machines
            for one in seen(first + number, log, roots, machine, self.index(number), self._listener, number)
        ]

    def forget(self) -> None:
        """Nothing of it is asked for any more."""
        self._listener = Listener(self._decode)
        self._roots.clear()
        self.has_overflowed = False
        for index in self._indexes.values():
            index.offered.clear()
            index.asked.clear()

    def let_go(self, number: int) -> None:
        """A process has ended."""
        self._roots.pop(number, None)
        self._indexes.pop(number, None)

    def snapshot(self) -> dict[str, Any]:
        """The state as plain data."""
        return {
            "heard": self._listener.snapshot(),
            "roots": [[number, [plain_span(root) for root in roots]] for number, roots in self._roots.items()],
            "indexes": [[number, _plain_index(index)] for number, index in self._indexes.items()],
            "overflowed": self.has_overflowed,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `snapshot`."""
        self._listener.restore(state["heard"])
        self._roots = {number: [span_of(plain) for plain in roots] for number, roots in state["roots"]}
        self.has_overflowed = state["overflowed"]
        for number, plain in state["indexes"]:
            _fill(self.index(number), plain)


def _plain_index(index: LinkIndex) -> dict[str, Any]:
    return {
        "offered": [
            [root.hex(), rule, list(key), ids.hex()]
            for root, by_rule in index.offered.items()
            for rule, by_key in by_rule.items()
            for key, ids in by_key.items()
        ],
        "asked": [
            [root.hex(), rule, list(key), number]
            for root, by_rule in index.asked.items()
            for rule, by_key in by_rule.items()
            for key, number in by_key.items()
        ],
    }


def _fill(index: LinkIndex, plain: Mapping[str, Any]) -> None:
    for root, rule, key, ids in plain["offered"]:
        by_key = index.offered.setdefault(bytes.fromhex(root), {}).setdefault(rule, {})
        by_key[tuple(key)] = bytearray.fromhex("".join(ids))  # older snapshots hold a list of them
    for root, rule, key, number in plain["asked"]:
        index.asked.setdefault(bytes.fromhex(root), {}).setdefault(rule, Counter())[tuple(key)] = number


def plain_joined(joins: Mapping[bytes, Join], shifts: Mapping[int, Shifts]) -> list[Any]:
    """Both as plain data."""
    plain_joins = [
        [
            root.hex(), one.trace_id.hex(), one.parent_id.hex(), one.parent_start_ns,
            [
                [rule, list(key), [link and plain_link(link) for link in links]]
                for rule, by_key in one.links.items()
                for key, links in by_key.items()
            ],
        ]
        for root, one in joins.items()
    ]  # fmt: skip
    return [plain_joins, [[number, one.plain()] for number, one in shifts.items()]]


def joined_of(joins: Sequence[Any], shifts: Sequence[Any]) -> tuple[dict[bytes, Join], dict[int, Shifts]]:
    """What `plain_joined` was made of."""
    found: dict[bytes, Join] = {}
    for root, trace, parent, start_ns, plain_links in joins:
        links: dict[str, dict[Any, Any]] = {}
        for rule, key, targets in plain_links:
            links.setdefault(rule, {})[tuple(key)] = [target and link_of(target) for target in targets]
        found[bytes.fromhex(root)] = Join(bytes.fromhex(trace), bytes.fromhex(parent), start_ns, links)
    return found, {number: Shifts.of_plain(plain) for number, plain in shifts}
