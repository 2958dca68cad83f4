"""The benchmark itself: it runs, what it says adds up, and what is missing is named."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tests.bench import inputs
from tests.bench.measuring import PROJECT, environment


def bench(tmp_path: Path, *arguments: str, path: str | None = None) -> tuple[str, str]:
    """What it writes to its file, and says on standard error."""
    results = tmp_path / "results.md"
    env = environment() | {"PATH": path or os.environ["PATH"]}
    command = [sys.executable, "-m", "tests.bench", "--rounds", "1", "--lines", "3000", "--results", str(results), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=PROJECT, timeout=300, check=False)
    return (results.read_text("utf-8") if results.exists() else ""), done.stderr


def rows(table: str) -> dict[str, list[str]]:
    """The cells of each contender."""
    found = (line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| "))
    return {cells[0]: cells[1:] for cells in found}


def test_a_table_tells_what_each_took_and_that_nothing_was_lost(tmp_path: Path) -> None:
    results, said = bench(tmp_path, "--only", "page-heavy", "--only", "otelbridge")
    table = rows(results)
    assert list(table) == [
        "contender", "grep -c", "otelbridge to file", "otelbridge over gRPC", "otelbridge over HTTP, gzip"
    ], said  # fmt: skip
    assert len({cells[6] for name, cells in table.items() if name.startswith("otelbridge")}) == 1
    assert all(cells[7] == "0" for name, cells in table.items() if name.startswith("otelbridge"))
    assert "- kernel: " in results


def test_a_program_that_is_not_installed_is_a_named_gap(tmp_path: Path) -> None:
    (tmp_path / "grep").symlink_to("/usr/bin/grep")
    results, said = bench(tmp_path, "--only", "span-rich", "--only", "mtail", path=str(tmp_path))
    assert rows(results)["mtail"][0].startswith("not installed: apt install mtail"), said


def test_a_contender_that_there_is_not_is_refused(tmp_path: Path) -> None:
    assert "--only logstash: there is nothing of this name; there are page-heavy, " in bench(tmp_path, "--only", "logstash")[1]


def test_a_log_of_ones_own_is_measured_by_its_own_most_frequent_event(tmp_path: Path) -> None:
    log = PROJECT / "tests/recordings/debian-7.2/multifd/src.log"
    results, said = bench(tmp_path, "--input", str(log), "--only", "to file")
    assert rows(results)["grep -c"][0] == rows(results)["otelbridge to file"][0] == "2,089", said
    assert inputs.given(log).event == "multifd_send"


@pytest.mark.parametrize("make", [inputs.page_heavy, inputs.span_rich, inputs.postcopy])
def test_inputs_are_as_long_as_asked_for_and_their_time_never_goes_far_back(make: object) -> None:
    assert callable(make)
    lines = make(50_000).path.read_bytes().splitlines()
    times = [float(line.split(b"@")[1].split(b":")[0]) for line in lines]
    assert len(lines) == 50_000
    assert all(later >= earlier - 0.001 for earlier, later in pairwise(times))
