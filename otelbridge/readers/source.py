"""One trace as it lies in its files: opened, put on UTC, and read to batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from otelbridge.catalogue import Catalogue
from otelbridge.errors import FormatError
from otelbridge.readers.formats import FORMATS, Decoder, Parts, Reader, Wanted, first_event
from otelbridge.readers.inputs import TraceInput
from otelbridge.readers.merge import merged
from otelbridge.readers.open import Input, open_input, shown
from otelbridge.records import SECOND_NS, Batch, Plan

if TYPE_CHECKING:
    from otelbridge.catalogue.binary import ByteOrder
    from otelbridge.readers.clock import Facts
    from otelbridge.readers.programs import ProgramInput

_FIRST_LINE_NS = 1000
"""With an order but no time, a span's times are its lines' numbers in microseconds."""

_SINCE_BOOT_NS = 20 * 365 * 86_400 * SECOND_NS
"""No host runs for twenty years: a larger time counts from 1970."""

Progress = Callable[[int, int | None], None]


class Told(NamedTuple):
    """What the user said of the inputs, and what else is the same for all of them.

    Attributes:
        catalogue: The events.
        numbers: Events by their number, where the catalogue is a trace-events file of which no line was skipped.
        qemu_version: One of VERSIONS.
        assume_start_ns: The time of the first line where lines carry none.
        clock_offset_ns: What makes UTC of times that count from the host's boot.
        boot_ns: The time of the host's boot.
        clock: A file with both clocks.
    """

    catalogue: Catalogue
    numbers: Mapping[int, str] | None = None
    qemu_version: str | None = None
    assume_start_ns: int | None = None
    clock_offset_ns: int | None = None
    boot_ns: int | None = None
    clock: Path | None = None


class Times(NamedTuple):
    """How the stamps of an input become UTC.

    Attributes:
        offset_ns: Added to every time.
        not_after_ns: A time after which its first event cannot lie.
        zone: The zone of stamps that name none.
        assume_start_ns: The time of the first line where lines carry none.
        mark: What `otelbridge.clock` says on every span; None if the times are the input's own.
        uncertainty_ns: How far off they may be.
        note: What the user should know; empty if nothing.
    """

    offset_ns: int = 0
    not_after_ns: int | None = None
    zone: tzinfo = UTC
    assume_start_ns: int | None = None
    mark: str | None = None
    uncertainty_ns: int = 0
    note: str = ""


def opened(path: str) -> Input | ProgramInput:
    """An input, open: a file, standard input, or what trace-cmd and babeltrace2 print of a binary trace.

    Raises:
        UsageError: It cannot be read, or the program for it is not installed.
    """
    if path != "-" and Path(path).is_dir():
        from otelbridge.readers.programs import babeltrace_text, is_ctf  # noqa: PLC0415  # only for a folder

        if is_ctf(path):
            return babeltrace_text(path)
    found = open_input(path, again=True)
    if found.head.startswith(b"\x17\x08\x44tracing"):
        from otelbridge.readers.programs import trace_cmd_report  # noqa: PLC0415  # only for a trace.dat

        found.close()
        return trace_cmd_report(path)
    return found


def blocks_of(path: str) -> Generator[bytes]:
    """The content of an input from its beginning."""
    source = opened(path)
    try:
        yield from source.blocks()
    finally:
        source.close()


# --- times ------------------------------------------------------------------------------------------


def times_of(trace: TraceInput, told: Told) -> Times:
    """How the stamps of a trace become UTC.

    Raises:
        UsageError: They count from the host's boot, and nothing tells when that was.
    """
    kind = FORMATS[trace.format].times
    if kind == "boot":
        return _since_boot(trace, told)
    if kind == "day":
        return Times(not_after_ns=_written_ns(trace.files[0], told), zone=zone_of(trace.paths[0]))
    if trace.format != "log" or trace.look.stamp is not None or not trace.look.events:
        return Times(assume_start_ns=told.assume_start_ns)
    if told.assume_start_ns is None:
        return Times(assume_start_ns=_FIRST_LINE_NS, mark="none")
    return Times(assume_start_ns=told.assume_start_ns, mark="assumed")


def _since_boot(trace: TraceInput, told: Told) -> Times:
    from otelbridge.readers.clock import Facts, clock_beside, clock_of, read_clock  # noqa: PLC0415  # a log has UTC

    path = trace.paths[0]
    if trace.first is None or trace.first[0] >= _SINCE_BOOT_NS:
        return Times()
    beside = told.clock or clock_beside(path)
    facts = Facts(told.clock_offset_ns, read_clock(beside) if beside and told.clock_offset_ns is None else (), told.boot_ns)
    if facts.offset_ns is None and not facts.readings and facts.boot_ns is None:
        facts = _with_file(facts, trace)
    found = clock_of(facts, path)
    return Times(found.offset_ns, mark=found.mark, uncertainty_ns=found.uncertainty_ns if found.mark else 0, note=found.note)


def _with_file(facts: Facts, trace: TraceInput) -> Facts:
    """The facts with the time at which the file was last written and that of its last event."""
    path = trace.paths[0]
    if path == "-" or trace.first is None or not Path(path).is_file():
        return facts
    reader = FORMATS[trace.format].reader(Parts(Plan({}), lambda _name: True, lambda _event, _raw: None))
    last_ns = trace.first[0]
    for batch in _read_to_end(reader, path):
        last_ns = max(last_ns, batch.last_ns or 0)
    return facts._replace(modified_ns=Path(path).stat().st_mtime_ns, first_ns=trace.first[0], last_ns=last_ns)


def _read_to_end(reader: Reader, path: str) -> Iterator[Batch]:
    for block in blocks_of(path):
        yield from reader.feed(block)
    yield from reader.finish()


def _written_ns(path: str, told: Told) -> int | None:
    """When an input had surely begun: when a clock was read for it, else when its file was last written."""
    from otelbridge.readers.clock import clock_beside, read_clock  # noqa: PLC0415  # a log has UTC

    clock = told.clock or clock_beside(path)
    if clock is not None:
        return max(reading.realtime_ns for reading in read_clock(clock))
    if path == "-":
        return None
    return Path(path).stat().st_mtime_ns


def zone_of(path: str) -> tzinfo:
    """The zone of this host, in which a program prints stamps that name none; babeltrace2 was asked for UTC by us."""
    if path != "-" and Path(path).is_dir():
        return UTC
    from zoneinfo import ZoneInfo  # noqa: PLC0415  # most stamps are UTC

    try:
        if os.environ.get("TZ"):
            return ZoneInfo(os.environ["TZ"].lstrip(":"))
        with Path("/etc/localtime").open("rb") as file:
            return ZoneInfo.from_file(file)
    except (OSError, ValueError, KeyError):
        return UTC


# --- reading ----------------------------------------------------------------------------------------


def first_of(
    files: Sequence[str], format_: str, told: Told, blocks: Iterable[bytes] | None = None
) -> tuple[int, str, bytes] | None:
    """Time as it stands there, name and arguments of the first event of files in their order, or of these first blocks."""
    reader = FORMATS[format_].reader(_all_events(files[0], format_, told))
    try:
        return first_event(reader, (block for path in files for block in blocks_of(path)) if blocks is None else blocks)
    except FormatError as error:
        raise _named(error, files[-1]) from None


def times_in(data: bytes, path: str, format_: str, told: Told) -> tuple[int, int] | None:
    """The earliest and the latest time of the events in a piece of an input, as they stand there; None where there are none."""
    try:
        # Of a line that was cut there may be an event without its stamp.
        reader = FORMATS[format_].reader(_all_events(path, format_, told)._replace(assume_start_ns=None))
        batches = [*reader.feed(data), *reader.finish()]
    except FormatError:
        return None
    times = [row.time_ns for batch in batches for row in batch.rows if row.time_ns is not None]
    return (min(times), max(times)) if times else None


def _all_events(path: str, format_: str, told: Told) -> Parts:
    """What a reader needs that gives each event as a row."""
    plan = Plan(dict.fromkeys(told.catalogue.names, ()))
    parts = Parts(plan, told.catalogue.is_event, lambda _event, _raw: None, numbers=told.numbers, assume_start_ns=0)
    if FORMATS[format_].times == "day":
        return parts._replace(not_after_ns=_written_ns(path, told), zone=zone_of(path))
    return parts


def decoder_of(trace: TraceInput, told: Told, wanted: Wanted) -> Decoder:
    """A decoder for the wanted arguments of a trace's events."""
    decoder = FORMATS[trace.format].decoder(told.catalogue, wanted, told.qemu_version, _order(trace))
    if trace.format == "log":
        if trace.look.stamp == "number":
            decoder.limit(None, "10.0.0")
        elif trace.look.stamp == "iso":
            decoder.limit("10.1.0", None)
        else:
            decoder.limit("6.0.0", None)
    return decoder


def _order(trace: TraceInput) -> ByteOrder | None:
    if trace.format != "simple":
        return None
    from otelbridge.readers.simple import byte_order  # noqa: PLC0415

    return byte_order(trace.head)


def reader_of(
    format_: str,
    told: Told,
    times: Times,
    plan: Plan,
    decode_sums: Callable[[str, bytes], tuple[Any, ...] | None],
    declared: Callable[[str], None],
    thread: int | None = None,
    front: bytes = b"",
) -> Reader:
    """A reader for one file of a trace.

    Args:
        format_: The word of `--format`.
        told: What is known of all inputs.
        times: How its stamps become UTC.
        plan: What the rules need.
        decode_sums: Gives the arguments of `plan.sums[event]`.
        declared: Told of each event that the input declares.
        thread: The thread that wrote the whole file, where its name tells it.
        front: A pattern of what stands in front of every line of a log.
    """
    return FORMATS[format_].reader(
        Parts(
            plan, told.catalogue.is_event, decode_sums, declared, times.offset_ns, times.not_after_ns, times.zone,
            times.assume_start_ns, thread, told.qemu_version != "3.1.0", told.numbers, front,
        )
    )  # fmt: skip


class Source:
    """The batches of one trace, from all its files.

    Attributes:
        bytes: How much was read.
        gaps: Losses that are no matter of single units, in words.
        notes: What the programs said that read it for us.

    Args:
        trace: The files.
        told: What is known of all inputs.
        times: How their stamps become UTC.
        plan: What the rules need.
        declared: Told of each event that the input declares, beside those that come.
        progress: Told how far it is.
    """

    def __init__(
        self, trace: TraceInput, told: Told, times: Times, plan: Plan, declared: Callable[[str], None], progress: Progress
    ) -> None:
        self._trace, self._told, self._times, self._plan, self._progress = trace, told, times, plan, progress
        sums = decoder_of(trace, told, plan.sums)
        self._decode_sums: Callable[[str, bytes], tuple[Any, ...] | None] = sums.decode

        def known(event: str) -> None:
            declared(event)
            sums.saw(event)

        self._declared = known
        self._readers: list[Reader] = []
        self.bytes = 0
        self.gaps: list[str] = []
        self.notes: list[str] = []

    @property
    def resolution_ns(self) -> int:
        """How far apart two stamps must lie to differ, as far as it was seen; 1 where the format has microseconds or better."""
        return max((reader.resolution_ns for reader in self._readers), default=1)

    def batches(self) -> Iterator[Batch]:
        """The whole trace from its beginning."""
        threads = [self._thread(files, thread) for files, thread in zip(self._trace.parts, self._trace.threads, strict=True)]
        return threads[0] if len(threads) == 1 else merged(threads)

    def _thread(self, files: Sequence[str], thread: int | None) -> Iterator[Batch]:
        """A file with its rotated parts before it: the rest of a line that was cut stands in the next part."""
        trace = self._trace
        reader = reader_of(
            trace.format, self._told, self._times, self._plan, self._decode_sums, self._declared, thread, trace.look.front
        )
        self._readers.append(reader)
        for path in files:
            source = opened(path)
            try:
                if path == files[0]:
                    self._tell_hole(source)
                yield from self._fed(reader, source, last=path == files[-1])
            except FormatError as error:
                raise _named(error, path) from None
            finally:
                source.close()
        self.gaps += reader.gaps

    def _tell_hole(self, source: Input | ProgramInput) -> None:
        """What stood in a hole before a log; what stood in one before a later part is in the parts before it."""
        if source.hole_bytes:
            self.gaps.append(
                f"its first {source.hole_bytes} bytes are NUL: it was truncated while QEMU went on writing, as by logrotate's "
                "copytruncate; what stood there is in a rotated part, if there is one"
            )

    def _fed(self, reader: Reader, source: Input | ProgramInput, *, last: bool) -> Iterator[Batch]:
        for block in source.blocks():
            self.bytes += len(block)
            yield from reader.feed(block)
            self._progress(source.position, source.size)
        if last:
            yield from reader.finish()
        if source.gap:
            self.gaps.append(source.gap)
        self.notes += source.notes


def _named(error: FormatError, path: str) -> FormatError:
    return FormatError(f"{shown(path)}: {error}", path=path, offset=error.offset)
