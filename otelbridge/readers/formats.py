"""The formats that are read: for each word of `--format` its reader, its decoder, and what its clock needs to be told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from otelbridge.catalogue import Catalogue, TextDecoder
from otelbridge.readers.log import LogReader
from otelbridge.records import Batch, Plan, Value

if TYPE_CHECKING:
    from otelbridge.catalogue.binary import ByteOrder


class Reader(Protocol):
    """Bytes of one format in, batches out; what comes out does not depend on how the input was cut."""

    @property
    def resolution_ns(self) -> int:
        """How far apart two stamps must lie to differ, as far as it was seen; 1 for a microsecond or better."""
        ...

    @property
    def gaps(self) -> list[str]:
        """Losses that are no matter of single units, in words."""
        ...

    def feed(self, block: bytes) -> list[Batch]:
        """What this block completes."""
        ...

    def finish(self) -> list[Batch]:
        """The rest, at the end of the input. Of lines more may be fed after it, which do not go on where these ended."""
        ...

    def snapshot(self) -> dict[str, Any]:
        """Where the reader stands between two blocks, as plain data."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `snapshot`."""
        ...


class Decoder(Protocol):
    """Arguments of events out of `Row.raw`, and what they tell of QEMU's version."""

    def decode(self, event: str, raw: bytes) -> tuple[Value | None, ...] | None:
        """The wanted arguments, None where no declaration fits."""
        ...

    def saw(self, event: str) -> None:
        """An event came up, or is declared: versions without it are out."""
        ...

    def limit(self, first: str | None, last: str | None) -> None:
        """The format allows these versions only."""
        ...

    @property
    def version_range(self) -> str | None:
        """The versions that are left, in words."""
        ...

    def snapshot(self) -> dict[str, Any]:
        """What was learnt, as plain data."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `snapshot`."""
        ...


class Parts(NamedTuple):
    """All that a reader may be built from; each format takes what it needs.

    Attributes:
        plan: What the rules need.
        is_event: Whether QEMU has an event of this name.
        decode_sums: Gives the arguments of `plan.sums[event]`.
        declared: Told of each event that the input declares.
        offset_ns: What makes UTC of times that count from the host's boot.
        not_after_ns: A time, UTC, after which the input's first event cannot lie: tells the day or year that stamps lack.
        zone: The zone of stamps that name none.
        assume_start_ns: The time of the first line where lines carry none.
        thread: The thread that wrote the whole file.
        numbers_are_threads: False for QEMU 3.1 and older.
        numbers: Events by their number in a trace-events file.
        front: A pattern of what stands in front of every line of a log, empty for nothing.
    """

    plan: Plan
    is_event: Callable[[str], bool]
    decode_sums: Callable[[str, bytes], tuple[Any, ...] | None]
    declared: Callable[[str], None] | None = None
    offset_ns: int = 0
    not_after_ns: int | None = None
    zone: tzinfo = UTC
    assume_start_ns: int | None = None
    thread: int | None = None
    numbers_are_threads: bool = True
    numbers: Mapping[int, str] | None = None
    front: bytes = b""


Wanted = Mapping[str, Sequence[str]]


class Format(NamedTuple):
    """One format.

    Attributes:
        unit: What the accounting counts.
        times: `utc` where stamps are whole; `boot` where they count from the host's boot; `day` where they lack day or year.
        reader: Makes a reader.
        decoder: Makes a decoder for the wanted arguments, a told version, and the byte order of a binary format.
        example: What an event looks like, for a person.
    """

    unit: Literal["lines", "records"]
    times: Literal["utc", "boot", "day"]
    reader: Callable[[Parts], Reader]
    decoder: Callable[[Catalogue, Wanted, str | None, ByteOrder | None], Decoder]
    example: str


# Each format's modules are imported when an input is in it: a conversion of one reads with one.


def _log(parts: Parts) -> Reader:
    log = LogReader(
        parts.plan, parts.is_event, parts.decode_sums,
        assume_start_ns=parts.assume_start_ns, thread=parts.thread, numbers_are_threads=parts.numbers_are_threads,
    )  # fmt: skip
    if not parts.front:
        return log
    from otelbridge.readers.fronts import FrontReader  # noqa: PLC0415  # most logs have nothing in front

    return FrontReader(log, parts.front)


def _simple(parts: Parts) -> Reader:
    from otelbridge.readers.simple import SimpleReader  # noqa: PLC0415

    return SimpleReader(
        parts.plan, parts.is_event, parts.decode_sums,
        offset_ns=parts.offset_ns, declared=parts.declared, numbers=parts.numbers,
    )  # fmt: skip


def _ftrace(parts: Parts) -> Reader:
    from otelbridge.readers.ftrace import ftrace_reader  # noqa: PLC0415

    return ftrace_reader(parts.plan, parts.is_event, parts.decode_sums, offset_ns=parts.offset_ns)


def _syslog(parts: Parts) -> Reader:
    from otelbridge.readers.syslog import syslog_reader  # noqa: PLC0415

    return syslog_reader(parts.plan, parts.is_event, parts.decode_sums, not_after_ns=parts.not_after_ns, zone=parts.zone)


def _journald(parts: Parts) -> Reader:
    from otelbridge.readers.journald import JournaldReader  # noqa: PLC0415

    return JournaldReader(parts.plan, parts.is_event, parts.decode_sums)


def _ust(parts: Parts) -> Reader:
    from otelbridge.readers.ust import ust_reader  # noqa: PLC0415

    return ust_reader(parts.plan, parts.is_event, parts.decode_sums, not_after_ns=parts.not_after_ns, zone=parts.zone)


def _stap(parts: Parts) -> Reader:
    from otelbridge.readers.stap import stap_reader  # noqa: PLC0415

    return stap_reader(parts.plan, parts.is_event, parts.decode_sums)


def _text(catalogue: Catalogue, wanted: Wanted, version: str | None, _order: ByteOrder | None) -> Decoder:
    return TextDecoder(catalogue, wanted, version)


def _fields(catalogue: Catalogue, wanted: Wanted, version: str | None, _order: ByteOrder | None) -> Decoder:
    from otelbridge.catalogue.fields import FieldDecoder  # noqa: PLC0415

    return FieldDecoder(catalogue, wanted, version)


def _payload(catalogue: Catalogue, wanted: Wanted, version: str | None, order: ByteOrder | None) -> Decoder:
    from otelbridge.catalogue.binary import BinaryDecoder  # noqa: PLC0415

    return BinaryDecoder(catalogue, wanted, version, byteorder=order or "little")


FORMATS: Mapping[str, Format] = {
    "log": Format("lines", "utc", _log, _text, "19625@1795407950.847563:migrate_set_state new state setup"),
    "simple": Format("records", "boot", _simple, _payload, "records behind the header of a simple trace"),
    "ftrace": Format(
        "lines",
        "boot",
        _ftrace,
        _text,
        "<...>-23166 [000] ...1. 2503.940575: tracing_mark_write: migrate_set_state new state setup",
    ),
    "syslog": Format(
        "lines", "day", _syslog, _text, "Nov 23 04:30:07 host qemu-system-x86_64[23115]: migrate_set_state new state setup"
    ),
    "journald": Format(
        "lines",
        "utc",
        _journald,
        _text,
        '{"MESSAGE":"migrate_set_state new state setup","SYSLOG_PID":"23115","__REALTIME_TIMESTAMP":"1795408207397534"}',
    ),
    "ust": Format(
        "lines",
        "day",
        _ust,
        _fields,
        '[2026-11-23 04:30:07.397507948] (+0.001254499) host qemu:migrate_set_state: { cpu_id = 0 }, { new_state = "setup" }',
    ),
    "stap": Format("lines", "utc", _stap, _text, "23115@1795408207397509000 migrate_set_state new state setup"),
}
"""By the word of `--format`."""


def first_event(reader: Reader, blocks: Iterable[bytes]) -> tuple[int, str, bytes] | None:
    """Time, name and arguments of the first event that comes as a row; None if there is none."""
    for block in blocks:
        for batch in reader.feed(block):
            for row in batch.rows:
                return row.time_ns or 0, row.event, row.raw
    for batch in reader.finish():
        for row in batch.rows:
            return row.time_ns or 0, row.event, row.raw
    return None
