"""What all readers of text share: lines out of blocks, and batches in event-time windows out of what a grammar finds.

A grammar knows the lines of one format. It is handed whole lines and says of each what it is, as a `Found`; `Windows`
turns that into batches, and `LineReader` cuts the blocks into lines for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from otelbridge.records import WINDOW_NS, Batch, Plan, Row

MAX_LINE_BYTES = 1 << 20
"""A longer line is no event that QEMU wrote; its rest is passed over."""

CHUNK_BYTES = 1 << 16
MAX_REPEATED_ROWS = 1000
"""So many events that rules look at one by one may be folded into one line."""

_MAX_NAMES = 100_000
_LATEST_NS = (1 << 63) - 1
"""The year 2262. OTLP has times of 64 bits, and no event is of later."""

_DROPPED = b"dropped_by_qemu"
"""A batch ends where this stands: it is what was open then that is doubtful."""

Found = tuple[int | None, bytes, bytes, Any, int]
"""What a line holds: the event's time, its name, its arguments as they stand there, who wrote it, how many events it is.

The number is 0 for an event whose text is cut: its line is torn, and what is left of it is used. It is negative for events that
were counted before they reached the trace; in place of the writer stand then the sums of their arguments, as `Sums`. Without a
time the line is no event: the name is then a bucket of `Batch.units` and the number how much goes into it. `dropped_by_qemu`
is no line of the input and may come beside what the line itself is.
"""


Sums = tuple[tuple[str, int], ...]
"""Arguments and their sums."""


class Grammar(Protocol):
    """The lines of one format."""

    @property
    def resolution_ns(self) -> int:
        """How far apart the stamps of two events must lie to differ; the coarsest seen so far."""
        ...

    @property
    def gaps(self) -> list[str]:
        """Losses that the lines tell of, in words."""
        ...

    def scan(self, data: bytes) -> Iterable[Found]:
        """What each line of `data` holds. Every line has its end."""
        ...

    def row(self, raw: bytes, who: Any) -> tuple[bytes, int | None, int | None]:  # noqa: ANN401  # as the grammar's own `scan` gave it
        """The arguments as decoders take them, the thread and the process; asked only where a rule needs the event."""
        ...

    def foreign(self, name: bytes, raw: bytes) -> tuple[str, int]:
        """For a line with the name of no known event: its bucket, and how many events it says were dropped."""
        ...

    def snapshot(self) -> dict[str, Any]:
        """What was learnt from the lines so far, as plain data."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `snapshot`."""
        ...


class Windows:
    """Gathers what lines hold into batches of one event-time window each; a window never goes back.

    Args:
        plan: What the rules need.
        is_event: Whether QEMU has an event of this name.
        decode_sums: Gives the arguments of `plan.sums[event]`, None where the text fits no declaration.
        grammar: Where the lines come from.
    """

    def __init__(
        self,
        plan: Plan,
        is_event: Callable[[str], bool],
        decode_sums: Callable[[str, bytes], tuple[Any, ...] | None],
        grammar: Grammar,
    ) -> None:
        self._rows = frozenset(name.encode() for name in plan.rows)
        self._sums = {name.encode(): arguments for name, arguments in plan.sums.items() if name not in plan.rows}
        self._is_event, self._decode_sums, self._grammar = is_event, decode_sums, grammar
        self._plain: dict[bytes, str] = {}
        """Events that are only counted, as they come up."""
        self._others: set[bytes] = set()
        self._window = -1
        """The latest window that an event lies in, counted from 1970."""
        self._last_ns: int | None = None
        self._batches: list[Batch] = []
        self._clear()

    def _clear(self) -> None:
        self._found: list[Row] = []
        self._counts: Counter[str] = Counter()
        self._summed: Counter[tuple[str, str]] = Counter()
        self._units: Counter[str] = Counter()

    def take(self, found: Iterable[Found]) -> None:
        """Add what lines hold, in the order of the input."""
        plain, counts = self._plain, self._counts
        last_ns = -1 if self._last_ns is None else self._last_ns
        window_end = (self._window + 1) * WINDOW_NS if self._window >= 0 else -1
        for time_ns, name, raw, who, number in found:
            if time_ns is None:
                self._units[name.decode("ascii")] += number
                if name == _DROPPED:
                    self._flush()
                    counts = self._counts
                continue
            event = plain.get(name)
            if event is None and not self.is_event(name):
                self._foreign(name, raw, number)
                counts = self._counts
                continue
            if time_ns > last_ns:
                if time_ns >= window_end:
                    if time_ns > _LATEST_NS:
                        self._units["malformed"] += abs(number) or 1
                        continue
                    self._enter(time_ns // WINDOW_NS)
                    window_end, counts = (self._window + 1) * WINDOW_NS, self._counts
                self._last_ns = last_ns = time_ns
            if event is not None and number == 1:
                counts[event] += 1
            elif number < 0:
                self._counted_before(name, who, -number)
            else:
                self._needed(time_ns, name, raw, who, number)

    def taken(self) -> list[Batch]:
        """The batches since the last call, the one in the making included."""
        self._flush()
        taken, self._batches = self._batches, []
        return taken

    def is_event(self, name: bytes) -> bool:
        """Whether QEMU has an event of this name."""
        if name in self._plain or name in self._rows or name in self._sums:
            return True
        if name in self._others:
            return False
        text = name.decode("ascii", "replace")
        if self._is_event(text):
            self._plain[name] = text
            return True
        if len(self._others) > _MAX_NAMES:
            self._others.clear()
        self._others.add(name)
        return False

    def _foreign(self, name: bytes, raw: bytes, number: int) -> None:
        bucket, dropped = self._grammar.foreign(name, raw)
        self._units[bucket] += abs(number) or 1
        if dropped:
            self._units["dropped_by_qemu"] += dropped
            self._flush()

    def _counted_before(self, name: bytes, sums: Sums, number: int) -> None:
        event = name.decode("ascii")
        self._counts[event] += number
        for argument, amount in sums:
            self._summed[event, argument] += amount

    def _needed(self, time_ns: int, name: bytes, raw: bytes, who: Any, number: int) -> None:  # noqa: ANN401  # see Found
        """An event that some rule needs, or a line that does not stand for one whole event."""
        text, thread, process = self._grammar.row(raw, who)
        event = name.decode("ascii")
        if not number:
            self._units["torn"] += 1
            self._found.append(Row(time_ns, thread, event, text, 0, process))
            if name in self._sums and self._summed_up(event, text, 1):
                # The row is counted as an event; this is for what its arguments add.
                self._counts[event] += 0
        elif name in self._rows:
            given = min(number, MAX_REPEATED_ROWS)
            self._found += [Row(time_ns, thread, event, text, 1, process)] * given
            if number > given:
                self._units["malformed"] += number - given
        elif name in self._sums:
            self._sum(event, text, number)
        else:
            self._counts[event] += number

    def _sum(self, event: str, raw: bytes, number: int) -> None:
        if self._summed_up(event, raw, number):
            self._counts[event] += number
        else:
            self._units["malformed"] += number

    def _summed_up(self, event: str, raw: bytes, number: int) -> bool:
        """Add what the arguments of so many equal events say; False where they fit no declaration."""
        values = self._decode_sums(event, raw)
        if values is None:
            return False
        for argument, value in zip(self._sums[event.encode()], values, strict=True):
            if value is not None:
                self._summed[event, argument] += value * number
        return True

    def _enter(self, window: int) -> None:
        if window > self._window:
            self._flush()
            self._window = window

    def _flush(self) -> None:
        if not self._units and not self._counts and not self._found:
            return
        window_ns = self._window * WINDOW_NS if self._window >= 0 else None
        total = self._counts.total() + sum(row.unit for row in self._found)
        total += self._units.total() - self._units["dropped_by_qemu"]
        self._batches.append(Batch(window_ns, self._found, self._counts, self._summed, +self._units, total, self._last_ns))
        self._clear()

    def snapshot(self) -> dict[str, Any]:
        """Where it stands between two batches, as plain data."""
        return {"window": self._window, "last_ns": self._last_ns}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `snapshot`."""
        self._window, self._last_ns = state["window"], state["last_ns"]


class Holes:
    """NUL bytes in a text: a file that two programs wrote, or one that was cut while it was written."""

    def __init__(self) -> None:
        self.number = self.bytes = 0

    def add(self, line: bytes) -> None:
        """A line with NUL bytes in it."""
        self.number += 1
        self.bytes += line.count(b"\0")

    def words(self) -> list[str]:
        """The loss, if there is one."""
        if not self.number:
            return []
        holes = "1 hole of" if self.number == 1 else f"{self.number} holes with together"
        return [f"{holes} {self.bytes} NUL bytes: what stood there was overwritten or never written"]


class LineReader:
    """Reads text of one grammar, fed in blocks of any size; what comes out does not depend on how it was cut.

    A line that stands for several events is as many units of the total.

    Args:
        name: The `--format` word.
        grammar: The lines of the format.
        windows: Made for the same grammar.
    """

    def __init__(self, name: str, grammar: Grammar, windows: Windows) -> None:
        self.format = name
        self._grammar, self._windows = grammar, windows
        self._partial = bytearray()
        self._overlong = False
        self._holes = Holes()

    @property
    def gaps(self) -> list[str]:
        """Losses that are no matter of single lines, in words."""
        return self._holes.words() + self._grammar.gaps

    @property
    def resolution_ns(self) -> int:
        """The coarsest stamp of the events so far: durations of less are worth nothing."""
        return self._grammar.resolution_ns

    def feed(self, block: bytes) -> list[Batch]:
        """What the lines that this block completes hold, in batches of one window each."""
        start = block.find(b"\n") + 1
        if not start:
            self._keep(block)
            return []
        self._keep(block[: start - 1])
        self._finish_partial()
        end = block.rfind(b"\n") + 1
        while start < end:
            stop = end
            if end - start > CHUNK_BYTES:
                stop = block.rfind(b"\n", start, start + CHUNK_BYTES) + 1 or block.find(b"\n", start) + 1
            self._chunk(block[start:stop])
            start = stop
        self._keep(block[end:])
        return self._windows.taken()

    def finish(self) -> list[Batch]:
        """The rest, at the end of the input. A last line without an end is torn: what is missing cannot be known."""
        if self._partial or self._overlong:
            line = bytes(self._partial)
            self._partial.clear()
            self._overlong = False
            self._windows.take([(None, b"torn" if self._is_event(line) else b"not_trace", b"", None, 1)])
        return self._windows.taken()

    def _is_event(self, line: bytes) -> bool:
        """Whether an event stands in a line that is not whole; its name may be cut too."""
        for time_ns, name, raw, _, _ in self._grammar.scan(line + b"\n"):
            if time_ns is not None:
                return self._windows.is_event(name) or not raw or self._grammar.foreign(name, raw)[0] == "unmapped"
            if name in (b"torn", b"malformed"):
                return True
        return False

    def _keep(self, piece: bytes) -> None:
        room = MAX_LINE_BYTES - len(self._partial)
        if len(piece) > room:
            self._overlong = True
        self._partial += piece[: max(0, room)]

    def _finish_partial(self) -> None:
        line = bytes(self._partial)
        self._partial.clear()
        if self._overlong:
            self._overlong = False
            self._too_long(line)
        else:
            self._chunk(line + b"\n")

    def _chunk(self, data: bytes) -> None:
        """Whole lines."""
        if b"\0" in data or len(data) > MAX_LINE_BYTES:
            for line in data[:-1].split(b"\n"):
                if len(line) > MAX_LINE_BYTES:
                    self._too_long(line[:MAX_LINE_BYTES])
                elif b"\0" in line:
                    self._holes.add(line)
                    self._windows.take([(None, b"torn", b"", None, 1)])
                else:
                    self._windows.take(self._grammar.scan(line + b"\n"))
        else:
            self._windows.take(self._grammar.scan(data))

    def _too_long(self, line: bytes) -> None:
        self._windows.take([(None, b"malformed" if self._is_event(line) else b"not_trace", b"", None, 1)])

    def snapshot(self) -> dict[str, Any]:
        """Where the reader stands between two blocks, as plain data."""
        return {
            "partial": bytes(self._partial).decode("latin-1"),
            "overlong": self._overlong,
            "holes": [self._holes.number, self._holes.bytes],
            "windows": self._windows.snapshot(),
            "grammar": self._grammar.snapshot(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `snapshot`."""
        self._partial = bytearray(state["partial"].encode("latin-1"))
        self._overlong = state["overlong"]
        self._holes.number, self._holes.bytes = state["holes"]
        self._windows.restore(state["windows"])
        self._grammar.restore(state["grammar"])


def one_unit(bucket: bytes) -> Iterator[Found]:
    """A line that is no event."""
    yield None, bucket, b"", None, 1
