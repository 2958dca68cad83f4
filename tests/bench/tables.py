"""The results in words: medians, ratios, and what was wanted."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench.contenders import Ran
from tests.bench.inputs import Input
from tests.bench.small import Starts

WANTED_RATES = {"span-rich": 1_500_000, "postcopy": 1_000_000, "simple": 4_000_000}
WANTED_RATIO = 0.17
WANTED_TIMES = {"page-heavy": (30, ("mtail", "Collector, filelog")), "span-rich": (12, ("SDK idiom",))}
"""How many times as fast as the fastest of these."""
OURS = "otelbridge to file"


class Round(NamedTuple):
    """One round: `grep -c`, and the others in their order."""

    base: Ran
    others: list[Ran]


class Line(NamedTuple):
    """What a line of the table shows; medians of the rounds."""

    name: str
    units: int
    rate: float
    ratio: float
    ran: Ran


def table(
    what: Input, yardstick: Input, entered: Sequence[tuple[str, int]], rounds: Sequence[Round], gaps: Mapping[str, str]
) -> str:
    """The table of one input, and below it what was wanted of otelbridge there."""
    lines = [_line("grep -c", yardstick.units, yardstick.units, rounds, [one.base for one in rounds])]
    for place, (name, units) in enumerate(entered):
        lines.append(_line(name, units, yardstick.units, rounds, [one.others[place] for one in rounds]))
    head = [
        f"## {what.name}: {what.units:,} {what.unit}, {_mib(what.path):,.1f} MiB",
        "",
        f"| contender | {what.unit} | {what.unit} per CPU-second | of `grep -c` | CPU s | wall s | peak MiB | spans | lost |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    missing = [f"| {name} | not installed: {how} | | | | | | | |" for name, how in gaps.items()]
    return "\n".join([*head, *map(_shown, lines), *missing, "", *_verdicts(what, {line.name: line for line in lines}), ""])


def _line(name: str, units: int, base_units: int, rounds: Sequence[Round], runs: Sequence[Ran]) -> Line:
    rates = [units / ran.cost.cpu_s for ran in runs]
    ratios = [rate / (base_units / one.base.cost.cpu_s) for rate, one in zip(rates, rounds, strict=True)]
    cost = runs[0].cost._replace(
        cpu_s=statistics.median(ran.cost.cpu_s for ran in runs),
        wall_s=statistics.median(ran.cost.wall_s for ran in runs),
        peak_mib=max(ran.cost.peak_mib for ran in runs),
    )
    lost = None if runs[0].lost is None else max(ran.lost or 0 for ran in runs)
    return Line(name, units, statistics.median(rates), statistics.median(ratios), Ran(cost, runs[0].spans, lost))


def _shown(line: Line) -> str:
    cost, spans, lost = line.ran
    cells = [line.name, f"{line.units:,}", f"{line.rate:,.0f}", f"{line.ratio:.3f}"]
    cells += [f"{cost.cpu_s:.2f}", f"{cost.wall_s:.2f}", f"{cost.peak_mib:.0f}"]
    cells += ["" if spans is None else f"{spans:,}", "" if lost is None else f"{lost:,}"]
    return f"| {' | '.join(cells)} |"


def _verdicts(what: Input, lines: Mapping[str, Line]) -> list[str]:
    ours = lines.get(OURS)
    if ours is None:
        return []
    found = []
    if what.name == "page-heavy":
        found.append(_verdict("of `grep -c`'s lines per CPU-second", ours.ratio, WANTED_RATIO, "{:.3f}"))
    if wanted := WANTED_RATES.get(what.name):
        found.append(_verdict(f"{what.unit} per CPU-second", ours.rate, wanted, "{:,.0f}"))
    if what.name in WANTED_TIMES:
        times, names = WANTED_TIMES[what.name]
        rates = {name: lines[name].rate for name in names if name in lines}
        if rates:
            fastest = max(rates, key=lambda name: rates[name])
            found.append(_verdict(f"times {fastest}", ours.rate / rates[fastest], times, "{:.1f}"))
    lost = [line.name for line in lines.values() if line.name.startswith("otelbridge") and line.ran.lost]
    found.append(f"- spans lost by otelbridge: {'some, ' + ', '.join(lost) if lost else 'none'}")
    return found


def _verdict(words: str, got: float, wanted: float, form: str, *, at_most: bool = False) -> str:
    is_met = got <= wanted if at_most else got >= wanted
    least = "at most" if at_most else "at least"
    verdict = "met" if is_met else "**missed**"
    return f"- {form.format(got)} {words}; wanted: {least} {form.format(wanted)}: {verdict}"


def others(
    peaks: Sequence[tuple[int, float]],
    starts: Starts,
    span_us: float,
    service: Sequence[tuple[int, float]],
    two_processes: float,
) -> str:
    """Figures that belong to no table: peaks by length, starts, the encoding of a span, shares of a core by lines a second."""
    lengths = ", ".join(f"{peak:.1f} MiB at {length:,} lines" for length, peak in peaks)
    click_s = starts.empty_click_s
    wanted_shares = {5_000: 2.0, 100_000: 8.0}
    figures = (
        (f"MiB is the largest peak of a conversion into files ({lengths})", max(peak for _, peak in peaks), 64, "{:.1f}"),
        ("µs of CPU to encode a span with 5 attributes", span_us, 1.5, "{:.2f}"),
        *(
            (f"% of a core for `otelbridge run` at {rate:,} lines a second", share * 100, wanted_shares[rate], "{:.1f}")
            for rate, share in service
        ),
    )
    told = [_verdict(words, got, wanted, form, at_most=True) for words, got, wanted, form in figures]
    told += [
        _start("`--help`", starts.help_s, click_s, 0.060, 1.5),
        _start("the conversion of 1,000 lines into files", starts.convert_s, click_s, 0.350, 8.0),
    ]
    words = "times as fast by the clock are two processes (`--jobs 2`, eight span-rich logs, the same bytes)"
    told.append(_verdict(words, two_processes, 1.8, "{:.2f}"))
    return "\n".join(("## Memory, starts, spans, service, two processes", "", *told, ""))


def _start(words: str, took_s: float, click_s: float, wanted_s: float, wanted_times: float) -> str:
    """Either will do: a slow machine takes longer for an empty program too."""
    verdict = "met" if took_s <= wanted_s or took_s <= wanted_times * click_s else "**missed**"
    got = f"{took_s * 1000:.0f} ms of CPU, {took_s / click_s:.2f} times an empty click program, for {words}"
    return f"- {got}; wanted: at most {wanted_s * 1000:.0f} ms or {wanted_times:.1f} times: {verdict}"


def machine() -> dict[str, str]:
    """What it ran on."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        if line.startswith(("model name", "Model"))
    ]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "CPU": f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores",
        "memory": f"{pages / (1 << 30):.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
    }


def head(when: str, rounds: int, on: Mapping[str, str], versions: Mapping[str, str]) -> str:
    """What stands above the tables."""
    return "\n".join(
        (
            "# Results",
            "",
            "Written by `./dev bench`; what is measured, and how, stands in README.md. CPU seconds are user and system time of",
            "the whole tree of processes, start included. Each round runs all contenders in turn; figures are medians, memory",
            "and losses the worst. A shared or virtual machine makes CPU seconds vary by a quarter, so compare the ratios.",
            "",
            f"{when}, {rounds} rounds.",
            "",
            *(f"- {word}: {text}" for word, text in (*on.items(), *versions.items())),
            "",
        )
    )


def _mib(path: Path) -> float:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / (1 << 20)
