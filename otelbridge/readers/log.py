"""The log backend's text: a line for each event, the time in front of it in one of four ways.

    19625@1795407950.847563:migrate_set_state new state setup      2.12 to 3.1 with the process, 4.0 to 10.0 with the thread
    2026-11-23T04:30:01.123456Z migrate_set_state new state setup  10.1 and newer
    migrate_set_state new state setup                              6.0 and newer without `-msg timestamp=on`

Lines of other programs, errors and `-d` output stand between them.

Blocks are scanned by one pattern that skips the events which come most often and are only counted; `bytes.count` counts
those. The numbers must add up to the lines of the block. Where they do not, something else is among the lines and each
of them is looked at by itself, which is also what defines the result. The shortest way is for a block that lies in one
window and in which one thread writes one such event: two counts and the pattern are all that it takes.

Source: QEMU's util/log.c and scripts/tracetool/backend/log.py; GLib's g_date_time_format_iso8601.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal

from otelbridge.errors import FormatError
from otelbridge.records import SECOND_NS, WINDOW_NS, Batch, Plan, Row

MAX_LINE_BYTES = 1 << 20
"""A longer line is no event that QEMU wrote; its rest is passed over."""

CHUNK_BYTES = 1 << 18
ASSUMED_STEP_NS = 1000
"""Lines without a stamp are taken to be so far apart, so that they have an order."""

_MAX_HOT = 8
_HOT_SHARE = 16
"""An event that is only counted and makes up more than a 16th of a block is counted without being looked at."""
_WARM_LINES = 512
"""Fewer lines say nothing of what comes often."""
_COOL_SHARE = 64
"""One that makes up less than a 64th for a while is looked at again: every hot event makes all lines cost more."""
_COOL_AFTER = 16
_SHORT_BYTES = 1 << 14
"""So little is read the ordinary way."""
_DETOURS = 8
_MAX_HELD = 10_000
_MAX_NAMES = 100_000

_LINE = re.compile(
    rb"(?:(?P<thread>\d{1,10})@(?P<seconds>\d{1,11})\.(?P<micros>\d{6}):"
    rb"|(?P<iso>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(?P<fraction>\d{1,6}))?Z )?"
    rb"(?P<name>[A-Za-z_]\w*)(?: (?P<raw>.*))?",
    re.DOTALL,
)
EVENT_START = re.compile(rb"(?:\d{1,10}@\d{1,11}\.\d{6}:|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z )(?=([A-Za-z_]\w*))")
# 2026-11-23T04:34:54.313813Z 2026-11-23T04:34:54.313813Z vmstate_downtime_save type=…
_TWO_STAMPS = re.compile(
    rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z )((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?Z )(?=[A-Za-z_])"
)
_CUT_STAMP = re.compile(rb"\d{1,10}@\d")
_ANY_STAMP = re.compile(rb"\d{1,10}@\d|\d{4}-\d\d-\d\dT\d")
_BEFORE_NAME = {"thread": b":", "iso": b"Z "}
_STAMP_SIGN = {"thread": b"@", "iso": b"Z "}
"""What stands in a stamp, and hardly anywhere else. One that does: `ram_save_page /rom@etc/acpi/tables: offset: 0x0`."""
_NO_STAMP = {"thread": re.compile(rb"@(?<!\d@)"), "iso": re.compile(rb"Z (?<!\dZ )")}
"""Signs that stand in no stamp: a digit goes before those."""
_STAMPS = {"thread": re.compile(rb"@(\d{1,11}+)\.\d{6}:"), "iso": re.compile(rb"\dZ ")}
_SECOND_OF = {"thread": re.compile(rb"\n\d{1,10}+@(\d{1,11}+)\."), "iso": re.compile(rb"\n(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)")}
_STAMP = {
    "thread": (rb"(\d{1,10}+)@(\d{1,11}+)\.(\d{6}):", rb"\d{1,10}+@\d{1,11}+\.\d{6}:"),
    "iso": (
        rb"()(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?Z ",
        rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z ",
    ),
}
"""With groups for thread, second and fraction, and without."""

Form = Literal["thread", "iso"]


Hot = frozenset[tuple[int, bytes]]
"""Events that are counted without being looked at: the width of the stamp before the name, the name."""
Line = tuple[bytes, bytes, bytes, bytes, bytes]
"""Thread, second, fraction, name, raw; all empty for a line that is no stamped one."""


@lru_cache(maxsize=64)
def _scanner(form: Form, hot: Hot, *, strict: bool) -> re.Pattern[bytes]:
    """Finds the lines that are not of the hot events.

    Unless `strict`, a line is of a hot event if the event's name stands at its place, whatever stands before it; that costs
    half, and is enough where every line is known to be stamped.
    """
    grouped, bare = _STAMP[form]
    sign = _BEFORE_NAME[form]
    fixed = (rb".{%d}%s%s " % (width - len(sign), sign, name) for width, name in sorted(hot))
    skips = (bare + name + b" " for _, name in sorted(hot)) if strict else fixed
    skip = rb"(?!" + b"|".join(skips) + b")" if hot else b""
    line = grouped + rb"([A-Za-z_]\w*+)(?: ([^\n]*+))?+(?=\n|\Z)"
    return re.compile(rb"\n" + skip + b"(?:" + line + rb"|[^\n]*+)", re.DOTALL)


@lru_cache(maxsize=64)
def _scanner_of(form: Form, lead: bytes, width: int, name: bytes) -> re.Pattern[bytes]:
    """Finds the lines that are not of this event with a stamp of this width, by the thread `lead` where a line names it."""
    sign, head = _BEFORE_NAME[form], lead + b"@"
    # What lies between fixed texts at fixed places is left unlooked at; a line end there would leave a line without a stamp.
    before = rb"%s.{%d}" % (head, width - len(head) - len(sign)) if form == "thread" else rb"[^\n]{%d}" % (width - len(sign))
    line = _STAMP[form][0] + rb"([A-Za-z_]\w*+)(?: ([^\n]*+))?+(?=\n|\Z)"
    return re.compile(rb"\n(?!" + before + sign + name + b" )(?:" + line + rb"|[^\n]*+)", re.DOTALL)


@lru_cache(maxsize=64)
def _iso_second(text: bytes) -> int | None:
    """Unix seconds of `2026-11-23T04:30:01`, None for a moment that does not exist or lies before 1970."""
    year, month, day, hour, minute, second = (int(part) for part in re.split(rb"\D", text))
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    second_unix = int(moment.timestamp())
    return second_unix if second_unix >= 0 else None


class LogReader:
    """Reads the log backend's text, fed in blocks of any size; what comes out does not depend on how it was cut.

    Args:
        plan: What the rules need.
        is_event: Whether QEMU has an event of this name.
        decode_sums: Gives the arguments of `plan.sums[event]` from the raw text, None where it fits no declaration.
        assume_start_ns: Where the events carry no stamps: the time of the first line. The others follow in their order.
        thread: The thread that wrote the whole file, where its name tells it and its lines do not.
        numbers_are_threads: False for QEMU 3.1 and older, which puts its process id where others have the thread's.

    Raises:
        FormatError: By `feed` and `finish`: no event has a stamp and no start is assumed.
    """

    format = "log"
    resolution_ns = 1

    def __init__(
        self,
        plan: Plan,
        is_event: Callable[[str], bool],
        decode_sums: Callable[[str, bytes], tuple[Any, ...] | None],
        *,
        assume_start_ns: int | None = None,
        thread: int | None = None,
        numbers_are_threads: bool = True,
    ) -> None:
        self._rows = {name.encode(): name for name in plan.rows}
        self._sums = {name.encode(): (name, arguments) for name, arguments in plan.sums.items()}
        self._is_event, self._decode_sums = is_event, decode_sums
        self._known: dict[bytes, str | None] = {}
        self._assume_start_ns, self._thread, self._numbers_are_threads = assume_start_ns, thread, numbers_are_threads
        self._hot: Hot = frozenset()
        self._idle: Counter[bytes] = Counter()
        self._lead = b""
        """The thread that wrote the last line, which mostly writes the next ones too."""
        self._detours = 0
        """Chunks to read without trying the shortest way, since it was tried in vain."""
        self._partial = bytearray()
        self._overlong = False
        self._lines = 0
        self._form: Form | None = None
        self._window = -1
        """The latest window that an event lies in, counted from 1970."""
        self._last_ns: int | None = None
        """The latest time of a row."""
        self._before_ns: int | None = None
        """The time of the event before, for one that lost its own."""
        self._spare_ns: int | None = None
        """A second stamp in front of one line, which belongs to the next one without."""
        self._held: list[Row] = []
        self._holes = self._hole_bytes = 0
        self._batches: list[Batch] = []
        self._clear()

    def _clear(self) -> None:
        self._found: list[Row] = []
        self._counts: Counter[str] = Counter()
        self._summed: Counter[tuple[str, str]] = Counter()
        self._units: Counter[str] = Counter()
        self._total = 0

    @property
    def gaps(self) -> list[str]:
        """Losses that are no matter of single lines, in words."""
        if not self._holes:
            return []
        holes = "1 hole of" if self._holes == 1 else f"{self._holes} holes with together"
        return [f"{holes} {self._hole_bytes} NUL bytes: what stood there was overwritten or never written"]

    # --- feeding --------------------------------------------------------------------------------------

    def feed(self, block: bytes) -> list[Batch]:
        """What the lines that this block completes hold, in batches of one window each."""
        start = block.find(b"\n")
        if start < 0:
            self._keep(block)
            return []
        self._keep(block[:start])
        self._finish_partial()
        # From here on a line begins with the end of the one before, and ends before its own.
        end = block.rfind(b"\n")
        while start < end:
            stop = end
            if end - start > CHUNK_BYTES:
                stop = block.rfind(b"\n", start + 1, start + CHUNK_BYTES)
                stop = stop if stop > 0 else block.find(b"\n", start + 1)
            self._chunk(block, start, stop)
            start = stop
        self._keep(block[end + 1 :])
        self._flush()
        return self._taken()

    def finish(self) -> list[Batch]:
        """The rest, at the end of the input. A last line without an end is torn: what is missing cannot be known."""
        if self._partial or self._overlong:
            line = bytes(self._partial).rstrip(b"\r")
            self._partial.clear()
            self._overlong = False
            if line.startswith(b"\0"):
                self._holes += 1
                self._hole_bytes += len(line) - len(line.lstrip(b"\0"))
            event = self._event_of(line) is not None or _ANY_STAMP.match(line)
            self._lines += 1
            self._total += 1
            self._units["torn" if event else "not_trace"] += 1
        if self._held:
            self._refuse()
        self._flush()
        return self._taken()

    def _keep(self, piece: bytes) -> None:
        if piece.startswith(b"\0") and bytes(self._partial[:2]) in (b"", b"\0") and not self._overlong:
            # A hole may be larger than any line. One byte of it is kept.
            content = piece.lstrip(b"\0")
            self._hole_bytes += len(piece) - len(content) - (not self._partial)
            self._partial[:] = b"\0"
            piece = content
        room = MAX_LINE_BYTES - len(self._partial)
        if len(piece) > room:
            self._overlong = True
        self._partial += piece[: max(0, room)]

    def _finish_partial(self) -> None:
        line = bytes(self._partial)
        if not self._lines:
            line = line.removeprefix(b"\xef\xbb\xbf")
        self._partial.clear()
        if self._overlong:
            self._overlong = False
            self._too_long(line)
        else:
            self._line(line)

    def _taken(self) -> list[Batch]:
        taken, self._batches = self._batches, []
        return taken

    def _flush(self) -> None:
        """What was found since the last window's end goes out."""
        if self._total or self._found:
            window_ns = self._window * WINDOW_NS if self._window >= 0 else None
            last_ns = None if self._before_ns is None else max(self._before_ns, self._last_ns or 0)
            self._batches.append(Batch(window_ns, self._found, self._counts, self._summed, self._units, self._total, last_ns))
            self._clear()

    def _enter(self, window: int) -> None:
        if self._total or self._found:
            self._flush()
        self._window = window

    # --- chunks ---------------------------------------------------------------------------------------

    def _chunk(self, data: bytes, start: int, end: int) -> None:
        """Whole lines, a line end in front of each."""
        if end - start > MAX_LINE_BYTES or data.find(b"\0", start, end) >= 0 or data.find(b"\r", start, end) >= 0:
            self._plain(data, start, end)
            return
        while self._form is None and start < end:
            stop = data.find(b"\n", start + 1, end)
            stop = end if stop < 0 else stop
            self._line(data[start + 1 : stop])
            start = stop
        form = self._form
        if form is None:
            return
        if self._at_once(form, data, start, end):
            return
        left = _number_of(b"\n", data, start, end)
        while start < end:
            stop, total, stamped = self._window_end(form, data, start, end, left)
            if total:
                self._segment(form, data, start, stop, total, strict=not stamped)
            left -= total
            if stop < end and not self._next_window(form, data, stop, end):
                return
            start = stop

    def _at_once(self, form: Form, data: bytes, start: int, end: int) -> bool:
        """Take lines that are all events of the present window and mostly one thread's hot one; False if they are not."""
        if len(self._hot) != 1 or self._window < 0 or end - start < _SHORT_BYTES:
            return False
        if self._detours:
            self._detours -= 1
            return False
        ((width, name),) = self._hot
        lead = self._lead if form == "thread" else b""
        mark = self._mark(form, self._window)
        if data.find(mark, data.rfind(b"\n", start, end), end) < 0:
            return False  # another window begins in these lines
        leading = data.count(b"\n" + lead + mark if form == "thread" else mark, start, end)
        found = _scanner_of(form, lead, width, name).findall(data, start, end) if leading else []
        # Every line begins with a stamp of this window, and there are no more stamps than that: so these are all lines.
        others = sum([line[0] != lead for line in found]) if form == "thread" else 0
        total = leading + others
        signs = _number_of(_STAMP_SIGN[form], data, start, end) if leading and self._in_window(form, found) else -1
        if signs != total and signs - len(_NO_STAMP[form].findall(data, start, end)) != total:
            self._detours = _DETOURS
            return False
        self._take_lines(form, data, start, end, found, {name: total - len(found)}, total)
        return True

    def _in_window(self, form: Form, found: Sequence[Line]) -> bool:
        current = self._mark(form, self._window).strip(b"\n@")
        return {line[1][:-1] for line in found} <= {current} and _all_whole(form, found)

    @staticmethod
    def _mark(form: Form, window: int) -> bytes:
        """What every line of a window has in it: the stamp's second without its last digit."""
        return b"@%d" % window if form == "thread" else b"\n" + _iso_text(window * 10)[:-1]

    def _window_end(self, form: Form, data: bytes, start: int, end: int, left: int) -> tuple[int, int, bool]:
        """Where the first line of a later window begins, how many lines stand before it, and if all are of this window."""
        if self._window < 0:
            return start, 0, False
        mark = self._mark(form, self._window)
        last = data.rfind(b"\n", start, end)
        if data.find(mark, last, end) > 0 and data.count(mark, start, end) == left:
            return end, left, True
        # Mostly the next window follows, and nothing but this one stands before it.
        following = data.rfind(b"\n", start, data.find(self._mark(form, self._window + 1), start, end) + 1)
        if following >= start:
            total = _number_of(b"\n", data, start, following)
            if data.count(mark, start, following) == total:
                return following, total, True
        current = mark.strip(b"\n@")
        for found in _SECOND_OF[form].finditer(data, start, end):
            if found[1][:-1] == current:
                continue
            window = _window_of(form, found[1])
            if window is not None and window > self._window:
                return found.start(), data.count(b"\n", start, found.start()), False
        return end, left, False

    def _next_window(self, form: Form, data: bytes, start: int, end: int) -> bool:
        """Enter the window of the line at `start`; False if the rest of the chunk was read line by line instead."""
        found = _SECOND_OF[form].match(data, start, end)
        window = None if found is None else _window_of(form, found[1])
        line_end = data.find(b"\n", start + 1, end)
        line = data[start + 1 : line_end if line_end > 0 else end]
        if window is None or window <= self._window or self._event_of(line) is None:
            # Only an event's own stamp counts; that of an error message, or one within a line, does not.
            self._plain(data, start, end)
            return False
        self._enter(window)
        return True

    def _segment(self, form: Form, data: bytes, start: int, end: int, total: int, *, strict: bool) -> None:
        """Lines up to the end of a window: at once if they are all events, else one by one."""
        if _number_of(_STAMP_SIGN[form], data, start, end) != total and not self._one_stamp_each(
            form, data, start, end, total, strict
        ):
            self._plain(data, start, end)
            return
        found = _scanner(form, self._hot, strict=strict).findall(data, start, end)
        hot = dict.fromkeys([name for _, name in self._hot], total - len(found))
        if len(hot) > 1:
            sign = _BEFORE_NAME[form]
            hot = {name: data.count(sign + name + b" ", start, end) for name in hot}
            # Found lines without a blank behind the name; so that names within texts make the sum too large, and never right.
            for name in {line[3] for line in found if not line[4]} & hot.keys():
                hot[name] += data.count(sign + name + b"\n", start, end + 1)
            for line in found:
                if line[3] in hot:
                    hot[line[3]] -= 1
        if len(found) + sum(hot.values()) != total or not _all_whole(form, found):
            self._plain(data, start, end)
            return
        self._take_lines(form, data, start, end, found, hot, total)

    def _take_lines(
        self, form: Form, data: bytes, start: int, end: int, found: Sequence[Line], hot: Mapping[bytes, int], total: int
    ) -> None:
        """Lines that are all stamped: those that were found, and so many of each hot event."""
        known, wanted, new, add = self._known, self._rows, tuple.__new__, self._found.append
        numbered = self._numbers_are_threads and form == "thread"
        threads = {thread: int(thread) if numbered else self._thread for thread in {line[0] for line in found}}
        last_ns = self._last_ns or 0
        seen: Counter[bytes] = Counter()
        for thread, second, fraction, name, raw in found:
            event = wanted.get(name)
            if event is not None:
                if form == "thread":
                    time_ns = int(second + fraction) * 1000
                else:
                    time_ns = (_iso_second(second) or 0) * SECOND_NS + int(fraction.ljust(9, b"0"))
                # A third of what Row(…) costs.
                add(new(Row, (time_ns, threads[thread], event, raw, 1, None)))
                if time_ns > last_ns:  # noqa: PLR1730  # a call for each row
                    last_ns = time_ns
            elif name in known and name not in self._sums:
                seen[name] += 1
            else:
                self._counted(form, name, raw)
        self._last_ns = last_ns or None
        self._count_segment(form, seen)
        self._count_segment(form, hot)
        self._before_ns = self._last_event_ns(data, start, end)
        self._warm(seen, hot, found, total)
        self._total += total
        self._lines += total

    def _one_stamp_each(self, form: Form, data: bytes, start: int, end: int, total: int, strict: bool) -> bool:
        """Whether signs of a stamp that are too many stand in arguments, as in `/rom@etc`, and not in second stamps."""
        stamps = _STAMPS[form].findall(data, start, end)
        # Not strict, all lines were taken to be of this window because its mark is there so often.
        exact = strict or form == "iso" or {second[:-1] for second in stamps} == {b"%d" % self._window}
        return exact and len(stamps) == total

    def _last_event_ns(self, data: bytes, start: int, end: int) -> int | None:
        """The time of the last of these lines that is an event's and has one, else what it was before them."""
        while start < end:
            line = data.rfind(b"\n", start, end)
            found = _LINE.fullmatch(data, line + 1, end)
            if found is not None and self._event(found["name"]) is not None:
                time_ns = self._time_of(found)
                # 2026-13-23T04:25:51.000001Z ram_save_page x
                if time_ns is not None:
                    self._lead = found["thread"] or b""
                    return time_ns
            end = line
        return self._before_ns

    def _count_segment(self, form: Form, numbers: Mapping[bytes, int]) -> None:
        for name, number in numbers.items():
            event = self._event(name)
            if number and event is not None:
                self._counts[event] += number
            elif number:
                self._units[self._foreign(form)] += number

    def _warm(self, seen: Mapping[bytes, int], hot: Mapping[bytes, int], found: Sequence[Line], total: int) -> None:
        """Choose the events that need not be looked at in the next segment."""
        if total < _WARM_LINES:
            return
        for name, number in hot.items():
            self._idle[name] = 0 if number * _COOL_SHARE > total else self._idle[name] + 1
        often = {name for name, number in seen.items() if number * _HOT_SHARE > total and self._event(name) is not None}
        tired = {name for name in hot if self._idle[name] > _COOL_AFTER}
        if often or tired:
            widths = {name: width for width, name in self._hot if name not in tired}
            for line in found:
                if line[3] in often:
                    widths[line[3]] = _width(line)
            self._hot = frozenset((width, name) for name, width in sorted(widths.items())[:_MAX_HOT])

    # --- single lines -----------------------------------------------------------------------------------

    def _plain(self, data: bytes, start: int, end: int) -> None:
        for line in data[start + 1 : end].split(b"\n"):
            self._line(line)

    def _line(self, line: bytes) -> None:
        if len(line) > MAX_LINE_BYTES:
            self._too_long(line[:MAX_LINE_BYTES])
            return
        line = line.rstrip(b"\r")
        found = _LINE.fullmatch(line)
        if b"\0" in line or self._has_two(line, found):
            self._damaged(line)
            return
        event = self._event(found["name"]) if found else None
        if found is None or event is None:
            self._other(line, found)
            return
        self._take(found, event, 1)
        self._lines += 1
        self._total += 1

    def _take(self, found: re.Match[bytes], event: str, unit: int) -> None:
        """One event. `unit` is 0 where its line is counted elsewhere."""
        time_ns = self._time_of(found)
        if time_ns is None:
            time_ns = self._time_without_stamp()
        else:
            self._form = "thread" if found["thread"] else "iso"
        if time_ns is None:
            self._hold(found, event, unit)
            return
        if self._held:
            self._release(time_ns)
        window = time_ns // WINDOW_NS
        if window > self._window:
            self._enter(window)
        self._before_ns = time_ns
        self._give(Row(time_ns, self._thread_of(found), event, found["raw"] or b"", unit), found["name"])

    def _give(self, row: Row, name: bytes) -> None:
        if name in self._rows or not row.unit:
            self._found.append(row)
            self._last_ns = max(row.time_ns or 0, self._last_ns or 0)
            if not row.unit and name in self._sums and self._summed_up(row.event, name, row.raw):
                # Its line is counted as torn, the row as an event; this is for what its arguments add.
                self._counts[row.event] += 0
        else:
            self._counted(self._form, name, row.raw)

    def _counted(self, form: Form | None, name: bytes, raw: bytes) -> None:
        """An event that is no row: counted, or summed too."""
        event = self._event(name)
        if event is None:
            self._units[self._foreign(form)] += 1
            return
        if name in self._sums and not self._summed_up(event, name, raw):
            # Its declaration is not known, so the engine must not sum it; as a row it is accounted for as malformed.
            self._units["malformed"] += 1
            return
        self._counts[event] += 1

    def _summed_up(self, event: str, name: bytes, raw: bytes) -> bool:
        """Add what an event's arguments say; False where they fit no declaration."""
        values = self._decode_sums(event, raw)
        if values is None:
            return False
        for argument, value in zip(self._sums[name][1], values, strict=True):
            if value is not None:
                self._summed[event, argument] += value
        return True

    def _thread_of(self, found: re.Match[bytes]) -> int | None:
        return int(found["thread"]) if found["thread"] and self._numbers_are_threads else self._thread

    def _time_of(self, found: re.Match[bytes] | None) -> int | None:
        if found is None:
            return None
        if found["thread"]:
            return int(found["seconds"] + found["micros"]) * 1000
        if found["iso"]:
            second = _iso_second(found["iso"])
            return None if second is None else second * SECOND_NS + int((found["fraction"] or b"").ljust(9, b"0"))
        return None

    def _time_without_stamp(self) -> int | None:
        if self._spare_ns is not None:
            spare, self._spare_ns = self._spare_ns, None
            return spare
        if self._form is None and self._assume_start_ns is not None:
            return self._assume_start_ns + ASSUMED_STEP_NS * self._lines
        return self._before_ns

    def _hold(self, found: re.Match[bytes], event: str, unit: int) -> None:
        """An event without a time, before any that has one: it waits for the first."""
        if len(self._held) >= _MAX_HELD:
            self._refuse()
        self._held.append(Row(None, self._thread, event, found["raw"] or b"", unit))

    def _release(self, time_ns: int) -> None:
        held, self._held = self._held, []
        self._enter(time_ns // WINDOW_NS)
        for row in held:
            self._give(row._replace(time_ns=time_ns), row.event.encode())

    def _refuse(self) -> None:
        raise FormatError(
            "its events carry no time stamps, so there are durations for nothing. Run QEMU with '-msg timestamp=on', "
            "or give the moment of the first line with --assume-start TIME; nothing of it was converted."
        )

    # --- what is no plain event -------------------------------------------------------------------------

    def _event(self, name: bytes) -> str | None:
        """The event of this name."""
        if name not in self._known:
            text = name.decode("ascii")
            if len(self._known) > _MAX_NAMES:
                self._known.clear()
            self._known[name] = text if self._is_event(text) else None
        return self._known[name]

    def _event_of(self, line: bytes) -> str | None:
        found = _LINE.fullmatch(line)
        return self._event(found["name"]) if found else None

    def _has_two(self, line: bytes, found: re.Match[bytes] | None) -> bool:
        """Whether an event begins within the line, after its own stamp if it has one."""
        signs = line.count(b"@") + line.count(b"Z ")
        if signs <= (found is not None and bool(found["thread"] or found["iso"])):
            return False
        return any(self._begins(line, start) for start in EVENT_START.finditer(line, 1))

    def _other(self, line: bytes, found: re.Match[bytes] | None) -> None:
        two = _TWO_STAMPS.match(line)
        if two is not None:
            second = _iso_second(two[3])
            if second is not None:
                self._spare_ns = second * SECOND_NS + int((two[4] or b"").ljust(9, b"0"))
            self._line(two[1] + line[two.end() :])
            return
        self._lines += 1
        self._total += 1
        if found is not None and found["thread"]:
            self._units[self._foreign("thread")] += 1
        else:
            self._units["torn" if _CUT_STAMP.match(line) else "not_trace"] += 1

    def _foreign(self, form: Form | None) -> str:
        """Where a stamped line with the name of no known event goes: before 10.1 only events had such a stamp."""
        return "unmapped" if form == "thread" else "not_trace"

    def _damaged(self, line: bytes) -> None:
        """A line with a hole in it, or several events in one line: the line is torn, what is whole in it is used."""
        pieces = re.split(rb"\0+", line)
        if len(pieces) > 1:
            self._holes += 1
            self._hole_bytes += line.count(b"\0")
        # What stands before a hole is cut; only what ends with the line is whole.
        last = pieces[-1]
        starts = [start.start() for start in EVENT_START.finditer(last) if self._begins(last, start)]
        # 25088@1795407950.1:migration_socket_incoming_accepted25078@1795407950.2:migration_socket_outgoing_connected hostname=h
        lines = [_LINE.fullmatch(last[start:end]) for start, end in pairwise([*starts, len(last)])]
        events = [(found, event) for found in lines if found is not None and (event := self._event(found["name"])) is not None]
        # \0\0\0\0019625@1795407950.847563:migrate_set_state new state setup
        whole = starts == [0] and len(events) == 1 and not any(pieces[:-1])
        for found, event in events:
            self._take(found, event, int(whole))
        self._units["torn"] += not whole
        self._total += 1
        self._lines += 1

    def _begins(self, line: bytes, start: re.Match[bytes]) -> bool:
        """Whether an event may begin here: at the front, or where an event's name follows the stamp."""
        return not start.start() or (self._event(start[1]) is not None and not _continues(line, start))

    def _too_long(self, line: bytes) -> None:
        self._lines += 1
        self._total += 1
        found = _LINE.match(line)
        self._units["malformed" if found and self._event(found["name"]) else "not_trace"] += 1

    # --- snapshots --------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Where the reader stands between two blocks, as plain data."""
        return {
            "partial": bytes(self._partial).decode("latin-1"),
            "overlong": self._overlong,
            "lines": self._lines,
            "form": self._form,
            "window": self._window,
            "times": [self._last_ns, self._before_ns, self._spare_ns],
            "held": [[row.event, row.raw.decode("latin-1"), row.unit] for row in self._held],
            "holes": [self._holes, self._hole_bytes],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `snapshot`."""
        self._partial = bytearray(state["partial"].encode("latin-1"))
        self._overlong, self._lines, self._form, self._window = (state[k] for k in ("overlong", "lines", "form", "window"))
        self._last_ns, self._before_ns, self._spare_ns = state["times"]
        self._held = [Row(None, self._thread, event, raw.encode("latin-1"), unit) for event, raw, unit in state["held"]]
        self._holes, self._hole_bytes = state["holes"]


def _number_of(sign: bytes, data: bytes, start: int, end: int) -> int:
    """How often it stands there."""
    if len(sign) > 1:
        return data.count(sign, start, end)
    # CPython 3.11 and 3.12 find a byte with memchr, but count it in a loop, which takes twice as long.
    chunk = data[start:end]
    return len(chunk) - len(chunk.replace(sign, b""))


@lru_cache(maxsize=64)
def _iso_text(second: int) -> bytes:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}".encode()


def _width(line: Line) -> int:
    """How many bytes stand before the event's name."""
    thread, second, fraction, _, _ = line
    if thread:
        return len(thread) + len(second) + len(fraction) + len(b"@.:")
    return len(second) + len(fraction) + (len(b".Z ") if fraction else len(b"Z "))


def _window_of(form: Form, second: bytes) -> int | None:
    """The window that a second lies in, None for a moment that does not exist."""
    found = int(second) if form == "thread" else _iso_second(second)
    return None if found is None else found * SECOND_NS // WINDOW_NS


def _all_whole(form: Form, found: Sequence[Line]) -> bool:
    """Whether every line is a stamped one, of a moment that exists."""
    seconds = {line[1] for line in found}
    return b"" not in seconds and (form == "thread" or all(_iso_second(second) is not None for second in seconds))


def _continues(line: bytes, found: re.Match[bytes]) -> bool:
    """Whether what looks like a stamp is the second of two stamps in front of one event, or the tail of a longer number."""
    before = line[: found.start()]
    return bool(re.fullmatch(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z ", before)) or before[-1:].isdigit()
