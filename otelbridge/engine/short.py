"""The short ways of pairing: what `Pairs.begin` and `Pairs.end` do with one event of one rule, made for just that.

What is the same for every such event is looked up once. Both give what the plain ways give, and hand on to them what is no
ordinary span: a key that is open already, a timeout, a span outside of a migration or with a failure of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from otelbridge.engine.machines import failure_of
from otelbridge.engine.state import Ending, Key, OpenSpan, RuleState
from otelbridge.mapping.rules import Arguments, BeginOn, EndOn, KeyOf, Now, PlainKey
from otelbridge.records import ERROR, UNSET, Row

if TYPE_CHECKING:
    from otelbridge.engine.pairs import Pairs

MAX_ENDINGS = 256
"""So many endings of one rule are remembered; it is given up where they were no use."""
MAX_OPEN = 100_000
"""So many spans of one rule may be open; then the oldest is given up as incomplete."""

Use = Callable[[int, Row, Arguments], bool]
"""What a rule does with an event that came at that time; whether it had an effect."""


def begin_of(pairs: Pairs, state: RuleState, on: BeginOn) -> Use:
    """What begins a span."""
    rule, machine, machines = state.rule, state.machine, pairs.machines
    plain: Use = partial(pairs.begin, state, on)
    if machine is None:
        return plain
    when, key_of, rank, event = on.when, on.key, on.rank, on.event
    read = None if when is not None or pairs.connects(rule) else _reader(key_of)
    identity, by_key, by_number = state.identity, state.by_key, state.by_number
    place = pairs.place if any(outer is not machine for outer in state.outer) else None

    def begin(time_ns: int, row: Row, arguments: Arguments) -> bool:
        thread, root = row[1], machine.root
        if root is None or time_ns > state.expires_ns:
            return plain(time_ns, row, arguments)
        now = None
        if read is not None:
            key = read(arguments, thread)
        else:
            now = machines.now(machine, row)
            if when is not None and not when(arguments, None, now):
                return False
            key = key_of(arguments, now)
        if key in by_key or len(by_number) >= MAX_OPEN:
            return plain(time_ns, row, arguments)
        number = state.number = state.number + 1
        span = OpenSpan(number, identity(number, time_ns), time_ns, thread, key)
        span.begin_event, span.arguments, span.rank = event, arguments, rank
        if place is None:
            span.parent_id, span.trace, span.root = root.span_id, root.trace, root
        else:
            span.parent_id, span.trace, span.root = place(state, span)
        span.trace.open += 1
        if now is not None:
            pairs.tell_more(rule, span, now)
        state.add(span)
        return True

    return begin


def end_of(pairs: Pairs, state: RuleState, on: EndOn) -> Use:  # noqa: C901  # in one piece, since a call costs as much as a branch
    """What ends a span, one of many alike within an open migration."""
    rule, machine, machines, outlet = state.rule, state.machine, pairs.machines, pairs.outlet
    plain: Use = partial(pairs.end, state, on)
    if machine is None or state.endings is None:
        return plain
    when, key_of, event, on_id = on.when, on.key, on.event, id(on)
    read = None if when is not None else _reader(key_of)
    by_key, by_number, shape, keep = state.by_key, state.by_number, state.shape, rule.keep
    which = 0 if rule.repeated_begin == "queue" else -1

    def end(time_ns: int, row: Row, arguments: Arguments) -> bool:  # noqa: C901, PLR0912
        if not by_number:
            return False
        if time_ns > state.expires_ns:
            return plain(time_ns, row, arguments)
        thread = row[1]
        if read is not None:
            waiting = by_key.get(read(arguments, thread))
        else:
            now = machines.now(machine, row)
            if when is not None and not when(arguments, None, now):
                return False
            waiting = by_key.get(key_of(arguments, now))
        if waiting is None:
            return False
        span = waiting[which]
        root, trace, endings = span.root, span.trace, state.endings
        if (
            root is None or root is not machine.root or trace.id is None or endings is None or thread != span.thread
            or span.failure is not None or span.doubtful
        ):  # fmt: skip
            return plain(time_ns, row, arguments)
        state.remove(span)
        start_ns, begin_event = span.start_ns, span.begin_event
        end_ns = max(start_ns, time_ns)
        if state.children:
            pairs.close_children(span.span_id, end_ns, event)
        if machine.stale:
            machines.role(machine)
        at_end = machine.known.get((thread, begin_event, event)) or machines.within(machine, root, thread, begin_event, event)
        ending = endings.get((id(span.arguments), id(arguments), id(at_end), on_id))
        if ending is None:
            ending = _learn(pairs, state, on, span, arguments, at_end)
        else:
            state.repeats += 1
        trace.open -= 1
        trace.last_ns = max(trace.last_ns, end_ns)
        if keep is None:
            outlet.hand_out(trace, span, shape, end_ns, ending)
        else:
            outlet.compete(root, rule, span, shape, end_ns, ending)
        return True

    return end


def _reader(key_of: KeyOf) -> Callable[[Arguments, int | None], Key] | None:
    """The key from arguments and thread alone, None where that does not tell it."""
    if not isinstance(key_of, PlainKey):
        return None
    places, has_thread = key_of.places, key_of.thread
    if len(places) == 1:
        (place,) = places
        if has_thread:
            return lambda arguments, thread: (arguments[place],) if thread is None else (thread, arguments[place])
        return lambda arguments, _thread: (arguments[place],)
    if not places:
        if has_thread:
            return lambda _arguments, thread: () if thread is None else (thread,)
        return lambda _arguments, _thread: ()
    return key_of.of


def _learn(pairs: Pairs, state: RuleState, on: EndOn, span: OpenSpan, arguments: Arguments, now: Now) -> Ending:
    """What the span has, as the plain way makes it; remembered for those like it if there are any."""
    rule, outlet = state.rule, pairs.outlet
    failed = failure_of(on.failure, span.arguments, arguments, now)
    attributes = tuple(outlet.marked(pairs.attributes(rule, span, now, arguments), failed))
    series = outlet.series_of(rule.duration, attributes) if rule.duration else None
    status, message = (ERROR, failed[1]) if failed else (UNSET, "")
    ending = Ending(attributes, series, status, message, (span.arguments, arguments, now))
    endings = state.endings
    if endings is not None:
        if len(endings) >= MAX_ENDINGS:
            if state.repeats < MAX_ENDINGS:
                state.endings = None
                return ending
            endings.clear()
            state.repeats = 0
        endings[id(span.arguments), id(arguments), id(now), id(on)] = ending
    return ending
