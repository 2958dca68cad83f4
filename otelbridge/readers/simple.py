"""The simple backend's binary file: a header, the events' names, then a record for each event.

    header   u64 0xffffffffffffffff  u64 0xf2b177cb0aa429b4  u64 version (4: QEMU 2.8 and newer)
    name     u64 0  u64 id  u32 length  name
    event    u64 1  u64 id  u64 time in ns  u32 length from id on  u32 process  payload
    dropped  u64 1  u64 0xfffffffffffffffe  u64 time  u32 32  u32 process  u64 how many events were lost

All is in the byte order of the host that ran QEMU, nothing is aligned. Times are of CLOCK_MONOTONIC. `simpletrace.stp`, the
SystemTap script of the same name, writes event records alone: there an id is the place of the event among all events of
QEMU's trace-events-all, and times are UTC.

Records of the one or two events that come most often, if they are only counted and all of one length, are passed over by one
pattern for each window, which holds the window's end; the bytes of a run tell how many they are. What a loop over the
records gives defines the result.

Source: QEMU's trace/simple.c, scripts/simpletrace.py and scripts/tracetool/format/simpletrace_stap.py.
"""

from __future__ import annotations

import re
import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from math import gcd
from typing import Any, Literal, NamedTuple

from otelbridge.errors import FormatError
from otelbridge.records import WINDOW_NS, Batch, Plan, Row

ByteOrder = Literal["little", "big"]
_ORDERS: tuple[ByteOrder, ...] = ("little", "big")

VERSION = 4
MAX_RECORD_BYTES = (1 << 13) - 1
"""The longest event: QEMU's have at most 10 arguments of at most 516 bytes. A longer one is damage."""
MAX_NAME_BYTES = (1 << 9) - 1
MAX_NAMES = 100_000
CHUNK_BYTES = 1 << 17

_ONES = (1 << 64) - 1
_MAGIC = 0xF2B177CB0AA429B4
_DROPPED = (1 << 64) - 2
_NAME_RECORD, _EVENT_RECORD = 0, 1
_HEADER_BYTES, _EVENT_BYTES, _NAME_BYTES, _WORD = 24, 32, 20, 8
_LENGTH_BEFORE_PAYLOAD = 24
_MAX_DROPPED = 1 << 48
_LATEST_NS = 1 << 63
"""OTLP's times, and the languages that read them, end in 2262."""
_BACK_NS = 50_000_000
"""A trace that is appended to another may not begin more than this before the other's end."""
_NAME = re.compile(rb"[A-Za-z_]\w*")
_OLD = {0: "QEMU 0.14 to 1.1", 2: "QEMU 1.2 to 2.0", 3: "QEMU 2.1 to 2.7"}

_HOT_SHARE = 16
"""An event that is only counted and makes up more than a 16th of a chunk is passed over without being looked at."""
_HOT_FROM = 256
_HOT_TRIES = 32
_HOT_GAIN = 4
"""Runs of so few records on average are not worth a pattern."""
_LEAST_RUN = 8
_RUN = 4096


def byte_order(head: bytes) -> ByteOrder | None:
    """The byte order of a simple trace, from its first 16 bytes; None where they are not those of its header."""
    for order in _ORDERS:
        if head.startswith(_header(order)):
            return order
    return None


def is_simple(head: bytes) -> bool:
    """Whether a file is a simple trace with a header, from its first 16 bytes. `simpletrace.stp` writes none."""
    return byte_order(head) is not None


def _header(order: ByteOrder) -> bytes:
    return _ONES.to_bytes(_WORD, order) + _MAGIC.to_bytes(_WORD, order)


class _Hot(NamedTuple):
    """An event whose records are all of one length."""

    number: int
    length: int
    process: int


class SimpleReader:
    """Reads the simple backend's records, fed in blocks of any size; what comes out does not depend on how it was cut.

    `Row.raw` is the payload in the file's byte order, for a `BinaryDecoder` of `byte_order(head)`. A batch that says how
    many events QEMU dropped ends with the record that says so; the time in it is that of its writing, and is not used.

    Args:
        plan: What the rules need.
        is_event: Whether QEMU has an event of this name; one that is only in the file's own names is `unmapped`.
        decode_sums: Gives the arguments of `plan.sums[event]` from the payload, None where it fits no declaration.
        offset_ns: What must be added to the file's times to make them UTC; `readers.clock` finds it. Not used where
            there is no header.
        declared: Told of each name that the file declares, before any event of it comes. QEMU declares all events that it
            was built with, so this tells its version.
        numbers: Events by their number, for `simpletrace.stp`'s records without a header.

    Raises:
        FormatError: By `feed` and `finish`: it is no simple trace of version 4, or another one follows that cannot be part
            of the same stream.
    """

    format = "simple"
    resolution_ns = 1

    def __init__(
        self,
        plan: Plan,
        is_event: Callable[[str], bool],
        decode_sums: Callable[[str, bytes], tuple[Any, ...] | None],
        *,
        offset_ns: int,
        declared: Callable[[str], None] | None = None,
        numbers: Mapping[int, str] | None = None,
    ) -> None:
        self._plan, self._is_event, self._decode_sums = plan, is_event, decode_sums
        self._offset_ns, self._declared, self._numbers = offset_ns, declared, numbers
        self._partial = b""
        self._place = 0
        """Bytes of the input before those in `_partial`."""
        self._order: ByteOrder | None = None
        self._headless = False
        self._shift_ns = 0
        self._names: dict[int, str] = {}
        self._rows: dict[int, str] = {}
        self._counted: set[int] = set()
        self._process: int | None = None
        """The process of the last event, None before the first after a header."""
        self._appended = False
        """Whether a header has come after events, and no event yet after it."""
        self._lost = False
        """Whether the next record must be searched for."""
        self._lost_from: int | None = None
        self._holes = self._hole_bytes = 0
        self._window = -1
        self._low = 0
        self._limit = 0
        """Times from `_low` to this, as they stand in the file, are of the current window or before it."""
        self._before: int | None = None
        """The time of the last event, as it stands in the file."""
        self._first_ns: int | None = None
        self._last_ns: int | None = None
        """The latest time of a row."""
        self._hot: dict[int, _Hot] = {}
        self._known_hot: set[int] = set()
        """Events that came most often in this window, whether or not a pattern can tell their records."""
        self._split: dict[int, tuple[int, int]] = {}
        """Bytes of a run -> records of the one hot event and of the other."""
        self._run: re.Pattern[bytes] | None = None
        self._batches: list[Batch] = []
        self._clear()

    def _clear(self) -> None:
        self._found: list[Row] = []
        self._seen: defaultdict[int, int] = defaultdict(int)
        self._counts: Counter[str] = Counter()
        self._summed: Counter[tuple[str, str]] = Counter()
        self._units: Counter[str] = Counter()

    @property
    def gaps(self) -> list[str]:
        """Losses that are no matter of single records, in words."""
        if not self._holes:
            return []
        holes = "1 stretch of" if self._holes == 1 else f"{self._holes} stretches with together"
        return [f"{holes} {self._hole_bytes} bytes that are no records: what stood there is not known"]

    @property
    def extent_ns(self) -> tuple[int, int] | None:
        """The times of the first event and of the last; None before any."""
        if self._first_ns is None or self._before is None:
            return None
        return self._first_ns, max(self._before + self._shift_ns, self._last_ns or 0)

    # --- feeding --------------------------------------------------------------------------------------

    def feed(self, block: bytes) -> list[Batch]:
        """What the records that this block completes hold, in batches of one window each."""
        for start in range(0, len(block), CHUNK_BYTES):
            self._take(self._partial + block[start : start + CHUNK_BYTES])
        self._flush()
        return self._taken()

    def finish(self) -> list[Batch]:
        """The rest, at the end of the input. A last record without an end is torn: what is missing cannot be known."""
        if self._order is None and self._partial:
            self._refuse_beginning(self._partial)
        while self._partial and not self._lost:
            # Where it is a length that is wrong, whole records may follow.
            self._units["torn"] += 1
            self._lost, rest = True, self._partial[1:]
            self._place += 1
            self._take(rest)
        if self._lost_from is not None:
            self._hole_bytes += self._place + len(self._partial) - self._lost_from
            self._lost_from = None
        self._partial = b""
        self._flush()
        return self._taken()

    def _take(self, data: bytes) -> None:
        """Read what is whole in `data`, and keep the rest."""
        place = 0
        go_on = True
        while go_on:
            if self._order is None:
                place, go_on = self._begin(data)
            elif self._lost:
                place, go_on = self._search(data, place)
            else:
                place, go_on = self._records(data, place)
        self._partial = data[place:]
        self._warm(data)
        self._place += place

    def _taken(self) -> list[Batch]:
        taken, self._batches = self._batches, []
        return taken

    def _flush(self) -> None:
        """What was found since the last window's end goes out."""
        for number, times in self._seen.items():
            self._counts[self._names[number]] += times
        total = len(self._found) + sum(self._counts.values()) + sum(self._units.values()) - self._units["dropped_by_qemu"]
        if total or +self._units:
            window_ns = self._window * WINDOW_NS if self._window >= 0 else None
            last_ns = None if self._before is None else max(self._before + self._shift_ns, self._last_ns or 0)
            self._batches.append(Batch(window_ns, self._found, self._counts, self._summed, +self._units, total, last_ns))
            self._clear()

    # --- the beginning --------------------------------------------------------------------------------

    def _begin(self, data: bytes) -> tuple[int, bool]:
        """The header, or the first record of a trace without one. Gives the place after it, and whether to go on."""
        if len(data) < _HEADER_BYTES:
            return 0, False
        order = byte_order(data)
        if order is not None:
            self._check_version(data, _HEADER_BYTES - _WORD, order)
            self._start(order, self._offset_ns)
            return _HEADER_BYTES, True
        if self._numbers is None:
            self._refuse_beginning(data)
        for order in _ORDERS:
            if data.startswith(_EVENT_RECORD.to_bytes(_WORD, order)):
                self._start(order, 0)
                self._headless = True
                for number, name in (self._numbers or {}).items():
                    self._name(number, name)
                return 0, True
        self._refuse_beginning(data)
        return 0, False

    def _refuse_beginning(self, data: bytes) -> None:
        if len(data) < _HEADER_BYTES and any(_header(order).startswith(data[: 2 * _WORD]) for order in _ORDERS):
            words = f"it ends after {len(data)} bytes, within its header, so there is no event in it"
        elif self._numbers is None:
            words = (
                f"it begins with {data[: 2 * _WORD]!r}, which is not the header of QEMU's simple trace backend. "
                "Records of simpletrace.stp have no header; give that QEMU's trace-events-all with --catalogue to read them"
            )
        else:
            words = (
                f"it begins with {data[: 2 * _WORD]!r}, which is neither the header of QEMU's simple trace backend "
                "nor an event record of simpletrace.stp"
            )
        raise FormatError(f"{words}; nothing of it was converted.", offset=0)

    def _check_version(self, data: bytes, place: int, order: ByteOrder) -> None:
        version = int.from_bytes(data[place : place + _WORD], order)
        if version != VERSION:
            writer = f", which {_OLD[version]} wrote" if version in _OLD else ""
            raise FormatError(
                f"byte {self._place + place} says that it is version {version} of the simple trace format{writer}; "
                f"only version {VERSION}, of QEMU 2.8 and newer, can be read. Nothing of it was converted.",
                offset=self._place + place,
            )

    def _start(self, order: ByteOrder, shift_ns: int) -> None:
        self._order, self._shift_ns = order, shift_ns
        self._low = max(0, -shift_ns)
        self._limit = (self._window + 1) * WINDOW_NS - shift_ns if self._window >= 0 else self._low
        mark = "<" if order == "little" else ">"
        self._event = struct.Struct(mark + "QQQII")
        self._name_head = struct.Struct(mark + "QQI")
        self._names.clear()
        self._rows.clear()
        self._counted.clear()
        self._hot, self._known_hot = {}, set()
        self._run = self._process = None

    def _name(self, number: int, name: str) -> None:
        """The file declares an event."""
        if number in self._seen:
            # Counted under the name that it had.
            self._counts[self._names[number]] += self._seen.pop(number)
        if number in self._hot:
            self._hot, self._known_hot, self._run = {}, set(), None
        self._rows.pop(number, None)
        self._counted.discard(number)
        self._names[number] = name
        if name in self._plan.rows:
            self._rows[number] = name
        elif name not in self._plan.sums and self._is_event(name):
            self._counted.add(number)

    # --- records --------------------------------------------------------------------------------------

    def _records(self, data: bytes, place: int) -> tuple[int, bool]:  # noqa: C901, PLR0912  # calls would double its cost
        """Records from `place` on. Gives the place after the last whole one, and whether to go on from there."""
        unpack, end = self._event.unpack_from, len(data) - _EVENT_BYTES
        rows, counted, found, seen = self._rows, self._counted, self._found, self._seen
        low, limit, shift_ns = self._low, self._limit, self._shift_ns
        hot: Mapping[int, _Hot] = self._hot if self._run is not None else {}
        before, known, tries, gained = self._before, self._process, 0, 0
        while place <= end:
            kind, number, time, length, process = unpack(data, place)
            if kind != _EVENT_RECORD or not _LENGTH_BEFORE_PAYLOAD <= length <= MAX_RECORD_BYTES:
                break
            stop = place + _WORD + length
            if stop > len(data):
                self._before = before
                return place, False
            if process != known or not low <= time < limit:
                self._before = before
                if number == _DROPPED or not self._clock(time, process, place):
                    break
                limit, known = self._limit, process
                found, seen = self._found, self._seen
                hot = hot if self._run is not None else {}
            if number in counted:
                run = self._run.match(data, place) if number in hot and self._run is not None else None
                if run is None:
                    seen[number] += 1
                else:
                    stop, time = run.end(), unpack(data, run.start(1))[2]
                    gained += self._count_run(stop - place)
                if number in hot:
                    tries += 1
                    if tries > _HOT_TRIES and gained < tries * _HOT_GAIN:
                        hot = {}
            elif number in rows:
                time_ns = time + shift_ns
                if self._last_ns is None or time_ns > self._last_ns:
                    self._last_ns = time_ns
                found.append(Row(time_ns, None, rows[number], data[place + _EVENT_BYTES : stop], 1, process))
            else:
                break
            before, place = time, stop
        self._before = before
        return self._other(data, place)

    def _clock(self, time: int, process: int, place: int) -> bool:
        """Take note of an event's process and enter its window; False if its time cannot be."""
        time_ns = time + self._shift_ns
        if not 0 <= time_ns < _LATEST_NS:
            return False
        if self._appended:
            self._appended = False
            latest_ns = max((self._before or 0) + self._shift_ns, self._last_ns or 0)
            if self._before is not None and time_ns < latest_ns - _BACK_NS:
                behind_s = (latest_ns - time_ns) / 1e9
                raise FormatError(
                    f"before byte {self._place + place} another trace begins, whose first event lies {behind_s:.3f} s before "
                    "the end of the one before it: its clock is another one, or the order of the two is wrong. "
                    "Give each as a file of its own; nothing of it was converted.",
                    offset=self._place + place,
                )
        if self._first_ns is None:
            self._first_ns = time_ns
        window = time_ns // WINDOW_NS
        if window > self._window:
            self._flush()
            self._window = window
            self._limit = (window + 1) * WINDOW_NS - self._shift_ns
            self._run, self._known_hot = None, set()
        self._process = process
        return True

    def _other(self, data: bytes, place: int) -> tuple[int, bool]:
        """What is no event that is a row or only counted: names, headers, drops, sums, damage; one of them."""
        order = self._order
        left = len(data) - place
        if order is None or left < _WORD:
            return place, False
        kind = int.from_bytes(data[place : place + _WORD], order)
        if kind == _EVENT_RECORD:
            if left < _EVENT_BYTES:
                return place, False
            return self._other_event(data, place)
        if kind == _NAME_RECORD:
            size = self._name_size(data, place)
            if size is None:
                return place, False
            if size:
                number, name = int.from_bytes(data[place + _WORD : place + 2 * _WORD], order), data[place + 20 : place + size]
                self._declare(number, name.decode("ascii"), place)
                return place + size, True
        elif kind == _ONES:
            if left < _HEADER_BYTES:
                return place, False
            following = byte_order(data[place : place + _HEADER_BYTES])
            if following is not None:
                self._append(data, place, following)
                return place + _HEADER_BYTES, True
        self._lose(place)
        return place + 1, True

    def _name_size(self, data: bytes, place: int) -> int | None:
        """The size of the name record at `place`: None if more bytes are needed, 0 if it is none."""
        if len(data) - place < _NAME_BYTES:
            return None
        _, number, length = self._name_head.unpack_from(data, place)
        if not 0 < length <= MAX_NAME_BYTES or number >> 32:
            return 0
        size: int = _NAME_BYTES + length
        if len(data) - place < size:
            return None
        return size if _NAME.fullmatch(data, place + _NAME_BYTES, place + size) else 0

    def _declare(self, number: int, name: str, place: int) -> None:
        if len(self._names) >= MAX_NAMES and number not in self._names:
            raise FormatError(
                f"up to byte {self._place + place} it declares more than {MAX_NAMES} events, far more than any QEMU has; "
                "nothing of it was converted.",
                offset=self._place + place,
            )
        self._name(number, name)
        if self._declared is not None:
            self._declared(name)

    def _append(self, data: bytes, place: int, order: ByteOrder) -> None:
        """Another trace follows, as when files were put together."""
        if order != self._order or self._headless:
            other = "with a header" if self._headless else "of a host with the other byte order"
            raise FormatError(
                f"at byte {self._place + place} a trace {other} begins; "
                "give each as a file of its own. Nothing of it was converted.",
                offset=self._place + place,
            )
        self._check_version(data, place + _HEADER_BYTES - _WORD, order)
        for number in list(self._seen):
            self._counts[self._names[number]] += self._seen.pop(number)
        self._start(order, self._shift_ns)
        self._appended = self._before is not None

    def _other_event(self, data: bytes, place: int) -> tuple[int, bool]:
        """An event that is summed, one of no known name, or a drop."""
        _, number, time, length, process = self._event.unpack_from(data, place)
        stop = place + _WORD + length
        if not self._plausible(number, length) and not (process == self._process and self._sane(length)):
            self._lose(place)
            return place + 1, True
        if stop > len(data):
            return place, False
        if number == _DROPPED:
            self._dropped(data, place, stop)
            return stop, True
        name = self._names.get(number)
        if name is None or not self._clock(time, process, place):
            self._units["malformed"] += 1
            return stop, True
        self._before = time
        if name not in self._plan.sums:
            self._units["unmapped"] += 1
            return stop, True
        values = self._decode_sums(name, data[place + _EVENT_BYTES : stop])
        if values is None:
            self._units["malformed"] += 1
            return stop, True
        self._counts[name] += 1
        for argument, value in zip(self._plan.sums[name], values, strict=True):
            if value is not None:
                self._summed[name, argument] += value
        return stop, True

    def _plausible(self, number: int, length: int) -> bool:
        """Whether this can be an event."""
        if number == _DROPPED:
            return length == _LENGTH_BEFORE_PAYLOAD + _WORD
        return number in self._names and self._sane(length)

    @staticmethod
    def _sane(length: int) -> bool:
        return _LENGTH_BEFORE_PAYLOAD <= length <= MAX_RECORD_BYTES

    def _dropped(self, data: bytes, place: int, stop: int) -> None:
        times = int.from_bytes(data[place + _EVENT_BYTES : stop], self._order or "little")
        if times >= _MAX_DROPPED:
            self._units["malformed"] += 1
            return
        self._units["dropped_by_qemu"] += times
        self._flush()

    # --- damage ---------------------------------------------------------------------------------------

    def _lose(self, place: int) -> None:
        """What stands here is no record: it is counted once, and the next record is searched for."""
        self._units["malformed"] += 1
        self._holes += 1
        self._lost, self._lost_from = True, self._place + place

    def _search(self, data: bytes, place: int) -> tuple[int, bool]:
        """The next place that looks like a record. Whether one does depends on its bytes alone."""
        for found in self._anywhere().finditer(data, place):
            start = found.start()
            if len(data) - start < _EVENT_BYTES:
                break
            if found["name"] is not None:
                size = self._name_size(data, start)
                if size is None:
                    return start, False
                good = bool(size)
            elif found["event"] is not None:
                _, number, _, length, _ = self._event.unpack_from(data, start)
                good = self._plausible(number, length)
            else:
                good = True
            if good:
                if self._lost_from is not None:
                    self._hole_bytes += self._place + start - self._lost_from
                self._lost, self._lost_from = False, None
                return start, True
        return max(place, len(data) - _EVENT_BYTES + 1), False

    def _anywhere(self) -> re.Pattern[bytes]:
        """Finds what looks like a record."""
        order: ByteOrder = self._order or "little"

        def number(value: int, size: int) -> bytes:
            return re.escape(value.to_bytes(size, order))

        def small(size: int, top: bytes) -> bytes:
            """An integer below the top byte's limit in its second byte, in `size` bytes."""
            return rb"." + top + rb"\0" * (size - 2) if order == "little" else rb"\0" * (size - 2) + top + rb"."

        ident = rb".{4}\0{4}" if order == "little" else rb"\0{4}.{4}"
        process = rb".{3}\0" if order == "little" else rb"\0.{3}"
        event = number(_EVENT_RECORD, 8) + b"(?:" + ident + b"|" + number(_DROPPED, 8) + b").{8}"
        event += small(4, rb"[\0-\x1f]") + process
        name = number(_NAME_RECORD, 8) + ident + small(4, rb"[\0\1]") + rb"(?=[A-Za-z_])"
        return re.compile(
            rb"(?=(?P<event>" + event + rb")|(?P<name>" + name + rb")|" + re.escape(_header(order)) + rb")", re.DOTALL
        )

    # --- runs of hot records ----------------------------------------------------------------------------

    def _warm(self, data: bytes) -> None:
        """Choose the events that need not be looked at in the next chunk, and make their pattern for this window."""
        order, total = self._order, sum(self._seen.values())
        if order is None or self._low or total < _HOT_FROM:
            return
        often = sorted((times, number) for number, times in self._seen.items() if times * _HOT_SHARE > total)[-2:]
        numbers = {number for _, number in often}
        if numbers <= self._known_hot:
            return
        self._known_hot = numbers
        shapes = [shape for _, number in reversed(often) if (shape := self._shape(data, number, order)) is not None]
        if shapes:
            self._hot, longest, self._split = _together(shapes)
            self._run = _run_pattern(list(self._hot.values()), longest, self._limit, order)

    def _shape(self, data: bytes, number: int, order: ByteOrder) -> _Hot | None:
        """How the records of an event look, from the last of them."""
        place = data.rfind(_beginning(number, order), 0, len(data) - _EVENT_BYTES + 2 * _WORD)
        if place < 0:
            return None
        _, _, _, length, process = self._event.unpack_from(data, place)
        return _Hot(number, length, process) if self._sane(length) else None

    def _count_run(self, size: int) -> int:
        """Count the records of a run of hot ones of so many bytes together; give how many they are."""
        if len(self._hot) == 1:
            ((number, shape),) = self._hot.items()
            times = size // (_WORD + shape.length)
            self._seen[number] += times
            return times
        first, second = self._split[size]
        one, other = self._hot
        self._seen[one] += first
        self._seen[other] += second
        return first + second

    # --- snapshots --------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Where the reader stands between two blocks, as plain data."""
        return {
            "partial": self._partial.decode("latin-1"),
            "place": self._place,
            "order": self._order,
            "headless": self._headless,
            "shift": self._shift_ns,
            "names": _names_in_runs(self._names),
            "process": self._process,
            "appended": self._appended,
            "lost": [self._lost, self._lost_from],
            "holes": [self._holes, self._hole_bytes],
            "window": self._window,
            "times": [self._first_ns, self._before, self._last_ns],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `snapshot`."""
        self._partial, self._place = state["partial"].encode("latin-1"), state["place"]
        self._window, self._headless = state["window"], state["headless"]
        if state["order"] is not None:
            self._start(state["order"], state["shift"])
        for first, names in state["names"]:
            for number, name in enumerate(names.split(" "), first):
                self._name(number, name)
        self._process, self._appended = state["process"], state["appended"]
        self._lost, self._lost_from = state["lost"]
        self._holes, self._hole_bytes = state["holes"]
        self._first_ns, self._before, self._last_ns = state["times"]


def _names_in_runs(names: Mapping[int, str]) -> list[list[Any]]:
    """Names by number, those of numbers that follow each other in one text."""
    numbers = sorted(names)
    starts = [i for i, number in enumerate(numbers) if i == 0 or number != numbers[i - 1] + 1]
    return [
        [numbers[start], " ".join(names[number] for number in numbers[start:stop])]
        for start, stop in pairwise([*starts, len(numbers)])
    ]


def extent_of(blocks: Iterable[bytes]) -> tuple[int, int] | None:
    """The times of the first event and of the last of a whole trace, as they stand in it; None if it has no event.

    Raises:
        FormatError: As `SimpleReader`.
    """
    reader = SimpleReader(Plan({}), lambda _name: True, lambda _event, _raw: None, offset_ns=0)
    for block in blocks:
        reader.feed(block)
    reader.finish()
    return reader.extent_ns


# --- patterns -------------------------------------------------------------------------------------------


def _beginning(number: int, order: ByteOrder) -> bytes:
    """How every record of an event begins."""
    return _EVENT_RECORD.to_bytes(_WORD, order) + number.to_bytes(_WORD, order)


def _together(shapes: list[_Hot]) -> tuple[dict[int, _Hot], int, dict[int, tuple[int, int]]]:
    """Which of the shapes runs may consist of, how many records at most, and how many are of each by the bytes of a run.

    Records of 56 and of 58 bytes: 28 of the longer are as many bytes as 29 of the shorter, so up to 27 of both together have a
    length that no other numbers of them have.
    """
    sizes = [_WORD + shape.length for shape in shapes]
    longest = min(sizes) // gcd(*sizes) - 1
    if len(shapes) == 1 or longest < _LEAST_RUN:
        return {shapes[0].number: shapes[0]}, _RUN, {}
    one, other = sizes
    split = {
        first * one + second * other: (first, second) for first in range(longest + 1) for second in range(longest - first + 1)
    }
    return {shape.number: shape for shape in shapes}, longest, split


def _run_pattern(shapes: list[_Hot], longest: int, limit: int, order: ByteOrder) -> re.Pattern[bytes]:
    """Matches a run of records of these shapes with times below `limit`; its group 1 stands where the last one begins."""
    early = _below(limit, order)
    records = []
    for number, length, process in shapes:
        after = re.escape(length.to_bytes(4, order) + process.to_bytes(4, order))
        records.append(re.escape(_beginning(number, order)) + early + after + rb".{%d}" % (length - _LENGTH_BEFORE_PAYLOAD))
    return re.compile(rb"(?:()(?:%s)){1,%d}" % (b"|".join(records), longest), re.DOTALL)


def _below(limit: int, order: ByteOrder) -> bytes:
    """Matches the eight bytes of any integer below `limit`: equal to it down to some byte, and smaller there."""
    digits = limit.to_bytes(_WORD, "big")
    # In a window of ten seconds it mostly is the fourth byte, or the fifth, that differs first.
    found = []
    for at in sorted(range(_WORD), key=lambda at: (at not in (3, 4), at)):
        if not digits[at]:
            continue
        smaller = rb"[\x00-\x%02x]" % (digits[at] - 1)
        rest = rb".{%d}" % (_WORD - at - 1)
        same = digits[:at]
        found.append(re.escape(same) + smaller + rest if order == "big" else rest + smaller + re.escape(same[::-1]))
    return rb"(?:" + b"|".join(found) + rb")"
