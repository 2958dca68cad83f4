"""One stream: the bytes of one QEMU's trace in, finished spans and points out; it can be taken up again from plain data."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, cast

from otelbridge import report
from otelbridge.engine import Accounting, Engine, Join
from otelbridge.engine import Stream as EngineStream
from otelbridge.engine.clocks import ARGUMENTS
from otelbridge.engine.fits import Log, Seen
from otelbridge.engine.order import batch_of, plain_batch
from otelbridge.engine.processes import side
from otelbridge.engine.shifts import Shifts
from otelbridge.errors import FormatError, OtelbridgeError
from otelbridge.mapping import Mapping as Rules
from otelbridge.pipeline.inputs import key_of, resource_of
from otelbridge.pipeline.reading import Reading
from otelbridge.pipeline.survey import has_holes
from otelbridge.readers import FORMATS
from otelbridge.readers.clock import clock_beside
from otelbridge.readers.detect import Look, detect, look_at
from otelbridge.readers.formats import Decoder, Reader
from otelbridge.readers.inputs import TraceInput, group_inputs
from otelbridge.readers.open import HEAD_BYTES
from otelbridge.readers.simple import is_simple
from otelbridge.readers.source import Times, Told, decoder_of, first_of, reader_of, times_of, zone_of
from otelbridge.records import SECOND_NS, Attributes, Batch, FinishedSpan, MetricPoint, Resource, Role, Row
from otelbridge.service.trails import Trail

VERSION = 1
_FEW = 3
"""So few processes need not be looked at."""
_SIMPLE_HEAD_BYTES = 1 << 20
"""A simple trace tells all names of events before the first event."""


class Kind(NamedTuple):
    """What the streams of one input share.

    Attributes:
        told: The catalogue and what the user said of the input.
        mapping: The rules.
        environment: Attributes of every resource, which win over all others.
        format: The word of `--format`, or `auto`.
        role: What the user said of all its migrations.
        idle_ns: A process that the input names, and of which nothing came for so long of event time, has ended.
    """

    told: Told
    mapping: Rules
    environment: Attributes = ()
    format: str = "auto"
    role: Role | None = None
    idle_ns: int = 600 * SECOND_NS


Output = tuple[Resource, Sequence[FinishedSpan], Sequence[MetricPoint]]


class Stream:
    """The trace of one QEMU while it grows.

    Nothing is known of it until its first event has come: its ids are derived from that, so that a conversion of the same
    file gives the same. Until then its bytes are held, at most 64 KiB of them.

    Attributes:
        problem: Why nothing of it can be read, in words; empty if it can be. What comes then is lost and counted, until it has
            ended: what comes later may be of a QEMU that was started in another way.

    Args:
        kind: What it shares with the other streams of its input.
        path: Where it comes from: a file's path, or `-` where there is no file.
        attributes: Of its resource, beside what every stream has.
        saved: What `snapshot` gave earlier.
    """

    def __init__(self, kind: Kind, path: str, attributes: Attributes = (), saved: dict[str, Any] | None = None) -> None:
        self._kind, self._path, self._attributes = kind, path, attributes
        self._head = b""
        self._open: _Opened | None = None
        self._held: list[Batch] | None = None
        self._holds_migration = self._may_hold_migration = False
        self.problem = ""
        self._looks_again = False
        self.bytes = self.bytes_unread = 0
        if saved:
            self._restore(saved)

    @property
    def format(self) -> str | None:
        """The word of `--format`, None as long as nothing tells."""
        return self._open.trace.format if self._open else None

    @property
    def open_spans(self) -> int:
        """Spans that have begun and not ended."""
        return sum(engine.open for engine in self._open.reading.engines.values()) if self._open else 0

    @property
    def accounting(self) -> Sequence[Accounting]:
        """Where everything went so far, of each process in it."""
        if not self._open:
            return []
        return [self._open.ended, *(engine.accounting for engine in self._open.reading.engines.values())]

    @property
    def points_made(self) -> int:
        """Metric points so far."""
        if not self._open:
            return 0
        return self._open.ended_points + sum(engine.points_made for engine in self._open.reading.engines.values())

    @property
    def values_left_out(self) -> int:
        """Negative values that counters and histograms did not take."""
        engines = self._open.reading.engines.values() if self._open else ()
        return sum(sum(engine.left_out.values()) for engine in engines)

    @property
    def overflows(self) -> Counter[str]:
        """How often a table was full, by its name."""
        found: Counter[str] = Counter()
        if self._open:
            found["migrations"] = int(self._open.trail.has_overflowed)
            for engine in self._open.reading.engines.values():
                found.update(engine.overflows)
        return found

    @property
    def last_ns(self) -> int | None:
        """The time of the last event, UTC."""
        return max((a.last_ns for a in self.accounting if a.last_ns is not None), default=None)

    @property
    def process_ids(self) -> Sequence[int]:
        """The ids of its processes where it names them, else of the threads that came last."""
        return self._open.reading.processes.some_ids if self._open else ()

    @property
    def starts_anew(self) -> bool:
        """Whether a file that begins again is another QEMU's: a simple trace is never appended to."""
        return self.format == "simple"

    # --- input ------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take in what has come."""
        self.bytes += len(data)
        if self._looks_again:
            self.problem, self._looks_again = "", False
        if self.problem:
            self.bytes_unread += len(data)
        elif self._open:
            self._read(data)
        else:
            self._head += data
            self._try_to_open(last=False)

    def cut(self) -> None:
        """What comes next does not go on where the last bytes ended: a line that is not whole stays so."""
        if self._open:
            self._take(self._open.reader.finish())
        elif self._head and not self._head.endswith(b"\n"):
            self._head += b"\n"

    def settle(self) -> None:
        """Nothing came for a second: handle the events that waited to be put in order."""
        if self._open:
            for engine in self._open.reading.engines.values():
                engine.settle()

    def pause(self) -> None:
        """Nothing came for longer: what has changed goes out as points."""
        if self._open:
            for engine in self._open.reading.engines.values():
                engine.pause()

    def expire(self) -> None:
        """Nothing came for so long that no migration will begin to which the last events belong."""
        if self._open:
            for engine in self._open.reading.engines.values():
                engine.expire()

    def end(self) -> None:
        """Nothing will come any more, or not for long: what is open goes out as incomplete. More may come all the same."""
        self._try_to_open(last=True)
        if self._open:
            self._take(self._open.reader.finish())
            self.release({}, {})
            self._open.reading.finish()
        self._looks_again = bool(self.problem) and not self._open

    def take(self) -> list[Output]:
        """What came out since the last call, of each process in it."""
        if not self._open:
            return []
        self._open.end_processes()
        return self._open.take()

    # --- migrations that may belong to another stream's -----------------------------------------------

    @property
    def held_ns(self) -> int | None:
        """When a migration began to come in that is held until it is known where it belongs; None where none is."""
        return next((row.time_ns or 0 for batch in self._held or () for row in batch.rows), 0) if self._held else None

    @property
    def held_rows(self) -> int:
        """Events that are held."""
        return sum(len(batch.rows) for batch in self._held or ())

    @property
    def holds_migration(self) -> bool:
        """Whether a state of a migration that comes in is among what is held.

        A snapshot that is loaded has none, and no other side. A state before a source's events is of what goes out after it.
        """
        return self._holds_migration or self._may_hold_migration

    @property
    def held_has_ended(self) -> bool:
        """Whether the migration that is held has come to a final state."""
        return any(_is_final(row, self._kind.mapping) for batch in self._held or () for row in batch.rows)

    @property
    def outgoing(self) -> list[tuple[int, bool]]:
        """When each migration began that may have another stream's as its other side, and whether it has ended."""
        return self._open.outgoing if self._open else []

    def release(self, joins: Mapping[bytes, Join], shifts: Mapping[int, Shifts]) -> None:
        """Let what is held go on.

        Args:
            joins: Where its migrations belong, by their roots' span ids.
            shifts: What is to be done to the times of its processes from now on, by their numbers.
        """
        held, self._held = self._held or [], None
        self._holds_migration = self._may_hold_migration = False
        if self._open:
            self._open.joins.update(joins)
            self._open.shifts.update(shifts)
            for batch in held:
                self._open.take_in(batch)

    def twin(self) -> Stream:
        """The same stream, in which what is held has gone on alone and everything has ended."""
        found = Stream(self._kind, self._path, self._attributes, self.snapshot())
        found.end()
        found.take()
        return found

    def migrations(self, first: int) -> list[Seen]:
        """Its migrations that have ended, for finding out which belong together.

        Args:
            first: The number that its first process has among all streams'.
        """
        return self._open.migrations(first) if self._open else []

    def forget_migrations(self) -> None:
        """None of its migrations that have ended is asked for any more."""
        if self._open and not self._open.open_migrations:
            self._open.trail.forget()

    def _read(self, data: bytes) -> None:
        opened = cast("_Opened", self._open)
        try:
            batches = opened.reader.feed(data)
        except FormatError as error:
            self._refuse(error, len(data))
        else:
            self._take(batches)

    def _take(self, batches: Sequence[Batch]) -> None:
        opened = cast("_Opened", self._open)
        for batch in batches:
            if self._held is None and not opened.open_migrations and _comes_in(batch.rows):
                self._held = []
            if self._held is None:
                opened.take_in(batch)
            else:
                self._hold(batch)

    def _hold(self, batch: Batch) -> None:
        cast("list[Batch]", self._held).append(batch)
        if self._holds_migration:
            return
        states = {machine.event for machine in self._kind.mapping.machines}
        for row in batch.rows:
            if row.event in states:
                self._may_hold_migration = True
            elif self._may_hold_migration and (found := _side(row.event)) is not None:
                self._holds_migration, self._may_hold_migration = found == "destination", False
                if self._holds_migration:
                    return

    def _refuse(self, error: OtelbridgeError, size: int) -> None:
        self.problem = f"{self._path}: {error}".removeprefix(f"{self._path}: {self._path}: ")
        self.bytes_unread += size

    def _try_to_open(self, *, last: bool) -> None:
        """Begin to read if the first bytes tell what it is; `last` says that no more will come."""
        if self._open or self.problem or not self._head:
            return
        try:
            trace = _recognised(self._kind, self._path, self._head, last=last)
        except OtelbridgeError as error:
            self._refuse(error, len(self._head))
            self._head = b""
            return
        if trace is not None:
            head, self._head = self._head, b""
            self._open = _Opened(self._kind, trace, _times(trace, self._kind.told), self._attributes)
            self._read(head)

    # --- snapshots ----------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Everything that is needed to go on in another process, as JSON-able data. Take the output away first."""
        return {
            "version": VERSION,
            "head": self._head.decode("latin-1"),
            "problem": [self.problem, self._looks_again],
            "bytes": [self.bytes, self.bytes_unread],
            "opened": self._open.snapshot() if self._open else None,
            "held": None if self._held is None else [plain_batch(batch) for batch in self._held],
        }

    def _restore(self, saved: dict[str, Any]) -> None:
        self._head = saved["head"].encode("latin-1")
        self.problem, self._looks_again = saved["problem"]
        self.bytes, self.bytes_unread = saved["bytes"]
        if saved["held"] is not None:
            self._held = []
            for plain in saved["held"]:
                self._hold(batch_of(plain))
        if saved["opened"] is not None:
            self._open = _Opened.restored(self._kind, self._path, saved["opened"], self._attributes)


class _Opened:
    """A stream whose first event is known: its reader, and an engine for each process in it."""

    def __init__(self, kind: Kind, trace: TraceInput, times: Times, attributes: Attributes) -> None:
        self.trace, self.times = trace, times
        self.decoders: dict[int, Decoder] = {0: decoder_of(trace, kind.told, kind.mapping.plan.rows)}
        self.sums: Decoder = decoder_of(trace, kind.told, kind.mapping.plan.sums)
        plan = kind.mapping.plan
        # What only the question needs which streams belong together comes as rows and is counted here.
        self._only_heard = ARGUMENTS.keys() - plan.rows.keys() - plan.sums.keys()
        rows = {**plan.rows, **dict.fromkeys(self._only_heard, ())}
        self.reader: Reader = reader_of(
            trace.format, kind.told, times, plan._replace(rows=rows), self.sums.decode, self._declared, front=trace.look.front
        )
        self.trail = Trail([machine.id for machine in kind.mapping.machines], decoder_of(trace, kind.told, ARGUMENTS).decode)
        self.joins: dict[bytes, Join] = {}
        self.shifts: dict[int, Shifts] = {}
        self.resources: dict[int, Resource] = {}
        self.resolutions: dict[int, int] = {}
        self.ended, self.ended_points = Accounting(), 0
        self._last_words: list[Output] = []
        self._kind, self._attributes = kind, attributes
        self.reading = Reading(self._new_engine)

    def _declared(self, event: str) -> None:
        self.decoders[0].saw(event)
        self.sums.saw(event)

    def _new_engine(self, number: int) -> Engine:
        kind, times = self._kind, self.times
        resolution_ns = self.resolutions.setdefault(number, self.reader.resolution_ns)
        key = key_of(self.trace, number)
        environment = tuple({**dict(self._attributes), **dict(kind.environment)}.items())
        self.resources[number] = resource_of(self.trace, key, self.reading.processes.ids.get(number), environment)
        coarse = resolution_ns if resolution_ns > 1000 else None  # noqa: PLR2004  # a microsecond
        stream = EngineStream(key, self.trace.role, times.mark, times.uncertainty_ns or None, coarse)
        if number not in self.decoders:
            self.decoders[number] = decoder_of(self.trace, kind.told, kind.mapping.plan.rows)
        decoder = self.decoders[number]
        return Engine(
            kind.mapping,
            stream,
            decoder.decode,
            lambda: decoder.version_range,
            decoder.saw,
            self.joins,
            self.trail.index(number),
        )

    def take_in(self, batch: Batch) -> None:
        """Hand a batch to the engines."""
        heard = [row for row in batch.rows if row.event in self._only_heard]
        if heard:
            counts = Counter(batch.counts) + Counter(row.event for row in heard)
            batch = batch._replace(rows=[row for row in batch.rows if row.event not in self._only_heard], counts=counts)
        split = self.reading.processes.split(batch.rows)
        for number, rows in enumerate(split):
            self.trail.hear(number, rows)
        for row in heard:
            if (process := self.reading.processes.known(row)) is not None:
                self.trail.hear(process, [row])
        self.reading.feed(batch, split)

    @property
    def open_migrations(self) -> list[tuple[str | None, int]]:
        """Role and begin of what is open."""
        return [one for engine in self.reading.engines.values() for one in engine.open_migrations]

    @property
    def outgoing(self) -> list[tuple[int, bool]]:
        """See `Stream.outgoing`."""
        still_open = [(begin_ns, False) for role, begin_ns in self.open_migrations if role in ("source", None)]
        return [*still_open, *((begin_ns, True) for begin_ns in self.trail.begins())]

    def migrations(self, first: int) -> list[Seen]:
        """See `Stream.migrations`."""
        engines = self.reading.engines.values()
        log = Log(
            name=self.trace.paths[0],
            told=self.trace.role is not None,
            timed=self.times.mark is None,
            whole=not any(has_holes(engine.accounting.buckets) for engine in engines),
            steady=not any(engine.late for engine in engines),
        )
        return self.trail.migrations(first, log)

    def take(self) -> list[Output]:
        """What came out since the last call, of each process."""
        found: list[Output] = []
        for number, engine in self.reading.engines.items():
            spans, points = engine.take_spans(), engine.take_points()
            if spans or points:
                self.trail.saw(number, spans)
                if (shifts := self.shifts.get(number)) is not None:
                    spans, points = shifts.spans(spans), shifts.points(points)
                found.append((self.resources[number], spans, points))
        return [*self._take_ended(), *found]

    def _take_ended(self) -> list[Output]:
        taken, self._last_words = self._last_words, []
        return taken

    def end_processes(self) -> None:
        """Let go of processes that have ended: a host starts a QEMU for each guest, for months."""
        reading = self.reading
        if len(reading.engines) < _FEW or not reading.processes.ids:
            return
        last_ns = max(reading.seen_ns.values(), default=0)
        for number in [n for n, seen_ns in reading.seen_ns.items() if n and last_ns - seen_ns > self._kind.idle_ns]:
            engine, resource = reading.let_go(number), self.resources.pop(number)
            self.trail.let_go(number)
            self.resolutions.pop(number)
            self.decoders.pop(number)
            engine.finish()
            self._last_words.append((resource, engine.take_spans(), engine.take_points()))
            self.ended = report.summed([self.ended, engine.accounting])
            self.ended_points += engine.points_made

    def snapshot(self) -> dict[str, Any]:
        trace, times = self.trace, self.times
        return {
            "format": trace.format,
            "role": trace.role,
            "identity": [part.hex() for part in trace.identity],
            "head": trace.head.hex(),
            "look": [trace.look.first.hex(), trace.look.stamp, trace.look.events, trace.look.front.hex()],
            "times": [times.offset_ns, times.not_after_ns, times.assume_start_ns, times.mark, times.uncertainty_ns],
            "reader": self.reader.snapshot(),
            "decoders": [self.decoders[0].snapshot(), self.sums.snapshot()],
            "processes": self.reading.processes.snapshot(),
            "engines": [
                [n, self.resolutions[n], engine.snapshot(), self.decoders[n].snapshot()]
                for n, engine in self.reading.engines.items()
            ],
            "made": self.reading.made,
            "seen": [list(seen) for seen in self.reading.seen_ns.items()],
            "ended": [self.ended.snapshot(), self.ended_points],
            "trail": self.trail.snapshot(),
            "shifts": [[number, shifts.plain()] for number, shifts in self.shifts.items()],
        }

    @classmethod
    def restored(cls, kind: Kind, path: str, saved: dict[str, Any], attributes: Attributes) -> _Opened:
        first, stamp, events, *front = saved["look"]
        look = Look(bytes.fromhex(first), stamp, events=events, front=bytes.fromhex("".join(front)))
        identity = tuple(bytes.fromhex(part) for part in saved["identity"])
        trace = TraceInput(
            (path,), (None,), saved["role"], identity, saved["format"], bytes.fromhex(saved["head"]), look
        )  # fmt: skip
        offset_ns, not_after_ns, assume_start_ns, mark, uncertainty_ns = saved["times"]
        times = Times(offset_ns, not_after_ns, zone_of(path), assume_start_ns, mark, uncertainty_ns)
        opened = cls(kind, trace, times, attributes)
        opened.reader.restore(saved["reader"])
        opened.decoders[0].restore(saved["decoders"][0])
        opened.sums.restore(saved["decoders"][1])
        opened.reading.processes.restore(saved["processes"])
        for number, resolution_ns, state, *decoder in saved["engines"]:
            opened.resolutions[number] = resolution_ns
            engine = opened.reading.engines[number] = opened._new_engine(number)
            # In older snapshots all processes have one.
            opened.decoders[number].restore(decoder[0] if decoder else saved["decoders"][0])
            engine.restore(state)
        opened.reading.made, opened.reading.seen_ns = saved["made"], dict(saved["seen"])
        opened.ended.restore(saved["ended"][0])
        opened.ended_points = saved["ended"][1]
        opened.trail.restore(saved["trail"])
        opened.shifts = {number: Shifts.of_plain(plain) for number, plain in saved["shifts"]}
        return opened


def _recognised(kind: Kind, path: str, head: bytes, *, last: bool) -> TraceInput | None:
    """What the first bytes of a stream are; None as long as they do not tell.

    Raises:
        OtelbridgeError: They are no trace that is known.
    """
    full = last or len(head) >= HEAD_BYTES
    lines = head[:HEAD_BYTES] if full else head[: head.rfind(b"\n") + 1]
    is_event = kind.told.catalogue.is_event
    try:
        word = _format(kind, path, head, lines)
    except FormatError:
        if full:
            raise
        return None
    first = None
    if word == "log":
        known = look_at(lines, is_event).stamp is not None
    elif word is not None:
        start = head[:_SIMPLE_HEAD_BYTES] if word == "simple" else lines
        first = first_of([path], word, kind.told, [start])
        known = first is not None
        full = last or len(head) >= (_SIMPLE_HEAD_BYTES if word == "simple" else HEAD_BYTES)
    if word is None or not (known or full):
        return None
    beginning = head if word == "simple" else lines
    (trace,) = group_inputs([path], [], [], lambda _path: beginning, {path: word}, is_event, lambda _path: first)
    if trace.look.events and trace.look.stamp is None:
        raise FormatError(
            "its events carry no time stamps, so no span of it has a time that could be delivered. Run QEMU with "
            "'-msg timestamp=on', or read it with `otelbridge convert --assume-start TIME`. Nothing of it is delivered.",
            path=path,
        )
    return trace._replace(role=kind.role)


def _format(kind: Kind, path: str, head: bytes, lines: bytes) -> str | None:
    if kind.format != "auto":
        return kind.format
    if is_simple(head):
        return "simple"
    return detect(lines, path, kind.told.catalogue.is_event).format if lines else None


def _times(trace: TraceInput, told: Told) -> Times:
    """How the stamps of a trace become UTC; those that count from a host's boot count from this host's."""
    is_told = told.clock_offset_ns is not None or told.boot_ns is not None or told.clock or clock_beside(trace.paths[0])
    if FORMATS[trace.format].times == "boot" and trace.first is not None and not is_told:
        now_ns, since_boot_ns = time.time_ns(), time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        # A trace of the time before the last boot, or of another host, has later times than this host's clock.
        if trace.first[0] <= since_boot_ns:
            told = told._replace(clock_offset_ns=now_ns - since_boot_ns)
    return times_of(trace, told)


def _comes_in(rows: Sequence[Row]) -> bool:
    """Whether the first of these events that is of one side of a migration is of a destination's."""
    return next((found for row in rows if (found := _side(row.event))), None) == "destination"


_side = cache(side)


def _is_final(row: Row, mapping: Rules) -> bool:
    """Whether an event says that a migration is over; looked at quickly, for how long to wait."""
    return any(
        row.event == machine.event and any(row.raw.rstrip(b"\0").endswith(state.encode()) for state in machine.finals)
        for machine in mapping.machines
    )
