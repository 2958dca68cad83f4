"""Several QEMU processes that write into one file."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from otelbridge.engine.processes import Processes, two_sided
from otelbridge.records import Row
from tests.engine.builders import RECORDINGS, Live, attribute, batches, length_ms, lines, shipped, text_of, threadless

TWO_VMS = RECORDINGS / "debian-7.2" / "two-vms-one-log"


def rows(data: bytes) -> list[Row]:
    return [row for batch in batches(shipped(), [data]) for row in batch.rows]


def assigned(given: Iterable[Row], processes: Processes) -> list[int]:
    return [processes.of(row) for row in given]


def split(data: bytes) -> list[Live]:
    """An engine for each process, fed with its rows alone."""
    processes = Processes()
    engines: list[Live] = []
    for batch in batches(shipped(), [data]):
        of = assigned(batch.rows, processes)
        engines += [Live(shipped(), name=f"p{n}") for n in range(len(engines), len(processes))]
        for number, live in enumerate(engines):
            mine = [row for row, owner in zip(batch.rows, of, strict=True) if owner == number]
            live.feed(batch._replace(rows=mine, counts={}, sums={}, units={}, total=len(mine)))
    for live in engines:
        live.finish()
    return engines


def test_two_sources_in_one_log_are_two_migrations_as_long_as_qmp_says() -> None:
    """QMP's `total-time` is the outside truth; it differs enough between the two to see threads that went astray."""
    truth = json.loads((TWO_VMS / "truth.json").read_text())["vms"]
    engines = split((TWO_VMS / "src.log").read_bytes())
    assert len(engines) == 2
    for vm, live in zip(("srcA", "srcB"), engines, strict=True):
        (root,) = [s for s in live.spans if s.name == "migration"]
        said = truth[vm]["final"]["query-migrate"]
        assert attribute(root, "qemu.migration.role") == "source"
        assert attribute(root, "qemu.migration.state") == "completed"
        assert length_ms(root) == pytest.approx(said["total-time"], abs=8)
        assert len([s for s in live.spans if s.name == "ram.bitmap_sync"]) == said["ram"]["dirty-sync-count"]
        assert [s.name for s in live.spans if ("otelbridge.incomplete", True) in s.attributes] == []


def test_two_destinations_in_one_log_are_two_migrations() -> None:
    engines = split((TWO_VMS / "dst.log").read_bytes())
    roots = [[s for s in live.spans if s.name == "migration"] for live in engines]
    assert [len(found) for found in roots] == [1, 1]
    assert {attribute(found[0], "qemu.migration.role") for found in roots} == {"destination"}
    assert len({found[0].trace_id for found in roots}) == 2


@pytest.mark.parametrize("path", [p for p in sorted(RECORDINGS.glob("*/*/*.log*")) if p.parent != TWO_VMS], ids=lambda p: str(
    p.relative_to(RECORDINGS)))  # fmt: skip
def test_every_other_recording_is_one_process(path: Path) -> None:
    """Its main thread, its migration thread, its channels: no matter how many threads it has."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if b"@" not in data.split(b"\n", 1)[0]:
        data = data if data[:2] == b"20" else b"".join(b"1@10.000000:" + line + b"\n" for line in data.splitlines())
    processes = Processes()
    assigned(rows(data), processes)
    assert len(processes) == 1


def test_a_source_and_a_destination_in_one_log_are_two_processes() -> None:
    log = lines(
        (10.0, 1, "migrate_set_state new state setup"),
        (10.1, 2, "migration_socket_incoming_accepted "),
        (10.2, 2, "migrate_set_state new state active"),
        (10.3, 3, "savevm_section_start ram, section_id 2"),
        (10.4, 2, "loadvm_state_setup "),
        (10.5, 3, "migrate_set_state new state completed"),
        (10.6, 2, "migrate_set_state new state completed"),
    )
    processes = Processes()
    assert assigned(rows(text_of(log)), processes) == [0, 1, 1, 0, 1, 0, 1]
    assert processes.role(1) == "destination"


def test_one_process_that_migrates_again_stays_one() -> None:
    """Its main thread is the same, its migration thread is a new one."""
    once = [(10.0, 1, "migrate_set_state new state setup"), (10.1, 2, "migrate_set_state new state active"),
            (10.2, 2, "migrate_set_state new state cancelled")]  # fmt: skip
    again = [(20.0, 1, "migrate_set_state new state setup"), (20.1, 3, "migrate_set_state new state active"),
             (20.2, 3, "migrate_set_state new state completed")]  # fmt: skip
    assert assigned(rows(text_of(lines(*once, *again))), Processes()) == [0] * 6


def test_a_postcopy_that_is_taken_up_again_by_another_thread_stays_one() -> None:
    """The monitor's thread sets the state when a paused migration goes on."""
    log = lines(
        (10.0, 1, "migration_socket_incoming_accepted "),
        (10.1, 1, "migrate_set_state new state active"),
        (10.2, 2, "postcopy_ram_fault_thread_entry "),
        (10.3, 1, "migrate_set_state new state postcopy-paused"),
        (10.4, 3, "migrate_set_state new state setup"),
        (10.5, 2, "migrate_set_state new state completed"),
    )
    assert set(assigned(rows(text_of(log)), Processes())) == {0}


def test_without_threads_all_is_one_process() -> None:
    log = lines((10.0, 1, "migrate_set_state new state setup"), (10.1, 2, "migration_socket_incoming_accepted "))
    data = text_of(threadless(log))
    processes = Processes()
    assert set(assigned(rows(data), processes)) == {0}
    assert len(processes) == 1


@pytest.mark.parametrize("name", ["src.log", "dst.log"])
def test_a_restored_assignment_goes_on_as_if_nothing_had_been(name: str) -> None:
    """Snapshot, JSON, restore after every row."""
    given = rows((TWO_VMS / name).read_bytes())
    whole = assigned(given, Processes())
    processes, found = Processes(), []
    for row in given:
        found.append(processes.of(row))
        saved = json.dumps(processes.snapshot())
        processes = Processes()
        processes.restore(json.loads(saved))
        assert json.dumps(processes.snapshot()) == saved
    assert found == whole


def test_a_quick_look_finds_the_sides_whose_setup_is_traced() -> None:
    assert two_sided((TWO_VMS / "src.log").read_bytes(), set()) == {"source"}
    assert two_sided((TWO_VMS / "dst.log").read_bytes(), {"source"}) == {"destination"}
    assert two_sided(b"1@10.000000:migrate_fd_cancel \n", set()) == set()
