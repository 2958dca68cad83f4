"""Compiled rules: what `compile` makes of mapping files, and all that the engine knows of them.

An *evaluator* is a compiled expression: `evaluate(begin, end, now)`. `begin` and `end` are the arguments of the
begin and the end event, in the order of `Mapping.plan.rows[event]`, None where the event's version does not have one;
`end` is None where no end was seen. For an expression that reads one event only (a `when` of a begin, a metric, a span
event) that event's arguments are `begin`. `now` is the moment's `Now`. An evaluator that meets a missing argument gives None.
"""

# Not `annotations` from __future__: a named tuple would compile each of its annotations, at every start.

from collections.abc import Callable
from collections.abc import Mapping as MappingType
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol

from otelbridge.records import Metric, Plan, Scope, Value

Arguments = tuple[Value | None, ...]


class Now(NamedTuple):
    """The pseudo-arguments: what an expression can know beside the event's own arguments."""

    thread: int | None
    state: str | None
    """The state of the open machine of this stream, None where none is open."""
    role: str | None
    qemu_version: str | None
    begin_event: str | None = None
    end_event: str | None = None


Evaluate = Callable[[Arguments, Arguments | None, Now], Value | None]
KeyOf = Callable[[Arguments, Now], tuple[Value | None, ...]]


def place_of(evaluate: Evaluate | None) -> int | None:
    """The place of the argument that this gives, None where it is more than an argument."""
    found: int | None = getattr(evaluate, "place", None)
    return found


def reads_now(evaluate: Evaluate) -> bool:
    """Whether it may read more than the arguments."""
    found: bool = getattr(evaluate, "reads_now", True)
    return found


class PlainKey:
    """A key that is made of nothing but arguments, as most are. With `thread` the event's goes before them, if it is known."""

    __slots__ = ("places", "thread")

    def __init__(self, places: tuple[int, ...], *, thread: bool) -> None:
        self.places, self.thread = places, thread

    def __call__(self, arguments: Arguments, now: Now) -> tuple[Value | None, ...]:
        """The key as an event with these arguments tells it."""
        return self.of(arguments, now[0])

    def of(self, arguments: Arguments, thread: int | None) -> tuple[Value | None, ...]:
        """The same from the thread alone."""
        values = tuple([arguments[place] for place in self.places])
        return (thread, *values) if self.thread and thread is not None else values


class Failure(NamedTuple):
    """When and how something counts as an error. `message` and `type` are templates, already compiled."""

    when: Evaluate | None
    message: Evaluate
    type: Evaluate


class BeginOn(NamedTuple):
    """An event that begins a span. `rank` is its place in the list, 0 first: it matters for `repeated_begin: prefer`."""

    event: str
    rank: int
    when: Evaluate | None
    key: KeyOf
    condition: str = ""
    """`when` as it is written."""


class EndOn(NamedTuple):
    """An event that ends a span. `key` reads the end event's arguments as its first parameter.

    `when` is evaluated with the end event's arguments as `begin`; `failure` with both.
    """

    event: str
    when: Evaluate | None
    key: KeyOf
    failure: Failure | None
    condition: str = ""


class NoteOn(NamedTuple):
    """An event that is put into an open span as a span event. `failure` turns the span into an error."""

    event: str
    when: Evaluate | None
    attributes: tuple[tuple[str, Evaluate], ...]
    failure: Failure | None = None
    key: KeyOf | None = None
    """Where the event has all arguments of the rule's key: which of the open spans it belongs to; else the youngest."""
    condition: str = ""


class Duration(NamedTuple):
    """A histogram fed by the length of spans, in seconds. `by` are attributes of the span."""

    metric: Metric
    by: tuple[str, ...]
    limit: int = 2000


class Keep(NamedTuple):
    """Only the slowest spans go out, so many for each span of the machine `per`; the rest is only counted."""

    slowest: int
    per: str


class LinkTo(NamedTuple):
    """The n-th span of this rule with one key, within a migration, points to the n-th of `rule` with it on the other host."""

    rule: str
    key: MappingType[str, KeyOf]
    """By begin event; None values in the key mean: no link."""


class AttributesOf(Protocol):
    """Gives the evaluators of a rule's attributes for one pair of begin and end event, in the order of the file."""

    def __call__(self, begin_event: str, end_event: str | None) -> tuple[tuple[str, Evaluate], ...]:
        """The evaluators for this pair; None for a span whose end was not seen."""


class SpanRule(NamedTuple):
    """A pair of begin and end events.

    Attributes:
        thread: The key names `thread`: threads must agree where the stream has them.
        key_names: The names of the other parts of the key, for `otelbridge.pairing`.
        until_next: The next begin with the same key ends the span, and so does the end of its parent.
        inside: Rules or machines, the first that has an open span is the parent.
        recalls: Attributes that an event may lack: then the last span of this rule in the same migration that agreed in the key
            (by begin event) lends its value.
        ordinals: Attributes that number the spans of this rule from 1 within the open span of a machine: name -> machine.
    """

    id: str
    name: str
    kind: int
    scope: Scope
    begins: MappingType[str, BeginOn]
    ends: MappingType[str, tuple[EndOn, ...]]
    thread: bool
    key_names: tuple[str, ...]
    repeated_begin: Literal["close", "stack", "queue", "ignore", "prefer"]
    until_next: bool
    timeout_ns: int | None
    inside: tuple[str, ...]
    attributes: AttributesOf
    recalls: tuple[tuple[str, MappingType[str, KeyOf]], ...]
    ordinals: tuple[tuple[str, str], ...]
    notes: MappingType[str, tuple[NoteOn, ...]]
    links: tuple[LinkTo, ...]
    keep: Keep | None
    duration: Duration | None
    path: str = ""
    """The mapping file, for tests and explanations."""
    told_by: frozenset[str] = frozenset()
    """The events whose arguments become attributes."""


class MachineRule(NamedTuple):
    """A state machine: a root span for the whole, and a child span for each state but the final ones.

    Attributes:
        state: Reads the new state from the event.
        starts: The states that open the machine if it is closed -> roles that may start so.
        finals: The states that close it -> the failure, or None where it is no error.
        keep_unknown: A state that the file does not name is a state like any other; else it is left out.
        known: Every state that the file names.
        roles: Evidence: event -> roles in the order of preference of the file.
        role_order: The roles in the file's order.
        kinds: Span kind by role; INTERNAL where a role is not named.
        reasons: Event -> reader of a text that describes the error if the machine ends in one.
        attributes: Of the root span; evaluated when it ends.
        by_state: Attributes that a state passed through decides: (name, {state: value}, otherwise).
        state_attributes: Of each state's span.
        active: The updowncounter of open machines.
        completed: The counter of closed machines, and the root's attributes it is kept by.
    """

    id: str
    event: str
    scope: Scope
    state: Evaluate
    starts: MappingType[str, tuple[str, ...]]
    finals: MappingType[str, Failure | None]
    keep_unknown: bool
    known: frozenset[str]
    roles: MappingType[str, tuple[str, ...]]
    role_order: tuple[str, ...]
    kinds: MappingType[str, int]
    reasons: MappingType[str, Evaluate]
    attributes: tuple[tuple[str, Evaluate], ...]
    by_state: tuple[tuple[str, MappingType[str, Value], Value | None], ...]
    state_attributes: tuple[tuple[str, Evaluate], ...]
    notes: MappingType[str, tuple[NoteOn, ...]]
    duration: Duration | None
    state_duration: Duration | None
    active: Metric | None
    completed: tuple[Metric, tuple[str, ...]] | None
    path: str = ""


class MetricRule(NamedTuple):
    """A metric fed by one event.

    Attributes:
        event: The event.
        operation: `add` to a sum, `set` a gauge, `record` into a histogram.
        value: What is added, set or recorded; None adds 1.
        argument: Where the value is nothing but an argument that is never negative: its names, the first that exists counts;
            else empty. A sum of several would not tell which of them a counter must leave out.
        when: Only then.
        attributes: Of the series.
        constant: The attributes do not depend on the event.
        limit: Series beyond so many go into one with `otel.metric.overflow=true`.
    """

    metric: Metric
    event: str
    operation: Literal["add", "set", "record"]
    value: Evaluate | None
    argument: tuple[str, ...]
    when: Evaluate | None
    attributes: tuple[tuple[str, Evaluate], ...]
    constant: bool
    limit: int = 2000
    path: str = ""
    condition: str = ""

    @property
    def from_counts(self) -> bool:
        """Whether counts and sums are enough, so that no row is needed."""
        return self.operation == "add" and self.when is None and self.constant and (self.value is None or bool(self.argument))


class MappingTest(NamedTuple):
    """One entry of a file's `tests:`: lines of a log, and what must come of them, as plain data already checked."""

    name: str
    path: str
    line: int
    events: str
    expect: MappingType[str, object] = MappingProxyType({})
    qemu_version: str | None = None
    role: str | None = None


class Mapping(NamedTuple):
    """All rules of all files, compiled against a catalogue, with the Plan for readers."""

    spans: tuple[SpanRule, ...]
    machines: tuple[MachineRule, ...]
    metrics: tuple[MetricRule, ...]
    unmapped: MappingType[str, str]
    plan: Plan
    tests: tuple[MappingTest, ...] = ()
