"""The same way for somebody who wants to see what the engine does, or the events alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from collections.abc import Mapping as MappingType
from functools import partial
from typing import TYPE_CHECKING

from otelbridge import report
from otelbridge.otlp import Sink
from otelbridge.pipeline.conversion import some_events
from otelbridge.pipeline.inputs import inputs_of
from otelbridge.pipeline.options import ConvertOptions, each_once, set_up
from otelbridge.pipeline.reading import read_input
from otelbridge.pipeline.survey import survey_of
from otelbridge.readers.inputs import TraceInput
from otelbridge.readers.source import Progress, Source, times_of
from otelbridge.records import Plan, Row

if TYPE_CHECKING:
    from otelbridge.engine.observed import Observer
    from otelbridge.mapping.coverage import Fate


def watch(
    options: ConvertOptions,
    observer: Observer,
    sinks: Sequence[Sink] = (),
    *,
    env: MappingType[str, str],
    progress: Progress,
    reads: Callable[[TraceInput], None] = lambda _trace: None,
) -> list[report.InputReport]:
    """Read the inputs as `convert` does, with somebody who watches the engine.

    Args:
        options: What to read, and with which rules; destinations are not looked at.
        observer: Told what the engine does.
        sinks: Get what comes out of it.
        env: The environment.
        progress: As for `convert`.
        reads: Told before each input whose events come next.

    Raises:
        OtelbridgeError: As `convert`.
    """
    from otelbridge.engine.observed import ObservedEngine  # noqa: PLC0415  # a conversion does not need it

    setup = set_up(each_once(options), env, progress)
    traces = inputs_of(setup)
    times = [times_of(trace, setup.told) for trace in traces]
    joined = survey_of(setup, traces, times)
    reports = []
    for place, trace in enumerate(traces):
        reads(trace)
        reports.append(read_input(setup, place, trace, times[place], joined, sinks, partial(ObservedEngine, observer)))
    some_events(traces, reports, setup.told.catalogue.is_event)
    return reports


def fates_in(options: ConvertOptions, *, env: MappingType[str, str], progress: Progress) -> dict[str, Fate]:
    """What became of each event in the inputs."""
    from otelbridge.engine.tally import Tally  # noqa: PLC0415  # a conversion does not need it
    from otelbridge.mapping.coverage import Fate  # noqa: PLC0415

    tally = Tally()
    watch(options, tally, env=env, progress=progress)
    tally.finish()
    return {
        event: Fate(came, tally.paired[event], tally.left_open[event], tally.orphaned[event], tally.unread_texts[event])
        for event, came in tally.came_up.items()
    }


def rows_of(
    options: ConvertOptions, events: Collection[str] | None, *, env: MappingType[str, str], progress: Progress
) -> Iterator[tuple[TraceInput, Row]]:
    """The events of the inputs with the input they stand in, without any rule; all that are known, or those of these names."""
    setup = set_up(each_once(options), env, progress)
    plan = Plan(dict.fromkeys(setup.told.catalogue.names if events is None else events, ()))
    for trace in inputs_of(setup):
        times = times_of(trace, setup.told)
        for batch in Source(trace, setup.told, times, plan, lambda _event: None, setup.progress).batches():
            yield from ((trace, row) for row in batch.rows)
