"""The engine: events in, finished spans and metric points out. It does no I/O and reads no clock.

What it does with an event is decided by handlers that are compiled from the rules, in this order: ends, span events, states,
begins, metrics. Time is the events' own; `advance` tells it that time has passed without any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Mapping as MappingType
from functools import partial
from typing import Any, TypeVar

import otelbridge
from otelbridge.engine.machines import Join, Machines
from otelbridge.engine.order import HORIZON_NS, Counts, Order
from otelbridge.engine.outlet import ADOPT_NS, Accounting, Outlet, Stream, given
from otelbridge.engine.pairs import LinkIndex, Pairs
from otelbridge.engine.series import Series, SeriesTable
from otelbridge.engine.short import Use
from otelbridge.engine.state import Loader, MachineState, RuleState, Saver
from otelbridge.mapping.rules import Arguments, Evaluate, Mapping, MetricRule, NoteOn, Now, SpanRule, place_of, reads_now
from otelbridge.records import SECOND_NS, WINDOW_NS, Attributes, Batch, FinishedSpan, Metric, MetricPoint, Row, Scope, Value

ItemT = TypeVar("ItemT")
Decode = Callable[[str, bytes], Arguments | None]

_SCOPE = Scope("otelbridge", otelbridge.__version__)
_EVENTS = Metric("qemu.trace.events", "sum", "{event}", "Trace events seen, by their name.", _SCOPE, monotonic=True)
_EVENTS_LIMIT = 10_000
_BUCKETS = ("begin", "end", "state", "span_event", "metric")
"""An event that feeds several rules counts under the first of these."""
_NOBODY = Now(None, None, None, None)


class Handler:
    """Everything that the rules do with one event."""

    __slots__ = (
        "begins", "came", "ends", "event", "evidence", "has_rules", "machines", "metrics", "notes", "only", "reads", "reasons",
    )  # fmt: skip

    def __init__(self, event: str, *, has_rules: bool, reads: bool) -> None:
        self.event, self.has_rules, self.reads = event, has_rules, reads
        self.came = 0
        """Rows since the last settling."""
        self.ends: list[Use] = []
        self.notes: list[tuple[RuleState | MachineState, NoteOn]] = []
        self.machines: list[MachineState] = []
        self.reasons: list[tuple[MachineState, Evaluate]] = []
        self.evidence: list[tuple[MachineState, tuple[str, ...]]] = []
        self.begins: list[Use] = []
        self.metrics: list[Feed] = []
        self.only: tuple[Use, str, str] | None = None
        """A short way where one rule, or only metrics, use the event: how, and the bucket if it did or did not."""


class Feed:
    """A metric that an event feeds.

    Attributes:
        is_plain: It has no condition, its attributes are always the same, and it is no histogram.
        attributes: Those.
        place: The place of the argument that it takes.
        value: What else gives its value, None where that is an argument or always 1.
        reads_now: Whether that reads more than the arguments.
        series: The only one that a plain one has, once it was there.
    """

    __slots__ = ("attributes", "is_plain", "place", "reads_now", "rule", "series", "sets", "value")

    def __init__(self, rule: MetricRule, *, short: bool) -> None:
        self.rule = rule
        self.is_plain = short and rule.when is None and rule.constant and rule.operation != "record"
        self.attributes = _fixed(rule) if self.is_plain else ()
        self.place = place_of(rule.value)
        self.value = rule.value if self.place is None else None
        self.reads_now = self.value is not None and reads_now(self.value)
        self.sets = rule.operation == "set"
        self.series: Series | None = None


class Engine:
    """Pairs the events of one stream.

    Finished spans and points are in `spans` and `points`, for the caller to take away.

    Args:
        mapping: The rules.
        stream: Whose events these are.
        decode: Gives the arguments of an event in the order of the Plan; None where no declaration fits the text.
        qemu_version: Gives the range of versions as deduced so far.
        saw: Told of each event when it first comes, so that versions that do not have it are out.
        joins: For migrations that belong into another host's trace, by the root span id that they have here.
        index: Filled for links between hosts, if given.
    """

    _machines_type = Machines
    _pairs_type = Pairs
    _short = True
    """Whether metrics may be fed on the short way."""

    def __init__(
        self,
        mapping: Mapping,
        stream: Stream,
        decode: Decode,
        qemu_version: Callable[[], str | None],
        saw: Callable[[str], None],
        joins: MappingType[bytes, Join] | None = None,
        index: LinkIndex | None = None,
    ) -> None:
        self._accounting = Accounting()
        self._came: list[Handler] = []
        """Those of the events that came as rows since the last settling, in the order of their first."""
        self._seen: dict[str, Series] = {}
        """Where the number of each event is counted."""
        self.points: list[MetricPoint] = []
        self._mapping, self._decode, self._saw = mapping, decode, saw
        self._new: list[str] = []
        """Counted events that came for the first time; told when their window ends, so that no cut of the input matters."""
        self._order = Order()
        self._series = SeriesTable()
        self._window: int | None = None
        self._gauge_second = 0
        self._outlet = Outlet(stream, self._accounting, self._series)
        self._machines = self._machines_type(
            mapping.machines, stream, self._outlet, self._series, {} if joins is None else joins, qemu_version
        )
        self._pairs = self._pairs_type(mapping.spans, stream, self._outlet, self._machines, index)
        self._machines.opened = self._pairs.adopt
        self._machines.closing = self._pairs.close_root
        self._handlers: dict[str, Handler] = {}
        """Of the events that have come; most never do."""
        self._users = _by_event((event, state) for state in self._pairs.states.values() for event in _events_of(state.rule))
        self._fed = _by_event((rule.event, rule) for rule in mapping.metrics)
        self._counted = _counted(mapping)
        self._first_machine = next(iter(self._machines.states.values()), None)

    @property
    def spans(self) -> list[FinishedSpan]:
        """Finished spans that were not taken away yet; take them with `take_spans`."""
        return self._outlet.spans

    def take_spans(self) -> list[FinishedSpan]:
        """The finished spans since the last call."""
        taken, self._outlet.spans = self._outlet.spans, []
        return taken

    def take_points(self) -> list[MetricPoint]:
        """The metric points since the last call."""
        taken, self.points = self.points, []
        return taken

    @property
    def accounting(self) -> Accounting:
        """Where everything went so far."""
        self._settle_events()
        return self._accounting

    @property
    def open(self) -> int:
        """Spans that have begun and not ended, migrations and their states included."""
        return self._machines.open + self._pairs.open

    @property
    def open_migrations(self) -> list[tuple[str | None, int]]:
        """The role, as far as it is known, and the begin of each machine that is open."""
        return self._machines.open_roots

    @property
    def points_made(self) -> int:
        """Metric points made so far."""
        return self._series.made

    @property
    def late(self) -> int:
        """Events that came too late to be put in order."""
        return self._order.late

    @property
    def latest_ns(self) -> int:
        """How late the latest of those was."""
        return self._order.latest_ns

    @property
    def mixed(self) -> int:
        """Migrations in which events of both hosts stand, because nothing tells the processes apart."""
        return self._machines.mixed

    @property
    def overflows(self) -> MappingType[str, int]:
        """How often a table was full, by its name: spans that were given up, metrics with too many series."""
        return {"open_spans": self._pairs.given_up, "series": len(self._series.overflowed)}

    @property
    def overflowed(self) -> Sequence[str]:
        """Metrics with more series than their limit."""
        return sorted(self._series.overflowed)

    @property
    def left_out(self) -> MappingType[str, int]:
        """How many values were left out of a counter or a histogram because they are negative, by metric."""
        return self._series.left_out

    # --- input ------------------------------------------------------------------------------------

    def feed(self, batch: Batch) -> None:
        """Take in what a reader made of a stretch of the input."""
        account = self._accounting
        account.total += batch.total
        account.buckets.update(batch.units)
        if batch.last_ns is not None:
            account.last_ns = batch.last_ns
        self._handle(self._order.put(batch))

    def advance(self, time_ns: int) -> None:
        """Let event time pass without an event: what has waited too long is given up, and counts go out as points.

        Nothing that is more than HORIZON_NS older than `time_ns` may come after this; it would be put at a later time.
        """
        self._handle(self._order.put(Batch(time_ns, [], {}, {}, {}, 0, None)))
        handled_ns = time_ns - HORIZON_NS
        window_ns = handled_ns - handled_ns % WINDOW_NS
        if self._window is not None and window_ns > self._window:
            self._close_window(window_ns)

    def settle(self) -> None:
        """Handle the events that still wait to be put in order; nothing earlier will come."""
        self._handle(self._order.rest())

    def pause(self) -> None:
        """Nothing comes for a while: what waits is handled, and what has changed goes out as points at the last time seen."""
        self.settle()
        self._settle_events()
        last_ns = self._accounting.last_ns or 0
        self.points += self._series.gauge_points(last_ns)
        self.points += self._series.points(last_ns)

    def expire(self) -> None:
        """Nothing came for longer than a migration may begin after its first events: what waits for one goes out alone."""
        self._outlet.expire((self._accounting.last_ns or 0) + ADOPT_NS + 1)

    def finish(self) -> None:
        """End the stream: what is still open goes out as incomplete, ended at the last time seen."""
        self.settle()
        self._tell_new()
        self._settle_events()
        last_ns = self._accounting.last_ns or 0
        self._pairs.finish(last_ns)
        self._machines.finish(last_ns)
        self._outlet.settle_all()
        self.points += self._series.gauge_points(last_ns)
        self.points += self._series.points(last_ns)

    def _handle(self, items: Sequence[tuple[int, Row | Counts]]) -> None:
        """Do what the rules say, in the order of time. `ObservedEngine` has the plain way, an event after the other."""
        if not items:
            return
        handlers, decode, apply = self._handlers, self._decode, self._apply
        buckets: dict[str, int] = {}
        second_end_ns = items[0][0]
        for time_ns, item in items:
            if isinstance(item, Counts):
                self._count(item)
                continue
            _, _, event, raw, unit, _ = item
            if time_ns >= second_end_ns:
                self._start(time_ns)
                second_end_ns = (self._gauge_second + 1) * SECOND_NS
            handler = handlers.get(event) or self._handler(event)
            if handler.came:
                handler.came += 1
            else:
                self._meet(handler)
            if not handler.has_rules:
                bucket = "unmapped"
                if not unit:
                    self._count_torn(event)
            else:
                arguments = decode(event, raw) if handler.reads else ()
                if arguments is None:
                    bucket = "malformed"
                elif handler.only is None:
                    bucket = apply(handler, time_ns, item, arguments)
                else:
                    use, used, unused = handler.only
                    bucket = used if use(time_ns, item, arguments) else unused
            buckets[bucket] = buckets.get(bucket, 0) + unit
        self._accounting.buckets.update(buckets)

    def _start(self, time_ns: int) -> None:
        """An event comes, the first one or the first in its second."""
        first_ns = self._accounting.first_ns
        if first_ns is None or time_ns < first_ns:
            self._accounting.first_ns = time_ns
        if time_ns // SECOND_NS > self._gauge_second:
            self._pass_second(time_ns // SECOND_NS)

    def _meet(self, handler: Handler) -> None:
        """Count an event that has not come since the last settling."""
        handler.came = 1
        self._came.append(handler)
        if handler.event not in self._accounting.events:
            self._saw(handler.event)
            self._machines.learn_version()

    def _close_window(self, window_ns: int) -> None:
        """Event time has passed into another window: points go out, and what waited too long is given up."""
        self._settle_events()
        self._pass_second(window_ns // SECOND_NS)
        self.points += self._series.points((self._window or 0) + WINDOW_NS)
        self._window = window_ns
        self._tell_new()
        self._pairs.time_out(window_ns)
        self._outlet.expire(window_ns)

    def _pass_second(self, second: int) -> None:
        """Event time has passed into another second: gauges go out."""
        self.points += self._series.gauge_points((self._gauge_second + 1) * SECOND_NS)
        self._gauge_second = second

    def _settle_events(self) -> None:
        """Count the rows that have come."""
        for handler in self._came:
            self._add_seen(handler.event, handler.came)
            self._accounting.events[handler.event] += handler.came
            handler.came = 0
        self._came.clear()

    def _add_seen(self, event: str, number: int) -> None:
        """So many of an event were seen."""
        series = self._seen.get(event)
        if series is None:
            series = self._seen[event] = self._series.series(_EVENTS, (("qemu.event", event),), _EVENTS_LIMIT)
        elif not series.changed:
            self._series.mark(series)
        series.value += number  # type: ignore[operator]

    def _tell_new(self) -> None:
        for event in sorted(self._new):
            self._saw(event)
        self._new.clear()
        self._machines.learn_version()

    # --- events -----------------------------------------------------------------------------------

    def _count(self, item: Counts) -> None:
        """Events that were counted without being looked at, or that were dropped."""
        if item.dropped:
            self._doubt()
            return
        if self._window is None:
            self._window = self._series.start_ns = item.window_ns
        elif item.window_ns > self._window:
            self._close_window(item.window_ns)
        for event, number in item.counts.items():
            self._add_seen(event, number)
            if event not in self._accounting.events:
                self._new.append(event)
            self._accounting.events[event] += number
            rules = self._counted.get(event, ())
            self._accounting.buckets["counted" if rules else "unmapped"] += number
            for rule, attributes in rules:
                amount: int | None = number
                if rule.value is not None:
                    amount = next((item.sums[event, a] for a in rule.argument if (event, a) in item.sums), None)
                if amount is not None:
                    self._series.add(rule.metric, attributes, amount, rule.limit)

    def _count_torn(self, event: str) -> None:
        """An event in a line that is counted as torn: counters have it all the same. What they sum came with the counts."""
        for rule, attributes in self._counted.get(event, ()):
            if rule.value is None:
                self._series.add(rule.metric, attributes, 1, rule.limit)

    def _doubt(self) -> None:
        """QEMU dropped events: what is open may have lost its end, or what lies between."""
        self._outlet.doubtful = True
        self._pairs.doubt()
        self._machines.doubt()

    def _apply(self, handler: Handler, time_ns: int, row: Row, arguments: Arguments) -> str:
        """Do all that the rules say; give the bucket that the row goes into."""
        pairs, machines = self._pairs, self._machines
        if handler.evidence or handler.reasons:
            self._hear(handler, row, arguments)
        ended = noted = stated = began = measured = False
        # Every rule must get its turn, so none of these may be cut short.
        for end in handler.ends:
            ended |= end(time_ns, row, arguments)
        for holder, note in handler.notes:
            noted |= pairs.note(holder, note, time_ns, row, arguments)
        for machine in handler.machines:
            stated |= machines.enter(machine, time_ns, row, arguments)
        for begin in handler.begins:
            began |= begin(time_ns, row, arguments)
        if handler.metrics:
            measured = self._measure_all(handler.metrics, time_ns, row, arguments)
        effects = (began, ended, stated, noted, measured)
        if True in effects:
            return _BUCKETS[effects.index(True)]
        return "orphan_end" if handler.ends and not (handler.notes or handler.machines or handler.begins) else "counted"

    def _hear(self, handler: Handler, row: Row, arguments: Arguments) -> None:
        """Take note of what an event says of the role, or of the reason of a failure to come."""
        for machine, roles in handler.evidence:
            (machine.root or machine).evidence.update(roles)
            machine.stale = True
        for machine, reason in handler.reasons:
            text = reason(arguments, None, self._machines.now(machine, row))
            if machine.root is not None and text not in (None, ""):
                machine.root.reason = str(text)

    def _handler(self, event: str) -> Handler:
        """What to do with an event, from all rules."""
        found = self._handlers[event] = self._of_rules(event)
        if not (found.evidence or found.reasons or found.notes or found.machines):
            if len(found.begins) == 1 and not (found.ends or found.metrics):
                found.only = found.begins[0], "begin", "counted"
            elif len(found.ends) == 1 and not (found.begins or found.metrics):
                found.only = found.ends[0], "end", "orphan_end"
            elif not (found.begins or found.ends):
                found.only = partial(self._measure_all, found.metrics), "metric", "counted"
        return found

    def _of_rules(self, event: str) -> Handler:
        rows, pairs = self._mapping.plan.rows, self._pairs
        found = Handler(event, has_rules=event in rows, reads=bool(rows.get(event)))
        for machine in self._machines.states.values():
            if machine.rule.event == event:
                found.machines.append(machine)
            if event in machine.rule.roles:
                found.evidence.append((machine, machine.rule.roles[event]))
            if event in machine.rule.reasons:
                found.reasons.append((machine, machine.rule.reasons[event]))
            found.notes += [(machine, note) for note in machine.rule.notes.get(event, ())]
        for state in self._users.get(event, ()):
            if event in state.rule.begins:
                found.begins.append(pairs.beginning(state, state.rule.begins[event]))
            found.ends += [pairs.ending(state, end) for end in state.rule.ends.get(event, ())]
            found.notes += [(state, note) for note in state.rule.notes.get(event, ())]
        if found.has_rules:
            found.metrics += [Feed(rule, short=self._short) for rule in self._fed.get(event, ())]
        return found

    def _measure_all(self, feeds: Sequence[Feed], _time_ns: int, row: Row, arguments: Arguments) -> bool:
        """Feed all metrics of an event, as `_measure` does with one of them; whether any took it."""
        measured = False
        for feed in feeds:
            if not feed.is_plain:
                measured |= self._measure(feed.rule, row, arguments)
                continue
            value: Value | None = 1
            if feed.place is not None:
                value = arguments[feed.place]
            elif feed.value is not None:
                now = self._machines.now(self._first_machine, row) if feed.reads_now else _NOBODY
                value = feed.value(arguments, None, now)
            if value is None or isinstance(value, str):
                continue
            if value < 0 and not feed.sets:
                self._series.left_out[feed.rule.metric.name] += 1
                continue
            series = feed.series
            if series is None:
                series = feed.series = self._series.series(feed.rule.metric, feed.attributes, feed.rule.limit)
            elif not series.changed:
                self._series.mark(series)
            if feed.sets:
                series.value = value
            else:
                series.value += value  # type: ignore[operator]
            measured = True
        return measured

    def _measure(self, rule: MetricRule, row: Row, arguments: Arguments) -> bool:
        now = self._machines.now(self._first_machine, row)
        if rule.when is not None and not rule.when(arguments, None, now):
            return False
        value = 1 if rule.value is None else rule.value(arguments, None, now)
        if value is None or isinstance(value, str):
            return False
        if value < 0 and rule.operation != "set":
            self._series.left_out[rule.metric.name] += 1
            return False
        attributes: Attributes = ()
        if rule.attributes:
            attributes = given((name, evaluate(arguments, None, now)) for name, evaluate in rule.attributes)
        if rule.operation == "add":
            self._series.add(rule.metric, attributes, value, rule.limit)
        elif rule.operation == "set":
            self._series.set(rule.metric, attributes, value, rule.limit)
        else:
            self._series.record(rule.metric, attributes, value, rule.limit)
        return True

    # --- snapshots ----------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Everything that is needed to go on in another process, as JSON-able data. Take spans and points away first."""
        self._settle_events()
        saver = Saver()
        return {
            "version": 1,
            "order": self._order.snapshot(),
            "series": self._series.snapshot(),
            "window": self._window,
            "gauge_second": self._gauge_second,
            "qemu_version": self._machines.version,
            "mixed": self._machines.mixed,
            "new": list(self._new),
            "rules": self._pairs.snapshot(saver),
            "machines": self._machines.snapshot(saver),
            "unsettled": self._outlet.snapshot(saver),
            "doubtful": self._outlet.doubtful,
            "traces": saver.traces,
            "roots": saver.roots,
            "arguments": {event: list(self._mapping.plan.rows[event]) for event in sorted(saver.events)},
            "accounting": self._accounting.snapshot(),
        }

    def restore(self, state: MappingType[str, Any]) -> None:
        """Go on from `snapshot`, in an engine with the same stream.

        What is open by a rule that is gone goes out as incomplete; the series of a metric that is gone is let go.
        """
        loader = Loader(state["traces"], state["roots"], state["arguments"], self._mapping.plan.rows)
        self._accounting.restore(state["accounting"])
        last_ns = self._accounting.last_ns or 0
        self._order.restore(state["order"])
        self._series.restore(state["series"], {metric.name: metric for metric in _metrics(self._mapping)})
        self._window, self._new = state["window"], list(state["new"])
        self._gauge_second = state["gauge_second"]
        self._machines.version, self._machines.mixed = state["qemu_version"], state["mixed"]
        self._outlet.restore(state["unsettled"], loader)
        self._outlet.doubtful = state["doubtful"]
        self._pairs.restore(state["rules"], loader, last_ns)
        self._machines.restore(state["machines"], loader, last_ns)
        # What is remembered of series are those of before.
        self._seen.clear()
        self._handlers.clear()


def _counted(mapping: Mapping) -> dict[str, list[tuple[MetricRule, Attributes]]]:
    """The metrics that counts and sums feed, with their fixed attributes."""
    found: dict[str, list[tuple[MetricRule, Attributes]]] = {}
    for rule in mapping.metrics:
        if rule.from_counts:
            found.setdefault(rule.event, []).append((rule, _fixed(rule)))
    return found


def _by_event(pairs: Iterable[tuple[str, ItemT]]) -> dict[str, list[ItemT]]:
    found: dict[str, list[ItemT]] = {}
    for event, item in pairs:
        found.setdefault(event, []).append(item)
    return found


def _events_of(rule: SpanRule) -> Iterable[str]:
    """The events that begin or end a span of the rule, or are its span events."""
    return {**rule.begins, **rule.ends, **rule.notes}


def _fixed(rule: MetricRule) -> Attributes:
    """The attributes of a metric that do not depend on the event."""
    return given((name, evaluate((), None, _NOBODY)) for name, evaluate in rule.attributes)


def _metrics(mapping: Mapping) -> list[Metric]:
    """Every instrument that the rules feed, and the engine's own."""
    durations = [rule.duration for rule in mapping.spans]
    found = [_EVENTS, *(rule.metric for rule in mapping.metrics)]
    for machine in mapping.machines:
        durations += [machine.duration, machine.state_duration]
        found += [machine.active] if machine.active else []
        found += [machine.completed[0]] if machine.completed else []
    return found + [duration.metric for duration in durations if duration]
