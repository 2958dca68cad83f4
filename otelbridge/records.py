"""The types that cross from one room into another: plain data, frozen, no behaviour.

bytes -reader-> Batch -engine-> FinishedSpan | MetricPoint -encoder-> Request -sink-> Outcome
"""

# Not `annotations` from __future__: a named tuple would compile each of its annotations, at every start.

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

Value = str | int | float | bool
Attributes = tuple[tuple[str, Value], ...]
Role = Literal["source", "destination", "snapshot"]

SECOND_NS = 1_000_000_000
WINDOW_NS = 10 * SECOND_NS
"""Length of the event-time windows in which counts are kept apart: ten seconds, so that a stamp's digits tell the window."""

# --- catalogue -> readers, mapping, engine ----------------------------------------------------------


class Argument(NamedTuple):
    """One argument of an event as trace-events declares it: its name and its C type (`uint64_t`, `const char *`)."""

    name: str
    ctype: str


class EventSpec(NamedTuple):
    """One declaration of one event. `versions` is the inclusive range of QEMU releases that declare it so."""

    name: str
    arguments: tuple[Argument, ...]
    format: str
    first: str | None = None
    last: str | None = None


# --- mapping -> readers -----------------------------------------------------------------------------


class Plan(NamedTuple):
    """What a reader must look for, compiled from the rules.

    Attributes:
        rows: Events that some rule needs one by one. The value names the arguments that rules read, in the
            order in which a decoder must give them; an event whose time alone matters has an empty tuple.
        sums: Events that only feed counters by the sum of arguments: counted and summed, never a row.
            Every event in neither is only counted.
    """

    rows: Mapping[str, tuple[str, ...]]
    sums: Mapping[str, tuple[str, ...]] = MappingProxyType({})


# --- readers -> engine ------------------------------------------------------------------------------


class Row(NamedTuple):
    """One trace event that a rule needs.

    `time_ns` is UTC, None where the input has no stamps. `thread` is None where the format carries none. `raw` is the
    undecoded arguments: for text the bytes after the event's name and one blank, without the line's end; for binary
    formats the payload. `unit` is 1, or 0 for an event that shares its line with one already counted. `process` is the id of
    the QEMU process, None where the input does not tell it.
    """

    time_ns: int | None
    thread: int | None
    event: str
    raw: bytes
    unit: int = 1
    process: int | None = None


class Batch(NamedTuple):
    """What a reader made of a stretch of input that lies in one event-time window.

    Attributes:
        window_ns: Begin of the window (a multiple of WINDOW_NS) that holds the counts and sums, by the latest time seen
            so far in the order of the input, so that it never goes back; None where the input has no stamps.
        rows: In the order of the input.
        counts: Trace events that are no row: event -> how many.
        sums: (event, argument) -> sum over those counted events. A sum is exact at any size.
        units: Units of the input (lines, records) that are no trace event, by bucket:
            not_trace, malformed, torn, dropped_by_qemu. A batch with dropped_by_qemu ends where the input says so; spans that
            are open then are doubtful.
        total: Units read for this batch (`dropped_by_qemu` stands outside).
        last_ns: The latest time seen up to the end of this batch.
    """

    window_ns: int | None
    rows: list[Row]
    counts: Mapping[str, int]
    sums: Mapping[tuple[str, str], int]
    units: Mapping[str, int]
    total: int
    last_ns: int | None


# --- engine -> otlp, view ---------------------------------------------------------------------------

INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER = 1, 2, 3, 4, 5
UNSET, ERROR = 0, 2


class Scope(NamedTuple):
    """An instrumentation scope: a mapping's `scope` and the version of otelbridge."""

    name: str
    version: str


class Resource(NamedTuple):
    """The process that a stream traces: attributes in the order in which they go out, and the schema they follow."""

    attributes: Attributes
    schema_url: str = ""


class SpanEvent(NamedTuple):
    """Something with a moment but no length."""

    time_ns: int
    name: str
    attributes: Attributes = ()


class Link(NamedTuple):
    """A pointer to a span of the other host. Ids are bytes, 16 and 8."""

    trace_id: bytes
    span_id: bytes
    attributes: Attributes = ()


class FinishedSpan(NamedTuple):
    """One span, ready to be encoded. Times are UTC nanoseconds; ids are bytes (16 and 8), `parent_id` empty for a root.

    `status` is UNSET or ERROR; `message` goes with ERROR alone. Integers in attributes may be of any size.
    """

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    scope: Scope
    name: str
    kind: int
    start_ns: int
    end_ns: int
    attributes: Attributes
    events: tuple[SpanEvent, ...] = ()
    links: tuple[Link, ...] = ()
    status: int = UNSET
    message: str = ""
    dropped_events: int = 0
    dropped_attributes: int = 0


class Metric(NamedTuple):
    """The identity of an instrument. `kind`: `sum` goes with `monotonic`; `histogram` is exponential. All cumulative."""

    name: str
    kind: Literal["sum", "gauge", "histogram"]
    unit: str
    description: str
    scope: Scope
    monotonic: bool = False


class Histogram(NamedTuple):
    """The state of an exponential histogram of values >= 0.

    Bucket i (counted from `offset`) holds values in (base**i, base**(i+1)] with base = 2**(2**-scale).

    Source: opentelemetry-specification, metrics/data-model.md, ExponentialHistogram.
    """

    count: int  # type: ignore[assignment]  # the specification's name; it hides tuple.count, which nobody needs
    sum: float
    min: float
    max: float
    scale: int
    zero_count: int
    offset: int
    buckets: tuple[int, ...]


class Exemplar(NamedTuple):
    """One measurement of a histogram with the span it was taken from."""

    time_ns: int
    value: float
    trace_id: bytes
    span_id: bytes


class MetricPoint(NamedTuple):
    """One data point. `value` is a Histogram for a histogram metric, else a number (integers of any size)."""

    metric: Metric
    attributes: Attributes
    start_ns: int
    time_ns: int
    value: int | float | Histogram
    exemplars: tuple[Exemplar, ...] = ()


# --- otlp -------------------------------------------------------------------------------------------

Signal = Literal["traces", "metrics"]


class Request(NamedTuple):
    """One OTLP export request as it goes out: protobuf bytes and the number of spans or data points in it."""

    signal: Signal
    body: bytes
    items: int


class Outcome(NamedTuple):
    """What became of the items of one signal at one destination, and in words why any were refused."""

    delivered: int = 0
    spooled: int = 0
    rejected: int = 0
    reasons: tuple[str, ...] = ()
