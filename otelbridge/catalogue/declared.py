"""Which events a QEMU declares, and how: one version of it, or a trace-events file; and how two versions differ."""

from __future__ import annotations

from typing import NamedTuple

from otelbridge.catalogue.catalogue import Catalogue, builtin
from otelbridge.catalogue.versions import between
from otelbridge.records import EventSpec

_FILE = (None, None)
"""First and last version of what is declared in a file."""


def of_version(catalogue: Catalogue, event: str, version: str | None) -> EventSpec | None:
    """How a version declares an event, None where it does not have it; without a version the newest declaration."""
    if version is None:
        return next(iter(catalogue.variants(event)), None)
    wanted = between(version, version)
    return next((spec for spec in catalogue.variants(event) if between(spec.first, spec.last) & wanted), None)


def events_of(catalogue: Catalogue, version: str | None = None) -> list[str]:
    """The events whose declarations are known, of one version or of all, by name."""
    return sorted(event for event in catalogue.declared() if of_version(catalogue, event, version) is not None)


def events_of_file(catalogue: Catalogue) -> list[str]:
    """The events that a trace-events file put into the catalogue, by name: their declarations name no version."""
    newest = {event: catalogue.variants(event)[0] for event in events_of(catalogue)}
    return [event for event, spec in newest.items() if (spec.first, spec.last) == _FILE]


def migration_events(catalogue: Catalogue, version: str | None, *, of_file: bool) -> list[str]:
    """The events that migration mappings are about: of a version, of all, or of the file that is in the catalogue.

    Of a file those of migration count, and those of no part of QEMU that is known; by name.
    """
    if not of_file:
        return events_of(catalogue, version)
    known = builtin()
    return [event for event in events_of_file(catalogue) if known.variants(event) or not known.is_event(event)]


class Diff(NamedTuple):
    """What one version declares otherwise than another; each in the order of names."""

    added: tuple[EventSpec, ...]
    removed: tuple[EventSpec, ...]
    changed: tuple[tuple[EventSpec, EventSpec], ...]


def diff(catalogue: Catalogue, old: str, new: str) -> Diff:
    """How the version `new` differs from `old`."""
    pairs = [(of_version(catalogue, event, old), of_version(catalogue, event, new)) for event in sorted(catalogue.declared())]
    return Diff(
        tuple(after for before, after in pairs if before is None and after is not None),
        tuple(before for before, after in pairs if before is not None and after is None),
        tuple(
            (before, after)
            for before, after in pairs
            if before is not None and after is not None and not same_form(before, after)
        ),
    )


def same_form(one: EventSpec, other: EventSpec) -> bool:
    """Whether two declarations have the same arguments and the same format."""
    return (one.arguments, one.format) == (other.arguments, other.format)


def declaration_text(spec: EventSpec) -> str:
    """The declaration as a line of a trace-events file, conversions as they are on a 64-bit Linux host."""
    arguments = ", ".join(f"{a.ctype}{'' if a.ctype.endswith('*') else ' '}{a.name}" for a in spec.arguments)
    text = spec.format.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'{spec.name}({arguments or "void"}) "{text}"'
