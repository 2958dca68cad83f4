"""The line that shows how far reading is: on a terminal, after a second, and gone at the end."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import threading
import time
from pathlib import Path

import pytest

from otelbridge import cli
from tests.convert.command import PROGRAM, environment

LOG = "17135@1795409540.431193:migrate_set_state new state setup\n17135@1795409541.431193:migrate_set_state new state failed\n"
DRAWN_EVERY_S = 0.3


class Terminal:
    """A pseudo terminal that keeps what was written to it."""

    def __init__(self) -> None:
        self._master, self.slave = pty.openpty()
        self._text = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def text(self) -> str:
        return self._text.decode()

    def ended(self) -> str:
        """Everything, when all writers are gone."""
        os.close(self.slave)
        self._reader.join(20)
        os.close(self._master)
        return self.text

    def _read(self) -> None:
        while True:
            try:
                self._text += os.read(self._master, 65536)
            except OSError:  # what Linux says when nobody has the other end any more
                return


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "slow.log"
    os.mkfifo(path)
    return path


def after_the_slow_copy(terminal: Terminal, error: int) -> int:
    """Convert a log that is so long that reading it takes more than a second on any machine; its exit code."""
    command = [*PROGRAM, "convert", "-", "--to", "console"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=error, env=environment()) as process:
        assert process.stdin is not None
        deadline_s = time.monotonic() + 3
        while time.monotonic() < deadline_s and "reading" not in terminal.text:
            process.stdin.write(LOG.encode() + b"line of another program\n" * 1000)
            process.stdin.flush()
            time.sleep(DRAWN_EVERY_S)
        process.stdin.close()
        return process.wait(30)
