"""Inputs that an installed program writes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from otelbridge.errors import FormatError, UsageError
from otelbridge.readers.ftrace import ftrace_reader
from otelbridge.readers.programs import ProgramInput, babeltrace_text, is_ctf, is_trace_dat, journal, trace_cmd_report
from otelbridge.readers.ust import ust_reader
from tests.readers.traces import ALL_ROWS, content, is_event, no_sums, read


def python(code: str) -> ProgramInput:
    """A program of these statements."""
    return ProgramInput("x", [sys.executable, "-c", code])


def test_a_ctf_directory_is_read_as_its_text(shared_recordings: Path, need: Callable[[str, str], None]) -> None:
    need("babeltrace2", "it reads LTTng's traces; apt-get install babeltrace2")
    for scenario in ("tls-ok", "multifd-buffers-pid"):
        folder = shared_recordings / "qemu-10.2.0-ust" / scenario
        program = babeltrace_text(str(folder / "ctf"))
        found = read(ust_reader(ALL_ROWS, is_event, no_sums), b"", program.blocks())
        program.close()
        text = content(folder / "babeltrace2-date.txt")
        assert found.rows == read(ust_reader(ALL_ROWS, is_event, no_sums), text).rows
        assert (program.gap, program.size, program.position) == ("", None, len(text))


def test_a_directory_that_is_no_ctf_is_refused_with_the_programs_words(
    tmp_path: Path, need: Callable[[str, str], None]
) -> None:
    need("babeltrace2", "it reads LTTng's traces; apt-get install babeltrace2")
    program = babeltrace_text(str(tmp_path))
    with pytest.raises(FormatError, match=r"'babeltrace2' cannot read it and ended with 1: .*source component") as caught:
        list(program.blocks())
    program.close()
    assert caught.value.path == str(tmp_path)
    assert any(str(tmp_path) in note for note in program.notes)


def test_a_file_that_is_no_trace_dat_is_refused_with_the_programs_words(
    tmp_path: Path, need: Callable[[str, str], None]
) -> None:
    need("trace-cmd", "it reads trace.dat; apt-get install trace-cmd")
    path = tmp_path / "trace.dat"
    path.write_bytes(b"no trace\n")
    program = trace_cmd_report(str(path))
    with pytest.raises(FormatError, match="'trace-cmd' cannot read it and ended with"):
        read(ftrace_reader(ALL_ROWS, is_event, no_sums), b"", program.blocks())
    program.close()


@pytest.mark.parametrize(
    ("start", "package"),
    [
        (lambda: trace_cmd_report("/tmp/trace.dat"), "trace-cmd"),  # noqa: S108  # a name alone
        (lambda: babeltrace_text("ctf"), "babeltrace2"),
        (lambda: journal(["-f"]), "systemd"),
    ],
)
def test_a_missing_program_is_named_with_what_installs_it(
    start: Callable[[], ProgramInput], package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UsageError, match=rf"not installed\. Install it \(Debian, Ubuntu: apt-get install {package};.*Nothing was read"
    ):
        start()


def test_what_comes_from_a_live_program_comes_at_once() -> None:
    program = python("import os, time; os.write(1, b'a\\n'); time.sleep(60)")
    begun = time.monotonic()
    blocks = program.blocks()
    assert next(blocks) == b"a\n"
    assert program.head == b"a\n"
    program.close()
    assert time.monotonic() - begun < 20
    assert list(blocks) == []


def test_a_program_that_fails_in_the_middle_leaves_a_gap() -> None:
    program = python("import sys; print('a' * 200000); sys.exit('the disk is gone')")
    assert b"".join(program.blocks()) == b"a" * 200_000 + b"\n"
    program.close()
    assert program.gap.endswith("ended with 1 before the end of 'x': the disk is gone")


def test_a_program_that_says_much_does_not_stall() -> None:
    program = python("import sys; [print('note', i, file=sys.stderr) for i in range(50000)]; print('a')")
    assert b"".join(program.blocks()) == b"a\n"
    program.close()
    assert program.notes[:2] == ["note 0", "note 1"]
    assert len(program.notes) == 100


def test_a_program_that_ignores_the_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otelbridge.readers.programs._STOP_S", 0.2)
    program = python("import os, signal, time; signal.signal(15, signal.SIG_IGN); os.write(1, b'a\\n'); time.sleep(60)")
    assert program.head == b"a\n"
    program.close()
    assert program._process.returncode == -9


def test_a_ctf_trace_is_known_by_its_metadata(shared_recordings: Path, tmp_path: Path) -> None:
    for folder in (shared_recordings / "qemu-10.2.0-ust").iterdir():
        assert is_ctf(str(folder / "ctf"))
        assert is_ctf(str(folder))
    assert not is_ctf(str(shared_recordings / "qemu-10.2.0-log"))
    (tmp_path / "metadata").mkdir()
    assert not is_ctf(str(tmp_path))
    assert not is_ctf(str(tmp_path / "missing"))
    (tmp_path / "metadata" / "metadata").write_text("/* CTF 1.8 */\n")
    assert is_ctf(str(tmp_path))


def test_a_trace_dat_is_known_by_its_first_bytes() -> None:
    assert is_trace_dat(b"\x17\x08Dtracing6\0\0\x08")
    assert not is_trace_dat(b"# tracer: nop\n")
