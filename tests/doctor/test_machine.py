"""What is said of the machine: room for the outbox, the clock, how many files may be open."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from otelbridge.doctor import machine
from otelbridge.doctor.findings import Finding
from otelbridge.doctor.logs import LogFacts

NOW_S = 1795820000  # 2026-11-27 22:53:20 UTC


def of_outbox(folder: Path | None, limit_bytes: int = 1 << 20) -> Finding:
    return machine.outbox_finding(machine.look_at_outbox(folder, limit_bytes), "alice")


def test_a_folder_with_room_is_well_whether_it_is_there_or_not(tmp_path: Path) -> None:
    assert of_outbox(tmp_path).mark == "ok"
    found = of_outbox(tmp_path / "state" / "otelbridge")
    assert found.mark == "ok"
    assert "which will be made" in found.text
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_smaller_than_the_limit_is_a_warning(tmp_path: Path) -> None:
    found = of_outbox(tmp_path, 1 << 60)
    assert found.mark == "warning"
    assert "1 EiB" in found.text


def test_a_file_in_the_way_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    found = of_outbox(tmp_path / "state" / "otelbridge")
    assert found.mark == "problem"
    assert f"'{tmp_path}/state' is no folder" in found.text


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root becomes nobody")
def test_a_folder_of_another_user_is_a_problem_that_names_the_right() -> None:
    command = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", sys.executable, "-m")
    env = {**os.environ, "STATE_DIRECTORY": "/etc/otelbridge"}
    done = subprocess.run(
        [*command, "otelbridge", "doctor", "--json", "--qemu", "/bin/true"],
        env=env,
        check=False,
        capture_output=True,
        timeout=60,
    )
    (found,) = [finding for finding in json.loads(done.stdout)["findings"] if finding["about"] == "outbox"]
    lacking = "'/etc' cannot be written to (the right 'w' is missing; it is of root:root, mode 0755)"
    assert found["mark"] == "problem"
    assert found["text"] == f"nobody cannot keep the outbox in '/etc/otelbridge': {lacking}"
    assert "give it to the service's user" in found["help"]


def test_no_folder_at_all_names_the_variables() -> None:
    found = of_outbox(None)
    assert found.mark == "problem"
    assert "STATE_DIRECTORY" in found.help


@pytest.mark.parametrize(
    ("now_s", "synchronised", "local", "newest_s", "marks"),
    [
        (NOW_S, True, False, NOW_S - 5, ["ok"]),
        (NOW_S, None, False, None, ["ok"]),
        (NOW_S, False, False, None, ["warning"]),
        (NOW_S, True, True, None, ["warning"]),
        (NOW_S, True, False, NOW_S + 3600, ["warning"]),
        (0, True, False, None, ["problem"]),
        (NOW_S - 10 * 365 * 86400, True, False, None, ["problem"]),
    ],
)
def test_a_clock_that_cannot_be_right_is_told(
    now_s: int, synchronised: bool | None, local: bool, newest_s: int | None, marks: list[str]
) -> None:
    facts = machine.ClockFacts(now_s, synchronised, local)
    assert [found.mark for found in machine.clock_findings(facts, [LogFacts("vm.log", newest_s=newest_s)])] == marks


@pytest.mark.parametrize(("text", "local"), [("0.0 0 0.0\n0\nUTC\n", False), ("0.0 0 0.0\n0\nLOCAL\n", True), (None, False)])
def test_the_hardware_clock_is_read_from_adjtime(tmp_path: Path, text: str | None, local: bool) -> None:
    if text is not None:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc" / "adjtime").write_text(text)
    assert machine.look_at_clock(NOW_S, tmp_path).local_hardware is local


@pytest.mark.parametrize(("limit", "logs", "mark"), [(1024, 500, "ok"), (1024, 1000, "warning"), (-1, 10**6, "ok")])
def test_more_logs_than_files_may_be_open_is_a_warning(limit: int, logs: int, mark: str) -> None:
    found = machine.files_finding(limit, logs)
    assert found.mark == mark
    assert ("LimitNOFILE" in found.help) == (mark == "warning")
