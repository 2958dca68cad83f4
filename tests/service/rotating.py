"""A log as others write and rotate it, and its reading with restarts in between."""

import contextlib
import gzip
import json
import lzma
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from otelbridge.service.follow import Files, Piece

START_NS = 1_795_000_000_000_000_000


class Log:
    """A log in a folder. Each write is a second later than the one before, as far as the files' times tell.

    Attributes:
        path: Where it lies.
        written: Everything that was written to it.
        held: The file that its writer goes on in, whatever it is called by now; None where it opens the path for each write.
    """

    def __init__(self, folder: Path, name: str = "web.log") -> None:
        self.path = folder / name
        self.written = b""
        self.held: BinaryIO | None = None
        self._time_ns = START_NS
        self.path.touch()
        self._stamp(self.path)

    def write(self, data: bytes) -> None:
        with self.path.open("ab") if self.held is None else contextlib.nullcontext(self.held) as file:
            file.write(data)
            file.flush()
            self._stamp(file.fileno())
        self.written += data

    def hold(self, *, append: bool = True) -> None:
        """From now on its writer keeps its file, as long as nobody tells it of a rotation.

        Without `append` it writes as QEMU's `-D` does: after a truncation where it would have written without.
        """
        self.release()
        if not self.path.exists():
            self._create()
        self.held = self.path.open("ab" if append else "r+b")
        self.held.seek(0, os.SEEK_END)

    def release(self) -> None:
        """The writer was told: it opens the path again."""
        if self.held is not None:
            self.held.close()
            self.held = None

    def is_held(self, path: Path) -> bool:
        """Whether its writer goes on in that file."""
        return self.held is not None and os.path.samestat(os.fstat(self.held.fileno()), path.stat())

    def part(self, name: str) -> Path:
        return self.path.with_name(self.path.name + name)

    def rename(self, first: int = 0, backups: int = 30) -> None:
        """As virtlogd (numbers from 0) and logrotate (from 1): every part moves up by one, a new file takes the path."""
        self.rename_without_new(first, backups)
        self._create()

    def rename_without_new(self, first: int = 0, backups: int = 30) -> None:
        for number in range(first + backups - 1, first - 1, -1):
            for packed in ("", ".gz", ".xz"):
                source = self.path if number == first and not packed else self.part(f".{number - 1}{packed}")
                if source.exists():
                    source.rename(self.part(f".{number}{packed}"))

    def rename_dated(self, day: int) -> None:
        self.path.rename(self.part(f"-202611{day:02}"))
        self._create()

    def copy_truncate(self, first: int = 1, *, keep: bool = True) -> None:
        for number in range(first + 30, first, -1):
            for packed in ("", ".gz", ".xz"):
                if self.part(f".{number - 1}{packed}").exists():
                    self.part(f".{number - 1}{packed}").rename(self.part(f".{number}{packed}"))
        if keep:
            shutil.copyfile(self.path, self.part(f".{first}"))
            self._stamp(self.part(f".{first}"))
        os.truncate(self.path, 0)
        self._stamp(self.path)

    def unlink(self) -> None:
        self.path.unlink()

    def recreate(self) -> None:
        self.path.unlink()
        self._create()

    def move_to_new_inode(self) -> None:
        """As rsync replaces a file: the same content under the same name, of another inode."""
        copy = self.path.with_name("copy")
        shutil.copy2(self.path, copy)
        copy.rename(self.path)

    def pack(self, name: str, suffix: str = ".gz") -> None:
        source, target = self.part(name), self.part(name + suffix)
        target.write_bytes({".gz": gzip.compress, ".xz": lzma.compress}[suffix](source.read_bytes()))
        shutil.copystat(source, target)
        source.unlink()

    def _create(self) -> None:
        self.path.touch()
        self._stamp(self.path)

    def _stamp(self, path: Path | int) -> None:
        self._time_ns += 1_000_000_000
        os.utime(path, ns=(self._time_ns, self._time_ns))


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Reading:
    """A service's reading of one pattern; `restart` is what a crash and a new start are."""

    def __init__(self, folder: Path, pattern: str = "*.log*", start: str = "start", exclude: tuple[str, ...] = ()) -> None:
        self.clock = Clock()
        self.pieces: list[Piece] = []
        self.limit_bytes = 1 << 16
        self._folder = folder
        self._arguments: Any = ([f"{folder}/{pattern}"], exclude, start)
        self.files = Files(*self._arguments, {}, clock=self.clock)
        self.files.scan()

    @property
    def data(self) -> bytes:
        return b"".join(piece.data for piece in self.pieces)

    @property
    def losses(self) -> list[str]:
        return [piece.lost for piece in self.pieces if piece.lost]

    def stream(self, name: str = "web.log") -> Any:
        return self.files.streams[str(self._folder / name)]

    def scan(self, seconds: float = 1.0) -> None:
        self.clock.now_s += seconds
        self.files.scan()

    def step(self) -> bool:
        """One piece of every stream, if it has one."""
        pieces = [piece for stream in self.files.streams.values() if (piece := stream.read(self.limit_bytes)) is not None]
        self.pieces += pieces
        return bool(pieces)

    def read(self) -> None:
        """A scan and everything there is."""
        self.scan()
        for _ in range(10_000):
            if not self.step():
                return
        raise AssertionError("there is always more")

    def restart(self, *, scan: bool = True, looked_ns: int | None = None) -> None:
        """Without the time of the last look it is that of the last change that was read."""
        saved = json.loads(json.dumps({path: stream.position() for path, stream in self.files.streams.items()}))
        self.files.close()
        looked_ns = looked_ns or max((position.get("mtime_ns", 0) for position in saved.values()), default=None)
        self.files = Files(*self._arguments, saved, looked_ns=looked_ns, clock=self.clock)
        if scan:
            self.files.scan()


def lines(count: int, start: int = 0) -> bytes:
    """Lines of a log, each different."""
    return b"".join(
        b"2026-11-27T10:00:%02d.%06dZ migration_transferred_bytes transferred %d\n" % (number // 60 % 60, number, number * 4096)
        for number in range(start, start + count)
    )


def read_and_restart(reading: Reading) -> None:
    reading.read()
    reading.restart()


def one_small_piece(reading: Reading) -> None:
    reading.limit_bytes = 7
    reading.scan()
    reading.step()


BETWEEN: dict[str, Callable[[Reading], None]] = {
    "nothing": lambda _: None,
    "scan": Reading.scan,
    "read": Reading.read,
    "restart": Reading.restart,
    "read and restart": read_and_restart,
    "one small piece": one_small_piece,
}
