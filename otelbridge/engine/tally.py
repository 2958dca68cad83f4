"""Counts, event by event, what the rules could do with it."""

from __future__ import annotations

from collections import Counter

from otelbridge.engine.observed import Attempt
from otelbridge.engine.state import OpenSpan
from otelbridge.mapping.rules import SpanRule
from otelbridge.records import Row


class Tally:
    """An observer that counts. Read the counters when `finish` was called.

    Attributes:
        came_up: How often each event came.
        paired: Spans that it began and whose end came, and spans that it ended.
        left_open: Spans that it began and that no event ended.
        orphaned: It should have ended something, and no rule could use it.
        unread_texts: Its text fits no declaration.
    """

    def __init__(self) -> None:
        self.came_up: Counter[str] = Counter()
        self.paired: Counter[str] = Counter()
        self.left_open: Counter[str] = Counter()
        self.orphaned: Counter[str] = Counter()
        self.unread_texts: Counter[str] = Counter()
        self._event, self._ends, self._used = "", False, False

    def came(self, _time_ns: int, row: Row) -> None:
        """The event before is over, this one begins."""
        self.finish()
        self._event = row.event
        self.came_up[row.event] += 1

    def counted(self, event: str, number: int) -> None:
        """Events that were counted only."""
        self.came_up[event] += number

    def unread(self, event: str) -> None:
        """It came, and no rule got it."""
        self.unread_texts[event] += 1

    def tried(self, attempt: Attempt) -> None:
        """What a rule made of the event."""
        done = attempt.outcome in ("done", "moved", "replaced")
        self._ends |= attempt.how == "end" and attempt.outcome in ("none_open", "other_key")
        self._used |= done
        if done and attempt.how == "end":
            self.paired[self._event] += 1

    def ended(self, _rule: SpanRule, span: OpenSpan, event: str | None) -> None:
        """A span goes out."""
        (self.left_open if event is None else self.paired)[span.begin_event] += 1

    def finish(self) -> None:
        """The last event is over."""
        if self._ends and not self._used:
            self.orphaned[self._event] += 1
        self._ends = self._used = False
