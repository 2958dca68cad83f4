"""The accounting of a conversion, as the contract has it: where every unit, span and point went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from otelbridge.engine import Accounting
from otelbridge.records import SECOND_NS, Outcome, Signal
from otelbridge.stats import loss_of

BUCKETS = (
    "begin", "end", "state", "span_event", "metric", "counted", "not_trace", "unmapped", "orphan_end", "malformed", "torn",
    "dropped_by_qemu",
)  # fmt: skip


class InputReport(NamedTuple):
    """What is known of one input when it was read to its end. `path` is what messages name it by, `parts` are all its files."""

    path: str
    parts: tuple[str, ...]
    format: str
    units: str
    role: str | None
    bytes: int
    account: Accounting
    points_made: int
    open: int
    qemu_version: str | None
    processes: int
    gaps: tuple[str, ...]
    timed: bool


def summed(accounts: Sequence[Accounting]) -> Accounting:
    """The accounting of a file that several processes wrote into."""
    total = Accounting()
    for account in accounts:
        total.buckets.update(account.buckets)
        total.events.update(account.events)
        total.total += account.total
        total.finished += account.finished
        total.incomplete += account.incomplete
        total.not_kept += account.not_kept
    firsts = [a.first_ns for a in accounts if a.first_ns is not None]
    lasts = [a.last_ns for a in accounts if a.last_ns is not None]
    total.first_ns, total.last_ns = min(firsts, default=None), max(lasts, default=None)
    return total


def losses(inputs: Sequence[InputReport]) -> list[str]:
    """What was lost before it reached us, in words."""
    found = []
    for report in inputs:
        for bucket, number in report.account.buckets.items():
            if number and (loss := loss_of(bucket)):
                found.append(f"{report.path}: {number} {_worded(loss.text, number, report.units)}")
        found += [f"{report.path}: {gap}" for gap in report.gaps]
    return found


def _worded(text: str, number: int, units: str) -> str:
    """A sentence of the table after a number: `Lines are cut: …` gives `record is cut: …` for 1 of a binary trace."""
    noun, verb, rest = text.rstrip(".").split(" ", 2)
    if noun == "Lines":
        noun = units
    if number == 1:
        noun, verb = noun.removesuffix("s"), {"are": "is", "were": "was"}.get(verb, verb)
    return f"{noun.lower()} {verb} {rest}"


def accounting(
    inputs: Sequence[InputReport], outcomes: Mapping[Signal, Outcome], refused: Sequence[str], notes: Sequence[str]
) -> dict[str, Any]:
    """The document that `--accounting` writes. `refused` are losses on the way out, in words; `notes` are no losses."""
    events: Counter[str] = Counter()
    for report in inputs:
        events.update(report.account.events)
    spans, points = outcomes["traces"], outcomes["metrics"]
    return {
        "version": 1,
        "inputs": [_input(report) for report in inputs],
        "spans": {
            "finished": sum(r.account.finished for r in inputs),
            "incomplete": sum(r.account.incomplete for r in inputs),
            "delivered": spans.delivered,
            "spooled": spans.spooled,
            "rejected": spans.rejected,
            "not_kept": sum(r.account.not_kept for r in inputs),
        },
        "points": {
            "made": sum(r.points_made for r in inputs),
            "delivered": points.delivered,
            "spooled": points.spooled,
            "rejected": points.rejected,
        },
        "events": dict(sorted(events.items())),
        "loss": [*losses(inputs), *refused],
        "notes": list(notes),
    }


def _input(report: InputReport) -> dict[str, Any]:
    account = report.account
    found: dict[str, Any] = {
        "path": report.path,
        "format": report.format,
        "role": report.role,
        "bytes": report.bytes,
        "units": report.units,
        "total": account.total,
        "buckets": {bucket: account.buckets.get(bucket, 0) for bucket in BUCKETS},
        "first_time": _time(account.first_ns) if report.timed else None,
        "last_time": _time(account.last_ns) if report.timed else None,
        "qemu_version": report.qemu_version,
    }
    if len(report.parts) > 1:
        found["parts"] = list(report.parts)
    if report.processes > 1:
        found["processes"] = report.processes
        found["processes_guessed"] = True
    return found


def _time(time_ns: int | None) -> str | None:
    if time_ns is None:
        return None
    seconds, rest = divmod(time_ns, SECOND_NS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def combined(outcomes: Sequence[Mapping[Signal, Outcome]]) -> dict[Signal, Outcome]:
    """One outcome for several destinations: an item counts as delivered when every destination has it."""
    signals: tuple[Signal, ...] = ("traces", "metrics")
    return {signal: _worst([outcome[signal] for outcome in outcomes]) for signal in signals}


def _worst(outcomes: Sequence[Outcome]) -> Outcome:
    if not outcomes:
        return Outcome()
    rejected = max(o.rejected for o in outcomes)
    spooled = min(max(o.spooled for o in outcomes), max(o.delivered + o.spooled + o.rejected for o in outcomes) - rejected)
    total = max(o.delivered + o.spooled + o.rejected for o in outcomes)
    reasons = tuple(reason for o in outcomes for reason in o.reasons)
    return Outcome(total - rejected - spooled, spooled, rejected, reasons)
