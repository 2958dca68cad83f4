"""What `otelbridge convert` prints on a terminal and into a pipe."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.convert.command import PROGRAM, call, environment, run

Logs = Callable[[str], list[Path]]
RECORDINGS = (
    "debian-7.2/precopy-busy", "debian-7.2/tls-ok", "debian-7.2/tls-fail-stderr", "debian-7.2/cancelled", "debian-7.2/multifd",
    "debian-7.2/two-vms-one-log", "debian-7.2/savevm-loadvm", "qemu-10.2.0-log/multifd-tls", "qemu-10.2.0-log/postcopy",
    "qemu-10.2.0-log/precopy-idle-nots", "qemu-4.1.0-log/tls-ok",
)  # fmt: skip
# Colours, cursor movements, window titles; everything that starts with ESC, and the C1 controls.
STEERING = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
EVIL = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x9b31m"


def on_terminal(*arguments: str | Path, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run a command with a terminal of 80 columns as its standard output; give its exit code and what it printed."""
    master, slave = pty.openpty()
    command = [*PROGRAM, *(str(argument) for argument in arguments)]
    printed: list[bytes] = []

    def read() -> None:
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:  # what Linux says when nobody has the other end any more
                return
            printed.append(piece)

    full = environment({"TERM": "xterm-256color", "COLUMNS": "80", **(env or {})})
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=slave, stderr=subprocess.DEVNULL, env=full) as process:
        os.close(slave)
        reader = threading.Thread(target=read)
        reader.start()
        code = process.wait(60)
        reader.join()
    os.close(master)
    return code, b"".join(printed).decode()


@pytest.mark.parametrize("recording", RECORDINGS)
def test_a_pipe_gets_plain_text_within_its_columns(recording: str, logs: Logs) -> None:
    done = call("convert", *logs(recording), env={"COLUMNS": "80"})
    assert done.code in (0, 7), done.err
    assert done.err == ""
    assert STEERING.findall(done.out) == []
    assert [line for line in done.out.splitlines() if cell_len(line) > 80] == []
    assert "migration" in done.out
    assert "accounting" in done.out


@pytest.mark.parametrize("columns", ["40", "60", "200"])
def test_the_width_follows_the_terminal(columns: str, logs: Logs) -> None:
    done = call("convert", *logs("debian-7.2/tls-ok"), env={"COLUMNS": columns})
    assert done.code == 0
    assert max(cell_len(line) for line in done.out.splitlines()) <= int(columns)


def test_what_a_reader_wants_to_know_is_there(logs: Logs) -> None:
    """Figures from the recording's raw logs: two handshakes, and `query-migrate` said 332 ms in all and 104 ms of downtime."""
    done = call("convert", *logs("debian-7.2/tls-ok"), env={"COLUMNS": "100"})
    first, *rest = done.out.splitlines()
    assert "completed" in first
    text = "\n".join(rest)
    assert re.search(r"TLS handshakes: 2", text)
    assert re.search(r"downtime +10[34] ms", text)
    assert re.search(r"\b[0-9a-f]{32}\b", text)
    assert "nothing was lost" in text


def test_a_failure_is_told_with_its_reason(logs: Logs) -> None:
    done = call("convert", *logs("debian-7.2/tls-fail-stderr"))
    assert done.code == 0, done.err
    assert "failed" in done.out.splitlines()[0]
    assert "handshake" in done.out


@pytest.fixture
def evil(tmp_path: Path) -> list[Path]:
    """A log with escape sequences in an error's text, in a section's name and in a line of no event; and its name has one."""
    stamp = "17@1795409540.43{:04d}:"
    texts = [
        "migrate_set_state new state setup",
        "migrate_set_state new state active",
        f"savevm_section_start {EVIL}ram, section_id 1",
        f"savevm_section_end {EVIL}ram, section_id 1 -> -5",
        f"migration_tls_outgoing_handshake_start hostname={EVIL}",
        f"migration_tls_outgoing_handshake_error err={EVIL}",
        f"migrate_error error={EVIL}",
        "migrate_set_state new state failed",
    ]
    plain = tmp_path / "evil.log"
    lines = [stamp.format(number) + text for number, text in enumerate(texts)]
    plain.write_text("\n".join([*lines, f"qemu-system-x86_64: {EVIL}", ""]), "utf-8")
    named = tmp_path / "evil\x1b]0;name\x07.log"
    named.write_bytes(plain.read_bytes())
    return [plain, named]


def test_escape_sequences_of_a_log_are_shown_and_not_obeyed(evil: list[Path]) -> None:
    for log in evil:
        done = call("convert", log, env={"COLUMNS": "200"})
        assert done.code in (0, 7), done.err
        assert STEERING.findall(done.out) == []
        assert STEERING.findall(done.err) == []
        assert "\\x1b]0;owned\\x07" in done.out


def test_escape_sequences_do_not_reach_a_terminal(evil: list[Path]) -> None:
    code, text = on_terminal("convert", *evil)
    assert code in (0, 7)
    assert "\x1b]" not in text
    assert "\x1b[2J" not in text
    assert "\x9b" not in text


def test_escape_sequences_of_names_do_not_reach_standard_error(evil: list[Path], tmp_path: Path) -> None:
    missing = f"{evil[1]}.gone"
    for arguments in (
        [missing],
        [evil[1], "--to", f"file:{tmp_path / 'out'}"],
        [evil[0], "--to", EVIL],
        [evil[0], "--" + EVIL],
    ):
        done = call("convert", *arguments)
        assert STEERING.findall(done.err) == [], arguments
        assert STEERING.findall(done.out) == [], arguments


def test_a_terminal_gets_colours(logs: Logs) -> None:
    code, text = on_terminal("convert", *logs("debian-7.2/tls-ok"))
    assert code == 0
    assert "\x1b[" in text
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert "\x1b" not in plain
    assert max(cell_len(line) for line in plain.splitlines()) <= 80


def test_no_color_is_obeyed(logs: Logs) -> None:
    _, text = on_terminal("convert", *logs("debian-7.2/tls-ok"), env={"NO_COLOR": "1"})
    assert re.findall(r"\x1b\[(?:[\d;]*;)?(?:3|4|9|10)\d[\d;]*m", text) == []
    assert "migration" in text


def test_ascii_only_terminals_get_no_error(logs: Logs) -> None:
    """A service manager's or a container's locale is often `C`."""
    done = run("convert", *logs("debian-7.2/tls-ok"), env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"})
    assert done.code == 0, done.err
    assert "nothing was lost" in done.out


def test_how_long_it_took_is_by_the_sources_clock_where_the_other_is_an_hour_ahead(logs: Logs, tmp_path: Path) -> None:
    """QMP's total-time of this migration is 19049 ms; its destination answers nothing, so its clock cannot be compared."""
    source, destination = logs("debian-7.2/precopy-busy")
    ahead = re.sub(rb"@(\d+)\.", lambda stamp: b"@%d." % (int(stamp[1]) + 3600), destination.read_bytes())
    (tmp_path / "dst.log").write_bytes(ahead)
    done = call("convert", source, tmp_path / "dst.log")
    assert done.out.startswith("migration completed after 19 s, guest stopped for 93.9 ms, precopy\n")
    assert "915 MiB, 48 MiB/s over the whole" in done.out
