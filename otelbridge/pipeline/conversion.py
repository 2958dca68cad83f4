"""`otelbridge convert`: files -> readers -> engines -> sinks -> accounting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Mapping as MappingType
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from otelbridge import report
from otelbridge.catalogue import builtin
from otelbridge.errors import ExportError, FormatError
from otelbridge.otlp import Sink
from otelbridge.pipeline.inputs import inputs_of
from otelbridge.pipeline.options import ConvertOptions, each_once, set_up
from otelbridge.pipeline.reading import read_input
from otelbridge.pipeline.sinks import open_sinks
from otelbridge.pipeline.survey import survey_of
from otelbridge.readers.detect import detect, look_at
from otelbridge.readers.formats import FORMATS
from otelbridge.readers.inputs import TraceInput
from otelbridge.readers.open import shown
from otelbridge.readers.source import Progress
from otelbridge.records import Outcome, Signal

if TYPE_CHECKING:
    from otelbridge.view.picture import Picture


_NOTHING_WRITTEN = (
    "there is no event in it. QEMU writes when 64 KiB have gathered or when it exits, so one that was killed before leaves "
    "the header alone; what it had gathered is lost."
)


class Conversion(NamedTuple):
    """What came of it: the accounting as it is written, the exit code, sentences for the user, and the waterfall's data."""

    accounting: dict[str, Any]
    exit_code: int
    notes: tuple[str, ...]
    picture: Picture | None


def convert(options: ConvertOptions, *, env: MappingType[str, str], progress: Progress) -> Conversion:
    """Read the inputs to their ends and deliver what comes out of them.

    Args:
        options: What was asked for.
        env: The environment: `OTEL_*`.
        progress: Told, after each block, how many bytes of how many were read; None where the size is not known.

    Raises:
        OtelbridgeError: Nothing, or not everything, was converted; what was found, and what to do.
    """
    setup = set_up(each_once(options), env, progress)
    traces = inputs_of(setup)
    with ExitStack() as stack:
        sinks, picture = open_sinks(options, env, traces, stack)
        with _closed_on_error(sinks):
            joined = survey_of(setup, traces)
            reports = [read_input(setup, number, trace, joined, sinks) for number, trace in enumerate(traces)]
        outcomes = [sink.close() for sink in sinks]
    some_events(traces, reports)
    return _concluded(reports, report.combined(outcomes), setup.notes, picture)


def some_events(traces: Sequence[TraceInput], reports: Sequence[report.InputReport]) -> None:
    """Refuse inputs without any event."""
    if any(r.account.events for r in reports):
        return
    names = ", ".join(shown(path) for trace in traces for path in trace.paths)
    words = sorted({trace.format for trace in traces})
    expected = " or ".join(f"'{FORMATS[word].example}' (--format {word})" for word in words)
    raise FormatError(
        f"There is no trace event of QEMU in {names}. Expected was something like {expected}{_other_formats(traces)}. "
        "Nothing was converted; run QEMU with -trace 'migrate_*' and others, and -D FILE."
    )


def _other_formats(traces: Sequence[TraceInput]) -> str:
    """What the inputs look like, where the user said something else."""
    is_event, seen = builtin().is_event, []
    for trace in traces:
        with suppress(FormatError):
            found = detect(trace.head, trace.name, is_event)
            if found.format != trace.format and (found.format != "log" or look_at(trace.head, is_event).events):
                seen.append(f". '{trace.name}' looks like --format {found.format}: {found.why}")
    return "".join(seen)


@contextmanager
def _closed_on_error(sinks: Sequence[Sink]) -> Iterator[None]:
    """When reading ends early, what the sinks hold already still goes out."""
    try:
        yield
    except BaseException:
        for sink in sinks:
            with suppress(ExportError):
                sink.close()
        raise


def _concluded(
    reports: Sequence[report.InputReport], outcomes: MappingType[Signal, Outcome], notes: Sequence[str], picture: Picture | None
) -> Conversion:
    refused = [reason for outcome in outcomes.values() for reason in outcome.reasons]
    without = [r for r in reports if not r.account.events]
    empty = [f"{r.paths[0]}: there is no trace event in it" for r in without if r.format != "simple"]
    # A file with the header of a simple trace is one, if nothing reached it; no other format tells a trace without events.
    notes = [*notes, *(f"{r.paths[0]}: {_NOTHING_WRITTEN}" for r in without if r.format == "simple")]
    document = report.accounting(reports, outcomes, [*empty, *refused], notes)
    rejected = any(outcome.rejected for outcome in outcomes.values())
    code = 5 if rejected else 7 if report.losses(reports) or empty else 0
    return Conversion(document, code, tuple(notes), picture)
