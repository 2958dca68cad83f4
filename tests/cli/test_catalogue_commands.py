"""`otelbridge catalogue show`, `diff` and `check`: held against QEMU's own trace-events files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.convert.command import call

# migration/trace-events of 7.2 and 8.2: the misspelling was mended in 8.1, an argument came in 8.2.
DECLARED_7_2 = (
    "migrate_transferred(uint64_t tranferred, uint64_t time_spent, uint64_t bandwidth, uint64_t size) "
    '"transferred %lu time_spent %lu bandwidth %lu max_size %ld"  # 3.1.0 - 8.0.0'
)


# --- show -------------------------------------------------------------------------------------------------


def test_an_event_is_shown_as_every_version_declares_it() -> None:
    done = call("catalogue", "show", "migrate_transferred")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert len(lines) == 3
    assert lines[-1] == DECLARED_7_2
    assert [line.rpartition("  # ")[2] for line in lines] == ["8.2.0 - 11.0-dev", "8.1.0", "3.1.0 - 8.0.0"]


def test_one_version_declares_an_event_once() -> None:
    done = call("catalogue", "show", "migrate_transferred", "--qemu-version", "7.2.22")
    assert done.out.splitlines() == [DECLARED_7_2]


@pytest.mark.parametrize("version", ["4.1", "10.2"])
def test_a_version_shows_what_its_file_declares(version: str, shared: Path) -> None:
    text = (shared / f"catalogs/{version}.0.trace-events").read_text("utf-8")
    declared = set(re.findall(r"^(?:disable )?(\w+)\(", text, re.MULTILINE))
    done = call("catalogue", "show", "--qemu-version", version)
    assert {line.partition("(")[0] for line in done.out.splitlines()} == declared


def test_what_is_shown_can_be_given_as_a_catalogue(tmp_path: Path) -> None:
    path = tmp_path / "trace-events"
    shown = call("catalogue", "show", "--qemu-version", "7.2").out
    path.write_text("".join(line.rpartition("  # ")[0] + "\n" for line in shown.splitlines()))
    again = call("catalogue", "show", "migrate_set_state", "--catalogue", path)
    assert again.code == 0, again.err
    assert again.out.splitlines()[0] == 'migrate_set_state(const char *new_state) "new state %s"  # the file'
    assert call("catalogue", "check", path).err == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["migrate_set_sate"], "There is no event 'migrate_set_sate'; did you mean 'migrate_set_state'?"),
        (["frobnicate"], "There is no event 'frobnicate'; the names are in QEMU's trace-events files"),
        (["virtio_queue_notify"], "Of 'virtio_queue_notify' only the name is known"),
        (["vmstate_downtime_checkpoint", "--qemu-version", "7.2"], "QEMU 7.2.0 has no event 'vmstate_downtime_checkpoint'"),
        (["--qemu-version", "2.12"], "older than 3.1.0"),
        (["--catalogue", "gone"], "The catalogue 'gone' cannot be read"),
    ],
)
def test_what_cannot_be_shown_is_said(arguments: list[str], said: str) -> None:
    done = call("catalogue", "show", *arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


# --- diff -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new"), [("3.1", "4.1"), ("4.1", "7.2"), ("7.2", "8.0"), ("9.2", "10.2"), ("10.2", "4.1")])
def test_a_difference_is_that_of_the_files(old: str, new: str, shared: Path) -> None:
    before, after = (
        set(re.findall(r"^(?:disable )?(\w+)\(", (shared / f"catalogs/{v}.0.trace-events").read_text("utf-8"), re.MULTILINE))
        for v in (old, new)
    )
    done = call("catalogue", "diff", old, new)
    assert (done.code, done.err) == (0, "")
    names = {sign: {line[2:].partition("(")[0] for line in done.out.splitlines() if line[:2] == f"{sign} "} for sign in "+-<>"}
    assert names["+"] == after - before
    assert names["-"] == before - after
    assert names["<"] == names[">"] <= before & after
    counts = f"{len(names['+'])} added, {len(names['-'])} removed, {len(names['<'])} changed."
    assert done.out.splitlines()[-1] == f"QEMU {old}.0 to {new}.0: {counts}"


def test_a_changed_event_is_shown_before_and_after() -> None:
    lines = call("catalogue", "diff", "8.0", "8.1").out.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("< migrate_transferred("))
    assert "tranferred," in lines[place]
    assert lines[place + 1].startswith("> migrate_transferred(uint64_t transferred,")


def test_a_version_has_no_difference_to_itself() -> None:
    assert call("catalogue", "diff", "7.2", "7.2.5").out == "QEMU 7.2.0 to 7.2.0: 0 added, 0 removed, 0 changed.\n"


def test_what_is_no_version_is_said() -> None:
    done = call("catalogue", "diff", "7.2", "new")
    assert (done.code, done.out) == (2, "")
    assert "'new' is no QEMU version" in done.err


# --- check ------------------------------------------------------------------------------------------------


def declarations(version: str) -> str:
    shown = call("catalogue", "show", "--qemu-version", version).out
    return "".join(line.rpartition("  # ")[0] + "\n" for line in shown.splitlines())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "trace-events-all"
    path.write_text(declarations("10.2"))
    return path


def test_a_rule_whose_begin_is_gone_can_never_fire(file: Path) -> None:
    file.write_text("".join(line for line in file.read_text().splitlines(True) if not line.startswith("savevm_section_start(")))
    done = call("catalogue", "check", file)
    assert done.code == 3
    assert (
        "span savevm.section (savevm.yaml) can never fire: its begin lacks savevm_section_start (QEMU 3.1.0 - 11.0-dev)"
        in done.out.splitlines()
    )


def test_what_can_never_fire_comes_before_what_is_only_less(file: Path) -> None:
    gone = ("migrate_set_state(", "migration_cancel(")
    file.write_text("".join(line for line in file.read_text().splitlines(True) if not line.startswith(gone)))
    lines = call("catalogue", "check", file).out.splitlines()
    assert lines[0].startswith("machine migration (migration.yaml) can never fire: its states lacks migrate_set_state")
    place = next(number for number, line in enumerate(lines) if line.startswith("migration_cancel "))
    assert not any("can never fire:" in line for line in lines[place:])
    assert "the rules do without: event of migration" in lines[place]


def test_changed_arguments_are_told_with_what_rules_read_of_them(file: Path) -> None:
    text = file.read_text().replace(
        "savevm_section_end(const char *id, unsigned int section_id, int ret)",
        "savevm_section_end(const char *id, unsigned int section_id, int code)",
    )
    file.write_text(text)
    done = call("catalogue", "check", file)
    (line,) = [line for line in done.out.splitlines() if line.startswith("savevm_section_end is declared otherwise")]
    assert "rules read ret, which it does not have: end of savevm.section" in line
    assert (
        '  here:  savevm_section_end(const char *id, unsigned int section_id, int code) "%s, section_id %u -> %d"' in done.out
    )


def test_real_files_are_checked(shared: Path) -> None:
    old = call("catalogue", "check", shared / "catalogs/4.1.0.trace-events-all")
    assert old.code == 3
    assert "span tls.handshake.multifd (tls.yaml) can never fire" in old.out
    assert not any(" can never fire" in line and "(QEMU 3.1.0 - 11.0-dev)" in line for line in old.out.splitlines()[:-1])


def test_a_rule_of_ones_own_is_checked_too(file: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("version: 1\nscope: my\nmetrics:\n  my.old: {counter: migrate_pending, unit: '{block}'}\n")
    done = call("catalogue", "check", file, "--mapping", mine)
    assert done.code == 3
    assert f"metric my.old ({mine}) can never fire: what feeds it lacks migrate_pending" in done.out


def test_a_rule_of_which_all_is_there_can_work(tmp_path: Path) -> None:
    """The events of all versions together leave nothing to wish for."""
    newest: dict[str, str] = {}
    for line in call("catalogue", "show").out.splitlines():
        newest.setdefault(line.partition("(")[0], line.rpartition("  # ")[0])
    path = tmp_path / "trace-events-all"
    path.write_text("\n".join(newest.values()) + "\n")
    done = call("catalogue", "check", path)
    assert (done.code, done.err) == (0, "")
    assert re.fullmatch(r"\d+ events of the rules declared, 0 lacking, 0 changed; 0 rules can never fire\.\n", done.out)


def test_bad_files_are_said(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("nothing here\n")
    assert call("catalogue", "check", empty).code == 3
    done = call("catalogue", "check", tmp_path / "gone")
    assert (done.code, done.out) == (2, "")
    assert "gone' cannot be read" in done.err


def test_escape_sequences_of_a_catalogue_are_not_obeyed(tmp_path: Path) -> None:
    path = tmp_path / "trace-events"
    path.write_text(
        'my_event(const char *a) "\\033[31m%s"\nmigrate_set_state(const char *n) "\\033]0;%s"\nju\x07nk \x1b[2J here\n'
    )
    for command in (["show", "my_event", "--catalogue"], ["check"]):
        done = call("catalogue", *command, path)
        assert "\x1b" not in done.out + done.err
        assert "\x07" not in done.out + done.err
