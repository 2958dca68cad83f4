"""Measure otelbridge beside everything else that one might pick, and write the table to tests/bench/results.md."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from tests.bench import inputs, small, tables
from tests.bench.contenders import CONTENDERS, GREP, PROGRAMS, Contender, Tools, found_programs, receiving, to_file, versions
from tests.bench.inputs import Input
from tests.bench.measuring import BENCH, RunError

INPUTS: dict[str, Callable[[int], Input]] = {
    "page-heavy": inputs.page_heavy,
    "span-rich": inputs.span_rich,
    "postcopy": inputs.postcopy,
    "simple": inputs.simple,
    "ctf": lambda units: inputs.ctf(min(units, 100_000)),
}
OTHERS = "others"


class Job(NamedTuple):
    """A contender with the input that it reads."""

    contender: Contender
    what: Input


def main() -> int:
    """Make the inputs, run all in turn for some rounds, print and write the tables; 1 when a run failed."""
    options = _options()
    named = {options.input.name: lambda _: inputs.given(options.input)} if options.input else INPUTS
    chosen = chosen_of(options.only, list(named))
    with tempfile.TemporaryDirectory(prefix="otelbridge-bench-") as scratch, receiving() as receiver:
        programs = found_programs(Path(scratch))
        tools = Tools(receiver, Path(scratch), programs)
        parts = [_head(options, programs)]
        try:
            for name in chosen.inputs:
                parts.append(_table(tools, name, named[name], chosen.contenders, options, is_given=options.input is not None))
                print(parts[-1], flush=True)
            if chosen.others and (options.input is None or OTHERS in options.only):
                parts.append(_others(tools, options))
                print(parts[-1], flush=True)
        except RunError as error:
            print(error, file=sys.stderr)
            return 1
    if options.results is not None:
        options.results.write_text("\n".join(parts), "utf-8")
        print(f"Written to {options.results}.", file=sys.stderr)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each contender runs (default: %(default)s)")
    parser.add_argument("--lines", type=int, default=5_000_000, help="length of the inputs (default: %(default)s)")
    parser.add_argument("--input", type=Path, metavar="FILE", help="a log of your own, in place of the inputs made here")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME",
        help=f"an input ({', '.join(INPUTS)}), '{OTHERS}', or a part of a contender's name; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--results", type=Path, metavar="FILE",
        help="where the tables go (default: tests/bench/results.md for a run with all of it, else nowhere)",
    )  # fmt: skip
    options = parser.parse_args()
    # ./dev works in the project's folder, and paths are given from where it was called.
    begun_in = Path(os.environ.get("BENCH_FROM", ""))
    if options.results is not None:
        options.results = begun_in / options.results
    elif not options.only and options.input is None:
        options.results = BENCH / "results.md"
    options.input = options.input and begun_in / options.input
    return options


class Chosen(NamedTuple):
    """What is measured: inputs by name, contenders, and whether the figures that belong to no input are."""

    inputs: list[str]
    contenders: list[Contender]
    others: bool


def chosen_of(only: list[str], names: list[str]) -> Chosen:
    """What `--only` names: an input by its name, contenders by a part of theirs; all of a kind of which it names none.

    Raises:
        SystemExit: It names nothing that there is.
    """
    found = [name for name in names if name in only]
    words = [word.lower() for word in only if word not in (*names, OTHERS)]
    contenders = [c for c in CONTENDERS if any(word in c.name.lower() for word in words)]
    for word in words:
        if not any(word in c.name.lower() for c in CONTENDERS):
            known = ", ".join((*names, OTHERS, *(c.name for c in CONTENDERS)))
            raise SystemExit(f"--only {word}: there is nothing of this name; there are {known}.")
    is_all = not found and (bool(contenders) or OTHERS not in only)
    return Chosen(names if is_all else found, contenders or list(CONTENDERS), OTHERS in only or not only)


def _table(
    tools: Tools,
    name: str,
    make: Callable[[int], Input],
    contenders: list[Contender],
    options: argparse.Namespace,
    *,
    is_given: bool,
) -> str:
    """All contenders on one input, in turn, round by round, each round beginning with `grep -c`."""
    kind = "page-heavy" if is_given else name
    what = make(options.lines)
    # Lines are what `grep` counts: beside a binary input it reads the log that tells the same.
    yardstick = what if kind in GREP.inputs else inputs.page_heavy(what.units)
    entered = [c for c in contenders if kind in c.inputs and c is not GREP]
    jobs = [
        Job(c, make(options.lines // c.share) if c.share > 1 and not is_given else what)
        for c in entered
        if not c.program or c.program in tools.programs
    ]
    rounds = []
    for number in range(options.rounds):
        print(f"{name}: round {number + 1} of {options.rounds}", file=sys.stderr)
        base = GREP.run(tools, yardstick)
        rounds.append(tables.Round(base, [job.contender.run(tools, job.what) for job in jobs]))
    gaps = {c.name: PROGRAMS[c.program][1] for c in entered if c.program and c.program not in tools.programs}
    return tables.table(what, yardstick, [(job.contender.name, job.what.units) for job in jobs], rounds, gaps)


def _others(tools: Tools, options: argparse.Namespace) -> str:
    """Memory at three lengths, starts, the encoding of a span, two processes, the service."""
    print(OTHERS, file=sys.stderr)
    peaks = [
        (length, to_file(tools, inputs.page_heavy(length)).cost.peak_mib)
        for length in (options.lines // 16, options.lines // 4, options.lines)
    ]
    shares = [(rate, small.service_share(tools, rate)) for rate in (5_000, 100_000)]
    faster = small.two_processes(tools, options.lines, options.rounds)
    return tables.others(peaks, small.starts(tools, 2 * options.rounds + 1), small.span_us(options.rounds), shares, faster)


def _head(options: argparse.Namespace, programs: dict[str, str]) -> str:
    packages = ("opentelemetry-sdk", "opentelemetry-exporter-otlp", "grpcio", "protobuf")
    said = {
        **versions(programs),
        "otelbridge": metadata.version("otelbridge"),
        "Python": platform.python_version(),
        **{package: metadata.version(package) for package in packages},
    }
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return tables.head(when, options.rounds, tables.machine(), said)


if __name__ == "__main__":
    sys.exit(main())
