"""A named pipe and the journal, with real writers."""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from otelbridge.service.follow.followed import Piece
from otelbridge.service.follow.pipes import FollowedJournal, FollowedPipe
from tests.conftest import PROJECT, need
from tests.service.rotating import Clock

REMOTE = "/lib/systemd/systemd-journal-remote"
WAIT_S = 20


def until(
    enough: Callable[[list[Piece]], bool], stream: FollowedPipe | FollowedJournal, limit_bytes: int = 1 << 16
) -> list[Piece]:
    """The pieces that are read, one at a time, until they are enough."""
    pieces: list[Piece] = []
    end_s = time.monotonic() + WAIT_S
    while not enough(pieces):
        assert time.monotonic() < end_s, (pieces, stream.problem)
        piece = stream.read(limit_bytes)
        if piece is not None:
            pieces.append(piece)
        else:
            time.sleep(0.01)
    return pieces


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "qemu.fifo"
    os.mkfifo(path)
    return path


def test_a_pipe_gives_what_its_writers_write_and_each_writer_begins_anew(pipe: Path) -> None:
    stream = FollowedPipe(str(pipe))
    assert stream.read(100) is None
    for number in range(3):
        with pipe.open("wb", buffering=0) as writer:
            writer.write(b"line %d\nhalf" % number)
            assert stream.lag_bytes == 11
            assert stream.at_risk
            first = stream.read(4)
            assert first == Piece(b"line", begins=number > 0)
            assert stream.read(100) == Piece(b" %d\nhalf" % number)
            assert stream.read(100) is None
            writer.write(b" line\n")
            assert stream.read(100) == Piece(b" line\n")
        assert stream.read(100) is None
    assert not stream.gone
    assert stream.position() == {}
    stream.close()


def test_a_pipe_can_be_waited_for_with_and_without_a_writer(pipe: Path) -> None:
    """A descriptor whose writer has left always counts as readable; who waits with it would never wait."""
    stream = FollowedPipe(str(pipe))
    assert stream.descriptor is None
    for number in range(3):
        assert stream.read(100) is None
        assert not is_readable(stream)
        with pipe.open("wb", buffering=0) as writer:
            assert not is_readable(stream)
            writer.write(b"line %d\n" % number)
            assert is_readable(stream)
            assert stream.read(100) == Piece(b"line %d\n" % number, begins=number > 0)
            assert stream.read(100) is None
            assert not is_readable(stream)
        assert is_readable(stream)
    stream.close()


def is_readable(stream: FollowedPipe) -> bool:
    assert stream.descriptor is not None
    return bool(select.select([stream.descriptor], [], [], 0)[0])


def test_a_pipe_takes_a_burst_of_a_megabyte_before_its_writer_stands_still(pipe: Path) -> None:
    stream = FollowedPipe(str(pipe))
    assert stream.read(100) is None
    writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    assert os.write(writer, bytes(1 << 20)) == 1 << 20
    assert stream.has_more
    os.close(writer)
    stream.close()


def test_a_pipe_that_is_made_later_or_replaced_is_found(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "qemu.fifo"
    stream = FollowedPipe(str(path), clock)
    assert stream.read(100) is None
    assert "No such file" in stream.problem
    assert stream.gone
    path.write_bytes(b"no pipe\n")
    clock.now_s += 1
    assert stream.read(100) is None
    assert "is a file, expected a pipe" in stream.problem
    for number in range(2):
        path.unlink()
        os.mkfifo(path)
        for _ in range(2):
            clock.now_s += 1
            assert stream.read(100) is None
        assert stream.problem == ""
        with path.open("wb", buffering=0) as writer:
            writer.write(b"pipe %d\n" % number)
            assert stream.read(100) == Piece(b"pipe %d\n" % number, begins=number > 0)
        assert stream.read(100) is None
    stream.close()


def entries(numbers: range, text: str, boot: int) -> bytes:
    """Entries of the journal's export format."""
    return "".join(
        f"__REALTIME_TIMESTAMP={1_795_000_000_000_000 + number}\n__MONOTONIC_TIMESTAMP={1000 + number}\n"
        f"_BOOT_ID={boot}123456789abcdef0123456789abcdef\nMESSAGE={text} {number}\n"
        f"SYSLOG_IDENTIFIER={'other' if number % 2 else 'qemu'}\n\n"
        for number in numbers
    ).encode()


class Journal:
    """A folder of the journal's files, written by systemd's own program."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._files = folder, 0

    def add(self, numbers: range, text: str = "savevm_section_end ram", boot: int = 0) -> None:
        self._files += 1
        target = self.folder / f"part{self._files}.journal"
        command = [REMOTE, f"--output={target}", "--split-mode=none", "-"]
        subprocess.run(command, input=entries(numbers, text, boot), check=True, capture_output=True)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    need("journalctl", "reads the journal")
    need(REMOTE, "writes files of the journal")
    return Journal(tmp_path)


def numbers_of(pieces: list[Piece]) -> list[int]:
    lines = b"".join(piece.data for piece in pieces).splitlines()
    return [int(json.loads(line)["MESSAGE"].split()[-1]) for line in lines]


def at_least(count: int) -> Callable[[list[Piece]], bool]:
    return lambda pieces: sum(piece.data.count(b"\n") for piece in pieces) >= count


def test_the_journal_is_read_on_behind_the_cursor_after_a_restart_at_any_entry(journal: Journal) -> None:
    journal.add(range(40))
    pieces: list[Piece] = []
    saved: dict[str, str] = {}
    while len(numbers_of(pieces)) < 20:
        stream = FollowedJournal(["SYSLOG_IDENTIFIER=qemu"], journal.folder, "start", saved)
        pieces += until(at_least(1), stream, 1200)
        saved = json.loads(json.dumps(stream.position()))
        stream.close()
    assert numbers_of(pieces) == list(range(0, 40, 2))


def test_entries_that_come_while_the_journal_is_followed_are_read(journal: Journal) -> None:
    journal.add(range(10))
    stream = FollowedJournal([], journal.folder, "start", {})
    assert numbers_of(until(at_least(10), stream)) == list(range(10))
    journal.add(range(10, 15))
    assert numbers_of(until(at_least(5), stream)) == list(range(10, 15))
    assert stream.problem == ""
    stream.close()


def test_an_entry_longer_than_the_limit_moves_the_position_when_it_is_whole(journal: Journal) -> None:
    journal.add(range(2), "x" * 10_000)
    stream = FollowedJournal([], journal.folder, "start", {})
    pieces = until(lambda _: stream.position() != {}, stream, 1000)
    pieces += until(lambda pieces: len(pieces) == 2, stream, 1000)
    assert max(len(piece.data) for piece in pieces) <= 1000
    saved = stream.position()
    stream.close()
    again = FollowedJournal([], journal.folder, "start", saved)
    rest = until(at_least(1), again)
    assert rest[0].begins
    assert numbers_of(rest) == [1]
    again.close()


def test_entries_from_before_a_boot_of_the_host_are_read(journal: Journal) -> None:
    journal.add(range(10))
    stream = FollowedJournal([], journal.folder, "start", {})
    pieces = until(at_least(1), stream, 400)
    saved = stream.position()
    stream.close()
    journal.add(range(10, 20), boot=1)
    again = FollowedJournal([], journal.folder, "start", saved)
    pieces += until(at_least(20 - len(numbers_of(pieces))), again)
    assert numbers_of(pieces) == list(range(20))
    again.close()


def test_journalctl_that_is_killed_is_started_again_behind_the_last_entry(journal: Journal) -> None:
    journal.add(range(10))
    clock = Clock()
    stream = FollowedJournal([], journal.folder, "start", {}, clock=clock)
    until(at_least(10), stream)
    child = stream._child
    assert child is not None
    child.kill()
    child.wait()
    while not stream.problem:
        assert stream.read(100) is None
    assert "ended with code -9" in stream.problem
    assert "started again" in stream.problem
    journal.add(range(10, 12))
    assert stream.read(100) is None
    clock.now_s += 2
    assert numbers_of(until(at_least(2), stream)) == [10, 11]
    assert stream.problem == ""
    stream.close()


def test_the_journal_begun_at_its_end_gives_only_what_comes_later(journal: Journal) -> None:
    journal.add(range(10))
    stream = FollowedJournal([], journal.folder, "end", {}, wall_clock=lambda: 1_795_000_001.0)
    saved = json.loads(json.dumps(stream.position()))
    stream.close()
    journal.add(range(2_000_000, 2_000_003))
    again = FollowedJournal([], journal.folder, "start", saved)
    assert numbers_of(until(at_least(3), again)) == [2_000_000, 2_000_001, 2_000_002]
    again.close()


def test_journalctl_ends_with_the_service_however_that_ends(journal: Journal) -> None:
    journal.add(range(3))
    code = (
        "import os, sys, pathlib; from otelbridge.service.follow.pipes import FollowedJournal\n"
        "stream = FollowedJournal([], pathlib.Path(sys.argv[1]), 'start', {})\n"
        "while stream.read(65536) is None: pass\n"
        "print(stream._child.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", code, str(journal.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(PROJECT)}) as service:
        assert service.stdout is not None
        child = Path("/proc", service.stdout.readline().decode().strip(), "cmdline")
    end_s = time.monotonic() + WAIT_S
    while child.exists() and b"journalctl" in child.read_bytes():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def test_a_missing_journalctl_is_a_problem_in_words(tmp_path: Path) -> None:
    clock = Clock()
    stream = FollowedJournal([], None, "start", {}, clock=clock, program=str(tmp_path / "no-journalctl"))
    assert stream.read(100) is None
    assert "cannot be started (No such file or directory)" in stream.problem
    assert "Install" in stream.problem
    assert stream.lag_bytes == 0
    stream.close()


def test_what_journalctl_says_is_in_the_problem(tmp_path: Path) -> None:
    need("journalctl", "reads the journal")
    stream = FollowedJournal(["no match"], tmp_path, "start", {})
    until(lambda _: bool(stream.problem), stream)
    assert "ended with code 1: " in stream.problem
    assert "no match" in stream.problem
    stream.close()
