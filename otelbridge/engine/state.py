"""What is open: spans, machines' roots, and the traces they belong to. Plain holders with a plain-data form."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple

from otelbridge.engine.series import Series
from otelbridge.mapping.rules import Arguments, MachineRule, Now, SpanRule
from otelbridge.records import Attributes, FinishedSpan, Link, Scope, SpanEvent, Value

MAX_NOTES = 128
"""Span events of one span; the specification's limit. What is over is counted."""

Key = tuple[Value | None, ...]


class Trace:
    """The trace that spans belong to.

    `id` is None while spans that came before any migration wait for one to open: `pending` holds them meanwhile.
    `parent` is what a span without a parent of its own goes below, empty for nothing.
    """

    __slots__ = ("id", "last_ns", "open", "origin", "parent", "parent_start_ns", "pending")

    def __init__(self, origin: tuple[str, int, int]) -> None:
        self.id: bytes | None = None
        self.origin = origin
        """Rule, number and begin of its first span: what its id is derived from if no migration opens."""
        self.parent = b""
        self.parent_start_ns = 0
        self.pending: list[FinishedSpan] = []
        self.open = 0
        """Spans of it that have not ended."""
        self.last_ns = origin[2]


class Root:
    """An open machine: the root span, its current state, and what is counted within it."""

    __slots__ = (
        "begin_event", "closed", "doubtful", "dropped_notes", "evidence", "first_state", "kept", "link_counts", "links",
        "notes", "number", "ordinals", "parent_id", "passed", "reason", "recalled", "role", "span_id", "start_ns", "state",
        "state_doubtful", "state_event", "state_ns", "state_number", "trace",
    )  # fmt: skip

    def __init__(self, number: int, span_id: bytes, start_ns: int, trace: Trace) -> None:
        self.number, self.span_id, self.start_ns, self.trace = number, span_id, start_ns, trace
        self.parent_id = b""
        self.begin_event = self.state_event = ""
        self.state = self.first_state = ""
        self.state_ns = start_ns
        self.state_number = 0
        self.evidence: set[str] = set()
        self.passed: list[str] = []
        self.notes: list[SpanEvent] = []
        self.dropped_notes = 0
        self.reason = ""
        self.ordinals: dict[str, int] = {}
        self.recalled: dict[tuple[str, str, Key], Value] = {}
        """Rule, attribute, key -> the value that the last such span had."""
        self.link_counts: dict[tuple[str, Key], int] = {}
        self.links: Mapping[str, Mapping[Key, list[Link | None]]] = {}
        """Spans of the other host that spans of this one may point to: rule -> key -> in their order."""
        self.kept: dict[str, list[tuple[int, int, FinishedSpan]]] = {}
        """Rule -> the slowest spans so far, a heap of (length, minus number, span)."""
        self.closed = False
        self.doubtful = self.state_doubtful = False
        """Whether QEMU dropped events since it opened, and since its state began."""
        self.role: str | None = None
        """The role it had when it closed, for what outlives it."""


class OpenSpan:
    """A span whose begin was seen."""

    __slots__ = (
        "arguments", "begin_event", "doubtful", "dropped_notes", "failure", "key", "links", "notes", "number", "ordinals",
        "parent_id", "rank", "root", "span_id", "start_ns", "thread", "trace",
    )  # fmt: skip

    def __init__(self, number: int, span_id: bytes, start_ns: int, thread: int | None, key: Key) -> None:
        self.number, self.span_id, self.start_ns, self.thread, self.key = number, span_id, start_ns, thread, key
        self.begin_event: str
        self.arguments: Arguments
        self.rank: int
        self.parent_id: bytes
        self.trace: Trace
        self.doubtful = False
        self.root: Root | None = None
        self.notes: list[SpanEvent] = []
        self.dropped_notes = 0
        self.failure: tuple[str, str] | None = None
        self.ordinals: tuple[tuple[str, int], ...] = ()
        self.links: tuple[Link, ...] = ()


class Ending(NamedTuple):
    """What a span has that ended in order, beside ids, times, notes and links.

    Attributes:
        attributes: All of them.
        series: Where its duration is recorded.
        status: UNSET or ERROR, with `message`.
        reasons: What all of that was made of, kept so that nothing else gets the same identity.
    """

    attributes: Attributes
    series: Series | None
    status: int
    message: str
    reasons: tuple[object, ...]


class Shape(NamedTuple):
    """What a rule gives to all its spans."""

    scope: Scope
    name: str
    kind: int


class RuleState:
    """The open spans of one rule, by key and by age."""

    __slots__ = (
        "by_key", "by_number", "children", "endings", "expires_ns", "identity", "machine", "number", "outer", "repeats", "rule",
        "shape",
    )  # fmt: skip

    def __init__(self, rule: SpanRule, machine: MachineState | None, identity: Callable[[int, int], bytes]) -> None:
        self.rule, self.machine = rule, machine
        self.identity = identity
        """Gives the ids of its spans by number and begin."""
        self.outer: tuple[RuleState | MachineState, ...] = ()
        """What a span of it may lie in, the first that is open."""
        self.children = False
        """Whether spans may lie in its own that end with them."""
        self.shape = Shape(rule.scope, rule.name, rule.kind)
        self.number = 0
        self.by_key: dict[Key, list[OpenSpan]] = {}
        self.by_number: OrderedDict[int, OpenSpan] = OrderedDict()
        """By age; a plain dict would be slow at giving its first one after many were taken away."""
        self.expires_ns: float = inf
        """Nothing is open longer than the rule allows before this."""
        self.endings: dict[tuple[int, int, int, int], Ending] | None = None if rule.recalls or rule.ordinals else {}
        """By the identity of what they are made of; None where spans do not repeat each other."""
        self.repeats = 0
        """How often one was known."""

    def add(self, span: OpenSpan) -> None:
        """Remember an open span."""
        if not self.by_number and self.rule.timeout_ns is not None:
            self.expires_ns = span.start_ns + self.rule.timeout_ns
        self.by_number[span.number] = span
        waiting = self.by_key.get(span.key)
        if waiting is None:
            self.by_key[span.key] = [span]
        else:
            waiting.append(span)

    def remove(self, span: OpenSpan) -> None:
        """Forget a span that has ended."""
        del self.by_number[span.number]
        waiting = self.by_key[span.key]
        if waiting[-1] is span:
            waiting.pop()
        else:
            waiting.remove(span)
        if not waiting:
            del self.by_key[span.key]

    def youngest(self, thread: int | None) -> OpenSpan | None:
        """The span that began last, of the same thread where one has it."""
        if not self.by_number:
            return None
        youngest = next(reversed(self.by_number.values()))
        if thread is None or youngest.thread == thread:
            return youngest
        return next((s for s in reversed(self.by_number.values()) if s.thread == thread), youngest)


class MachineState:
    """One machine: whether it is open, and the roles that events spoke for since it last closed."""

    __slots__ = ("evidence", "known", "number", "role", "root", "rule", "same", "stale")

    def __init__(self, rule: MachineRule) -> None:
        self.rule = rule
        self.number = 0
        self.root: Root | None = None
        self.evidence: set[str] = set()
        self.role: str | None = None
        self.stale = True
        """Whether something has come that may change the role or the state."""
        self.known: dict[tuple[int | None, str] | tuple[int | None, str, str], Now] = {}
        """What expressions may know, by thread and event or begin and end event, since that last changed."""
        self.same: dict[Now, Now] = {}
        """One object for all that are equal."""


# --- plain data -------------------------------------------------------------------------------------


class Saver:
    """Turns what is open into JSON-able data; a trace or root that several spans share is written once."""

    def __init__(self) -> None:
        self._traces: dict[int, int] = {}
        self._roots: dict[int, int] = {}
        self.traces: list[dict[str, Any]] = []
        self.roots: list[dict[str, Any]] = []
        self.events: set[str] = set()
        """The events that began what is open."""

    def trace(self, trace: Trace) -> int:
        """The place of the trace in `traces`."""
        if id(trace) not in self._traces:
            self._traces[id(trace)] = len(self.traces)
            self.traces.append(
                {
                    "id": trace.id.hex() if trace.id else None,
                    "origin": list(trace.origin),
                    "parent": trace.parent.hex(),
                    "parent_start": trace.parent_start_ns,
                    "pending": [plain_span(s) for s in trace.pending],
                    "open": trace.open,
                    "last": trace.last_ns,
                }
            )
        return self._traces[id(trace)]

    def root(self, root: Root | None) -> int | None:
        """The place of the root in `roots`."""
        if root is None:
            return None
        if id(root) not in self._roots:
            self._roots[id(root)] = len(self.roots)
            self.roots.append(
                {
                    "number": root.number,
                    "span": root.span_id.hex(),
                    "parent": root.parent_id.hex(),
                    "start": root.start_ns,
                    "trace": self.trace(root.trace),
                    "events": [root.begin_event, root.state_event],
                    "state": [root.state, root.state_ns, root.state_number, root.first_state],
                    "evidence": sorted(root.evidence),
                    "passed": list(root.passed),
                    "notes": [plain_note(n) for n in root.notes],
                    "dropped": root.dropped_notes,
                    "reason": root.reason,
                    "ordinals": dict(root.ordinals),
                    "recalled": [[rule, name, list(key), value] for (rule, name, key), value in root.recalled.items()],
                    "link_counts": [[rule, list(key), n] for (rule, key), n in root.link_counts.items()],
                    "links": [
                        [rule, list(key), [link and plain_link(link) for link in links]]
                        for rule, by_key in root.links.items()
                        for key, links in by_key.items()
                    ],
                    "kept": {rule: [[d, n, plain_span(s)] for d, n, s in heap] for rule, heap in root.kept.items()},
                    "closed": root.closed,
                    "doubtful": [root.doubtful, root.state_doubtful],
                    "role": root.role,
                }
            )
        return self._roots[id(root)]

    def span(self, span: OpenSpan) -> dict[str, Any]:
        """An open span."""
        self.events.add(span.begin_event)
        return {
            "number": span.number,
            "span": span.span_id.hex(),
            "start": span.start_ns,
            "thread": span.thread,
            "key": list(span.key),
            "event": span.begin_event,
            "arguments": list(span.arguments),
            "rank": span.rank,
            "parent": span.parent_id.hex(),
            "trace": self.trace(span.trace),
            "root": self.root(span.root),
            "notes": [plain_note(n) for n in span.notes],
            "dropped": span.dropped_notes,
            "failure": list(span.failure) if span.failure else None,
            "ordinals": [list(o) for o in span.ordinals],
            "links": [plain_link(link) for link in span.links],
            "doubtful": span.doubtful,
        }


class Loader:
    """Turns what a Saver wrote back into what is open.

    Args:
        traces: The Saver's.
        roots: The Saver's.
        before: The arguments that rules read of each event, in their order, when it was saved.
        now: The same for the rules that it is restored for.
    """

    def __init__(
        self,
        traces: list[dict[str, Any]],
        roots: list[dict[str, Any]],
        before: Mapping[str, Sequence[str]],
        now: Mapping[str, Sequence[str]],
    ) -> None:
        self._before, self._now = before, now
        self.traces = [_trace(t) for t in traces]
        self.roots = [self._root(r) for r in roots]

    def _root(self, plain: Mapping[str, Any]) -> Root:
        root = Root(plain["number"], bytes.fromhex(plain["span"]), plain["start"], self.traces[plain["trace"]])
        root.parent_id = bytes.fromhex(plain["parent"])
        root.begin_event, root.state_event = plain["events"]
        root.state, root.state_ns, root.state_number, root.first_state = plain["state"]
        root.evidence, root.passed = set(plain["evidence"]), list(plain["passed"])
        root.notes, root.dropped_notes = [_note(n) for n in plain["notes"]], plain["dropped"]
        root.reason, root.ordinals = plain["reason"], dict(plain["ordinals"])
        root.closed, root.role = plain["closed"], plain["role"]
        root.doubtful, root.state_doubtful = plain["doubtful"]
        root.recalled = {(rule, name, tuple(key)): value for rule, name, key, value in plain["recalled"]}
        root.link_counts = {(rule, tuple(key)): n for rule, key, n in plain["link_counts"]}
        links: dict[str, dict[Key, list[Link | None]]] = {}
        for rule, key, targets in plain["links"]:
            links.setdefault(rule, {})[tuple(key)] = [t and link_of(t) for t in targets]
        root.links = links
        root.kept = {rule: [(d, n, span_of(s)) for d, n, s in heap] for rule, heap in plain["kept"].items()}
        return root

    def span(self, plain: Mapping[str, Any]) -> OpenSpan:
        """The open span that `Saver.span` described."""
        key = tuple(plain["key"])
        span = OpenSpan(plain["number"], bytes.fromhex(plain["span"]), plain["start"], plain["thread"], key)
        span.begin_event, span.rank = plain["event"], plain["rank"]
        span.arguments = self._arguments(span.begin_event, plain["arguments"])
        span.parent_id, span.trace = bytes.fromhex(plain["parent"]), self.traces[plain["trace"]]
        span.root = None if plain["root"] is None else self.roots[plain["root"]]
        span.notes, span.dropped_notes = [_note(n) for n in plain["notes"]], plain["dropped"]
        span.failure = tuple(plain["failure"]) if plain["failure"] else None
        span.ordinals = tuple((name, n) for name, n in plain["ordinals"])
        span.links = tuple(link_of(link) for link in plain["links"])
        span.doubtful = plain["doubtful"]
        return span

    def _arguments(self, event: str, values: list[Any]) -> Arguments:
        """The arguments in the order in which they are read now."""
        before, now = self._before.get(event, ()), self._now.get(event, ())
        if list(before) == list(now):
            return tuple(values)
        by_name = dict(zip(before, values, strict=False))
        return tuple(by_name.get(name) for name in now)


def _trace(plain: Mapping[str, Any]) -> Trace:
    rule, number, start_ns = plain["origin"]
    trace = Trace((rule, number, start_ns))
    trace.id = bytes.fromhex(plain["id"]) if plain["id"] else None
    trace.parent, trace.parent_start_ns = bytes.fromhex(plain["parent"]), plain["parent_start"]
    trace.pending = [span_of(s) for s in plain["pending"]]
    trace.open, trace.last_ns = plain["open"], plain["last"]
    return trace


def plain_shape(shape: Shape) -> list[Any]:
    """A shape as plain data."""
    return [list(shape.scope), shape.name, shape.kind]


def shape_of(plain: list[Any]) -> Shape:
    """The shape that `plain_shape` gave."""
    return Shape(Scope(*plain[0]), plain[1], plain[2])


def plain_note(note: SpanEvent) -> list[Any]:
    """A span event as plain data."""
    return [note.time_ns, note.name, [list(a) for a in note.attributes]]


def _note(plain: list[Any]) -> SpanEvent:
    return SpanEvent(plain[0], plain[1], tuple((k, v) for k, v in plain[2]))


def plain_link(link: Link) -> list[str]:
    """A link as plain data."""
    return [link.trace_id.hex(), link.span_id.hex()]


def link_of(plain: list[str]) -> Link:
    """The link that `plain_link` gave."""
    return Link(bytes.fromhex(plain[0]), bytes.fromhex(plain[1]))


def plain_span(span: FinishedSpan) -> dict[str, Any]:
    """A finished span that still waits for its trace or its competitors, as plain data."""
    return span._asdict() | {
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent_id": span.parent_id.hex(),
        "scope": [span.scope.name, span.scope.version],
        "attributes": [list(a) for a in span.attributes],
        "events": [plain_note(n) for n in span.events],
        "links": [plain_link(link) for link in span.links],
    }


def span_of(plain: Mapping[str, Any]) -> FinishedSpan:
    """The finished span that `plain_span` gave."""
    return FinishedSpan(
        **{
            **plain,
            "trace_id": bytes.fromhex(plain["trace_id"]),
            "span_id": bytes.fromhex(plain["span_id"]),
            "parent_id": bytes.fromhex(plain["parent_id"]),
            "scope": Scope(*plain["scope"]),
            "attributes": tuple((k, v) for k, v in plain["attributes"]),
            "events": tuple(_note(n) for n in plain["events"]),
            "links": tuple(link_of(link) for link in plain["links"]),
        }
    )
