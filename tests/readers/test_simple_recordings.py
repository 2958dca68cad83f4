"""Recorded simple traces, against what QEMU's own reader says of the same files."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from functools import lru_cache
from pathlib import Path

import pytest

from otelbridge.catalogue import Catalogue, TextDecoder, builtin, catalogue_from
from otelbridge.catalogue.binary import BinaryDecoder
from otelbridge.readers import LogReader
from otelbridge.readers.clock import Facts, clock_of, read_clock
from otelbridge.readers.simple import SimpleReader, byte_order, is_simple
from otelbridge.records import Plan, Row, Value
from tests.readers.simple_files import (
    OneByOne,
    Printed,
    Recording,
    batches_of,
    outcome,
    recordings_in,
    records_in,
    swapped,
)


class Every(dict[str, tuple[str, ...]]):
    """A plan's rows that hold any event."""

    def __contains__(self, event: object) -> bool:
        return isinstance(event, str)


@lru_cache(maxsize=4)
def catalogue_of(path: Path) -> Catalogue:
    catalogue, declarations = catalogue_from(path.read_text(), str(path))
    assert not declarations.skipped
    return catalogue


def all_arguments(catalogue: Catalogue) -> dict[str, tuple[str, ...]]:
    return {
        event: tuple(dict.fromkeys(argument.name for spec in catalogue.variants(event) for argument in spec.arguments))
        for event in catalogue.declared()
    }


def as_printed(value: Value | None) -> int | bytes:
    """A value as QEMU's reader has it: it knows neither signs nor NULL."""
    if isinstance(value, str):
        return b"" if value == "(null)" else value.encode("utf-8", "surrogateescape")
    assert isinstance(value, int)
    return value & ((1 << 64) - 1)


def told(recording: Recording, data: bytes, catalogue: Catalogue) -> list[Printed]:
    """What we make of a trace, in the form of QEMU's reader."""
    order = byte_order(data)
    assert order is not None
    decoder = BinaryDecoder(catalogue, all_arguments(catalogue), byteorder=order)
    names = all_arguments(catalogue)
    reader = SimpleReader(
        Plan(Every()), catalogue.is_event, lambda _event, _raw: None, offset_ns=0, declared=decoder.saw
    )  # fmt: skip
    found: list[Printed] = []
    batches = [batch for i in range(0, len(data), 1 << 16) for batch in reader.feed(data[i : i + (1 << 16)])]
    for batch in [*batches, *reader.finish()]:
        assert batch.units.keys() <= {"dropped_by_qemu"}, recording.path
        for row in batch.rows:
            values = decoder.decode(row.event, row.raw)
            assert values is not None, (recording.path, row)
            arguments = {
                name: as_printed(value) for name, value in zip(names[row.event], values, strict=True) if value is not None
            }
            assert row.time_ns is not None
            assert row.process is not None
            found.append(Printed(row.event, row.time_ns, row.process, arguments))
        if "dropped_by_qemu" in batch.units:
            found.append(Printed("Dropped_Event", 0, 0, {"num_events_dropped": batch.units["dropped_by_qemu"]}))
    assert not reader.gaps
    return found


def check(recording: Recording, data: bytes, catalogue: Catalogue) -> int:
    """Events, order, processes, arguments and times of each record."""
    expected = list(recording.printed())
    found = told(recording, data, catalogue)
    assert [record.name for record in found] == [record.name for record in expected], recording.path
    begin_ns = next((record.time_ns for record in found if record.name != "Dropped_Event"), 0)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.arguments == theirs.arguments, (recording.path, ours, theirs)
        if ours.name != "Dropped_Event":
            assert (ours.time_ns - begin_ns, ours.process) == theirs[1:3], (recording.path, ours, theirs)
    return len(found)


def test_a_recording_is_read_as_qemus_own_reader_reads_it(recordings: Path) -> None:
    """Here with the built-in catalogue: the recording has events of migration alone."""
    assert sum(check(recording, recording.data, builtin()) for recording in recordings_in(recordings)) > 900


def test_every_record_of_every_recording_is_read_as_qemus_own_reader_reads_it(shared: Path) -> None:
    total = 0
    for recording in recordings_in(shared / "recordings"):
        catalogue = catalogue_of(shared / "catalogs" / f"{recording.version}.trace-events-all")
        total += check(recording, recording.data, catalogue)
    assert total > 175_000


def test_the_same_trace_in_the_other_byte_order_gives_the_same(shared: Path) -> None:
    for recording in recordings_in(shared / "recordings"):
        catalogue = catalogue_of(shared / "catalogs" / f"{recording.version}.trace-events-all")
        data = swapped(recording.data, catalogue)
        assert byte_order(data) == "big"
        check(recording, data, catalogue)


def test_the_names_in_the_file_tell_the_version(shared_recordings: Path) -> None:
    """QEMU declares all events that it was built with."""
    for recording in recordings_in(shared_recordings):
        decoder = BinaryDecoder(builtin(), {})
        for kind, _, record in records_in(recording.data):
            if kind == 0:
                decoder.saw(record[20:].decode())
        assert decoder.version_range is not None
        assert decoder.version_range.split(" ")[0] == recording.version, recording.path


def test_times_lie_between_the_readings_of_the_clock(shared_recordings: Path) -> None:
    for recording in recordings_in(shared_recordings):
        clock_file = recording.path.with_name("clock.json")
        clock = clock_of(Facts(readings=read_clock(clock_file)), "src.simple")
        assert clock.uncertainty_ns < 10_000
        times = json.loads(clock_file.read_text())
        found = batches_of(recording.data, offset_ns=clock.offset_ns)
        assert all(
            times["start"]["realtime_ns"] < (row.time_ns or 0) < times["end"]["realtime_ns"] for row in found.rows
        ), recording.path  # fmt: skip


# --- cut and fast -----------------------------------------------------------------------------------


def check_cuts(recording: Recording) -> None:
    data = recording.data
    expected = batches_of(data, kind=OneByOne)
    assert expected.accounted == expected.total
    assert batches_of(data) == expected
    assert batches_of(data, 1 << 16) == expected
    assert batches_of(data, 4099) == expected


def test_a_recording_cut_in_any_way_gives_the_same(recordings: Path) -> None:
    for recording in recordings_in(recordings):
        check_cuts(recording)
        assert batches_of(recording.data, 1) == batches_of(recording.data)


def test_all_recordings_cut_in_any_way_and_read_in_both_ways_give_the_same(shared_recordings: Path) -> None:
    for recording in recordings_in(shared_recordings):
        check_cuts(recording)


def test_runs_of_records_that_are_only_counted_are_passed_over(shared_recordings: Path) -> None:
    """A page-heavy trace is read by patterns, else the test above compares nothing."""
    for name in ("src.simple.gz", "dst.simple.gz"):
        recording = Recording(shared_recordings / "qemu-10.2.0-simple" / "precopy-busy-pages" / name)
        taken: list[int] = []

        class Watched(SimpleReader):
            def _count_run(self, size: int, taken: list[int] = taken) -> int:
                taken.append(super()._count_run(size))
                return taken[-1]

        found = batches_of(recording.data, 1 << 16, Watched)
        assert sum(taken) > found.total / 2


# --- against the log of the same run ------------------------------------------------------------------


def rows_of_log(path: Path, plan: Plan) -> list[Row]:
    reader = LogReader(plan, builtin().is_event, lambda _event, _raw: None)
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [row for batch in [*reader.feed(data), *reader.finish()] for row in batch.rows]


def check_against_log(recording: Recording, log: Path) -> None:
    """One process wrote both: the same events with the same arguments at the same times."""
    wanted = all_arguments(builtin())
    text, binary = TextDecoder(builtin(), wanted), BinaryDecoder(builtin(), wanted)
    clock = clock_of(Facts(readings=read_clock(recording.path.with_name("clock.json"))), "src.simple")
    plan = Plan(wanted)
    reader = SimpleReader(plan, builtin().is_event, lambda _e, _r: None, offset_ns=clock.offset_ns, declared=binary.saw)
    simple_rows = outcome([*reader.feed(recording.data), *reader.finish()], reader.gaps).rows
    log_rows = rows_of_log(log, plan)
    text.restore(binary.snapshot())  # The log names no versions; both were written by one.

    def events(rows: list[Row], decoder: TextDecoder | BinaryDecoder) -> Counter[object]:
        return Counter((row.event, decoder.decode(row.event, row.raw)) for row in rows)

    assert events(simple_rows, binary) == events(log_rows, text), recording.path
    by_time = [sorted(row.time_ns or 0 for row in rows) for rows in (simple_rows, log_rows)]
    assert max(abs(a - b) for a, b in zip(*by_time, strict=True)) < 30_000_000, recording.path


def logs_of(recording: Recording, folder: Path) -> list[Path]:
    stem = recording.path.name.split(".")[0]
    at = folder / recording.path.parts[-3].replace("-simple", "-log") / recording.path.parts[-2]
    return [path for path in (at / f"{stem}.log", at / f"{stem}.log.gz") if path.exists()]


def test_a_recording_and_the_log_of_the_same_run_agree(recordings: Path) -> None:
    for recording in recordings_in(recordings):
        (log,) = logs_of(recording, recordings)
        check_against_log(recording, log)


def test_all_recordings_and_the_logs_of_the_same_runs_agree(shared_recordings: Path) -> None:
    pairs = [(r, log) for r in recordings_in(shared_recordings) for log in logs_of(r, shared_recordings)]
    assert len(pairs) > 15
    for recording, log in pairs:
        check_against_log(recording, log)


@pytest.mark.parametrize("order", ["little", "big"])
def test_the_first_bytes_tell_a_simple_trace(order: str) -> None:
    magic = (0xF2B177CB0AA429B4).to_bytes(8, order)  # type: ignore[arg-type]
    assert is_simple(b"\xff" * 8 + magic + b"\x04")
    assert not is_simple(b"\xff" * 8 + magic[:-1])
    assert not is_simple(magic + b"\xff" * 8)
