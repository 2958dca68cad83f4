"""A reader that goes on from a snapshot gives what one that never stopped would have given."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from otelbridge.catalogue import builtin
from otelbridge.readers.log import MAX_LINE_BYTES, LogReader
from otelbridge.records import Batch, Plan

PLAN = Plan(rows={"migrate_set_state": ("new_state",), "savevm_section_end": (), "vmstate_downtime_load": ()})

MADE_UP = {
    "holes": b"7@1795407950.000001:migrate_set_state new state setup\n\0\0\0x\n7@1795407950.000002:ram_save_page x\n",
    "first stamp late": b"migrate_set_state new state setup\nram_save_page x\n7@1795407950.000001:savevm_section_end x\n",
    "spare stamp": b"2026-11-23T04:30:01Z migrate_set_state new state setup\n"
    b"2026-11-23T04:30:02Z 2026-11-23T04:30:03.5Z migrate_set_state new state active\nvmstate_downtime_load x\n",
    "no stamp after one": b"7@1795407950.000001:ram_save_page x\nmigrate_set_state new state setup\n",
    "bytes that are no text": b"7@1795407950.000001:migrate_set_state \xff\xfe\n",
    "torn end": b"7@1795407950.000001:migrate_set_state new state setup\n7@17954",
}


def fresh(**options: int) -> LogReader:
    return LogReader(PLAN, builtin().is_event, lambda _event, _raw: None, **options)  # type: ignore[arg-type]


def again(reader: LogReader, **options: int) -> LogReader:
    """Another reader, restored from the snapshot as it comes back from a file."""
    other = fresh(**options)
    other.restore(json.loads(json.dumps(reader.snapshot())))
    return other


def blocks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[i : i + size] for i in range(0, len(data), size))


def straight(data: bytes, size: int, **options: int) -> tuple[list[Batch], list[str]]:
    reader = fresh(**options)
    batches = [batch for block in blocks(data, size) for batch in reader.feed(block)]
    return batches + reader.finish(), reader.gaps


def interrupted(data: bytes, size: int, **options: int) -> tuple[list[Batch], list[str]]:
    """Stopped and restored after every block."""
    reader, batches = fresh(**options), []
    for block in blocks(data, size):
        batches += reader.feed(block)
        reader = again(reader, **options)
    return batches + reader.finish(), reader.gaps


@pytest.mark.parametrize("name", MADE_UP)
@pytest.mark.parametrize("size", [1, 7, 60])
def test_a_snapshot_after_every_block_changes_nothing(name: str, size: int) -> None:
    assert interrupted(MADE_UP[name], size) == straight(MADE_UP[name], size)


@pytest.mark.parametrize("size", [1, 50])
def test_assumed_times_go_on_where_they_were(size: int) -> None:
    data = b"migrate_set_state new state setup\nram_save_page x\n" * 20
    assert interrupted(data, size, assume_start_ns=10**18) == straight(data, size, assume_start_ns=10**18)


def test_an_overlong_line_stays_one_line() -> None:
    data = MADE_UP["torn end"] + b"x" * (MAX_LINE_BYTES + 10) + b"\n" + MADE_UP["no stamp after one"]
    assert interrupted(data, 300_000) == straight(data, 300_000)


@pytest.mark.parametrize(
    "path", ["debian-7.2/precopy-busy/src.log", "debian-7.2/two-vms-one-log/src.log", "qemu-10.2.0-log/precopy-busy/src.log"]
)
@pytest.mark.parametrize("size", [997, 20_000])
def test_a_snapshot_after_every_block_of_a_real_log_changes_nothing(recordings: Path, path: str, size: int) -> None:
    data = (recordings / path).read_bytes()
    assert interrupted(data, size) == straight(data, size)
