"""Measure the reading of a page-heavy simple trace, by the reader alone and by the whole conversion, and its memory.

The trace is a recorded migration with a record for every page, repeated with shifted times until it is as long as asked for.
Rates are records per second of CPU (user and system, of the whole process tree); both programs run in turn.
"""

from __future__ import annotations

import argparse
import gzip
import os
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from otelbridge.catalogue import builtin
from otelbridge.catalogue.binary import BinaryDecoder
from otelbridge.mapping import load_with_shipped
from otelbridge.readers.simple import SimpleReader

PROJECT = Path(__file__).resolve().parents[2]
RECORDED = PROJECT.parent / "shared" / "recordings" / "qemu-10.2.0-simple" / "precopy-busy-pages" / "src.simple.gz"
_GAP_NS = 1_000_000_000
_BLOCK_BYTES = 1 << 16
_READ = "--read"


class Cost(NamedTuple):
    """What a run took: CPU seconds of all its processes, and the largest memory of any of them."""

    cpu_s: float
    peak_mib: float


def main() -> int:
    """Make the traces, run the rounds, print what came out; 1 when a conversion fails."""
    options = _options()
    if options.read is not None:
        read(options.read)
        return 0
    with tempfile.TemporaryDirectory(prefix="otelbridge-bench-") as scratch:
        long, short = Path(scratch) / "long.simple", Path(scratch) / "short.simple"
        records = write(options.input, long, options.records)
        write(options.input, short, options.records // 4)
        readings = [reading(long) for _ in range(options.rounds)]
        print(f"{records:,} records, {long.stat().st_size:,} bytes, {options.rounds} rounds")  # noqa: T201
        print(report("reader", records, readings, reading(short)))  # noqa: T201
        if options.convert:
            try:
                conversions = [conversion(long, Path(scratch)) for _ in range(options.rounds)]
                print(report("convert", records, conversions, conversion(short, Path(scratch))))  # noqa: T201
            except subprocess.CalledProcessError as error:
                print(f"'{' '.join(error.cmd)}' ended with {error.returncode}:\n{error.stderr}", file=sys.stderr)  # noqa: T201
                return 1
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--records", type=int, default=2_000_000, help="length of the trace (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each program runs (default: %(default)s)")
    parser.add_argument("--input", type=Path, default=RECORDED, help="the recorded trace to repeat")
    parser.add_argument("--convert", action="store_true", help="measure the whole conversion into files too")
    parser.add_argument(_READ, type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def report(name: str, records: int, costs: list[Cost], short: Cost) -> str:
    """The result in words; rates and memory are medians of the rounds."""
    rate = records / statistics.median(cost.cpu_s for cost in costs)
    peak_mib = statistics.median(cost.peak_mib for cost in costs)
    memory = f"{short.peak_mib:.1f} MiB for a quarter of it, {peak_mib:.1f} MiB for all"
    return f"{name:8} {rate:12,.0f} records per CPU-second, memory {memory}"


# --- the trace --------------------------------------------------------------------------------------


def write(recorded: Path, path: Path, records: int) -> int:
    """Write a trace of about so many records; give how many they are."""
    data = gzip.decompress(recorded.read_bytes()) if recorded.suffix == ".gz" else recorded.read_bytes()
    names, events = _parts(data)
    times_ns = [struct.unpack_from("<Q", event, 16)[0] for event in events]
    length_ns = max(times_ns) - min(times_ns) + _GAP_NS
    copies = max(1, round(records / len(events)))
    with path.open("wb") as file:
        file.write(names)
        for copy in range(copies):
            file.writelines(
                event[:16] + struct.pack("<Q", time_ns + copy * length_ns) + event[24:]
                for event, time_ns in zip(events, times_ns, strict=True)
            )
    return copies * len(events)


def _parts(data: bytes) -> tuple[bytes, list[bytes]]:
    """Header and names, and the events one by one."""
    found = [list(part) for part in (_records(data, 0), _records(data, 1))]
    return data[:24] + b"".join(found[0]), found[1]


def _records(data: bytes, wanted: int) -> Iterator[bytes]:
    place = 24
    while place < len(data):
        kind, _ = struct.unpack_from("<QQ", data, place)
        at, more = (24, 8) if kind else (16, 20)
        size = more + struct.unpack_from("<I", data, place + at)[0]
        if kind == wanted:
            yield data[place : place + size]
        place += size


# --- measuring --------------------------------------------------------------------------------------


def read(path: Path) -> None:
    """Read a trace with the plan of the shipped mappings, and print what that took."""
    catalogue = builtin()
    plan = load_with_shipped((), catalogue).plan
    sums = BinaryDecoder(catalogue, plan.sums)
    reader = SimpleReader(plan, catalogue.is_event, sums.decode, offset_ns=0, declared=sums.saw)
    begin_s = time.process_time()
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            reader.feed(block)
    reader.finish()
    took_s = time.process_time() - begin_s
    print(took_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # noqa: T201


def reading(path: Path) -> Cost:
    """What the reader alone takes, in a process of its own, without the start of Python."""
    command = [sys.executable, __file__, _READ, str(path)]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    said = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment).stdout
    cpu_s, peak_kib = said.split()
    return Cost(float(cpu_s), int(peak_kib) / 1024)


def conversion(path: Path, out: Path) -> Cost:
    """What the conversion into files takes, the start of Python included."""
    command = ["convert", str(path), "--to", f"file:{out}", "--clock-offset", "1795405703481433342"]
    child = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run([sys.executable, '-m', 'otelbridge', *sys.argv[1:]], stdout=subprocess.DEVNULL)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss)\n"
        "sys.exit(done.returncode)\n"
    )
    # Measured in a child of its own, since the kernel keeps one largest memory for all children of a process, ever.
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", child, *command], capture_output=True, check=True, text=True, env=environment
    )  # fmt: skip
    cpu_s, peak_kib = done.stdout.split()
    return Cost(float(cpu_s), int(peak_kib) / 1024)


if __name__ == "__main__":
    sys.exit(main())
