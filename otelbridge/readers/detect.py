"""Which format an input is in, from its first 64 KiB."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from otelbridge.errors import FormatError

# 19625@1795407950.847563:migrate_set_state new state setup
# 2026-11-23T04:30:01.123456Z migrate_set_state new state setup
# migrate_set_state new state setup
_EVENT = re.compile(
    rb"(?:^|[\n\0])(?P<line>(?:(?P<number>\d{1,10}@)\d{1,11}\.\d{6}:|(?P<iso>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z )+)?"
    rb"(?P<name>[A-Za-z_]\w*)(?=[ \r\n]|\Z)[^\r\n]*)"
)
_SIMPLE_MAGIC = (b"\xff" * 8 + b"\xb4\x29\xa4\x0a\xcb\x77\xb1\xf2", b"\xff" * 8 + b"\xf2\xb1\x77\xcb\x0a\xa4\x29\xb4")
_OTHERS = (
    (re.compile(rb"tracing_mark_write:|# tracer: nop"), "the ftrace backend"),
    (re.compile(rb"^\[[\d:. -]+\] \(\+[\d.?]+\) .* qemu:\w+: \{", re.MULTILINE), "LTTng (babeltrace2's text)"),
    (re.compile(rb"qemu-system-\w+\[\d+\]: \w+ |^<30>1 |\"MESSAGE\"", re.MULTILINE), "the syslog backend"),
    (re.compile(rb"^\d+@\d{16,} \w+", re.MULTILINE), "SystemTap"),
)


class Look(NamedTuple):
    """What the first bytes of a log show.

    Attributes:
        first: The first event's line, empty if none was found.
        stamp: How its time is written: `number` for `19625@…`, `iso`, or None for events without any.
        events: Whether any event was found.
    """

    first: bytes
    stamp: str | None
    events: bool


def look_at(head: bytes, is_event: Callable[[str], bool]) -> Look:
    """What the beginning of a text log shows. The first event with a stamp counts, else the first without."""
    first = b""
    for found in _EVENT.finditer(head):
        if not is_event(found["name"].decode("ascii")):
            continue
        if found["number"] or found["iso"]:
            return Look(found["line"], "number" if found["number"] else "iso", events=True)
        first = first or found["line"]
    return Look(first, None, events=bool(first))


def detect(head: bytes, path: str, is_event: Callable[[str], bool]) -> str:
    """The `--format` word for an input.

    A text in whose beginning no event stands is taken for a log too: its events may come later.

    Raises:
        FormatError: It is a trace of another backend, or no text.
    """
    if head.startswith(_SIMPLE_MAGIC):
        raise _not_yet(path, "the simple backend (binary)")
    if look_at(head, is_event).events:
        return "log"
    for pattern, backend in _OTHERS:
        if pattern.search(head):
            raise _not_yet(path, backend)
    control = sum(head.count(bytes([byte])) for byte in (*range(1, 9), *range(14, 27), *range(28, 32)))
    if control * 20 > len(head):
        raise FormatError(
            f"'{path}' is no text and no trace that is known; it begins with {head[:16]!r}. "
            "A log of QEMU's log backend (-trace … -D FILE) was expected; nothing of it was converted.",
            path=path, offset=0,
        )  # fmt: skip
    return "log"


def _not_yet(path: str, backend: str) -> FormatError:
    return FormatError(
        f"'{path}' looks like the output of {backend}, which this version does not read; it reads the text of the log backend "
        "(-trace … -D FILE -msg timestamp=on). Nothing of it was converted.",
        path=path, offset=0,
    )  # fmt: skip
