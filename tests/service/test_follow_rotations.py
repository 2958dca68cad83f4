"""Every kind of rotation, with lines cut at every offset of 80 bytes and a reader that comes at any moment."""

from collections.abc import Callable
from itertools import product
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


LATE = lines(3, 500)
LATER = lines(3, 600)
AGAIN: dict[str, Rotate] = {
    "once": lambda _: None,
    "again": lambda log: log.rename(1),
    "again and packed": lambda log: (log.rename(1), log.pack(".2"))[1],
    "with a date": lambda log: log.rename_dated(28),
    "by a copy": Log.copy_truncate,
}


@pytest.mark.parametrize("again", AGAIN)
@pytest.mark.parametrize("before", BETWEEN)
def test_a_writer_that_is_told_late_of_a_rotation_loses_and_doubles_nothing(before: str, again: str, tmp_path: Path) -> None:
    """As with logrotate: the new file is there, and empty, while the old one is written to for a while."""
    for late, between, then in product(BETWEEN, repeat=3):
        log = Log(folder := folder_of(tmp_path, late, between, then))
        log.write(TEXT)
        log.hold()
        reading = Reading(folder)
        BETWEEN[before](reading)
        log.rename_dated(27) if again == "with a date" else log.rename(1)
        BETWEEN[late](reading)
        log.write(LATE)
        log.release()
        BETWEEN[between](reading)
        log.write(LATER)
        AGAIN[again](log)
        BETWEEN[then](reading)
        log.write(TEXT)
        reading.limit_bytes = 1 << 16
        reading.read()
        assert reading.data == log.written, (late, between, then)
        assert not reading.losses
        assert not any(piece.begins for piece in reading.pieces)
        assert reading.stream().lag_bytes == 0
        reading.files.close()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("before", BETWEEN)
def test_a_log_that_is_truncated_under_a_writer_that_does_not_append_is_read_without_the_hole(
    before: str, packed: bool, tmp_path: Path
) -> None:
    """As with QEMU's -D and logrotate's copytruncate: the file begins with as many NUL bytes as were written before."""
    for between, then in product(BETWEEN, repeat=2):
        log = Log(folder := folder_of(tmp_path, between, then))
        log.write(TEXT)
        log.hold(append=False)
        reading = Reading(folder)
        for number in range(3):
            log.write(lines(3, 100 * number))
            BETWEEN[before](reading)
            log.copy_truncate()
            if packed:
                log.pack(".1")
            BETWEEN[between](reading)
            log.write(lines(20, 100 * number + 10))
            BETWEEN[then](reading)
        log.release()
        assert log.path.read_bytes().startswith(b"\0" * len(TEXT))
        reading.limit_bytes = 1 << 16
        reading.read()
        assert reading.data == log.written, (between, then)
        assert not reading.losses
        assert not any(piece.begins for piece in reading.pieces)
        assert reading.stream().lag_bytes == 0
        reading.files.close()


@pytest.mark.parametrize("before", ["scan", "read", "one small piece"])
def test_what_a_writer_adds_to_a_part_that_is_packed_already_is_read_while_the_service_is_up(
    before: str, tmp_path: Path
) -> None:
    """As with logrotate's `compress` without `delaycompress`: it is in no file that has a name."""
    for between, then in product(["scan", "read", "one small piece"], repeat=2):
        log = Log(folder := folder_of(tmp_path, between, then))
        log.write(TEXT)
        log.hold()
        reading = Reading(folder)
        reading.read()
        log.write(LATE)
        BETWEEN[before](reading)
        log.rename(1)
        log.pack(".1")
        BETWEEN[between](reading)
        log.write(LATER)
        BETWEEN[then](reading)
        log.release()
        log.write(TEXT)
        reading.limit_bytes = 1 << 16
        reading.read()
        assert reading.data == log.written, (between, then)
        assert not reading.losses
        assert not any(piece.begins for piece in reading.pieces)
        reading.files.close()


@pytest.mark.parametrize("before", BETWEEN)
def test_a_writer_that_is_never_told_of_a_rotation_loses_and_doubles_nothing(before: str, tmp_path: Path) -> None:
    """As with QEMU's -D and logrotate without copytruncate: all that comes stands in the oldest part."""
    for between, then in product(BETWEEN, repeat=2):
        log = Log(folder := folder_of(tmp_path, between, then))
        log.write(TEXT)
        log.hold()
        reading = Reading(folder)
        BETWEEN[before](reading)
        for number in range(3):
            log.rename(1)
            BETWEEN[between](reading)
            log.write(lines(3, 500 + 10 * number))
            BETWEEN[then](reading)
        reading.limit_bytes = 1 << 16
        reading.read()
        log.release()
        log.write(LATER)
        reading.read()
        assert reading.data == log.written, (between, then)
        assert not reading.losses
        reading.files.close()
