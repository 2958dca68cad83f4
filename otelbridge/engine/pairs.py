"""Pairing: which end belongs to which begin, and where a span hangs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

from otelbridge.engine.ids import SPAN_ID_BYTES, span_ids, trace_id
from otelbridge.engine.machines import Machines, failure_of
from otelbridge.engine.outlet import Body, Outlet, Stream, given
from otelbridge.engine.short import MAX_OPEN, Use, begin_of, end_of
from otelbridge.engine.state import (
    MAX_NOTES,
    Key,
    Loader,
    MachineState,
    OpenSpan,
    Root,
    RuleState,
    Saver,
    Shape,
    Trace,
    plain_shape,
    shape_of,
)
from otelbridge.mapping.rules import Arguments, BeginOn, EndOn, NoteOn, Now, SpanRule
from otelbridge.records import Row, SpanEvent, Value

MAX_RECALLED = 10_000
MAX_OFFERED = 100_000
"""So many spans of one migration and one key can be pointed to."""


class LinkIndex:
    """What one stream has to offer to links and asks of them, for each root by its span id.

    Attributes:
        offered: Root -> rule -> key -> the ids of its spans in their order, one after the other. Most keys have
            one, and a list of one takes twice as much.
        asked: Root -> rule -> key -> how many spans want to point to it.
    """

    __slots__ = ("asked", "offered")

    def __init__(self) -> None:
        self.offered: dict[bytes, dict[str, dict[Key, bytearray]]] = {}
        self.asked: dict[bytes, dict[str, Counter[Key]]] = {}


class Pairs:
    """The open spans of all rules of a stream."""

    _short = True
    """Whether events may go the short ways."""

    def __init__(
        self, rules: tuple[SpanRule, ...], stream: Stream, outlet: Outlet, machines: Machines, index: LinkIndex | None
    ) -> None:
        by_id = {rule.id: rule for rule in rules}
        self.states = {rule.id: RuleState(rule, machines.of(rule, by_id), span_ids(stream.key, rule.id)) for rule in rules}
        everything: dict[str, RuleState | MachineState] = {**self.states, **machines.states}
        for state in self.states.values():
            state.outer = tuple([everything[name] for name in state.rule.inside if name in everything])
        self.outlet, self.machines = outlet, machines
        self._stream, self._index = stream, index
        self._until_next = [state for state in self.states.values() if state.rule.until_next]
        for state in self.states.values():
            state.children = any(state in child.outer for child in self._until_next)
        self._kept = [state for state in self.states.values() if state.rule.keep]
        self._timed = [state for state in self.states.values() if state.rule.timeout_ns is not None]
        self.given_up = 0
        """Spans that were ended because too many of their rule were open."""
        self._link_targets = {link.rule for rule in rules for link in rule.links}

    @property
    def open(self) -> int:
        """How many spans are open."""
        return sum(len(state.by_number) for state in self.states.values())

    def beginning(self, state: RuleState, on: BeginOn) -> Use:
        """What an event does that may begin a span of a rule."""
        return begin_of(self, state, on) if self._short else partial(self.begin, state, on)

    def ending(self, state: RuleState, on: EndOn) -> Use:
        """What an event does that may end a span of a rule."""
        return end_of(self, state, on) if self._short else partial(self.end, state, on)

    # --- begins -------------------------------------------------------------------------------------

    def begin(self, state: RuleState, on: BeginOn, time_ns: int, row: Row, arguments: Arguments) -> bool:
        """An event that may begin a span; whether it did."""
        rule = state.rule
        if time_ns > state.expires_ns:
            self._expire(state, time_ns)
        now = self.machines.now(state.machine, row)
        if on.when is not None and not on.when(arguments, None, now):
            return False
        key = on.key(arguments, now)
        if key in state.by_key:
            span = state.by_key[key][-1]
            if rule.repeated_begin == "prefer":
                return _moved(state, span, on, time_ns, row, arguments)
            if rule.repeated_begin == "ignore":
                return False
            if rule.until_next:
                self._end(state, span, time_ns, row.event, None, None)
            elif rule.repeated_begin == "close":
                self._end(state, span, time_ns, None, None, None)
        if len(state.by_number) >= MAX_OPEN:
            self.given_up += 1
            self._end(state, next(iter(state.by_number.values())), time_ns, None, None, None)
        state.add(self._opened(state, on, key, time_ns, row, arguments, now))
        return True

    def _opened(
        self, state: RuleState, on: BeginOn, key: Key, time_ns: int, row: Row, arguments: Arguments, now: Now
    ) -> OpenSpan:
        rule = state.rule
        state.number += 1
        span = OpenSpan(state.number, state.identity(state.number, time_ns), time_ns, row[1], key)
        span.begin_event, span.arguments, span.rank = row[2], arguments, on.rank
        span.parent_id, span.trace, span.root = self.place(state, span)
        span.trace.open += 1
        self.tell_more(rule, span, now)
        return span

    def connects(self, rule: SpanRule) -> bool:
        """Whether a span of the rule has to be told more of when it begins."""
        return bool(rule.ordinals or rule.links) or self._index is not None

    def tell_more(self, rule: SpanRule, span: OpenSpan, now: Now) -> None:
        """Number a span that has just begun, and connect it with those of the other host."""
        if rule.ordinals:
            span.ordinals = tuple((name, self._ordinal(machine, rule, span)) for name, machine in rule.ordinals)
        if span.root is not None and (rule.links or self._index is not None):
            self._connect(rule, span, span.root, now)

    def place(self, state: RuleState, span: OpenSpan) -> tuple[bytes, Trace, Root | None]:
        """The parent's id, the trace, the root."""
        for outer in state.outer:
            if isinstance(outer, MachineState):
                if outer.root is not None:
                    return outer.root.span_id, outer.root.trace, outer.root
            elif youngest := outer.youngest(span.thread):
                return youngest.span_id, youngest.trace, youngest.root
        machine = state.machine
        if machine is not None and machine.root is not None:
            return machine.root.span_id, machine.root.trace, machine.root
        trace = Trace((state.rule.id, span.number, span.start_ns))
        if machine is None:
            trace.id = trace_id(self._stream.key, *trace.origin)
        else:
            self.outlet.wait(trace)
        return b"", trace, None

    def _ordinal(self, machine_id: str, rule: SpanRule, span: OpenSpan) -> int:
        machine = self.machines.states.get(machine_id)
        if machine is None or machine.root is None:
            return span.number
        number = machine.root.ordinals.get(rule.id, 0) + 1
        machine.root.ordinals[rule.id] = number
        return number

    def adopt(self, root: Root) -> None:
        """A machine opened: what was open already, and was taken into its trace, is part of it."""
        for state in self.states.values():
            for span in state.by_number.values():
                if span.root is None and span.trace.id == root.trace.id:
                    span.root = root
                    now = self.machines.now_of(state.machine, root, span.thread, span.begin_event, None)
                    self._connect(state.rule, span, root, now)

    # --- links --------------------------------------------------------------------------------------

    def _connect(self, rule: SpanRule, span: OpenSpan, root: Root, now: Now) -> None:
        """Offer a span to those of the other host, and let it point to one of them."""
        if self._index is not None:
            self._offer(rule, span, root)
        if rule.links:
            self._link(rule, span, root, now)

    def _offer(self, rule: SpanRule, span: OpenSpan, root: Root) -> None:
        if self._index is not None and rule.id in self._link_targets:
            key = span.key[1:] if rule.thread and span.thread is not None else span.key
            offered = self._index.offered.setdefault(root.span_id, {}).setdefault(rule.id, {}).setdefault(key, bytearray())
            if len(offered) < MAX_OFFERED * SPAN_ID_BYTES:
                offered += span.span_id

    def _link(self, rule: SpanRule, span: OpenSpan, root: Root, now: Now) -> None:
        """Point to the span of the other host that has the same place among those with the same key."""
        for link in rule.links:
            wanted = link.key[span.begin_event](span.arguments, now)
            if None in wanted:
                continue
            if self._index is not None:
                self._index.asked.setdefault(root.span_id, {}).setdefault(link.rule, Counter())[wanted] += 1
            place = root.link_counts.get((link.rule, wanted), 0)
            root.link_counts[link.rule, wanted] = place + 1
            targets = root.links.get(link.rule, {}).get(wanted, ())
            target = targets[place] if place < len(targets) else None
            if target is not None:
                span.links += (target,)

    # --- ends ---------------------------------------------------------------------------------------

    def end(self, state: RuleState, on: EndOn, time_ns: int, row: Row, arguments: Arguments) -> bool:
        """An event that may end a span; whether it did."""
        if time_ns > state.expires_ns:
            self._expire(state, time_ns)
        if not state.by_number:
            return False
        now = self.machines.now(state.machine, row)
        if on.when is not None and not on.when(arguments, None, now):
            return False
        waiting = state.by_key.get(on.key(arguments, now))
        if not waiting:
            return False
        span = waiting[0] if state.rule.repeated_begin == "queue" else waiting[-1]
        failed = None
        if on.failure is not None:
            both = now._replace(begin_event=span.begin_event, end_event=row.event)
            failed = failure_of(on.failure, span.arguments, arguments, both)
        self._end(state, span, time_ns, row.event, arguments, failed)
        return True

    def _end(
        self,
        state: RuleState,
        span: OpenSpan,
        time_ns: int,
        event: str | None,
        arguments: Arguments | None,
        failed: tuple[str, str] | None,
    ) -> None:
        """A span goes out. Without an event that ended it, it is incomplete."""
        rule, root, trace = state.rule, span.root, span.trace
        state.remove(span)
        end_ns = max(time_ns, span.start_ns)
        if self._until_next:
            self.close_children(span.span_id, end_ns, event)
        plain = event is not None and failed is None and span.failure is None
        competes = rule.keep is not None and root is not None and not root.closed
        if competes and plain and root is not None and self.outlet.count_short(root, rule, span.start_ns, end_ns):
            trace.open -= 1
            trace.last_ns = max(trace.last_ns, end_ns)
            return
        now = self.machines.now_of(state.machine, root, span.thread, span.begin_event, event)
        body = Body(
            span.start_ns, end_ns, self.attributes(rule, span, now, arguments), span.notes, span.links, failed or span.failure,
            span.dropped_notes, event is not None, span.doubtful,
        )  # fmt: skip
        finished = self.outlet.finished(trace, span.span_id, span.parent_id, state.shape, body)
        if rule.duration is not None and event is not None:
            self.outlet.record(rule.duration, finished, trace, root if rule.keep else None)
        trace.open -= 1
        trace.last_ns = max(trace.last_ns, end_ns)
        if competes and root is not None:
            self.outlet.keep(root, rule, span.number, finished, complete=event is not None)
        else:
            self.outlet.give(trace, finished)

    @staticmethod
    def attributes(rule: SpanRule, span: OpenSpan, now: Now, arguments: Arguments | None) -> list[tuple[str, Value]]:
        """All attributes of a span that ends, but for those that every span is marked with."""
        root, event = span.root, now.end_event
        found: list[tuple[str, Value]] = [("qemu.event.begin", span.begin_event)]
        if event is not None:
            found.append(("qemu.event.end", event))
        for name, evaluate in rule.attributes(span.begin_event, event if arguments is not None else None):
            value = evaluate(span.arguments, arguments, now)
            if value is not None:
                found.append((name, value))
        if rule.recalls and root is not None:
            _recall(rule, root, span, found, now)
        found += span.ordinals
        if rule.thread and span.thread is None:
            found.append(("otelbridge.pairing", ",".join(rule.key_names) or "order"))
        return found

    def close_children(self, parent_id: bytes, end_ns: int, event: str | None) -> None:
        """What lasts until the next one ends with its parent at the latest."""
        for state in self._until_next:
            if not state.by_number:
                continue
            for span in [s for s in state.by_number.values() if s.parent_id == parent_id]:
                self._end(state, span, end_ns, event, None, None)

    def close_root(self, root_id: bytes, end_ns: int, event: str | None) -> None:
        """A root ends, and with it what lasts until the next one; what competes to be kept within it must do so now."""
        self.close_children(root_id, end_ns, event)
        for state in self._kept:
            for span in [s for s in state.by_number.values() if s.root is not None and s.root.span_id == root_id]:
                self._end(state, span, end_ns, None, None, None)

    def time_out(self, time_ns: int) -> None:
        """Give up what has been open longer than its rule allows."""
        for state in self._timed:
            if time_ns > state.expires_ns:
                self._expire(state, time_ns)

    def _expire(self, state: RuleState, time_ns: int) -> None:
        """Spans are in the order of their begins, so the oldest tell."""
        timeout_ns = state.rule.timeout_ns or 0
        while state.by_number:
            span = next(iter(state.by_number.values()))
            if span.start_ns + timeout_ns >= time_ns:
                state.expires_ns = span.start_ns + timeout_ns
                break
            self._end(state, span, span.start_ns + timeout_ns, None, None, None)

    def finish(self, last_ns: int) -> None:
        """What is open goes out as incomplete."""
        self.time_out(last_ns)
        for state in self.states.values():
            for span in list(state.by_number.values()):
                if span.number in state.by_number:
                    self._end(state, span, last_ns, None, None, None)

    def doubt(self) -> None:
        """Events were dropped while these were open."""
        for state in self.states.values():
            for span in state.by_number.values():
                span.doubtful = True

    # --- span events ----------------------------------------------------------------------------------

    def note(self, holder: RuleState | MachineState, note: NoteOn, time_ns: int, row: Row, arguments: Arguments) -> bool:
        """Put a span event into the open span it belongs to; whether there is one."""
        target: OpenSpan | Root | None
        if isinstance(holder, MachineState):
            target, now = holder.root, self.machines.now(holder, row)
        else:
            if time_ns > holder.expires_ns:
                self._expire(holder, time_ns)
            if not holder.by_number:
                return False
            now = self.machines.now(holder.machine, row)
            target = noted(holder, note, row, arguments, now)
        if target is None or (note.when is not None and not note.when(arguments, None, now)):
            return False
        failed = failure_of(note.failure, arguments, None, now)
        if failed is not None and isinstance(target, OpenSpan) and target.failure is None:
            # What fails first is the cause: a field that does not load makes every field around it fail.
            target.failure = failed
        if len(target.notes) >= MAX_NOTES:
            target.dropped_notes += 1
        else:
            attributes = given((name, evaluate(arguments, None, now)) for name, evaluate in note.attributes)
            target.notes.append(SpanEvent(time_ns, row.event, attributes))
        return True

    # --- snapshots ------------------------------------------------------------------------------------

    def snapshot(self, saver: Saver) -> dict[str, Any]:
        """The state as plain data."""
        return {
            s.rule.id: {
                "number": s.number,
                "shape": plain_shape(s.shape),
                "key": _key_names(s.rule),
                "spans": [saver.span(span) for span in s.by_number.values()],
            }
            for s in self.states.values()
            if s.number
        }

    def restore(self, state: Mapping[str, Any], loader: Loader, last_ns: int) -> None:
        """Go on from `snapshot`. What no rule can end any more goes out as incomplete."""
        for known in self.states.values():
            known.children = bool(self._until_next)  # what is open may lie in what it may not lie in by these rules
            if known.endings is not None:
                known.endings.clear()
        for name, saved in state.items():
            mine = self.states.get(name)
            if mine is not None:
                mine.number = saved["number"]
            for plain in saved["spans"]:
                span = loader.span(plain)
                if mine is not None and span.begin_event in mine.rule.begins and _key_names(mine.rule) == saved["key"]:
                    mine.add(span)
                else:
                    self._let_go(span, shape_of(saved["shape"]), last_ns)

    def _let_go(self, span: OpenSpan, shape: Shape, last_ns: int) -> None:
        """A span whose rule is gone ends with what is known without it."""
        attributes: list[tuple[str, Value]] = [("qemu.event.begin", span.begin_event), *span.ordinals]
        body = Body(
            span.start_ns, max(last_ns, span.start_ns), attributes, span.notes, span.links, span.failure, span.dropped_notes,
            complete=False, doubtful=span.doubtful,
        )  # fmt: skip
        finished = self.outlet.finished(span.trace, span.span_id, span.parent_id, shape, body)
        span.trace.open -= 1
        span.trace.last_ns = max(span.trace.last_ns, body.end_ns)
        self.outlet.give(span.trace, finished)


def _key_names(rule: SpanRule) -> list[Any]:
    """What tells whether a key is still made of the same."""
    return [rule.thread, *rule.key_names]


def _moved(state: RuleState, span: OpenSpan, on: BeginOn, time_ns: int, row: Row, arguments: Arguments) -> bool:
    """Let a better begin, or the same again, take the place of the one that was seen."""
    if on.rank > span.rank:
        return False
    state.by_number.move_to_end(span.number)  # it now is the youngest
    span.start_ns, span.begin_event, span.arguments, span.rank = time_ns, row.event, arguments, on.rank
    return True


def _recall(rule: SpanRule, root: Root, span: OpenSpan, found: list[tuple[str, Value]], now: Now) -> None:
    """Remember the values that this span has, and lend it those that it lacks."""
    for name, keys in rule.recalls:
        place = (rule.id, name, keys[span.begin_event](span.arguments, now))
        value = next((v for n, v in found if n == name), None)
        if value is not None:
            if place in root.recalled or len(root.recalled) < MAX_RECALLED:
                root.recalled[place] = value
        elif place in root.recalled:
            found.append((name, root.recalled[place]))


def noted(holder: RuleState, note: NoteOn, row: Row, arguments: Arguments, now: Now) -> OpenSpan | None:
    """The open span that an event belongs to which is put into one."""
    if note.key is None:
        return holder.youngest(row.thread)
    waiting = holder.by_key.get(note.key(arguments, now))
    return waiting[-1] if waiting else None
