"""Evaluators that are made of others: the first value that is there, a key, a value that is left out if it means nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from otelbridge.mapping.rules import Arguments, Evaluate, KeyOf, Now, PlainKey, place_of
from otelbridge.records import Value


def fixed(text: str) -> Evaluate:
    """The same text always."""
    return lambda _begin, _end, _now: text


@cache
def argument(place: int) -> Evaluate:
    """The begin event's argument at that place of its row."""
    evaluate: Evaluate = lambda begin, _end, _now: begin[place]  # noqa: E731  # to be marked
    vars(evaluate)["place"] = place
    return reading_no_more(evaluate)


def reading_no_more(evaluate: Evaluate) -> Evaluate:
    """The same, marked as one that reads arguments alone."""
    vars(evaluate)["reads_now"] = False
    return evaluate


def nothing(_begin: object, _end: object, _now: object) -> None:
    """What an event's version does not have."""


def key_of(parts: Sequence[Evaluate], *, thread: bool = False) -> KeyOf:
    """The parts of a key, read from one event; with `thread` the event's thread goes before them, if it is known."""
    places = [place for part in parts if (place := place_of(part)) is not None]
    if len(places) == len(parts):
        return PlainKey(tuple(places), thread=thread)

    def key(arguments: Arguments, now: Now) -> tuple[Value | None, ...]:
        values = tuple([part(arguments, None, now) for part in parts])
        return (now[0], *values) if thread and now[0] is not None else values

    return key


def first(found: Sequence[Evaluate]) -> Evaluate:
    """The first value that is there."""
    there = [one for one in found if one is not nothing]
    if len(there) <= 1:
        return there[0] if there else nothing

    def evaluate(begin: Arguments, end: Arguments | None, now: Now) -> Value | None:
        for one in there:
            value = one(begin, end, now)
            if value is not None:
                return value
        return None

    return evaluate


def by_begin(table: Mapping[str, Evaluate]) -> Evaluate:
    """What reads the begin event's arguments, whichever event it was."""

    def evaluate(begin: Arguments, end: Arguments | None, now: Now) -> Value | None:
        one = table.get(now.begin_event or "")
        return one(begin, end, now) if one is not None else None

    return evaluate


def shaped(inner: Evaluate, unless: frozenset[str], *, as_hex: bool) -> Evaluate:
    """A value that is left out if it means nothing, and written as wanted."""

    def evaluate(begin: Arguments, end: Arguments | None, now: Now) -> Value | None:
        value = inner(begin, end, now)
        if value is None or str(value) in unless:
            return None
        return f"{value & 0xFFFF_FFFF_FFFF_FFFF:#x}" if as_hex and isinstance(value, int) else value

    return evaluate
