"""One short migration as each backend writes it, and the one set of spans that all of them give.

`OTELBRIDGE_REGENERATE=1 pytest tests/golden` writes precopy/*.trace and precopy/expected.jsonl anew.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from otelbridge.catalogue import builtin
from otelbridge.readers import FORMATS
from tests.convert.command import call
from tests.readers.simple_files import Writer

FOLDER = Path(__file__).parent / "precopy"
EXPECTED = FOLDER / "expected.jsonl"
REGENERATE = bool(os.environ.get("OTELBRIDGE_REGENERATE"))
HINT = "OTELBRIDGE_REGENERATE=1 pytest tests/golden writes these files anew; then look at what changed"
VERSION = "10.2.0"
START_US = 1_795_408_207_000_000
BOOT_US = 1_795_408_000_000_000
PROCESS = 4711

Value = int | str


class Happened(NamedTuple):
    """An event, so many microseconds after the start."""

    after_us: int
    event: str
    values: tuple[Value, ...] = ()

    @property
    def time_us(self) -> int:
        return START_US + self.after_us


SCENARIO = (
    Happened(0, "migrate_set_state", ("setup",)),
    Happened(120, "savevm_state_header"),
    Happened(150, "savevm_state_setup"),
    Happened(200, "migration_bitmap_sync_start"),
    Happened(1_700, "migration_bitmap_sync_end", (512,)),
    Happened(2_000, "migrate_set_state", ("active",)),
    Happened(2_100, "savevm_section_start", ("ram", 2)),
    Happened(2_200, "ram_save_page", ("pc.ram", 0x1000, 0x7FEC8C401000)),
    Happened(2_300, "ram_save_page", ("pc.ram", 0x2000, 0x7FEC8C402000)),
    Happened(2_400, "ram_save_page", ("pc.ram", 0x3000, 0x7FEC8C403000)),
    Happened(52_100, "savevm_section_end", ("ram", 2, 0)),
    Happened(60_000, "migration_rate_limit_pre", (40,)),
    Happened(100_007, "migration_rate_limit_post", (0,)),
    Happened(101_000, "savevm_section_start", ("ram", 2)),
    Happened(131_001, "savevm_section_end", ("ram", 2, 1)),
    Happened(140_000, "migration_thread_low_pending", (4096,)),
    Happened(140_050, "migration_completion_vm_stop", (0,)),
    Happened(140_200, "migrate_set_state", ("device",)),
    Happened(140_300, "savevm_section_start", ("ram", 2)),
    Happened(142_300, "savevm_section_end", ("ram", 2, 0)),
    Happened(142_400, "savevm_section_start", ("0000:00:02.0/virtio-net", 9)),
    Happened(142_444, "savevm_section_end", ("0000:00:02.0/virtio-net", 9, 0)),
    Happened(143_000, "savevm_section_skip", ("serial", 11)),
    Happened(150_000, "migrate_set_state", ("completed",)),
    Happened(150_500, "migration_thread_after_loop"),
)


# --- as each backend writes it ------------------------------------------------------------------------


def declared(event: str) -> Any:
    (spec,) = [s for s in builtin().variants(event) if s.last is None or s.last.startswith("11")]
    return spec


def text(one: Happened) -> str:
    """The event as QEMU's printf writes it."""
    printf = re.sub(r"%l+", "%", declared(one.event).format).replace("%p", "%#x").replace("%u", "%d")
    return f"{one.event} {printf % one.values}"


def moment(one: Happened) -> datetime:
    return datetime.fromtimestamp(one.time_us // 1_000_000, UTC).replace(microsecond=one.time_us % 1_000_000)


def log(one: Happened) -> str:
    return f"{PROCESS}@{one.time_us // 1_000_000}.{one.time_us % 1_000_000:06}:{text(one)}"


def ftrace(one: Happened) -> str:
    seconds, microseconds = divmod(one.time_us - BOOT_US, 1_000_000)
    return f"           <...>-{PROCESS}    [000] ...1.  {seconds}.{microseconds:06}: tracing_mark_write: {text(one)}"


def syslog(one: Happened) -> str:
    return f"<30>1 {moment(one):%Y-%m-%dT%H:%M:%S.%fZ} vm qemu-system-x86_64 {PROCESS} - - {text(one)}"


def journald(one: Happened) -> str:
    fields = {"__REALTIME_TIMESTAMP": str(one.time_us), "_PID": str(PROCESS), "SYSLOG_PID": str(PROCESS), "MESSAGE": text(one)}
    return json.dumps({**fields, "SYSLOG_IDENTIFIER": "qemu-system-x86_64", "_HOSTNAME": "vm"})


def ust(one: Happened) -> str:
    names = [argument.name for argument in declared(one.event).arguments]
    values = [json.dumps(value) if isinstance(value, str) else str(value) for value in one.values]
    fields = ", ".join(f"{name} = {value}" for name, value in zip(names, values, strict=True))
    payload = f", {{ {fields} }}" if fields else ", { }"
    who = f"{{ cpu_id = 0 }}, {{ vpid = {PROCESS}, vtid = {PROCESS} }}"
    return f"[{moment(one):%Y-%m-%d %H:%M:%S.%f}000] (+0.000000001) vm qemu:{one.event}: {who}{payload}"


def stap(one: Happened) -> str:
    return f"{PROCESS}/{PROCESS}@{one.time_us}000 {text(one)}"


def simple() -> bytes:
    """QEMU writes the names first that it has then, and stamps by the clock that counts from the host's boot."""
    writer = Writer("little")
    numbers = {event: number for number, event in enumerate(sorted({one.event for one in SCENARIO}))}
    names = b"".join(writer.name(number, event.encode()) for event, number in numbers.items())
    events = b"".join(
        writer.event(
            numbers[one.event],
            (one.time_us - BOOT_US) * 1000,
            [value.encode() if isinstance(value, str) else value for value in one.values],
            PROCESS,
        )
        for one in SCENARIO
    )
    return writer.header() + names + events


LINES = {"log": log, "ftrace": ftrace, "syslog": syslog, "journald": journald, "ust": ust, "stap": stap}


def trace(word: str) -> bytes:
    return simple() if word == "simple" else "".join(f"{LINES[word](one)}\n" for one in SCENARIO).encode()


# --- what comes of it -----------------------------------------------------------------------------------

# What a format does not have: thread ids (QEMU's log of that version has them, syslog has none); and what only some need.
NOT_COMMON = re.compile(r"otelbridge\.clock|otelbridge\.pairing|thread\.")


def spans(out: Path) -> list[dict[str, Any]]:
    requests = [json.loads(line) for line in (out / "traces.jsonl").read_text().splitlines()]
    return [s for r in requests for resource in r["resourceSpans"] for scope in resource["scopeSpans"] for s in scope["spans"]]


def common(out: Path) -> list[dict[str, Any]]:
    """What is the same in all formats, with times as microseconds after the start and parents by name."""
    found = spans(out)
    names = {span["spanId"]: span["name"] for span in found}
    return sorted(
        (
            {
                "name": span["name"],
                "parent": names.get(span.get("parentSpanId", ""), ""),
                "begin_us": after_us(span["startTimeUnixNano"]),
                "end_us": after_us(span["endTimeUnixNano"]),
                "status": span.get("status", {}).get("code", 0),
                "attributes": {
                    a["key"]: next(iter(a["value"].values())) for a in span["attributes"] if not NOT_COMMON.match(a["key"])
                },
                "events": [[event["name"], after_us(event["timeUnixNano"])] for event in span.get("events", ())],
            }
            for span in found
        ),
        key=lambda span: (span["begin_us"], -span["end_us"], span["name"]),
    )


def after_us(time_ns: str) -> int:
    microseconds, rest = divmod(int(time_ns), 1000)
    assert rest == 0
    return microseconds - START_US


def converted(word: str, folder: Path) -> list[dict[str, Any]]:
    """The spans of a format's trace, and last what it counted."""
    arguments = ["convert", "--format", word, "--qemu-version", VERSION, "--clock-offset", str(BOOT_US * 1000)]
    if word not in {"simple", "ftrace"}:
        arguments = arguments[:-2]
    accounting = folder / "accounting.json"
    done = call(*arguments, FOLDER / f"{word}.trace", "--to", f"file:{folder / 'out'}", "--accounting", accounting)
    assert done.code == 0, done.err
    account = json.loads(accounting.read_text())
    return [*common(folder / "out"), {"events": account["events"], "spans": account["spans"], "loss": account["loss"]}]


def lines(path: Path) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in path.read_text().splitlines())


@pytest.mark.parametrize("word", list(FORMATS))
def test_a_format_gives_the_spans_that_all_give(word: str, tmp_path: Path) -> None:
    if REGENERATE:
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / f"{word}.trace").write_bytes(trace(word))
    assert (FOLDER / f"{word}.trace").read_bytes() == trace(word), HINT
    found = converted(word, tmp_path)
    if REGENERATE and word == "log":
        EXPECTED.write_text("".join(json.dumps(one) + "\n" for one in found))
    assert found == list(lines(EXPECTED)), HINT


# --- the expectation against the scenario ------------------------------------------------------------------


def test_every_expected_span_lies_between_the_events_it_names() -> None:
    at = {(one.event, one.after_us) for one in SCENARIO}
    *expected, _ = lines(EXPECTED)
    for span in expected:
        attributes = span["attributes"]
        assert (attributes["qemu.event.begin"], span["begin_us"]) in at
        assert (attributes["qemu.event.end"], span["end_us"]) in at
        assert all(event in at for event in map(tuple, span["events"]))


def test_the_expected_sections_syncs_and_waits_are_those_of_the_scenario() -> None:
    *expected, counted = lines(EXPECTED)
    begins: dict[tuple[Value, ...], int] = {}
    sections = []
    for one in SCENARIO:
        if one.event == "savevm_section_start":
            begins[one.values] = one.after_us
        elif one.event == "savevm_section_end":
            sections.append((begins.pop(one.values[:2]), one.after_us, one.values[0], one.values[2]))
    found = [span for span in expected if span["name"] == "savevm.section"]
    assert [(s["begin_us"], s["end_us"]) for s in found] == [section[:2] for section in sections]
    assert [s["attributes"]["qemu.migration.section"] for s in found] == [section[2] for section in sections]
    spans_of = {name: [(s["begin_us"], s["end_us"]) for s in expected if s["name"] == name] for name in NAMED}
    assert spans_of == NAMED
    assert counted["events"] == Counter(one.event for one in SCENARIO)
    assert counted["spans"]["delivered"] == len(expected)
    assert counted["spans"]["incomplete"] == 0
    assert counted["loss"] == []


NAMED = {
    "migration": [(0, 150_000)],
    "migration.setup": [(0, 2_000)],
    "migration.active": [(2_000, 140_200)],
    "migration.device": [(140_200, 150_000)],
    "migration.downtime": [(140_050, 150_000)],
    "ram.bitmap_sync": [(200, 1_700)],
    "migration.rate_limit": [(60_000, 100_007)],
}
"""Read off the scenario by hand: which events these lie between is what the contract says."""


# --- two at once --------------------------------------------------------------------------------------------


def test_dropped_events_make_the_open_spans_of_every_process_doubtful(tmp_path: Path) -> None:
    lines_ = [line for line in trace("ust").decode().splitlines() if "ram_save_page" not in line]
    both = [text_ for line in lines_ for text_ in (line, line.replace(str(PROCESS), str(PROCESS + 1)))]
    middle = next(place for place, line in enumerate(both) if "migration_rate_limit_pre" in line)
    both.insert(middle, "[warning] Tracer discarded 3 events")
    (tmp_path / "trace").write_text("".join(f"{line}\n" for line in both))
    accounting = tmp_path / "accounting.json"
    done = call("convert", "--format", "ust", tmp_path / "trace", "--to", f"file:{tmp_path}", "--accounting", accounting)
    assert done.code == 7, done.err
    doubtful = Counter(
        span["name"] for span in spans(tmp_path) if any(a["key"] == "otelbridge.doubtful" for a in span["attributes"])
    )
    assert doubtful == {"migration": 2, "migration.active": 2, "savevm": 2}
    assert json.loads(accounting.read_text())["inputs"][0]["buckets"]["dropped_by_qemu"] == 3
