"""`otelbridge run`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otelbridge.cli.options import PATH, catalogue_of
from otelbridge.cli.terminal import tell
from otelbridge.errors import UsageError

if TYPE_CHECKING:
    from otelbridge.service.config import ServiceConfig

_RUN_EXAMPLES = """
\b
Examples:
  otelbridge run --config otelbridge.yaml              what the file says
  otelbridge run --config otelbridge.yaml --check      what is wrong in it, or what it comes to
  otelbridge run '/var/log/libvirt/qemu/*.log'         no file; OTEL_EXPORTER_OTLP_* say where it goes

\b
Exit codes:
  0 ended by SIGTERM, all delivered or safe in the outbox; with --check: all is well
  2 wrong command line               3 problems in the configuration, a mapping or a catalogue
  6 the outbox cannot be used        130 ended by SIGINT, as cleanly as by SIGTERM
"""


INTERRUPTED = 130


@click.command("run", epilog=_RUN_EXAMPLES)
@click.argument("files", nargs=-1, type=click.Path())
@click.option(
    "--config", type=PATH, metavar="FILE", help="The configuration; deploy/otelbridge.yaml in the sources has all of it."
)
@click.option("--check", is_flag=True, help="Only check it, and print it with every default filled in and secrets hidden.")
def run_command(files: tuple[str, ...], config: Path | None, check: bool) -> None:
    """Follow traces as they grow, for months, and deliver what they say.

    With FILES instead of a configuration these are followed from their start, and the OTEL_* variables say where it goes.
    """
    found = _configured(files, config)
    if check:
        _check(found)
    else:
        _serve(found, lambda: _configured(files, config))


def _configured(files: tuple[str, ...], config: Path | None) -> ServiceConfig:
    if config is None:
        from otelbridge.service.config.arguments import config_of_arguments  # noqa: PLC0415  # `--help` must not wait for it

        return config_of_arguments(files, os.environ)
    if files:
        raise UsageError(f"'{files[0]}' and --config do not go together; write it into 'inputs' of '{config}'.")
    from otelbridge.service.config.parse import load_config  # noqa: PLC0415

    return load_config(config, os.environ)


def _check(config: ServiceConfig) -> None:
    """Print what the configuration comes to, if its mappings and its catalogue can be used as well."""
    from otelbridge.mapping import load_with_shipped  # noqa: PLC0415
    from otelbridge.service.config.effective import effective  # noqa: PLC0415

    load_with_shipped(config.mappings, catalogue_of(config.catalogue))
    tell(effective(config).splitlines())


def _serve(config: ServiceConfig, load: Callable[[], ServiceConfig]) -> None:
    """Run the service until it is told to end."""
    from otelbridge.service.serve import serve  # noqa: PLC0415

    try:
        serve(config, load, os.environ)
    except KeyboardInterrupt:
        # Nothing is lost by it, which `main` would say.
        raise click.exceptions.Exit(INTERRUPTED) from None
