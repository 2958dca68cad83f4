"""A writer that waits for nobody, and a reader that is restarted now and then."""

import os
import shutil
import time
from pathlib import Path
from random import Random
from threading import Event, Thread

import pytest

from otelbridge.service.follow import Piece
from tests.service.rotating import Reading, lines

TEXT = lines(60_000)
ROTATE_EVERY_BYTES = 200_000
PARTS = len(TEXT) // ROTATE_EVERY_BYTES + 1
PAUSE_S = 0.005  # a tick of the clock that files are stamped by, so that their times tell which is newer
WAIT_S = 60


def write(path: Path, kind: str, done: Event) -> None:
    """Write it all, rotated by virtlogd's way, which cuts lines anywhere, or by copies that the writer itself makes."""
    for start in range(0, len(TEXT), ROTATE_EVERY_BYTES):
        with path.open("ab", buffering=0) as file:
            part = TEXT[start : start + ROTATE_EVERY_BYTES]
            for at in range(0, len(part), 997):
                file.write(part[at : at + 997])
        if start + ROTATE_EVERY_BYTES < len(TEXT):
            time.sleep(PAUSE_S)
            rotate(path, kind)
            time.sleep(PAUSE_S)
    done.set()


def rotate(path: Path, kind: str) -> None:
    for number in range(PARTS, 0, -1):
        part = path.with_name(f"{path.name}.{number - 1}")
        if part.exists():
            part.rename(path.with_name(f"{path.name}.{number}"))
    if kind == "rename":
        path.rename(path.with_name(f"{path.name}.0"))
    else:
        shutil.copyfile(path, path.with_name(f"{path.name}.0"))
        os.truncate(path, 0)


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("kind", ["rename", "copytruncate"])
def test_nothing_is_lost_or_doubled_while_the_log_is_written_and_rotated(kind: str, restarts: bool, tmp_path: Path) -> None:
    path, done, random = tmp_path / "web.log", Event(), Random(4)  # noqa: S311  # no secret
    path.touch()
    reading = Reading(tmp_path)
    writer = Thread(target=write, args=(path, kind, done))
    writer.start()
    end_s = time.monotonic() + WAIT_S
    complete = False
    while not complete:
        assert time.monotonic() < end_s
        complete = done.is_set()
        reading.limit_bytes = random.choice([500, 5000, 1 << 16])
        reading.scan(0.05)
        while reading.step():
            pass
        if restarts and random.random() < 0.2:
            reading.restart()
            complete = False
    writer.join()
    reading.read()
    assert reading.data == TEXT
    assert not any(piece != Piece(piece.data) for piece in reading.pieces)
