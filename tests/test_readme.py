"""What the README shows is what the program does."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from otelbridge import errors
from otelbridge.cli import cli
from otelbridge.stats import STATS, Stat, table

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
TYPO = """version: 1
scope: my.net

metrics:
  my.transferred: {counter: migrate_transferred, add: transfered, unit: By}
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def as_pattern(shown: str) -> str:
    """A line that is nothing but `…` stands for any lines that were left out."""
    lines = [re.escape(line) if line != "…" else r"(?:.*\n)*?.*" for line in shown.rstrip("\n").split("\n")]
    return "\n".join(lines)


@pytest.mark.parametrize("block", blocks("console"))
def test_a_session_that_is_shown_runs_so(block: str, tmp_path: Path) -> None:
    """Every command of the README gives the output that stands below it."""
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    (tmp_path / "typo.yaml").write_text(TYPO)
    command, _, shown = block.removeprefix("$ ").partition("\n")
    arguments = shlex.split(command)
    assert arguments[0] == "otelbridge"
    done = subprocess.run(
        [sys.executable, "-m", "otelbridge", *arguments[1:]],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    assert re.fullmatch(as_pattern(shown), done.stdout.rstrip("\n")), done.stdout


def commands() -> list[str]:
    lines = [line.partition("  #")[0] for block in blocks("sh") for line in block.splitlines()]
    ours = ("otelbridge convert", "otelbridge mapping", "otelbridge catalogue", "otelbridge spool", "otelbridge run")
    ours += ("otelbridge doctor",)
    named = [line for line in lines if any(command in line for command in ours)]
    return [line.partition("otelbridge ")[2].partition(" > ")[0].strip() for line in named]


@pytest.mark.parametrize("line", commands())
def test_a_command_that_is_named_can_be_given(line: str) -> None:
    """The options of every example exist."""
    name, *arguments = shlex.split(line)
    with cli.make_context("otelbridge", [name, *arguments]) as context:
        chosen = cli.get_command(context, name)
        assert chosen is not None
        inside = chosen.make_context(name, arguments, parent=context)
        if isinstance(chosen, click.Group):
            below, *rest = arguments
            command = chosen.get_command(inside, below)
            assert command is not None
            command.make_context(below, rest, parent=inside).close()
        inside.close()


def test_the_mapping_that_is_shown_has_no_problems(tmp_path: Path) -> None:
    """The example can be copied as it is."""
    _, example = blocks("yaml")
    (tmp_path / "my.yaml").write_text(example)
    done = subprocess.run([sys.executable, "-m", "otelbridge", "mapping", "check", str(tmp_path / "my.yaml")], check=False)
    assert done.returncode == 0


def test_the_configuration_that_is_shown_has_no_problems(tmp_path: Path) -> None:
    """Ten lines are enough, and they can be copied as they are."""
    example, _ = blocks("yaml")
    assert example.count("\n") == 10
    (tmp_path / "otelbridge.yaml").write_text(example)
    command = [sys.executable, "-m", "otelbridge", "run", "--config", str(tmp_path / "otelbridge.yaml"), "--check"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "http://127.0.0.1:4318" in done.stdout


def test_the_list_of_our_own_counters_is_that_of_the_table() -> None:
    """`OTELBRIDGE_REGENERATE=1 pytest tests/test_readme.py` writes it anew."""
    before, found, after = re.split(r"((?:^\| .*counter .*\n)(?:^\|.*\n)+)", README, maxsplit=1, flags=re.MULTILINE)
    if os.environ.get("OTELBRIDGE_REGENERATE") == "1":
        (ROOT / "README.md").write_text(before + table() + after, "utf-8")
        return
    assert found == table(), "OTELBRIDGE_REGENERATE=1 pytest tests/test_readme.py writes the list anew"


@pytest.mark.parametrize("stat", STATS, ids=lambda stat: stat.name)
def test_every_counter_of_our_own_is_one_sentence_and_named_as_the_others(stat: Stat) -> None:
    assert re.fullmatch(r"otelbridge\.(reader|engine|outbox|export|service|telemetry)\.[a-z]+(_[a-z]+)*", stat.name)
    assert re.fullmatch(r"[A-Z][^|]+\.", stat.text)


def test_every_exit_code_is_explained() -> None:
    """The README's table has the codes of all errors."""
    codes = {getattr(errors, name).exit_code for name in dir(errors) if name.endswith("Error")}
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    assert codes | {0, 7, 130} == listed
