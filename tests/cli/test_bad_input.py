"""Everything that a user can do wrong: the contract's exit code, one clear sentence, never a traceback."""

from __future__ import annotations

import array
import fcntl
import gzip
import json
import os
import re
import signal
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.convert.command import PROGRAM, Result, call, environment, run

RECORDINGS = Path(__file__).resolve().parents[1] / "recordings"
LOG = "17135@1795409540.431193:migrate_set_state new state setup\n17135@1795409541.431193:migrate_set_state new state failed\n"
UNSTAMPED = "migrate_set_state new state setup\nmigrate_set_state new state failed\n"
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x10\x00\x00\x00\x10\x08\x06\x00\x00\x00\x1f\xf3\xffa" + bytes(
    range(256)
)
SIMPLE = b"\xff" * 8 + b"\xb4\x29\xa4\x0a\xcb\x77\xb1\xf2" + bytes(64)


class Case(NamedTuple):
    """Something wrong.

    Attributes:
        arguments: What comes after `convert`; `{}` in it is the folder with the files below.
        code: The exit code that the contract has for it.
        words: What the message must name.
    """

    arguments: str
    code: int
    words: tuple[str, ...]


CASES = {
    "no file": Case("", 2, ("nothing to convert", "otelbridge convert src.log dst.log")),
    "missing": Case("{}/nowhere.log", 2, ("nowhere.log", "does not exist")),
    "missing, with one of nearly that name": Case("{}/godo.log", 2, ("godo.log", "did you mean", "good.log")),
    "missing among good ones": Case("{}/good.log {}/nowhere.log", 2, ("nowhere.log", "does not exist")),
    "a folder": Case("{}/folder", 2, ("folder", "is a directory", "*.log")),
    "below a file": Case("{}/good.log/src.log", 2, ("good.log/src.log", "cannot be read")),
    "unreadable": Case("/proc/self/mem", 2, ("/proc/self/mem", "cannot be read")),
    "empty": Case("{}/empty.log", 4, ("empty.log", "is empty")),
    "noise": Case("{}/noise.log", 4, ("noise.log", "no text", "backend")),
    "a picture": Case("{}/picture.png", 4, ("picture.png",)),
    "a simple trace of an old QEMU": Case("{}/simple.trace", 4, ("simple.trace", "version 0 of the simple trace format")),
    "text without an event": Case("{}/poem.txt", 4, ("poem.txt", "no trace event", "-trace")),
    "zstd": Case("{}/packed.zst", 2, ("packed.zst", "zstd", "unpack")),
    "UTF-16": Case("{}/wide.log", 4, ("wide.log", "UTF-16", "iconv")),
    "lines in JSON objects": Case("{}/docker.log", 4, ("docker.log", "JSON", "jq -j .log")),
    "an unknown option": Case("{}/good.log --too file:x", 2, ("--too", "--to")),
    "an unknown destination": Case("{}/good.log --to ftp://host", 2, ("ftp://host", "file:DIR")),
    "a file destination without a folder": Case("{}/good.log --to file:", 2, ("file:", "file:DIR")),
    "an address without a host": Case("{}/good.log --to http://", 2, ("--to", "http://")),
    "a bad port": Case("{}/good.log --to grpc://host:99999", 2, ("--to", "99999")),
    "no such exporter": Case("{}/good.log --to sdk:nothing", 2, ("nothing", "Installed are")),
    "a bad time": Case("{}/good.log --assume-start yesterday", 2, ("yesterday", "2026-01-31T03:00:00Z")),
    "a bad duration": Case("{}/good.log --give-up soon", 2, ("soon", "30s")),
    "no stamps and a destination": Case(
        "{}/unstamped.log --to file:{}/out", 2, ("unstamped.log", "--assume-start", "timestamp")
    ),
    "a version of nonsense": Case("{}/good.log --qemu-version banana", 2, ("banana",)),
    "a version that is too old": Case("{}/good.log --qemu-version 1.0", 2, ("1.0", "3.1")),
    "a missing catalogue": Case("{}/good.log --catalogue {}/gone", 2, ("gone", "cannot be read")),
    "a catalogue without an event": Case("{}/good.log --catalogue {}/poem.txt", 3, ("poem.txt:",)),
    "a missing mapping": Case("{}/good.log --mapping {}/gone.yaml", 2, ("gone.yaml",)),
    "an unknown format": Case("{}/good.log --format journal", 2, ("journal", "auto")),
    "another format than it says": Case("{}/simple.trace --format log", 4, ("simple.trace",)),
    "accounting that cannot be written": Case("{}/good.log --to file:{}/out --accounting {}/gone/a.json", 2, ("gone/a.json",)),
    "accounting into a folder": Case("{}/good.log --to file:{}/out --accounting {}/folder", 2, ("folder",)),
    "a folder that is a file": Case("{}/good.log --to file:{}/poem.txt", 2, ("poem.txt",)),
    "source and destination": Case(
        "--source {}/good.log --destination {}/good.log", 2, ("good.log", "--source", "--destination")
    ),
    "a bad environment": Case("{}/good.log", 2, ("OTEL_RESOURCE_ATTRIBUTES",)),
}
ENVIRONMENTS = {"a bad environment": {"OTEL_RESOURCE_ATTRIBUTES": "no equals sign"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "folder").mkdir()
    texts = {
        "good.log": LOG,
        "unstamped.log": UNSTAMPED,
        "empty.log": "",
        "poem.txt": "Whose woods these are\nI think I know.\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "wide.log").write_text(LOG, encoding="utf-16")
    docker = [{"log": line, "stream": "stderr", "time": "2026-11-23T04:30:07.397Z"} for line in LOG.splitlines(keepends=True)]
    (folder / "docker.log").write_text("".join(f"{json.dumps(line)}\n" for line in docker))
    noise = bytes((7 * i * i + 13 * i) % 251 for i in range(5000))
    binaries = {"noise.log": noise, "picture.png": PNG, "simple.trace": SIMPLE, "packed.zst": b"\x28\xb5\x2f\xfd" + bytes(20)}
    for name, content in binaries.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_said_in_a_sentence(name: str, folder: Path) -> None:
    case = CASES[name]
    done = call("convert", *case.arguments.replace("{}", str(folder)).split(), env=ENVIRONMENTS.get(name))
    assert done.code == case.code, done.err
    assert_one_message(done)
    assert [word for word in case.words if word not in done.err] == []
    assert done.out == ""


def assert_one_message(done: Result) -> None:
    """One line that begins with the program's name, or with the place of what is wrong; never what Python says of a bug."""
    assert "Traceback" not in done.err
    assert "Errno" not in done.err
    lines = done.err.splitlines()
    if ": error: " not in lines[0]:
        assert len(lines) == 1, done.err
        assert lines[0].startswith("otelbridge: ")


def test_without_a_destination_unstamped_logs_are_drawn_in_their_order(folder: Path) -> None:
    done = call("convert", folder / "unstamped.log")
    assert done.code == 0, done.err
    assert "line 1" in done.out
    assert "no time" in done.out


def test_assumed_times_are_marked(folder: Path, tmp_path: Path) -> None:
    done = call("convert", folder / "unstamped.log", "--assume-start", "2026-01-01T00:00:00Z", "--to", f"file:{tmp_path}")
    assert done.code == 0, done.err
    assert '{"key":"otelbridge.clock","value":{"stringValue":"assumed"}}' in (tmp_path / "traces.jsonl").read_text()


def test_a_usage_error_leaves_no_output_behind(folder: Path, tmp_path: Path) -> None:
    accounting = tmp_path / "accounting.json"
    done = call("convert", folder / "gone.log", "--to", f"file:{tmp_path / 'out'}", "--accounting", accounting)
    assert done.code == 2
    assert not accounting.exists()
    assert not (tmp_path / "out").exists()


# --- files that persons write -----------------------------------------------------------------------------


def test_all_problems_of_a_mapping_are_located(folder: Path, tmp_path: Path) -> None:
    mapping = tmp_path / "mine.yaml"
    mapping.write_text("scope: mine\nspans:\n  one:\n    begin: migrate_set_stat\n    finish: x\n")
    done = call("convert", folder / "good.log", "--mapping", mapping)
    assert done.code == 3
    assert "Traceback" not in done.err
    located = [line for line in done.err.splitlines() if line.startswith(f"{mapping}:")]
    assert len(located) >= 2
    assert all(": error: " in line for line in located)
    assert "problems in" in done.err.splitlines()[-1]
    assert done.out == ""


def test_broken_yaml_is_located(folder: Path, tmp_path: Path) -> None:
    mapping = tmp_path / "mine.yaml"
    mapping.write_bytes(b"spans: [\n\x00")
    done = call("convert", folder / "good.log", "--mapping", mapping)
    assert done.code == 3
    assert done.err.startswith(f"{mapping}:")
    assert "Traceback" not in done.err


# --- outputs that cannot be written -----------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_loses_nothing_silently(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "traces.jsonl").symlink_to("/dev/full")
    done = call("convert", folder / "good.log", "--to", f"file:{tmp_path}", "--accounting", tmp_path / "accounting.json")
    assert done.code == 5
    assert "No space left on device" in done.err
    assert "Traceback" not in done.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("command", [("convert", "LOG"), ("--help",), ("mapping", "check", "MAPPING")])
def test_a_full_standard_output_is_an_error(command: tuple[str, ...], folder: Path, tmp_path: Path) -> None:
    mapping = tmp_path / "mine.yaml"
    mapping.write_text("version: 1\nscope: mine\nspans:\n  mine: {begin: postcopy_start, end: postcopy_start_set_run}\n")
    places = {"LOG": str(folder / "good.log"), "MAPPING": str(mapping)}
    with Path("/dev/full").open("wb") as full:
        arguments = [*PROGRAM, *(places.get(word, word) for word in command)]
        done = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, env=environment(), timeout=60, check=False)
    assert done.returncode != 0
    assert b"Traceback" not in done.stderr
    assert b"No space left on device" in done.stderr


def test_a_pipe_that_is_closed_early_is_no_error(folder: Path) -> None:
    program = " ".join(PROGRAM)
    script = f"{program} convert {folder / 'good.log'} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment(), timeout=60, check=False)
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""


def test_a_reader_that_is_gone_at_once_is_no_error(folder: Path) -> None:
    readable, writable = os.pipe()
    os.close(readable)
    command = [*PROGRAM, "convert", str(folder / "good.log")]
    done = subprocess.run(command, stdout=writable, stderr=subprocess.PIPE, env=environment(), timeout=60, check=False)
    os.close(writable)
    assert (done.returncode, done.stderr) == (0, b"")


def test_closed_standard_streams_cause_no_traceback(folder: Path) -> None:
    program = " ".join(PROGRAM)
    for redirections in ("<&-", ">&-", "2>&-"):
        script = f"{program} convert {folder / 'good.log'} {redirections}"
        done = subprocess.run(
            ["bash", "-c", script], capture_output=True, text=True, env=environment(), timeout=60, check=False
        )
        assert done.returncode == 0, (redirections, done.stderr)
        assert "Traceback" not in done.stderr


def test_a_closed_standard_input_cannot_be_converted() -> None:
    script = f"{' '.join(PROGRAM)} convert - <&-"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment(), timeout=60, check=False)
    assert done.returncode in (2, 4)
    assert_one_message(Result(done.returncode, done.stdout, done.stderr))
    assert "standard input" in done.stderr


def test_an_empty_standard_input() -> None:
    done = run("convert", "-")
    assert done.code == 4
    assert_one_message(done)
    assert "standard input is empty" in done.err


# --- signals ----------------------------------------------------------------------------------------------


def test_an_interrupt_ends_with_130() -> None:
    """While it waits for its standard input, as after `otelbridge convert -` typed by mistake."""
    command = [*PROGRAM, "convert", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        _wait_until_it_reads(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr is not None
        said = process.stderr.read()
    assert "Traceback" not in said
    assert said.lstrip().startswith("otelbridge: interrupted")


def _wait_until_it_reads(process: subprocess.Popen[str]) -> None:
    """Give it a whole event; when the pipe is empty again it has come to its reading loop."""
    assert process.stdin is not None
    process.stdin.write(LOG)
    process.stdin.flush()
    deadline_s = time.monotonic() + 20
    while time.monotonic() < deadline_s:
        if _waiting_bytes(process.stdin.fileno()) == 0:
            return
        time.sleep(0.01)
    pytest.fail("it never read its standard input")


def _waiting_bytes(pipe: int) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


# --- odd names and odd files ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"caf\xe9.log", "日本 \u202e.log".encode(), b"new\nline.log", b"-dash.log"])
def test_any_name_of_a_file_is_read(name: bytes, tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(name)).write_text(LOG)
    outputs: list[str | Path] = ["--to", f"file:{tmp_path / 'out'}", "--accounting", tmp_path / "accounting.json"]
    done = run("convert", *outputs, "--", os.fsdecode(b"./" + name if name[:1] == b"-" else name), cwd=tmp_path)
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "accounting.json").read_text())["spans"]["delivered"] == 2
    assert (tmp_path / "out" / "traces.jsonl").read_text().count("\n") == 1
    drawn = run("convert", tmp_path / os.fsdecode(name))
    assert drawn.code == 0, drawn.err
    assert "\u202e" not in drawn.out


@pytest.mark.parametrize("name", [b"caf\xe9.gone", b"new\nline.gone"])
def test_any_name_of_a_missing_file_is_said(name: bytes, tmp_path: Path) -> None:
    done = run("convert", os.fsdecode(name), cwd=tmp_path)
    assert done.code == 2
    assert "Traceback" not in done.err
    assert "does not exist" in done.err


def test_an_empty_file_among_good_ones_is_a_loss_that_is_said(folder: Path, tmp_path: Path) -> None:
    arguments: list[str | Path] = [
        folder / "good.log",
        folder / "empty.log",
        "--to",
        f"file:{tmp_path}",
        "--accounting",
        tmp_path / "a.json",
    ]
    done = call("convert", *arguments)
    assert done.code == 7
    document = json.loads((tmp_path / "a.json").read_text())
    assert any("empty.log" in loss for loss in document["loss"])
    assert "empty.log" in done.err
    assert document["spans"]["delivered"] == 2


def test_a_file_without_events_among_good_ones_is_said(folder: Path, tmp_path: Path) -> None:
    done = call("convert", folder / "good.log", folder / "poem.txt", "--to", f"file:{tmp_path}")
    assert done.code == 7
    assert "poem.txt" in done.err


def test_a_picture_among_good_ones_is_refused_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    done = call("convert", folder / "good.log", folder / "picture.png", "--to", f"file:{tmp_path / 'out'}")
    assert done.code == 4
    assert_one_message(done)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("spelling", ["{}/good.log", "{}/./good.log", "{}/folder/../good.log"])
def test_the_same_file_twice_is_read_once(spelling: str, folder: Path, tmp_path: Path) -> None:
    other = spelling.replace("{}", str(folder))
    done = call("convert", folder / "good.log", other, "--to", f"file:{tmp_path}", "--accounting", tmp_path / "a.json")
    assert done.code == 0, done.err
    document = json.loads((tmp_path / "a.json").read_text())
    assert len(document["inputs"]) == 1
    assert document["spans"]["delivered"] == 2


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "torn": lambda log: log[:-12],
    "malformed": lambda log: log + b"17135@1795409542.000000:savevm_section_start \n",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_losses_in_the_input_are_seven(damage: str, tmp_path: Path) -> None:
    log = tmp_path / "vm.log"
    log.write_bytes(DAMAGES[damage](LOG.encode()))
    done = call("convert", log, "--to", f"file:{tmp_path / 'out'}", "--accounting", tmp_path / "a.json")
    assert done.code == 7, done.err
    assert "vm.log" in done.err
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["loss"]
    assert document["inputs"][0]["buckets"][damage] == 1


def test_what_is_lost_of_a_binary_trace_are_records(tmp_path: Path) -> None:
    trace = tmp_path / "vm.simple"
    trace.write_bytes(gzip.decompress((RECORDINGS / "qemu-10.2.0-simple/multifd-tls/src.simple.gz").read_bytes())[:-5])
    done = call("convert", trace, "--to", f"file:{tmp_path / 'out'}")
    assert (done.code, "vm.simple: 1 record is cut" in done.err) == (7, True), done.err


def test_what_is_whole_in_a_torn_line_counts_in_the_metrics_too(tmp_path: Path) -> None:
    """`savevm_state_iterate` feeds a counter and nothing else."""
    lines = (RECORDINGS / "debian-7.2/precopy-busy/src.log").read_bytes().splitlines()
    places = [n for n, line in enumerate(lines) if b":savevm_state_iterate" in line]
    lines[places[100]] += lines.pop(places[100] + 1)
    (tmp_path / "vm.log").write_bytes(b"\n".join(lines) + b"\n")
    done = call("convert", tmp_path / "vm.log", "--to", f"file:{tmp_path / 'out'}", "--accounting", tmp_path / "a.json")
    assert done.code == 7, done.err
    document = json.loads((tmp_path / "a.json").read_text())
    buckets = document["inputs"][0]["buckets"]
    assert (document["events"]["savevm_state_iterate"], buckets["torn"]) == (len(places), 1)
    assert sum(buckets.values()) == document["inputs"][0]["total"] == len(lines)
    points = [
        point
        for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
        for resource in json.loads(line)["resourceMetrics"]
        for scope in resource["scopeMetrics"]
        for metric in scope["metrics"]
        if metric["name"] == "qemu.migration.iterations"
        for point in metric["sum"]["dataPoints"]
    ]
    assert points[-1]["asInt"] == str(len(places))


def test_a_cut_archive_gives_what_can_be_read(tmp_path: Path) -> None:
    log = tmp_path / "vm.log.gz"
    log.write_bytes(gzip.compress(LOG.encode() * 200, 0)[:-400])
    done = call("convert", log, "--to", f"file:{tmp_path / 'out'}")
    assert done.code == 7, done.err
    assert "vm.log.gz" in done.err
    assert "Traceback" not in done.err


def test_a_fifo_is_read(tmp_path: Path) -> None:
    """As of `otelbridge convert <(ssh host cat vm.log)`."""
    command = f"{' '.join(PROGRAM)} convert <(printf '%s' \"$LOG\")"
    env = environment({"LOG": LOG})
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=env, cwd=tmp_path, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "failed" in done.stdout


@pytest.mark.parametrize("command", [(), ("mapping",), ("spool",), ("convert", "--help"), ("--version",), ("--help",)])
def test_help_is_no_error(command: tuple[str, ...]) -> None:
    done = call(*command)
    assert "Traceback" not in done.err
    assert done.code in (0, 2)
    assert done.out + done.err


def test_an_unknown_command_is_said() -> None:
    done = call("convrt", "x.log")
    assert done.code == 2
    assert_one_message(done)
    assert "convrt" in done.err


def test_negative_amounts_of_a_counter_are_told_with_its_name(tmp_path: Path) -> None:
    log, mapping = tmp_path / "one.log", tmp_path / "my.yaml"
    log.write_text(
        "".join(f"1@1795409540.43119{n}:savevm_section_end ram, section_id 2 -> {ret}\n" for n, ret in enumerate((-5, 3)))
    )
    mapping.write_text('version: 1\nscope: my\nmetrics:\n  my.sum: {counter: savevm_section_end, add: ret, unit: "1"}\n')
    done = call("convert", log, "--mapping", mapping, "--to", f"file:{tmp_path / 'out'}")
    assert " ".join(done.err.split()).count("the metric my.sum goes without negative values (left out: 1), because") == 1, (
        done.err
    )
    points = (tmp_path / "out" / "metrics.jsonl").read_text()
    assert ('"name":"my.sum"' in points, '"asInt":"3"' in points, '"asInt":"-' in points) == (True, True, False)


def test_parts_of_a_log_that_were_put_together_in_the_wrong_order_are_told(tmp_path: Path) -> None:
    lines = (RECORDINGS / "debian-7.2/precopy-busy/src.log").read_bytes().splitlines(keepends=True)
    older, newer = lines[:600], lines[600:]
    (tmp_path / "vm.log").write_bytes(b"".join(newer + older))
    done = call("convert", tmp_path / "vm.log", "--to", f"file:{tmp_path / 'out'}")
    ends, begins = (re.findall(rb"@(\d+\.\d+):", b"".join(part)) for part in (newer, older))
    late_s = float(max(ends)) - float(min(begins))
    assert f" events stand up to {late_s:.3f} s too late in the file" in " ".join(done.err.split()), done.err
    assert "give each of them as a file of its own" in " ".join(done.err.split())
