"""What options of several commands take, and how their text is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otelbridge.errors import UsageError

if TYPE_CHECKING:
    from otelbridge.catalogue import Catalogue
    from otelbridge.catalogue.trace_events import Declarations

PATH = click.Path(path_type=Path)
catalogue_option = click.option("--catalogue", type=PATH, metavar="FILE", help="The trace-events file to check against.")
mapping_option = click.option(
    "--mapping", "mappings", multiple=True, type=PATH, metavar="PATH", help="A mapping of your own, or a folder of them."
)
version_option = click.option("--qemu-version", metavar="VERSION", help="Of this version of QEMU alone, for example 7.2.")


def duration_s(_context: click.Context, _parameter: click.Parameter, text: str) -> float:
    """Seconds, from a duration as a user writes it."""
    from otelbridge.durations import duration_ns  # noqa: PLC0415

    found = duration_ns(text)
    if found is None:
        raise click.BadParameter(f"'{text}' is no duration; a number with its unit is expected: 500ms, 30s, 10m.")
    return found / 1e9


def moment_ns(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """UTC nanoseconds, from an ISO time; without a zone it is UTC."""
    if text is None:
        return None
    from datetime import UTC, datetime, timedelta  # noqa: PLC0415

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"'{text}' is no time; for example 2026-01-31T03:00:00Z is expected.") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def offset_ns(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """Nanoseconds, from a number of them or a duration; may be negative."""
    if text is None:
        return None
    from otelbridge.readers.clock import offset_of  # noqa: PLC0415

    found = offset_of(text)
    if found is None:
        raise click.BadParameter(
            f"'{text}' is no duration; for example 1795405703.481433342s, or nanoseconds alone, is expected."
        )
    return found


def catalogue_of(path: Path | None) -> Catalogue:
    """The built-in catalogue, or that of a file; what was skipped in the file is said."""
    from otelbridge.pipeline import load_catalogue  # noqa: PLC0415

    notes: list[str] = []
    found = load_catalogue(path, notes)
    _tell(notes)
    return found


def declarations_of(path: Path) -> Declarations:
    """What a trace-events file declares; what was skipped in the file is said."""
    from otelbridge.pipeline import load_declarations  # noqa: PLC0415

    notes: list[str] = []
    found = load_declarations(path, notes)
    _tell(notes)
    return found


def _tell(notes: Sequence[str]) -> None:
    from otelbridge.view.text import clean  # noqa: PLC0415

    for note in notes:
        click.echo(f"note: {clean(note)}", err=True)


def version_of(text: str | None) -> str | None:
    """The known release that a user names."""
    from otelbridge.catalogue import resolve_version  # noqa: PLC0415

    return resolve_version(text) if text else None


def complete_event(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """The known events that begin so, for a shell."""
    from otelbridge.catalogue import builtin  # noqa: PLC0415

    return sorted(event for event in builtin().declared() if event.startswith(begun))


def known_event(name: str, catalogue: Catalogue) -> str:
    """The event of that name.

    Raises:
        UsageError: QEMU has none; with the one that it is most like.
    """
    if catalogue.is_event(name):
        return name
    close = catalogue.closest(name)
    help_ = f"did you mean '{close}'?" if close else "the names are in QEMU's trace-events files; give others with --catalogue."
    raise UsageError(f"There is no event '{name}'; {help_}")
