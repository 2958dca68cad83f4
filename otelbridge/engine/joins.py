"""Which destination belongs to which source: decided from the streams themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from otelbridge.engine.fits import SKEW_NS, Fit, Seen, fit
from otelbridge.engine.ids import SPAN_ID_BYTES
from otelbridge.engine.machines import Join
from otelbridge.engine.shifts import Shifts
from otelbridge.engine.state import Key
from otelbridge.records import SECOND_NS, Link

_HOUR_NS = 3600 * SECOND_NS
_MANY = 2000
"""So many pairs are looked at whatever their times."""


class Joined(NamedTuple):
    """What belongs together.

    Attributes:
        joins: For each destination's migration where it belongs, by its root's span id.
        shifts: What is to be done to the times of the streams that have such a migration, by their places.
        notes: Sentences for the user: what belongs nowhere, and clocks that cannot be compared.
    """

    joins: Mapping[bytes, Join] = MappingProxyType({})
    shifts: Mapping[int, Shifts] = MappingProxyType({})
    notes: tuple[str, ...] = ()


def join(migrations: Sequence[Seen]) -> Joined:
    """Which destination's migration belongs to which source's; each to one at most.

    What was sent must be what was received. Where that leaves a choice, what fits best in time is taken. Only two logs that the
    user named, one the source's and one the destination's, are joined against what they say.
    """
    sources = [m for m in migrations if m.role == "source"]
    destinations = [m for m in migrations if m.role == "destination"]
    fits = sorted(_fits(sources, destinations), key=Fit.rank)
    forced = all(len({m.log.name for m in side if m.log.told}) == 1 for side in (sources, destinations))
    chosen = _chosen([one for one in fits if not one.against])
    if forced:
        _force(chosen, [one for one in fits if one.source.log.told and one.destination.log.told])
    joined = {*chosen, *(one.source.span_id for one in chosen.values())}
    notes = [note for one in chosen.values() for note in _doubts(one)]
    return Joined(
        {identity: _joined(one) for identity, one in chosen.items()},
        {stream: _shifts(stream, migrations, chosen) for stream in {one.destination.stream for one in chosen.values()}},
        (*notes, *_left_alone(destinations, fits, joined), *_sideless(migrations)),
    )


def _fits(sources: Sequence[Seen], destinations: Sequence[Seen]) -> Iterator[Fit]:
    """All pairs, but of very many migrations only those that may be of the same hour."""
    many = len(sources) * len(destinations) > _MANY
    for destination in destinations:
        for source in sources:
            near = abs(source.start_ns - destination.start_ns) < _HOUR_NS
            if source.stream != destination.stream and (near or not many):
                yield fit(source, destination)


def _chosen(fits: Sequence[Fit]) -> dict[bytes, Fit]:
    """For each destination, by its span id, the fit that is taken: the best first, and then what is better as a whole.

    Two idle guests fit to each other, and with clocks that differ the nearest is not the right one. So a pair that is not sure
    gives way where that leaves fewer alone, or all of them nearer to each other.
    """
    chosen: dict[bytes, Fit] = {}
    _force(chosen, fits)
    unsure = [one for one in fits if not one.sure]
    by_pair = {(one.destination.span_id, one.source.span_id): one for one in unsure}
    while any(_exchanged(chosen, by_pair, one) for one in unsure):
        pass  # each exchange makes the whole better, so it ends
    return chosen


def _force(chosen: dict[bytes, Fit], fits: Sequence[Fit]) -> None:
    """Take the fits in their order whose two migrations are still free."""
    taken = {one.source.span_id for one in chosen.values()}
    for one in fits:
        if one.source.span_id not in taken and one.destination.span_id not in chosen:
            taken.add(one.source.span_id)
            chosen[one.destination.span_id] = one


def _exchanged(chosen: dict[bytes, Fit], by_pair: Mapping[tuple[bytes, bytes], Fit], one: Fit) -> bool:
    """Take this fit if it, and what those that had its two migrations get for them, is better; whether it was."""
    destination, source = one.destination.span_id, one.source.span_id
    mine = chosen.get(destination)
    theirs = next((other for other in chosen.values() if other.source.span_id == source), None)
    if mine is one or theirs is None or theirs.sure or (mine is not None and mine.sure):
        return False
    taken = {other.source.span_id for other in chosen.values()}
    left = theirs.destination.span_id
    instead = (
        [by_pair.get((left, mine.source.span_id))]
        if mine
        else [f for (d, s), f in by_pair.items() if d == left and s not in taken]
    )
    best = min(filter(None, instead), key=Fit.rank, default=None)
    if best is None or _strain(one) + _strain(best) >= _strain(theirs) + (_strain(mine) if mine else SKEW_NS**2):
        return False
    chosen[destination], chosen[left] = one, best
    return True


def _strain(one: Fit) -> int:
    """Two clocks that differ a little are likelier than one that differs much."""
    return one.apart_ns**2


def _joined(one: Fit) -> Join:
    source = one.source
    links = _links(source, one.destination)
    return Join(source.trace_id, source.span_id, source.start_ns + one.offset.applied_ns, links)


def _shifts(stream: int, migrations: Sequence[Seen], chosen: Mapping[bytes, Fit]) -> Shifts:
    joined = sorted(
        (one for one in chosen.values() if one.destination.stream == stream), key=lambda one: one.destination.start_ns
    )
    return Shifts(
        {one.destination.span_id: one.offset for one in joined if one.source.log.timed and one.destination.log.timed},
        {m.trace_id: 0 for m in migrations if m.stream == stream}
        | {one.source.trace_id: one.offset.applied_ns for one in joined},
        [one.destination.start_ns for one in joined],
        [one.offset.applied_ns for one in joined],
    )


def _doubts(one: Fit) -> Iterator[str]:
    """What the user should know of two that were joined."""
    source, destination, offset = one.source.log.name, one.destination.log.name, one.offset
    if one.against:
        yield f"{destination}: it was joined to {source} because they were named so, but {one.against}."
    if offset.contradictory and offset.min_ns is not None and offset.max_ns is not None:
        yield (
            f"{destination}: its clock cannot be compared with that of {source}: by what arrived it is ahead by at most "
            f"{offset.max_ns / SECOND_NS:.6f} s, by what was answered by at least {offset.min_ns / SECOND_NS:.6f} s. "
            "One of the two was set or ran unevenly meanwhile. Its times are left as they are in the log."
        )
    elif offset.differing and not offset.applied_ns:
        yield (
            f"{destination}: its clock differs from that of {source}, but it is not known by how much: stamps go back in one "
            "of the two, so its clock was set, and no answer bounds the difference. Its times are left as they are in the log."
        )


def _left_alone(destinations: Sequence[Seen], fits: Sequence[Fit], joined: Container[bytes]) -> Iterator[str]:
    """What belongs to nothing, though there are logs of the other side."""
    said: set[str] = set()
    for destination in destinations:
        best = next((one for one in fits if one.destination is destination), None)
        if best is None or destination.span_id in joined:
            continue
        source = best.source.log.name
        said |= {source, destination.log.name}
        why = best.against or "that one belongs to another log"
        if source == destination.log.name:
            yield (
                f"{source}: two processes wrote into it, and what one received is not what the other sent ({why}), so each has "
                "a trace of its own. If they are the two sides of one migration, and lines are missing, write the lines of "
                "each into a file of its own and name them with --source and --destination."
            )
            continue
        yield (
            f"{destination.log.name}: its migration belongs to no other log that was given (nearest is {source}, but {why}), "
            "so it has a trace of its own. If it is of the same migration as one, name both with --source and --destination."
        )
    for name in dict.fromkeys(one.source.log.name for one in fits):
        if name not in said and not any(one.source.span_id in joined for one in fits if one.source.log.name == name):
            yield f"{name}: none of its migrations belongs to any other log that was given, so each has a trace of its own."


def _sideless(migrations: Sequence[Seen]) -> Iterator[str]:
    """Logs of which nothing tells the side, where there are others."""
    if len({m.stream for m in migrations}) > 1:
        for name in dict.fromkeys(m.log.name for m in migrations if m.role is None):
            yield (
                f"{name}: nothing in it tells whether it is the source's or the destination's, so its migration is joined to "
                "no other. Say so with --source or --destination."
            )


def _links(source: Seen, destination: Seen) -> dict[str, dict[Key, list[Link | None]]]:
    """What the destination's spans may point to, None for one that has no counterpart."""
    completed = source.completed and destination.completed
    found: dict[str, dict[Key, list[Link | None]]] = {}
    for rule, by_key in source.offered.items():
        asked = destination.asked.get(rule, Counter())
        found[rule] = {
            key: [*[None] * (asked[key] - len(ids) // SPAN_ID_BYTES), *_to_each(source.trace_id, ids)]
            for key, ids in by_key.items()
            if _places_agree(len(ids) // SPAN_ID_BYTES, asked[key], completed)
        }
    return found


def _to_each(trace: bytes, ids: bytes | bytearray) -> Iterator[Link]:
    return (Link(trace, bytes(ids[place : place + SPAN_ID_BYTES])) for place in range(0, len(ids), SPAN_ID_BYTES))


def _places_agree(offered: int, asked: int, completed: bool) -> bool:
    """Whether, counted from the last one, the same place means the same section.

    QEMU traces the load of what `save_setup` of a section wrote (`qemu_loadvm_state_section_startfull`), but not its save, so
    the destination can have one more, the first. Without the last ones only what there is but once is certain.
    """
    return asked - offered in (0, 1) if completed else asked == offered == 1
