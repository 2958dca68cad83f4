"""OTLP requests of bounded size: packed from spans and points, halved where a server finds one too large."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from operator import attrgetter
from typing import TYPE_CHECKING, Any, AnyStr, Generic, NamedTuple, TypeVar

from otelbridge.errors import SpoolError
from otelbridge.otlp.encode import assemble_points, assemble_spans, encode_point, encode_span
from otelbridge.records import SECOND_NS, FinishedSpan, Metric, MetricPoint, Request, Resource, Scope, Signal

if TYPE_CHECKING:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    Message = ExportTraceServiceRequest | ExportMetricsServiceRequest

MAX_BYTES = 1_048_576
"""Receivers take 4 MiB before decompression by default; more than 1 MiB gains no speed."""
MAX_ITEMS = 2_048
MAX_SPREAD_NS = 60 * SECOND_NS
"""How far the points of a request may lie apart: Prometheus refuses a whole request for one point that is too old."""
MAX_DRAFTS = 16
"""How many resources can have a request that is being filled."""

# Each of the four blocks around an item (request, scope, metric, data) has a length, which can grow by three bytes at most
# while they are filled; JSON has no lengths.
_GROWTH_BYTES = 16

ItemT = TypeVar("ItemT", FinishedSpan, MetricPoint)
GroupT = TypeVar("GroupT", Scope, Metric)


class Form(NamedTuple, Generic[ItemT, GroupT, AnyStr]):
    """How one signal is written: item by item, then the items of each group put together.

    `group` gives what an item stands under. `time_ns` is None where times do not matter. JSON must be pure ASCII, so that
    characters are bytes.
    """

    encode: Callable[[ItemT], AnyStr]
    group: Callable[[ItemT], GroupT]
    assemble: Callable[[Resource, Mapping[GroupT, Sequence[AnyStr]]], AnyStr]
    time_ns: Callable[[ItemT], int] | None = None


@dataclass(slots=True)
class _Draft(Generic[GroupT, AnyStr]):
    """A request that is being filled. `size` is at least what it will have; `head_size` gives what a new group adds to it."""

    size: int
    head_size: Callable[[GroupT], int]
    groups: dict[GroupT, list[AnyStr]] = field(default_factory=dict)
    items: int = 0
    first_ns: int = 0
    last_ns: int = 0
    by_identity: dict[int, tuple[GroupT, list[AnyStr]]] = field(default_factory=dict)
    """Groups by the object that they were given as: comparing them is dear, and nearly always it is the same object."""

    def takes(self, group: GroupT, item: AnyStr, time_ns: int) -> bool:
        """Put the item in, unless the request would leave its bounds by it; an empty request takes anything."""
        known = self.by_identity.get(id(group))
        size = self.size + len(item) + 1
        if known is not None and self.first_ns <= time_ns <= self.last_ns and size <= MAX_BYTES and self.items < MAX_ITEMS:
            known[1].append(item)
            self.size = size
            self.items += 1
            return True
        if known is None and group not in self.groups:
            size += self.head_size(group)
        first_ns, last_ns = self.first_ns, self.last_ns
        if not self.items:
            first_ns = last_ns = time_ns
        elif time_ns > last_ns:
            last_ns = time_ns
        elif time_ns < first_ns:
            first_ns = time_ns
        if self.items and (size > MAX_BYTES or self.items >= MAX_ITEMS or last_ns - first_ns > MAX_SPREAD_NS):
            return False
        if known is None:
            known = self.by_identity[id(group)] = (group, self.groups.setdefault(group, []))
        known[1].append(item)
        self.size, self.first_ns, self.last_ns = size, first_ns, last_ns
        self.items += 1
        return True


class _Part(NamedTuple, Generic[AnyStr]):
    """What was packed of one resource: the request, its items, and the times of the first and the last."""

    encoded: AnyStr
    items: int
    first_ns: int
    last_ns: int


class Packer(Generic[ItemT, GroupT, AnyStr]):
    """Cuts a flow of items into requests within MAX_BYTES, MAX_ITEMS and, for points, MAX_SPREAD_NS.

    A request holds one resource. An item that is larger than MAX_BYTES by itself goes alone. Every item comes out once: points
    in the order of their times within a call, spans as they were given. The same calls give the same requests.
    """

    def __init__(self, form: Form[ItemT, GroupT, AnyStr], max_drafts: int = MAX_DRAFTS) -> None:
        self._form: Form[ItemT, GroupT, AnyStr] = form
        self._max_drafts = max_drafts
        self._drafts: dict[Resource, _Draft[GroupT, AnyStr]] = {}

    def add(self, resource: Resource, items: Sequence[ItemT]) -> list[tuple[AnyStr, int]]:
        """Take items; the requests that they complete come out, each with the number of its items."""
        encode, group_of, _, time_of = self._form
        if time_of is not None:
            # Stable, so points of one series stay in their order.
            items = sorted(items, key=time_of)
        done: list[tuple[AnyStr, int]] = []
        draft = self._drafts.get(resource)
        for item, encoded in zip(items, map(encode, items), strict=True):
            group = group_of(item)
            time_ns = 0 if time_of is None else time_of(item)
            if draft is None or not draft.takes(group, encoded, time_ns):
                done += [part[:2] for part in self._cut(resource)]
                draft = self._begin(resource)
                draft.takes(group, encoded, time_ns)
        if len(self._drafts) > self._max_drafts:
            done += [part[:2] for part in self._cut(next(iter(self._drafts)))]
        return done

    def flush(self) -> list[tuple[AnyStr, int]]:
        """The requests that are not full, first the one that was begun first."""
        return [part[:2] for part in self.parts()]

    def parts(self) -> list[_Part[AnyStr]]:
        """As `flush`, with the times."""
        return [part for resource in tuple(self._drafts) for part in self._cut(resource)]

    def _begin(self, resource: Resource) -> _Draft[GroupT, AnyStr]:
        assemble = self._form.assemble
        empty = len(assemble(resource, {}))
        draft = self._drafts[resource] = _Draft[GroupT, AnyStr](
            empty + _GROWTH_BYTES, lambda group: len(assemble(resource, {group: []})) - empty + _GROWTH_BYTES
        )
        return draft

    def _cut(self, resource: Resource) -> Iterator[_Part[AnyStr]]:
        draft = self._drafts.pop(resource, None)
        if draft is not None:
            yield _Part(self._form.assemble(resource, draft.groups), draft.items, draft.first_ns, draft.last_ns)


_SPANS: Form[FinishedSpan, Scope, bytes] = Form(encode_span, attrgetter("scope"), assemble_spans)
_POINTS: Form[MetricPoint, Metric, bytes] = Form(encode_point, attrgetter("metric"), assemble_points, attrgetter("time_ns"))


class RequestBuilder:
    """Packs spans and points into requests of bounded size, as protobuf bytes.

    A request has at most 1,048,576 bytes (more only for a single item that is larger) and 2,048 items, all of one resource
    unless `flush_together` gives it. The points of a request lie within 60 s of event time, those of one series in the order
    of their times.

    Args:
        max_drafts: How many resources can have a request that is being filled.
    """

    def __init__(self, max_drafts: int = MAX_DRAFTS) -> None:
        self._spans = Packer(_SPANS, max_drafts)
        self._points = Packer(_POINTS, max_drafts)

    def add_spans(self, resource: Resource, spans: Sequence[FinishedSpan]) -> list[Request]:
        """Take spans; the requests that they complete come out."""
        return _requests("traces", self._spans.add(resource, spans))

    def add_points(self, resource: Resource, points: Sequence[MetricPoint]) -> list[Request]:
        """Take points; the requests that they complete come out."""
        return _requests("metrics", self._points.add(resource, points))

    def flush(self) -> list[Request]:
        """Requests of all that is still held, spans first."""
        return _requests("traces", self._spans.flush()) + _requests("metrics", self._points.flush())

    def flush_together(self) -> list[Request]:
        """Requests of all that is still held, spans first; one takes in several resources as far as its bounds allow."""
        return _requests("traces", _together(self._spans.parts())) + _requests("metrics", _together(self._points.parts()))


def _together(parts: Sequence[_Part[bytes]]) -> Iterator[tuple[bytes, int]]:
    """As few requests as the bounds allow. Joining the bytes of two requests joins the requests, see `joined`."""
    bodies: list[bytes] = []
    size = items = first_ns = 0
    for part in sorted(parts, key=attrgetter("first_ns")):
        size, items = size + len(part.encoded), items + part.items
        if bodies and (size > MAX_BYTES or items > MAX_ITEMS or part.last_ns - first_ns > MAX_SPREAD_NS):
            yield b"".join(bodies), items - part.items
            bodies, size, items = [], len(part.encoded), part.items
        if not bodies:
            first_ns = part.first_ns
        bodies.append(part.encoded)
    if bodies:
        yield b"".join(bodies), items


def _requests(signal: Signal, packed: Iterable[tuple[bytes, int]]) -> list[Request]:
    return [Request(signal, body, items) for body, items in packed]


# --- requests that exist already ----------------------------------------------------------------------


def parse(request: Request) -> Message:
    """The request as a message of the generated classes.

    Raises:
        SpoolError: The bytes are no request of that signal: what was kept on disk has been damaged.
    """
    from google.protobuf.message import DecodeError  # noqa: PLC0415
    from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2  # noqa: PLC0415
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2  # noqa: PLC0415

    message: Message
    if request.signal == "traces":
        message = trace_service_pb2.ExportTraceServiceRequest()
    else:
        message = metrics_service_pb2.ExportMetricsServiceRequest()
    try:
        message.ParseFromString(request.body)
    except DecodeError as error:
        raise SpoolError(
            f"A request kept for {request.signal}, {len(request.body)} bytes and {request.items} items, is not OTLP protobuf "
            f"({error}). It was damaged on disk and cannot be shown, halved or sent; remove it from the spool."
        ) from error
    return message


def split(request: Request) -> tuple[Request, Request] | None:
    """Two requests that hold the first and the second half of the items in their order; None where there is but one item.

    Raises:
        SpoolError: The bytes are no request of that signal.
    """
    if request.items <= 1:
        return None
    middle = (request.items + 1) // 2
    return _part(request, range(middle)), _part(request, range(middle, request.items))


def joined(pieces: Sequence[Request]) -> Request | None:
    """One request of the pieces, the last of them first; None of none.

    Protobuf merges repeated fields of messages that stand one behind the other, so joining the bytes joins the requests.

    Source: protobuf.dev, Encoding, Last One Wins.
    """
    if not pieces:
        return None
    return Request(pieces[0].signal, b"".join(p.body for p in reversed(pieces)), sum(p.items for p in pieces))


def _part(request: Request, wanted: range) -> Request:
    """The items of a request whose numbers, counted over all of it, are wanted."""
    message = parse(request)
    _prune(message, map(wanted.__contains__, count()))
    return Request(request.signal, message.SerializeToString(deterministic=True), len(wanted))


_CHILDREN = {
    "ExportTraceServiceRequest": "resource_spans",
    "ResourceSpans": "scope_spans",
    "ScopeSpans": "spans",
    "ExportMetricsServiceRequest": "resource_metrics",
    "ResourceMetrics": "scope_metrics",
    "ScopeMetrics": "metrics",
}


def _prune(message: Any, wanted: Iterator[bool]) -> bool:  # noqa: ANN401 - any message on the way from a request to its items
    """Drop the items that are not wanted, and whatever holds none then; whether anything is left."""
    children = _children(message)
    if children is None:
        return next(wanted)
    kept = [_prune(child, wanted) for child in children]
    for index in reversed(range(len(kept))):
        if not kept[index]:
            del children[index]
    return any(kept)


def _children(message: Any) -> Any | None:  # noqa: ANN401
    """What lies one step nearer to the items; None for an item itself."""
    name = message.DESCRIPTOR.name
    if name == "Metric":
        return getattr(message, message.WhichOneof("data")).data_points
    return getattr(message, _CHILDREN[name]) if name in _CHILDREN else None
