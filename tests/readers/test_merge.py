"""The files of a QEMU's threads as one stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from otelbridge.catalogue import builtin
from otelbridge.readers.log import LogReader
from otelbridge.readers.merge import merged
from otelbridge.records import Batch, Plan, Row

PLAN = Plan(rows={"migrate_set_state": ("new_state",), "savevm_section_start": (), "savevm_section_end": ()})


def part(text: bytes, thread: int, size: int = 1 << 18, **options: int) -> Iterator[Batch]:
    reader = LogReader(PLAN, builtin().is_event, lambda _event, _raw: None, thread=thread, **options)  # type: ignore[arg-type]
    for start in range(0, len(text), size):
        yield from reader.feed(text[start : start + size])
    yield from reader.finish()


def rows(batches: list[Batch]) -> list[Row]:
    return [row for batch in batches for row in batch.rows]


def test_rows_of_all_files_come_in_the_order_of_time_a_batch_for_each_window() -> None:
    one = (
        b"2026-11-23T04:30:01.1Z migrate_set_state new state setup\n"
        b"2026-11-23T04:30:01.3Z ram_save_page x\n"
        b"2026-11-23T05:30:03.5Z migrate_set_state new state completed\n"
    )
    two = (
        b"hello\n"
        b"2026-11-23T04:30:01.2Z savevm_section_start ram, section_id 2\n"
        b"2026-11-23T04:30:01.3Z ram_save_page x\n"
        b"2026-11-23T05:20:02.1Z savevm_section_end ram, section_id 2 -> 0\n"
    )
    batches = list(merged([part(one, 11), part(two, 12)]))
    assert [(row.thread, row.event) for row in rows(batches)] == [
        (11, "migrate_set_state"),
        (12, "savevm_section_start"),
        (12, "savevm_section_end"),
        (11, "migrate_set_state"),
    ]
    timed = [batch for batch in batches if batch.window_ns is not None]
    assert len(timed) == 3
    assert timed[0].counts == {"ram_save_page": 2}
    assert sum(batch.total for batch in batches) == 7
    assert sum((Counter(batch.units) for batch in batches), Counter[str]()) == {"not_trace": 1}


def test_files_of_a_real_qemu_together_are_its_log(shared_recordings: Path) -> None:
    """However each was cut into blocks: the rows sorted by time, and every line accounted for."""
    paths = sorted((shared_recordings / "debian-7.2" / "log-per-thread").glob("src-*.log"))
    assert len(paths) == 3
    texts = [path.read_bytes() for path in paths]
    expected = sorted((row for text in texts for row in rows(list(part(text, 0)))), key=lambda row: row.time_ns or 0)
    for size in (500, 1 << 18):
        batches = list(merged([part(text, 0, size) for text in texts]))
        assert rows(batches) == expected
        assert sum(batch.total for batch in batches) == sum(text.count(b"\n") for text in texts)
        windows = [batch.window_ns for batch in batches if batch.window_ns is not None]
        assert windows == sorted(set(windows))
