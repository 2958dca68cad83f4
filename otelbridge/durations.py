"""Lengths of time as people write them: `250us`, `1.5s`, `10m`."""

from __future__ import annotations

import re

from otelbridge.records import SECOND_NS

_DURATION = re.compile(r"(\d{1,30}(?:\.\d{1,30})?)\s*(ns|us|ms|s|m|h)")
_UNITS_NS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": SECOND_NS, "m": 60 * SECOND_NS, "h": 3600 * SECOND_NS}


def duration_ns(text: str) -> int | None:
    """Nanoseconds of `250us`, `1.5s`, `10m`; None for anything else."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        return None
    # In integers: a float of seconds has lost the nanoseconds of any time since 1970.
    whole, _, fraction = found[1].partition(".")
    unit_ns = _UNITS_NS[found[2]]
    parts: int = 10 ** len(fraction)
    return int(whole) * unit_ns + round(int(fraction or "0") * unit_ns / parts)


def duration_text(time_ns: int) -> str:
    """A duration with the largest unit that leaves it whole, as `duration_ns` reads it."""
    word = max((word for word, unit_ns in _UNITS_NS.items() if time_ns % unit_ns == 0), key=_UNITS_NS.__getitem__)
    return f"{time_ns // _UNITS_NS[word]}{word}" if time_ns else "0s"
