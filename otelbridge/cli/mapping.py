"""`otelbridge mapping`."""

from __future__ import annotations

from pathlib import Path

import click

from otelbridge.cli.options import PATH, catalogue_of, catalogue_option
from otelbridge.errors import ConfigError


@click.group("mapping")
def mapping_group() -> None:
    """Check and test mapping files."""


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
    from otelbridge.pipeline import run_mapping_tests  # noqa: PLC0415
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
