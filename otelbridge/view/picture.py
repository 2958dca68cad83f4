"""What the waterfall needs to know of the migrations in a conversion, in memory of bounded size.

What is held of spans, at most:

* 100 traces, those that hold a migration before others; of those beyond, and of spans outside any migration, the number alone;
* for each trace the roots and states of 8 processes (64 states each), 4 downtimes, sums by span name (100) and by section
  (500), 50 errors;
* with details, for at most 20 traces at a time: the slowest 200 spans of any name, the slowest 10 of each name, the first
  100 passes and the last one, 200 spans within each downtime;
* the last 2,000 spans of all.

A downtime is handed in after most of what lies within it, so what filled it is looked up among the last 2,000 spans and
the trace's slowest 200, and then taken as it comes.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappush, heappushpop
from typing import NamedTuple, TypeVar

from otelbridge.records import ERROR, SERVER, Attributes, FinishedSpan, Histogram, MetricPoint, Outcome, Resource, Signal, Value

MAX_TRACES = 100
MAX_DETAILED = 20
MAX_SIDES = 8
MAX_STATES = 64
MAX_DOWNTIMES = 4
MAX_FILLS = 200
MAX_NAMES = 100
MAX_SECTIONS = 500
MAX_ERRORS = 50
MAX_SLOWEST = 200
MAX_SLOWEST_OF_NAME = 10
MAX_PASSES = 100
MAX_RECENT = 2_000
MAX_MOMENTS = 50
_MAX_KEYS = 1_000

_MAX_TEXT = 500
"""Characters that are held of one text of a log."""
_Key = TypeVar("_Key", bound=Hashable)

OTHERS = "(others)"
"""Where names are counted for which there is no room."""

SECTIONS = frozenset({"savevm.section", "loadvm.section", "vmstate.load"})
_ALWAYS = SECTIONS | {"migration", "migration.downtime", "ram.bitmap_sync", "tls.handshake", "postcopy.fault"}
"""Names that are counted on their own however many others there are."""
FAULT_DURATION = "qemu.migration.postcopy.fault.duration"
TRANSFERRED = "qemu.migration.transferred"
_METRICS = frozenset({FAULT_DURATION, TRANSFERRED})


class Kept(NamedTuple):
    """A span with its attributes at hand and the side (by its number in the trace) that it comes from."""

    span: FinishedSpan
    attributes: Mapping[str, Value]
    side: int

    @property
    def length_ns(self) -> int:
        """How long the span took."""
        return self.span.end_ns - self.span.start_ns

    @property
    def incomplete(self) -> bool:
        """Whether its end was never seen."""
        return self.attributes.get("otelbridge.incomplete") is True


@dataclass(slots=True)
class Tally:
    """Spans of one kind, counted: all of them, also those that are not held."""

    count: int = 0
    total_ns: int = 0
    longest_ns: int = 0
    incomplete: int = 0

    def add(self, kept: Kept) -> None:
        """Count a span."""
        self.count += 1
        self.total_ns += kept.length_ns
        self.longest_ns = max(self.longest_ns, kept.length_ns)
        self.incomplete += kept.incomplete


class Slowest:
    """The slowest spans of those put in; of two alike, the earlier one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._heap: list[tuple[int, int, Kept]] = []
        self._number = 0

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, kept: Kept) -> None:
        """Offer a span."""
        self._number += 1
        entry = (kept.length_ns, -self._number, kept)
        if len(self._heap) < self._limit:
            heappush(self._heap, entry)
        else:
            heappushpop(self._heap, entry)

    def longest_first(self) -> list[Kept]:
        """The spans that are held, the slowest first."""
        return [kept for _, _, kept in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]


@dataclass(slots=True)
class Downtime:
    """A stretch in which the guest stood still, and the spans that lie in it with at least half of their length."""

    kept: Kept
    complete: bool = True
    """Whether everything that lies in it is held."""
    _heap: list[tuple[int, bytes, Kept]] = field(default_factory=list)
    _held: set[bytes] = field(default_factory=set)

    @property
    def fills(self) -> list[Kept]:
        """The spans that are held, by their ids."""
        return [kept for _, _, kept in sorted(self._heap, key=lambda entry: entry[1])]

    def __len__(self) -> int:
        return len(self._heap)

    def take(self, kept: Kept) -> None:
        """Keep a span if it fills this downtime. A span as long as the whole migration does not, though it overlaps."""
        identity = kept.span.span_id
        within_ns = self.within_ns(kept)
        if 2 * within_ns < max(1, kept.length_ns) or identity in self._held or identity == self.kept.span.span_id:
            return
        entry = (within_ns, identity, kept)
        self._held.add(identity)
        if len(self._heap) < MAX_FILLS:
            heappush(self._heap, entry)
        else:
            self.complete = False
            self._held.remove(heappushpop(self._heap, entry)[1])

    def forget(self) -> None:
        """Keep the downtime alone."""
        self.complete = False
        self._heap.clear()
        self._held.clear()

    def within_ns(self, kept: Kept) -> int:
        """How much of the span lies in the downtime; without stamps the lines of two files have nothing in common."""
        own = self.kept
        if kept.side != own.side and own.attributes.get("otelbridge.clock") == "none":
            return 0
        return max(0, min(kept.span.end_ns, own.span.end_ns) - max(kept.span.start_ns, own.span.start_ns))

    def uncovered_ns(self) -> int | None:
        """How much of the downtime no span of its own host covers; None when not all spans in it are held."""
        if not self.complete:
            return None
        reached_ns, covered_ns = self.kept.span.start_ns, 0
        own = (kept.span for kept in self.fills if kept.side == self.kept.side)
        for start_ns, end_ns in sorted((span.start_ns, min(span.end_ns, self.kept.span.end_ns)) for span in own):
            covered_ns += max(0, end_ns - max(start_ns, reached_ns))
            reached_ns = max(reached_ns, end_ns)
        return self.kept.length_ns - covered_ns


@dataclass(slots=True)
class Moment:
    """Span events of one name on a root: how often, and when first."""

    count: int
    first_ns: int


@dataclass(slots=True)
class Side:
    """One process's part in a migration.

    Attributes:
        resource: The attributes of the process.
        root: The whole of the migration as this process saw it; None until it has ended.
        states: In the order in which they ended.
        states_not_held: States beyond the limit.
        moments: What has a moment but no length, by name.
    """

    resource: Attributes
    root: Kept | None = None
    states: list[Kept] = field(default_factory=list)
    states_not_held: int = 0
    moments: dict[str, Moment] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """The name of the log; empty where there is none."""
        return next((str(value) for name, value in self.resource if name == "log.file.name"), "")

    @property
    def role(self) -> str:
        """`source`, `destination`, `snapshot`, or empty where nothing tells."""
        if self.root is None:
            return ""
        role = self.root.attributes.get("qemu.migration.role")
        return str(role) if role is not None else "destination" if self.root.span.kind == SERVER else ""


@dataclass(slots=True)
class Details:
    """What is held of a trace beside its shape."""

    slowest: Slowest = field(default_factory=lambda: Slowest(MAX_SLOWEST))
    by_name: dict[str, Slowest] = field(default_factory=dict)
    passes: list[Kept] = field(default_factory=list)
    last_pass: Kept | None = None
    taken: int = 0

    def take(self, kept: Kept) -> None:
        """Hold a span wherever it is wanted."""
        self.taken += 1
        self.slowest.put(kept)
        name = kept.span.name
        if name == "ram.bitmap_sync":
            self._take_pass(kept)
        elif name not in SECTIONS and (name in self.by_name or len(self.by_name) < MAX_NAMES):
            self.by_name.setdefault(name, Slowest(MAX_SLOWEST_OF_NAME)).put(kept)

    def _take_pass(self, kept: Kept) -> None:
        if len(self.passes) < MAX_PASSES:
            self.passes.append(kept)
        else:
            self.last_pass = kept

    def held(self) -> int:
        """How many spans are held here."""
        return len(self.slowest) + sum(map(len, self.by_name.values())) + len(self.passes) + (self.last_pass is not None)


@dataclass(slots=True)
class Migration:
    """One trace: a migration, on one host or on both."""

    trace_id: bytes
    details: Details | None
    sides: list[Side] = field(default_factory=list)
    spans: int = 0
    downtimes: list[Downtime] = field(default_factory=list)
    downtimes_not_held: int = 0
    tallies: dict[str, Tally] = field(default_factory=dict)
    sections: dict[tuple[str, str, int], Tally] = field(default_factory=dict)
    """Name of the span, device, side -> count."""
    errors: list[Kept] = field(default_factory=list)
    error_count: int = 0

    @property
    def has_root(self) -> bool:
        """Whether this is a migration at all, and not spans that stand alone."""
        return any(side.root is not None for side in self.sides)

    @property
    def failed(self) -> bool:
        """Whether a process says that the migration went wrong."""
        return any(side.root is not None and side.root.span.status == ERROR for side in self.sides)

    def ordered_sides(self) -> list[int]:
        """The numbers of the sides that have a root: whoever began it first, the destination below it."""
        order = {"source": 0, "": 1, "snapshot": 1, "destination": 2}
        numbers = [n for n, side in enumerate(self.sides) if side.root is not None]
        return sorted(numbers, key=lambda n: (order.get(self.sides[n].role, 1), n))

    def window_ns(self) -> tuple[int, int]:
        """Begin and end of the whole, over all its hosts."""
        spans = [side.root.span for side in self.sides if side.root is not None]
        return min(span.start_ns for span in spans), max(span.end_ns for span in spans)

    def side_number(self, resource: Attributes) -> int:
        """The side of a process, made when it is new; there are so few that the last one takes what is beyond."""
        for number, side in enumerate(self.sides):
            if side.resource == resource:
                return number
        if len(self.sides) < MAX_SIDES:
            self.sides.append(Side(resource))
        return len(self.sides) - 1

    def held(self) -> int:
        """How many spans are held."""
        shape = sum(len(side.states) + (side.root is not None) for side in self.sides)
        filled = sum(1 + len(downtime) for downtime in self.downtimes)
        return shape + filled + len(self.errors) + (self.details.held() if self.details else 0)

    def forget_details(self) -> None:
        """Keep the shape of the migration alone."""
        self.details = None
        for downtime in self.downtimes:
            downtime.forget()


class Picture:
    """A sink that keeps what a person wants to see of the migrations; memory is bounded, whatever the log's length."""

    def __init__(self) -> None:
        self.spans_seen = 0
        self.points_seen = 0
        self.migrations_beyond = 0
        """Migrations that were only counted."""
        self.spans_beyond = 0
        """Spans of those."""
        self._alone: Counter[str] = Counter()
        self._migrations: dict[bytes, Migration] = {}
        self._rootless: OrderedDict[bytes, Migration] = OrderedDict()
        """Traces whose root has not come yet, or never will; the one touched last stands last."""
        self._recent: deque[tuple[bytes, Kept]] = deque(maxlen=MAX_RECENT)
        self._points: dict[tuple[Attributes, str, Attributes], MetricPoint] = {}

    @property
    def migrations(self) -> list[Migration]:
        """The migrations that are held, in the order of their begins."""
        return sorted(self._migrations.values(), key=lambda migration: migration.window_ns())

    @property
    def alone(self) -> Counter[str]:
        """Spans that belong to no migration, by name."""
        found = Counter(self._alone)
        for trace in self._rootless.values():
            found.update({name: tally.count for name, tally in trace.tallies.items()})
        return found

    @property
    def held(self) -> int:
        """How many spans are held at the moment."""
        return len(self._recent) + sum(trace.held() for trace in (*self._migrations.values(), *self._rootless.values()))

    def last_points(self, resource: Attributes, metric: str) -> list[MetricPoint]:
        """The last point of each series of a process's metric."""
        return [point for (owner, name, _), point in self._points.items() if owner == resource and name == metric]

    # --- as a sink --------------------------------------------------------------------------------

    def spans(self, resource: Resource, spans: Sequence[FinishedSpan]) -> None:
        """Take finished spans of one process."""
        self.spans_seen += len(spans)
        for span in spans:
            trace = self._trace(span)
            if trace is None:
                self._count_beyond(span)
            else:
                self._take(trace, resource.attributes, span)

    def points(self, resource: Resource, points: Sequence[MetricPoint]) -> None:
        """Take data points; of the few metrics that are shown the last value counts."""
        self.points_seen += len(points)
        for point in points:
            key = (resource.attributes, point.metric.name, point.attributes)
            if point.metric.name in _METRICS and (key in self._points or len(self._points) < _MAX_KEYS):
                self._points[key] = point._replace(exemplars=())

    def flush(self) -> None:
        """Nothing is held."""

    def close(self) -> Mapping[Signal, Outcome]:
        """Everything was delivered: it is seen or counted in the picture."""
        return {"traces": Outcome(delivered=self.spans_seen), "metrics": Outcome(delivered=self.points_seen)}

    # --- which trace ------------------------------------------------------------------------------

    def _trace(self, span: FinishedSpan) -> Migration | None:
        """The trace of a span. When there is no room, the spans that stand alone give way, longest untouched first."""
        if (migration := self._migrations.get(span.trace_id)) is not None:
            return migration
        if (waiting := self._rootless.get(span.trace_id)) is not None:
            self._rootless.move_to_end(span.trace_id)
            return waiting
        if len(self._migrations) + len(self._rootless) >= MAX_TRACES and not self._give_way():
            return None
        self._spare_details()
        made = self._rootless[span.trace_id] = Migration(span.trace_id, Details())
        return made

    def _give_way(self) -> bool:
        if not self._rootless:
            return False
        _, trace = self._rootless.popitem(last=False)
        for name, tally in trace.tallies.items():
            self._count_alone(name, tally.count)
        return True

    def _spare_details(self) -> None:
        """Make room for one more trace with details: one without a root goes first, then the shortest that went well."""
        detailed = [trace for trace in (*self._rootless.values(), *self._migrations.values()) if trace.details is not None]
        if len(detailed) >= MAX_DETAILED:
            min(detailed, key=_interest).forget_details()

    def _count_beyond(self, span: FinishedSpan) -> None:
        self.spans_beyond += 1
        # The destination of a migration has its source as parent, and was counted with it.
        self.migrations_beyond += span.name == "migration" and not span.parent_id

    def _count_alone(self, name: str, count: int) -> None:
        self._alone[name if name in self._alone or len(self._alone) < MAX_NAMES else OTHERS] += count

    # --- what of it -------------------------------------------------------------------------------

    def _take(self, trace: Migration, resource: Attributes, span: FinishedSpan) -> None:
        number = trace.side_number(resource)
        side = trace.sides[number]
        kept = _kept(span, number)
        trace.spans += 1
        limit = MAX_NAMES + len(_ALWAYS) if span.name in _ALWAYS else MAX_NAMES
        _at(trace.tallies, span.name, OTHERS, limit).add(kept)
        if span.status == ERROR:
            trace.error_count += 1
            if len(trace.errors) < MAX_ERRORS:
                trace.errors.append(kept)
        if span.name == "migration":
            side.root = kept
            self._migrations[trace.trace_id] = self._rootless.pop(trace.trace_id, trace)
            _count_moments(side, span)
        elif _is_state(span, kept.attributes):
            _hold_state(side, kept)
        elif span.name == "migration.downtime":
            self._hold_downtime(trace, kept)
        else:
            self._hold(trace, kept)

    def _hold(self, trace: Migration, kept: Kept) -> None:
        name = kept.span.name
        if name in SECTIONS:
            key = (name, device(kept), kept.side)
            _at(trace.sections, key, (name, OTHERS, kept.side), MAX_SECTIONS).add(kept)
        if trace.details is None:
            return
        trace.details.take(kept)
        self._recent.append((trace.trace_id, kept))
        for downtime in trace.downtimes:
            downtime.take(kept)

    def _hold_downtime(self, trace: Migration, kept: Kept) -> None:
        if len(trace.downtimes) >= MAX_DOWNTIMES:
            trace.downtimes_not_held += 1
            return
        downtime = Downtime(kept)
        trace.downtimes.append(downtime)
        if trace.details is None:
            downtime.complete = False
            return
        recent = [kept for trace_id, kept in self._recent if trace_id == trace.trace_id]
        # Spans come in the order of their ends: what is no longer among the last ones ended before those.
        if trace.details.taken > len(recent) and (not recent or recent[0].span.end_ns > kept.span.start_ns):
            downtime.complete = False
        for candidate in (*trace.details.slowest.longest_first(), *recent):
            downtime.take(candidate)


def device(kept: Kept) -> str:
    """What a section or a device state is of, as the log names it."""
    return str(kept.attributes.get("qemu.migration.section", kept.attributes.get("qemu.vmstate.name", "")))


def histogram_total(points: Iterable[MetricPoint]) -> tuple[int, float]:
    """Count and sum over histograms."""
    found = [point.value for point in points if isinstance(point.value, Histogram)]
    return sum(h.count for h in found), sum(h.sum for h in found)


def number_total(points: Iterable[MetricPoint]) -> int | float:
    """The sum over points that are plain numbers."""
    return sum(point.value for point in points if not isinstance(point.value, Histogram))


def _kept(span: FinishedSpan, side: int) -> Kept:
    """The span without what is not shown: its size is bounded, too."""
    attributes = {name: _short(value) for name, value in span.attributes}
    return Kept(span._replace(events=(), links=(), attributes=(), message=span.message[:_MAX_TEXT]), attributes, side)


def _short(value: Value) -> Value:
    return value[:_MAX_TEXT] if isinstance(value, str) else value


def _interest(trace: Migration) -> tuple[bool, bool, int]:
    if not trace.has_root:
        return (False, False, 0)
    start_ns, end_ns = trace.window_ns()
    return (True, trace.failed, end_ns - start_ns)


def _is_state(span: FinishedSpan, attributes: Mapping[str, Value]) -> bool:
    return span.name.startswith("migration.") and "qemu.migration.state" in attributes


def _hold_state(side: Side, kept: Kept) -> None:
    if len(side.states) < MAX_STATES:
        side.states.append(kept)
    else:
        side.states_not_held += 1


def _count_moments(side: Side, span: FinishedSpan) -> None:
    for event in span.events:
        if (moment := side.moments.get(event.name)) is not None:
            moment.count += 1
            moment.first_ns = min(moment.first_ns, event.time_ns)
        elif len(side.moments) < MAX_MOMENTS:
            side.moments[event.name] = Moment(1, event.time_ns)


def _at(tallies: dict[_Key, Tally], key: _Key, other: _Key, limit: int) -> Tally:
    return tallies.setdefault(key if key in tallies or len(tallies) < limit else other, Tally())
