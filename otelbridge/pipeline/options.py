"""What a conversion is asked to do, and what all of it shares."""

from __future__ import annotations

import os
from collections.abc import Mapping as MappingType
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from otelbridge.catalogue import Catalogue, builtin, resolve_version
from otelbridge.errors import UsageError
from otelbridge.mapping import Mapping, load_with_shipped
from otelbridge.readers.source import Progress, Told
from otelbridge.records import Attributes

if TYPE_CHECKING:
    from otelbridge.catalogue.trace_events import Declarations


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
    jobs: int = 1


class Setup(NamedTuple):
    """What all streams of a conversion share."""

    options: ConvertOptions
    told: Told
    mapping: Mapping
    environment: Attributes
    notes: list[str]
    progress: Progress


def set_up(options: ConvertOptions, env: MappingType[str, str], progress: Progress) -> Setup:
    """What all inputs of a conversion share: mappings, catalogue, environment.

    Raises:
        OtelbridgeError: The mappings, the catalogue or a version are not as they should be.
    """
    notes: list[str] = []
    told = told_of(options, notes)
    return Setup(
        options, told, load_with_shipped(options.mappings, told.catalogue), environment_attributes(env), notes, progress
    )


def told_of(options: ConvertOptions, notes: list[str]) -> Told:
    """What the options say of all inputs; what was skipped in a catalogue goes to `notes`.

    Raises:
        OtelbridgeError: The catalogue or the version are not as they should be.
    """
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


def each_once(options: ConvertOptions) -> ConvertOptions:
    """The options with one name for each file: src.log, ./src.log and a link to it are the same log."""
    names: dict[str, str] = {}

    def first(path: str) -> str:
        return names.setdefault("-" if path == "-" else os.path.realpath(path), path)

    files, sources, destinations = (
        tuple(map(first, paths)) for paths in (options.files, options.sources, options.destinations)
    )
    return options._replace(files=files, sources=sources, destinations=destinations)


def environment_attributes(env: MappingType[str, str]) -> Attributes:
    """The attributes of OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME.

    Raises:
        UsageError: The former is no list of `name=value`.
    """
    found: dict[str, str] = {}
    for part in filter(None, env.get("OTEL_RESOURCE_ATTRIBUTES", "").split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"OTEL_RESOURCE_ATTRIBUTES has '{part}', but 'name=value,name=value' is expected.")
        found[key.strip()] = unquote(value.strip())
    if env.get("OTEL_SERVICE_NAME"):
        found["service.name"] = env["OTEL_SERVICE_NAME"]
    return tuple(found.items())
