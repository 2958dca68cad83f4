"""Every kind of rotation, with lines cut at every offset of 80 bytes and a reader that comes at any moment."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.service.rotating import BETWEEN, Log, Reading, lines

OFFSETS = range(81)
TEXT = lines(40)
CUT = TEXT.index(b"\n", len(TEXT) // 2) - 40  # the 80 bytes after it hold one end of a line

Rotate = Callable[[Log], None]
SEAMLESS: dict[str, Rotate] = {
    "rename from .0": lambda log: log.rename(0),
    "rename from .1": lambda log: log.rename(1),
    "rename with a date": lambda log: log.rename_dated(27),
    "copytruncate": Log.copy_truncate,
    "another inode in place": Log.move_to_new_inode,
    "rename and pack with gzip": lambda log: (log.rename(1), log.pack(".1"))[1],
    "rename and pack with xz": lambda log: (log.rename(1), log.pack(".1", ".xz"))[1],
    "copytruncate and pack": lambda log: (log.copy_truncate(), log.pack(".1"))[1],
    "rename twice": lambda log: (log.rename(), log.write(lines(3, 500)), log.rename())[2],
    "rename three times, packed": lambda log: (
        log.rename(1),
        log.write(lines(30, 500)),
        log.rename(1),
        log.pack(".2"),
        log.write(lines(2, 600)),
        log.rename(1),
        log.pack(".2", ".xz"),
    )[0],
    "copytruncate twice": lambda log: (log.copy_truncate(), log.write(lines(30, 500)), log.copy_truncate())[2],
}


def folder_of(tmp_path: Path, *names: object) -> Path:
    folder = tmp_path / "-".join(map(str, names)).replace(" ", "_")
    folder.mkdir()
    return folder


@pytest.mark.parametrize("before", BETWEEN)
@pytest.mark.parametrize("kind", SEAMLESS)
def test_nothing_is_lost_or_doubled_by_a(kind: str, before: str, tmp_path: Path) -> None:
    moments = list(BETWEEN)
    for offset in OFFSETS:
        between = moments[(offset + moments.index(before)) % len(moments)]  # with all that come before, each has every offset
        log = Log(folder := folder_of(tmp_path, offset, between))
        log.write(TEXT[:CUT])
        reading = Reading(folder)
        reading.read()
        log.write(TEXT[CUT : CUT + offset])
        BETWEEN[before](reading)
        SEAMLESS[kind](log)
        BETWEEN[between](reading)
        log.write(TEXT[CUT + offset :])
        reading.limit_bytes = 1 << 16
        reading.read()
        assert reading.data == log.written, (offset, between)
        assert not reading.losses
        assert not any(piece.begins for piece in reading.pieces)
        assert not reading.stream().at_risk
        assert reading.stream().lag_bytes == 0
        reading.files.close()
