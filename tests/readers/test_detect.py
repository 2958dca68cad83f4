"""The format of an input is told from its first bytes, or refused in words that help."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import click
import pytest

from otelbridge.catalogue import builtin
from otelbridge.cli.convert import convert_command
from otelbridge.errors import FormatError
from otelbridge.readers import FORMATS
from otelbridge.readers.detect import Look, detect, look_at

STATE = b"migrate_set_state new state setup"


def look(head: bytes) -> Look:
    return look_at(head, builtin().is_event)


def word(head: bytes) -> str:
    return detect(head, "in.log", builtin().is_event).format


@pytest.mark.parametrize(
    ("head", "first", "stamp"),
    [
        (b"7@1795407950.000001:" + STATE + b"\n", b"7@1795407950.000001:" + STATE, "number"),
        (b"2026-11-23T04:30:01.5Z " + STATE + b"\n", b"2026-11-23T04:30:01.5Z " + STATE, "iso"),
        (b"2026-11-23T04:30:01Z " + STATE, b"2026-11-23T04:30:01Z " + STATE, "iso"),
        (STATE + b"\r\n", STATE, None),
        (b"x\n" + STATE + b"\n7@1795407950.000001:ram_save_page x\n", b"7@1795407950.000001:ram_save_page x", "number"),
        (b"\0\0\0" + b"7@1795407950.000001:" + STATE, b"7@1795407950.000001:" + STATE, "number"),
        (b"7@1795407950.000001:no_such_event x\n" + STATE + b"\n", STATE, None),
    ],
    ids=["number", "iso", "iso-on-the-second", "unstamped", "stamped-later", "hole", "unknown-first"],
)  # fmt: skip
def test_the_first_event_is_found_and_how_its_time_is_written(head: bytes, first: bytes, stamp: str | None) -> None:
    assert look(head) == Look(first, stamp, events=True)
    assert word(head) == "log"


@pytest.mark.parametrize(
    "head", [b"", b"hello world\n", b"qemu-system-x86_64: error\n", b"2026-11-23T04:30:01Z qemu-system-x86_64: x\n"]
)
def test_a_text_without_an_event_so_far_is_taken_for_a_log(head: bytes) -> None:
    assert look(head) == Look(b"", None, events=False)
    assert word(head) == "log"


@pytest.mark.parametrize(
    ("head", "format_"),
    [
        (struct.pack("<QQQ", 2**64 - 1, 0xF2B177CB0AA429B4, 4), "simple"),
        (struct.pack(">QQQ", 2**64 - 1, 0xF2B177CB0AA429B4, 4), "simple"),
        (b"# tracer: nop\n#\n", "ftrace"),
        (b"           <...>-23166   [000] ...1.  2503.940575: tracing_mark_write: savevm_section_end ram\n", "ftrace"),
        (b"[04:30:07.397507948] (+0.001254499) vm qemu:savevm_section_end: { cpu_id = 0 }, { ret = 0 }\n", "ust"),
        (b"[04:49:25.767168364] (+?.?????????) vm:qemu-system-x86:(14750) qemu:migrate_set_state: { cpu_id = 1 }\n", "ust"),
        (b"Nov 23 04:30:07 vm qemu-system-x86_64[23115]: savevm_section_end ram, section_id 1 -> 0\n", "syslog"),
        (b"<30>1 2026-11-23T04:30:07.397547+00:00 vm qemu-system-x86_64 23115 - -  savevm_section_end ram\n", "syslog"),
        (b'{"MESSAGE":"savevm_section_end ram","SYSLOG_PID":"23115","__REALTIME_TIMESTAMP":"1795408207397534"}\n', "journald"),
        (b'{"__REALTIME_TIMESTAMP": "1795408207397534", "SYSLOG_PID": "7", "MESSAGE": "savevm_section_end ram"}\n', "journald"),
        (b"23115@1795408207397509000 savevm_section_end ram, section_id 1 -> 0\n", "stap"),
    ],
)  # fmt: skip
def test_a_trace_of_another_backend_is_told_by_its_first_bytes(head: bytes, format_: str) -> None:
    assert word(head) == format_


def test_what_could_be_two_formats_is_refused_with_both() -> None:
    log = b"7@1795407950.000001:" + STATE + b"\n"
    syslog = b"Nov 23 04:30:07 vm qemu-system-x86_64[23115]: savevm_section_end ram, section_id 1 -> 0\n"
    with pytest.raises(FormatError, match=r"could be in several formats: log .*; syslog .*--format") as caught:
        word(log + syslog)
    assert (caught.value.path, caught.value.offset) == ("in.log", 0)


@pytest.mark.parametrize(
    ("line", "format_"),
    [
        (b"<30>1 2026-11-23T04:30:07.397547+00:00 vm qemu-system-x86_64 23115 - -  savevm_section_end ram\n", "syslog"),
        (b"23115@1795408207397509000 savevm_section_end ram, section_id 1 -> 0\n", "stap"),
        (b"           <...>-23166   [000] ...1.  2503.940575: tracing_mark_write: savevm_section_end ram\n", "ftrace"),
        (b"[04:30:07.397507948] (+0.001254499) vm qemu:savevm_section_end: { cpu_id = 0 }, { ret = 0 }\n", "ust"),
        (b'{"MESSAGE":"savevm_section_end ram","SYSLOG_PID":"23115"}\n', "journald"),
    ],
)
def test_a_log_with_lines_of_any_other_format_is_refused(line: bytes, format_: str) -> None:
    with pytest.raises(FormatError, match=rf"could be in several formats: log .*; {format_} .*--format"):
        word(b"2026-11-23T04:30:01.5Z " + STATE + b"\n" + line)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(FormatError, match="is no text and no trace that is known"):
        word(b"\x7fELF\x02\x01\x01" + bytes(range(32)) * 20)


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ({"component": "virt-launcher", "msg": "{}", "subcomponent": "qemu"}, ".msg"),
        ({"_index": "logs", "_source": {"message": "{}", "host": "hv-1"}}, "._source.message"),
        ({"labels": {"app": "vm"}, "line-text": "{}"}, '."line-text"'),
    ],
    ids=["virt-launcher", "search engine", "odd name"],
)
def test_a_log_in_json_objects_is_refused_with_how_to_unwrap_it(line: dict[str, Any], where: str) -> None:
    event = "7@1795407950.000001:" + STATE.decode()
    head = '{"msg": "starting"}\nno JSON\n' + json.dumps(line).replace("{}", event) + "\n"
    with pytest.raises(FormatError) as error:
        word(head.encode())
    assert f"the first event under '{where}': '{event}'" in str(error.value)
    assert f"jq -Rr 'fromjson? | {where} // empty' FILE >trace.log" in str(error.value)


def test_objects_without_an_event_are_no_reason_to_refuse() -> None:
    """QEMU's own messages may be JSON, QMP's for example."""
    assert word(b'{"msg": "starting"}\n{"timestamp": 1\n7@1795407950.000001:' + STATE + b"\n") == "log"
    assert word(b"[" * 100_000 + b"\n{" + b'{"a":' * 60_000) == "log"


def test_holes_alone_are_no_reason_to_refuse() -> None:
    assert word(b"\0" * 65536) == "log"


def test_every_real_log_is_a_log(recordings: Path) -> None:
    paths = sorted(recordings.glob("*/*/*.log*"))
    assert paths
    for path in paths:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        assert word(content[:65536]) == "log"
        unstamped = "nots" in str(path)
        expected = None if unstamped else "iso" if "qemu-10" in str(path) else "number"
        assert look(content[:65536]).stamp == expected, path


def test_every_real_trace_is_told(shared_recordings: Path) -> None:
    patterns = {
        "simple": "qemu-*-simple/*/*.simple*", "ftrace": "qemu-*-ftrace/*/*.txt", "ust": "qemu-*-ust/*/babeltrace2*.txt",
        "syslog": "qemu-*-syslog/*/*.log", "journald": "qemu-*-syslog/*/journal.jsonl*",
    }  # fmt: skip
    for format_, pattern in patterns.items():
        paths = [path for path in shared_recordings.glob(pattern) if "simpletrace" not in path.name]
        assert paths, pattern
        for path in paths:
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            assert word(content[:65536]) == format_, path


def test_every_format_is_a_word_of_the_command_line() -> None:
    option = next(p for p in convert_command.params if p.name == "format_")
    assert isinstance(option.type, click.Choice)
    assert list(option.type.choices) == ["auto", *FORMATS]
