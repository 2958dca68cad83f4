"""otelbridge as the tests start it: inside this process, where starting one is not the point, or as a process."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, TextIO
from unittest.mock import patch

from otelbridge.cli import main

PROGRAM = (sys.executable, "-m", "otelbridge")
_OURS = ("OTEL_", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_", "_OTELBRIDGE", "PYTHONUTF8", "LC_ALL")


class Result(NamedTuple):
    """What a command ended with and what it printed."""

    code: int
    out: str
    err: str


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without what changes otelbridge, and with `more`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return {**kept, **(more or {})}


def call(*arguments: str | Path, env: Mapping[str, str] | None = None, error: TextIO | None = None) -> Result:
    """Run a command inside this process; its standard error can go to a file, a terminal for example."""
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, environment(env), clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(error or err),
    ):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
        finally:
            # It does without garbage collection until it is loaded, and keeps what is loaded; this process goes on.
            gc.unfreeze()
            gc.enable()
    assert isinstance(code, int), code
    return Result(code, out.getvalue(), err.getvalue())


def run(*arguments: str | Path, env: Mapping[str, str] | None = None, stdin: bytes = b"", cwd: Path | None = None) -> Result:
    """Run a command as a process, with standard input from a pipe."""
    command = [*PROGRAM, *(str(argument) for argument in arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, env=environment(env), cwd=cwd, timeout=60, check=False)
    return Result(done.returncode, *(text.decode("utf-8", "backslashreplace") for text in (done.stdout, done.stderr)))
