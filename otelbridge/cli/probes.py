"""`otelbridge probes`."""

from __future__ import annotations

import string
from pathlib import Path

import click

from otelbridge.cli.options import PATH, catalogue_of, catalogue_option, mapping_option, version_of, version_option
from otelbridge.errors import UsageError

_PLAIN = frozenset(string.ascii_letters + string.digits + " _-+.,@/")
"""What stands for itself in both languages."""

_EXAMPLES = """
\b
Examples:
  otelbridge probes bpftrace --binary /usr/libexec/qemu-kvm --pid 4711 > qemu.bt
  BPFTRACE_MAX_PROBES=1024 bpftrace -p 4711 qemu.bt > src.log
  otelbridge probes stap --binary /usr/libexec/qemu-kvm --pid 4711 > qemu.stp; stap qemu.stp > src.log
  otelbridge convert --format stap src.log
"""


@click.command("probes", epilog=_EXAMPLES)
@click.argument("program", type=click.Choice(["bpftrace", "stap"]))
@click.option("--binary", required=True, type=PATH, metavar="PATH", help="The QEMU whose probes are looked at.")
@click.option("--pid", type=click.IntRange(min=1), metavar="N", help="Only this process.")
@click.option(
    "--cost", type=click.Choice(["low", "all"]), default="all", show_default=True,
    help="all adds up where it happens what comes for every page, field or packet; low leaves it out.",
)  # fmt: skip
@mapping_option
@catalogue_option
@version_option
def probes_command(  # an argument for each option
    program: str,
    binary: Path,
    pid: int | None,
    cost: str,
    mappings: tuple[Path, ...],
    catalogue: Path | None,
    qemu_version: str | None,
) -> None:
    """Print a script that traces the USDT probes of a QEMU built with the dtrace backend, for the mappings."""
    from otelbridge.catalogue.declared import events_of, events_of_file  # noqa: PLC0415
    from otelbridge.mapping import load_with_shipped  # noqa: PLC0415
    from otelbridge.mapping.switches import events_to_switch_on, is_costly  # noqa: PLC0415
    from otelbridge.probes import SCRIPTS, choose  # noqa: PLC0415

    path = _quotable(binary)
    there = _probes_in(binary)
    known, version = catalogue_of(catalogue), version_of(qemu_version)
    rules = load_with_shipped(mappings, known)
    wanted = events_to_switch_on(rules, events_of_file(known) if catalogue else events_of(known, version))
    events = [event for event in wanted if cost == "all" or not is_costly(event)]
    chosen = choose(events, rules.plan, known, there, version)
    _note("that the program does not have left out", chosen.absent)
    _note("whose arguments fit no known declaration left out; give its trace-events-all with --catalogue", chosen.other)
    if not chosen.probes:
        raise UsageError(
            f"--binary '{binary}' has probes of QEMU, but none that the mappings use; give the QEMU that runs the machines."
        )
    script = SCRIPTS[program]
    readable = [probe for probe in chosen.probes if len(probe.spec.arguments) <= script.arguments]
    left = tuple(probe.spec.name for probe in chosen.probes if probe not in readable)
    _note(f"of more than the {script.arguments} arguments that {program} can read left out", left)
    for line in script.lines(path, readable, pid):
        click.echo(line)


def _quotable(binary: Path) -> str:
    """The program's path, as both languages take it."""
    absolute = binary.absolute()
    # /proc/PID/root leads into a container; resolved it would lead to this host's own root.
    path = str(absolute if absolute.is_relative_to("/proc") else absolute.resolve())
    strange = sorted(set(path) - _PLAIN)
    if strange:
        raise UsageError(
            f"--binary '{binary}' is {path!r}, and {strange[0]!r} has a meaning of its own in the script or breaks it;"
            " copy or bind-mount the program to a path of letters, digits and ' _-+.,@/' alone."
        )
    return path


def _probes_in(binary: Path) -> dict[str, tuple[tuple[int, ...], ...]]:
    from otelbridge.probes import NotesError, sdt_probes  # noqa: PLC0415

    help_ = "no script was made; give the program of a QEMU built with --enable-trace-backends=dtrace."
    try:
        found = sdt_probes(binary.read_bytes(), "qemu")
    except OSError as error:
        raise UsageError(f"--binary '{binary}' cannot be read: {error.strerror}; {help_}") from None
    except NotesError as error:
        raise UsageError(f"--binary '{binary}' has no USDT probes: {error}; {help_}") from None
    if not found:
        raise UsageError(f"--binary '{binary}' has no USDT probes of QEMU (section .note.stapsdt); {help_}")
    return found


def _note(what: str, events: tuple[str, ...]) -> None:
    from otelbridge.view.text import count_text  # noqa: PLC0415

    if events:
        click.echo(f"note: {count_text(len(events), 'event')} {what}: {', '.join(events)}", err=True)
