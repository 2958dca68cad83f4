"""The command line: the only module that prints or exits."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

import click

import otelbridge
from otelbridge.errors import ConfigError, ExportError, LocatedError, OtelbridgeError, UsageError

if TYPE_CHECKING:
    from otelbridge.catalogue import Catalogue
    from otelbridge.pipeline import Conversion

_PROGRESS_AFTER_S = 1.0
_PROGRESS_EVERY_S = 0.1
_INTERRUPTED = 130
_NOT_DELIVERED = 5
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What is wrong when standard output or a temporary file takes no more."""

_CONVERT_EXAMPLES = """
\b
Examples:
  otelbridge convert src.log dst.log                  the waterfall of one migration
  otelbridge convert vm.log.gz --to file:out          OTLP/JSON lines in out/
  otelbridge convert src.log dst.log --to http://collector:4318
  otelbridge convert --source a.log --destination b.log --to grpc://collector:4317
  xzcat vm.log.xz | otelbridge convert -              standard input
"""
_MAIN_EXAMPLES = """
\b
Examples:
  otelbridge convert src.log dst.log       print one migration, both hosts, as a waterfall
  otelbridge mapping check my.yaml         every problem of a mapping, with its place
  otelbridge spool replay DIR              send what could not be delivered

\b
Shell completion (bash; zsh and fish alike):
  eval "$(_OTELBRIDGE_COMPLETE=bash_source otelbridge)"
"""
_EXIT_CODES = """
\b
Exit codes:
  0 all converted and delivered      2 wrong command line      3 problems in a mapping or catalogue
  4 no trace event in the input      5 not all was delivered   6 the spool cannot be used
  7 all delivered, but the input itself had losses
"""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with the code of the contract."""
    gc.disable()  # until everything is loaded: nothing of that is garbage
    try:
        code = cli.main(args=None if arguments is None else list(arguments), prog_name="otelbridge", standalone_mode=False)
        _flush()
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.ClickException as error:
        context: click.Context | None = getattr(error, "ctx", None)
        where = f" (see '{context.command_path} --help')" if context is not None else ""
        _complain(f"{error.format_message()}{where}")
        code = UsageError.exit_code
    except OtelbridgeError as error:
        _complain(str(error), located=isinstance(error, LocatedError))
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _complain("interrupted; what was not yet delivered is not.")
        code = _INTERRUPTED
    except SystemExit as stop:
        # Shell completion ends so, and click when the reader of our output has gone, as `head` does.
        if not isinstance(stop.__context__, BrokenPipeError):
            raise
        code = 0
    except BrokenPipeError:
        _mute()
        code = 0
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        _mute()
        _complain(f"Not all could be written: {error.strerror}. Make room and run it again.")
        code = ExportError.exit_code
    sys.exit(code or 0)


def _flush() -> None:
    """Have everything written that was printed; a stream that was closed for us (`>&-`) is None."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _mute() -> None:
    """Nothing more can be written to standard output: what Python still holds for it goes nowhere."""
    with contextlib.suppress(OSError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())  # type: ignore[union-attr]


def _complain(text: str, *, located: bool = False) -> None:
    """Say something on standard error, without anything that a terminal would obey."""
    from otelbridge.view.text import clean  # noqa: PLC0415  # only when something is wrong

    lines = [clean(line) for line in text.splitlines()]
    if lines and not located:
        lines[0] = f"otelbridge: {lines[0]}"
    click.echo("\n".join(lines), err=True)


@click.group(epilog=_MAIN_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(otelbridge.__version__, prog_name="otelbridge")
def cli() -> None:
    """Turn QEMU's trace events of live migrations into OpenTelemetry spans and metrics."""


# --- convert ----------------------------------------------------------------------------------------


def _duration_s(_context: click.Context, _parameter: click.Parameter, text: str) -> float:
    from otelbridge.durations import duration_ns  # noqa: PLC0415

    found = duration_ns(text)
    if found is None:
        raise click.BadParameter(f"'{text}' is no duration; a number with its unit is expected: 500ms, 30s, 10m.")
    return found / 1e9


def _moment_ns(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
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


_PATH = click.Path(path_type=Path)


@cli.command(epilog=_CONVERT_EXAMPLES + "\n" + _EXIT_CODES)
@click.argument("files", nargs=-1, type=click.Path(allow_dash=True))
@click.option(
    "--source", "sources", multiple=True, type=click.Path(allow_dash=True), metavar="FILE", help="A log of the source host."
)
@click.option(
    "--destination", "destinations", multiple=True, type=click.Path(allow_dash=True), metavar="FILE",
    help="A log of the destination host.",
)  # fmt: skip
@click.option(
    "--format", "format_", type=click.Choice(["auto", "log"]), default="auto", show_default=True, help="What the files are."
)
@click.option(
    "--mapping", "mappings", multiple=True, type=_PATH, metavar="PATH", help="A mapping of your own, or a folder of them."
)
@click.option("--catalogue", type=_PATH, metavar="FILE", help="The trace-events file of the QEMU that wrote the logs.")
@click.option("--qemu-version", metavar="VERSION", help="The version of that QEMU, where the logs leave it open.")
@click.option(
    "--to", "to", multiple=True, metavar="WHERE",
    help="console, file:DIR, http(s)://HOST:4318, grpc(s)://HOST:4317 or sdk:NAME; may be given several times. "
    "Without it OTEL_EXPORTER_OTLP_ENDPOINT counts, else the terminal.",
)  # fmt: skip
@click.option("--accounting", type=_PATH, metavar="FILE", help="Write where every line, span and point went, as JSON.")
@click.option(
    "--assume-start", "assume_start_ns", callback=_moment_ns, metavar="TIME",
    help="The moment of the first line of a log without time stamps; its spans are marked otelbridge.clock=assumed.",
)  # fmt: skip
@click.option(
    "--give-up", "give_up_s", callback=_duration_s, default="30s", show_default=True, metavar="DURATION",
    help="How long to go on trying a destination that takes nothing.",
)  # fmt: skip
@click.option(
    "--spool", type=_PATH, metavar="DIR", help="Keep there what could not be delivered, for `otelbridge spool replay`."
)
def convert(  # one parameter for each option
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
    give_up_s: float,
    spool: Path | None,
) -> None:
    """Convert saved logs of QEMU's log backend; gzip, xz and - (standard input) are read as they are.

    Both logs of one migration give one trace.
    """
    from otelbridge.pipeline import ConvertOptions  # noqa: PLC0415  # `--help` must not wait for it
    from otelbridge.pipeline import convert as converted  # noqa: PLC0415

    _freeze()
    _show_warnings()
    options = ConvertOptions(
        files, sources, destinations, format_, mappings, catalogue, qemu_version, to, assume_start_ns, give_up_s, spool
    )
    with _Progress() as progress:
        conversion = converted(options, env=os.environ, progress=progress.tell)
    if accounting is not None:
        _write(accounting, json.dumps(conversion.accounting, indent=1, ensure_ascii=True) + "\n")
    if conversion.picture is not None:
        _draw(conversion)
    else:
        _report(conversion)
    raise click.exceptions.Exit(conversion.exit_code)


def _show_warnings() -> None:
    """Warnings go to standard error as they come; their words can be a server's, which no terminal may obey."""
    import logging  # noqa: PLC0415  # `--help` warns of nothing

    from otelbridge.view.text import clean  # noqa: PLC0415

    class Plain(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return "\n".join(clean(line) for line in super().format(record).splitlines())

    handler = logging.StreamHandler()
    handler.setFormatter(Plain())
    logging.basicConfig(handlers=[handler])


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
            _mute()


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


class _Progress:
    """One line on standard error while work takes more than a second on a terminal."""

    def __init__(self) -> None:
        self._begun_s = self._shown_s = time.monotonic()
        self._shown = False
        self._active = sys.stderr is not None and sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._shown:
            click.echo("\r\x1b[K", nl=False, err=True)

    def tell(self, done: int, size: int | None) -> None:
        """So many bytes of the present input are read."""
        now_s = time.monotonic()
        if not self._active or now_s - self._begun_s < _PROGRESS_AFTER_S or now_s - self._shown_s < _PROGRESS_EVERY_S:
            return
        self._shown, self._shown_s = True, now_s
        if size:
            filled = min(30, 30 * done // size)
            text = f"reading {'█' * filled}{'·' * (30 - filled)} {100 * done // size:3d} % of {size / 1e6:.1f} MB"
        else:
            text = f"reading, {done / 1e6:.1f} MB so far"
        click.echo(f"\r\x1b[K{text}", nl=False, err=True)


# --- mapping ----------------------------------------------------------------------------------------


@cli.group()
def mapping() -> None:
    """Check and test mapping files."""


_catalogue_option = click.option("--catalogue", type=_PATH, metavar="FILE", help="The trace-events file to check against.")


@mapping.command()
@click.argument("paths", nargs=-1, required=True, type=_PATH)
@_catalogue_option
def check(paths: tuple[Path, ...], catalogue: Path | None) -> None:
    """Check mapping files or folders of them; all problems are shown with their places."""
    from otelbridge.mapping import load_with_shipped, user_files  # noqa: PLC0415
    from otelbridge.view.text import count_text  # noqa: PLC0415

    files = user_files(paths)
    found = load_with_shipped(paths, _catalogue(catalogue))
    mine = {file.path for file in files}
    rules = sum(rule.path in mine for rules in (found.spans, found.machines, found.metrics) for rule in rules)
    tests = sum(test.path in mine for test in found.tests)
    counts = (count_text(len(files), "file"), count_text(rules, "rule"), count_text(tests, "test"))
    click.echo(f"{', '.join(counts)}: no problems.")


@mapping.command()
@click.argument("paths", nargs=-1, required=True, type=_PATH)
@_catalogue_option
def test(paths: tuple[Path, ...], catalogue: Path | None) -> None:
    """Run the `tests:` of mapping files through the real reader and engine, together with the shipped mappings."""
    from otelbridge.mapping import load_with_shipped, user_files  # noqa: PLC0415
    from otelbridge.pipeline import run_mapping_tests  # noqa: PLC0415
    from otelbridge.view.text import clean, count_text  # noqa: PLC0415

    known = _catalogue(catalogue)
    files = [file.path for file in user_files(paths)]
    results = run_mapping_tests(load_with_shipped(paths, known), known, files)
    failed = 0
    for result in results:
        place = f"{result.test.path}:{result.test.line}"
        if result.differences:
            failed += 1
            click.echo(f"FAILED {place}: {clean(result.test.name)}")
            for difference in result.differences:
                click.echo(f"       {clean(difference)}")
        else:
            click.echo(f"ok     {place}: {clean(result.test.name)}")
    click.echo(f"{count_text(len(results), 'test')}, {failed} failed." if results else "There are no tests in these files.")
    if failed:
        raise click.exceptions.Exit(ConfigError.exit_code)


def _catalogue(path: Path | None) -> Catalogue:
    from otelbridge.pipeline import load_catalogue  # noqa: PLC0415

    notes: list[str] = []
    found = load_catalogue(path, notes)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    return found


# --- spool ------------------------------------------------------------------------------------------


@cli.group()
def spool() -> None:
    """Look at and send what could not be delivered (`convert --spool DIR`)."""


def _spool_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument("folder", type=_PATH, metavar="DIR")(command)


@spool.command()
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


@spool.command()
@_spool_argument
def show(folder: Path) -> None:
    """Print what waits in the spool as OTLP/JSON lines."""
    from otelbridge.otlp.replay import show_spool  # noqa: PLC0415

    for line in show_spool(folder):
        click.echo(line)


@spool.command()
@_spool_argument
@click.option("--to", metavar="WHERE", help="Another destination than the one it was meant for: http(s)://… or grpc(s)://….")
@click.option(
    "--give-up", "give_up_s", callback=_duration_s, default="30s", show_default=True, metavar="DURATION",
    help="How long to go on trying a destination that takes nothing.",
)  # fmt: skip
def replay(folder: Path, to: str | None, give_up_s: float) -> None:
    """Send what waits in the spool again, as the same bytes; what is accepted is removed at once."""
    from otelbridge.otlp.replay import replay_spool  # noqa: PLC0415
    from otelbridge.view.text import clean  # noqa: PLC0415

    _show_warnings()
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


@spool.command()
@_spool_argument
@click.confirmation_option(prompt="Everything in this spool will be gone. Go on?")
def drop(folder: Path) -> None:
    """Throw away everything that is in the spool."""
    from otelbridge.otlp.outbox import Outbox  # noqa: PLC0415

    with Outbox.existing(folder) as outbox:
        dropped = outbox.drop()
    click.echo(f"Dropped {dropped} requests.")
