"""How things are said at a terminal: messages, warnings, progress, and what to do when nobody reads any more."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Self

import click

_MIN_COLUMNS, _MAX_COLUMNS = 40, 200
_PROGRESS_AFTER_S = 1.0
_PROGRESS_EVERY_S = 0.1


def flush() -> None:
    """Have everything written that was printed; a stream that was closed for us (`>&-`) is None."""
    if sys.stdout is not None:
        sys.stdout.flush()


def mute() -> None:
    """Nothing more can be written to standard output: what Python still holds for it goes nowhere."""
    with contextlib.suppress(OSError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())  # type: ignore[union-attr]


def complain(text: str, *, located: bool = False) -> None:
    """Say something on standard error, without anything that a terminal would obey."""
    from otelbridge.view.text import clean  # noqa: PLC0415  # only when something is wrong

    lines = [clean(line) for line in text.splitlines()]
    if lines and not located:
        lines[0] = f"otelbridge: {lines[0]}"
    click.echo("\n".join(lines), err=True)


def columns() -> int | None:
    """The width of the terminal that standard output is, None where it is none: then nothing needs to be cut or broken."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    return min(_MAX_COLUMNS, max(_MIN_COLUMNS, shutil.get_terminal_size().columns))


def tell(lines: Iterable[str]) -> None:
    """Print results, without anything that a terminal would obey."""
    from otelbridge.view.text import clean  # noqa: PLC0415

    for line in lines:
        click.echo(clean(line))


def table(rows: Sequence[Sequence[str]], numbers: int = 0) -> list[str]:
    """Rows whose cells stand below each other; the last cell of a row may be long, and is broken where a terminal ends.

    The first `numbers` cells stand against the right.
    """
    from otelbridge.view.cells import padded, wrapped  # noqa: PLC0415
    from otelbridge.view.text import clean  # noqa: PLC0415

    width = columns()
    cleaned = [[clean(cell) for cell in row] for row in rows]
    widths = [max(map(len, cells)) for cells in zip(*(row[:-1] for row in cleaned), strict=True)] if cleaned else []
    lines = []
    for row in cleaned:
        cells = [padded(cell, size, right=place < numbers) for place, (cell, size) in enumerate(zip(row, widths, strict=False))]
        head = "".join(f"{cell}  " for cell in cells)
        if width is None or len(head) + len(row[-1]) <= width:
            lines.append((head + row[-1]).rstrip())
        elif len(head) <= width // 2 and len(head) + max(map(len, row[-1].split())) <= width:
            first, *rest = wrapped(row[-1], width - len(head), 20)
            lines += [head + first, *(" " * len(head) + line for line in rest)]
        else:
            lines += [head.rstrip(), *("    " + line for line in wrapped(row[-1], width - 4, 20))]
    return lines


def show_warnings() -> None:
    """Warnings go to standard error as they come; their words can be a server's, which no terminal may obey."""
    import logging  # noqa: PLC0415  # `--help` warns of nothing

    from otelbridge.view.text import clean  # noqa: PLC0415

    class Plain(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return "\n".join(clean(line) for line in super().format(record).splitlines())

    handler = logging.StreamHandler()
    handler.setFormatter(Plain())
    logging.basicConfig(handlers=[handler])


class Progress:
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
