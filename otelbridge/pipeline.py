"""Plain wiring: files -> readers -> engines -> sinks -> accounting."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping as MappingType, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otelbridge import report
from otelbridge.catalogue import Catalogue, TextDecoder
from otelbridge.engine import Engine, Join, LinkIndex, Stream
from otelbridge.engine.ids import stream_key
from otelbridge.engine.joins import Seen, join, seen
from otelbridge.engine.processes import Processes
from otelbridge.errors import FormatError, UsageError
from otelbridge.mapping import load_with_shipped
from otelbridge.mapping.rules import Mapping
from otelbridge.otlp import Sink
from otelbridge.readers import FORMATS
from otelbridge.readers.inputs import TraceInput, find_inputs
from otelbridge.readers.merge import merged
from otelbridge.readers.open import Input, open_input
from otelbridge.records import Attributes, Batch, Outcome, Resource, Signal

if TYPE_CHECKING:
    from otelbridge.view import Picture

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """What `convert` was asked to do; the names are those of its options."""

    files: tuple[str, ...]
    sources: tuple[str, ...] = ()
    destinations: tuple[str, ...] = ()
    format: str = "auto"
    mappings: tuple[Path, ...] = ()
    catalogue: Path | None = None
    qemu_version: str | None = None
    to: tuple[str, ...] = ()
    accounting: Path | None = None
    assume_start_ns: int | None = None
    clock: Path | None = None
    give_up_s: float = 30.0
    spool: Path | None = None


@dataclass(frozen=True, slots=True)
class Conversion:
    """What came of it: the accounting as it is written, the exit code, sentences for the user, and the waterfall's data."""

    accounting: dict[str, Any]
    exit_code: int
    notes: tuple[str, ...]
    picture: Picture | None


@dataclass(frozen=True, slots=True)
class Setup:
    """What all streams of a conversion share."""

    options: ConvertOptions
    catalogue: Catalogue
    mapping: Mapping
    environment: Attributes


@dataclass(slots=True)
class Reading:
    """One input while it is read: a decoder for all of it, an engine for each process in it."""

    trace: TraceInput
    decoder: TextDecoder
    new_engine: Callable[[int], Engine]
    engines: list[Engine] = field(default_factory=list)
    processes: Processes = field(default_factory=Processes)
    gaps: list[str] = field(default_factory=list)
    bytes: int = 0

    def take(self, batch: Batch) -> None:
        """Hand a batch to the engines of the processes that its rows come from."""
        while len(self.engines) < max(1, len(self.processes)):
            self.engines.append(self.new_engine(len(self.engines)))
        split: list[list] = [[] for _ in self.engines]
        for row in batch.rows:
            number = self.processes.of(row)
            if number == len(split):
                split.append([])
                self.engines.append(self.new_engine(number))
            split[number].append(row)
        for number, engine in enumerate(self.engines):
            if number == 0:
                engine.feed(batch._replace(rows=split[0]))
            else:
                engine.feed(Batch(batch.window_ns, split[number], {}, {}, {}, 0, batch.last_ns))


def convert(options: ConvertOptions, *, env: MappingType[str, str], progress: Progress) -> Conversion:
    """Read the inputs to their ends and deliver what comes out of them.

    Raises:
        OtelbridgeError: Nothing was converted; what was found, and what to do.
    """
    setup, notes = _set_up(options, env)
    traces = _inputs(options, setup)
    sinks, picture = _sinks(options, env, traces)
    try:
        joins = _survey(setup, traces) if len(traces) > 1 else {}
        reports = [_read(setup, trace, joins, sinks, progress) for trace in traces]
    finally:
        outcomes = [sink.close() for sink in sinks]
    return _concluded(options, reports, report.combined(outcomes), notes, picture)
