"""What is printed as a table can be read at a terminal of 80 columns, and by programs."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.convert.command import PROGRAM, call, environment

SRC = Path(__file__).parents[1] / "recordings" / "debian-7.2" / "precopy-busy" / "src.log"
TABLES = [("mapping", "coverage"), ("mapping", "coverage", str(SRC)), ("mapping", "list")]
NEW_COMMANDS = [
    "mapping coverage", "mapping explain", "mapping schema", "mapping list", "mapping events", "catalogue show",
    "catalogue diff", "catalogue check",
]  # fmt: skip


def at_a_terminal(*arguments: str, columns: int) -> list[str]:
    """The lines that a command prints to a terminal of that width."""
    master, slave = pty.openpty()
    with subprocess.Popen([*PROGRAM, *arguments], stdout=slave, env=environment({"COLUMNS": str(columns)})) as process:
        os.close(slave)
        printed = b""
        while True:
            try:
                part = os.read(master, 1 << 16)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            printed += part
    os.close(master)
    assert process.returncode == 0
    return printed.decode("utf-8").splitlines()


@pytest.mark.parametrize("arguments", TABLES, ids=" ".join)
def test_no_line_is_wider_than_the_terminal(arguments: tuple[str, ...]) -> None:
    lines = at_a_terminal(*arguments, columns=80)
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines), "something was cut off"


@pytest.mark.parametrize("arguments", TABLES, ids=" ".join)
def test_a_program_gets_a_line_for_each_row_with_the_same_words(arguments: tuple[str, ...]) -> None:
    piped = call(*arguments).out
    assert "\x1b" not in piped
    assert piped.split() == "\n".join(at_a_terminal(*arguments, columns=80)).split()
    assert len(piped.splitlines()) < len(at_a_terminal(*arguments, columns=80))


@pytest.mark.parametrize("command", NEW_COMMANDS)
def test_help_shows_an_example_that_can_be_copied(command: str) -> None:
    done = call(*command.split(), "--help")
    assert done.code == 0
    assert f"  otelbridge {command}" in done.out.partition("Example")[2]
