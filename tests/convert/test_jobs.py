"""`--jobs`: several processes do what one does, and leave nothing behind."""

from __future__ import annotations

import gzip
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.convert.command import PROGRAM, Result, environment, run
from tests.receiver import Receiver

ALL = (
    "debian-7.2/tls-ok", "qemu-10.2.0-log/postcopy", "debian-7.2/cancelled", "debian-7.2/two-vms-one-log",
    "debian-7.2/savevm-loadvm", "qemu-10.2.0-log/multifd-tls", "debian-7.2/precopy-busy",
)  # fmt: skip
SIMPLE = "qemu-10.2.0-simple/multifd-tls"
LINE = b"4711@1795407950.%06d:ram_save_page pc.ram: offset: 0x%x host: 0x7f3348200000\n"


@pytest.fixture(scope="module")
def files(logs: Callable[[str], list[Path]], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Fourteen logs and more of nine migrations, and one without any event."""
    empty = tmp_path_factory.mktemp("inputs") / "none.log"
    empty.write_text("char device redirected to /dev/pts/3 (label charserial0)\n")
    return [*(log for recording in ALL for log in logs(recording)), empty]


@pytest.fixture
def long_logs(tmp_path: Path) -> list[Path]:
    """Logs that take long enough to read that something can happen meanwhile."""
    pages = b"".join(LINE % (number * 3, number << 12) for number in range(300_000))
    found = [tmp_path / f"vm-{letter}.log" for letter in "abcd"]
    for place, path in enumerate(found):
        path.write_bytes(b"%d@1795407949.000001:migrate_set_state new state setup\n" % place + pages)
    return found


def converted(files: list[Path], jobs: int, folder: Path, *more: str) -> tuple[Result, dict[str, bytes]]:
    folder.mkdir()
    accounting = folder / "accounting.json"
    done = run("convert", *files, "--to", f"file:{folder}", "--accounting", accounting, "--jobs", str(jobs), *more)
    return done, {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("jobs", [2, 3, 64])
def test_files_picture_and_accounting_are_those_of_one_process(files: list[Path], jobs: int, tmp_path: Path) -> None:
    alone = converted(files, 1, tmp_path / "one", "--to", "console")
    together = converted(files, jobs, tmp_path / "many", "--to", "console")
    assert alone[0].code == 7, alone[0].err
    assert alone[0].out.count("source") > 5
    assert len(alone[1]["traces.jsonl"]) > 500_000
    assert together == alone


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_receiver_gets_the_same_requests(protocol: str, files: list[Path]) -> None:
    def requests(jobs: int) -> list[tuple[str, bytes]]:
        with Receiver() as receiver:
            to = receiver.grpc_url if protocol == "grpc" else receiver.http_url
            done = run("convert", *files[:8], "--to", to, "--jobs", str(jobs))
            assert done.code == 0, done.err
            return sorted(receiver.requests)

    alone = requests(1)
    assert len(alone) > 10
    assert requests(2) == alone


def test_an_exporter_of_the_sdk_gets_the_same(files: list[Path]) -> None:
    alone = run("convert", *files[:4], "--to", "sdk:console", "--jobs", "1")
    assert alone.code == 0, alone.err
    assert alone.out.count("trace_id") > 100
    assert run("convert", *files[:4], "--to", "sdk:console", "--jobs", "2") == alone


def test_what_one_input_is_refused_for_is_said_as_by_one_process(recordings: Path, files: list[Path], tmp_path: Path) -> None:
    twice = tmp_path / "trace-twice"
    twice.write_bytes(gzip.decompress((recordings / SIMPLE / "src.simple.gz").read_bytes()) * 2)
    shutil.copy(recordings / SIMPLE / "clock.json", tmp_path)
    alone = converted([files[0], twice, files[1]], 1, tmp_path / "one")
    assert (alone[0].code, "its clock is another one" in alone[0].err) == (4, True), alone[0].err
    assert converted([files[0], twice, files[1]], 2, tmp_path / "two") == alone


def test_standard_input_is_read_all_the_same(files: list[Path], tmp_path: Path) -> None:
    command = ("convert", files[0], "-", "--to", f"file:{tmp_path}", "--jobs", "2")
    done = run(*command, stdin=files[1].read_bytes())
    assert done.code == 0, done.err
    assert "note: --jobs 2: standard input is a pipe, which only one process can read, so one read all." in done.err
    assert len((tmp_path / "traces.jsonl").read_bytes()) > 10_000


def test_no_room_for_what_waits_is_said(files: list[Path]) -> None:
    command = [*PROGRAM, "convert", *map(str, files), "--jobs", "2"]
    limit = (20_000, 20_000)
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(), timeout=60, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert done.stderr.startswith("otelbridge: Temporary files cannot be written: File too large. With --jobs, what waits")
    assert "TMPDIR" in done.stderr


# --- processes that end otherwise ---------------------------------------------------------------------------


def test_a_reader_that_is_killed_is_named_with_what_is_missing(long_logs: list[Path], tmp_path: Path) -> None:
    with started(long_logs, tmp_path) as process:
        os.kill(next(children_of(process)), signal.SIGKILL)
        said = ended(process, 5)
    assert said.startswith("otelbridge: '")
    assert "the process that read it was ended by signal 9" in said
    assert "vm-" in said


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_whoever_stops_it_stops_all_of_its_processes(
    how: signal.Signals, code: int, long_logs: list[Path], tmp_path: Path
) -> None:
    with started(long_logs, tmp_path) as process:
        readers = list(children_of(process))
        assert len(readers) == 2
        process.send_signal(how)
        said = ended(process, code)
    assert "Traceback" not in said
    deadline_s = time.monotonic() + 30
    while alive := [reader for reader in readers if Path(f"/proc/{reader}").exists()]:
        assert time.monotonic() < deadline_s, f"{alive} still run"
        time.sleep(0.02)


def started(logs: list[Path], folder: Path) -> subprocess.Popen[str]:
    """A conversion by two processes, begun so far that both exist."""
    command = [*PROGRAM, "convert", *map(str, logs), "--to", f"file:{folder}/out", "--jobs", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())
    deadline_s = time.monotonic() + 30
    while len(list(children_of(process))) < 2:
        assert process.poll() is None, "it ended without them"
        assert time.monotonic() < deadline_s, "there are no two processes"
        time.sleep(0.005)
    return process


def children_of(process: subprocess.Popen[str]) -> Iterator[int]:
    yield from map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())


def ended(process: subprocess.Popen[str], code: int) -> str:
    """What it said until it ended with that code."""
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    return said


def test_more_processes_than_the_limits_allow_are_refused_with_what_to_do(files: list[Path]) -> None:
    command = [*PROGRAM, "convert", *map(str, files), "--jobs", "12"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(), timeout=60, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20)),
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("otelbridge: --jobs 12: only ")
    assert "(Too many open files); ask for fewer" in done.stderr
    assert "Traceback" not in done.stderr
