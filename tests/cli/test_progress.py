"""The line that shows how far reading is: on a terminal, after a second, and gone at the end."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from otelbridge.cli import terminal as told
from tests.convert.command import PROGRAM, call, environment

LOG = "17135@1795409540.431193:migrate_set_state new state setup\n17135@1795409541.431193:migrate_set_state new state failed\n"


class Terminal:
    """A pseudo terminal that keeps what was written to it."""

    def __init__(self) -> None:
        self._master, self.slave = pty.openpty()
        self._text, self._ended = b"", False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def text(self) -> str:
        return self._text.decode()

    def end(self) -> None:
        """Wait for everything; all other writers must be gone."""
        if not self._ended:
            self._ended = True
            os.close(self.slave)
            self._reader.join(20)
            os.close(self._master)

    def _read(self) -> None:
        while True:
            try:
                self._text += os.read(self._master, 65536)
            except OSError:  # what Linux says when nobody has the other end any more
                return

    def wait_for(self, words: str) -> None:
        """Wait until something was written."""
        deadline_s = time.monotonic() + 20
        while words not in self.text:
            assert time.monotonic() < deadline_s, self.text
            time.sleep(0.01)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.end()


def screen(text: str) -> str:
    """What is left to see of a line of output: each return to its start with an erasure wipes what stood there."""
    return text.rpartition("\r\x1b[K")[2]


def test_a_long_file_shows_how_far_it_is_and_wipes_it(
    terminal: Terminal, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every work counts as long here."""
    monkeypatch.setattr(told, "_PROGRESS_AFTER_S", 0.0)
    monkeypatch.setattr(told, "_PROGRESS_EVERY_S", 0.0)
    log = recordings / "debian-7.2" / "precopy-busy" / "src.log"
    with os.fdopen(os.dup(terminal.slave), "w") as error:
        assert call("convert", log, error=error).code == 0
    terminal.end()
    shares = [int(share) for share in re.findall(r"(\d+) % of 0\.1 MB", terminal.text)]
    assert shares
    assert shares[-1] == 100
    assert all(share <= 100 for share in shares)
    assert screen(terminal.text) == ""


def test_short_work_shows_nothing(terminal: Terminal, recordings: Path) -> None:
    with os.fdopen(os.dup(terminal.slave), "w") as error:
        assert call("convert", recordings / "debian-7.2" / "tls-ok" / "src.log", error=error).code == 0
    terminal.end()
    assert terminal.text == ""


def test_progress_waits_a_second(monkeypatch: pytest.MonkeyPatch, terminal: Terminal) -> None:
    now_s = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    with os.fdopen(os.dup(terminal.slave), "w") as error, contextlib.redirect_stderr(error), told.Progress() as progress:
        for now_s in (100.5, 100.99):  # noqa: B007  # the clock reads it
            progress.tell(50, 100)
        error.flush()
        assert terminal.text == ""
        now_s = 101.0
        progress.tell(50, 100)
    monkeypatch.undo()
    terminal.wait_for(" 50 % of")


def test_a_slow_pipe_shows_how_much_came(terminal: Terminal) -> None:
    """The whole of it is not known, so there is no share."""
    command = [*PROGRAM, "convert", "-"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=terminal.slave, env=environment()
    ) as process:
        assert process.stdin is not None
        begun_s = time.monotonic()
        while "reading" not in terminal.text and time.monotonic() - begun_s < 10:
            process.stdin.write(LOG.encode())
            process.stdin.flush()
            time.sleep(0.05)
        process.stdin.close()
        assert process.wait(30) == 0
    terminal.end()
    assert re.search(r"reading, 0\.0 MB so far", terminal.text)
    assert screen(terminal.text) == ""


def test_without_a_terminal_there_is_none(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(told, "_PROGRESS_AFTER_S", 0.0)
    monkeypatch.setattr(told, "_PROGRESS_EVERY_S", 0.0)
    assert call("convert", recordings / "debian-7.2" / "precopy-busy" / "src.log").err == ""
