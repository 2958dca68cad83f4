"""A first look at all inputs: which destination belongs to which source, and how their clocks differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Mapping as MappingType
from typing import TYPE_CHECKING

from otelbridge.engine import Engine, LinkIndex, Stream
from otelbridge.engine.processes import MARK_BYTES, two_sided
from otelbridge.mapping import Mapping
from otelbridge.pipeline.inputs import key_of
from otelbridge.pipeline.options import Setup
from otelbridge.pipeline.reading import PROCESSES, Reading
from otelbridge.readers.inputs import TraceInput
from otelbridge.readers.source import Source, Times, blocks_of, decoder_of
from otelbridge.records import FinishedSpan, Plan

if TYPE_CHECKING:
    from otelbridge.engine.fits import Seen
    from otelbridge.engine.joins import Joined


_SIDES_APART_BYTES = 16 << 20
"""Both sides of a migration are set up within so much of a file that both hosts write into."""


def survey_of(
    setup: Setup,
    traces: Sequence[TraceInput],
    times: Sequence[Times],
    of_each: Callable[[], Iterable[Sequence[Seen]]] | None = None,
) -> Joined | None:
    """A first look at all inputs for which destination belongs to which source; none where there cannot be two of them.

    Args:
        setup: What they share.
        traces: The inputs.
        times: How their stamps become UTC.
        of_each: Gives `seen_in` of each; None to look at one after the other here.
    """
    if len(traces) == 1 and not _two_sided(traces[0]):
        return None
    from otelbridge.engine.joins import join  # noqa: PLC0415  # only where there are two hosts

    if of_each is None:
        mapping = of_joins(setup.mapping)
        seen_in_each: Iterable[Sequence[Seen]] = (seen_in(setup, t, times[n], mapping, n) for n, t in enumerate(traces))
    else:
        seen_in_each = of_each()
    joined = join([one for found in seen_in_each for one in found])
    setup.notes.extend(joined.notes)
    return joined


def _two_sided(trace: TraceInput) -> bool:
    """Whether events of both sides of a migration stand in one trace."""
    if trace.format == "simple":
        return False  # it is one process's, and has the names of all events in it
    sides: set[str] = set()
    rest = b""
    for path in trace.files:
        left = _SIDES_APART_BYTES
        blocks = blocks_of(path)
        for block in blocks:
            # What tells a side may be cut between two blocks, or two rotated parts.
            sides |= two_sided(rest + block, sides)
            rest = (rest + block)[-MARK_BYTES:]
            left -= len(block) if sides else 0
            if len(sides) > 1 or left < 0:
                break
        blocks.close()
    return len(sides) > 1


def of_joins(mapping: Mapping) -> Mapping:
    """The rules that tell which migrations belong together, and of the Plan what they read. Arguments keep their places."""
    targets = {link.rule for rule in mapping.spans for link in rule.links}
    spans = tuple(r._replace(notes={}, duration=None) for r in mapping.spans if r.links or r.id in targets)
    machines = tuple(
        m._replace(notes={}, reasons={}, duration=None, state_duration=None, active=None, completed=None)
        for m in mapping.machines
    )
    events = {event for rule in spans for event in (*rule.begins, *rule.ends)}
    events |= {event for machine in machines for event in (machine.event, *machine.roles)}
    plan = Plan({event: mapping.plan.rows[event] for event in events})
    return mapping._replace(spans=spans, machines=machines, metrics=(), plan=plan)


def seen_in(setup: Setup, trace: TraceInput, times: Times, mapping: Mapping, place: int) -> list[Seen]:
    """The migrations of the input at a place among all, by the rules `of_joins`; its processes are streams of their own."""
    from otelbridge.engine.clocks import ARGUMENTS, Listener  # noqa: PLC0415  # only where there are two hosts
    from otelbridge.engine.fits import Log, seen  # noqa: PLC0415

    first = decoder_of(trace, setup.told, mapping.plan.rows)
    indexes: list[LinkIndex] = []
    spans: list[list[FinishedSpan]] = []
    machines = {machine.id for machine in mapping.machines}

    def new_engine(number: int) -> Engine:
        indexes.append(LinkIndex())
        spans.append([])
        stream = Stream(key_of(trace, number), trace.role)
        decoder = decoder_of(trace, setup.told, mapping.plan.rows) if number else first
        return Engine(mapping, stream, decoder.decode, lambda: None, decoder.saw, index=indexes[number])

    reading = Reading(new_engine)
    listener = Listener(decoder_of(trace, setup.told, ARGUMENTS).decode)

    def collect() -> None:
        for engine, roots in zip(reading.engines.values(), spans, strict=True):
            roots += [span for span in engine.take_spans() if span.name in machines]
            engine.take_points()

    # Which rows come decides which processes are seen, so where rows tell threads or processes apart they are the same as in
    # the conversion itself.
    needed = mapping.plan.rows
    rows = needed if trace.look.stamp == "iso" else setup.mapping.plan.rows
    plan = Plan({**dict.fromkeys(ARGUMENTS, ()), **rows})
    for batch in Source(trace, setup.told, times, plan, first.saw, setup.progress).batches():
        split = reading.processes.split([row for row in batch.rows if row.event in rows])
        reading.feed(batch, [[row for row in of_one if row.event in needed] for of_one in split])
        collect()
        for row in batch.rows:
            if row.event in ARGUMENTS and (process := reading.processes.known(row)) is not None:
                listener.hear(row, process)
    reading.finish()
    collect()
    log = Log(
        name=trace.paths[0],
        told=trace.role is not None,
        timed=times.mark is None,
        whole=not listener.unread and not any(has_holes(engine.accounting.buckets) for engine in reading.engines.values()),
        steady=not any(engine.late for engine in reading.engines.values()),
    )
    return [
        one
        for number, (roots, index) in enumerate(zip(spans, indexes, strict=True))
        for machine in machines
        for one in seen(place * PROCESSES + number, log, roots, machine, index, listener, number)
    ]


def has_holes(buckets: MappingType[str, int]) -> bool:
    """Whether events are missing in the middle of a log; at its end a killed QEMU leaves one line cut."""
    return bool(buckets.get("malformed") or buckets.get("dropped_by_qemu") or buckets.get("torn", 0) > 1)
