"""One short migration as each backend of QEMU 10.2 writes it, and the one set of spans that all of them give.

Both come from the scenario: the traces by a few lines for each format, the spans from a table that says which event begins
and which one ends each. `OTELBRIDGE_REGENERATE=1 pytest tests/golden` writes precopy/*.trace and precopy/expected.jsonl anew.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from otelbridge.catalogue import builtin
from otelbridge.readers import FORMATS
from otelbridge.records import EventSpec
from tests.convert.command import call
from tests.readers.simple_files import Writer

FOLDER = Path(__file__).parent / "precopy"
EXPECTED = FOLDER / "expected.jsonl"
REGENERATE = bool(os.environ.get("OTELBRIDGE_REGENERATE"))
HINT = "OTELBRIDGE_REGENERATE=1 pytest tests/golden writes these files anew; then look at what changed"
VERSION = "10.2.0"
START_US = 1_795_408_207_000_000
BOOT_US = 1_795_408_000_000_000
PROCESS, THREAD = 4711, 4730

Value = int | str


class Happened(NamedTuple):
    """An event, so many microseconds after the start."""

    after_us: int
    event: str
    values: tuple[Value, ...] = ()

    @property
    def time_us(self) -> int:
        return START_US + self.after_us

    @property
    def time_ns(self) -> int:
        return self.time_us * 1000


NIC = "0000:00:03.0/virtio-net"
# In the order of a recorded migration of 10.2.
SCENARIO = (
    Happened(0, "migrate_set_state", ("setup",)),
    Happened(120, "savevm_state_header"),
    Happened(150, "savevm_state_setup"),
    Happened(200, "migration_bitmap_sync_start"),
    Happened(1_700, "migration_bitmap_sync_end", (512,)),
    Happened(2_000, "migrate_set_state", ("active",)),
    Happened(2_030, "migration_thread_setup_complete"),
    Happened(2_100, "savevm_section_start", ("ram", 2)),
    Happened(2_200, "ram_save_page", ("pc.ram", 0x1000, 0x7FEC8C401000)),
    Happened(2_300, "ram_save_page", ("pc.ram", 0xA000, 0x7FEC8C40A000)),
    Happened(2_400, "ram_save_page", ("pc.ram", 0x3000, 0x7FEC8C403000)),
    Happened(52_100, "savevm_section_end", ("ram", 2, 0)),
    Happened(60_000, "migration_rate_limit_pre", (40,)),
    Happened(100_007, "migration_rate_limit_post", (0,)),
    Happened(101_000, "savevm_section_start", ("ram", 2)),
    Happened(131_001, "savevm_section_end", ("ram", 2, 1)),
    Happened(135_000, "migration_bitmap_sync_start"),
    Happened(135_999, "migration_bitmap_sync_end", (64,)),
    Happened(140_000, "migration_thread_low_pending", (4096,)),
    Happened(140_016, "vmstate_downtime_checkpoint", ("src-downtime-start",)),
    Happened(140_440, "vmstate_downtime_checkpoint", ("src-vm-stopped",)),
    Happened(140_455, "migration_completion_vm_stop", (0,)),
    Happened(140_464, "migrate_set_state", ("device",)),
    Happened(140_500, "savevm_section_start", ("ram", 2)),
    Happened(142_300, "savevm_section_end", ("ram", 2, 0)),
    Happened(142_400, "savevm_section_start", (NIC, 9)),
    Happened(142_444, "savevm_section_end", (NIC, 9, 0)),
    Happened(143_000, "savevm_section_skip", ("serial", 11)),
    Happened(149_800, "vmstate_downtime_checkpoint", ("src-downtime-end",)),
    Happened(150_000, "migrate_set_state", ("completed",)),
    Happened(150_500, "migration_thread_after_loop"),
)


def at(event: str, *values: Value, nth: int = 0) -> Happened:
    """The event of the scenario whose first arguments are these."""
    return [one for one in SCENARIO if one.event == event and one.values[: len(values)] == values][nth]


# --- as each backend writes it ------------------------------------------------------------------------


def declared(event: str) -> EventSpec:
    """As in 10.2: none of these was declared anew since."""
    return builtin().variants(event)[0]


def text(one: Happened) -> str:
    """The event as QEMU's printf writes it."""
    return f"{one.event} {declared(one.event).format.replace('%p', '%#x') % one.values}"


def stamp(one: Happened) -> str:
    return datetime.fromtimestamp(one.time_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def log(one: Happened) -> str:
    """GLib leaves a fraction out that is 0."""
    microseconds = one.time_us % 1_000_000
    return f"{stamp(one)}.{microseconds:06}Z {text(one)}" if microseconds else f"{stamp(one)}Z {text(one)}"


def ftrace(one: Happened) -> str:
    seconds, microseconds = divmod(one.time_us - BOOT_US, 1_000_000)
    return f"           <...>-{THREAD}    [000] ...1.  {seconds}.{microseconds:06}: tracing_mark_write: {text(one)}"


def syslog(one: Happened) -> str:
    """As rsyslog writes RFC 5424: two blanks before the message."""
    return f"<30>1 {stamp(one)}.{one.time_us % 1_000_000:06}+00:00 vm qemu-system-x86_64 {PROCESS} - -  {text(one)}"


def journald(one: Happened) -> str:
    """The journal takes blanks off the end, and receives a little later than QEMU sends."""
    times = {"_SOURCE_REALTIME_TIMESTAMP": str(one.time_us), "__REALTIME_TIMESTAMP": str(one.time_us + 7)}
    who = {"_PID": str(PROCESS), "SYSLOG_PID": str(PROCESS), "SYSLOG_IDENTIFIER": "qemu-system-x86_64", "_HOSTNAME": "vm"}
    return json.dumps({**times, **who, "MESSAGE": text(one).rstrip()}, separators=(",", ":"))


def ust(one: Happened) -> str:
    """Fields have the base of the format's conversions, and hexadecimal digits are capitals."""
    spec = declared(one.event)
    conversions = re.findall(r"%l*([a-z])", spec.format)
    values = [f"0x{v:X}" if base in "xp" else json.dumps(v) for v, base in zip(one.values, conversions, strict=True)]
    fields = ", ".join(f"{argument.name} = {value}" for argument, value in zip(spec.arguments, values, strict=True))
    who = f'{{ cpu_id = 0 }}, {{ vpid = {PROCESS}, vtid = {THREAD}, procname = "qemu-system-x86" }}'
    when = f"[{stamp(one).replace('T', ' ')}.{one.time_ns % 1_000_000_000:09}] (+0.000001000)"
    return f"{when} vm qemu:{one.event}: {who}, {{ {fields} }}" if fields else f"{when} vm qemu:{one.event}: {who}, {{ }}"


def stap(one: Happened) -> str:
    return f"{PROCESS}@{one.time_ns} {text(one)}"


def simple() -> bytes:
    """Names come first; times count from the host's boot."""
    writer = Writer("little")
    numbers = {event: number for number, event in enumerate(sorted({one.event for one in SCENARIO}))}
    names = [writer.name(number, event.encode()) for event, number in numbers.items()]
    events = [
        writer.event(numbers[one.event], one.time_ns - BOOT_US * 1000, list(map(as_stored, one.values)), PROCESS)
        for one in SCENARIO
    ]
    return b"".join((writer.header(), *names, *events))


def as_stored(value: Value) -> int | bytes:
    return value.encode() if isinstance(value, str) else value


LINES = {"log": log, "ftrace": ftrace, "syslog": syslog, "journald": journald, "ust": ust, "stap": stap}


def trace(word: str) -> bytes:
    return simple() if word == "simple" else "".join(f"{LINES[word](one)}\n" for one in SCENARIO).encode()


# --- what must come of it -------------------------------------------------------------------------------

INTERNAL, CLIENT = 1, 3


class Expected(NamedTuple):
    """A span by the contract: from which event of the scenario to which, and what it says."""

    name: str
    begin: Happened
    end: Happened
    attributes: Mapping[str, Value] = {}
    events: tuple[Happened, ...] = ()
    parent: str = "migration"
    kind: int = INTERNAL


SETUP, ACTIVE, DEVICE, COMPLETED = (at("migrate_set_state", state) for state in ("setup", "active", "device", "completed"))


def section(name: str, number: int, result: int, nth: int = 0) -> Expected:
    return Expected(
        "savevm.section",
        at("savevm_section_start", name, number, nth=nth),
        at("savevm_section_end", name, number, nth=nth),
        {
            "qemu.migration.section": name,
            "qemu.migration.section.id": number,
            "qemu.migration.section.result": result,
        },
    )


def bitmap_sync(number: int, dirty_pages: int) -> Expected:
    return Expected(
        "ram.bitmap_sync",
        at("migration_bitmap_sync_start", nth=number - 1),
        at("migration_bitmap_sync_end", nth=number - 1),
        {"qemu.migration.pass": number, "qemu.migration.dirty_pages": dirty_pages},
    )


SPANS = (
    Expected(
        "migration",
        SETUP,
        COMPLETED,
        {
            "qemu.migration.role": "source",
            "qemu.migration.state": "completed",
            "qemu.migration.mode": "precopy",
            "qemu.version": VERSION,
        },
        (at("migration_thread_setup_complete"), at("migration_thread_low_pending")),
        parent="",
        kind=CLIENT,
    ),
    Expected("migration.setup", SETUP, ACTIVE, {"qemu.migration.state": "setup"}),
    Expected("migration.active", ACTIVE, DEVICE, {"qemu.migration.state": "active"}),
    Expected("migration.device", DEVICE, COMPLETED, {"qemu.migration.state": "device"}),
    Expected(
        "migration.downtime",
        at("vmstate_downtime_checkpoint", "src-downtime-start"),
        at("vmstate_downtime_checkpoint", "src-downtime-end"),
        {"qemu.migration.downtime.basis": "vmstate_downtime_checkpoint"},
        (at("vmstate_downtime_checkpoint", "src-downtime-start"), at("vmstate_downtime_checkpoint", "src-vm-stopped")),
    ),
    Expected(
        "savevm",
        at("savevm_state_header"),
        COMPLETED,
        {"qemu.migration.state": "completed"},
        (at("savevm_state_setup"), at("savevm_section_skip")),
    ),
    bitmap_sync(1, 512),
    bitmap_sync(2, 64),
    Expected(
        "migration.rate_limit",
        at("migration_rate_limit_pre"),
        at("migration_rate_limit_post"),
        {"qemu.migration.rate_limit.urgent": 0},
    ),
    section("ram", 2, 0),
    section("ram", 2, 1, nth=1),
    section("ram", 2, 0, nth=2),
    section(NIC, 9, 0),
)


def expected() -> list[dict[str, Any]]:
    """All spans, and last what is counted."""
    found = [
        {
            "name": span.name,
            "parent": span.parent,
            "kind": span.kind,
            "start_ns": span.begin.time_ns,
            "end_ns": span.end.time_ns,
            "status": 0,
            "attributes": {"qemu.event.begin": span.begin.event, "qemu.event.end": span.end.event, **span.attributes},
            "events": [[event.event, event.time_ns] for event in span.events],
        }
        for span in SPANS
    ]
    counts = {"events": dict(Counter(one.event for one in SCENARIO)), "spans": len(SPANS), "pages": 3, "loss": []}
    return [*sorted(found, key=by_time), counts]


def by_time(span: dict[str, Any]) -> tuple[int, int, str]:
    return span["start_ns"], -span["end_ns"], span["name"]


# --- what comes of it -----------------------------------------------------------------------------------

WITH_THREADS = {"ftrace", "ust"}
PAIRED_WITHOUT = {"savevm.section": "section_id", "ram.bitmap_sync": "order", "migration.rate_limit": "order"}
"""What `otelbridge.pairing` says where a format has no threads, which belong to the keys of these spans."""


def converted(word: str, folder: Path, format_: str) -> list[dict[str, Any]]:
    """The spans that come of a format's trace, and last what was counted."""
    clock = ["--clock-offset", str(BOOT_US * 1000)] if word in {"simple", "ftrace"} else []
    folder.mkdir(exist_ok=True)
    accounting = folder / "accounting.json"
    outputs = ["--to", f"file:{folder}", "--accounting", accounting]
    done = call("convert", FOLDER / f"{word}.trace", "--format", format_, "--qemu-version", VERSION, *clock, *outputs)
    assert done.code == 0, done.err
    account = json.loads(accounting.read_text())
    assert [one["format"] for one in account["inputs"]] == [word]
    assert account["spans"]["incomplete"] == 0
    counts = {"spans": account["spans"]["delivered"], "pages": pages(folder)}
    return [*sorted(spans(folder), key=by_time), {"events": account["events"], **counts, "loss": account["loss"]}]


def spans(folder: Path) -> list[dict[str, Any]]:
    """What is the same in all formats, with parents by name."""
    found = list(below(lines(folder / "traces.jsonl"), "resourceSpans", "scopeSpans", "spans"))
    names = {span["spanId"]: span["name"] for span in found}
    return [
        {
            "name": span["name"],
            "parent": names[span["parentSpanId"]] if span.get("parentSpanId") else "",
            "kind": span["kind"],
            "start_ns": int(span["startTimeUnixNano"]),
            "end_ns": int(span["endTimeUnixNano"]),
            "status": span.get("status", {}).get("code", 0),
            "attributes": {a["key"]: value(a["value"]) for a in span["attributes"]},
            "events": [[event["name"], int(event["timeUnixNano"])] for event in span.get("events", ())],
        }
        for span in found
    ]


def value(found: dict[str, Any]) -> Any:
    ((kind, content),) = found.items()
    return int(content) if kind == "intValue" else content


def pages(folder: Path) -> int:
    """How many pages were sent: the last point of the counter."""
    metrics = below(lines(folder / "metrics.jsonl"), "resourceMetrics", "scopeMetrics", "metrics")
    points = [point for metric in metrics if metric["name"] == "qemu.migration.pages" for point in metric["sum"]["dataPoints"]]
    return int(max(points, key=lambda point: int(point["timeUnixNano"]))["asInt"])


def below(nodes: Iterable[dict[str, Any]], *keys: str) -> Iterable[dict[str, Any]]:
    for key in keys:
        nodes = [child for node in nodes for child in node.get(key, ())]
    return nodes


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module", autouse=True)
def _regenerated() -> None:
    if REGENERATE:
        FOLDER.mkdir(exist_ok=True)
        EXPECTED.write_text("".join(json.dumps(one) + "\n" for one in expected()))
        for word in FORMATS:
            (FOLDER / f"{word}.trace").write_bytes(trace(word))


def test_the_expectation_is_that_of_the_scenario() -> None:
    assert lines(EXPECTED) == expected(), HINT


@pytest.mark.parametrize("word", FORMATS)
def test_a_trace_is_that_of_the_scenario(word: str) -> None:
    assert (FOLDER / f"{word}.trace").read_bytes() == trace(word), HINT


@pytest.mark.parametrize("word", FORMATS)
def test_a_format_gives_the_spans_that_all_give(word: str, tmp_path: Path) -> None:
    *found, counts = converted(word, tmp_path, word)
    paired = {span["name"]: span["attributes"].pop("otelbridge.pairing", None) for span in found}
    assert [*found, counts] == lines(EXPECTED)
    assert paired == dict.fromkeys(paired) | ({} if word in WITH_THREADS else PAIRED_WITHOUT)


@pytest.mark.parametrize("word", FORMATS)
def test_a_format_is_told_from_the_trace_itself(word: str, tmp_path: Path) -> None:
    assert converted(word, tmp_path / "told", "auto") == converted(word, tmp_path / "named", word)


# --- two at once ----------------------------------------------------------------------------------------


def test_dropped_events_make_the_open_spans_of_every_process_doubtful(tmp_path: Path) -> None:
    other = {str(PROCESS): str(PROCESS + 1), str(THREAD): str(THREAD + 1)}
    both = []
    for one in SCENARIO:
        if one == at("migration_rate_limit_pre"):
            both.append("[warning] Tracer discarded 3 events")
        both += [ust(one), re.sub(f"{PROCESS}|{THREAD}", lambda found: other[found[0]], ust(one))]
    (tmp_path / "trace").write_text("".join(f"{line}\n" for line in both))
    accounting = tmp_path / "accounting.json"
    done = call("convert", "--format", "ust", tmp_path / "trace", "--to", f"file:{tmp_path}", "--accounting", accounting)
    assert done.code == 7, done.err
    doubtful = Counter(span["name"] for span in spans(tmp_path) if "otelbridge.doubtful" in span["attributes"])
    assert doubtful == {"migration": 2, "migration.active": 2, "savevm": 2}
    assert json.loads(accounting.read_text())["inputs"][0]["buckets"]["dropped_by_qemu"] == 3
