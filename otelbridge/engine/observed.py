"""The engine with somebody watching: what each rule tries with each event, and what comes of it.

It pairs exactly as `Engine` does, which knows nothing of being watched and pays nothing for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple, Protocol

from otelbridge.engine.engine import Decode, Engine, Handler
from otelbridge.engine.machines import Machines
from otelbridge.engine.order import Counts
from otelbridge.engine.outlet import Stream
from otelbridge.engine.pairs import Pairs, noted
from otelbridge.engine.state import Key, MachineState, OpenSpan, RuleState
from otelbridge.mapping.rules import Arguments, BeginOn, EndOn, Evaluate, Mapping, MetricRule, NoteOn, Now, SpanRule
from otelbridge.records import Row, Value

MAX_OPEN_SHOWN = 5
"""So many of the open spans of a rule are told with an attempt, the youngest first."""

How = Literal["begin", "end", "event", "state", "metric", "role", "reason"]
Outcome = Literal["done", "moved", "replaced", "condition", "none_open", "other_key", "ignored", "worse", "no_effect"]


class Open(NamedTuple):
    """A span that was open at a moment."""

    span_id: bytes
    start_ns: int
    key: Key


class Attempt(NamedTuple):
    """What one rule tried with one event.

    Attributes:
        rule: The rule's id, or the metric's name.
        how: What the event is to the rule.
        outcome: `done`; `moved` a begin to a better one; `replaced` an open span of the same key, which ended; or why nothing
            came of it: the `condition` is not met, no span of the rule is open (`none_open`), none with this key (`other_key`),
            the first one counts (`ignored`), a better begin was there (`worse`), it has `no_effect` in this state.
        now: What the condition could know beside the arguments.
        arguments: What the rules read of the event, in the order of `Plan.rows`.
        condition: The rule's `when` as it is written, empty for none.
        met: The value of the condition.
        key: The key as the event tells it, with the thread in front where both the rule and the stream have it.
        open: The youngest open spans of the rule before the event.
        open_count: How many there were.
        span_id: The span that it began, ended or was put into.
        other_id: The span that it ended by beginning another one.
        detail: The state, the role or the text that it told.
    """

    rule: str
    how: How
    outcome: Outcome
    time_ns: int
    row: Row
    arguments: Arguments
    now: Now
    condition: str = ""
    met: Value | None = None
    key: Key = ()
    open: tuple[Open, ...] = ()
    open_count: int = 0
    span_id: bytes = b""
    other_id: bytes = b""
    detail: str = ""


class Observer(Protocol):
    """Who is told what the engine does."""

    def came(self, time_ns: int, row: Row) -> None:
        """An event comes up; what is tried with it follows."""

    def counted(self, event: str, number: int) -> None:
        """So many of an event came that no rule needs one by one."""

    def unread(self, event: str) -> None:
        """The text of the event fits no declaration, so no rule got it."""

    def tried(self, attempt: Attempt) -> None:
        """A rule tried something with the event that came last."""

    def ended(self, rule: SpanRule, span: OpenSpan, event: str | None) -> None:
        """A span of a pair goes out; without an event it is incomplete."""


class _ObservedMachines(Machines):
    observer: Observer

    def enter(self, machine: MachineState, time_ns: int, row: Row, arguments: Arguments) -> bool:
        now, before = self.now(machine, row), machine.root
        state = machine.rule.state(arguments, None, now)
        held = () if before is None else (Open(before.span_id, before.start_ns, (before.state,)),)
        entered = super().enter(machine, time_ns, row, arguments)
        root = machine.root or before
        outcome: Outcome = "done" if entered else "no_effect"
        attempt = Attempt(machine.rule.id, "state", outcome, time_ns, row, arguments, now, open=held, open_count=len(held))
        self.observer.tried(attempt._replace(span_id=root.span_id if root else b"", detail=str(state)))
        return entered


class _ObservedPairs(Pairs):
    _short = False
    observer: Observer

    def begin(self, state: RuleState, on: BeginOn, time_ns: int, row: Row, arguments: Arguments) -> bool:
        attempt = self._attempt("begin", state, on, time_ns, row, arguments)
        waiting = state.by_key.get(attempt.key)
        before = waiting[-1] if waiting and attempt.outcome != "condition" else None
        began = super().begin(state, on, time_ns, row, arguments)
        youngest = next(reversed(state.by_number.values()), None)
        if began and youngest is not None:
            closed = before is not None and before is not youngest and before.number not in state.by_number
            outcome: Outcome = "moved" if before is youngest else "replaced" if closed else "done"
            other = before.span_id if closed and before is not None else b""
            attempt = attempt._replace(outcome=outcome, span_id=youngest.span_id, other_id=other)
        elif before is not None:
            outcome = "worse" if state.rule.repeated_begin == "prefer" else "ignored"
            attempt = attempt._replace(outcome=outcome, span_id=before.span_id)
        self.observer.tried(attempt)
        return began

    def end(self, state: RuleState, on: EndOn, time_ns: int, row: Row, arguments: Arguments) -> bool:
        attempt = self._attempt("end", state, on, time_ns, row, arguments)
        waiting = state.by_key.get(attempt.key, ())
        span = waiting[0 if state.rule.repeated_begin == "queue" else -1] if waiting else None
        ended = super().end(state, on, time_ns, row, arguments)
        if ended and span is not None:
            attempt = attempt._replace(span_id=span.span_id)
        elif attempt.outcome != "condition":
            attempt = attempt._replace(outcome="other_key" if attempt.open_count else "none_open")
        self.observer.tried(attempt)
        return ended

    def note(self, holder: RuleState | MachineState, note: NoteOn, time_ns: int, row: Row, arguments: Arguments) -> bool:
        if isinstance(holder, MachineState):
            now, target = self.machines.now(holder, row), holder.root
            met = _value(note.when, arguments, now)
            attempt = Attempt(holder.rule.id, "event", "done", time_ns, row, arguments, now, note.condition, met)
            span_id = b"" if target is None else target.span_id
        else:
            attempt = self._attempt("event", holder, note, time_ns, row, arguments)
            span = noted(holder, note, row, arguments, attempt.now)
            span_id = b"" if span is None else span.span_id
        put = super().note(holder, note, time_ns, row, arguments)
        outcome: Outcome = "done" if put else "condition" if span_id else "none_open"
        self.observer.tried(attempt._replace(outcome=outcome, span_id=span_id if put else b""))
        return put

    def _end(self, state: RuleState, span: OpenSpan, time_ns: int, event: str | None, *more: Any) -> None:  # noqa: ANN401
        self.observer.ended(state.rule, span, event)
        super()._end(state, span, time_ns, event, *more)

    def _attempt(
        self, how: How, state: RuleState, on: BeginOn | EndOn | NoteOn, time_ns: int, row: Row, arguments: Arguments
    ) -> Attempt:
        """What is known before the event has its effect."""
        rule = state.rule
        if time_ns > state.expires_ns:
            self._expire(state, time_ns)
        now = self.machines.now(state.machine, row)
        met = _value(on.when, arguments, now)
        key = () if on.key is None else on.key(arguments, now)
        youngest = islice(reversed(state.by_number.values()), MAX_OPEN_SHOWN)
        held = tuple(Open(span.span_id, span.start_ns, span.key) for span in youngest)
        outcome: Outcome = "condition" if on.when is not None and not met else "done"
        return Attempt(
            rule.id, how, outcome, time_ns, row, arguments, now, on.condition, met, key, held, len(state.by_number)
        )  # fmt: skip


class ObservedEngine(Engine):
    """An engine that tells `observer` what it does; everything else is as in `Engine`."""

    _machines_type = _ObservedMachines
    _pairs_type = _ObservedPairs
    _short = False

    def __init__(self, observer: Observer, mapping: Mapping, stream: Stream, decode: Decode, *more: Any) -> None:  # noqa: ANN401
        def told(event: str, raw: bytes) -> Arguments | None:
            arguments = decode(event, raw)
            if arguments is None:
                observer.unread(event)
            return arguments

        super().__init__(mapping, stream, told, *more)
        self._observer, self._now_ns = observer, 0
        for part in (self._machines, self._pairs):
            if isinstance(part, (_ObservedMachines, _ObservedPairs)):
                part.observer = observer

    def _count(self, item: Counts) -> None:
        for event, number in item.counts.items():
            self._observer.counted(event, number)
        super()._count(item)

    def _handle(self, items: Sequence[tuple[int, Row | Counts]]) -> None:
        for time_ns, item in items:
            if isinstance(item, Counts):
                self._count(item)
            else:
                self._row(time_ns, item)

    def _row(self, time_ns: int, row: Row) -> None:
        """One event, without any short way."""
        self._now_ns = time_ns
        self._observer.came(time_ns, row)
        self._start(time_ns)
        handler = self._handlers.get(row.event) or self._handler(row.event)
        if handler.came:
            handler.came += 1
        else:
            self._meet(handler)
        bucket = "unmapped"
        if handler.has_rules:
            arguments = self._decode(row.event, row.raw) if handler.reads else ()
            bucket = "malformed" if arguments is None else self._apply(handler, time_ns, row, arguments)
        elif not row.unit:
            self._count_torn(row.event)
        self._accounting.buckets[bucket] += row.unit

    def _hear(self, handler: Handler, row: Row, arguments: Arguments) -> None:
        super()._hear(handler, row, arguments)
        for machine, roles in handler.evidence:
            self._heard(machine, "role", ", ".join(roles), row, arguments)
        for machine, reason in handler.reasons:
            text = reason(arguments, None, self._machines.now(machine, row))
            self._heard(machine, "reason", "" if text is None else str(text), row, arguments)

    def _heard(self, machine: MachineState, how: How, detail: str, row: Row, arguments: Arguments) -> None:
        taken = how == "role" or (machine.root is not None and detail)
        outcome: Outcome = "done" if taken else "none_open"
        now = self._machines.now(machine, row)
        self._observer.tried(Attempt(machine.rule.id, how, outcome, self._now_ns, row, arguments, now, detail=detail))

    def _measure(self, rule: MetricRule, row: Row, arguments: Arguments) -> bool:
        measured = super()._measure(rule, row, arguments)
        now = self._machines.now(self._first_machine, row)
        met = _value(rule.when, arguments, now)
        outcome: Outcome = "done" if measured else "no_effect" if rule.when is None or met else "condition"
        self._observer.tried(
            Attempt(rule.metric.name, "metric", outcome, self._now_ns, row, arguments, now, rule.condition, met)
        )
        return measured


def _value(when: Evaluate | None, arguments: Arguments, now: Now) -> Value | None:
    return None if when is None else when(arguments, None, now)
