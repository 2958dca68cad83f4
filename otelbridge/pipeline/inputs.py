"""The inputs of a conversion: opened, told apart, put together."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from otelbridge.engine.ids import stream_key
from otelbridge.errors import FormatError, UsageError
from otelbridge.pipeline.options import ConvertOptions, Setup
from otelbridge.readers.detect import detect
from otelbridge.readers.inputs import TraceInput, group_inputs
from otelbridge.readers.open import shown
from otelbridge.readers.source import first_of, opened
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
    traces = group_inputs(
        options.files, options.sources, options.destinations, known_head_of, formats, told.catalogue.is_event,
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


def head_of(path: str) -> bytes:
    """The first bytes of an input."""
    source = opened(path)
    try:
        return source.head
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
