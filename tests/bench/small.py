"""What is no matter of one long file: starts, one span, two processes, the service while a log grows."""

from __future__ import annotations

import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.bench.contenders import Tools
from tests.bench.inputs import PAGES, content, page_heavy, repeated, span_rich
from tests.bench.measuring import BENCH, RunError, cost_of, environment

_EMPTY_CLICK = "import click\n@click.command()\n@click.argument('files', nargs=-1)\ndef main(files): pass\nmain()"
_STEP_S = 0.1
_SETTLE_S = 4.0
_SERVICE_S = 15.0
_FILES = 8
_SECONDS = re.compile(rb"@(\d{10})\.")


class Starts(NamedTuple):
    """CPU seconds of one start each, medians."""

    empty_click_s: float
    help_s: float
    convert_s: float


def starts(tools: Tools, rounds: int) -> Starts:
    """An empty click program, `--help`, and the conversion of 1,000 lines, in turn."""
    log = page_heavy(1000).path
    commands = (
        [sys.executable, "-c", _EMPTY_CLICK],
        [sys.executable, "-m", "otelbridge", "--help"],
        [sys.executable, "-m", "otelbridge", "convert", str(log), "--to", f"file:{tools.scratch / 'small'}"],
    )
    costs = [[cost_of(command).cpu_s for command in commands] for _ in range(rounds)]
    return Starts(*(statistics.median(column) for column in zip(*costs, strict=True)))


def span_us(rounds: int) -> float:
    """CPU microseconds for the encoding of a span with five attributes."""
    command = [sys.executable, str(BENCH / "encoding.py")]
    return statistics.median(float(cost_of(command).output) for _ in range(rounds))


def two_processes(tools: Tools, lines: int, rounds: int) -> float:
    """How many times as fast two processes are as one, by the clock, with eight logs of together so many span-rich lines.

    Raises:
        RunError: They wrote something else.
    """
    recorded = span_rich(lines // _FILES).path.read_bytes()
    with tempfile.TemporaryDirectory(dir=tools.scratch) as scratch:
        logs = [Path(scratch, f"vm{number}.log") for number in range(_FILES)]
        for number, log in enumerate(logs):
            # Each is of another time, a day apart.
            log.write_bytes(_SECONDS.sub(lambda stamp, n=number: b"@%d." % (int(stamp[1]) + n * 86_400), recorded))
        times = []
        for _ in range(rounds):
            one, two = (_written_by(jobs, logs, Path(scratch, f"by-{jobs}")) for jobs in (1, 2))
            if one.written != two.written:
                raise RunError("'otelbridge convert --jobs 2' wrote other bytes than one process")
            times.append(one.wall_s / two.wall_s)
    return statistics.median(times)


class _Written(NamedTuple):
    wall_s: float
    written: dict[str, str]


def _written_by(jobs: int, logs: list[Path], folder: Path) -> _Written:
    command = [sys.executable, "-m", "otelbridge", "convert", *map(str, logs), "--to", f"file:{folder}", "--jobs", str(jobs)]
    cost = cost_of(command, codes=(0, 7))
    return _Written(cost.wall_s, {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()})


def service_share(tools: Tools, lines_per_s: int) -> float:
    """The share of one core that `otelbridge run` takes while a page-heavy log grows at this rate.

    Its start is not counted. The lines come with the stamps of the recording, shifted, ten times a second.
    """
    with tempfile.TemporaryDirectory(dir=tools.scratch) as scratch:
        folder = Path(scratch)
        log = folder / "vm.log"
        log.touch()
        config = folder / "otelbridge.yaml"
        config.write_text(json.dumps(_config(folder, tools.receiver.http)))
        command = [sys.executable, "-m", "otelbridge", "run", "--config", str(config)]
        with (folder / "said").open("wb") as said, subprocess.Popen(command, stdout=said, stderr=said, env=environment()) as it:
            try:
                return _share(it, log, folder / "said", lines_per_s)
            finally:
                it.terminate()
                try:
                    it.wait(30)
                except subprocess.TimeoutExpired:
                    it.kill()


def _config(folder: Path, port: int) -> dict[str, object]:
    return {
        "version": 1,
        "inputs": [{"files": str(folder / "*.log")}],
        "destinations": {"receiver": {"endpoint": f"http://127.0.0.1:{port}"}},
        "outbox": {"folder": str(folder / "outbox")},
        "health": {"address": "127.0.0.1:0"},
    }


def _share(service: subprocess.Popen[bytes], log: Path, said: Path, lines_per_s: int) -> float:
    step = round(lines_per_s * _STEP_S)
    lines = b"".join(repeated(content(PAGES), round(lines_per_s * (_SETTLE_S + _SERVICE_S)))).splitlines(keepends=True)
    begin_s = time.monotonic()
    used_s = settled_s = 0.0
    with log.open("ab", buffering=0) as file:
        for number, start in enumerate(range(0, len(lines), step)):
            if not settled_s and number * _STEP_S >= _SETTLE_S:
                used_s, settled_s = _cpu_s(service.pid), time.monotonic()
            file.write(b"".join(lines[start : start + step]))
            time.sleep(max(0.0, begin_s + (number + 1) * _STEP_S - time.monotonic()))
    if service.poll() is not None:
        words = said.read_text()[-2000:]
        raise RunError(f"'otelbridge run' ended with {service.returncode} while its log grew; it said:\n{words}")
    return (_cpu_s(service.pid) - used_s) / (time.monotonic() - settled_s)


def _cpu_s(pid: int) -> float:
    """User and system time of a process so far. Source: proc(5), /proc/pid/stat, fields 14 and 15."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
