"""Inputs as blocks of bytes: files, gzip and xz read as they are, standard input."""

from __future__ import annotations

import atexit
import gzip
import lzma
import os
import sys
import zlib
from collections.abc import Iterator
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import IO, Any, cast

from otelbridge.errors import UsageError

HEAD_BYTES = 1 << 16
FILE_BLOCK_BYTES = 1 << 18
PIPE_BLOCK_BYTES = 1 << 16

_GZIP, _XZ = b"\x1f\x8b", b"\xfd7zXZ\x00"
_UNPACK = {b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"PK\x03\x04": "zip", b"\x04\x22\x4d\x18": "lz4"}


class Input:
    """One input, open.

    Attributes:
        path: As the user named it; `-` is standard input.
        size: Bytes of the file as it lies there, None for a pipe.
        head: The first 64 KiB of its content, unpacked, without a hole before it.
        hole_bytes: So many NUL bytes stand before it, which are passed over. QEMU's `-D` does not append: what it writes to a
            log that was truncated stands where it would have stood.
        notes: Always empty; a program that reads for us has some.
        gap: What was wrong with the end of it, in words; empty if nothing was. Known when all blocks were read.
    """

    def __init__(self, path: str, raw: IO[bytes], size: int | None) -> None:
        self.path, self._raw, self.size = path, raw, size
        self.gap = ""
        self.notes: list[str] = []
        self.packed = False
        self._content: IO[bytes] = raw
        start = self._magic()
        if start.startswith(_GZIP):
            self._content, self.packed = cast("IO[bytes]", gzip.GzipFile(fileobj=raw, mode="rb")), True
        elif start.startswith(_XZ):
            self._content, self.packed = lzma.LZMAFile(raw, "rb"), True  # noqa: SIM115  # close() ends it
        for magic, name in _UNPACK.items():
            if start.startswith(magic):
                self.close()
                raise UsageError(
                    f"{shown(path)} is packed with {name}; unpack it first, or pack it with gzip or xz. Nothing was read."
                )
        self.hole_bytes = 0
        self.head = self._read(HEAD_BYTES)
        if self.head.startswith(b"\0") and size is not None and not self.packed:
            # Nothing was ever written there, so nothing needs to be read.
            self.hole_bytes = raw.seek(first_data(raw.fileno()))
            self.head = self._read(HEAD_BYTES)
        while self.head.startswith(b"\0"):
            content = self.head.lstrip(b"\0")
            self.hole_bytes += len(self.head) - len(content)
            self.head = content or self._read(HEAD_BYTES)

    @property
    def position(self) -> int:
        """Bytes of the file read so far, packed as they are."""
        try:
            return self._raw.tell()
        except OSError:
            return 0

    def blocks(self) -> Iterator[bytes]:
        """The whole content from its beginning, once. A packed file that is cut or damaged ends where it can be read to."""
        if self.head:
            yield self.head
        size = FILE_BLOCK_BYTES if self.size is not None else PIPE_BLOCK_BYTES
        while block := self._read(size):
            yield block

    def tail(self) -> bytes:
        """The last bytes of the content, at most twice 64 KiB of it, in place of `blocks`."""
        if self.packed or self.size is None:
            last = b""
            for block in self.blocks():
                last = (last + block)[-2 * HEAD_BYTES :]
            return last
        self._raw.seek(max(0, self.size - HEAD_BYTES))
        return self._read(HEAD_BYTES)

    def close(self) -> None:
        """Let go of the file."""
        self._content.close()
        self._raw.close()

    def _magic(self) -> bytes:
        try:
            return _peek(self._raw)
        except OSError as error:
            self.close()
            raise _unreadable(self.path, error) from error

    def _read(self, size: int) -> bytes:
        try:
            if self.packed:
                return self._unpacked(size)
            return self._raw.read(size) if self.size is not None else _read_pipe(self._raw, size)
        except OSError as error:
            self.close()
            raise _unreadable(self.path, error) from error

    def _unpacked(self, size: int) -> bytes:
        """So many bytes, fewer at the end. In small steps: a step that meets the damage gives nothing of what it read."""
        pieces, missing = [], size
        try:
            while missing and not self.gap and (piece := _read_pipe(self._content, missing)):
                pieces.append(piece)
                missing -= len(piece)
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            self.gap = f"the packed file cannot be read to its end ({error}); what came before was converted"
        return b"".join(pieces)


def open_input(path: str, *, again: bool = False) -> Input:
    """Open a file or, for `-`, standard input.

    Args:
        path: As the user named it.
        again: It will be opened more than once: what is read of a pipe is kept in a temporary file for the next time.

    Raises:
        UsageError: There is no such file, it is a directory, it cannot be read, or is packed in a way that is not known.
    """
    if path in _PIPES:
        return Input(path, _PIPES[path].from_start(), None)
    raw = _standard_input() if path == "-" else _opened(path)
    if path != "-" and raw.seekable():
        return Input(path, raw, os.fstat(raw.fileno()).st_size)
    if again:
        _PIPES[path] = _Pipe(raw)
        raw = _PIPES[path].from_start()
    return Input(path, raw, None)


def _opened(path: str) -> IO[bytes]:
    try:
        return Path(path).open("rb")
    except FileNotFoundError:
        raise UsageError(f"{shown(path)} does not exist{_beside(path)}. Nothing was read.") from None
    except IsADirectoryError:
        raise UsageError(
            f"{shown(path)} is a directory; name the log files in it, for example {path.rstrip('/')}/*.log."
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from None


def shown(path: str) -> str:
    """The path as messages name it."""
    return "standard input" if path == "-" else f"'{path}'"


def _unreadable(path: str, error: OSError) -> UsageError:
    return UsageError(f"{shown(path)} cannot be read: {error.strerror or error}.")


def _standard_input() -> IO[bytes]:
    if sys.stdin is None:
        raise UsageError("standard input is closed; name a file, or pipe a log into it. Nothing was read.")
    return os.fdopen(os.dup(sys.stdin.fileno()), "rb")


class _Pipe:
    """A pipe that can be read from its beginning more than once."""

    def __init__(self, source: IO[bytes]) -> None:
        from tempfile import TemporaryFile  # noqa: PLC0415  # only for a pipe that is read twice

        self._source, self._size = source, 0
        self._copy = TemporaryFile()  # noqa: SIM115  # it must last until the last reading, which nobody knows
        atexit.register(self._copy.close)

    def from_start(self) -> IO[bytes]:
        return BufferedReader(_FromStart(self), PIPE_BLOCK_BYTES)

    def read(self, place: int, size: int) -> bytes:
        """Up to so many bytes, of what was read before or comes next."""
        if place < self._size:
            return os.pread(self._copy.fileno(), min(size, self._size - place), place)
        block = b"" if self._source.closed else _read_pipe(self._source, size)
        if not block:
            self._source.close()
        self._copy.write(block)
        self._copy.flush()
        self._size += len(block)
        return block


class _FromStart(RawIOBase):
    """One reading of a pipe."""

    def __init__(self, pipe: _Pipe) -> None:
        self._pipe, self._place = pipe, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  # whatever has the buffer protocol
        block = self._pipe.read(self._place, len(buffer))
        buffer[: len(block)] = block
        self._place += len(block)
        return len(block)


_PIPES: dict[str, _Pipe] = {}


def is_pipe(path: str) -> bool:
    """Whether an input that was opened before gives its bytes but once, to this process alone."""
    return path in _PIPES


def _read_pipe(raw: IO[bytes], size: int) -> bytes:
    """Up to so many bytes, without waiting for all of them."""
    read1 = getattr(raw, "read1", raw.read)
    block: bytes = read1(size)
    return block


def first_data(file: int) -> int:
    """Where the file system has data first in an open file, 0 where it does not say; before it are NUL bytes."""
    place = os.lseek(file, 0, os.SEEK_CUR)
    try:
        return os.lseek(file, 0, os.SEEK_DATA)
    except OSError:
        return 0
    finally:
        os.lseek(file, place, os.SEEK_SET)  # a buffer before it believes to know the place


def _peek(raw: IO[bytes]) -> bytes:
    peek = getattr(raw, "peek", None)
    return bytes(peek(8)[:8]) if peek is not None else b""


def _beside(path: str) -> str:
    """A hint at a file of nearly that name."""
    from difflib import get_close_matches  # noqa: PLC0415  # only for the error

    folder = Path(path).parent
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:
        return ""
    close = get_close_matches(Path(path).name, names, n=1, cutoff=0.6)
    return f"; did you mean '{folder / close[0]}'?" if close else ""
