"""Every recording of the log backend, converted and judged by QMP's own figures and a reader that is not otelbridge's."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.convert.command import PROGRAM

_TESTS = Path(__file__).resolve().parents[1]
_SHARED = _TESTS.parents[1] / "shared"
_JUDGE = _SHARED / "tools" / "judge"


def _judge(name: str) -> ModuleType:
    if str(_JUDGE) not in sys.path:
        sys.path.append(str(_JUDGE))
    return importlib.import_module(name)


def _cases() -> list[Any]:
    """The cases of both folders of recordings; none where the judge is not there."""
    if not (_JUDGE / "judge.py").exists():
        return []
    found: list[Any] = []
    for folder in (_SHARED / "recordings", _TESTS / "recordings"):
        found += [case for case in _judge("recording").cases(folder) if case.backend == "log"]
    return found


def _id(case: Any) -> str:
    folder = case.recording.parents[1]
    return case.name if folder.parent == _SHARED else f"{folder.name}/{case.name}"


_KNOWN_WRONG = "qemu-4.1.0-log/precopy-busy"


@pytest.mark.parametrize("case", [pytest.param(case, id=_id(case)) for case in _cases()])
def test_output_says_what_the_recording_says(case: Any, shared: Path) -> None:
    """States, times, sections, errors, counters and the accounting are those of the raw trace and of QMP."""
    known = _judge("recording").known_names(shared / "catalogs")
    _, rows = _judge("run_all").run(case, list(PROGRAM), known)
    assert len(rows) > 40
    failed = {check: (expected, got) for result, check, expected, got in rows if result == "FAIL"}
    if case.name.endswith(_KNOWN_WRONG):
        _assert_ended_before_the_lock(failed, case.recording)
    else:
        assert failed == {}


def _assert_ended_before_the_lock(failed: dict[str, tuple[str, list[float]]], recording: Path) -> None:
    """Here QMP's clocks ran on after the last state, until the migration thread got the big lock.

    The span ends with `completed`; QMP's figures, whole milliseconds, end between it and `migrate_fd_cleanup`.
    """
    answer = json.loads((recording / "truth.json").read_text())["vms"]["src"]["final"]["query-migrate"]
    log = (recording / "src.log").read_text()
    moments = re.findall(r"^\d+@(\d+\.\d{6}):(?:migrate_set_state new state completed|migrate_fd_cleanup )$", log, re.MULTILINE)
    completed_s, cleanup_s = map(float, moments)
    waited_ms = 1000 * (cleanup_s - completed_s)
    assert set(failed) == {"qmp: src total-time", "qmp: src downtime"}
    for check, figure in (("qmp: src total-time", "total-time"), ("qmp: src downtime", "downtime")):
        _, (got_ms,) = failed[check]
        assert 0 < answer[figure] - got_ms < waited_ms + 1
