"""`otelbridge --help` is at the terminal at once: nothing heavy is imported for it."""

import resource
import statistics
import subprocess
import sys
from pathlib import Path

HEAVY = ("opentelemetry", "grpc", "requests", "google", "sqlite3", "rich", "yaml")
AT_MOST_TIMES_CLICK = 2.0
ROUNDS = 15

LOADED_BY_HELP = """
import sys
from otelbridge.cli import main
try:
    main(["--help"])
finally:
    print(*sorted({name.split(".")[0] for name in sys.modules}), file=sys.stderr)
"""
EMPTY_CLICK_PROGRAM = """
import click

@click.group()
def cli(): ...

cli(["--help"], prog_name="empty")
"""


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True)


def cpu_s_of(command: list[str]) -> float:
    """The CPU time, user and system, that a command and its children take."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_imports_nothing_heavy() -> None:
    done = run([sys.executable, "-c", LOADED_BY_HELP])
    assert done.stdout.startswith("Usage: otelbridge")
    loaded = set(done.stderr.split())
    assert "click" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_help_takes_at_most_twice_the_cpu_of_an_empty_program(otelbridge_command: list[str], tmp_path: Path) -> None:
    empty = tmp_path / "empty.py"
    empty.write_text(EMPTY_CLICK_PROGRAM, "utf-8")
    ours, bare = [*otelbridge_command, "--help"], [sys.executable, str(empty)]
    for command in (ours, bare):
        run(command)  # writes the bytecode
    rounds = [(cpu_s_of(ours), cpu_s_of(bare)) for _ in range(ROUNDS)]
    ratio = statistics.median(one for one, _ in rounds) / statistics.median(other for _, other in rounds)
    assert ratio <= AT_MOST_TIMES_CLICK, f"--help takes {ratio:.2f} times the CPU of an empty click program"
