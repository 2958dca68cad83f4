"""`otelbridge convert`."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otelbridge.cli.options import PATH, duration_s, moment_ns, offset_ns
from otelbridge.cli.terminal import Progress, mute, show_warnings
from otelbridge.errors import UsageError

if TYPE_CHECKING:
    from otelbridge.pipeline import Conversion

_CONVERT_EXAMPLES = """
\b
Examples:
  otelbridge convert src.log dst.log                  the waterfall of one migration
  otelbridge convert vm.log* dst.log                  the same, with the rotated parts of one log
  otelbridge convert vm.log.gz --to file:out          OTLP/JSON lines in out/
  otelbridge convert src.log dst.log --to http://collector:4318
  otelbridge convert --source a.log --destination b.log --to grpc://collector:4317
  xzcat vm.log.xz | otelbridge convert -              standard input
  otelbridge convert trace-4711 --clock clock.json    the simple backend's file; its clock counts from the host's boot
"""
_EXIT_CODES = """
\b
Exit codes:
  0 all converted and delivered      2 wrong command line      3 problems in a mapping or catalogue
  4 no trace event in the input      5 not all was delivered   6 the spool cannot be used
  7 all delivered, but the input itself had losses
"""


@click.command("convert", epilog=_CONVERT_EXAMPLES + "\n" + _EXIT_CODES)
@click.argument("files", nargs=-1, type=click.Path(allow_dash=True))
@click.option(
    "--source", "sources", multiple=True, type=click.Path(allow_dash=True), metavar="FILE", help="A log of the source host."
)
@click.option(
    "--destination", "destinations", multiple=True, type=click.Path(allow_dash=True), metavar="FILE",
    help="A log of the destination host.",
)  # fmt: skip
@click.option(
    "--format",
    "format_",
    type=click.Choice(["auto", "log", "simple", "ftrace", "syslog", "journald", "ust", "stap"]),
    default="auto",
    show_default=True,
    help="Which of QEMU's trace backends wrote the files.",
)
@click.option(
    "--mapping", "mappings", multiple=True, type=PATH, metavar="PATH", help="A mapping of your own, or a folder of them."
)
@click.option("--catalogue", type=PATH, metavar="FILE", help="The trace-events file of the QEMU that wrote the logs.")
@click.option("--qemu-version", metavar="VERSION", help="The version of that QEMU, where the logs leave it open.")
@click.option(
    "--to", "to", multiple=True, metavar="WHERE",
    help="console, file:DIR, http(s)://HOST:4318, grpc(s)://HOST:4317 or sdk:NAME; may be given several times. "
    "Without it OTEL_EXPORTER_OTLP_ENDPOINT counts, else the terminal.",
)  # fmt: skip
@click.option("--accounting", type=PATH, metavar="FILE", help="Write where every line, span and point went, as JSON.")
@click.option(
    "--assume-start", "assume_start_ns", callback=moment_ns, metavar="TIME",
    help="The moment of the first line of a log without time stamps; its spans are marked otelbridge.clock=assumed.",
)  # fmt: skip
@click.option(
    "--clock", type=PATH, metavar="FILE",
    help="Both clocks of the host, read together, for times that count from its boot (simple, ftrace): JSON with realtime_ns "
    "and monotonic_ns. A clock.json beside the input is taken by itself.",
)  # fmt: skip
@click.option(
    "--clock-offset", "clock_offset_ns", callback=offset_ns, metavar="DURATION",
    help="What must be added to times that count from the host's boot; a number alone is nanoseconds.",
)  # fmt: skip
@click.option(
    "--boot-time", "boot_ns", callback=moment_ns, metavar="TIME", help="When the host was booted, for the same (`uptime -s`)."
)
@click.option("-v", "--verbose", is_flag=True, help="Say of each input which format it was taken for, and why.")
@click.option(
    "--give-up", "give_up_s", callback=duration_s, default="30s", show_default=True, metavar="DURATION",
    help="How long to go on trying a destination that takes nothing.",
)  # fmt: skip
@click.option(
    "-j", "--jobs", type=click.IntRange(min=1), default=1, show_default=True, metavar="NUMBER",
    help="So many processes read the inputs, each whole ones. What comes out is the same.",
)  # fmt: skip
@click.option(
    "--spool", type=PATH, metavar="DIR", help="Keep there what could not be delivered, for `otelbridge spool replay`."
)
def convert_command(  # one parameter for each option
    files: tuple[str, ...],
    sources: tuple[str, ...],
    destinations: tuple[str, ...],
    format_: str,
    mappings: tuple[Path, ...],
    catalogue: Path | None,
    qemu_version: str | None,
    to: tuple[str, ...],
    accounting: Path | None,
    assume_start_ns: int | None,
    clock: Path | None,
    clock_offset_ns: int | None,
    boot_ns: int | None,
    verbose: bool,
    give_up_s: float,
    jobs: int,
    spool: Path | None,
) -> None:
    """Convert saved traces of QEMU, whichever backend wrote them; gzip, xz and - (standard input) are read as they are.

    Both traces of one migration give one trace.
    """
    from otelbridge.pipeline import ConvertOptions, convert  # noqa: PLC0415  # `--help` must not wait for it

    _freeze()
    if not to or any(not where.startswith(("file:", "console")) for where in to):
        show_warnings()
    options = ConvertOptions(
        files, sources, destinations, format_, mappings, catalogue, qemu_version, to, assume_start_ns, give_up_s, spool,
        clock, clock_offset_ns, boot_ns, verbose, jobs,
    )  # fmt: skip
    with Progress() as progress:
        conversion = convert(options, env=os.environ, progress=progress.tell)
    if accounting is not None:
        import json  # noqa: PLC0415

        _write(accounting, json.dumps(conversion.accounting, indent=1, ensure_ascii=True) + "\n")
    if conversion.picture is not None:
        _draw(conversion)
    else:
        _report(conversion)
    raise click.exceptions.Exit(conversion.exit_code)


def _freeze() -> None:
    """What is loaded now lives as long as the process: the collector need not look at it again."""
    gc.freeze()
    gc.enable()
    gc.set_threshold(50_000, 20, 20)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise UsageError(f"'{path}' cannot be written: {error.strerror or error}; everything else was done.") from None


def _draw(conversion: Conversion) -> None:
    from rich.console import Console  # noqa: PLC0415  # only for a picture

    from otelbridge.view.waterfall import draw  # noqa: PLC0415

    if conversion.picture is not None:
        console = Console(highlight=False, soft_wrap=False)
        try:
            draw(conversion.picture, conversion.accounting, conversion.notes, console, now_ns=time.time_ns())
        except (BrokenPipeError, SystemExit):
            # The reader has gone, as `head` does, which rich takes for the end; the exit code is the conversion's all the same.
            mute()


def _report(conversion: Conversion) -> None:
    """What became of it, on standard error: standard output is for results."""
    from otelbridge.view.text import clean  # noqa: PLC0415

    spans, points = conversion.accounting["spans"], conversion.accounting["points"]
    lines = [f"Delivered {spans['delivered']} spans and {points['delivered']} points."]
    for what, counts in (("spans", spans), ("points", points)):
        lines += [f"{counts[word]} {what} were {word}." for word in ("rejected", "spooled") if counts[word]]
    if spans["not_kept"]:
        lines.append(f"{spans['not_kept']} spans were only counted, as their rules say.")
    lines += [f"lost: {clean(text)}" for text in conversion.accounting["loss"]]
    lines += [f"note: {clean(text)}" for text in conversion.notes]
    click.echo("\n".join(lines), err=True)
