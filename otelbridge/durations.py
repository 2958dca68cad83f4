"""Lengths of time as people write them: `250us`, `1.5s`, `10m`."""

from __future__ import annotations

import re

from otelbridge.records import SECOND_NS

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ns|us|ms|s|m|h)")
_UNITS_NS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": SECOND_NS, "m": 60 * SECOND_NS, "h": 3600 * SECOND_NS}


def duration_ns(text: str) -> int | None:
    """Nanoseconds of `250us`, `1.5s`, `10m`; None for anything else."""
    found = _DURATION.fullmatch(text.strip())
    return round(float(found[1]) * _UNITS_NS[found[2]]) if found else None
