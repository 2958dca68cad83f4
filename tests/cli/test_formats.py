"""What is asked of a format and cannot be had: the wrong word, no clock, no program, several formats in one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from otelbridge.readers import FORMATS
from tests.cli.test_bad_input import assert_one_message
from tests.convert.command import Result, call, run
from tests.golden.test_precopy import FOLDER

SINCE_BOOT = ("simple", "ftrace")


def trace(word: str) -> Path:
    return FOLDER / f"{word}.trace"


def assert_refused(done: Result, code: int, out: Path, *words: str) -> None:
    """One message with these words, and nothing written."""
    assert done.code == code, done.err
    assert_one_message(done)
    assert [word for word in words if word not in done.err] == []
    assert not out.exists()


# --- times that count from the host's boot ----------------------------------------------------------------


@pytest.mark.parametrize("format_", ["auto", "named"])
@pytest.mark.parametrize("word", SINCE_BOOT)
def test_a_pipe_without_a_clock_is_refused_with_what_tells_it(word: str, format_: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    content = trace(word).read_bytes()
    format_ = word if format_ == "named" else "auto"
    done = run("convert", "-", "--format", format_, "--to", f"file:{out}", stdin=content)
    assert_refused(done, 2, out, "standard input", "--clock-offset", "--clock FILE", "--boot-time")


@pytest.mark.parametrize("word", SINCE_BOOT)
def test_a_file_without_a_clock_is_put_near_its_last_change_and_its_spans_say_so(word: str, tmp_path: Path) -> None:
    copy = tmp_path / "a.trace"
    copy.write_bytes(trace(word).read_bytes())
    done = call("convert", copy, "--to", f"file:{tmp_path / 'out'}")
    assert done.code == 0, done.err
    assert "--clock-offset" in done.err
    spans = (tmp_path / "out" / "traces.jsonl").read_text()
    assert '{"key":"otelbridge.clock","value":{"stringValue":"estimated"}}' in spans


class Bad(NamedTuple):
    """A clock file that is none, and what the message must name."""

    text: str
    words: tuple[str, ...]


CLOCKS = {
    "no JSON": Bad("realtime_ns: 1\n", ("is no JSON", "line 1 column 1")),
    "JSON that is cut": Bad('{\n  "realtime_ns": 1795408314740585660,\n', ("is no JSON", "line 3 column 1")),
    "other keys": Bad('{"wall": 1, "mono": 2}', ('{"wall": 1, "mono": 2}', "realtime_ns", "monotonic_ns")),
    "one key": Bad('{"realtime_ns": 1}', ('{"realtime_ns": 1}', "monotonic_ns")),
    "seconds": Bad('{"realtime_ns": 1795408314.7, "monotonic_ns": 2}', ("1795408314.7", "whole numbers of nanoseconds")),
    "texts": Bad('{"realtime_ns": "1", "monotonic_ns": "2"}', ('"1"', "whole numbers of nanoseconds")),
    "a list": Bad("[1, 2]", ("[1, 2]", "realtime_ns")),
    "a bad end": Bad('{"start": {"realtime_ns": 3, "monotonic_ns": 2}, "end": null}', ("null", "realtime_ns")),
}


@pytest.mark.parametrize("beside", [False, True], ids=["given", "beside"])
@pytest.mark.parametrize("name", CLOCKS)
def test_a_bad_clock_file_is_named_with_what_it_has_and_what_it_should(name: str, beside: bool, tmp_path: Path) -> None:
    bad, out = CLOCKS[name], tmp_path / "out"
    copy = tmp_path / "a.trace"
    copy.write_bytes(trace("simple").read_bytes())
    clock = tmp_path / ("clock.json" if beside else "mine.json")
    clock.write_text(bad.text)
    done = call("convert", copy, *([] if beside else ["--clock", clock]), "--to", f"file:{out}")
    assert_refused(done, 2, out, str(clock), *bad.words, "Nothing was converted")


def test_what_was_converted_before_stays_when_times_are_refused(tmp_path: Path) -> None:
    (tmp_path / "traces.jsonl").write_text("of before\n")
    done = run("convert", "-", "--to", f"file:{tmp_path}", stdin=trace("simple").read_bytes())
    assert done.code == 2
    assert (tmp_path / "traces.jsonl").read_text() == "of before\n"


def test_a_clock_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = call("convert", trace("simple"), "--clock", tmp_path / "gone.json", "--to", f"file:{out}")
    assert_refused(done, 2, out, "gone.json", "cannot be read")


# --- the wrong word ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("said", "has"), [(said, has) for said in FORMATS for has in FORMATS if said not in {has, "simple"}])
def test_a_trace_of_another_format_is_refused_with_the_one_it_has(said: str, has: str, tmp_path: Path) -> None:
    accounting = tmp_path / "accounting.json"
    done = call("convert", trace(has), "--format", said, "--clock-offset", "1s", "--accounting", accounting)
    assert_refused(done, 4, accounting, f"{has}.trace", f"(--format {said})", f"like --format {has}:", "Nothing was converted")
    assert done.out == ""


@pytest.mark.parametrize("has", [word for word in FORMATS if word != "simple"])
def test_a_text_is_no_simple_trace(has: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = call("convert", trace(has), "--format", "simple", "--clock-offset", "1s", "--to", f"file:{out}")
    assert_refused(done, 4, out, f"{has}.trace", "simple trace")


@pytest.mark.parametrize("said", [word for word in FORMATS if word != "simple"])
def test_a_text_of_no_format_is_refused_with_what_an_event_looks_like(said: str, tmp_path: Path) -> None:
    poem = tmp_path / "poem.txt"
    poem.write_text("Whose woods these are\nI think I know.\n")
    done = call("convert", poem, "--format", said)
    assert_refused(done, 4, tmp_path / "out", "poem.txt", FORMATS[said].example, f"(--format {said})")
    assert "looks like" not in done.err


@pytest.mark.parametrize("word", [word for word in FORMATS if word != "simple"])
def test_the_example_of_a_format_is_an_event_in_it(word: str, tmp_path: Path) -> None:
    one = tmp_path / "one.trace"
    one.write_text(FORMATS[word].example + "\n")
    accounting = tmp_path / "accounting.json"
    outputs = ["--to", f"file:{tmp_path / 'out'}", "--accounting", accounting]
    done = call("convert", one, "--format", word, "--clock-offset", "1795408000s", *outputs)
    assert done.code == 0, done.err
    assert json.loads(accounting.read_text())["events"] == {"migrate_set_state": 1}


# --- left to the program ----------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("log", "syslog"), ("log", "stap"), ("ust", "stap"), ("ftrace", "journald", "ust")])
def test_several_formats_in_one_file_are_refused_with_all_of_them(words: tuple[str, ...], tmp_path: Path) -> None:
    mixed, out = tmp_path / "mixed.trace", tmp_path / "out"
    mixed.write_bytes(b"".join(trace(word).read_bytes() for word in words))
    done = call("convert", mixed, "--to", f"file:{out}")
    assert_refused(done, 4, out, "mixed.trace", "could be in several formats", *(f"{word} (" for word in words), "--format")


def test_what_is_no_trace_is_refused_with_all_formats(tmp_path: Path) -> None:
    program, out = tmp_path / "program", tmp_path / "out"
    program.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(range(32)) * 20)
    done = call("convert", program, "--to", f"file:{out}")
    assert_refused(done, 4, out, "'" + str(program), "no text and no trace", "log, simple, ftrace, syslog, ust")


@pytest.mark.parametrize("format_", ["auto", "ust"])
def test_a_ctf_folder_without_babeltrace_is_refused_with_what_installs_it(format_: str, tmp_path: Path) -> None:
    metadata = tmp_path / "session" / "ust" / "uid" / "0" / "64-bit" / "metadata"
    metadata.parent.mkdir(parents=True)
    metadata.write_bytes(b"/* CTF 1.8 */\n")
    out = tmp_path / "out"
    (tmp_path / "bin").mkdir()
    arguments: list[str | Path] = ["convert", tmp_path / "session", "--format", format_, "--to", f"file:{out}"]
    done = call(*arguments, env={"PATH": str(tmp_path / "bin")})
    assert_refused(done, 2, out, "'babeltrace2'", "not installed", "apt-get install babeltrace2")


def test_a_trace_dat_without_trace_cmd_is_refused_with_what_installs_it(tmp_path: Path) -> None:
    (tmp_path / "trace.dat").write_bytes(b"\x17\x08\x44tracing6\0")
    out = tmp_path / "out"
    done = call("convert", tmp_path / "trace.dat", "--to", f"file:{out}", env={"PATH": str(tmp_path)})
    assert_refused(done, 2, out, "'trace-cmd'", "not installed", "apt-get install trace-cmd")
