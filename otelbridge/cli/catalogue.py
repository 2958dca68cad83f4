"""`otelbridge catalogue`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otelbridge.cli.options import (
    PATH,
    catalogue_of,
    catalogue_option,
    complete_event,
    declarations_of,
    known_event,
    mapping_option,
    version_of,
    version_option,
)
from otelbridge.cli.terminal import tell
from otelbridge.errors import CatalogueError, UsageError

if TYPE_CHECKING:
    from otelbridge.catalogue import Catalogue
    from otelbridge.mapping.fit import Fit
    from otelbridge.mapping.uses import Use
    from otelbridge.records import EventSpec


@click.group("catalogue")
def catalogue_group() -> None:
    """Look into what is known of QEMU's trace events."""


_SHOW_EXAMPLES = """
\b
Examples:
  otelbridge catalogue show migrate_transferred       how each version declares it
  otelbridge catalogue show --qemu-version 7.2        every migration event of QEMU 7.2
"""


@catalogue_group.command(epilog=_SHOW_EXAMPLES)
@click.argument("event", required=False, shell_complete=complete_event)
@version_option
@catalogue_option
def show(event: str | None, qemu_version: str | None, catalogue: Path | None) -> None:
    """Show how events are declared: their arguments, the format of their text, and in which versions of QEMU."""
    from otelbridge.catalogue.declared import events_of, events_of_file  # noqa: PLC0415

    known, version = catalogue_of(catalogue), version_of(qemu_version)
    every = events_of_file(known) if catalogue else events_of(known, version)
    names = [known_event(event, known)] if event else every
    for name in names:
        tell(_declarations(name, known, version))


def _declarations(event: str, known: Catalogue, version: str | None) -> Iterator[str]:
    from otelbridge.catalogue.declared import declaration_text, of_version  # noqa: PLC0415

    specs = known.variants(event)
    if not specs:
        raise UsageError(f"Of '{event}' only the name is known; give that QEMU's trace-events-all with --catalogue.")
    if version is not None:
        only = of_version(known, event, version)
        if only is None:
            there = ", ".join(_versions(spec) for spec in specs)
            raise UsageError(f"QEMU {version} has no event '{event}'; it is in {there}.")
        specs = (only,)
    for spec in specs:
        yield f"{declaration_text(spec)}  # {_versions(spec)}"


def _versions(spec: EventSpec) -> str:
    if spec.first is None and spec.last is None:
        return "the file"
    return f"{spec.first}" if spec.first == spec.last else f"{spec.first} - {spec.last}"


@catalogue_group.command(epilog="\b\nExample:\n  otelbridge catalogue diff 7.2 8.2")
@click.argument("old", metavar="VERSION")
@click.argument("new", metavar="VERSION")
def diff(old: str, new: str) -> None:
    """Show which migration events the second version of QEMU declares otherwise than the first."""
    from otelbridge.catalogue import builtin, resolve_version  # noqa: PLC0415
    from otelbridge.catalogue.declared import declaration_text  # noqa: PLC0415
    from otelbridge.catalogue.declared import diff as differences  # noqa: PLC0415

    before, after = resolve_version(old), resolve_version(new)
    found = differences(builtin(), before, after)
    tell(f"+ {declaration_text(spec)}" for spec in found.added)
    tell(f"- {declaration_text(spec)}" for spec in found.removed)
    for one, other in found.changed:
        tell([f"< {declaration_text(one)}", f"> {declaration_text(other)}"])
    counts = f"{len(found.added)} added, {len(found.removed)} removed, {len(found.changed)} changed"
    tell([f"QEMU {before} to {after}: {counts}."])


_CHECK_EXAMPLE = """
\b
Example:
  otelbridge catalogue check /usr/share/qemu/trace-events-all

\b
Exit codes:
  0 every rule can work      3 some rule can never fire
"""


@catalogue_group.command(epilog=_CHECK_EXAMPLE)
@click.argument("file", type=PATH)
@mapping_option
def check(file: Path, mappings: tuple[Path, ...]) -> None:
    """Tell whether the rules work with a QEMU, by its trace-events-all: what breaks first, then what is told less of."""
    from otelbridge.catalogue import builtin  # noqa: PLC0415
    from otelbridge.mapping import load_with_shipped  # noqa: PLC0415
    from otelbridge.mapping.fit import fit  # noqa: PLC0415

    declarations = declarations_of(file)
    found = fit(load_with_shipped(mappings, builtin().joined(declarations)), declarations.specs)
    tell(_fit_lines(found))
    if found.dead:
        raise click.exceptions.Exit(CatalogueError.exit_code)


def _fit_lines(found: Fit) -> Iterator[str]:
    from otelbridge.view.text import count_text  # noqa: PLC0415

    for dead in found.dead:
        lacks = " and ".join(f"{event}{_since(event)}" for event in dead.events)
        yield f"{dead.kind} {dead.id} ({dead.path}) can never fire: {dead.needs} lacks {lacks}"
    for changed in found.changed:
        lost = f"; rules read {', '.join(changed.lost)}, which it does not have" if changed.lost else ""
        yield f"{changed.event} is declared otherwise than in any version that is known{lost}: {_used(changed.uses)}"
        yield f"  here:  {changed.declared}"
        yield f"  known: {changed.known}"
    for lacking in found.lacking:
        yield f"{lacking.event}{_since(lacking.event)} is not declared; the rules do without: {_used(lacking.uses)}"
    yield (
        f"{count_text(found.used, 'event')} of the rules declared, {len(found.lacking)} lacking, {len(found.changed)} changed; "
        f"{count_text(len(found.dead), 'rule')} can never fire."
    )


def _since(event: str) -> str:
    """The versions that have an event, oldest first."""
    from otelbridge.catalogue import builtin  # noqa: PLC0415

    specs = builtin().variants(event)
    if not specs:
        return ""
    first, last = specs[-1].first, specs[0].last
    return f" (QEMU {first})" if first == last else f" (QEMU {first} - {last})"


def _used(uses: Sequence[Use]) -> str:
    return ", ".join(f"{use.how} of {use.rule}" for use in uses)
