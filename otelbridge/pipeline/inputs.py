"""The inputs of a conversion: opened, told apart, put together."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from otelbridge.engine.ids import stream_key
from otelbridge.engine.order import HORIZON_NS
from otelbridge.errors import FormatError, UsageError
from otelbridge.pipeline.options import ConvertOptions, Setup
from otelbridge.readers.detect import detect, look_at
from otelbridge.readers.formats import FORMATS
from otelbridge.readers.inputs import TraceInput, base_name, group_inputs
from otelbridge.readers.open import HEAD_BYTES, open_input, shown
from otelbridge.readers.rotated import chains
from otelbridge.readers.source import first_of, opened, times_in
from otelbridge.records import Attributes, Resource


def inputs_of(setup: Setup) -> list[TraceInput]:
    """Which files are to be read as which traces; every file was opened once, so none is missing later."""
    options = setup.options
    paths = list(dict.fromkeys([*options.files, *options.sources, *options.destinations]))
    if not paths:
        raise UsageError("There is nothing to convert; name the log files, for example: otelbridge convert src.log dst.log")
    told = setup.told
    formats: dict[str, str] = {}
    known_head_of = lru_cache(maxsize=2)(head_of)
    for path in paths:
        head = known_head_of(path)
        if not head and len(paths) == 1:
            raise FormatError(f"{shown(path)} is empty, so there is nothing to convert.", path=path)
        formats[path] = _format(setup, path, head)
    older = _older_parts(setup, paths, formats, known_head_of)

    def whole_head_of(path: str) -> bytes:
        head = b""
        for part in (*older.get(path, ()), path):
            if len(head) < HEAD_BYTES:
                head += known_head_of(part)
        return head[:HEAD_BYTES]

    traces = group_inputs(
        options.files, options.sources, options.destinations, whole_head_of, formats, told.catalogue.is_event,
        lambda path: first_of((*older.get(path, ()), path), formats[path], told), older,
    )  # fmt: skip
    unstamped = [trace.paths[0] for trace in traces if trace.look.events and trace.look.stamp is None]
    if unstamped and options.assume_start_ns is None and not _only_console(options):
        raise UsageError(
            f"The events of {shown(unstamped[0])} carry no time stamps, so no span of it has a time that could be delivered. "
            "Run QEMU with '-msg timestamp=on', or give the moment of the first line with --assume-start TIME. "
            "Nothing was converted."
        )
    return traces


def _older_parts(
    setup: Setup, paths: Sequence[str], formats: dict[str, str], head_of_it: Callable[[str], bytes]
) -> dict[str, tuple[str, ...]]:
    """For each log that was given with rotated parts of it, those parts, oldest first."""
    found = {}
    for parts in chains([path for path in paths if path != "-" and not Path(path).is_dir()]):
        words = {formats[path] for path in parts if _is_told(setup, formats[path], head_of_it(path))}
        if len(words) > 1 or any(FORMATS[word].unit != "lines" for word in words) or len(_roles_of(setup, parts)) > 1:
            continue
        format_ = next(iter(words), "log")
        formats.update(dict.fromkeys(parts, format_))
        times = {path: _times_of(setup, path, format_, head_of_it(path)) for path in parts}
        # Whoever cuts a log into pieces counts upwards.
        in_time = next((order for order in (parts, parts[::-1]) if _in_time([times[path] for path in order])), None)
        names = ", ".join(base_name(path) for path in in_time or parts)
        if in_time is not None:
            *before, last = in_time
            setup.notes.append(f"{last}: read as one log with its rotated parts, in this order: {names}.")
            found[last] = tuple(before)
        else:
            setup.notes.append(
                f"{parts[-1]}: by their names these are parts of one log, but not by the times in them, so each is read as a "
                f"log of its own: {names}. If they are one, put them together first: cat {shlex.join(parts)} > one.log"
            )
    return found


def _is_told(setup: Setup, format_: str, head: bytes) -> bool:
    """Whether the first bytes tell the format: what has no event yet is taken for a log."""
    return bool(head) and (format_ != "log" or look_at(head, setup.told.catalogue.is_event).events)


def _roles_of(setup: Setup, paths: Sequence[str]) -> set[str]:
    options = setup.options
    told = {"source": options.sources, "destination": options.destinations}
    return {role for role, named in told.items() if not set(paths).isdisjoint(named)}


def _times_of(setup: Setup, path: str, format_: str, head: bytes) -> tuple[int, int] | None:
    """The times of the first and the last event of a file; None where nothing tells."""
    if format_ == "log" and look_at(head, setup.told.catalogue.is_event).stamp is None:
        return None
    begin = times_in(head, path, format_, setup.told)
    end = times_in(tail_of(path), path, format_, setup.told)
    return (begin[0], end[1]) if begin and end else None


def _in_time(times: Sequence[tuple[int, int] | None]) -> bool:
    """Whether each part begins when the one before has ended, but for what threads write out of order."""
    known = [one for one in times if one is not None]
    return all(end_ns <= begin_ns + HORIZON_NS for (_, end_ns), (begin_ns, _) in pairwise(known))


def head_of(path: str) -> bytes:
    """The first bytes of an input."""
    source = opened(path)
    try:
        return source.head
    finally:
        source.close()


def tail_of(path: str) -> bytes:
    """The last bytes of an input."""
    source = open_input(path, again=True)
    try:
        return source.tail()
    finally:
        source.close()


def _only_console(options: ConvertOptions) -> bool:
    return all(to == "console" for to in options.to)


def _format(setup: Setup, path: str, head: bytes) -> str:
    """The format of an input: what the user said, else what its first bytes show."""
    if setup.options.format != "auto":
        return setup.options.format
    if not head:
        return "log"
    found = detect(head, path, setup.told.catalogue.is_event)
    if setup.options.verbose:
        setup.notes.append(f"{path}: read as {found.format}, since {found.why}.")
    return found.format


SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"


# /var/log/libvirt/qemu/web-1.log
_LIBVIRT = re.compile(r"libvirt/qemu/(?P<domain>[^/]+?)\.log(?:\.\d+)?(?:\.gz|\.xz)?$")


def resource_of(trace: TraceInput, key: bytes, process: int | None, environment: Attributes) -> Resource:
    """What is said of a process of an input; the environment's words win."""
    attributes: dict[str, Any] = {"service.name": "qemu", "service.instance.id": key.hex(), "log.file.name": trace.name}
    if process is not None:
        attributes["process.pid"] = process
    attributes.update(libvirt_attributes(trace.paths[0]))
    attributes.update(environment)
    return Resource(tuple(attributes.items()), SCHEMA_URL)


def libvirt_attributes(path: str) -> Attributes:
    """What the name of a log says in libvirt's folder: the domain. Nothing elsewhere."""
    found = _LIBVIRT.search(path)
    return (("qemu.domain.name", found["domain"]),) if found is not None else ()


def key_of(trace: TraceInput, process: int) -> bytes:
    """What the ids of a process of an input are derived from."""
    return stream_key(*trace.identity, str(process))
