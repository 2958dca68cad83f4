"""`otelbridge convert`: files -> readers -> engines -> sinks -> accounting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Mapping as MappingType
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from otelbridge import report
from otelbridge.errors import ExportError, FormatError
from otelbridge.otlp import Sink
from otelbridge.pipeline.inputs import head_of, inputs_of
from otelbridge.pipeline.options import ConvertOptions, Setup, each_once, set_up
from otelbridge.pipeline.reading import read_input
from otelbridge.pipeline.sinks import open_sinks
from otelbridge.pipeline.survey import survey_of
from otelbridge.readers.detect import another
from otelbridge.readers.formats import FORMATS
from otelbridge.readers.inputs import TraceInput
from otelbridge.readers.open import is_pipe, shown
from otelbridge.readers.rotated import beside
from otelbridge.readers.source import Progress, Times, times_of
from otelbridge.records import Outcome, Signal

if TYPE_CHECKING:
    from otelbridge.pipeline.jobs import Crew
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
    # Before the sinks are opened, which empties what is there: times that nothing tells are a reason to refuse.
    times = [times_of(trace, setup.told) for trace in traces]
    with ExitStack() as stack:
        # Processes must be forked before the sinks have threads.
        crew = stack.enter_context(_crew(setup, traces, times)) if _is_shared(setup, traces) else None
        sinks, picture = open_sinks(options, env, traces, stack)
        with _closed_on_error(sinks):
            joined = survey_of(setup, traces, times, None if crew is None else crew.survey)
            if crew is None:
                reports = [read_input(setup, n, trace, times[n], joined, sinks) for n, trace in enumerate(traces)]
            else:
                reports = list(crew.read(joined, sinks))
        outcomes = [sink.close() for sink in sinks]
    some_events(traces, reports, setup.told.catalogue.is_event)
    setup.notes.extend(_parts_not_given(traces, reports))
    return _concluded(reports, report.combined(outcomes), setup.notes, picture)


def _parts_not_given(traces: Sequence[TraceInput], reports: Sequence[report.InputReport]) -> Iterator[str]:
    """Where what is missing in a log may stand in a rotated part of it."""
    given = {Path(path).resolve() for trace in traces for path in trace.files}
    for trace, of_it in zip(traces, reports, strict=True):
        path, account = trace.paths[0], of_it.account
        is_whole = of_it.role is not None and not account.incomplete and not account.buckets["orphan_end"]
        if is_whole or path == "-" or FORMATS[trace.format].unit != "lines":
            continue
        if names := [part.name for part in beside(Path(path)) if part.resolve() not in given]:
            yield (
                f"{path}: no whole migration stands in it, and parts of the same log beside it were not given: "
                f"{', '.join(names)}. Name them too; what is missing may stand there."
            )


def _is_shared(setup: Setup, traces: Sequence[TraceInput]) -> bool:
    """Whether several processes read the inputs."""
    if setup.options.jobs < 2 or len(traces) < 2:  # noqa: PLR2004  # it takes two
        return False
    pipes = [path for trace in traces for path in trace.files if is_pipe(path)]
    if pipes:
        setup.notes.append(
            f"--jobs {setup.options.jobs}: {shown(pipes[0])} is a pipe, which only one process can read, so one read all."
        )
    return not pipes


def _crew(setup: Setup, traces: Sequence[TraceInput], times: Sequence[Times]) -> Crew:
    from otelbridge.pipeline.jobs import Crew as Made  # noqa: PLC0415  # only with --jobs

    return Made(setup, traces, times)


def some_events(traces: Sequence[TraceInput], reports: Sequence[report.InputReport], is_event: Callable[[str], bool]) -> None:
    """Refuse inputs without any event."""
    if any(r.account.events for r in reports):
        return
    names = ", ".join(shown(path) for trace in traces for path in trace.files)
    words = sorted({trace.format for trace in traces})
    expected = " or ".join(f"'{FORMATS[word].example}' (--format {word})" for word in words)
    seen = _other_formats(traces, is_event)
    how = "" if seen or words != ["log"] else "; run QEMU with -trace 'migrate_*' and others, and -D FILE"
    raise FormatError(
        f"There is no trace event of QEMU in {names}. Expected was something like {expected}{seen}. Nothing was converted{how}."
    )


def _other_formats(traces: Sequence[TraceInput], is_event: Callable[[str], bool]) -> str:
    """What the inputs look like, where the user said something else."""
    found = [(trace, another(head_of(trace.paths[0]), trace.format, is_event)) for trace in traces]
    return "".join(f". {shown(t.paths[0])} looks like --format {other.format}: {other.why}" for t, other in found if other)


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
    empty = [f"{r.path}: there is no trace event in it" for r in without if r.format != "simple"]
    # A file with the header of a simple trace is one, if nothing reached it; no other format tells a trace without events.
    notes = [*notes, *(f"{r.path}: {_NOTHING_WRITTEN}" for r in without if r.format == "simple")]
    document = report.accounting(reports, outcomes, [*empty, *refused], notes)
    rejected = any(outcome.rejected for outcome in outcomes.values())
    code = 5 if rejected else 7 if report.losses(reports) or empty else 0
    return Conversion(document, code, tuple(notes), picture)
