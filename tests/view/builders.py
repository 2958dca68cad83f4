"""Spans as the engine makes them, built by hand: a migration over two hosts, and its accounting."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import pytest
from rich.console import Console

from otelbridge.records import (
    CLIENT,
    ERROR,
    INTERNAL,
    SECOND_NS,
    SERVER,
    UNSET,
    Attributes,
    FinishedSpan,
    Histogram,
    Metric,
    MetricPoint,
    Resource,
    Scope,
    SpanEvent,
    Value,
)
from otelbridge.view.picture import Picture
from otelbridge.view.waterfall import draw

SCOPE = Scope("qemu.migration", "0.1.0")
BEGIN_NS = 1_772_334_000 * SECOND_NS  # 2026-03-01 03:00:00 UTC
HOUR_LATER_NS = BEGIN_NS + 3_600 * SECOND_NS
MS = 1_000_000


def trace_id(number: int = 1) -> bytes:
    return number.to_bytes(16, "big")


def span_id(*parts: object) -> bytes:
    return blake2b(repr(parts).encode(), digest_size=8).digest()


def resource(file: str) -> Resource:
    return Resource((("service.name", "qemu"), ("host.name", f"host-of-{file}"), ("log.file.name", file)))


SRC, DST = resource("src.log"), resource("dst.log")


def span(
    name: str,
    start_ms: float,
    end_ms: float,
    attributes: Mapping[str, Value] | None = None,
    *,
    trace: int = 1,
    parent: bytes = b"root",
    kind: int = INTERNAL,
    error: str | None = None,
    events: Sequence[SpanEvent] = (),
    base_ns: int = BEGIN_NS,
) -> FinishedSpan:
    """One span; the times are milliseconds after `base_ns`."""
    start_ns, end_ns = base_ns + int(start_ms * MS), base_ns + int(end_ms * MS)
    identity = span_id(name, start_ns, end_ns, attributes, trace, kind)
    status, message = (UNSET, "") if error is None else (ERROR, error)
    given: Attributes = tuple((attributes or {}).items())
    return FinishedSpan(
        trace_id(trace), identity, parent, SCOPE, name, kind, start_ns, end_ns, given, tuple(events), (), status, message
    )


def root(
    end_ms: float, role: str = "source", state: str = "completed", *, start_ms: float = 0, trace: int = 1, **more: Any
) -> FinishedSpan:
    attributes = {"qemu.migration.role": role, "qemu.migration.state": state, "qemu.migration.mode": "precopy"}
    attributes |= {"qemu.version": "6.1.0 - 7.2.0"} | more.pop("attributes", {})
    kind = {"source": CLIENT, "destination": SERVER}.get(role, INTERNAL)
    parent = span_id("root") if role == "destination" else b""
    return span("migration", start_ms, end_ms, attributes, trace=trace, parent=parent, kind=kind, **more)


def state(name: str, start_ms: float, end_ms: float, **more: Any) -> FinishedSpan:
    attributes = {"qemu.migration.state": name} | more.pop("attributes", {})
    return span(f"migration.{name}", start_ms, end_ms, attributes, **more)


def section(start_ms: float, end_ms: float, name: str, number: int = 2, **more: Any) -> FinishedSpan:
    attributes: dict[str, Value] = {"qemu.migration.section": name, "qemu.migration.section.id": number}
    return span(more.pop("kind_of", "savevm.section"), start_ms, end_ms, attributes, **more)


def source_spans() -> list[FinishedSpan]:
    """40 s, of which the guest stood still for 2.04 s, 1.61 s of them for the state of a GPU, in the order of their ends."""
    tls = {"qemu.migration.channel": "main", "server.address": "host-b"}
    found = [span("tls.handshake", 1, 46, tls, kind=CLIENT), state("setup", 0, 52)]
    for number in range(1, 21):
        begin_ms = number * 1_900 - 1_800
        attributes = {"qemu.migration.dirty_pages": 1_048_576 // number, "qemu.migration.pass": number}
        found.append(span("ram.bitmap_sync", begin_ms, begin_ms + 12, attributes))
        found.append(section(begin_ms + 12, begin_ms + 1_850, "ram"))
        found.append(span("return_path.ping", begin_ms, begin_ms + 2.5))
    found += [
        state("active", 52, 38_120),
        section(38_130, 38_440, "ram"),
        section(38_440, 40_050, "0000:00:03.0/vfio-gpu", 41),
        section(40_050, 40_054, "0000:00:04.0/virtio-net", 42),
        span("migration.rate_limit", 1_000, 1_100),
        state("device", 38_120, 40_160),
        span("migration.downtime", 38_120, 40_160, {"qemu.migration.downtime.basis": "migration_completion_vm_stop"}),
        span("multifd.send", 60, 38_400, {"qemu.migration.channel.id": 0, "qemu.migration.channel.packets": 1_200}),
        span("multifd.send", 61, 38_401, {"qemu.migration.channel.id": 1, "qemu.migration.channel.packets": 1_180}),
        span("return_path", 55, 40_161),
    ]
    events = [SpanEvent(BEGIN_NS + t * SECOND_NS, "migration_throttle") for t in (12, 13, 14)]
    return [*found, root(40_160, events=events)]


def destination_spans() -> list[FinishedSpan]:
    return [
        state("setup", 5, 60),
        span("vmstate.load", 40_051, 40_120, {"qemu.vmstate.name": "vfio-gpu", "qemu.vmstate.version": 1}),
        section(38_441, 40_121, "0000:00:03.0/vfio-gpu", 41, kind_of="loadvm.section"),
        span("loadvm", 55, 40_140),
        span("multifd.recv", 60, 40_150, {"qemu.migration.channel.id": 0, "otelbridge.incomplete": True}),
        state("active", 60, 40_150),
        root(40_150, "destination", start_ms=5),
    ]


def postcopy_spans() -> list[FinishedSpan]:
    attributes = {"qemu.migration.page.address": "0x7f0000001000", "qemu.migration.ram_block": "pc.ram"}
    faults = [span("postcopy.fault", 2_000 + n, 2_000 + n + n / 10, attributes) for n in range(1, 101)]
    return [*faults, span("postcopy.listen", 1_900, 5_000), root(5_000, attributes={"qemu.migration.mode": "postcopy"})]


def fault_points(count: int, seconds: float) -> list[MetricPoint]:
    metric = Metric("qemu.migration.postcopy.fault.duration", "histogram", "s", "Faults.", SCOPE)
    value = Histogram(count, seconds, 0.001, 0.1, 3, 0, 0, (count,))
    return [MetricPoint(metric, (), BEGIN_NS, BEGIN_NS + 5 * SECOND_NS, value)]


def transferred_points(total: int) -> list[MetricPoint]:
    metric = Metric("qemu.migration.transferred", "sum", "By", "Bytes sent.", SCOPE, monotonic=True)
    return [MetricPoint(metric, (), BEGIN_NS, BEGIN_NS + n * SECOND_NS, total * n // 4) for n in range(1, 5)]


def two_hosts() -> Picture:
    picture = Picture()
    picture.spans(SRC, source_spans())
    picture.points(SRC, transferred_points(13_000_000_000))
    picture.spans(DST, destination_spans())
    return picture


def picture_of(*spans: FinishedSpan, owner: Resource = SRC) -> Picture:
    picture = Picture()
    picture.spans(owner, spans)
    return picture


def accounting(**changes: Any) -> dict[str, Any]:
    """A document as `--accounting` writes it."""
    return {
        "version": 1,
        "inputs": [
            {"path": "src.log", "units": "lines", "total": 3_000},
            {"path": "dst.log", "units": "lines", "total": 1_812},
        ],
        "spans": {"finished": 82, "incomplete": 1, "delivered": 80, "spooled": 0, "rejected": 0, "not_kept": 2},
        "points": {"made": 41, "delivered": 41, "spooled": 0, "rejected": 0},
        "events": {"savevm_section_start": 207, "migrate_set_state": 8},
        "loss": [],
    } | changes


def shown(
    picture: Picture,
    *,
    width: int = 80,
    terminal: bool = False,
    notes: Sequence[str] = (),
    document: Mapping[str, Any] | None = None,
    file: io.StringIO | io.TextIOWrapper | None = None,
) -> str:
    """What is printed: plain in so many columns, or as to a terminal of that width."""
    target = file or io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
            patch.delenv(name, raising=False)
        patch.setenv("COLUMNS", str(width))
        patch.setenv("TERM", "xterm-256color")
        console = Console(file=target, force_terminal=terminal or None, width=width if terminal else None)
        draw(picture, document or accounting(), notes, console, now_ns=HOUR_LATER_NS)
    if isinstance(target, io.TextIOWrapper):
        target.flush()
        assert isinstance(target.buffer, io.BytesIO)
        return target.buffer.getvalue().decode(target.encoding)
    return target.getvalue()
