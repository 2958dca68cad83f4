"""What a run takes: CPU of the whole tree of processes, wall time, the memory of its largest process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

BENCH = Path(__file__).resolve().parent
PROJECT = BENCH.parents[1]
LIMIT_S = 900.0
"""So long may a run take."""


class RunError(Exception):
    """A run did not end as it should: what was run and what it said."""


class Cost(NamedTuple):
    """What a run took, and what it said on standard output and standard error."""

    cpu_s: float
    wall_s: float
    peak_mib: float
    output: str
    errors: str


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of all runs: this project's code, and nothing that steers an exporter."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return kept | {"PYTHONPATH": str(PROJECT), "LC_ALL": "C"} | dict(more or {})


def cost_of(
    command: Sequence[str],
    more: Mapping[str, str] | None = None,
    *,
    until: Callable[[], bool] | None = None,
    codes: Sequence[int] = (0,),
) -> Cost:
    """Run a command to its end, or until `until` is true; it is told to end then.

    Raises:
        RunError: It took too long, or its exit code is none of `codes`.
    """
    with tempfile.TemporaryDirectory(prefix="otelbridge-bench-run-") as scratch:
        report, output, errors = (Path(scratch, name) for name in ("report", "output", "errors"))
        launcher = [sys.executable, "-I", "-S", str(BENCH / "launch.py"), str(report), *command]
        with output.open("wb") as out, errors.open("wb") as err, _ended(launcher, out, err, environment(more)) as process:
            deadline_s = time.monotonic() + LIMIT_S
            while until and process.poll() is None and time.monotonic() < deadline_s:
                if until():
                    process.terminate()
                    break
                time.sleep(0.1)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(1.0, deadline_s - time.monotonic()))
        said = errors.read_text(errors="replace")
        took = json.loads(report.read_text()) if report.exists() else {"code": "nothing within its time"}
        if took.pop("code") not in codes:
            raise RunError(f"'{' '.join(command)}' failed or took longer than {LIMIT_S:.0f} s:\n{said[-2000:]}")
        return Cost(**took, output=output.read_text(errors="replace"), errors=said)


@contextlib.contextmanager
def _ended(command: Sequence[str], out: object, err: object, env: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, of which nothing is left behind."""
    process = subprocess.Popen(command, stdout=out, stderr=err, env=env, start_new_session=True)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
