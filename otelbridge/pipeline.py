"""Plain wiring: files -> readers -> engines -> sinks -> accounting."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from collections.abc import Mapping as MappingType
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from otelbridge import report
from otelbridge.catalogue import Catalogue, TextDecoder, builtin, resolve_version
from otelbridge.engine import Engine, LinkIndex, Stream
from otelbridge.engine.ids import stream_key
from otelbridge.engine.processes import Processes, two_sided
from otelbridge.errors import ExportError, FormatError, UsageError
from otelbridge.mapping import Mapping, MappingTest, load_with_shipped
from otelbridge.mapping.cases import differences
from otelbridge.otlp import Sink
from otelbridge.readers import FORMATS, LogReader
from otelbridge.readers.detect import detect
from otelbridge.readers.inputs import TraceInput, group_inputs
from otelbridge.readers.open import shown
from otelbridge.readers.source import Progress, Source, Told, blocks_of, decoder_of, first_of, opened, times_of
from otelbridge.records import Attributes, Batch, FinishedSpan, MetricPoint, Outcome, Plan, Resource, Row, Signal

if TYPE_CHECKING:
    from otelbridge.catalogue.trace_events import Declarations
    from otelbridge.engine.fits import Seen
    from otelbridge.engine.joins import Joined
    from otelbridge.engine.observed import Observer
    from otelbridge.mapping.coverage import Fate
    from otelbridge.otlp.outbox import Outbox
    from otelbridge.view.picture import Picture

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
_NOTHING_WRITTEN = (
    "there is no event in it. QEMU writes when 64 KiB have gathered or when it exits, so one that was killed before leaves "
    "the header alone; what it had gathered is lost."
)
_FINE_NS = 1000
"""Stamps of microseconds are what QEMU's log has; only coarser ones are told."""

_SIDES_APART_BYTES = 16 << 20
"""Both sides of a migration are set up within so much of a file that both hosts write into."""

_PROCESSES = 1_000_000
"""Processes of one input are numbered within this."""

# /var/log/libvirt/qemu/web-1.log
_LIBVIRT = re.compile(r"libvirt/qemu/(?P<domain>[^/]+?)\.log(?:\.\d+)?(?:\.gz|\.xz)?$")


class ConvertOptions(NamedTuple):
    """What `convert` was asked to do; the names are those of its options."""

    files: tuple[str, ...]
    sources: tuple[str, ...] = ()
    destinations: tuple[str, ...] = ()
    format: str = "auto"
    mappings: tuple[Path, ...] = ()
    catalogue: Path | None = None
    qemu_version: str | None = None
    to: tuple[str, ...] = ()
    assume_start_ns: int | None = None
    give_up_s: float = 30.0
    spool: Path | None = None
    clock: Path | None = None
    clock_offset_ns: int | None = None
    boot_ns: int | None = None
    verbose: bool = False


class Conversion(NamedTuple):
    """What came of it: the accounting as it is written, the exit code, sentences for the user, and the waterfall's data."""

    accounting: dict[str, Any]
    exit_code: int
    notes: tuple[str, ...]
    picture: Picture | None


class _Setup(NamedTuple):
    """What all streams of a conversion share."""

    options: ConvertOptions
    told: Told
    mapping: Mapping
    environment: Attributes
    notes: list[str]
    progress: Progress


def convert(options: ConvertOptions, *, env: MappingType[str, str], progress: Progress) -> Conversion:
    """Read the inputs to their ends and deliver what comes out of them.

    Args:
        options: What was asked for.
        env: The environment: `OTEL_*`.
        progress: Told, after each block, how many bytes of how many were read; None where the size is not known.

    Raises:
        OtelbridgeError: Nothing, or not everything, was converted; what was found, and what to do.
    """
    setup = _set_up(_each_once(options), env, progress)
    traces = _inputs(setup)
    with ExitStack() as stack:
        sinks, picture = _sinks(options, env, traces, stack)
        with _closed_on_error(sinks):
            joined = _survey(setup, traces)
            reports = [_read(setup, number, trace, joined, sinks) for number, trace in enumerate(traces)]
        outcomes = [sink.close() for sink in sinks]
    _some_events(traces, reports)
    return _concluded(reports, report.combined(outcomes), setup.notes, picture)


def _some_events(traces: Sequence[TraceInput], reports: Sequence[report.InputReport]) -> None:
    """Refuse inputs without any event."""
    if any(r.account.events for r in reports):
        return
    names = ", ".join(shown(path) for trace in traces for path in trace.paths)
    raise FormatError(
        f"There is no trace event of QEMU in {names}. Expected were lines such as "
        "'19625@1795407950.847563:migrate_set_state new state setup'; "
        "run QEMU with -trace 'migrate_*' and others, and -D FILE."
    )


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


def _set_up(options: ConvertOptions, env: MappingType[str, str], progress: Progress) -> _Setup:
    notes: list[str] = []
    told = _told(options, notes)
    return _Setup(options, told, load_with_shipped(options.mappings, told.catalogue), _environment(env), notes, progress)


def _told(options: ConvertOptions, notes: list[str]) -> Told:
    """What the options say of all inputs."""
    numbers = None
    catalogue = builtin()
    if options.catalogue is not None:
        declarations = load_declarations(options.catalogue, notes)
        catalogue = catalogue.with_declarations(declarations)
        # A line that was skipped may have been an event, and all numbers behind it would be wrong.
        numbers = None if declarations.skipped else declarations.numbers
    version = resolve_version(options.qemu_version) if options.qemu_version else None
    return Told(catalogue, numbers, version, options.assume_start_ns, options.clock_offset_ns, options.boot_ns, options.clock)


def load_catalogue(path: Path | None, notes: list[str]) -> Catalogue:
    """The built-in catalogue, with the declarations of a file in place of its own; what was skipped in it goes to `notes`.

    Raises:
        UsageError: The file cannot be read.
        CatalogueError: It declares nothing.
    """
    return builtin() if path is None else builtin().with_declarations(load_declarations(path, notes))


def load_declarations(path: Path, notes: list[str]) -> Declarations:
    """What a trace-events file declares; what was skipped in it goes to `notes`.

    Raises:
        UsageError: The file cannot be read.
        CatalogueError: It declares nothing.
    """
    try:
        text = path.read_text("utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"The catalogue '{path}' cannot be read: {error.strerror or error}.") from None
    from otelbridge.catalogue.trace_events import parse_trace_events  # noqa: PLC0415  # only for a file

    declarations = parse_trace_events(text, str(path))
    if declarations.skipped:
        first = declarations.skipped[0]
        notes.append(
            f"{path}: {len(declarations.specs)} events were read, {len(declarations.skipped)} lines that declare none "
            f"were skipped, the first in line {first.line}: {first.text[:60]!r}."
        )
    return declarations


# --- inputs -----------------------------------------------------------------------------------------


def _each_once(options: ConvertOptions) -> ConvertOptions:
    """The options with one name for each file: src.log, ./src.log and a link to it are the same log."""
    names: dict[str, str] = {}

    def first(path: str) -> str:
        return names.setdefault("-" if path == "-" else os.path.realpath(path), path)

    files, sources, destinations = (
        tuple(map(first, paths)) for paths in (options.files, options.sources, options.destinations)
    )
    return options._replace(files=files, sources=sources, destinations=destinations)


def _inputs(setup: _Setup) -> list[TraceInput]:
    """Which files are to be read as which traces; every file was opened once, so none is missing later."""
    options = setup.options
    paths = list(dict.fromkeys([*options.files, *options.sources, *options.destinations]))
    if not paths:
        raise UsageError("There is nothing to convert; name the log files, for example: otelbridge convert src.log dst.log")
    told = setup.told
    heads: dict[str, bytes] = {}
    formats: dict[str, str] = {}
    for path in paths:
        source = opened(path)
        heads[path] = source.head
        source.close()
        if not source.head and len(paths) == 1:
            raise FormatError(f"{shown(path)} is empty, so there is nothing to convert.", path=path)
        formats[path] = _format(setup, path, source.head)
    traces = group_inputs(
        options.files, options.sources, options.destinations, heads, formats, told.catalogue.is_event,
        lambda path: first_of(path, formats[path], told),
    )  # fmt: skip
    unstamped = [trace.paths[0] for trace in traces if trace.look.events and trace.look.stamp is None]
    if unstamped and options.assume_start_ns is None and not _only_console(options):
        raise UsageError(
            f"The events of {shown(unstamped[0])} carry no time stamps, so no span of it has a time that could be delivered. "
            "Run QEMU with '-msg timestamp=on', or give the moment of the first line with --assume-start TIME. "
            "Nothing was converted."
        )
    return traces


def _only_console(options: ConvertOptions) -> bool:
    return all(to == "console" for to in options.to)


def _format(setup: _Setup, path: str, head: bytes) -> str:
    """The format of an input: what the user said, else what its first bytes show."""
    if setup.options.format != "auto":
        return setup.options.format
    if not head:
        return "log"
    found = detect(head, path, setup.told.catalogue.is_event)
    if setup.options.verbose:
        setup.notes.append(f"{path}: read as {found.format}, since {found.why}.")
    return found.format


# --- resources ----------------------------------------------------------------------------------------


def _environment(env: MappingType[str, str]) -> Attributes:
    """The attributes of OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME."""
    found: dict[str, str] = {}
    for part in filter(None, env.get("OTEL_RESOURCE_ATTRIBUTES", "").split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"OTEL_RESOURCE_ATTRIBUTES has '{part}', but 'name=value,name=value' is expected.")
        found[key.strip()] = unquote(value.strip())
    if env.get("OTEL_SERVICE_NAME"):
        found["service.name"] = env["OTEL_SERVICE_NAME"]
    return tuple(found.items())


def _resource(trace: TraceInput, key: bytes, process: int | None, environment: Attributes) -> Resource:
    attributes: dict[str, Any] = {"service.name": "qemu", "service.instance.id": key.hex(), "log.file.name": trace.name}
    if process is not None:
        attributes["process.pid"] = process
    domain = _LIBVIRT.search(trace.paths[0])
    if domain is not None:
        attributes["qemu.domain.name"] = domain["domain"]
    attributes.update(environment)
    return Resource(tuple(attributes.items()), SCHEMA_URL)


# --- sinks --------------------------------------------------------------------------------------------


def _sinks(
    options: ConvertOptions, env: MappingType[str, str], traces: Sequence[TraceInput], stack: ExitStack
) -> tuple[list[Sink], Picture | None]:
    """The places that it goes to. With none named it is the environment's endpoint, else the terminal."""
    spool: Outbox | None = None
    if options.spool is not None:
        from otelbridge.otlp.outbox import Outbox as Box  # noqa: PLC0415  # only with --spool

        spool = stack.enter_context(Box(options.spool))
    timed = all(trace.look.stamp or options.assume_start_ns is not None for trace in traces)
    if not options.to and timed and _has_endpoint(env):
        return [_otlp(None, options, env, spool)], None
    sinks: list[Sink] = []
    picture: Picture | None = None
    for to in dict.fromkeys(options.to or ("console",)):
        if to == "console":
            from otelbridge.view.picture import Picture as Drawn  # noqa: PLC0415  # only for a picture

            picture = Drawn()
            sinks.append(picture)
        else:
            sinks.append(_sink(to, options, env, spool))
    return sinks, picture


def _has_endpoint(env: MappingType[str, str]) -> bool:
    """Whether the environment names a destination."""
    if not any(name.startswith("OTEL_EXPORTER_OTLP_") for name in env):
        return False
    from otelbridge.otlp.settings import configured  # noqa: PLC0415  # it brings TLS, which a picture does not need

    return configured(env)


def _sink(to: str, options: ConvertOptions, env: MappingType[str, str], spool: Outbox | None) -> Sink:
    kind, colon, rest = to.partition(":")
    if kind == "file" and colon and rest:
        from otelbridge.otlp.file import FileSink  # noqa: PLC0415  # each kind of sink is imported when it is asked for

        return FileSink(Path(rest))
    if kind == "sdk" and colon and rest:
        from otelbridge.otlp.sdk import SdkSink  # noqa: PLC0415

        return SdkSink(rest, env)
    if kind in ("http", "https", "grpc", "grpcs") and rest.startswith("//"):
        return _otlp(to, options, env, spool)
    raise UsageError(
        f"--to '{to}' is no destination; it should be console, file:DIR, http://…, https://…, grpc://…, grpcs://… or sdk:NAME."
    )


def _otlp(to: str | None, options: ConvertOptions, env: MappingType[str, str], spool: Outbox | None) -> Sink:
    from otelbridge.otlp.delivery import otlp_sink  # noqa: PLC0415

    return otlp_sink(to, env, give_up_s=options.give_up_s, spool=spool)


# --- reading ------------------------------------------------------------------------------------------


class _Reading:
    """One input while it is read: an engine for each process in it."""

    def __init__(self, new_engine: Callable[[int], Engine]) -> None:
        self.new_engine = new_engine
        self.engines: list[Engine] = []
        self.processes = Processes()

    def take(self, batch: Batch) -> None:
        """Hand a batch to the engines of the processes that its rows come from."""
        self.feed(batch, self.processes.split(batch.rows))

    def feed(self, batch: Batch, split: Sequence[list[Row]]) -> None:
        """Hand the rows of each process to its engine; what was only counted goes to the first."""
        while len(self.engines) < max(1, len(self.processes), len(split)):
            self.engines.append(self.new_engine(len(self.engines)))
        self.engines[0].feed(batch._replace(rows=split[0]))
        for engine, rows in zip(self.engines[1:], [*split[1:], *([] for _ in self.engines)], strict=False):
            engine.feed(Batch(batch.window_ns, rows, {}, {}, {}, 0, batch.last_ns))

    def finish(self) -> None:
        """The input is at its end."""
        if not self.engines:
            self.engines.append(self.new_engine(0))
        for engine in self.engines:
            engine.finish()


def _key(trace: TraceInput, process: int) -> bytes:
    return stream_key(*trace.identity, str(process))


def _survey(setup: _Setup, traces: Sequence[TraceInput]) -> Joined | None:
    """A first look at all inputs for which destination belongs to which source; none where there cannot be two of them."""
    if len(traces) == 1 and not _two_sided(traces[0]):
        return None
    from otelbridge.engine.joins import join  # noqa: PLC0415  # only where there are two hosts

    found: list[Seen] = []
    mapping = _of_joins(setup.mapping)
    for number, trace in enumerate(traces):
        found += _seen(setup, trace, mapping, number * _PROCESSES)
    joined = join(found)
    setup.notes.extend(joined.notes)
    return joined


def _two_sided(trace: TraceInput) -> bool:
    """Whether events of both sides of a migration stand in one trace."""
    if trace.format == "simple":
        return False  # it is one process's, and has the names of all events in it
    sides: set[str] = set()
    for path in trace.paths:
        left = _SIDES_APART_BYTES
        blocks = blocks_of(path)
        for block in blocks:
            sides |= two_sided(block, sides)
            left -= len(block) if sides else 0
            if len(sides) > 1 or left < 0:
                break
        blocks.close()
    return len(sides) > 1


def _of_joins(mapping: Mapping) -> Mapping:
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


def _seen(setup: _Setup, trace: TraceInput, mapping: Mapping, first: int) -> list[Seen]:
    """The migrations of one input; its processes are streams of their own, numbered from `first`."""
    from otelbridge.engine.clocks import ARGUMENTS, Listener  # noqa: PLC0415  # only where there are two hosts
    from otelbridge.engine.fits import Log, seen  # noqa: PLC0415

    times = times_of(trace, setup.told)
    decoder = decoder_of(trace, setup.told, mapping.plan.rows)
    indexes: list[LinkIndex] = []
    spans: list[list[FinishedSpan]] = []
    machines = {machine.id for machine in mapping.machines}

    def new_engine(number: int) -> Engine:
        indexes.append(LinkIndex())
        spans.append([])
        stream = Stream(_key(trace, number), trace.role)
        return Engine(mapping, stream, decoder.decode, lambda: None, decoder.saw, index=indexes[number])

    reading = _Reading(new_engine)
    listener = Listener(decoder_of(trace, setup.told, ARGUMENTS).decode)

    def collect() -> None:
        for engine, roots in zip(reading.engines, spans, strict=True):
            roots += [span for span in engine.take_spans() if span.name in machines]
            engine.take_points()

    # Which rows come decides which processes are seen, so where rows tell threads or processes apart they are the same as in
    # the conversion itself.
    needed = mapping.plan.rows
    rows = needed if trace.look.stamp == "iso" else setup.mapping.plan.rows
    plan = Plan({**dict.fromkeys(ARGUMENTS, ()), **rows})
    for batch in Source(trace, setup.told, times, plan, decoder.saw, setup.progress).batches():
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
        whole=not listener.unread and not any(_has_holes(engine.accounting.buckets) for engine in reading.engines),
        steady=not any(engine.late for engine in reading.engines),
    )
    return [
        one
        for number, (roots, index) in enumerate(zip(spans, indexes, strict=True))
        for machine in machines
        for one in seen(first + number, log, roots, machine, index, listener, number)
    ]


def _has_holes(buckets: MappingType[str, int]) -> bool:
    """Whether events are missing in the middle of a log; at its end a killed QEMU leaves one line cut."""
    return bool(buckets.get("malformed") or buckets.get("dropped_by_qemu") or buckets.get("torn", 0) > 1)


def _read(
    setup: _Setup,
    place: int,
    trace: TraceInput,
    joined: Joined | None,
    sinks: Sequence[Sink],
    engine_type: Callable[..., Engine] = Engine,
) -> report.InputReport:
    """One input, from its first byte to the sinks."""
    mapping = setup.mapping
    times = times_of(trace, setup.told)
    decoder = decoder_of(trace, setup.told, mapping.plan.rows)
    source = Source(trace, setup.told, times, mapping.plan, decoder.saw, setup.progress)
    resources: list[Resource] = []
    roles: list[str] = []
    machines = {machine.id for machine in mapping.machines}

    def new_engine(number: int) -> Engine:
        key = _key(trace, number)
        resources.append(_resource(trace, key, reading.processes.ids.get(number), setup.environment))
        stream = Stream(key, trace.role, times.mark, times.uncertainty_ns or None, _coarse(source.resolution_ns))
        joins = joined and joined.joins
        return engine_type(mapping, stream, decoder.decode, lambda: decoder.version_range, decoder.saw, joins)

    reading = _Reading(new_engine)

    def deliver() -> None:
        for number, (engine, resource) in enumerate(zip(reading.engines, resources, strict=True)):
            spans, points = engine.take_spans(), engine.take_points()
            if joined and (shifts := joined.shifts.get(place * _PROCESSES + number)):
                spans, points = shifts.spans(spans), shifts.points(points)
            roles.extend(_roles(spans, machines))
            _hand(sinks, resource, spans, points)

    for batch in source.batches():
        reading.take(batch)
        deliver()
    open_spans = sum(engine.open for engine in reading.engines)
    reading.finish()
    deliver()
    setup.notes.extend([times.note] if times.note else [])
    setup.notes.extend(f"{trace.paths[0]}: {said}" for said in source.notes)
    _note(setup.notes, trace, reading)
    return report.InputReport(
        paths=trace.paths,
        format=trace.format,
        units=FORMATS[trace.format].unit,
        role=trace.role or next(iter(roles), None),
        bytes=source.bytes,
        account=report.summed([engine.accounting for engine in reading.engines]),
        points_made=sum(engine.points_made for engine in reading.engines),
        open=open_spans,
        qemu_version=decoder.version_range,
        processes=len(reading.engines),
        gaps=tuple(source.gaps),
        timed=times.mark != "none",
    )


def _coarse(resolution_ns: int) -> int | None:
    """A resolution that durations suffer from, so that spans must tell it."""
    return resolution_ns if resolution_ns > _FINE_NS else None


def _roles(spans: Sequence[FinishedSpan], machines: set[str]) -> list[str]:
    return [str(v) for span in spans if span.name in machines for k, v in span.attributes if k == "qemu.migration.role"]


def _hand(sinks: Sequence[Sink], resource: Resource, spans: Sequence[FinishedSpan], points: Sequence[MetricPoint]) -> None:
    for sink in sinks:
        if spans:
            sink.spans(resource, spans)
        if points:
            sink.points(resource, points)


def _note(notes: list[str], trace: TraceInput, reading: _Reading) -> None:
    """What the user should know of an input beside its losses."""
    name = trace.paths[0]
    if late := sum(engine.late for engine in reading.engines):
        notes.append(
            f"{name}: {late} events stand more than 50 ms too late in the file; they were taken as early as their place allows."
        )
    if mixed := sum(engine.mixed for engine in reading.engines):
        notes.append(
            f"{name}: in {mixed} migrations events of both hosts stand, and no thread ids tell the processes apart, "
            "so their spans are mixed. Give each QEMU a file of its own."
        )
    overflowed = sorted({metric for engine in reading.engines for metric in engine.overflowed})
    words = "has too many series; the rest is in one with otel.metric.overflow=true."
    notes += [f"{name}: the metric {metric} {words}" for metric in overflowed]
    if len(reading.engines) > 1 and not reading.processes.ids:
        notes.append(
            f"{name}: {len(reading.engines)} processes seem to have written into it; which thread is whose is a guess."
        )


# --- conclusion -----------------------------------------------------------------------------------------


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


# --- watching -------------------------------------------------------------------------------------------


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

    setup = _set_up(_each_once(options), env, progress)
    traces = _inputs(setup)
    joined = _survey(setup, traces)
    reports = []
    for place, trace in enumerate(traces):
        reads(trace)
        reports.append(_read(setup, place, trace, joined, sinks, partial(ObservedEngine, observer)))
    _some_events(traces, reports)
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
    setup = _set_up(_each_once(options), env, progress)
    plan = Plan(dict.fromkeys(setup.told.catalogue.names if events is None else events, ()))
    for trace in _inputs(setup):
        times = times_of(trace, setup.told)
        for batch in Source(trace, setup.told, times, plan, lambda _event: None, setup.progress).batches():
            yield from ((trace, row) for row in batch.rows)


# --- mapping files ----------------------------------------------------------------------------------------


class CaseResult(NamedTuple):
    """What came of one test of a mapping file; `differences` is empty if it is as expected."""

    test: MappingTest
    differences: tuple[str, ...]


def run_mapping_tests(mapping: Mapping, catalogue: Catalogue, paths: Sequence[str]) -> list[CaseResult]:
    """Run the `tests:` of these files, through the real reader and engine with all rules."""
    return [CaseResult(test, tuple(_tested(mapping, catalogue, test))) for test in mapping.tests if test.path in paths]


def _tested(mapping: Mapping, catalogue: Catalogue, test: MappingTest) -> list[str]:
    decoder = TextDecoder(catalogue, mapping.plan.rows, test.qemu_version)
    sums = TextDecoder(catalogue, mapping.plan.sums, test.qemu_version)
    reader = LogReader(mapping.plan, catalogue.is_event, sums.decode)
    engine = Engine(
        mapping, Stream(stream_key(test.name), test.role), decoder.decode, lambda: decoder.version_range, decoder.saw
    )
    text = test.events if test.events.endswith("\n") else test.events + "\n"
    try:
        for batch in (*reader.feed(text.encode("utf-8", "surrogateescape")), *reader.finish()):
            engine.feed(batch)
    except FormatError as error:
        return [str(error)]
    engine.settle()
    open_spans = engine.open
    engine.finish()
    wrong = [
        f"{engine.accounting.buckets[bucket]} lines are {bucket}"
        for bucket in ("malformed", "torn")
        if engine.accounting.buckets[bucket]
    ]
    return wrong + differences(test, engine.take_spans(), _scope_of(mapping, test.path), engine.take_points(), open_spans)


def _scope_of(mapping: Mapping, path: str) -> str:
    scopes = [rule.scope.name for rule in mapping.spans if rule.path == path]
    scopes += [rule.scope.name for rule in mapping.machines if rule.path == path]
    scopes += [rule.metric.scope.name for rule in mapping.metrics if rule.path == path]
    return scopes[0] if scopes else ""
