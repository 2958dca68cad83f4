"""How well two migrations of two streams fit together: what was sent must be what was received."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from otelbridge.engine.clocks import Listener, Offset, Tag, Times, messages, offset_between
from otelbridge.engine.pairs import LinkIndex
from otelbridge.engine.state import Key
from otelbridge.records import SECOND_NS, FinishedSpan

SKEW_NS = 10 * SECOND_NS
"""Clocks of two hosts may differ by so much where little but the time says that two migrations are one."""
_GRACE_NS = SECOND_NS
"""A source has stopped sending so soon after its destination is gone."""
_APART_NS = 10_000_000
_BY_NO_CHANCE = ((40, 0.8, 20_000_000), (20, 0.9, 2_000_000))
"""Messages that are apart do not fit by chance: so many, such a part of them received within so many nanoseconds.

Those of a burst keep their distances whatever they are compared with, and so say no more than one.
"""
_NARROW_NS = 2_000_000
"""Bounds on both sides that are so near to each other do not agree by chance."""
_PAUSED = Tag("state", received=False, key="postcopy-paused")
_ACTIVE = Tag("state", received=False, key="active")
_SECTIONS = frozenset({"section", "part"})
_COMPARABLE = _SECTIONS | {"channel", "command", "package", "ping", "pong"}
"""Messages of which every receipt has its sending in the log.

Page requests can be more than are remembered, and the handshake of a multifd channel begins with another event.
"""


class Log(NamedTuple):
    """What is to be known of the input that a migration stands in.

    Attributes:
        name: As messages name it.
        told: Whether the user said which side it is of.
        timed: Whether its times are its own.
        whole: Whether nothing is missing in the middle of it.
        steady: Whether its stamps never go back.
    """

    name: str = ""
    told: bool = False
    timed: bool = True
    whole: bool = True
    steady: bool = True


class Seen(NamedTuple):
    """One migration of one stream, as a first look found it.

    Attributes:
        stream: The place of the stream among the inputs.
        role: source, destination, snapshot or None.
        completed: Whether all that was sent was loaded.
        offered: Spans that the other host's may point to: rule -> key -> their ids in their order, one after the other.
        asked: How many spans here want to point to each: rule -> key -> number.
        times: When its messages were sent and received.
    """

    stream: int
    log: Log
    role: str | None
    trace_id: bytes
    span_id: bytes
    start_ns: int
    end_ns: int
    completed: bool
    offered: Mapping[str, Mapping[Key, bytes | bytearray]] = MappingProxyType({})
    asked: Mapping[str, Counter[Key]] = MappingProxyType({})
    times: Times = MappingProxyType({})


def seen(
    stream: int, log: Log, spans: Iterable[FinishedSpan], machine: str, index: LinkIndex, listener: Listener, process: int
) -> list[Seen]:
    """The migrations among the spans of a stream, which is the `process` that the listener knows."""
    roots = sorted((span for span in spans if span.name == machine), key=lambda span: span.start_ns)
    times = listener.within(process, [(root.start_ns, root.end_ns) for root in roots])
    return [
        Seen(
            stream,
            log,
            next((str(v) for k, v in root.attributes if k == "qemu.migration.role"), None),
            root.trace_id,
            root.span_id,
            root.start_ns,
            root.end_ns,
            ("qemu.migration.state", "completed") in root.attributes,
            index.offered.get(root.span_id, {}),
            index.asked.get(root.span_id, {}),
            of_it,
        )
        for root, of_it in zip(roots, times, strict=True)
    ]


class Fit(NamedTuple):
    """How well a destination's migration fits to a source's.

    Attributes:
        against: In words what says that they are two, empty for nothing.
        sure: Whether it cannot be by chance.
        missing: Sections that were sent and not received.
        apart_ns: How far the clocks, and then the moments of the same message, are apart.
    """

    source: Seen
    destination: Seen
    offset: Offset
    against: str
    sure: bool
    missing: int
    apart_ns: int

    def rank(self) -> tuple[bool, bool, bool, int, int, int, int, int]:
        """Smaller is better."""
        return (
            bool(self.against), not self.sure, self.offset.contradictory, self.apart_ns, self.missing,
            self.source.stream, self.source.start_ns, self.destination.stream,
        )  # fmt: skip


def fit(source: Seen, destination: Seen) -> Fit:
    """What speaks for and against these two being one migration. Times count only where both logs have them."""
    timed = source.log.timed and destination.log.timed
    whole = source.log.whole and destination.log.whole
    steady = source.log.steady and destination.log.steady
    offset = offset_between(source.times, destination.times, whole=whole, steady=steady) if timed else Offset()
    passages = _passages(source, destination) if timed else []
    delays = sorted(receipt - sending for sending, receipt in passages)
    narrow = offset.min_ns is not None and offset.max_ns is not None and offset.max_ns - offset.min_ns <= _NARROW_NS
    sure = not offset.contradictory and (narrow or _even(passages))
    begin_ns = abs(delays[0] if delays else destination.start_ns - source.start_ns) if timed else 0
    against = _contradicted(source, destination, delays) if whole else ""
    if not against and not sure and begin_ns > SKEW_NS:
        against = f"their clocks would have to be {begin_ns / SECOND_NS:.3f} s apart, and little else says that they are one"
    apart_ns = begin_ns + (delays[len(delays) // 2] - delays[0] if delays else 0) if timed else SKEW_NS
    return Fit(source, destination, offset, against, sure, _missing(source, destination), apart_ns)


def _even(passages: Sequence[tuple[int, int]]) -> bool:
    """Whether most messages took about as long as the fastest, which by two unrelated clocks they would not."""
    fastest: dict[int, int] = {}
    for sending, receipt in passages:
        moment = sending // _APART_NS
        fastest[moment] = min(receipt - sending, fastest.get(moment, receipt - sending))
    least = min(fastest.values(), default=0)
    return any(
        len(fastest) >= many and sum(delay < least + evenly_ns for delay in fastest.values()) >= most * len(fastest)
        for many, most, evenly_ns in _BY_NO_CHANCE
    )


def _passages(source: Seen, destination: Seen) -> list[tuple[int, int]]:
    """When each of the source's messages was sent and when it was received, each by the own clock."""
    return [
        passage
        for tag, sent, received in messages(source.times, destination.times)
        if tag.message in _COMPARABLE and not tag.by_destination and len(received) <= len(sent)
        for passage in zip(sent, received, strict=False)
    ]


def _missing(source: Seen, destination: Seen) -> int:
    """Sections that were sent and did not arrive."""
    found = messages(source.times, destination.times)
    arrived = sum(min(len(sent), len(received)) for tag, sent, received in found if tag.message in _SECTIONS)
    return _sections(source) - arrived


def _sections(source: Seen) -> int:
    return sum(len(times) for tag, times in source.times.items() if tag.message == "section" and not tag.received)


def _contradicted(source: Seen, destination: Seen, delays: Sequence[int]) -> str:
    """In words what the two logs cannot both hold if they are of one migration, empty if there is nothing."""
    traced = {tag.sending.message for seen in (source, destination) for tag in seen.times if not tag.received}
    for tag, sent, received in messages(source.times, destination.times):
        if tag.sending.message in traced and _too_many(tag, sent, received, destination):
            what = tag.sending.message if tag.key is None else f"{tag.sending.message} {tag.key}"
            return f"{what} arrived {_times(len(received))} and was sent {_times(len(sent))}"
    if destination.completed and _ACTIVE not in source.times:
        return "the source never became active, and the destination completed"
    # What was on its way when a postcopy paused is lost, and sent again as other sections.
    if source.completed and destination.completed and _PAUSED not in source.times and (lost := _missing(source, destination)):
        return f"{lost} of the {_sections(source)} sections that were sent did not arrive"
    if source.completed and not destination.completed and delays:
        gone_ns = destination.end_ns - delays[0] + _GRACE_NS
        late = sum(t > gone_ns for tag, times in source.times.items() if tag.sending.message == "section" for t in times)
        if late:
            return f"{late} sections were sent when the other had been gone for a second"
    return ""


def _too_many(tag: Tag, sent: Sequence[int], received: Sequence[int], destination: Seen) -> bool:
    """Whether more arrived than was sent. A whole section comes again with each checkpoint of COLO, which traces no sending."""
    if tag.message == "section":
        return not sent and destination.completed
    return tag.message in _COMPARABLE and len(received) > len(sent)


def _times(number: int) -> str:
    return "once" if number == 1 else "never" if number == 0 else f"{number} times"
