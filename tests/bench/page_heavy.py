"""Measure the conversion of a page-heavy log against `grep -c` of the same file, and its memory against the log's length.

The log is a recorded migration with one line for every page, repeated with shifted times until it is as long as asked for.
Both programs run in turn, and each is measured as lines per second of CPU (user and system, of the whole process tree): the
ratio of both is what can be compared between machines.
"""

from __future__ import annotations

import argparse
import gzip
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parents[2]
RECORDED = PROJECT / "tests" / "recordings" / "debian-7.2" / "precopy-busy-pages" / "src.log.gz"
WANTED_RATIO = 0.08
_GAP_US = 1_000_000
# 25412@1795407965.358555:ram_save_page …      2026-11-23T04:29:37.419353Z ram_save_page … (not repeated: see `_copies`)
_STAMP = re.compile(rb"^(\d+@)(\d+)\.(\d{6})(?=:)", re.MULTILINE)


class Cost(NamedTuple):
    """What a run took: CPU seconds of all its processes, and the largest memory of any of them."""

    cpu_s: float
    peak_mib: float


def main() -> int:
    """Make the logs, run the rounds, print what came out; 1 when a conversion fails."""
    options = _options()
    try:
        with tempfile.TemporaryDirectory(prefix="otelbridge-bench-") as scratch:
            out = Path(scratch)
            long = page_log(options.input, options.lines)
            short = page_log(options.input, options.lines // 4)
            rounds = [(grep(long), convert(long, out)) for _ in range(options.rounds)]
            short_peak_mib = convert(short, out).peak_mib
    except subprocess.CalledProcessError as error:
        print(f"'{' '.join(error.cmd)}' ended with {error.returncode}:\n{error.stderr}", file=sys.stderr)  # noqa: T201
        return 1
    print(report(options.lines, rounds, short_peak_mib))  # noqa: T201
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--lines", type=int, default=1_000_000, help="length of the log (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="how often both programs run (default: %(default)s)")
    parser.add_argument("--input", type=Path, default=RECORDED, help="the recorded log to repeat, stamped by -msg timestamp=on")
    return parser.parse_args()


def report(lines: int, rounds: list[tuple[Cost, Cost]], short_peak_mib: float) -> str:
    """The result in words; rates and memory are medians of the rounds."""
    grep_rate, convert_rate = (lines / statistics.median(cost.cpu_s for cost in costs) for costs in zip(*rounds, strict=True))
    peak_mib = statistics.median(converted.peak_mib for _, converted in rounds)
    return "\n".join(
        (
            f"{lines:,} lines, {len(rounds)} rounds",
            f"grep -c             {grep_rate:12,.0f} lines per CPU-second",
            f"otelbridge convert  {convert_rate:12,.0f} lines per CPU-second",
            f"ratio               {convert_rate / grep_rate:12.3f} (wanted: at least {WANTED_RATIO})",
            f"peak memory         {short_peak_mib:8.1f} MiB at {lines // 4:,} lines, {peak_mib:.1f} MiB at {lines:,}",
        )
    )


def page_log(recorded: Path, lines: int) -> Path:
    """A log of so many lines, made from a recorded one; kept in the folder for temporary files for the next time."""
    origin = recorded.resolve().stat()
    folder = Path(tempfile.gettempdir()) / f"otelbridge-bench-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"pages-{origin.st_ino}-{origin.st_size}-{origin.st_mtime_ns}-{lines}.log"
    if not path.exists():
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            file.writelines(_copies(recorded, lines))
        part.replace(path)
    return path


def _copies(recorded: Path, lines: int) -> Iterator[bytes]:
    """The recorded log again and again, each copy a second later than the one before ended."""
    data = gzip.decompress(recorded.read_bytes()) if recorded.suffix == ".gz" else recorded.read_bytes()
    times_us = [int(found[2]) * 1_000_000 + int(found[3]) for found in _STAMP.finditer(data)]
    if not times_us:
        raise SystemExit(f"{recorded} has no line that begins like '25412@1795407965.358555:'; it cannot be repeated.")
    length_us = max(times_us) - min(times_us) + _GAP_US
    left, shift_us = lines, 0
    while left > 0:
        copy = _shifted(data, shift_us).splitlines(keepends=True)[:left]
        yield b"".join(copy)
        left, shift_us = left - len(copy), shift_us + length_us


def _shifted(data: bytes, shift_us: int) -> bytes:
    def stamp(found: re.Match[bytes]) -> bytes:
        seconds, microseconds = divmod(int(found[2]) * 1_000_000 + int(found[3]) + shift_us, 1_000_000)
        return b"%b%d.%06d" % (found[1], seconds, microseconds)

    return _STAMP.sub(stamp, data)


def grep(log: Path) -> Cost:
    """What `grep -c` takes; its output goes through a pipe, since it stops at the first hit when that is /dev/null."""
    return _cost_of(["sh", "-c", 'grep -c ram_save_page "$1" | cat', "sh", str(log)])


def convert(log: Path, out: Path) -> Cost:
    """What the conversion into files takes."""
    return _cost_of([sys.executable, "-m", "otelbridge", "convert", str(log), "--to", f"file:{out}"])


def _cost_of(command: list[str]) -> Cost:
    # Measured in a child, since the kernel keeps one largest memory for all children of a process, ever.
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os._exit(_measure(command, write))
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise subprocess.CalledProcessError(code, command, stderr=said)
    cpu_s, peak_kib = said.split()
    return Cost(float(cpu_s), int(peak_kib) / 1024)


def _measure(command: list[str], write: int) -> int:
    """Run a command and write what it took, or what it complained of, to a pipe; return its exit code."""
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)  # our own words
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = done.stderr if done.returncode else f"{used.ru_utime + used.ru_stime} {used.ru_maxrss}".encode()
    with os.fdopen(write, "wb") as pipe:
        pipe.write(said)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
