"""What Kubernetes or a container's tool puts in front of every line is taken away; the event's own stamp is its time."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from otelbridge.catalogue import builtin
from otelbridge.readers.fronts import FrontReader, front_of
from otelbridge.readers.log import MAX_LINE_BYTES, LogReader
from otelbridge.records import Batch, Plan, Row
from tests.convert.command import run


@pytest.mark.parametrize("log", ["debian-7.2/precopy-busy", "qemu-10.2.0-log/precopy-busy"])
@pytest.mark.parametrize(
    "front",
    [b"2026-11-23T04:26:05.397527123Z ", b"2026-11-23T04:26:05Z ", b"2026-11-23T04:26:05.397527123Z stderr F ", b"vm1  | "],
)
def test_a_front_changes_nothing(recordings: Path, tmp_path: Path, log: str, front: bytes) -> None:
    text = (recordings / log / "src.log").read_bytes()
    outputs = []
    for name, lines in (("bare", text), ("front", b"".join(front + line for line in text.splitlines(keepends=True)))):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "src.log").write_bytes(lines)
        assert run("convert", folder / "src.log", "--to", f"file:{folder / 'out'}").code == 0
        outputs.append((folder / "out" / "traces.jsonl").read_bytes())
    assert outputs[0] == outputs[1]


def test_a_byte_order_mark_is_no_damage(recordings: Path, tmp_path: Path) -> None:
    (tmp_path / "src.log").write_bytes(b"\xef\xbb\xbf" + (recordings / "debian-7.2/precopy-busy/src.log").read_bytes())
    assert run("convert", tmp_path / "src.log", "--to", f"file:{tmp_path / 'out'}").code == 0


FRONT = b"2026-11-23T04:26:05.397527123Z stderr F "


def front_reader() -> FrontReader:
    is_event = builtin().is_event
    plan = Plan(rows={"savevm_section_start": ("idstr",), "migrate_set_state": ("new_state",)})
    front = front_of(FRONT + b"19625@1795407950.847563:migrate_set_state new state setup\n", is_event)
    return FrontReader(LogReader(plan, is_event, lambda _event, _raw: None), front)


def summed(batches: list[Batch]) -> tuple[list[Row], Counter[str], Counter[str], int]:
    counts: Counter[str] = Counter()
    units: Counter[str] = Counter()
    for batch in batches:
        counts.update(batch.counts)
        units.update(batch.units)
    return [row for batch in batches for row in batch.rows], counts, units, sum(batch.total for batch in batches)


@pytest.mark.parametrize("size", [5, 39, 40, 41, 65_536])
@pytest.mark.parametrize("restarted", [False, True])
def test_no_cut_of_the_input_and_no_restart_matters(recordings: Path, size: int, *, restarted: bool) -> None:
    lines = (recordings / "debian-7.2/tls-ok/src.log").read_bytes().splitlines(keepends=True)[:120]
    # With a line that has nothing in front of it, as one that was written by hand, and one that is too long to be kept.
    lines[50:50] = [b"x" * (MAX_LINE_BYTES + 10) + b"\n"] if size == 65_536 else []
    text = b"".join(FRONT + line if n != 30 else line for n, line in enumerate(lines))
    whole = front_reader()
    expected = summed([*whole.feed(text), *whole.finish()])
    reader, batches = front_reader(), []
    for start in range(0, len(text), size):
        batches += reader.feed(text[start : start + size])
        if restarted:
            state = json.loads(json.dumps(reader.snapshot()))
            reader = front_reader()
            reader.restore(state)
    batches += reader.finish()
    assert summed(batches) == expected
    assert expected[2]["torn"] == 0
    assert expected[3] == len(lines)
