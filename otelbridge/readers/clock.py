"""From a host's monotonic clock to UTC: what must be added to times that a trace gives since its host was started.

Linux's CLOCK_MONOTONIC stands still while the host sleeps, and NTP moves UTC against it by some milliseconds a day. So an
offset is that of one boot, and best taken near the trace.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeGuard

from otelbridge.durations import duration_ns
from otelbridge.errors import UsageError
from otelbridge.readers.open import shown
from otelbridge.records import SECOND_NS

BESIDE = "clock.json"
"""A file of this name in the input's folder is taken by itself."""
_OPTIONS = (
    "Give what must be added to its times with --clock-offset, both clocks read together with --clock FILE "
    "(or as clock.json beside it), or the time of the host's boot with --boot-time TIME"
)
_SHAPE = '{"realtime_ns": 1795408314740585660, "monotonic_ns": 2611259152318}, alone or as "start" and "end"'


_MAX_DIGITS = 19
"""Of nanoseconds that fit into 63 bits."""


class Reading(NamedTuple):
    """Both clocks of a host, read together. `uncertainty_ns` is how far apart the two were read."""

    realtime_ns: int
    monotonic_ns: int
    uncertainty_ns: int = 0

    @property
    def offset_ns(self) -> int:
        """UTC minus monotonic."""
        return self.realtime_ns - self.monotonic_ns


class Facts(NamedTuple):
    """What is known of a trace's clock; None and empty for what is not.

    Attributes:
        offset_ns: The user's --clock-offset.
        readings: Both clocks, once, or before and after the trace (`read_clock`).
        boot_ns: The user's --boot-time: UTC when the monotonic clock was 0.
        modified_ns: When the trace's file was last written.
        first_ns: The monotonic time of the first record.
        last_ns: And of the last one.
    """

    offset_ns: int | None = None
    readings: Sequence[Reading] = ()
    boot_ns: int | None = None
    modified_ns: int | None = None
    first_ns: int | None = None
    last_ns: int | None = None


class Clock(NamedTuple):
    """An offset that holds for a whole trace, so that every duration is what the monotonic clock measured.

    Attributes:
        offset_ns: What is added to a monotonic time to make it UTC.
        source: Where it comes from: `offset`, `readings`, `boot` or `modified`.
        uncertainty_ns: How far off it may be.
        mark: What `otelbridge.clock` says on every span, None if the times are as good as the input's own.
        note: What the user should know, empty if nothing.
    """

    offset_ns: int
    source: str
    uncertainty_ns: int = 0
    mark: str | None = None
    note: str = ""


def clock_of(facts: Facts, path: str) -> Clock:
    """The best offset that the facts allow: the user's word, then readings of both clocks, then boot, then the file's time.

    Two readings that differ, because NTP moved UTC meanwhile, give their mean, which is never off by more than half of that.

    Raises:
        UsageError: Nothing is known; what can be given.
    """
    if facts.offset_ns is not None:
        return Clock(facts.offset_ns, "offset")
    if facts.readings:
        return _of_readings(facts.readings)
    if facts.boot_ns is not None:
        # `uptime -s` and /proc/stat's btime have whole seconds.
        return Clock(facts.boot_ns, "boot", 0 if facts.boot_ns % SECOND_NS else SECOND_NS)
    if facts.modified_ns is not None and facts.last_ns is not None:
        return _of_file(facts.modified_ns, facts.first_ns, facts.last_ns, path)
    raise UsageError(
        f"The times in {shown(path)} count from its host's boot, and nothing tells when that was. {_OPTIONS}. "
        "Nothing was converted."
    )


def _of_readings(readings: Sequence[Reading]) -> Clock:
    offsets = [reading.offset_ns for reading in readings]
    apart_ns = max(offsets) - min(offsets)
    uncertainty_ns = (apart_ns + 1) // 2 + max(reading.uncertainty_ns for reading in readings)
    return Clock((max(offsets) + min(offsets)) // 2, "readings", uncertainty_ns)


def _of_file(modified_ns: int, first_ns: int | None, last_ns: int, path: str) -> Clock:
    """A file is written last when its last record is, or later: nobody knows how much. The trace's length is the guess."""
    uncertainty_ns = max(SECOND_NS, last_ns - (first_ns if first_ns is not None else last_ns))
    return Clock(
        modified_ns - last_ns, "modified", uncertainty_ns, "estimated",
        f"{path}: its times count from its host's boot; the last event was taken to be as old as the file's last change, "
        f"which may be wrong by {uncertainty_ns / SECOND_NS:.0f} s or more, and is if the file was copied. {_OPTIONS}.",
    )  # fmt: skip


def offset_of(text: str) -> int | None:
    """Nanoseconds of a --clock-offset: a whole number of them, or a duration such as `1795405703.481433342s`; may be negative.

    None for anything else.
    """
    text = text.strip()
    sign, bare = (-1, text[1:]) if text.startswith("-") else (1, text)
    found = int(bare) if bare.isascii() and bare.isdigit() and len(bare) <= _MAX_DIGITS else duration_ns(bare)
    return None if found is None else sign * found


def clock_beside(path: str) -> Path | None:
    """The clock.json in the folder of an input, None if there is none."""
    if path == "-":
        return None
    beside = Path(path).parent / BESIDE
    return beside if beside.is_file() else None


def read_clock(path: Path) -> tuple[Reading, ...]:
    """The one or two readings of both clocks in a --clock file.

    Raises:
        UsageError: It cannot be read, or holds something else.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UsageError(f"The clock file '{path}' cannot be read: {reason}. Nothing was converted.") from None
    return readings_in(text, str(path))


def readings_in(text: str, path: str) -> tuple[Reading, ...]:
    """The readings in the JSON of a clock file.

    Raises:
        UsageError: It holds something else.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"The clock file '{path}' is no JSON: {error}. Expected was {_SHAPE}. Nothing was converted."
        ) from None
    parts = [document]
    if isinstance(document, dict) and ("start" in document or "end" in document):
        parts = [document[key] for key in ("start", "end") if key in document]
    return tuple(_reading(part, path) for part in parts)


def _reading(part: object, path: str) -> Reading:
    names = ("realtime_ns", "monotonic_ns")
    if isinstance(part, dict) and all(_whole(part.get(name)) for name in names):
        uncertainty_ns = part.get("uncertainty_ns", 0)
        return Reading(part[names[0]], part[names[1]], uncertainty_ns if _whole(uncertainty_ns) else 0)
    raise UsageError(
        f"The clock file '{path}' has {json.dumps(part)[:120]}, but whole numbers of nanoseconds are expected: {_SHAPE}. "
        "Nothing was converted."
    )


def _whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
