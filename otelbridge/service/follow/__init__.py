"""The files of an input's patterns, each followed as it grows and rotates. Bytes only: no format is known here."""

from __future__ import annotations

import contextlib
import math
import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from otelbridge.readers.rotated import is_packed, rotated_from
from otelbridge.service.follow.followed import FollowedFile, Piece, status
from otelbridge.service.follow.parts import parts_of, unreadable
from otelbridge.service.follow.patterns import Pattern, excluded

__all__ = ["Files", "FollowedFile", "Piece"]

OPEN_LIMIT = 200
_REST_AFTER_S = 10.0
_BEFORE_NS = 3_000_000_000
"""Two looks, and the clocks of host and file system, are no further apart."""
_FORGOTTEN = 1000
"""So many paths that were let go of are known again: what was rotated before that is not read anew."""


class Files:
    """The files of one input's patterns. Rotated parts of a path that a pattern names are no streams of their own.

    Args:
        patterns: Patterns of paths.
        exclude: Patterns of paths that are left out; one without a slash is compared with names.
        start: Where a file is begun that was never seen and is there at the first look.
        saved: A position for each path that was followed before.
        looked_ns: When these patterns were looked at last, None if never. New files that were written to since then are read
            from their beginning, with the rotated parts that were written since.
        clock: Seconds of a clock that never goes back.

    Attributes:
        streams: By path, absolute. Those whose path is away stay until `forget`.
        problems: What the last scan could not look at, or did not take for a stream, in words.
        unreadable: The folders among them.
    """

    def __init__(
        self,
        patterns: Iterable[str],
        exclude: Iterable[str],
        start: Literal["start", "end"],
        saved: Mapping[str, Mapping[str, Any]],
        *,
        looked_ns: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patterns = [Pattern(text) for text in patterns]
        self._exclude = tuple(exclude)
        self._clock = clock
        mine = {path: position for path, position in saved.items() if self._names(path)}
        self._streams: dict[str, FollowedFile] = {path: FollowedFile(path, clock, position) for path, position in mine.items()}
        # A log that comes may be rotated before it is seen, more than once while nobody looked, and away when somebody looks.
        self._parts_since_ns = None if looked_ns is None else looked_ns - _BEFORE_NS
        self._forgotten_ns: dict[str, int] = {}
        self._was_down = looked_ns is not None
        # What was not written to since the last look holds nothing that is new.
        old_ns = math.inf if self._parts_since_ns is None else self._parts_since_ns
        self._at_end_until_ns = old_ns if start == "end" else -math.inf
        self.streams: Mapping[str, FollowedFile] = self._streams
        self.problems: list[str] = []
        self.unreadable: list[str] = []

    def scan(self) -> None:
        """Look for new files, and at those that are known: to be called about once a second."""
        now_ns, folders = time.time_ns(), _Folders()
        names = folders.names_and_bases if self._was_down else folders.names
        paths = {path for pattern in self._patterns for path in pattern.paths(names)}
        notes = self._look_at_new(sorted(paths - self._streams.keys()))
        if self._parts_since_ns is None:
            self._parts_since_ns = now_ns - _BEFORE_NS
        for path, stream in self._streams.items():
            stream.look(status(path))
        self._at_end_until_ns, self._was_down = -math.inf, False
        self.unreadable = folders.problems
        self.problems = folders.problems + notes
        self._rest()

    def forget(self, path: str) -> None:
        """Let go of a stream. If its path is there, or comes back, it is a new file."""
        stream = self._streams.pop(path, None)
        if stream is not None:
            stream.close()
            self._forgotten_ns[path] = time.time_ns()
            for oldest in list(self._forgotten_ns)[:-_FORGOTTEN]:
                del self._forgotten_ns[oldest]

    def close(self) -> None:
        """Let go of all streams, whose positions can still be asked for."""
        for stream in self._streams.values():
            stream.close()

    def _names(self, path: str) -> bool:
        return any(pattern.matches(path) for pattern in self._patterns) and not self._is_left_out(path)

    def _is_left_out(self, path: str) -> bool:
        return any(excluded(path, pattern) for pattern in self._exclude)

    def _look_at_new(self, paths: Sequence[str]) -> list[str]:
        """Begin the files among these paths. The result says what is left out and why."""
        notes = []
        for path in paths:
            base = self._base(path)
            if self._is_left_out(path) or (base and base in self._streams):
                continue
            found = status(path)
            if isinstance(found, FileNotFoundError | NotADirectoryError):
                if self._was_down and self._was_rotated(path):
                    self._follow(path)
                continue
            if isinstance(found, OSError):
                notes.append(unreadable(path, found))
            elif not stat.S_ISREG(found.st_mode):
                continue
            elif base:
                notes += [] if os.path.lexists(base) else [_without_base(path, base)]
            elif is_packed(path):
                notes.append(
                    f"'{path}' is compressed, so it does not grow and is not followed; read it with `otelbridge convert`."
                )
            else:
                self._follow(path, at_end=found.st_mtime_ns <= self._at_end_until_ns)
        return notes

    def _follow(self, path: str, *, at_end: bool = False) -> None:
        since_ns = self._forgotten_ns.pop(path, self._parts_since_ns)
        self._streams[path] = FollowedFile(path, self._clock, at_end=at_end, parts_since_ns=since_ns)

    def _was_rotated(self, path: str) -> bool:
        """Whether parts of a file that is away were written since the last look."""
        with contextlib.suppress(OSError):
            return any(part.mtime_ns > (self._parts_since_ns or 0) for part in parts_of(os.path.realpath(path)))
        return False

    def _base(self, path: str) -> str:
        """The followed path that this one is a rotated part of, empty if it is none."""
        folder, _, name = path.rpartition("/")
        base = rotated_from(name)
        return f"{folder}/{base}" if base and self._names(f"{folder}/{base}") else ""

    def _rest(self) -> None:
        """Close the descriptors of files that have been idle longest, where many are open."""
        opened = 0
        for stream in sorted(self._streams.values(), key=lambda stream: stream.idle_s):
            opened += stream.open_parts
            if opened > OPEN_LIMIT and stream.idle_s > _REST_AFTER_S:
                stream.rest()


def _without_base(path: str, base: str) -> str:
    return (
        f"'{path}' is named like a rotated part of '{base}', which is not there: it is read only as a part of that one. "
        "If it is a log of its own, name it by a pattern that does not fit the other name."
    )


class _Folders:
    """The folders of one scan, each listed once."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._names: dict[str, list[str]] = {}

    def names(self, folder: str) -> list[str]:
        if folder not in self._names:
            self._names[folder] = self._listed(folder)
        return self._names[folder]

    def names_and_bases(self, folder: str) -> list[str]:
        """The names, and those that the rotated parts among them had when they were written."""
        names = self.names(folder)
        return [*names, *({rotated_from(name) for name in names} - {"", *names})]

    def _listed(self, folder: str) -> list[str]:
        try:
            with os.scandir(folder) as entries:
                return sorted(entry.name for entry in entries)
        except NotADirectoryError:
            return []
        except OSError as error:
            self.problems.append(unreadable(folder, error))
            return []
