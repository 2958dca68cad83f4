"""State machines: a root span for the whole, a child span for each state, the role that events speak for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from otelbridge.engine.ids import span_id, trace_id
from otelbridge.engine.outlet import Body, Outlet, Stream, given
from otelbridge.engine.series import SeriesTable
from otelbridge.engine.state import Key, Loader, MachineState, Root, Saver, Shape, Trace
from otelbridge.mapping.rules import Arguments, Failure, MachineRule, Now, SpanRule
from otelbridge.records import INTERNAL, FinishedSpan, Link, Row, Scope, Value

_MAX_KNOWN = 1000
_STATES_A_ROOT = 1_000_000
"""States of one root are numbered within this, so that a state's number is never another root's."""


class Join(NamedTuple):
    """Where a migration belongs that began on another host.

    Attributes:
        trace_id: The trace it is part of.
        parent_id: The other host's root span, which began at `parent_start_ns` by this host's clock.
        links: Spans over there that spans here may point to: rule -> key -> in their order, None where there is none.
    """

    trace_id: bytes
    parent_id: bytes
    parent_start_ns: int
    links: Mapping[str, Mapping[Key, list[Link | None]]] = MappingProxyType({})


class Machines:
    """All machines of a stream. `opened(root)` is called then, `closing(span_id, end_ns, event)` before a root goes out."""

    def __init__(
        self,
        rules: tuple[MachineRule, ...],
        stream: Stream,
        outlet: Outlet,
        series: SeriesTable,
        joins: Mapping[bytes, Join],
        qemu_version: Callable[[], str | None],
    ) -> None:
        self.states = {rule.id: MachineState(rule) for rule in rules}
        self._stream, self._outlet, self._series = stream, outlet, series
        self._joins, self._qemu_version = joins, qemu_version
        self.version: str | None = None
        """The versions of QEMU, as expressions may know them."""
        self.opened: Callable[[Root], None] = lambda _root: None
        self.mixed = 0
        """Roots that events of more than one role belong to: two processes that cannot be told apart."""
        self.closing: Callable[[bytes, int, str | None], None] = lambda _span, _end, _event: None

    @property
    def open(self) -> int:
        """Open spans: a root and its state for each open machine."""
        return sum(2 for machine in self.states.values() if machine.root is not None)

    @property
    def open_roots(self) -> list[tuple[str | None, int]]:
        """Role and begin of each root that is open."""
        return [(self.role(m), m.root.start_ns) for m in self.states.values() if m.root is not None]

    def of(self, rule: SpanRule, rules: Mapping[str, SpanRule]) -> MachineState | None:
        """The machine that a rule lies in, through other rules if need be; else the only one there is."""
        for name in rule.inside:
            if name in self.states:
                return self.states[name]
        for name in rule.inside:
            if name in rules and (machine := self.of(rules[name], rules)):
                return machine
        return next(iter(self.states.values()), None)

    def now(self, machine: MachineState | None, row: Row) -> Now:
        """What an expression may know at this event beside its arguments."""
        if machine is None:
            return Now(row.thread, None, None, self.version, row.event)
        if machine.stale:
            self.role(machine)
        known = machine.known.get(row[1:3])  # thread and event
        if known is None:
            if len(machine.known) > _MAX_KNOWN:
                machine.known.clear()
            root = machine.root
            known = Now(row.thread, root.state if root else None, machine.role, self.version, row.event)
            machine.known[row.thread, row.event] = known
        return known

    def within(self, machine: MachineState, root: Root, thread: int | None, begin: str, end: str) -> Now:
        """What the attributes of a span may know that ends within this open root: one object for all that is equal."""
        if machine.stale:
            self.role(machine)
        known = machine.known.get((thread, begin, end))
        if known is None:
            if len(machine.same) > _MAX_KNOWN:
                machine.same.clear()
            now = Now(thread, root.state, machine.role, self.version, begin, end)
            known = machine.known[thread, begin, end] = machine.same.setdefault(now, now)
        return known

    def now_of(self, machine: MachineState | None, root: Root | None, thread: int | None, begin: str, end: str | None) -> Now:
        """What a span's attributes may know; of a migration that the span outlives, what was so when it closed."""
        if root is None or machine is None:
            return Now(thread, None, None, self.version, begin, end)
        return Now(thread, root.state, root.role if root.closed else self.role(machine), self.version, begin, end)

    def learn_version(self) -> None:
        """Something has come that may tell more of QEMU's version."""
        version = self._qemu_version()
        if version != self.version:
            self.version = version
            for machine in self.states.values():
                machine.known.clear()

    def role(self, machine: MachineState) -> str | None:
        """The role that events spoke for since the machine opened, else those before, else its first state."""
        if machine.stale:
            machine.role, machine.stale = self._role(machine), False
            machine.known.clear()
        return machine.role

    def _role(self, machine: MachineState) -> str | None:
        root = machine.root
        found = root.evidence if root and root.evidence else machine.evidence
        by_events = next((role for role in machine.rule.role_order if role in found), None)
        told = self._stream.role
        if told is not None and by_events in (None, "source", "destination"):
            return told
        if by_events is None and root is not None:
            starts = machine.rule.starts.get(root.first_state, ())
            return starts[0] if len(starts) == 1 else None
        return by_events

    def enter(self, machine: MachineState, time_ns: int, row: Row, arguments: Arguments) -> bool:
        """A machine's event: leave the state it is in, enter the new one, open or close the whole. False: no effect."""
        rule = machine.rule
        value = rule.state(arguments, None, self.now(machine, row))
        if value is None:
            return False
        state = str(value)
        root = machine.root
        if root is None:
            if state not in rule.starts:
                return False
            root = self._open(machine, time_ns, row.event)
            root.state = root.first_state = state
            self.opened(root)
        elif state in rule.known or rule.keep_unknown:
            self._leave(machine, root, time_ns, row.event)
        else:
            return False
        root.state, root.state_ns, root.state_event = state, time_ns, row.event
        root.state_number += 1
        root.state_doubtful = False
        root.passed = [*(s for s in root.passed if s != state), state]
        machine.stale = True
        if state in rule.finals:
            failed = failure_of(rule.finals[state], arguments, None, self.now(machine, row))
            if failed is not None and root.reason:
                failed = (failed[0], root.reason)
            self._close(machine, root, time_ns, row.event, failed)
        return True

    def _open(self, machine: MachineState, time_ns: int, event: str) -> Root:
        rule = machine.rule
        machine.number += 1
        identity = span_id(self._stream.key, rule.id, machine.number, time_ns)
        trace = Trace((rule.id, machine.number, time_ns))
        root = Root(machine.number, identity, time_ns, trace)
        root.begin_event = event
        join = self._joins.get(identity)
        if join is None:
            trace.id = trace_id(self._stream.key, *trace.origin)
            trace.parent, trace.parent_start_ns = identity, time_ns
        else:
            trace.id, root.parent_id, root.links = join.trace_id, join.parent_id, join.links
            trace.parent, trace.parent_start_ns = join.parent_id, join.parent_start_ns
        trace.open = 1
        machine.root = root
        machine.stale = True
        self._outlet.adopt(trace, time_ns)
        if rule.active is not None:
            self._series.add(rule.active, (), 1)
        return root

    def _leave(self, machine: MachineState, root: Root, time_ns: int, event: str | None) -> None:
        """The state's span goes out."""
        rule = machine.rule
        name = f"{rule.id}.{root.state}"
        identity = span_id(self._stream.key, name, root.number * _STATES_A_ROOT + root.state_number, root.state_ns)
        now = Now(None, root.state, self.role(machine), None, root.state_event, event)
        attributes = _events(root.state_event, event)
        attributes += given((key, evaluate((), None, now)) for key, evaluate in rule.state_attributes)
        body = Body(
            root.state_ns, max(time_ns, root.state_ns), attributes, complete=event is not None, doubtful=root.state_doubtful
        )
        span = self._outlet.finished(root.trace, identity, root.span_id, Shape(rule.scope, name, INTERNAL), body)
        if rule.state_duration is not None and event is not None:
            self._outlet.record(rule.state_duration, span, root.trace)
        self._outlet.give(root.trace, span)

    def _close(
        self, machine: MachineState, root: Root, time_ns: int, event: str | None, failed: tuple[str, str] | None
    ) -> None:
        """The root goes out, after all that was held back for it."""
        rule, role = machine.rule, self.role(machine)
        end_ns = max(time_ns, root.start_ns)
        self.closing(root.span_id, end_ns, event)
        now = Now(None, root.state, role, self._qemu_version(), root.begin_event, event)
        attributes = _events(root.begin_event, event)
        attributes += given((name, evaluate((), None, now)) for name, evaluate in rule.attributes)
        attributes += given(
            (name, next((table[s] for s in reversed(root.passed) if s in table), otherwise))
            for name, table, otherwise in rule.by_state
        )
        shape = Shape(rule.scope, rule.id, rule.kinds.get(role or "", INTERNAL))
        body = Body(
            root.start_ns, end_ns, attributes, root.notes, (), failed, root.dropped_notes, event is not None, root.doubtful
        )
        span = self._outlet.finished(root.trace, root.span_id, root.parent_id, shape, body)
        self._outlet.give_kept(root)
        root.closed, root.role = True, role
        self.mixed += len(root.evidence & rule.kinds.keys()) > 1
        if rule.active is not None:
            self._series.add(rule.active, (), -1)
        if event is not None:
            self._count_closed(rule, span, root)
        self._outlet.give(root.trace, span)
        machine.root = None
        machine.evidence = set()
        machine.stale = True

    def _count_closed(self, rule: MachineRule, span: FinishedSpan, root: Root) -> None:
        if rule.duration is not None:
            self._outlet.record(rule.duration, span, root.trace)
        if rule.completed is not None:
            metric, by = rule.completed
            values = dict(span.attributes)
            self._series.add(metric, given((name, values.get(name)) for name in by), 1)

    def doubt(self) -> None:
        """Events were dropped while these were open."""
        for machine in self.states.values():
            if machine.root is not None:
                machine.root.doubtful = machine.root.state_doubtful = True

    def finish(self, last_ns: int) -> None:
        """What is open goes out as incomplete."""
        for machine in self.states.values():
            if machine.root is not None:
                self._leave(machine, machine.root, last_ns, None)
                self._close(machine, machine.root, last_ns, None, None)

    def snapshot(self, saver: Saver) -> dict[str, Any]:
        """The state as plain data."""
        return {
            m.rule.id: {
                "number": m.number,
                "evidence": sorted(m.evidence),
                "scope": list(m.rule.scope),
                "root": saver.root(m.root),
            }
            for m in self.states.values()
        }

    def restore(self, state: Mapping[str, Any], loader: Loader, last_ns: int) -> None:
        """Go on from `snapshot`. What is open in a machine that is gone goes out as incomplete."""
        for name, saved in state.items():
            root = None if saved["root"] is None else loader.roots[saved["root"]]
            machine = self.states.get(name)
            if machine is not None:
                machine.number, machine.evidence, machine.root = saved["number"], set(saved["evidence"]), root
                machine.stale = True
            elif root is not None:
                self._let_go(root, Shape(Scope(*saved["scope"]), name, INTERNAL), last_ns)

    def _let_go(self, root: Root, shape: Shape, last_ns: int) -> None:
        """A machine whose rule is gone ends with what is known without it, and so does its state."""
        end_ns = max(last_ns, root.start_ns)
        name = f"{shape.name}.{root.state}"
        identity = span_id(self._stream.key, name, root.number * _STATES_A_ROOT + root.state_number, root.state_ns)
        body = Body(
            root.state_ns, max(end_ns, root.state_ns), _events(root.state_event, None), complete=False,
            doubtful=root.state_doubtful,
        )  # fmt: skip
        self._outlet.give(
            root.trace, self._outlet.finished(root.trace, identity, root.span_id, shape._replace(name=name), body)
        )
        whole = Body(
            root.start_ns, end_ns, _events(root.begin_event, None), root.notes, dropped_notes=root.dropped_notes,
            complete=False, doubtful=root.doubtful,
        )  # fmt: skip
        finished = self._outlet.finished(root.trace, root.span_id, root.parent_id, shape, whole)
        self._outlet.give_kept(root)
        root.closed = True
        self._outlet.give(root.trace, finished)


def failure_of(failure: Failure | None, begin: Arguments, end: Arguments | None, now: Now) -> tuple[str, str] | None:
    """`error.type` and description if this counts as an error."""
    if failure is None or (failure.when is not None and not failure.when(begin, end, now)):
        return None
    kind, message = failure.type(begin, end, now), failure.message(begin, end, now)
    return str(kind if kind is not None else "_OTHER"), str(message if message is not None else "")


def _events(begin: str, end: str | None) -> list[tuple[str, Value]]:
    found: list[tuple[str, Value]] = [("qemu.event.begin", begin)]
    return found if end is None else [*found, ("qemu.event.end", end)]
