"""Which destination belongs to which source: decided from the streams themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from otelbridge.engine.machines import Join
from otelbridge.engine.pairs import LinkIndex
from otelbridge.engine.state import Key
from otelbridge.records import SECOND_NS, FinishedSpan, Link

SKEW_NS = 5 * SECOND_NS
"""Clocks of two hosts may differ by so much, and their migrations still count as happening together."""


class Seen(NamedTuple):
    """One migration of one stream, as a first look found it.

    Attributes:
        stream: The place of the stream among the inputs.
        role: source, destination, snapshot or None.
        completed: Whether all that was sent was loaded.
        offered: Spans that the other host's may point to: rule -> key -> ids in their order.
        asked: How many spans here want to point to each: rule -> key -> number.
    """

    stream: int
    role: str | None
    trace_id: bytes
    span_id: bytes
    start_ns: int
    end_ns: int
    offered: Mapping[str, Mapping[Key, Sequence[bytes]]] = MappingProxyType({})
    asked: Mapping[str, Counter[Key]] = MappingProxyType({})
    completed: bool = False


def seen(stream: int, spans: Iterable[FinishedSpan], machine: str, index: LinkIndex) -> list[Seen]:
    """The migrations among the spans of a stream."""
    return [
        Seen(
            stream,
            next((str(v) for k, v in span.attributes if k == "qemu.migration.role"), None),
            span.trace_id,
            span.span_id,
            span.start_ns,
            span.end_ns,
            index.offered.get(span.span_id, {}),
            index.asked.get(span.span_id, {}),
            ("qemu.migration.state", "completed") in span.attributes,
        )
        for span in spans
        if span.name == machine
    ]


def join(migrations: Sequence[Seen]) -> dict[bytes, Join]:
    """For each destination's migration the source's that it belongs to, by the destination's root span id.

    Only migrations that happen together are joined, each at most once; the nearest in time and the ones whose sections
    agree come first. The only source and the only destination of all inputs belong together whatever their clocks say.
    """
    sources = [m for m in migrations if m.role == "source"]
    destinations = [m for m in migrations if m.role == "destination"]
    alone = len(sources) == len(destinations) == 1
    pairs = [
        (_distance(source, destination), source, destination)
        for destination in destinations
        for source in sources
        if source.stream != destination.stream and (alone or _together(source, destination))
    ]
    pairs.sort(key=lambda pair: (pair[0], pair[1].stream, pair[1].start_ns, pair[2].stream))
    joined: dict[bytes, Join] = {}
    taken: set[bytes] = set()
    for _, source, destination in pairs:
        if source.span_id not in taken and destination.span_id not in joined:
            taken.add(source.span_id)
            joined[destination.span_id] = Join(source.trace_id, source.span_id, source.start_ns, _links(source, destination))
    return joined


def _together(source: Seen, destination: Seen) -> bool:
    return source.start_ns - SKEW_NS <= destination.end_ns and destination.start_ns - SKEW_NS <= source.end_ns


def _distance(source: Seen, destination: Seen) -> tuple[int, int]:
    """Smaller is nearer: first the sections that are on one host only, then the time between the begins and the ends."""
    differing = 0
    for rule, asked in destination.asked.items():
        offered = source.offered.get(rule, {})
        differing += sum(abs(asked[key] - len(offered.get(key, ()))) for key in {*asked, *offered})
    apart = abs(source.start_ns - destination.start_ns) + abs(source.end_ns - destination.end_ns)
    return differing, apart


def _links(source: Seen, destination: Seen) -> dict[str, dict[Key, list[Link | None]]]:
    """What the destination's spans may point to, None for one that has no counterpart."""
    completed = source.completed and destination.completed
    found: dict[str, dict[Key, list[Link | None]]] = {}
    for rule, by_key in source.offered.items():
        asked = destination.asked.get(rule, Counter())
        found[rule] = {
            key: [*[None] * (asked[key] - len(ids)), *(Link(source.trace_id, i) for i in ids)]
            for key, ids in by_key.items()
            if _places_agree(len(ids), asked[key], completed)
        }
    return found


def _places_agree(offered: int, asked: int, completed: bool) -> bool:
    """Whether, counted from the last one, the same place means the same section.

    QEMU traces the load of what `save_setup` of a section wrote (`qemu_loadvm_state_section_startfull`), but not its save, so
    the destination can have one more, the first. Without the last ones only what there is but once is certain.
    """
    return asked - offered in (0, 1) if completed else asked == offered == 1
