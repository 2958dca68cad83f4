"""Writes, rotations of all kinds, reads and restarts in any order, against what the writer wrote."""

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from tests.service.rotating import Log, Reading, lines

ROUNDS = 60
STEPS = 60


class Writer:
    """A log of numbered lines, written in pieces that end anywhere."""

    def __init__(self, log: Log, random: Random) -> None:
        self.log, self._random, self._number, self._left = log, random, 0, b""

    def write(self) -> None:
        count = self._random.choice([0, 1, 1, 2, 20])
        text = self._left + lines(count, self._number)
        self._number += count
        cut = self._random.randrange(len(text) + 1) if self._random.random() < 0.7 else len(text)
        self._left = text[cut:]
        self.log.write(text[:cut])


def pack_one(log: Log, random: Random) -> None:
    """Any part but the newest, as `delaycompress` does it, or the newest too."""
    parts = sorted(path.name[len("web.log") :] for path in log.path.parent.glob("web.log.*") if path.suffix[1:].isdigit())
    if parts:
        log.pack(random.choice(parts), random.choice([".gz", ".xz"]))


def reader_steps(reading: Reading, random: Random) -> dict[str, Callable[[], object]]:
    def some_pieces() -> None:
        reading.limit_bytes = random.choice([1, 50, 300, 5000])
        for _ in range(random.randrange(6)):
            reading.step()

    def read() -> None:
        reading.limit_bytes = random.choice([100, 1 << 16])
        reading.read()

    return {
        "scan": lambda: reading.scan(random.choice([0.2, 1.0, 20.0])),
        "pieces": some_pieces,
        "read": read,
        "restart": lambda: reading.restart(scan=random.random() < 0.5),
        "rest": lambda: reading.stream().rest() if reading.files.streams else None,
    }


def rotations(log: Log, random: Random) -> dict[str, Callable[[], object]]:
    return {
        "rename": lambda: log.rename(1),
        "copytruncate": log.copy_truncate,
        "pack": lambda: pack_one(log, random),
        "inode": log.move_to_new_inode,
    }


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_no_order_of_writes_rotations_reads_and_restarts_loses_or_doubles_a_byte(seed: int, tmp_path: Path) -> None:
    random = Random(seed if os.environ.get("OTELBRIDGE_CI") == "1" else None)
    log = Log(tmp_path)
    writer = Writer(log, random)
    writer.write()
    reading = Reading(tmp_path)
    done: list[str] = []
    for _ in range(STEPS):
        kind = random.choice(["write", "write", "rotate", "read", "read"])
        if kind == "write":
            writer.write()
        else:
            choices = rotations(log, random) if kind == "rotate" else reader_steps(reading, random)
            kind = random.choice(list(choices))
            choices[kind]()
        done.append(kind)
        assert log.written.startswith(reading.data), done
    reading.limit_bytes = 1 << 16
    log.write(b"the end\n")
    reading.read()
    assert reading.data == log.written, done
    assert not reading.losses, done
    assert reading.stream().lag_bytes == 0


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_whatever_vanishes_the_rest_comes_in_order_and_once_and_a_gap_is_told(seed: int, tmp_path: Path) -> None:
    """Parts are deleted, files are unlinked and truncated without a copy: every line comes at most once."""
    random = Random(seed if os.environ.get("OTELBRIDGE_CI") == "1" else None)
    log = Log(tmp_path)
    writer = Writer(log, random)
    writer.write()
    reading = Reading(tmp_path)
    done: list[str] = []

    def drop_oldest() -> None:
        parts = sorted(tmp_path.glob("web.log.*"), key=lambda path: int(path.name.split(".")[2]))
        if parts:
            parts[-1].unlink()

    losing: dict[str, Callable[[], object]] = {
        "drop": drop_oldest,
        "recreate": log.recreate,
        "truncate": lambda: log.copy_truncate(keep=False),
    }
    for _ in range(STEPS):
        kind = random.choice(["write", "write", "rotate", "read", "read", "lose"])
        if kind == "write":
            writer.write()
        else:
            choices = {"rotate": rotations(log, random), "read": reader_steps(reading, random), "lose": losing}[kind]
            kind = random.choice(list(choices))
            choices[kind]()
        done.append(kind)
    reading.limit_bytes = 1 << 16
    log.write(b"the end\n")
    reading.read()
    at = 0
    gaps = 0
    for run in runs(reading):
        while run:
            found = log.written.find(run, at)
            if found < 0:
                found = -1
                break
            gaps += found > at
            at, run = found + len(run), b""
        assert found >= 0, (done, run)
    assert at == len(log.written), done
    if gaps:
        assert reading.losses, done


def runs(reading: Reading) -> list[bytes]:
    """What was handed out, cut where a piece says that it does not go on."""
    result = [b""]
    for piece in reading.pieces:
        if piece.begins or piece.lost:
            result.append(b"")
        result[-1] += piece.data
    return [run for run in result if run]
