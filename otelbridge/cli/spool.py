"""`otelbridge spool`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from otelbridge.cli.options import PATH, duration_s
from otelbridge.cli.terminal import show_warnings

_NOT_DELIVERED = 5


@click.group("spool")
def spool_group() -> None:
    """Look at and send what is not delivered yet: of `convert --spool DIR`, or of the outbox of a stopped service."""


def _spool_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument("folder", type=PATH, metavar="DIR")(command)


@spool_group.command()
@_spool_argument
def verify(folder: Path) -> None:
    """Check every request of the spool against its checksum."""
    from otelbridge.otlp.outbox import Outbox  # noqa: PLC0415

    with Outbox.existing(folder) as outbox:
        problems, counts = outbox.verify(), outbox.counts()
    for problem in problems:
        click.echo(problem)
    click.echo(f"{counts.pending} requests wait, {counts.rejected} were refused and are kept; {len(problems)} problems.")
    if problems:
        raise click.exceptions.Exit(6)


@spool_group.command()
@_spool_argument
@click.option(
    "--rejected", is_flag=True, help="What was refused instead: with the destination and its words, a JSON object a line."
)
def show(folder: Path, rejected: bool) -> None:
    """Print what waits in the spool as OTLP/JSON lines."""
    from otelbridge.otlp.replay import show_rejected, show_spool  # noqa: PLC0415

    for line in show_rejected(folder) if rejected else show_spool(folder):
        click.echo(line)


@spool_group.command()
@_spool_argument
@click.option("--to", metavar="WHERE", help="Another destination than the one it was meant for: http(s)://… or grpc(s)://….")
@click.option(
    "--give-up", "give_up_s", callback=duration_s, default="30s", show_default=True, metavar="DURATION",
    help="How long to go on trying a destination that takes nothing.",
)  # fmt: skip
def replay(folder: Path, to: str | None, give_up_s: float) -> None:
    """Send what waits in the spool again, as the same bytes; what is accepted is removed at once."""
    from otelbridge.otlp.replay import replay_spool  # noqa: PLC0415
    from otelbridge.view.text import clean  # noqa: PLC0415

    show_warnings()
    replayed = replay_spool(folder, to=to, env=os.environ, give_up_s=give_up_s)
    left = 0
    for signal, what in (("traces", "spans"), ("metrics", "points")):
        outcome = replayed.outcomes[signal]  # type: ignore[index]
        left += outcome.spooled + outcome.rejected
        click.echo(
            f"{outcome.delivered} {what} delivered, {outcome.spooled} still wait, {outcome.rejected} were refused.", err=True
        )
        for reason in outcome.reasons:
            click.echo(f"note: {clean(reason)}", err=True)
    for problem in replayed.damaged:
        click.echo(f"lost: {clean(problem)}", err=True)
    if left or replayed.damaged:
        raise click.exceptions.Exit(_NOT_DELIVERED)


@spool_group.command()
@_spool_argument
@click.option("--rejected", is_flag=True, help="Only what was refused.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop(folder: Path, rejected: bool, yes: bool) -> None:
    """Throw away the requests that are in the spool. A service's positions in its inputs stay."""
    from otelbridge.otlp.outbox import Outbox  # noqa: PLC0415

    with Outbox.existing(folder) as outbox:
        counts = outbox.counts()
        waiting = 0 if rejected else counts.pending
        if not yes:
            what = f"{waiting} requests that wait and {counts.rejected} that were refused"
            click.confirm(f"{what} will be gone from {folder}. Go on?", abort=True, err=True)
        dropped = outbox.drop(only_rejected=rejected)
    click.echo(f"Dropped {dropped} requests.")
