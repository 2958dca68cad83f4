"""`otelbridge mapping explain` on real logs: what it says is what stands in the lines."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.convert.command import call

BUSY = Path(__file__).parents[1] / "recordings" / "debian-7.2" / "precopy-busy"
SRC, DST = BUSY / "src.log", BUSY / "dst.log"
PAGES = Path(__file__).parents[1] / "recordings" / "debian-7.2" / "precopy-busy-pages" / "src.log.gz"
STOPPED_LINE = "19984@1795407984.314216:migration_completion_vm_stop ret 0"
COMPLETED_LINE = "19984@1795407984.408138:migrate_set_state new state completed"
STOPPED, COMPLETED = "2026-11-23 04:26:24.314216 UTC", "2026-11-23 04:26:24.408138 UTC"
UNSTAMPED = "savevm_section_start ram, section_id 2\nsavevm_section_end ram, section_id 2 -> 0\n"


def line_of(text: str) -> int:
    return SRC.read_text("utf-8").splitlines().index(text) + 1


def stamp(event: str) -> str:
    """The first stamp of an event in the source's log, as it stands there."""
    found = re.search(rf"^\d+@(\d+\.\d+):{event}\b", SRC.read_text("utf-8"), re.MULTILINE)
    assert found is not None
    return found[1]


def test_an_end_names_the_span_that_it_ended() -> None:
    done = call("mapping", "explain", SRC, "--event", "migrate_set_state")
    assert (done.code, done.err) == (0, "")
    last = done.out.split("\n\n")[-1]
    assert last.startswith(
        f"{SRC}:{line_of(COMPLETED_LINE)}: {COMPLETED}, thread 19984\n  migrate_set_state new state completed\n"
    )
    assert "  arguments: new_state = completed\n" in last
    assert "  migration.downtime (migration.yaml), as end: it ended a span\n" in last
    assert '    when new_state in ["completed", "failed", "cancelled"]: yes\n' in last
    assert f": migration.downtime, {STOPPED} to {COMPLETED}, 93.9 ms\n" in last
    assert "  migration (migration.yaml), as state: it entered the state 'completed' after 'active'\n" in last


def test_a_better_begin_tells_what_it_moved() -> None:
    done = call("mapping", "explain", SRC, "--event", "migration_completion_vm_stop")
    assert done.code == 0, done.err
    assert "migration.downtime (migration.yaml), as begin: it moved the begin of the open span" in done.out
    assert "open before: 1" in done.out


def test_events_that_went_the_same_way_are_shown_once() -> None:
    done = call("mapping", "explain", SRC, "--event", "savevm_section_end")
    count = SRC.read_bytes().count(b":savevm_section_end ")
    assert f"  {count} such events went this way; this is the first.\n" in done.out
    assert done.out.count("arguments:") == 1
    assert "    key: thread = 19984, section_id = 2\n" in done.out


@pytest.mark.parametrize("form", ["{}", "19984@{}:", "iso", "waterfall"])
def test_a_time_is_taken_as_it_is_found(form: str) -> None:
    seconds = stamp("migration_completion_vm_stop")
    written = {"iso": "2026-11-23T04:26:24.314216Z", "waterfall": STOPPED}.get(form, form.format(seconds))
    done = call("mapping", "explain", SRC, "--at", written)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{SRC}:{line_of(STOPPED_LINE)}: {STOPPED}, thread 19984\n  migration_completion_vm_stop")


def test_a_time_stands_for_all_that_begins_like_it() -> None:
    """The waterfall prints milliseconds."""
    done = call("mapping", "explain", SRC, "--at", "2026-11-23 04:26:24.314 UTC")
    told = re.findall(r"^\S+: 2026-11-23 04:26:24\.(\d+) UTC", done.out, re.MULTILINE)
    there = re.findall(r"^\d+@1795407984\.(314\d+):", SRC.read_text("utf-8"), re.MULTILINE)
    assert told == sorted(there)


def test_a_time_at_which_nothing_was_gives_what_is_nearest() -> None:
    done = call("mapping", "explain", SRC, "--at", "2026-11-23T04:26:24.5Z")
    assert (done.code, done.out) == (2, "")
    lines = done.err.splitlines()
    assert lines[0] == "otelbridge: There is no event at 2026-11-23T04:26:24.5Z; the nearest are:"
    assert any("migrate_set_state" in line or "qemu_file_fclose" in line for line in lines[1:])
    assert any("04:26:24.761978 UTC  migrate_fd_cancel" in line for line in lines[1:])


def test_a_span_is_found_by_its_id(tmp_path: Path) -> None:
    assert call("convert", SRC, DST, "--to", f"file:{tmp_path}").code == 0
    spans = [
        span
        for line in (tmp_path / "traces.jsonl").read_text("utf-8").splitlines()
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
        if span["name"] == "ram.bitmap_sync"
    ]
    done = call("mapping", "explain", SRC, DST, "--span", spans[3]["spanId"])
    assert (done.code, done.err) == (0, "")
    assert "ram.bitmap_sync (ram.yaml), as begin: it began a span" in done.out
    assert "ram.bitmap_sync (ram.yaml), as end: it ended a span" in done.out
    assert done.out.count(f"span {spans[3]['spanId']}: ram.bitmap_sync, ") == 2


def test_an_end_without_a_begin_says_what_was_open(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text(
        "7@10.000100:savevm_section_start ram, section_id 2\n"
        "7@10.000200:savevm_section_end vga, section_id 31 -> 0\n"
        "7@10.000300:savevm_section_end ram, section_id 2 -> 0\n"
        "7@10.000400:savevm_section_end ram, section_id 2 -> 0\n"
    )
    done = call("mapping", "explain", path, "--event", "savevm_section_end")
    other, ended, nothing = done.out.split("\n\n")
    assert "it ended nothing, no open span has this key" in other
    assert "key: thread = 7, section_id = 31" in other
    assert "(thread = 7, section_id = 2) since 1970-01-01 00:00:10.000100 UTC" in other
    assert "it ended a span" in ended
    assert "it ended nothing, no span of this rule was open" in nothing


def test_an_event_that_is_only_counted_is_told_so() -> None:
    done = call("mapping", "explain", PAGES, "--event", "ram_save_page")
    assert "20,774 such events" in done.out  # truth.json of the recording
    assert "It is only counted, for qemu.migration.pages; no span comes of it." in done.out


def test_an_event_at_a_time_needs_no_rule() -> None:
    done = call("mapping", "explain", SRC, "--at", stamp("qemu_file_fclose"))
    assert done.code == 0, done.err
    assert "  qemu_file_fclose" in done.out


def test_a_text_that_fits_no_declaration_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("7@10.000100:savevm_section_end what is this\n")
    done = call("mapping", "explain", path, "--event", "savevm_section_end")
    assert "Its text fits no declaration that is known" in done.out


def test_a_line_is_named_by_its_number_however_it_is_stamped(tmp_path: Path) -> None:
    """The number of a line is that of the whole text, not of a longer one that begins so."""
    path = tmp_path / "a.log"
    path.write_text(
        "2026-11-23T04:30:26.121409Z savevm_section_start ram, section_id 21\n"
        "nothing of QEMU\n"
        "2026-11-23T04:30:26.121409Z savevm_section_start ram, section_id 2\n"
        "2026-11-23T04:30:26.121500Z migration_return_path_end_before \n"
    )
    done = call("mapping", "explain", path, "--at", "2026-11-23T04:30:26.121409Z")
    assert re.findall(r"a\.log:(\d+): .*\n  .* (\d+)\n", done.out) == [("1", "21"), ("3", "2")]
    done = call("mapping", "explain", path, "--event", "migration_return_path_end_before")
    assert done.out.startswith(f"{path}:4: ")


def test_a_log_without_stamps_is_explained_too(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text(UNSTAMPED)
    done = call("mapping", "explain", path, "--event", "savevm_section_end")
    assert (done.code, done.err) == (0, "")
    assert "it ended a span" in done.out
    assert done.out.startswith(f"{path}: line 2\n")
    assert "savevm.section, line 1 to line 2\n" in done.out
    assert "1970" not in done.out


# --- what cannot be explained -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--event", "savevm_section_ned"], "There is no event 'savevm_section_ned'; did you mean 'savevm_section_end'?"),
        (["--event", "postcopy_start"], "'postcopy_start' never came in"),
        (["--at", "yesterday"], "--at 'yesterday' is no time"),
        (["--at", "2026-13-45T00:00:00Z"], "is no time"),
        (["--span", "0000000000000000"], "No span that goes out begins with --span '0000000000000000'"),
        (["--span", ""], "spans begin with --span ''; give more of it"),
        ([], "Give one of --at TIME, --event NAME and --span ID."),
        (["--at", "1", "--event", "migrate_set_state"], "Give one of"),
    ],
)
def test_what_is_wrong_is_said(arguments: list[str], said: str) -> None:
    done = call("mapping", "explain", SRC, *arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    done = call("mapping", "explain", tmp_path / "gone.log", "--event", "migrate_set_state")
    assert done.code == 2
    assert "gone.log" in done.err


def test_a_file_without_events_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("nothing of QEMU\n")
    done = call("mapping", "explain", path, "--event", "migrate_set_state")
    assert done.code == 4


def test_escape_sequences_of_a_log_are_not_obeyed(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("7@10.000100:savevm_section_start \x1b[31mram, section_id 2\n7@10.000200:migrate_fd_error \x1b]0;x\x07\n")
    for question in (["--event", "savevm_section_start"], ["--at", "10.000200"], ["--at", "11"]):
        done = call("mapping", "explain", path, *question)
        assert "\x1b" not in done.out + done.err
        assert "\x07" not in done.out + done.err
        assert "\\x1b" in done.out + done.err
