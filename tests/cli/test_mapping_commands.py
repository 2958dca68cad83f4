"""`otelbridge mapping check` and `otelbridge mapping test`: what they say of good files and of bad ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.convert.command import call

GOOD = """\
version: 1
scope: example.postcopy

spans:
  example.start:
    begin: postcopy_start
    end: postcopy_start_set_run
    key: [thread]

tests:
  - name: one start
    events: |
      7@1795408240.100000:postcopy_start{blank}
      7@1795408240.350000:postcopy_start_set_run{blank}
    expect:
      spans: [{{name: example.start, duration: {duration}}}]
"""
BAD = """\
version: 1
scope: example.postcopy
spans:
  example.first:
    begin: postcopy_strat
    end: postcopy_start_set_run
  example.second:
    begin: postcopy_start
    end: postcopy_start_set_run
    attributes: {page: end.page}
  example.third:
    begn: postcopy_start
    end: postcopy_start_set_run
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD.format(blank=" ", duration="250ms"))
    return path


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    path = tmp_path / "failing.yaml"
    path.write_text(GOOD.format(blank=" ", duration="999ms"))
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    return path


def test_check_counts_what_is_in_a_good_file(good: Path) -> None:
    done = call("mapping", "check", good)
    assert (done.code, done.out, done.err) == (0, "1 file, 1 rule, 1 test: no problems.\n", "")


def test_check_shows_every_problem_with_its_place(bad: Path) -> None:
    done = call("mapping", "check", bad)
    assert done.code == 3
    assert done.out == ""
    places = [line.split(": error: ")[0] for line in done.err.splitlines() if ": error: " in line]
    numbers = [int(place.removeprefix(f"{bad}:").split(":")[0]) for place in places]
    assert {5, 10, 12} <= set(numbers)
    assert numbers == sorted(numbers)
    assert "postcopy_start'" in done.err
    assert "did you mean" in done.err
    assert "begin: postcopy_strat" in done.err
    assert "^^^^" in done.err


def test_check_takes_folders(good: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no mapping")
    done = call("mapping", "check", good.parent)
    assert done.code == 0, done.err
    assert done.out.startswith("1 file")


def test_problems_of_several_files_come_together(good: Path, bad: Path, tmp_path: Path) -> None:
    worse = tmp_path / "worse.yaml"
    worse.write_text("version: 1\nspans: [1, 2")
    done = call("mapping", "check", good, bad, worse)
    assert done.code == 3
    assert f"{bad}:5:" in done.err
    assert f"{worse}:" in done.err


def test_check_knows_only_the_events_of_a_catalogue_that_is_given(good: Path, tmp_path: Path) -> None:
    catalogue = tmp_path / "trace-events-all"
    catalogue.write_text('# mine\npostcopy_start(void) ""\npostcopy_start_set_run(void) ""\nnonsense here\n')
    done = call("mapping", "check", good, "--catalogue", catalogue)
    assert done.code == 0, done.err
    assert "note: " in done.err
    assert "nonsense here" in done.err


@pytest.mark.parametrize("command", ["check", "test"])
def test_a_missing_file_is_said(command: str, tmp_path: Path) -> None:
    done = call("mapping", command, tmp_path / "gone.yaml")
    assert done.code == 2
    assert "gone.yaml" in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize("command", ["check", "test"])
def test_a_file_must_be_named(command: str) -> None:
    done = call("mapping", command)
    assert done.code == 2
    assert "PATHS" in done.err
    assert len(done.err.splitlines()) == 1


def test_test_names_each_test_with_its_place(good: Path) -> None:
    done = call("mapping", "test", good)
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == f"ok     {good}:11: one start"
    assert done.out.splitlines()[-1] == "1 test, 0 failed."


def test_a_failing_test_says_what_was_expected_and_what_came(good: Path, failing: Path) -> None:
    failing.write_text(failing.read_text().replace("example.", "another."))
    done = call("mapping", "test", good, failing)
    assert done.code == 3
    lines = done.out.splitlines()
    assert f"FAILED {failing}:11: one start" in lines
    assert f"ok     {good}:11: one start" in lines
    told = "\n".join(lines[lines.index(f"FAILED {failing}:11: one start") :])
    assert "999" in told
    assert "250" in told
    assert lines[-1] == "2 tests, 1 failed."


def test_tests_are_not_run_while_there_are_problems(good: Path, bad: Path) -> None:
    done = call("mapping", "test", good, bad)
    assert done.code == 3
    assert "ok " not in done.out
    assert f"{bad}:5:" in done.err


def test_a_file_without_tests_is_said(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    path.write_text(GOOD.split("tests:", maxsplit=1)[0])
    done = call("mapping", "test", path)
    assert (done.code, done.out) == (0, "There are no tests in these files.\n"), done.err


def test_shipped_mappings_pass_their_own_tests() -> None:
    done = call("mapping", "test", Path(__file__).parents[2] / "mappings")
    assert done.code == 0, done.out
    assert "FAILED" not in done.out
    assert done.out.splitlines()[-1].endswith(" tests, 0 failed.")


def test_escape_sequences_of_a_mapping_are_not_obeyed(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text('version: 1\nscope: "a\\e]0;x\\a"\nspans:\n  "b\\e[31m": {begin: "c\\e[2J"}\n')
    for command in ("check", "test"):
        done = call("mapping", command, path)
        assert done.code == 3
        assert "\x1b" not in done.err + done.out
        assert "\x07" not in done.err + done.out
