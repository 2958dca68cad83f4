"""How the cost of a conversion grows: a table of CPU seconds for each doubling of lines, files, rules and open spans.

    python -m tests.bench.growth [--to-lines N] >tests/bench/growth.md

What must not get worse is tested by counts in test_growth.py; this is the same in seconds, which depend on the machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench import growing
from tests.bench.contenders import CONVERT
from tests.bench.measuring import RunError, cost_of


def main() -> int:
    """Print the tables; 1 when a run failed."""
    parser = argparse.ArgumentParser(description="How the cost of a conversion grows.")
    parser.add_argument("--to-lines", type=int, default=5_000_000, metavar="N", help="the longest log (default: %(default)s)")
    options = parser.parse_args()
    axes: dict[str, tuple[Callable[[Path, int], growing.Work], Iterator[int]]] = {
        "lines": (growing.lines, doubled(10_000, options.to_lines)),
        "files": (growing.files, doubled(1, 500)),
        "rules": (growing.rules, doubled(10, 1_000)),
        "open spans": (growing.open_spans, doubled(1, 100_000)),
    }
    print("# How the cost of a conversion into files grows\n\nWritten by `python -m tests.bench.growth`.")
    for name, (make, sizes) in axes.items():
        print(f"\n| {name} | CPU s | times the one before | peak MiB |\n|--:|--:|--:|--:|")
        before = 0.0
        for size in sizes:
            with tempfile.TemporaryDirectory(prefix="otelbridge-bench-") as scratch:
                folder = Path(scratch)
                command = [*CONVERT, *make(folder, size).arguments, "--to", f"file:{folder / 'out'}"]
                try:
                    cost = cost_of(command, codes=(0, 7))
                except RunError as error:
                    print(error, file=sys.stderr)
                    return 1
            times = f"{cost.cpu_s / before:.2f}" if before else ""
            print(f"| {size:,} | {cost.cpu_s:.3f} | {times} | {cost.peak_mib:.0f} |", flush=True)
            before = cost.cpu_s
    return 0


def doubled(first: int, last: int) -> Iterator[int]:
    """From the first to the last, each twice the one before; the last is there in any case."""
    size = first
    while size < last:
        yield size
        size *= 2
    yield last


if __name__ == "__main__":
    sys.exit(main())
