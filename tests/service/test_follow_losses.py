"""What cannot be had any more is told, and what is there is read: files unlinked, truncated, replaced, rotated too often."""

import os
import shutil
from itertools import product
from pathlib import Path

import pytest

from tests.service.rotating import BETWEEN, Log, Reading, lines

TEXT = lines(40)
CUT = TEXT.index(b"\n", len(TEXT) // 2) - 40
LIVE = ["nothing", "scan", "read", "one small piece"]


@pytest.mark.parametrize("before", BETWEEN)
def test_a_file_that_is_unlinked_and_created_anew_is_read_to_its_end_first(before: str, tmp_path: Path) -> None:
    for offset, between in product(range(81), LIVE):
        folder = tmp_path / f"{offset}-{between}"
        folder.mkdir()
        log = Log(folder)
        log.write(TEXT[:CUT])
        reading = Reading(folder)
        reading.read()
        log.write(TEXT[CUT : CUT + offset])
        BETWEEN[before](reading)
        log.recreate()
        BETWEEN[between](reading)
        log.write(TEXT[CUT + offset :])
        reading.limit_bytes = 1 << 16
        reading.read()
        assert reading.data == log.written, (offset, between)
        assert not reading.losses
        begun = [number for number, piece in enumerate(reading.pieces) if piece.begins]
        assert len(begun) == 1
        assert b"".join(piece.data for piece in reading.pieces[begun[0] :]) == TEXT[CUT + offset :]
        reading.files.close()


def test_what_was_not_read_of_a_file_unlinked_while_we_were_down_is_told(tmp_path: Path) -> None:
    for offset in range(81):
        folder = tmp_path / str(offset)
        folder.mkdir()
        log = Log(folder)
        log.write(TEXT[:CUT])
        reading = Reading(folder)
        reading.read()
        log.write(TEXT[CUT : CUT + offset])
        reading.scan()
        log.recreate()
        log.write(TEXT[CUT + offset :])
        reading.restart()
        reading.read()
        assert reading.data == TEXT[:CUT] + TEXT[CUT + offset :]
        piece = reading.pieces[-1]
        assert piece.begins
        assert f"read to byte {CUT}" in piece.lost
        assert (f"{offset} bytes and whatever" in piece.lost) == bool(offset)


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("grown", [0, 1, 40, CUT - 1, CUT, CUT + 40, CUT + 400])
def test_a_truncation_without_a_copy_is_told_whatever_the_size_is_now(grown: int, restart: bool, tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(TEXT[:CUT])
    reading = Reading(tmp_path)
    reading.read()
    log.write(b"never read")
    log.copy_truncate(keep=False)
    log.write(lines(60, 900)[:grown])
    if restart:
        reading.restart()
    reading.read()
    assert reading.data == TEXT[:CUT] + lines(60, 900)[:grown]
    assert [piece.begins for piece in reading.pieces if piece.lost] == [True]
    assert "truncated" in reading.losses[0]
    assert f"read to byte {CUT}" in reading.losses[0]


def test_a_truncation_is_seen_where_the_new_content_has_the_size_of_the_old(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(b"a" * 2000)
    reading = Reading(tmp_path)
    reading.read()
    log.copy_truncate(keep=False)
    log.write(b"b" * 2000)
    reading.read()
    assert reading.data == b"a" * 2000 + b"b" * 2000


def test_an_old_copy_is_not_read_again_after_a_truncation_without_one(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(TEXT)
    reading = Reading(tmp_path)
    reading.read()
    log.copy_truncate()
    log.write(lines(20, 100))
    reading.read()
    os.truncate(log.path, 0)
    log.write(lines(3, 200))
    reading.read()
    assert reading.data == log.written
    assert len(reading.losses) == 1


@pytest.mark.parametrize("live", [True, False], ids=["running", "down"])
def test_rotations_beyond_the_parts_that_are_kept_are_told(live: bool, tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(TEXT)
    reading = Reading(tmp_path)
    reading.read()
    log.write(b"not read before the rotation\n")
    if not live:
        reading.scan()
        reading.files.close()
    for number in range(5):
        log.rename(backups=3)
        log.write(lines(5, 100 * number))
    if not live:
        reading.restart()
    reading.read()
    first = TEXT + (b"not read before the rotation\n" if live else b"")
    # Of six files in all, the one that was being read and the next are gone, and four are there.
    assert reading.data == first + b"".join(lines(5, 100 * number) for number in range(1, 5))
    assert len(reading.losses) == 1
    assert f"{log.path}.2" in reading.losses[0]
    assert ("whole parts" in reading.losses[0]) == live


def test_an_inode_that_is_used_again_by_another_file_is_another_file(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(TEXT)
    reading = Reading(tmp_path)
    reading.read()
    saved = reading.stream().position()
    reading.files.close()
    log.path.write_bytes(lines(100, 2000))  # the same inode, whatever the file system does with freed ones
    assert log.path.stat().st_ino == saved["inode"]
    reading.restart()
    reading.read()
    assert reading.data == TEXT + lines(100, 2000)
    assert len(reading.losses) == 1


def test_a_file_of_which_no_byte_is_known_is_recognised_by_no_content(tmp_path: Path) -> None:
    log = Log(tmp_path)
    reading = Reading(tmp_path)
    reading.read()
    log.path.rename(tmp_path / "elsewhere")
    log.path.write_bytes(TEXT)
    log.part(".1").write_bytes(lines(4, 900))
    os.utime(log.part(".1"), (1, 1))
    reading.restart()
    reading.read()
    assert reading.data == TEXT


def test_a_packed_part_that_is_cut_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(TEXT)
    reading = Reading(tmp_path)
    reading.read()
    log.write(lines(3000, 100))
    log.rename(1)
    log.pack(".1")
    packed = log.part(".1.gz")
    os.truncate(packed, packed.stat().st_size // 2)
    log.write(b"the new file\n")
    reading.restart()
    reading.read()
    assert reading.data.startswith(TEXT + lines(1000, 100))
    assert reading.data.endswith(b"the new file\n")
    before = len(reading.data) - len(b"the new file\n")
    assert log.written.startswith(reading.data[:before])
    assert f"beyond byte {before}" in reading.losses[0]
    assert [piece.data for piece in reading.pieces if piece.begins] in ([b""], [b"", b"the new file\n"])


def test_a_loss_that_was_not_handed_out_is_told_after_the_next_restart(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(TEXT)
    reading = Reading(tmp_path)
    reading.read()
    log.recreate()
    log.write(b"new\n")
    reading.restart()
    reading.restart()
    reading.read()
    assert len(reading.losses) == 1
    assert reading.pieces[-1].data == b"new\n"
    reading.restart()
    reading.read()
    assert len(reading.losses) == 1


def test_a_file_that_vanished_while_we_were_down_is_told_and_gone(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(TEXT)
    reading = Reading(tmp_path)
    reading.read()
    log.unlink()
    reading.restart()
    assert not reading.stream().gone
    reading.read()
    assert reading.stream().gone
    assert len(reading.losses) == 1
    reading.restart()
    reading.read()
    assert len(reading.losses) == 1


def test_a_log_on_which_a_copy_was_put_back_is_not_read_twice(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(TEXT)
    reading = Reading(tmp_path)
    reading.read()
    shutil.copy2(log.path, tmp_path / "backup")
    log.unlink()
    reading.restart()
    reading.read()
    shutil.copy2(tmp_path / "backup", log.path)
    log.write(b"more\n")
    reading.read()
    assert reading.data == TEXT + b"more\n"
