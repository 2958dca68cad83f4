"""Streams that are no files: a named pipe, and the journal through `journalctl`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, cast

from otelbridge.service.follow.followed import LOOK_S, Piece, kind_of, status
from otelbridge.service.follow.parts import unreadable

_FIRST_WAIT_S, _LONGEST_WAIT_S, _GOOD_RUN_S = 1.0, 60.0, 10.0
_STOP_S = 2.0
_BLOCK_BYTES = 1 << 16
_PIPE_BYTES = 1 << 20
"""As large as a pipe may be by Linux' own settings; it is made with room for 64 KiB."""
_MUCH_BYTES = 1 << 15
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_ERROR_BYTES = 1000

# {"MESSAGE":"savevm_state_begin","__CURSOR":"s=938e…;i=1;b=…;m=3e8;t=…;x=…",…}: in the text of a field, quotes are escaped.
_CURSOR = re.compile(rb'[{,] ?"__CURSOR" ?: ?"([^"\\]+)"')


class FollowedPipe:
    """A named pipe, read without waiting. What was read of it is nowhere else, so its position carries nothing.

    Args:
        path: The pipe.
        clock: Seconds of a clock that never goes back.

    Attributes:
        path: As given.
        problem: Why it cannot be read now, in words; empty if it can.
    """

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.path, self.problem = path, ""
        self._clock = clock
        self._descriptor: int | None = None
        self._identity = (0, 0)
        self._any = self._begins = False
        self._next_look_s = clock()

    @property
    def descriptor(self) -> int | None:
        """The pipe's."""
        return self._descriptor

    @property
    def lag_bytes(self) -> int:
        """Bytes that wait in the pipe."""
        return 0 if self._descriptor is None else _waiting(self._descriptor)

    @property
    def at_risk(self) -> bool:
        """Whether bytes wait: a full pipe stops its writer, which is QEMU."""
        return self.lag_bytes > 0

    @property
    def has_more(self) -> bool:
        """Much of it waits; for less, `descriptor` tells."""
        return self.lag_bytes >= _MUCH_BYTES

    @property
    def gone(self) -> bool:
        """The path is away and everything was handed out."""
        return self._descriptor is None and isinstance(status(self.path), FileNotFoundError)

    def position(self) -> dict[str, Any]:
        """Nothing: a pipe is read once."""
        return {}

    def read(self, limit_bytes: int) -> Piece | None:
        """Up to so many next bytes, None when there are none now. They begin anew after their writer ended."""
        if self._descriptor is None and not self._opened():
            return None
        try:
            data = os.read(cast("int", self._descriptor), limit_bytes)
        except BlockingIOError:
            return None
        except OSError as error:
            self.problem = unreadable(self.path, error)
            self.close()
            return None
        if data:
            begins, self._begins, self._any = self._begins, False, True
            return Piece(data, begins)
        # No writer is left. The next one finds a reader only while this one stays open.
        self._begins = self._any
        self._look()
        self._open_again()
        return None

    def _open_again(self) -> None:
        """A descriptor whose last writer has left always counts as readable; one that was opened since then does not."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                before, self._descriptor = self._descriptor, os.open(f"/proc/self/fd/{self._descriptor}", _FLAGS)
                os.close(before)

    def _is_time(self) -> bool:
        if self._clock() < self._next_look_s:
            return False
        self._next_look_s = self._clock() + LOOK_S
        return True

    def _look(self) -> None:
        """Let go of a pipe that has another name or none now."""
        if not self._is_time():
            return
        found = status(self.path)
        if isinstance(found, FileNotFoundError) or (
            isinstance(found, os.stat_result) and (found.st_dev, found.st_ino) != self._identity
        ):
            self.close()

    def _opened(self) -> bool:
        if not self._is_time():
            return False
        found = status(self.path)
        if isinstance(found, os.stat_result) and not stat.S_ISFIFO(found.st_mode):
            self.problem = f"'{self.path}' is {kind_of(found)}, expected a pipe (`mkfifo`). It is read when there is a pipe."
            return False
        try:
            self._descriptor = os.open(self.path, _FLAGS)
        except OSError as error:
            self.problem = unreadable(self.path, error)
            return False
        opened = os.fstat(self._descriptor)
        self._identity = opened.st_dev, opened.st_ino
        _widen(self._descriptor)
        self.problem = ""
        return True

    def close(self) -> None:
        """Let go of the pipe."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class FollowedJournal:
    """The journal's entries as `journalctl -o json` writes them, one a line.

    Args:
        matches: `FIELD=value`, as journalctl takes them.
        folder: The folder of the journal's files, None for the system's own.
        start: Where it is begun if it was never read.
        saved: An earlier `position()`, empty if there is none.
        clock: Seconds of a clock that never goes back.
        wall_clock: Unix time in seconds, for `start` at the end.
        program: The program to run.

    Attributes:
        path: The matches, as messages name the stream.
        problem: Why it cannot be read now, in words; empty if it can.
        lag_bytes: Bytes that came from journalctl and were not handed out; how much it has yet to write nobody knows.
        at_risk: Never: the journal keeps its entries.
        gone: Never.
    """

    at_risk = gone = False

    def __init__(
        self,
        matches: Sequence[str],
        folder: Path | None,
        start: Literal["start", "end"],
        saved: Mapping[str, Any],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        program: str = "journalctl",
    ) -> None:
        self.path, self.problem = " ".join(matches), ""
        self._matches, self._folder, self._program = tuple(matches), folder, program
        self._clock = clock
        self._position = dict(saved) or ({"since_s": int(wall_clock())} if start == "end" else {})
        self._child: subprocess.Popen[bytes] | None = None
        self._waiting = self._line = self._error = b""
        self._partial = False
        self._begins = bool(saved)  # a part of an entry that was handed out before a crash comes whole once more
        self._started_s = self._next_start_s = clock()
        self._wait_s = _FIRST_WAIT_S

    @property
    def lag_bytes(self) -> int:
        """Bytes that came from journalctl and were not handed out."""
        child = self._child
        return len(self._waiting) + (0 if child is None else _waiting(_output(child).fileno()))

    @property
    def has_more(self) -> bool:
        """Much of what journalctl wrote waits; for less, `descriptor` tells."""
        return self.lag_bytes >= _MUCH_BYTES

    @property
    def descriptor(self) -> int | None:
        """Where journalctl writes its entries, as long as it runs."""
        return None if self._child is None else _output(self._child).fileno()

    def position(self) -> dict[str, Any]:
        """The cursor of the last entry that was handed out whole; plain JSON data."""
        return dict(self._position)

    def read(self, limit_bytes: int) -> Piece | None:
        """The next entries, whole ones unless a single one is longer than the limit; None when there are none now."""
        if self._child is None and not self._started():
            return None
        ended = self._fill(limit_bytes)
        piece = self._taken(limit_bytes)
        if piece is None and ended:
            self._end()
        return piece

    def _fill(self, limit_bytes: int) -> bool:
        """Take what journalctl wrote, as far as it is needed. True if there is no more to come."""
        output = _output(cast("subprocess.Popen[bytes]", self._child)).fileno()
        while len(self._waiting) < limit_bytes:
            try:
                block = os.read(output, _BLOCK_BYTES)
            except BlockingIOError:
                if self._clock() - self._started_s > _FIRST_WAIT_S:
                    self.problem = ""
                return False
            if not block:
                return True
            self.problem = ""
            self._waiting += block
        return False

    def _taken(self, limit_bytes: int) -> Piece | None:
        end = self._waiting.rfind(b"\n", 0, limit_bytes) + 1
        if not end and len(self._waiting) >= limit_bytes:
            end = limit_bytes
        if not end:
            return None
        data, self._waiting = self._waiting[:end], self._waiting[end:]
        self._note_cursor(data)
        begins, self._begins = self._begins, False
        return Piece(data, begins)

    def _note_cursor(self, data: bytes) -> None:
        """Note the cursor of the last entry that ends in these bytes."""
        self._partial = not data.endswith(b"\n")
        whole, _, rest = (self._line + data).rpartition(b"\n")
        self._line = rest
        found = _CURSOR.search(whole, whole.rfind(b"\n") + 1) if whole else None
        if found is not None:
            self._position = {"cursor": found[1].decode()}

    def _started(self) -> bool:
        if self._clock() < self._next_start_s:
            return False
        # Without --merge, --follow leaves out what came before the last boot, and loses an entry behind a cursor from then.
        command = [self._program, "--output=json", "--all", "--follow", "--merge", "--no-tail", "--quiet", "--no-pager"]
        command += [f"--directory={self._folder}"] if self._folder else []
        if "cursor" in self._position:
            command.append(f"--after-cursor={self._position['cursor']}")
        elif "since_s" in self._position:
            command.append(f"--since=@{self._position['since_s']}")
        try:
            self._child = subprocess.Popen(  # noqa: S603  # the matches are the user's own words, and no shell reads them
                [*command, "--", *self._matches] if self._matches else command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
            )
        except OSError as error:
            self._later(
                f"the journal cannot be read: `{self._program}` cannot be started ({error.strerror or error}). "
                "Install systemd's journalctl where the service runs. It is tried again; the journal keeps its entries."
            )
            return False
        for stream in (self._child.stdout, self._child.stderr):
            os.set_blocking(cast("IO[bytes]", stream).fileno(), False)
        _widen(_output(self._child).fileno())
        self._started_s, self._error = self._clock(), b""
        return True

    def _end(self) -> None:
        """Journalctl ended: start it again later, behind the last whole entry."""
        child = cast("subprocess.Popen[bytes]", self._child)
        with contextlib.suppress(BlockingIOError):
            self._error = os.read(cast("IO[bytes]", child.stderr).fileno(), _ERROR_BYTES)
        self._stop()
        words = self._error.decode("utf-8", "replace").strip().splitlines()
        said = f": {words[-1]}" if words else " and said nothing"
        if self._clock() - self._started_s > _GOOD_RUN_S:
            self._wait_s = _FIRST_WAIT_S
        self._later(
            f"the journal cannot be read: `{self._program}` ended with code {child.returncode}{said}. "
            "It is started again; the journal keeps its entries."
        )

    def _later(self, problem: str) -> None:
        self.problem = problem
        self._next_start_s = self._clock() + self._wait_s
        self._wait_s = min(2 * self._wait_s, _LONGEST_WAIT_S)

    def _stop(self) -> None:
        child, self._child = self._child, None
        # What was handed out of an entry comes once more, from its beginning.
        self._begins = self._begins or self._partial
        self._waiting = self._line = b""
        if child is None:
            return
        child.terminate()
        try:
            child.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        for stream in (child.stdout, child.stderr):
            cast("IO[bytes]", stream).close()

    def close(self) -> None:
        """End journalctl."""
        self._stop()


def _widen(pipe: int) -> None:
    """Let more fit into a pipe: its writer stands still while it is full."""
    # Linux alone can do that, and all pipes of a user may hold only so much.
    with contextlib.suppress(OSError, AttributeError):
        if fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) < _PIPE_BYTES:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _output(child: subprocess.Popen[bytes]) -> IO[bytes]:
    return cast("IO[bytes]", child.stdout)


def _waiting(descriptor: int) -> int:
    """Bytes that can be read without waiting."""
    count: int = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4))[0]
    return count
