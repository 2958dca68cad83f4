"""The ust backend's events, as `babeltrace2` prints LTTng's traces.

    [04:30:07.397507948] (+0.001254499) vm qemu:savevm_section_end: { cpu_id = 0 }, { vpid = 23115, vtid = 23166, procname = "qemu-system-x86" }, { id = "ram", section_id = 1, ret = 0 }
    [2026-11-23 04:49:25.767168364] (+0.448843561) vm:qemu-system-x86:(14750) qemu:migrate_set_state: { cpu_id = 1 }, { new_state = "setup" }

The process is known where the context `vpid` was added or the trace has a buffer for each process, the thread where `vtid` was.
The arguments go on as the text within the last braces, for `catalogue.fields`. A time of day gets the day on which it follows the time
before; it is of the zone that the caller names, as dates are.

Source: babeltrace2's plug-in text.pretty (print.c).
"""  # noqa: E501  # real lines

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any

from otelbridge.errors import FormatError
from otelbridge.readers.lines import Found, LineReader, Windows
from otelbridge.records import SECOND_NS, Plan

_STAMP = rb"\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|\d\d:\d\d:\d\d|\d{9,11})\.(\d{9})\] (?:\(\+[\d.?]++\) )?+"
# [04:49:25.767168364] (+0.448843561) vm:qemu-system-x86:(14750) qemu:migrate_set_state: { cpu_id = 1 }, { new_state = "setup" }
_LINE = re.compile(_STAMP + rb"((?:[^ \n]++ ){0,8}?)qemu:([A-Za-z_]\w*+): (\{[^\n]*+)\n|([^\n]*+)\n")
_EVENT = re.compile(rb"^" + _STAMP + rb"(?:[^ \n]++ ){0,8}?qemu:[A-Za-z_]\w*+: \{", re.MULTILINE)
_CUT = re.compile(rb"\[[\d:. -]{9,29}\] (?:\(\+[\d.?]+\) )?(?:[^ \n]++ ){0,8}?qemu:")
_CONTENT = rb'(?:[^{}"]++|"(?:[^"\\]++|\\.)*+")*+'
# { cpu_id = 0 }, { vpid = 23115, vtid = 23166, procname = "qemu-system-x86" }, { id = "ram", section_id = 1, ret = 0 }
_GROUPS = re.compile(rb"((?:\{" + _CONTENT + rb"\}, )*+)\{ ?(" + _CONTENT + rb")\}\r?+", re.DOTALL)
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_VPID, _VTID = re.compile(rb"\bvpid = (\d{1,10})\b"), re.compile(rb"\bvtid = (\d{1,10})\b")
_BUFFER_PID = re.compile(rb":\((\d{1,10})\) ")
# [warning] Tracer discarded 512 events between [04:30:07.397507948] and [04:30:07.400000000] in trace …
_DISCARDED = re.compile(rb"(?i:warning).{0,20}\bTracer (?:discarded (\d{1,18})|may have discarded) (?:event|packet)")
_HOUR_S, _DAY_S = 3600, 86_400


def ust_reader(
    plan: Plan,
    is_event: Callable[[str], bool],
    decode_sums: Callable[[str, bytes], tuple[Any, ...] | None],
    *,
    not_after_ns: int | None = None,
    zone: tzinfo = UTC,
) -> LineReader:
    """A reader of babeltrace2's text.

    Args:
        plan: What the rules need.
        is_event: Whether QEMU has an event of this name.
        decode_sums: As `LogReader` takes it, from the fields.
        not_after_ns: A time, UTC, after which the first event cannot lie: it tells the day where stamps do not.
        zone: The zone in which babeltrace2 printed; UTC with `--clock-gmt`.

    Raises:
        FormatError: By `feed`: stamps have no date, and `not_after_ns` is not given.
    """
    grammar = UstGrammar(not_after_ns, zone)
    return LineReader("ust", grammar, Windows(plan, is_event, decode_sums, grammar))


def looks_like(head: bytes) -> bool:
    """Whether an event of the provider `qemu`, as babeltrace2 prints it, stands in the first bytes."""
    return _EVENT.search(head) is not None


def discarded(line: bytes) -> int:
    """How many events babeltrace2 says that the tracer discarded; 1 where it does not say how many, 0 for any other line."""
    found = _DISCARDED.search(line)
    return int(found[1] or 1) if found else 0


class UstGrammar:
    """The lines of babeltrace2."""

    resolution_ns = 1
    gaps: list[str] = []  # noqa: RUF012  # always empty: what was discarded is counted

    def __init__(self, not_after_ns: int | None, zone: tzinfo) -> None:
        self._not_after_s = None if not_after_ns is None else not_after_ns // SECOND_NS
        self._zone = zone
        self._last_s: int | None = None
        """The second of the last time of day."""

    def scan(self, data: bytes) -> Iterator[Found]:
        """See `Grammar.scan`."""
        key, second = b"", None
        for stamp, fraction, source, name, groups, other in _LINE.findall(data):
            if not name:
                yield from _other(other)
                continue
            if stamp != key:
                key, second = stamp, self._second(stamp)
            if second is None:
                yield None, b"malformed", b"", None, 1
                continue
            if not groups.endswith((b"}", b"}\r")):
                yield None, b"torn", b"", None, 1
                continue
            yield second * SECOND_NS + int(fraction), name, groups, source, 1

    def row(self, raw: bytes, who: bytes) -> tuple[bytes, int | None, int | None]:
        """See `Grammar.row`."""
        found = _GROUPS.fullmatch(raw)
        return (raw, None, None) if found is None else (found[2].rstrip(), *_thread_and_process(found[1], who))

    def foreign(self, name: bytes, raw: bytes) -> tuple[str, int]:  # noqa: ARG002  # as Grammar has it
        """The provider `qemu` has only events."""
        return "unmapped", 0

    def _second(self, stamp: bytes) -> int | None:
        """Unix seconds of a stamp, None for a moment that does not exist or lies before 1970."""
        text = stamp.decode("ascii")
        if text.isdigit():
            return int(text)
        try:
            if "-" in text:
                second = int(datetime.fromisoformat(text).replace(tzinfo=self._zone).timestamp())
            else:
                second = self._dayless(text)
        except (ValueError, OverflowError):
            return None
        return second if second >= 0 else None

    def _dayless(self, text: str) -> int:
        if self._last_s is not None:
            # babeltrace2 puts events in order, so time of day steps back over midnight alone, or where the clock was set back.
            latest = self._last_s + _DAY_S - _HOUR_S
        elif self._not_after_s is not None:
            latest = self._not_after_s
        else:
            raise FormatError(
                "its stamps have a time of day and no date, and nothing tells which day it was: the time of the file's last "
                "change is not known. Give the file itself, not a pipe, or print with 'babeltrace2 --clock-date --clock-gmt'; "
                "nothing of it was converted."
            )
        day = datetime.fromtimestamp(latest, self._zone)
        hour, minute, second = (int(part) for part in text.split(":"))
        moment = day.replace(hour=hour, minute=minute, second=second, microsecond=0, fold=0)
        found = int(moment.timestamp())
        if found > latest:
            found = int((moment - timedelta(days=1)).timestamp())
        self._last_s = found
        return found

    def snapshot(self) -> dict[str, Any]:
        """See `Grammar.snapshot`."""
        return {"last_s": self._last_s}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Grammar.restore`."""
        self._last_s = state["last_s"]


@lru_cache(maxsize=4096)
def _thread_and_process(context: bytes, source: bytes) -> tuple[int | None, int | None]:
    """Who wrote an event, by the braces before its fields and the words before its name."""
    context = _STRING.sub(b"", context)
    process = _VPID.search(context) or _BUFFER_PID.search(source)
    thread = _VTID.search(context)
    return int(thread[1]) if thread else None, int(process[1]) if process else None


def _other(line: bytes) -> Iterator[Found]:
    number = discarded(line)
    if number:
        yield None, b"dropped_by_qemu", b"", None, number
    yield None, b"torn" if line.startswith(b"[") and _CUT.match(line) else b"not_trace", b"", None, 1
