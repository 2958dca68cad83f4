"""What is said of an input that is not in the format it was given for, or whose times cannot be told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from otelbridge.readers import FORMATS
from tests.convert.command import call, run

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "precopy"
CLOCK = {"realtime_ns": 1795408314740585660, "monotonic_ns": 2611259152318}


@pytest.mark.parametrize("given", list(FORMATS))
@pytest.mark.parametrize("real", list(FORMATS))
def test_a_trace_in_another_format_than_was_said_is_refused(real: str, given: str, tmp_path: Path) -> None:
    done = call("convert", "--format", given, "--clock-offset", "1s", GOLDEN / f"{real}.trace", "--to", f"file:{tmp_path}")
    if real == given:
        assert done.code == 0, done.err
        return
    assert done.code == 4
    assert f"{real}.trace" in done.err
    assert f"--format {real}" in done.err or given == "simple", "what it is in is said"


@pytest.mark.parametrize("word", list(FORMATS))
def test_each_format_is_told_by_itself(word: str, tmp_path: Path) -> None:
    done = call("convert", "-v", "--clock-offset", "1s", GOLDEN / f"{word}.trace", "--to", f"file:{tmp_path}")
    assert done.code == 0, done.err
    assert f"{word}.trace" in done.err
    assert f"{word}, " in done.err or f"{word}:" in done.err or f" {word} " in done.err


def test_a_trace_of_two_formats_is_refused_with_both(tmp_path: Path) -> None:
    (tmp_path / "both").write_bytes((GOLDEN / "ust.trace").read_bytes() + (GOLDEN / "syslog.trace").read_bytes())
    done = call("convert", tmp_path / "both")
    assert done.code == 4
    assert all(word in done.err for word in ("ust", "syslog", "--format"))


def test_a_simple_trace_from_a_pipe_is_refused_without_a_clock() -> None:
    done = run("convert", "-", stdin=(GOLDEN / "simple.trace").read_bytes())
    assert done.code == 2
    assert all(option in done.err for option in ("--clock-offset", "--clock", "--boot-time"))
    assert "Nothing was converted" in done.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON"),
        ("[]", "realtime_ns"),
        ('{"realtime_ns": "x"}', "whole numbers of nanoseconds"),
        (json.dumps({"realtime_ns": 1}), "monotonic_ns"),
        (json.dumps({"start": CLOCK, "end": 5}), "monotonic_ns"),
    ],
)
def test_a_clock_file_that_is_none_is_refused_with_what_it_should_be(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "clock.json").write_text(text)
    done = call("convert", GOLDEN / "simple.trace", "--clock", tmp_path / "clock.json")
    assert done.code == 2
    assert str(tmp_path / "clock.json") in done.err
    assert said in done.err


def test_a_folder_of_ctf_names_the_program_that_is_missing(shared_recordings: Path) -> None:
    folder = shared_recordings / "qemu-10.2.0-ust" / "precopy-busy" / "ctf"
    done = call("convert", folder, env={"PATH": "/nonexistent"})
    assert done.code == 2
    assert "'babeltrace2', which is not installed" in done.err
    assert "Nothing was read" in done.err


def test_a_trace_dat_names_the_program_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "trace.dat").write_bytes(b"\x17\x08\x44tracing6\0")
    done = call("convert", tmp_path / "trace.dat", env={"PATH": "/nonexistent"})
    assert done.code == 2
    assert "'trace-cmd', which is not installed" in done.err
