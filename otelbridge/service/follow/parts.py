"""One file of a stream, open: read at any offset, plain or unpacked."""

from __future__ import annotations

import contextlib
import gzip
import lzma
import os
import stat
import zlib
from collections.abc import Callable, Iterable
from io import BufferedReader
from pathlib import Path
from typing import Self, TypeVar

from otelbridge.readers.open import first_data
from otelbridge.readers.rotated import in_order, is_packed
from otelbridge.service.follow.rotation import Fingerprint, Found, Mark, fingerprint

Decision = TypeVar("Decision")

_STEP_BYTES = 1 << 16
_LOOKS = 5


class DamagedError(Exception):
    """A packed part that cannot be unpacked any further."""


class PlainPart:
    """A file whose bytes are read as they are.

    Raises:
        OSError: It cannot be opened.
    """

    packed = False

    def __init__(self, real: str) -> None:
        self.real = real
        # Without waiting: what was a file a moment ago may be a pipe now.
        self._descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        found = os.fstat(self._descriptor)
        self.identity = found.st_dev, found.st_ino

    def stat(self) -> os.stat_result:
        """What the file system says of it now."""
        return os.fstat(self._descriptor)

    def first_data(self) -> int:
        """Where the file system has data first: before it nothing was ever written."""
        return first_data(self._descriptor)

    def bytes_at(self, offset: int, limit_bytes: int) -> bytes:
        """Up to so many bytes from there."""
        return os.pread(self._descriptor, limit_bytes, offset)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)


class PackedPart:
    """A file compressed by gzip or xz, read as its unpacked content. Going backwards unpacks it anew.

    Raises:
        OSError: It cannot be opened.
    """

    packed = True

    def __init__(self, real: str) -> None:
        self.real = real
        self._raw = Path(real).open("rb")  # noqa: SIM115  # close() ends it
        found = os.fstat(self._raw.fileno())
        self.identity = found.st_dev, found.st_ino
        self._content = _unpacked(self._raw)

    def stat(self) -> os.stat_result:
        """What the file system says of it now: its size is the packed one."""
        return os.fstat(self._raw.fileno())

    def bytes_at(self, offset: int, limit_bytes: int) -> bytes:
        """Up to so many bytes from there, none at the end.

        Raises:
            DamagedError: The content ends before its end, or is damaged.
        """
        try:
            if self._content.seek(offset) < offset:
                return b""
            return self._content.read1(min(limit_bytes, _STEP_BYTES))
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise DamagedError(str(error)) from error

    def close(self) -> None:
        """Let go of the file."""
        with contextlib.suppress(OSError, EOFError):
            self._content.close()
        self._raw.close()


Part = PlainPart | PackedPart


def open_part(real: str) -> Part:
    """The file, open; unpacked if its name says that it is packed.

    Raises:
        OSError: It cannot be opened.
    """
    return PackedPart(real) if is_packed(real) else PlainPart(real)


def read_fully(part: Part, offset: int, size_bytes: int) -> bytes:
    """So many bytes from there, fewer only where the file ends or is damaged."""
    pieces: list[bytes] = []
    with contextlib.suppress(DamagedError):
        while size_bytes and (piece := part.bytes_at(offset, size_bytes)):
            pieces.append(piece)
            offset, size_bytes = offset + len(piece), size_bytes - len(piece)
    return b"".join(pieces)


def hole_bytes(part: Part) -> int:
    """How many NUL bytes stand before everything else."""
    if read_fully(part, 0, 1) != b"\0":
        return 0
    offset = part.first_data() if isinstance(part, PlainPart) else 0
    with contextlib.suppress(DamagedError):
        while piece := part.bytes_at(offset, _STEP_BYTES):
            content = piece.lstrip(b"\0")
            offset += len(piece) - len(content)
            if content:
                break
    return offset


def holds(part: Part, mark: Mark) -> bool:
    """Whether the part has the bytes that the mark knows: its head, and those before its offset."""
    if not part.packed and part.stat().st_size < mark.offset:
        return False
    return _has(part, mark.hole, mark.head) and _has(part, mark.offset - mark.tail.length, mark.tail)


def _has(part: Part, offset: int, expected: Fingerprint) -> bool:
    return fingerprint(read_fully(part, offset, expected.length)) == expected


class Candidates:
    """The files that may be parts of one stream, open so that they cannot vanish while it is decided about them.

    Attributes:
        found: Oldest first. A symbolic link that changed its target has the files of the old target before those of the new.
        chain: The `chain` of the path as it is now.
        problem: Why one of them cannot be opened, in words; empty if all can.
    """

    def __init__(self, path: str, real_before: str) -> None:
        self._path = path
        self.found: list[Found] = []
        self.problem = ""
        self._parts: dict[tuple[int, int], Part] = {}
        real = os.path.realpath(path)
        self._reals = [real] if real == real_before else [real_before, real]
        self.chain = len(self._reals) - 1

    def __enter__(self) -> Self:
        return self

    def decide(self, make: Callable[[], Decision]) -> Decision | None:
        """What `make` makes of the files; None, and `problem` says why, if they do not keep still for so long.

        While they are renamed, a name may be seen twice or not at all, and copies become older: it is made again until
        the folder looks the same before and after.
        """
        for _ in range(_LOOKS):
            self.problem = ""
            self.found = self._listed()
            if self._open_all():
                decision = make()
                if self._listed() == self.found:
                    return decision
            self.release([])
        self.problem = f"'{self._path}' and its rotated parts are being renamed all the time; they are looked for again."
        return None

    def __exit__(self, *_: object) -> None:
        self.release([])

    def part(self, file: Found) -> Part | None:
        """The file, open; None if it cannot be opened."""
        return self._parts.get(file.identity)

    def holds(self, file: Found, mark: Mark) -> bool:
        """Whether the file has the bytes that the mark knows."""
        part = self.part(file)
        return part is not None and holds(part, mark)

    def release(self, kept: Iterable[Part]) -> None:
        """Close all files but these."""
        kept = list(kept)
        for part in self._parts.values():
            if part not in kept:
                part.close()
        self._parts = {}

    def _listed(self) -> list[Found]:
        found: dict[tuple[int, int], Found] = {}
        for chain, real in enumerate(self._reals):
            try:
                files = parts_of(real, chain)
            except OSError as error:
                if chain == self.chain:
                    self.problem = unreadable(os.path.dirname(real), error)  # noqa: PTH120  # as it was written
                files = []
            for file in files:
                # A file of two names is the later one: who rotates by linking removes the older name next.
                found.pop(file.identity, None)
                found[file.identity] = file._replace(mtime_ns=0) if file.last else file
        return list(found.values())

    def _open_all(self) -> bool:
        """Open each file. False if one was renamed meanwhile."""
        for file in self.found:
            try:
                part = open_part(file.real)
            except FileNotFoundError:
                return False
            except OSError as error:
                self.problem = unreadable(file.real, error)
                continue
            self._parts[file.identity] = part
            if part.identity != file.identity:
                return False
        return True


def unreadable(path: str, error: OSError) -> str:
    """The message that a file or a folder cannot be read."""
    return f"'{path}' cannot be read: {error.strerror or error}. It is tried again; nothing is skipped meanwhile."


def parts_of(real: str, chain: int = 0) -> list[Found]:
    """The rotated parts of a file, oldest first, then the file itself if it is there.

    Raises:
        OSError: Its folder cannot be read.
    """
    folder, name = os.path.split(real)
    with os.scandir(folder or ".") as entries:
        beside = {entry.name: entry for entry in entries if entry.name.startswith(name)}
    stats: dict[str, os.stat_result] = {}
    for each, entry in beside.items():
        with contextlib.suppress(OSError):  # renamed meanwhile: the second look notices
            found = entry.stat()
            if stat.S_ISREG(found.st_mode):
                stats[each] = found
    names = in_order(name, [(each, found.st_mtime_ns) for each, found in stats.items()])
    return [
        _found(f"{folder}/{each}", stats[each], chain, last=each == name)
        for each in [*names, *([name] if name in stats else [])]
    ]


def _found(real: str, found: os.stat_result, chain: int, *, last: bool) -> Found:
    return Found(real, found.st_dev, found.st_ino, found.st_mtime_ns, chain, last)


def _unpacked(raw: BufferedReader) -> gzip.GzipFile | lzma.LZMAFile | BufferedReader:
    magic = raw.peek(6)[:6]
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=raw, mode="rb")
    if magic.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMAFile(raw, "rb")
    return raw
