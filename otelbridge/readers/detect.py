"""Which format an input is in, from its first 64 KiB."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from otelbridge.errors import FormatError
from otelbridge.readers.open import shown

# 19625@1795407950.847563:migrate_set_state new state setup
# 2026-11-23T04:30:01.123456Z migrate_set_state new state setup
# migrate_set_state new state setup
_EVENT = re.compile(
    rb"(?:^(?:\xef\xbb\xbf)?|[\n\0])(?P<line>"
    rb"(?:(?P<number>\d{1,10}@)\d{1,11}\.\d{6}:|(?P<iso>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z )+)?"
    rb"(?P<name>[A-Za-z_]\w*)(?=[ \r\n]|\Z)[^\r\n]*)"
)


_FIRST_LINES = 200
_NAME = re.compile(r"[A-Za-z0-9_.@-]+")
_ISO_STAMP = "2026-11-23T04:30:01.123456Z "


class Look(NamedTuple):
    """What the first bytes of a log show.

    Attributes:
        first: The first event's line, empty if none was found.
        stamp: How its time is written: `number` for `19625@…`, `iso`, or None for events without any.
        events: Whether any event was found.
        front: A pattern of what something else put in front of every line, empty where nothing did.
    """

    first: bytes
    stamp: str | None
    events: bool
    front: bytes = b""


def look_at(head: bytes, is_event: Callable[[str], bool]) -> Look:
    """What the beginning of a text log shows. The first event with a stamp counts, else the first without."""
    look = _look(head, is_event)
    if look.stamp is not None and look.first.find(b"Z ", len(_ISO_STAMP)) < 0:
        return look
    from otelbridge.readers.fronts import front_of, without_front  # noqa: PLC0415  # most logs have nothing in front

    front = front_of(head, is_event)
    return _look(without_front(head, front), is_event)._replace(front=front) if front else look


def _look(head: bytes, is_event: Callable[[str], bool]) -> Look:
    first = b""
    for found in _EVENT.finditer(head):
        if not is_event(found["name"].decode("ascii")):
            continue
        if found["number"] or found["iso"]:
            return Look(found["line"], "number" if found["number"] else "iso", events=True)
        first = first or found["line"]
    return Look(first, None, events=bool(first))


class Detected(NamedTuple):
    """A `--format` word, and what speaks for it."""

    format: str
    why: str


def detect(head: bytes, path: str, is_event: Callable[[str], bool]) -> Detected:
    """The format of an input, from its first bytes.

    A text in whose beginning no event stands is taken for a log: its events may come later.

    Raises:
        FormatError: It could be in several formats, or it is no text and no trace that is known.
    """
    _refuse_wrapped(head, path, is_event)
    look = look_at(head, is_event)
    if look.stamp is not None and not _has_others(head):
        return Detected("log", f"it has the line {look.first[:80]!r}")
    fitting = _fitting(head)
    if look.stamp is not None:
        fitting.insert(0, Detected("log", f"it has the line {look.first[:80]!r}"))
    if len(fitting) > 1:
        words = "; ".join(f"{found.format} ({found.why})" for found in fitting)
        raise FormatError(
            f"{shown(path)} could be in several formats: {words}. Say which it is with --format; nothing of it was converted.",
            path=path, offset=0,
        )  # fmt: skip
    if fitting:
        return fitting[0]
    if look.events:
        return Detected("log", f"it has the line {look.first[:80]!r}, without a stamp")
    control = sum(head.count(bytes([byte])) for byte in (*range(1, 9), *range(14, 27), *range(28, 32)))
    if control * 20 > len(head):
        raise FormatError(
            f"{shown(path)} is no text and no trace that is known; it begins with {head[:16]!r}. A trace of QEMU's log, "
            "simple, ftrace, syslog, ust or dtrace backend was expected; nothing of it was converted.",
            path=path, offset=0,
        )  # fmt: skip
    return Detected("log", "it is text, and of no other format")


_WRAPPED = (
    (
        re.compile(rb"\xff\xfe|\xfe\xff"), "text in UTF-16",
        "UTF-8 was expected. Convert it: iconv -f UTF-16 -t UTF-8 FILE >trace.log",
    ),
    (
        re.compile(rb'\s*\{\s*"log"\s*:\s*"'), "a container's log, with each line in a JSON object",
        "The lines themselves were expected. Unwrap them: jq -j .log FILE >trace.log",
    ),
)  # fmt: skip


def _refuse_wrapped(head: bytes, path: str, is_event: Callable[[str], bool]) -> None:
    """Say of a log that something else has wrapped how to get at it; recorded anew it would be no other.

    Raises:
        FormatError: It is such a one.
    """
    for begin, found, repair in _WRAPPED:
        if begin.match(head):
            raise FormatError(
                f"{shown(path)} is {found}; it begins with {head[:16]!r}. {repair}; nothing of it was converted.",
                path=path, offset=0,
            )  # fmt: skip
    if wrapped := _in_objects(head, is_event):
        where, line = wrapped
        raise FormatError(
            f"{shown(path)} has the lines of a log in JSON objects, the first event under '{where}': {line[:80]!r}. The lines "
            f"themselves were expected. Unwrap them: jq -Rr 'fromjson? | {where} // empty' FILE >trace.log; nothing of it was "
            "converted.",
            path=path, offset=0,
        )  # fmt: skip


# {"component":"virt-launcher","level":"info","msg":"19625@1795407950.847563:migrate_set_state new state setup",…}
def _in_objects(head: bytes, is_event: Callable[[str], bool]) -> tuple[str, str] | None:
    """Where in the JSON objects that the lines are an event stands with its stamp, as jq names it, and the first such event."""
    lines = [line for line in head.splitlines()[:_FIRST_LINES] if line.startswith(b"{")]
    if not lines:
        return None
    import json  # noqa: PLC0415  # most logs have no such line

    for line in lines:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if b'"MESSAGE"' in line:  # the journal's, of which there is a reader
            continue
        for where, text in _texts(found, ""):
            if _look(text.encode("utf-8", "surrogatepass"), is_event).stamp is not None:
                return where, text
    return None


def _texts(found: object, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(found, str):
        yield where, found
    elif isinstance(found, dict):
        for key, value in found.items():
            # It will be copied into a shell, so a name must be nothing but a name.
            if _NAME.fullmatch(key):
                yield from _texts(value, f"{where}.{key}" if key.isidentifier() else f'{where}."{key}"')


def another(head: bytes, format_: str, is_event: Callable[[str], bool]) -> Detected | None:
    """The format other than this one in which an input seems to be; None if nothing speaks for one alone."""
    try:
        found = detect(head, "", is_event)
    except FormatError:
        return None
    has_sign = found.format != "log" or look_at(head, is_event).events
    return found if has_sign and found.format != format_ else None


# What stands in an input of another format; where none of it does, the others need not be asked.
_OTHER_WORDS = (b"tracing_mark_write: ", b"qemu", b"kvm", b'"MESSAGE"', b"\nMESSAGE=")
_OTHER_SIGNS = re.compile(rb'tracing_mark_write: | qemu:\w|"MESSAGE"|\nMESSAGE=|(?:qemu|kvm)[\w-]*(?:\[\d+\]: | \d+ - )')
_STAP_SIGN = re.compile(rb"@(?<=\d@)\d{16,20} ")


def _has_others(head: bytes) -> bool:
    # The words first: looking for several things at every place costs as much as reading some thousand lines.
    if any(word in head for word in _OTHER_WORDS) and _OTHER_SIGNS.search(head) is not None:
        return True
    return _STAP_SIGN.search(head) is not None


def _fitting(head: bytes) -> list[Detected]:
    """The formats but the log's that the first bytes could be in."""
    from otelbridge.readers import ftrace, journald, stap, syslog, ust  # noqa: PLC0415  # a log needs none of them
    from otelbridge.readers.simple import is_simple  # noqa: PLC0415

    if is_simple(head):
        return [Detected("simple", "it begins with the header of a simple trace")]
    signs = (
        ("ftrace", ftrace.looks_like, "events stand behind 'tracing_mark_write:'"),
        ("journald", journald.looks_like, "it has entries of the journal with events as messages"),
        ("syslog", syslog.looks_like, "events stand as messages of a program 'qemu…[PID]:'"),
        ("ust", ust.looks_like, "it has events 'qemu:…' as babeltrace2 prints them"),
        ("stap", stap.looks_like, "events stand behind 'PID@NANOSECONDS'"),
    )
    return [Detected(word, why) for word, looks_like, why in signs if looks_like(head)]
