"""`otelbridge mapping coverage`: what the rules do with each event, and what they could not use of a log."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from otelbridge.catalogue import builtin
from otelbridge.catalogue.trace_events import parse_trace_events
from otelbridge.mapping import compile_mappings, shipped_files
from tests.convert.command import call

RECORDINGS = Path(__file__).parents[1] / "recordings"
BUSY = RECORDINGS / "debian-7.2" / "precopy-busy"
SUMMARY = re.compile(r"(\d+) of (\d+) events( of QEMU \S+)?: rules use (\d+), (\d+) are left out on purpose\.")


def rows(out: str) -> dict[str, list[str]]:
    """The numbers of each event: came, paired, open, orphan, unmapped."""
    lines = [line.split() for line in out.splitlines()[1:-1]]
    return {words[5].rstrip(":"): words[:5] for words in lines}


@pytest.mark.parametrize(("version", "events"), [("4.1", 262), ("7.2", 316), ("10.2", 348)])
def test_the_events_of_a_version_are_all_there(version: str, events: int) -> None:
    """So many does QEMU's own catalogue of that version declare for migration."""
    done = call("mapping", "coverage", "--qemu-version", version)
    assert (done.code, done.err) == (0, "")
    *lines, last = done.out.splitlines()
    found = SUMMARY.fullmatch(last)
    assert found is not None, last
    covered, total, of, used, left_out = found.groups()
    assert int(total) == len(lines) - 1 == events
    assert int(covered) == int(used) + int(left_out)
    assert int(covered) == sum(not line.endswith(" nothing") for line in lines[1:])
    assert of is not None
    assert of.startswith(f" of QEMU {version}")


def test_each_use_is_one_of_the_rules() -> None:
    done = call("mapping", "coverage")
    (line,) = [line for line in done.out.splitlines() if line.startswith("vmstate_downtime_checkpoint ")]
    uses = line.split(maxsplit=1)[1].split(", ")
    assert {"begin of migration.downtime", "end of migration.downtime", "event in migration.downtime"} <= set(uses)
    assert len(uses) == len(set(uses))
    (line,) = [line for line in done.out.splitlines() if line.startswith("migration_bitmap_sync_end ")]
    # The pages are told by the end alone.
    assert line.split(maxsplit=1)[1].startswith("end of ram.bitmap_sync, attributes of ram.bitmap_sync, metric ")
    (line,) = [line for line in done.out.splitlines() if line.startswith("migration_bitmap_sync_start ")]
    assert "attributes of ram.bitmap_sync" not in line


def test_counts_are_those_of_the_lines() -> None:
    done = call("mapping", "coverage", BUSY / "src.log", BUSY / "dst.log")
    assert (done.code, done.err) == (0, "")
    found = rows(done.out)
    truth = json.loads((BUSY / "truth.json").read_text("utf-8"))["logs"]
    for event, numbers in found.items():
        came = truth["src.log"]["events"].get(event, 0) + truth["dst.log"]["events"].get(event, 0)
        assert numbers[0] == str(came or "-"), event
    assert found["savevm_section_start"] == ["207", "207", "-", "-", "-"]


def test_the_biggest_hole_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text(
        "7@10.000100:savevm_section_start ram, section_id 2\n"
        + "7@10.000200:savevm_section_end vga, section_id 31 -> 0\n" * 3
        + "7@10.000300:migration_bitmap_sync_start \n7@10.000400:migration_bitmap_sync_end dirty_pages 7\n"
    )
    done = call("mapping", "coverage", path)
    ranked = rows(done.out)
    assert list(ranked)[:2] == ["savevm_section_end", "savevm_section_start"]
    assert ranked["savevm_section_end"] == ["3", "-", "-", "3", "-"]
    assert ranked["savevm_section_start"] == ["1", "-", "1", "-", "-"]
    assert ranked["migration_bitmap_sync_end"] == ["1", "1", "-", "-", "-"]


def test_a_text_that_fits_no_declaration_is_a_hole(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("7@10.000100:savevm_section_start what is this\n7@10.000200:migrate_set_state new state setup\n")
    first = call("mapping", "coverage", path).out.splitlines()[1]
    assert "savevm_section_start: 1 with a text that fits no declaration; begin of savevm.section" in first


def test_pages_that_are_requested_without_an_answer_are_a_hole() -> None:
    """Only the requests were switched on in this recording, not what places the pages."""
    folder = RECORDINGS / "qemu-10.2.0-log" / "postcopy"
    done = call("mapping", "coverage", *sorted(folder.glob("*.log*")))
    came, paired, left_open, *_ = rows(done.out)["postcopy_ram_fault_thread_request"]
    assert (paired, came) == ("-", left_open)
    assert (
        int(came)
        == json.loads((folder / "truth.json").read_text("utf-8"))["logs"]["dst.log"]["events"][
            "postcopy_ram_fault_thread_request"
        ]
    )


def test_a_mapping_of_ones_own_fills_a_hole(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    event = "colo_send_message"
    mine.write_text(f"version: 1\nscope: my.colo\nmetrics:\n  my.messages: {{counter: {event}, unit: '{{message}}'}}\n")
    done = call("mapping", "coverage", "--mapping", mine)
    (line,) = [line for line in done.out.splitlines() if line.startswith(f"{event} ")]
    assert "metric my.messages" in line


def test_a_trace_events_file_tells_which_events_there_are(tmp_path: Path) -> None:
    path = tmp_path / "trace-events-all"
    text = (
        '# mine\nmigrate_set_state(const char *new_state) "new state %s"\nmy_event(void) ""\n'
        'virtio_queue_notify(void *vdev, int n) "vdev %p n %d"\n'
    )
    path.write_text(text)
    assert len(parse_trace_events(text, "").specs) == 3
    done = call("mapping", "coverage", "--catalogue", path)
    # An event of another part of QEMU is none of a migration mapping's business.
    assert [line.split()[0] for line in done.out.splitlines()[1:-1]] == ["my_event", "migrate_set_state"]
    assert done.out.splitlines()[-1].startswith("1 of 2 events: ")


def test_what_is_left_out_on_purpose_says_why(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("version: 1\nscope: my\nunmapped: {my_event: nobody asks for it}\n")
    catalogue = tmp_path / "trace-events-all"
    catalogue.write_text('my_event(void) ""\nmy_other_event(void) ""\n')
    log = tmp_path / "a.log"
    log.write_text("7@10.000100:my_event \n7@10.000200:my_other_event \n")
    done = call("mapping", "coverage", log, "--mapping", mine, "--catalogue", catalogue)
    assert (done.code, done.err) == (0, "")
    # What is left out on purpose is no hole, so the other one comes first.
    assert [line.split() for line in done.out.splitlines()[1:-1]] == [
        ["1", "-", "-", "-", "1", "my_other_event:", "nothing"],
        ["1", "-", "-", "-", "1", "my_event:", "left", "out:", "nobody", "asks", "for", "it"],
    ]
    assert done.out.splitlines()[-1] == "1 of 2 events: rules use 0, 1 are left out on purpose."


def test_only_what_is_left_out_or_used_counts_as_covered() -> None:
    mapping = compile_mappings(shipped_files(), builtin())
    done = call("mapping", "coverage")
    found = SUMMARY.fullmatch(done.out.splitlines()[-1])
    assert found is not None
    assert int(found[5]) == len(mapping.unmapped)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["gone.log"], 2, "gone.log"),
        (["--qemu-version", "soon"], 2, "--qemu-version 'soon' is no QEMU version"),
        (["--mapping", "gone.yaml"], 2, "gone.yaml"),
        (["--catalogue", "gone"], 2, "The catalogue 'gone' cannot be read"),
    ],
)
def test_what_is_wrong_is_said(
    arguments: list[str], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call("mapping", "coverage", *arguments)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
