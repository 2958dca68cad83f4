"""Entries of the journal as JSON lines and in the export format."""

from __future__ import annotations

import json
from typing import Any

import pytest

from otelbridge.readers.journald import journald_reader, looks_like
from otelbridge.readers.lines import MAX_LINE_BYTES
from tests.readers.traces import ALL_ROWS, Read, Reader, is_event, no_sums, read

ENTRY: dict[str, Any] = {
    "_PID": "7",
    "SYSLOG_IDENTIFIER": "qemu-system-x86_64",
    "__REALTIME_TIMESTAMP": "1795408206843289",
    "_SOURCE_REALTIME_TIMESTAMP": "1795408206843228",
    "MESSAGE": "savevm_section_end ram, section_id 1 -> 0",
    "SYSLOG_PID": "23115",
}
RAW = b"ram, section_id 1 -> 0"


def reader() -> Reader:
    return journald_reader(ALL_ROWS, is_event, no_sums)


def as_json(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def as_export(entry: dict[str, Any]) -> bytes:
    out = b"__CURSOR=s=acdbf12ab37149ab988cf33bad6bb098;i=c2ee4\n"
    for name, value in entry.items():
        if isinstance(value, list):
            out += name.encode() + b"\n" + len(value).to_bytes(8, "little") + bytes(value) + b"\n"
        elif value is not None:
            out += f"{name}={value}\n".encode()
    return out + b"\n"


def entry(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in {**ENTRY, **fields}.items() if value != "absent"}


@pytest.mark.parametrize("write", [as_json, as_export])
@pytest.mark.parametrize(
    ("fields", "time_ns", "process", "raw"),
    [
        ({}, 1795408206843228000, 23115, RAW),
        ({"_SOURCE_REALTIME_TIMESTAMP": "absent"}, 1795408206843289000, 23115, RAW),
        ({"SYSLOG_PID": "absent"}, 1795408206843228000, 7, RAW),
        ({"SYSLOG_PID": "absent", "_PID": "absent"}, 1795408206843228000, None, RAW),
        ({"SYSLOG_PID": "not a number"}, 1795408206843228000, 7, RAW),
        ({"MESSAGE": "savevm_section_end"}, 1795408206843228000, 23115, b""),
        ({"MESSAGE": list(b"savevm_section_end a\nb\xff")}, 1795408206843228000, 23115, b"a\nb\xff"),
        ({"_CMDLINE": 'qemu "MESSAGE":"no" {', "A": "x\\"}, 1795408206843228000, 23115, RAW),
        ({"MESSAGE": 'savevm_section_end "é" \\'}, 1795408206843228000, 23115, '"é" \\'.encode()),
    ],
)
def test_an_event_is_read(write: Any, fields: dict[str, Any], time_ns: int, process: int | None, raw: bytes) -> None:
    data = write(entry(**fields))
    found = read(reader(), data * 2)
    assert [(r.time_ns, r.thread, r.process, r.event, r.raw) for r in found.rows] == [
        (time_ns, None, process, "savevm_section_end", raw)
    ] * 2
    assert (found.units, found.total) == ({}, 2)
    assert looks_like(data)


@pytest.mark.parametrize("write", [as_json, as_export])
@pytest.mark.parametrize(
    ("fields", "units"),
    [
        ({"MESSAGE": "Accepted publickey"}, {"not_trace": 1}),
        ({"MESSAGE": "absent"}, {"not_trace": 1}),
        ({"MESSAGE": []}, {"not_trace": 1}),
        ({"_SOURCE_REALTIME_TIMESTAMP": "x", "__REALTIME_TIMESTAMP": "9" * 40}, {"not_trace": 1}),
        ({"MESSAGE": "Suppressed 512 messages from machine-qemu.scope"}, {"not_trace": 1, "dropped_by_qemu": 512}),
    ],
)
def test_what_is_no_event_is_counted(write: Any, fields: dict[str, Any], units: dict[str, int]) -> None:
    if write is as_json and fields.get("MESSAGE") == []:
        units = {"malformed": 1}
    found = read(reader(), write(entry(**fields)))
    assert (found.rows, found.units, found.total) == ([], units, 1)


def test_a_message_that_journalctl_left_out_is_a_loss_with_its_repair() -> None:
    found = read(reader(), as_json(entry(MESSAGE=None)))
    assert found.units == {"malformed": 1}
    assert found.gaps == ["1 messages were left out by journalctl because they are long; run it with --all"]
    assert read(reader(), as_json(entry(MESSAGE=None, SYSLOG_IDENTIFIER="sshd"))).units == {"not_trace": 1}


@pytest.mark.parametrize(
    ("line", "bucket"),
    [
        (as_json(ENTRY)[:100] + b"\n", "torn"),
        (b"[" * 100_000 + b"\n", "not_trace"),
        (b'{"MESSAGE":' + b"[" * 100_000 + b"\n", "torn"),
        (b'{"MESSAGE":[256,-1,true]}\n', "not_trace"),
        (b'{"MESSAGE":{"a":1}}\n', "not_trace"),
        (b'"MESSAGE"\n', "not_trace"),
        (b"-- No entries --\n", "not_trace"),
        (b"\n", "not_trace"),
    ],
)
def test_lines_that_are_no_entry_are_counted(line: bytes, bucket: str) -> None:
    found = read(reader(), as_json(ENTRY) + line + as_json(ENTRY))
    assert len(found.rows) == 2
    assert found.units == {bucket: 1}


@pytest.mark.parametrize("size", range(1, len(as_export(ENTRY)) - 1, 7))
def test_an_export_that_is_cut_loses_its_last_entry_only(size: int) -> None:
    found = read(reader(), as_export(ENTRY) + as_export(ENTRY)[:size])
    assert found.rows[0].raw == RAW
    assert found.total == found.accounted == 2


def test_a_binary_field_may_be_of_any_size_and_hold_anything() -> None:
    big = entry(COREDUMP=[10] * (2 * MAX_LINE_BYTES), MESSAGE=list(b"savevm_state_setup \n\nMESSAGE=no"))
    data = as_export(big) + as_export(ENTRY)
    found = read(reader(), data)
    assert [row.raw for row in found.rows] == [b"\n\nMESSAGE=no", RAW]
    assert found.units == {}
    pieces = (data[i : i + 65_521] for i in range(0, len(data), 65_521))
    assert read(reader(), data, pieces) == found


def test_an_export_with_a_damaged_field_is_torn() -> None:
    data = as_export(ENTRY).replace(b"_PID=7", b"_P\x01ID7")
    assert read(reader(), data + as_export(ENTRY)).units == {"torn": 1}


def test_an_export_is_read_the_same_byte_by_byte() -> None:
    data = as_export(entry(MESSAGE=list(b"savevm_section_end a\nb"))) + as_export(ENTRY) + b"\n"
    whole: Read = read(reader(), data)
    assert read(reader(), data, (data[i : i + 1] for i in range(len(data)))) == whole
    assert len(whole.rows) == 2
