"""Writes, rotations of all kinds, reads and restarts in any order, against what the writer wrote."""

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from tests.service.rotating import Log, Reading, lines

SEEDS = range(60)
Steps = dict[str, Callable[[], object]]


class World:
    """A log of numbered lines, written in pieces that end anywhere, one way of rotating it, and a reader."""

    def __init__(self, folder: Path, seed: int) -> None:
        # CI tries the same orders each time; everybody else's runs look for new ones.
        self.random = Random(seed if os.environ.get("OTELBRIDGE_CI") == "1" else None)  # noqa: S311  # no secret
        self.folder, self.log = folder, Log(folder)
        self._number, self._left = 0, b""
        self.write()
        self.reading = Reading(folder)
        self.done: list[str] = []
        self._first = self.random.choice([0, 1, None])
        self._appends = self.random.random() < 0.5
        if self.random.random() < 0.5:
            self.log.hold(append=self._appends)
        self.steps: Steps = {
            "write": self.write,
            "write more": self.write,
            "rotate": self.rotate,
            "rotate and wait": self.rotate_and_wait,
            "pack": self.pack,
            "another inode": self.move,
            "tell the writer": self.tell,
            "scan": lambda: self.reading.scan(self.random.choice([0.2, 1.0, 20.0])),
            "pieces": self.some_pieces,
            "read": self.read,
            "restart": lambda: self.reading.restart(scan=self.random.random() < 0.5),
            "rest": lambda: (self.reading.scan(), self.reading.stream().rest()),
        }

    def rotate(self) -> None:
        if not self.log.path.exists():
            return
        if self._first is None:
            self.log.copy_truncate()
        else:
            self.log.rename(self._first)

    def rotate_and_wait(self) -> None:
        """By rename, with no file at the path until something is written."""
        if self._first is not None and self.log.path.exists():
            self.log.rename_without_new(self._first)

    def tell(self) -> None:
        """The writer goes on in the file at the path."""
        if self.log.held is not None:
            self.log.hold(append=self._appends)

    def run(self, losing: Steps) -> None:
        steps = self.steps | losing
        for _ in range(self.random.choice([6, 15, 60])):
            self.done.append(self.random.choice(list(steps)))
            steps[self.done[-1]]()
        self.log.write(b"the end\n")
        self.log.release()
        self.read()

    def write(self) -> None:
        count = self.random.choice([0, 1, 1, 2, 20])
        text = self._left + lines(count, self._number)
        self._number += count
        cut = self.random.randrange(len(text) + 1) if self.random.random() < 0.7 else len(text)
        self._left = text[cut:]
        self.log.write(text[:cut])

    def write_one(self) -> None:
        """A line that no other is like."""
        self.log.write(self._left + lines(1, self._number))
        self._number, self._left = self._number + 1, b""

    def read(self) -> None:
        self.reading.limit_bytes = self.random.choice([100, 1 << 16])
        self.reading.read()

    def some_pieces(self) -> None:
        self.reading.limit_bytes = self.random.choice([1, 50, 300, 5000])
        for _ in range(self.random.randrange(6)):
            self.reading.step()

    def parts(self) -> list[Path]:
        return sorted(self.folder.glob("web.log.*"), key=lambda path: int(path.name.split(".")[2]))

    def pack(self) -> None:
        """Packing comes long after rotating: the service has looked at the folder in between."""
        self.reading.scan()
        parts = [
            path for path in self.parts() if path.suffix[1:].isdigit() and path.stat().st_size and not self.log.is_held(path)
        ]
        if parts:
            self.log.pack(self.random.choice(parts).name[len("web.log") :], self.random.choice([".gz", ".xz"]))

    def move(self) -> None:
        """A file of which nothing is known cannot be known again."""
        self.read()
        if self.log.path.exists() and self.log.path.stat().st_size and not self.log.is_held(self.log.path):
            self.log.move_to_new_inode()

    def drop_oldest(self) -> None:
        self.read()
        for path in self.parts()[-1:]:
            if not self.log.is_held(path):
                path.unlink()

    def recreate(self) -> None:
        self.tell()
        self.write_one()
        self.read()
        self.log.recreate()
        self.tell()

    def truncate(self) -> None:
        self.tell()
        self.write_one()
        self.read()
        self.write_one()
        self.log.copy_truncate(keep=False)

    def runs(self) -> list[bytes]:
        """What was handed out, cut where a piece says that it does not go on."""
        runs = [b""]
        for piece in self.reading.pieces:
            if piece.begins:
                runs.append(b"")
            runs[-1] += piece.data
        return runs


@pytest.mark.parametrize("seed", SEEDS)
def test_no_order_of_writes_rotations_reads_and_restarts_loses_or_doubles_a_byte(seed: int, tmp_path: Path) -> None:
    world = World(tmp_path, seed)
    world.run({})
    assert world.reading.data == world.log.written, world.done
    assert not world.reading.losses, world.done
    assert not any(piece.begins for piece in world.reading.pieces), world.done
    assert world.reading.stream().lag_bytes == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_vanishes_the_rest_comes_in_order_and_once_and_a_gap_is_told(seed: int, tmp_path: Path) -> None:
    """Parts are deleted, files are unlinked and truncated without a copy."""
    world = World(tmp_path, seed)
    world.run({"drop": world.drop_oldest, "recreate": world.recreate, "truncate": world.truncate})
    at = gaps = 0
    for run in world.runs():
        found = world.log.written.find(run, at)
        assert found >= 0, (world.done, run)
        gaps += found > at
        at = found + len(run)
    assert at == len(world.log.written), world.done
    assert len(world.reading.losses) >= gaps, world.done
