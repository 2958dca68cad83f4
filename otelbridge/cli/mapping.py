"""`otelbridge mapping`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otelbridge.cli.options import (
    PATH,
    catalogue_of,
    catalogue_option,
    complete_event,
    known_event,
    mapping_option,
    version_of,
    version_option,
)
from otelbridge.cli.terminal import Progress, table, tell
from otelbridge.errors import ConfigError

if TYPE_CHECKING:
    from otelbridge.mapping.coverage import Covered


@click.group("mapping")
def mapping_group() -> None:
    """Check, test and look into mapping files."""


@mapping_group.command()
@click.argument("paths", nargs=-1, required=True, type=PATH)
@catalogue_option
def check(paths: tuple[Path, ...], catalogue: Path | None) -> None:
    """Check mapping files or folders of them; all problems are shown with their places."""
    from otelbridge.mapping import load_with_shipped, user_files  # noqa: PLC0415
    from otelbridge.view.text import count_text  # noqa: PLC0415

    files = user_files(paths)
    found = load_with_shipped(paths, catalogue_of(catalogue))
    mine = {file.path for file in files}
    rules = sum(rule.path in mine for rules in (found.spans, found.machines, found.metrics) for rule in rules)
    tests = sum(test.path in mine for test in found.tests)
    counts = (count_text(len(files), "file"), count_text(rules, "rule"), count_text(tests, "test"))
    click.echo(f"{', '.join(counts)}: no problems.")


@mapping_group.command()
@click.argument("paths", nargs=-1, required=True, type=PATH)
@catalogue_option
def test(paths: tuple[Path, ...], catalogue: Path | None) -> None:
    """Run the `tests:` of mapping files through the real reader and engine, together with the shipped mappings."""
    from otelbridge.mapping import load_with_shipped, user_files  # noqa: PLC0415
    from otelbridge.pipeline.cases import run_mapping_tests  # noqa: PLC0415
    from otelbridge.view.text import clean, count_text  # noqa: PLC0415

    known = catalogue_of(catalogue)
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


_COVERAGE_EXAMPLE = """
\b
Examples:
  otelbridge mapping coverage --qemu-version 7.2      what the rules use of that QEMU's events
  otelbridge mapping coverage src.log dst.log         and what became of the events of these logs
"""


@mapping_group.command(epilog=_COVERAGE_EXAMPLE)
@click.argument("files", nargs=-1, type=click.Path(allow_dash=True))
@mapping_option
@catalogue_option
@version_option
def coverage(files: tuple[str, ...], mappings: tuple[Path, ...], catalogue: Path | None, qemu_version: str | None) -> None:
    """Show which rules use each event of QEMU, or why none does.

    With logs: how often each event came, began or ended spans (paired), began spans that never ended (open), should have
    ended something but could not (orphan), or came without a rule (unmapped); the biggest hole first.
    """
    from otelbridge.catalogue.declared import migration_events  # noqa: PLC0415
    from otelbridge.mapping import load_with_shipped  # noqa: PLC0415
    from otelbridge.mapping.coverage import coverage as coverage_of  # noqa: PLC0415
    from otelbridge.pipeline import ConvertOptions  # noqa: PLC0415
    from otelbridge.pipeline.watching import fates_in  # noqa: PLC0415

    version, known = version_of(qemu_version), catalogue_of(catalogue)
    events = migration_events(known, version, of_file=catalogue is not None)
    rules = load_with_shipped(mappings, known)
    fates = {}
    if files:
        options = ConvertOptions(files, mappings=mappings, catalogue=catalogue, qemu_version=qemu_version)
        with Progress() as progress:
            fates = fates_in(options, env=os.environ, progress=progress.tell)
    found = coverage_of(rules, events, fates)
    heads = [*_COUNTS, "event: used by"] if files else ["event", "used by"]
    tell(table([heads, *(_covered_row(one, counted=bool(files)) for one in found)], numbers=len(_COUNTS) if files else 0))
    used, left_out = sum(bool(one.uses) for one in found), sum(not one.uses and bool(one.reason) for one in found)
    of = f" of QEMU {version}" if version and not catalogue else ""
    tell([f"{used + left_out} of {len(found)} events{of}: rules use {used}, {left_out} are left out on purpose."])


_COUNTS = ("came", "paired", "open", "orphan", "unmapped")


def _covered_row(one: Covered, *, counted: bool) -> list[str]:
    uses = ", ".join(f"{_AS[use.how]} {use.rule}" for use in one.uses)
    text = uses or (f"left out: {one.reason}" if one.reason else "nothing")
    if not counted:
        return [one.event, text]
    numbers = (one.fate.came, one.fate.paired, one.fate.open, one.fate.orphaned, one.unmapped)
    unread = f"{one.fate.unread} with a text that fits no declaration; " if one.fate.unread else ""
    return [*(str(number or "-") for number in numbers), f"{one.event}: {unread}{text}"]


_AS = {
    "begin": "begin of",
    "end": "end of",
    "attribute": "attributes of",
    "event": "event in",
    "state": "state of",
    "metric": "metric",
    "role": "role in",
    "reason": "reason in",
}

_EXPLAIN_EXAMPLES = """
\b
Examples:
  otelbridge mapping explain src.log --event savevm_section_end
  otelbridge mapping explain src.log dst.log --at 1795407950.847563
  otelbridge mapping explain src.log --span 5e0c8f1a2b3d4e5f
"""


@mapping_group.command(epilog=_EXPLAIN_EXAMPLES)
@click.argument("files", nargs=-1, required=True, type=click.Path(allow_dash=True))
@click.option("--at", metavar="TIME", help="The events at this time, as the log, the waterfall or ISO 8601 has it.")
@click.option(
    "--event", metavar="NAME", shell_complete=complete_event,
    help="Every event of this name; those that went the same way are shown once.",
)  # fmt: skip
@click.option("--span", metavar="ID", help="The events that began and ended the span with this id.")
@mapping_option
@catalogue_option
@version_option
def explain(
    files: tuple[str, ...],
    at: str | None,
    event: str | None,
    span: str | None,
    mappings: tuple[Path, ...],
    catalogue: Path | None,
    qemu_version: str | None,
) -> None:
    """Tell why events did or did not begin or end a span, in the words of the rules."""
    from otelbridge.explain import Asked, Question, Words  # noqa: PLC0415
    from otelbridge.explain import explain as explained  # noqa: PLC0415
    from otelbridge.mapping import load_with_shipped  # noqa: PLC0415
    from otelbridge.pipeline import ConvertOptions  # noqa: PLC0415

    if sum(one is not None for one in (at, event, span)) != 1:
        raise click.UsageError("Give one of --at TIME, --event NAME and --span ID.")
    known = catalogue_of(catalogue)
    if event is not None:
        known_event(event, known)
    rules = load_with_shipped(mappings, known)
    options = ConvertOptions(files, mappings=mappings, catalogue=catalogue, qemu_version=qemu_version)
    with Progress() as progress:
        answer = explained(Question(at, event, span), Asked(options, rules, os.environ, progress.tell))
    words = Words(answer, rules, known)
    for number, one in enumerate(answer.events):
        tell([*([""] if number else []), *words.lines(one)])
    if answer.left_out:
        tell(["", f"{answer.left_out} more events are not shown."])


@mapping_group.command(epilog="\b\nExample:\n  otelbridge mapping schema > otelbridge.schema.json")
def schema() -> None:
    """Print the JSON Schema of mapping files, for editors that complete and check."""
    from otelbridge.mapping.schema import schema as made  # noqa: PLC0415

    click.echo(json.dumps(made(), indent=1))


@mapping_group.command("list", epilog="\b\nExample:\n  otelbridge mapping list --mapping my.yaml")
@mapping_option
@catalogue_option
def list_(mappings: tuple[Path, ...], catalogue: Path | None) -> None:
    """List every rule: its kind, id and file, and the spans and metrics that it makes."""
    from otelbridge.mapping import load_with_shipped  # noqa: PLC0415
    from otelbridge.mapping.listing import listing  # noqa: PLC0415

    rules = listing(load_with_shipped(mappings, catalogue_of(catalogue)))
    tell(table([[rule.kind, rule.id, rule.path, ", ".join(rule.makes)] for rule in rules]))


_EVENTS_EXAMPLES = """
\b
Examples:
  otelbridge mapping events > trace.events; qemu-system-x86_64 -trace events=trace.events …
  otelbridge mapping events --qemu-version 7.2 --format libvirt
  otelbridge mapping events --format virsh | DOMAIN=web-1 sh
"""


@mapping_group.command(epilog=_EVENTS_EXAMPLES)
@click.option(
    "--format", "form", type=click.Choice(["events-file", "qmp", "libvirt", "virsh", "hmp"]), default="events-file",
    show_default=True,
    help="events-file for -trace events=FILE, qmp for the machine monitor, hmp for the human one, libvirt for the XML of a "
    "domain, virsh for a running one.",
)  # fmt: skip
@click.option(
    "--cost", type=click.Choice(["low", "all"]), default="low", show_default=True,
    help="low leaves out what comes for every page, field or packet.",
)  # fmt: skip
@mapping_option
@catalogue_option
@version_option
def events(form: str, cost: str, mappings: tuple[Path, ...], catalogue: Path | None, qemu_version: str | None) -> None:
    """Print which trace events to switch on in QEMU for the mappings, in the form in which it takes them."""
    from otelbridge.catalogue.declared import events_of, events_of_file  # noqa: PLC0415
    from otelbridge.mapping import load_with_shipped  # noqa: PLC0415
    from otelbridge.mapping.switches import FORMS, events_to_switch_on, is_costly  # noqa: PLC0415
    from otelbridge.view.text import count_text  # noqa: PLC0415

    known, version = catalogue_of(catalogue), version_of(qemu_version)
    rules = load_with_shipped(mappings, known)
    known_events = events_of_file(known) if catalogue else events_of(known, version)
    wanted = events_to_switch_on(rules, known_events)
    chosen = [e for e in wanted if cost == "all" or not is_costly(e)]
    for line in FORMS[form](chosen):
        click.echo(line)
    if len(chosen) < len(wanted):
        left = count_text(len(wanted) - len(chosen), "event")
        click.echo(f"note: {left} for every page, field or packet left out; --cost all has them.", err=True)
