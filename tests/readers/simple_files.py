"""Simple traces: recorded ones with what QEMU's own reader printed of them, and such as are made up."""

from __future__ import annotations

import ast
import gzip
import re
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st

from otelbridge.catalogue import Catalogue, builtin
from otelbridge.catalogue.printf import is_text
from otelbridge.readers.simple import ByteOrder, SimpleReader
from otelbridge.records import Batch, Plan, Row

MAGIC = 0xF2B177CB0AA429B4
DROPPED = (1 << 64) - 2
ONES = (1 << 64) - 1
OFFSET_NS = 1795405703481433342

PLAN = Plan(
    rows={"migrate_set_state": ("new_state",), "savevm_section_start": (), "savevm_section_end": ("ret",)},
    sums={"multifd_send": ("used",)},
)

# migration_set_outgoing_channel 31.808 pid=9085 ioc=0x56067823cc00 ioctype=b'qio-channel-socket' hostname=b'' err=0x0
_LINE = re.compile(r"(?P<name>\w+) (?P<delta>-?\d+\.\d{3}) pid=(?P<pid>\d+) ?(?P<arguments>.*)", re.DOTALL)
_ARGUMENT = re.compile(r"""(\w+)=(0x[0-9a-f]+|b'(?:[^'\\]|\\.)*'|b"(?:[^"\\]|\\.)*")""")


class Printed(NamedTuple):
    """A line of QEMU's own reader. The time counts from the first record."""

    name: str
    time_ns: int
    process: int
    arguments: dict[str, int | bytes]


class Recording(NamedTuple):
    """One process's trace, and the text of QEMU's own reader."""

    path: Path

    @property
    def data(self) -> bytes:
        return gzip.decompress(self.path.read_bytes()) if self.path.suffix == ".gz" else self.path.read_bytes()

    @property
    def version(self) -> str:
        return self.path.parts[-3].split("-")[1]

    def printed(self) -> Iterator[Printed]:
        stem = self.path.name.split(".")[0]
        text = gzip.decompress(self.path.with_name(f"{stem}.simpletrace.txt.gz").read_bytes()).decode()
        time_ns = 0
        for line in text.splitlines():
            found = _LINE.fullmatch(line)
            assert found is not None, line
            time_ns += int(found["delta"].replace(".", ""))
            arguments = {k: ast.literal_eval(v) for k, v in _ARGUMENT.findall(found["arguments"])}
            yield Printed(found["name"], time_ns, int(found["pid"]), arguments)


def recordings_in(folder: Path) -> list[Recording]:
    """All simple traces below a folder of recordings."""
    paths = [*folder.glob("qemu-*-simple/*/*.simple"), *folder.glob("qemu-*-simple/*/*.simple.gz")]
    assert paths
    return [Recording(path) for path in sorted(paths)]


# --- reading ----------------------------------------------------------------------------------------


class OneByOne(SimpleReader):
    """The reader without patterns for runs: the way that defines what is right."""

    def _warm(self, data: bytes) -> None:
        pass


class Outcome(NamedTuple):
    """All that a reader gave, window by window."""

    windows: list[tuple[int | None, list[Row], dict[str, int], dict[tuple[str, str], int], dict[str, int], int]]
    last_ns: int | None
    gaps: list[str]

    @property
    def rows(self) -> list[Row]:
        return [row for window in self.windows for row in window[1]]

    @property
    def counts(self) -> Counter[str]:
        return sum((Counter(window[2]) for window in self.windows), Counter())

    @property
    def units(self) -> Counter[str]:
        return sum((Counter(window[4]) for window in self.windows), Counter())

    @property
    def total(self) -> int:
        return sum(window[-1] for window in self.windows)

    @property
    def accounted(self) -> int:
        return len(self.rows) + self.counts.total() + self.units.total() - self.units["dropped_by_qemu"]


def outcome(batches: Iterable[Batch], gaps: list[str]) -> Outcome:
    """Batches of a window put together; what the cutting of the input may change is gone."""
    windows: dict[int | None, tuple[list[Row], Counter[str], Counter[tuple[str, str]], Counter[str], list[int]]] = {}
    last_ns, before = None, -1
    for batch in batches:
        at = -1 if batch.window_ns is None else batch.window_ns
        assert at >= before, "a window went back"
        before = at
        rows, counts, sums, units, total = windows.setdefault(batch.window_ns, ([], Counter(), Counter(), Counter(), [0]))
        rows += batch.rows
        counts.update(batch.counts)
        sums.update(batch.sums)
        units.update(batch.units)
        total[0] += batch.total
        last_ns = batch.last_ns
    plain = [
        (at, rows, dict(+counts), dict(sums), dict(+units), total[0])
        for at, (rows, counts, sums, units, total) in windows.items()
    ]
    return Outcome(plain, last_ns, gaps)


def sum_of(_event: str, raw: bytes) -> tuple[int] | None:
    """The third word of a payload, as the one argument of `PLAN.sums`."""
    return (int.from_bytes(raw[16:24], "little"),) if len(raw) >= 24 else None


def cut(data: bytes, size: int | None) -> Iterator[bytes]:
    return (data[i : i + (size or len(data))] for i in range(0, len(data), size or len(data) or 1))


def batches_of(data: bytes, size: int | None = None, kind: type[SimpleReader] = SimpleReader, **options: Any) -> Outcome:
    options = {"offset_ns": OFFSET_NS, **options}
    plan = options.pop("plan", PLAN)
    reader = kind(plan, builtin().is_event, sum_of, **options)
    found = [batch for block in cut(data, size) for batch in reader.feed(block)]
    found += reader.finish()
    return outcome(found, reader.gaps)


# --- making -----------------------------------------------------------------------------------------


class Writer:
    """Writes what QEMU writes.

    Source: QEMU's trace/simple.c.
    """

    def __init__(self, order: ByteOrder = "little") -> None:
        self.order = order
        self._mark = "<" if order == "little" else ">"

    def header(self, version: int = 4) -> bytes:
        return struct.pack(self._mark + "QQQ", ONES, MAGIC, version)

    def name(self, number: int, name: bytes) -> bytes:
        return struct.pack(self._mark + "QQI", 0, number, len(name)) + name

    def payload(self, values: Sequence[int | bytes]) -> bytes:
        return b"".join(
            struct.pack(self._mark + "Q", value & ONES)
            if isinstance(value, int)
            else struct.pack(self._mark + "I", len(value)) + value
            for value in values
        )

    def event(self, number: int, time_ns: int, values: Sequence[int | bytes] = (), process: int = 77) -> bytes:
        payload = self.payload(values)
        return struct.pack(self._mark + "QQQII", 1, number, time_ns, 24 + len(payload), process) + payload

    def dropped(self, time_ns: int, times: int) -> bytes:
        return self.event(DROPPED, time_ns, [times])


NAMES = {
    300: b"migrate_set_state",
    3000: b"savevm_section_start",
    3001: b"savevm_section_end",
    4149: b"ram_save_page",
    4240: b"migration_transferred_bytes",
    5: b"savevm_state_iterate",
    12: b"multifd_send",
    13: b"no_event_of_any_qemu",
}
T0 = 2_611_260_000_000_000


def preamble(writer: Writer) -> bytes:
    return writer.header() + b"".join(writer.name(number, name) for number, name in NAMES.items())


def records_in(data: bytes, order: ByteOrder = "little") -> Iterator[tuple[int, int, bytes]]:
    """Type, place and bytes of each record of a whole file."""
    mark = "<" if order == "little" else ">"
    place = 24
    while place < len(data):
        (kind,) = struct.unpack_from(mark + "Q", data, place)
        at, more = (16, 20) if kind == 0 else (24, 8)
        size = more + struct.unpack_from(mark + "I", data, place + at)[0]
        yield kind, place, data[place : place + size]
        place += size


def swapped(data: bytes, catalogue: Catalogue) -> bytes:
    """The same trace as a host of the other byte order writes it."""
    writer = Writer("big")
    names: dict[int, str] = {}
    found = [writer.header()]
    for kind, _, record in records_in(data):
        (number,) = struct.unpack_from("<Q", record, 8)
        if kind == 0:
            names[number] = record[20:].decode()
            found.append(writer.name(number, record[20:]))
            continue
        time_ns, _, process = struct.unpack_from("<QII", record, 16)
        layouts = [[True]]
        if number != DROPPED:
            layouts = [
                [not is_text(argument.ctype) for argument in spec.arguments] for spec in catalogue.variants(names[number])
            ]
        values = next(v for layout in layouts if (v := _values(record[32:], layout)) is not None)
        found.append(writer.event(number, time_ns, values, process))
    return b"".join(found)


def _values(payload: bytes, words: Sequence[bool]) -> list[int | bytes] | None:
    found: list[int | bytes] = []
    place = 0
    for word in words:
        if len(payload) < place + (8 if word else 4):
            return None
        if word:
            found.append(struct.unpack_from("<Q", payload, place)[0])
            place += 8
        else:
            (size,) = struct.unpack_from("<I", payload, place)
            found.append(payload[place + 4 : place + 4 + size])
            place += 4 + size
    return found if place == len(payload) else None


# --- damaging ---------------------------------------------------------------------------------------

MUTATION = st.tuples(st.sampled_from(["set", "cut out", "put in", "double"]), st.integers(0, 1 << 20), st.binary(max_size=40))


def small_trace(recordings: Path) -> bytes:
    """A real trace with only the names that it uses."""
    data = Recording(recordings / "qemu-10.2.0-simple" / "multifd-tls" / "src.simple.gz").data
    whole = list(records_in(data))
    used = {record[8:16] for kind, _, record in whole if kind == 1}
    return data[:24] + b"".join(record for kind, _, record in whole if kind == 1 or record[8:16] in used)


def damaged(data: bytes, mutations: list[tuple[str, int, bytes]]) -> bytes:
    for how, where, piece in mutations:
        at = where % (len(data) + 1)
        head, tail = data[:at], data[at:]
        data = {
            "set": head + piece + tail[len(piece) :],
            "cut out": head + tail[len(piece) :],
            "put in": head + piece + tail,
            "double": head + tail[: 7 * len(piece)] + tail,
        }[how]
    return data
