"""Inputs that an installed program writes: `trace-cmd report`, `babeltrace2`, `journalctl -f`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from shutil import which
from threading import Thread

from otelbridge.errors import FormatError, UsageError
from otelbridge.readers.open import HEAD_BYTES, PIPE_BLOCK_BYTES

_MAX_NOTES = 100
_MAX_NOTE_BYTES = 1 << 12
_STOP_S = 5.0

TRACE_CMD = "trace-cmd"
BABELTRACE = "babeltrace2"
JOURNALCTL = "journalctl"
_PACKAGES = {TRACE_CMD: "trace-cmd", BABELTRACE: "babeltrace2", JOURNALCTL: "systemd"}

_CTF_LEVELS = 5
"""A session of LTTng has its metadata in `ust/uid/1000/64-bit/` of its folder, or of one below."""

_TRACE_DAT = b"\x17\x08\x44tracing"
# The magic number of a packet of metadata, in either byte order, or the text of one that is not cut into packets.
_CTF_METADATA = (b"\x57\x1d\xd1\x75", b"\x75\xd1\x1d\x57", b"/* CTF")


def is_trace_dat(head: bytes) -> bool:
    """Whether these are the first bytes of a trace-cmd's `trace.dat`."""
    return head.startswith(_TRACE_DAT)


def is_ctf(path: str) -> bool:
    """Whether this is a directory with a CTF trace somewhere in it, such as LTTng's session directory."""
    for folder, folders, files in os.walk(path):
        if len(Path(folder).relative_to(path).parts) >= _CTF_LEVELS:
            folders.clear()
        if "metadata" in files:
            with suppress(OSError), Path(folder, "metadata").open("rb") as file:
                if file.read(6).startswith(_CTF_METADATA):
                    return True
    return False


def trace_cmd_report(path: str) -> ProgramInput:
    """The text of a `trace.dat`.

    Raises:
        UsageError: trace-cmd is not installed.
    """
    return ProgramInput(path, [TRACE_CMD, "report", "-i", path])


def babeltrace_text(path: str) -> ProgramInput:
    """The text of a CTF trace, the directory that LTTng wrote; with dates, in UTC.

    Raises:
        UsageError: babeltrace2 is not installed.
    """
    return ProgramInput(path, [BABELTRACE, "--clock-gmt", "--clock-date", "--color", "never", path])


def journal(arguments: Sequence[str] = ()) -> ProgramInput:
    """The journal's entries as JSON lines, of all that `arguments` to journalctl choose; with `-f` without an end.

    Raises:
        UsageError: journalctl is not installed.
    """
    return ProgramInput("journal", [JOURNALCTL, "-o", "json", "--all", "--no-pager", *arguments])


class ProgramInput:
    """What a program writes, as an input; it runs until all was read or `close` is called.

    Args:
        path: What the program reads, as messages name it.
        command: The program and its arguments.

    Attributes:
        path: As given.
        size: None: it is not known before the end.
        hole_bytes: 0: what a program prints has none before it.
        gap: In words, that the program failed in the middle; empty if it did not. Known when all blocks were read.
        notes: What it wrote to stderr, line by line; the first hundred lines. Complete when all blocks were read.

    Raises:
        UsageError: There is no such program.
    """

    size = None
    hole_bytes = 0

    def __init__(self, path: str, command: Sequence[str]) -> None:
        self.path, self._command = path, list(command)
        program = self._command[0]
        if which(program) is None:
            package = _PACKAGES.get(program, program)
            raise UsageError(
                f"'{path}' is read with the program '{program}', which is not installed. Install it "
                f"(Debian, Ubuntu: apt-get install {package}; Fedora: dnf install {package}). Nothing was read."
            )
        self.gap = ""
        self.notes: list[str] = []
        self._read = 0
        self._head: bytes | None = None
        self._process = subprocess.Popen(  # noqa: S603  # the program is one of ours to name, and no shell reads its arguments
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._listener = Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def position(self) -> int:
        """Bytes of its text read so far."""
        return self._read

    @property
    def head(self) -> bytes:
        """The first of its text, up to 64 KiB, as much as comes at once; waits for the first of it."""
        if self._head is None:
            self._head = self._block(HEAD_BYTES)
        return self._head

    def blocks(self) -> Iterator[bytes]:
        """All of its text, as it comes, once.

        Raises:
            FormatError: The program wrote nothing and failed.
        """
        block = self.head
        while block:
            self._read += len(block)
            yield block
            block = self._block(PIPE_BLOCK_BYTES)
        self._conclude()

    def close(self) -> None:
        """Let go of it; the program is stopped if it still runs."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._listener.join(_STOP_S)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                with suppress(OSError, ValueError):
                    stream.close()

    def _block(self, size: int) -> bytes:
        stream = self._process.stdout
        # read1 gives what there is, so that a live source is not held back.
        return stream.read1(size) if stream is not None and not stream.closed else b""  # type: ignore[attr-defined]

    def _conclude(self) -> None:
        code = self._process.wait()
        self._listener.join()
        if code == 0:
            return
        said = f": {self.notes[-1]}" if self.notes else ""
        if not self._read:
            raise FormatError(
                f"'{self._command[0]}' cannot read it and ended with {code}{said}. Nothing of it was converted.", path=self.path
            )
        self.gap = f"'{self._command[0]}' ended with {code} before the end of '{self.path}'{said}"

    def _listen(self) -> None:
        stream = self._process.stderr
        if stream is None:
            return
        with suppress(OSError, ValueError):
            while line := stream.readline(_MAX_NOTE_BYTES):
                text = line.decode("utf-8", "replace").strip()
                if text and len(self.notes) < _MAX_NOTES:
                    self.notes.append(text)
