"""Which files are followed, and what happens while they cannot be read."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from otelbridge.service.follow import Files
from tests.service.rotating import Log, Reading, lines

TEXT = lines(10)
NOBODY = 65534


@contextmanager
def without_permission(path: Path) -> Iterator[None]:
    """Take the permission to read away; root, who needs none, becomes nobody meanwhile."""
    mode = path.stat().st_mode
    path.chmod(0)
    root = os.geteuid() == 0
    if root:
        for parent in path.parents[:-2]:
            parent.chmod(parent.stat().st_mode | 0o055)
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        path.chmod(mode)


def streams(files: Files) -> list[str]:
    return sorted(Path(path).name for path in files.streams)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_rotated_parts_that_fit_the_pattern_are_no_streams(tmp_path: Path) -> None:
    for name in (
        "web.log.0",
        "web.log.1",
        "web.log.2.gz",
        "web.log-20261127",
        "web.log-20261126.xz",
        "web.log.20261101-101500",
    ):
        (tmp_path / name).write_bytes(b"rotated\n")
    for name in ("web.log", "db.log", "vm-1.log", "web.log.old", "trace-4711.log"):
        (tmp_path / name).write_bytes(b"live\n")
    reading = Reading(tmp_path, "*.log*")
    reading.read()
    assert streams(reading.files) == ["db.log", "trace-4711.log", "vm-1.log", "web.log", "web.log.old"]
    assert reading.data == b"live\n" * 5
    assert reading.files.problems == []


def rotate(path: Path) -> None:
    """`web.log.0` becomes `web.log.1`, and the file `web.log.0`."""
    for number in (2, 1, 0):
        old = path.with_name(f"{path.name}.{number - 1}") if number else path
        if old.exists():
            old.rename(path.with_name(f"{path.name}.{number}"))


def test_a_log_that_is_rotated_before_it_is_seen_is_read_from_its_first_part(tmp_path: Path) -> None:
    """A QEMU that is started for an incoming migration and traces each page writes 2 MiB in less than a second."""
    reading = Reading(tmp_path, "*.log")
    log = tmp_path / "web.log"
    for text in (b"one\ntw", b"o\nthree", b"\n"):
        rotate(log)
        log.write_bytes(text)
    reading.read()
    assert reading.data == b"one\ntwo\nthree\n"
    rotate(log)
    log.write_bytes(b"four\n")
    reading.read()
    assert reading.data == b"one\ntwo\nthree\nfour\n"
    assert reading.losses == []


def test_a_widened_pattern_does_not_bring_old_logs_in_where_files_are_begun_at_their_ends(tmp_path: Path) -> None:
    known, old = tmp_path / "web.log", tmp_path / "db.log"
    known.write_bytes(b"long ago\n")
    old.write_bytes(b"long ago\n")
    os.utime(old, (1_795_400_000,) * 2)
    reading = Reading(tmp_path, "web.log", "end")
    reading.read()
    saved = {path: stream.position() for path, stream in reading.files.streams.items()}
    reading.files.close()
    # With what is kept of the last look at these patterns, and with positions alone.
    for looked_ns in (None, known.stat().st_mtime_ns):
        reading.files = Files([f"{tmp_path}/*.log"], (), "end", saved, looked_ns=looked_ns, clock=reading.clock)
        reading.read()
        assert streams(reading.files) == ["db.log", "web.log"]
        assert reading.data == b""
        reading.files.close()


def test_parts_of_a_log_that_was_there_before_are_left_alone(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"web.log.{number}").write_bytes(b"long ago\n")
        os.utime(tmp_path / f"web.log.{number}", (1_795_400_000 + number,) * 2)
    reading = Reading(tmp_path, "*.log")
    log = tmp_path / "web.log"
    log.write_bytes(b"one\n")
    rotate(log)
    log.write_bytes(b"two\n")
    reading.read()
    assert reading.data == b"one\ntwo\n"


def test_a_log_that_came_and_was_rotated_while_it_was_down_is_read_from_its_first_part(tmp_path: Path) -> None:
    old, log = tmp_path / "old.log", tmp_path / "web.log"
    old.write_bytes(b"long ago\n")
    reading = Reading(tmp_path, "*.log", "end")
    old.write_bytes(b"long ago\nold\n")
    reading.read()
    for text in (b"one\n", b"two\n", b"three\n"):
        rotate(log)
        log.write_bytes(text)
    reading.restart()
    reading.read()
    assert reading.data == b"old\none\ntwo\nthree\n"


@pytest.mark.parametrize("restarts", [0, 1, 2])
def test_a_log_that_came_and_was_rotated_away_while_it_was_down_is_read(restarts: int, tmp_path: Path) -> None:
    """As with logrotate's `nocreate`: there is no file at the path when the service is back, and perhaps never again."""
    log = tmp_path / "web.log"
    (tmp_path / "old.log.0").write_bytes(b"long ago\n")
    os.utime(tmp_path / "old.log.0", (1_795_400_000,) * 2)
    reading = Reading(tmp_path, "*.log")
    reading.restart(looked_ns=time.time_ns())
    reading.files.close()
    for text in (b"one\n", b"two\n"):
        log.write_bytes(text)
        rotate(log)
    reading.restart(looked_ns=time.time_ns())
    for _ in range(restarts):
        reading.restart(looked_ns=time.time_ns())
    reading.read()
    assert reading.data == b"one\ntwo\n"
    assert streams(reading.files) == ["web.log"]
    log.write_bytes(b"three\n")
    reading.read()
    assert reading.data == b"one\ntwo\nthree\n"


def test_an_old_log_that_was_never_readable_and_vanishes_is_gone_without_a_complaint(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    log.write_bytes(b"long ago\n")
    os.utime(log, (1_795_400_000,) * 2)
    files = Files([f"{tmp_path}/*.log"], (), "end", {}, looked_ns=time.time_ns())
    with without_permission(log):
        files.scan()
        stream = files.streams[str(log)]
        assert "cannot be read" in stream.problem
    log.unlink()
    files.scan()
    assert not stream.problem
    assert stream.gone


def test_parts_of_a_log_that_was_let_go_of_are_not_read_again_when_it_comes_back(tmp_path: Path) -> None:
    reading = Reading(tmp_path, "*.log")
    log = tmp_path / "web.log"
    log.write_bytes(b"one\n")
    reading.read()
    rotate(log)
    reading.read()
    reading.files.forget(str(log))
    reading.read()
    rotate(log)
    log.write_bytes(b"two\n")
    reading.read()
    assert reading.data == b"one\ntwo\n"


def test_names_with_numbers_are_streams_where_no_pattern_names_what_they_would_be_parts_of(tmp_path: Path) -> None:
    for name in ("trace.1", "trace.2", "vm-1", "trace-4711"):
        (tmp_path / name).write_bytes(b"live\n")
    assert streams(Reading(tmp_path, "trace.*").files) == ["trace.1", "trace.2"]
    reading = Reading(tmp_path, "*")
    assert streams(reading.files) == ["trace-4711", "vm-1"]
    assert any("'trace', which is not there" in text.replace(f"{tmp_path}/", "") for text in reading.files.problems)


def test_a_packed_file_is_not_followed_and_the_user_is_told(tmp_path: Path) -> None:
    (tmp_path / "old.log.gz").write_bytes(b"\x1f\x8b")
    reading = Reading(tmp_path)
    assert streams(reading.files) == []
    assert "otelbridge convert" in reading.files.problems[0]


def test_patterns_name_files_in_folders_and_exclude_leaves_some_out(tmp_path: Path) -> None:
    for name in (
        "a/x/1.log",
        "a/y/2.log",
        "b/3.log",
        "b/.hidden.log",
        "top.log",
        "b/skip.log",
        "b/deep/er/5.log",
        "a/x/no.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert streams(Reading(tmp_path, "a/*/*.log").files) == ["1.log", "2.log"]
    assert streams(Reading(tmp_path, "**/*.log", exclude=("skip*",)).files) == ["1.log", "2.log", "3.log", "5.log", "top.log"]
    assert streams(Reading(tmp_path, "**/*.log", exclude=(f"{tmp_path}/b/**", f"{tmp_path}/a/x/*.log")).files) == [
        "2.log",
        "top.log",
    ]
    assert streams(Reading(tmp_path, "[ab]/?.log").files) == ["3.log"]
    assert streams(Reading(tmp_path, "b/.*.log").files) == [".hidden.log"]


def test_start_end_skips_what_a_file_held_at_the_first_look_and_nothing_else(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(TEXT)
    reading = Reading(tmp_path, start="end")
    reading.read()
    assert reading.data == b""
    log.write(b"new\n")
    (tmp_path / "later.log").write_bytes(b"later\n")
    reading.read()
    assert sorted(piece.data for piece in reading.pieces) == [b"later\n", b"new\n"]
    reading.restart()
    log.write(b"newer\n")
    reading.read()
    assert [piece.data for piece in reading.pieces[2:]] == [b"newer\n"]


def test_start_end_holds_where_the_file_rotates_before_it_grows(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(TEXT)
    reading = Reading(tmp_path, start="end")
    reading.restart()
    log.rename()
    log.write(b"new\n")
    reading.read()
    assert reading.data == b"new\n"


def test_a_new_file_is_read_from_its_beginning_where_it_is_not_the_first_look(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(TEXT)
    files = Files([f"{tmp_path}/*.log"], [], "end", {}, looked_ns=0)
    files.scan()
    piece = files.streams[str(log.path)].read(100_000)
    assert piece is not None
    assert piece.data == TEXT


def test_a_saved_position_of_a_path_that_no_pattern_names_is_left_alone(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(TEXT)
    saved = Reading(tmp_path).stream().position()
    files = Files([f"{tmp_path}/*.txt"], [], "start", {str(log.path): saved})
    files.scan()
    assert not files.streams


def test_a_saved_position_that_is_none_is_told(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(TEXT)
    files = Files([f"{tmp_path}/*.log"], [], "end", {str(log.path): {"offset": "x"}})
    files.scan()
    piece = files.streams[str(log.path)].read(100_000)
    assert piece is not None
    assert (piece.data, piece.begins) == (TEXT, True)
    assert "cannot be understood" in piece.lost


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("rotate", [False, True])
def test_permission_lost_and_regained(rotate: bool, restart: bool, tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(TEXT[:100])
    reading = Reading(tmp_path)
    reading.read()
    log.write(TEXT[100:200])
    if rotate:
        log.rename()
    log.write(TEXT[200:])
    with without_permission(log.path):
        if restart:
            reading.restart()
        reading.read()
        assert bool(reading.stream().problem) == (rotate or restart)
        assert not reading.stream().gone
        if reading.stream().problem:
            assert "Permission denied" in reading.stream().problem
    reading.read()
    assert reading.data == TEXT
    assert not reading.losses
    assert reading.stream().problem == ""


def test_a_file_never_seen_that_cannot_be_read_yet_keeps_where_it_is_begun(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(TEXT)
    with without_permission(log.path):
        reading = Reading(tmp_path)
        reading.read()
        assert "Permission denied" in reading.stream().problem
        reading.restart()
        assert reading.data == b""
    reading.read()
    assert reading.data == TEXT


def test_a_folder_that_cannot_be_read_is_a_problem_until_it_can(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = Log(folder)
    log.write(TEXT)
    with without_permission(folder):
        reading = Reading(folder)
        assert f"'{folder}' cannot be read: Permission denied" in reading.files.problems[0]
    reading.read()
    assert reading.files.problems == []
    assert reading.data == TEXT


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("kind", ["a directory", "a pipe"])
def test_a_path_replaced_by(kind: str, restart: bool, tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(TEXT[:100])
    reading = Reading(tmp_path)
    reading.read()
    log.write(TEXT[100:200])
    log.path.rename(log.part(".0"))
    log.path.mkdir() if kind == "a directory" else os.mkfifo(log.path)
    if restart:
        reading.restart()
    reading.read()
    assert reading.data == TEXT[:200]
    assert f"is {kind} now" in reading.stream().problem
    assert not reading.stream().gone
    log.path.rmdir() if kind == "a directory" else log.path.unlink()
    log.write(TEXT[200:])
    reading.read()
    assert reading.data == TEXT
    assert reading.stream().problem == ""


@pytest.mark.parametrize("restart", [False, True])
def test_a_symbolic_link_that_changes_its_target(restart: bool, tmp_path: Path) -> None:
    pod = tmp_path / "pod"
    pod.mkdir()
    (tmp_path / "logs").mkdir()
    link = tmp_path / "logs" / "web.log"
    first, second = Log(pod, "0.log"), Log(pod, "1.log")
    first.write(TEXT[:100])
    link.symlink_to(first.path)
    reading = Reading(tmp_path / "logs")
    reading.read()
    first.write(TEXT[100:200])
    first.path.rename(pod / "0.log.20261127-101500")
    first.path.write_bytes(TEXT[200:250])
    second.write(b"another container\n")
    link.unlink()
    link.symlink_to(second.path)
    if restart:
        reading.restart()
    reading.read()
    assert not reading.losses
    assert reading.data == TEXT[:250] + b"another container\n"
    assert [piece.data for piece in reading.pieces if piece.begins] == [b"another container\n"]


def test_a_file_behind_a_symbolic_link_rotates_in_its_own_folder(tmp_path: Path) -> None:
    pod = tmp_path / "pod"
    pod.mkdir()
    log = Log(pod, "0.log")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "web.log").symlink_to(log.path)
    reading = Reading(tmp_path / "logs")
    for number in range(4):
        log.write(lines(3, 10 * number))
        log.path.rename(pod / f"0.log.20261127-10150{number}")
        log.write(lines(3, 10 * number + 5))
        reading.restart()
    reading.read()
    assert reading.data == log.written
    assert not reading.losses


def test_a_file_that_vanishes_and_comes_back_is_read_on(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(TEXT[:100])
    reading = Reading(tmp_path)
    reading.read()
    log.path.rename(tmp_path / "away")
    reading.read()
    assert reading.stream().gone
    (tmp_path / "away").rename(log.path)
    log.write(TEXT[100:])
    reading.read()
    assert not reading.stream().gone
    assert reading.data == TEXT
    assert not any(piece.begins for piece in reading.pieces)


def test_a_file_is_not_gone_before_its_last_byte_was_handed_out(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(TEXT)
    reading = Reading(tmp_path)
    log.unlink()
    reading.scan()
    stream = reading.stream()
    assert not stream.gone
    assert stream.at_risk
    assert stream.lag_bytes == len(TEXT)
    reading.read()
    assert reading.data == TEXT
    assert stream.gone
    assert not stream.at_risk


def test_lag_and_risk_are_known_without_reading(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(TEXT)
    reading = Reading(tmp_path)
    stream = reading.stream()
    assert (stream.lag_bytes, stream.at_risk) == (len(TEXT), False)
    log.rename()
    log.write(b"new\n")
    reading.scan()
    assert (stream.lag_bytes, stream.at_risk) == (len(TEXT) + 4, True)
    piece = stream.read(len(TEXT))
    assert piece.data == TEXT
    assert (stream.lag_bytes, stream.at_risk) == (4, False)


def test_the_old_file_is_read_on_until_the_new_one_has_a_byte(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(TEXT[:100])
    reading = Reading(tmp_path)
    reading.read()
    with log.path.open("ab", buffering=0) as writer:
        log.rename(1)
        for number in range(100, 200, 20):
            writer.write(TEXT[number : number + 20])
            reading.read()
            reading.restart()
    log.write(TEXT[200:])
    reading.read()
    assert reading.data == TEXT
    assert not reading.losses


def test_a_piece_is_never_longer_than_asked(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(lines(50))
    log.rename(1)
    reading = Reading(tmp_path)
    reading.read()
    log.write(lines(50, 50))
    reading.read()
    log.write(lines(50, 100))
    log.rename(1)
    log.pack(".1")
    log.write(lines(50, 150))
    reading.restart()
    reading.limit_bytes = 13
    reading.read()
    assert max(len(piece.data) for piece in reading.pieces[1:]) <= 13
    assert reading.data == log.written[len(lines(50)) :]


def test_what_is_forgotten_is_a_new_file_when_it_comes_back(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(TEXT)
    before = descriptors()
    reading = Reading(tmp_path)
    reading.read()
    log.unlink()
    reading.read()
    reading.files.forget(str(log.path))
    reading.files.forget(str(log.path))
    assert not reading.files.streams
    assert descriptors() == before
    log.write(b"again\n")
    reading.read()
    assert reading.data == TEXT + b"again\n"


def test_a_deleted_file_is_let_go_of_after_a_minute(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(TEXT)
    before = descriptors()
    reading = Reading(tmp_path)
    reading.read()
    log.unlink()
    reading.scan(30)
    assert descriptors() == before + 1
    reading.scan(31)
    assert descriptors() == before
    assert reading.stream().gone
    reading.restart()
    log.write(b"again\n")
    reading.read()
    assert reading.data == TEXT + b"again\n"
    assert not reading.losses
    assert reading.pieces[-1].begins


def test_descriptors_are_as_many_after_a_thousand_rotations_as_before(tmp_path: Path) -> None:
    log = Log(tmp_path)
    reading = Reading(tmp_path)
    reading.read()
    before = descriptors()
    for number in range(1000):
        log.write(lines(2, 2 * number))
        (lambda: log.rename(1), log.copy_truncate, log.recreate, log.move_to_new_inode)[number % 4]()
        reading.read()
        for part in tmp_path.glob("web.log.??"):
            part.unlink()
    log.write(b"end\n")
    reading.read()
    assert reading.data == log.written
    assert descriptors() <= before + 1
    reading.files.close()
    assert descriptors() == before - 1


def test_of_many_idle_files_only_some_hold_a_descriptor_and_all_are_read_on(tmp_path: Path) -> None:
    logs = [Log(tmp_path, f"vm{number}.log") for number in range(300)]
    for log in logs:
        log.write(TEXT)
    before = descriptors()
    reading = Reading(tmp_path)
    reading.read()
    reading.scan(11)
    assert descriptors() - before == 200
    reading.pieces.clear()
    for number, log in enumerate(logs):
        if number % 3 == 0:
            log.write(b"a\n")
            log.rename()
        log.write(b"b\n")
    reading.read()
    assert sorted(piece.data for piece in reading.pieces) == [b"a\n"] * 100 + [b"b\n"] * 300
    assert not reading.losses
    reading.scan(11)
    reading.scan(1)
    assert descriptors() - before == 200


def rotated_thrice_while_idle(tmp_path: Path) -> tuple[list[Log], Reading]:
    """As by logrotate's `create`, day by day: the new files stay empty, and nobody knows which of them is written to next."""
    logs = [Log(tmp_path, f"vm{number}.log") for number in range(150)]
    for log in logs:
        log.write(TEXT)
        log.hold()
    reading = Reading(tmp_path)
    reading.read()
    for _ in range(3):
        for log in logs:
            log.rename(1)
        idle(reading)
    reading.pieces.clear()
    return logs, reading


def idle(reading: Reading) -> None:
    reading.read()
    before = descriptors() - sum(stream.open_parts for stream in reading.files.streams.values())
    reading.scan(61)
    reading.read()
    reading.scan(1)
    assert descriptors() - before <= 200


def count(reading: Reading, line: bytes) -> int:
    return b"".join(piece.data for piece in reading.pieces).count(line)


@pytest.mark.parametrize("restart", [False, True])
def test_files_that_are_rotated_while_idle_hold_no_more_descriptors_and_are_read_on(tmp_path: Path, restart: bool) -> None:
    logs, reading = rotated_thrice_while_idle(tmp_path)
    if restart:
        reading.restart()
        idle(reading)
    for log in logs[:50]:
        log.write(b"one\n")
    reading.read()
    assert count(reading, b"one\n") == 50, "what comes to the oldest part"
    for log in logs:
        log.release()
        log.write(b"two\n")
    reading.read()
    assert count(reading, b"two\n") == 150, "what comes to the newest part"
    assert not reading.losses
    assert not any(piece.begins for piece in reading.pieces)


@pytest.mark.parametrize("restart", [False, True])
def test_files_that_are_rotated_while_idle_and_packed_hold_no_more_descriptors(tmp_path: Path, restart: bool) -> None:
    logs, reading = rotated_thrice_while_idle(tmp_path)
    for log in logs:
        log.release()
        log.pack(".3")
    if restart:
        reading.restart()
    idle(reading)
    for log in logs:
        log.write(b"one\n")
    reading.read()
    assert count(reading, b"one\n") == 150
    assert not reading.losses
    assert not any(piece.begins for piece in reading.pieces)


def test_an_idle_file_is_looked_at_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(tmp_path)
    log.write(TEXT)
    reading = Reading(tmp_path)
    reading.read()
    stream, asked, fstat = reading.stream(), [], os.fstat
    monkeypatch.setattr(os, "fstat", lambda descriptor: asked.append(1) or fstat(descriptor))
    reading.clock.now_s += 11
    for _ in range(100):
        reading.clock.now_s += 0.05
        assert stream.read(100) is None
    assert len(asked) <= 6
    log.write(b"awake\n")
    reading.clock.now_s += 1
    assert stream.read(100).data == b"awake\n"
