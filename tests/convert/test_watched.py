"""Somebody who watches the engine sees all of it and changes nothing."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from otelbridge.engine.tally import Tally
from otelbridge.otlp.file import FileSink
from otelbridge.pipeline import ConvertOptions, convert
from otelbridge.pipeline.watching import watch

RECORDINGS = Path(__file__).parents[1] / "recordings"
SCENARIOS = sorted(path.parent.relative_to(RECORDINGS) for path in RECORDINGS.glob("*/*/truth.json"))


def logs_of(scenario: Path) -> tuple[str, ...]:
    return tuple(str(path) for path in sorted((RECORDINGS / scenario).glob("*.log*")))


def options(scenario: Path, *to: str) -> ConvertOptions:
    # Some recordings are of a QEMU that wrote no stamps.
    return ConvertOptions(logs_of(scenario), to=to, assume_start_ns=1_000_000_000)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_what_comes_out_is_the_same(scenario: Path, tmp_path: Path) -> None:
    plain, watched = tmp_path / "plain", tmp_path / "watched"
    convert(options(scenario, f"file:{plain}"), env={}, progress=lambda _done, _size: None)
    sink = FileSink(watched)
    watch(options(scenario), Tally(), [sink], env={}, progress=lambda _done, _size: None)
    sink.close()
    for name in ("traces.jsonl", "metrics.jsonl"):
        assert (watched / name).read_bytes() == (plain / name).read_bytes()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_every_event_is_told_of(scenario: Path) -> None:
    """The counts are those that were made of the raw lines by other means, and those of the accounting."""
    tally = Tally()
    reports = watch(options(scenario), tally, env={}, progress=lambda _done, _size: None)
    tally.finish()
    truth = json.loads((RECORDINGS / scenario / "truth.json").read_text("utf-8"))
    raw: Counter[str] = Counter()
    for name in {Path(path).name.removesuffix(".gz") for path in logs_of(scenario)}:
        raw.update(truth["logs"][name]["events"])
    assert tally.came_up == Counter({event: raw[event] for event in tally.came_up})
    assert tally.came_up.total() == sum(report.account.events.total() for report in reports)
    # An end that another rule might have noted too is in no bucket of its own, but it ended nothing all the same.
    assert tally.orphaned.total() >= sum(report.account.buckets["orphan_end"] for report in reports)


def test_an_end_without_a_begin_is_an_orphan_whatever_else_might_use_it() -> None:
    """In QEMU 7.2 no event says that memory begins to be loaded, but one says that a part of it was."""
    scenario = Path("debian-7.2/cancelled")
    tally = Tally()
    watch(options(scenario), tally, env={}, progress=lambda _done, _size: None)
    tally.finish()
    events = json.loads((RECORDINGS / scenario / "truth.json").read_text("utf-8"))["logs"]["dst.log"]["events"]
    assert "ram_load_start" not in events
    assert tally.orphaned["ram_load_complete"] == events["ram_load_complete"]


def test_every_section_of_a_migration_is_paired() -> None:
    tally = Tally()
    watch(options(Path("debian-7.2/precopy-busy")), tally, env={}, progress=lambda _done, _size: None)
    tally.finish()
    # recordings/README.md: sec 207/207
    assert tally.paired["savevm_section_start"] == tally.paired["savevm_section_end"] == 207
    assert not tally.left_open
