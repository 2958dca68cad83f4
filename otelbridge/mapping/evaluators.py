"""Evaluators that are made of others: the first value that is there, a key, a value that is left out if it means nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from otelbridge.mapping.rules import Arguments, Evaluate, KeyOf, Now
from otelbridge.records import Value


def fixed(text: str) -> Evaluate:
    """The same text always."""
    return lambda _begin, _end, _now: text


def argument(place: int) -> Evaluate:
    """The begin event's argument at that place of its row."""
    return lambda begin, _end, _now: begin[place]


def key_of(parts: Sequence[Evaluate], *, thread: bool = False) -> KeyOf:
    """The parts of a key, read from one event; with `thread` the event's thread goes before them, if it is known."""
    plain = _parts_of(parts)
    if not thread:
        return plain
    if not parts:
        return lambda _arguments, now: () if now[0] is None else (now[0],)
    if len(parts) == 1:
        only = parts[0]

        def both(arguments: Arguments, now: Now) -> tuple[Value | None, ...]:
            value, thread = only(arguments, None, now), now[0]
            return (value,) if thread is None else (thread, value)

        return both
    return lambda arguments, now: plain(arguments, now) if now[0] is None else (now[0], *plain(arguments, now))


def _parts_of(parts: Sequence[Evaluate]) -> KeyOf:
    if not parts:
        return lambda _arguments, _now: ()
    if len(parts) == 1:
        only = parts[0]
        return lambda arguments, now: (only(arguments, None, now),)
    return lambda arguments, now: tuple([part(arguments, None, now) for part in parts])


def first(found: Sequence[Evaluate]) -> Evaluate:
    """The first value that is there."""
    if len(found) == 1:
        return found[0]

    def evaluate(begin: Arguments, end: Arguments | None, now: Now) -> Value | None:
        for one in found:
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
