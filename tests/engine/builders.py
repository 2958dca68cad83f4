"""Streams for the engine, from lines of a log and rules in YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from hypothesis import strategies as st

from otelbridge.catalogue import Catalogue, TextDecoder, builtin
from otelbridge.engine import Accounting, Engine, Join, LinkIndex, Stream
from otelbridge.engine.clocks import ARGUMENTS, Listener
from otelbridge.engine.fits import Log, seen
from otelbridge.engine.fits import Seen as Migration
from otelbridge.engine.ids import stream_key
from otelbridge.engine.joins import Joined, join
from otelbridge.mapping import File, compile_mappings, shipped_files
from otelbridge.mapping import Mapping as Rules
from otelbridge.readers import LogReader
from otelbridge.records import Attributes, Batch, FinishedSpan, MetricPoint, Plan, Value

RECORDINGS = Path(__file__).resolve().parents[1] / "recordings"
MS = 1_000_000
S = 1_000_000_000
HEAD = "version: 1\nscope: test\n"


@lru_cache(maxsize=128)
def rules(text: str) -> Rules:
    """The rules of one mapping file without its head."""
    return compile_mappings([File("t.yaml", HEAD + text)], builtin())


@lru_cache(maxsize=1)
def shipped() -> Rules:
    """All shipped mappings."""
    return compile_mappings(shipped_files(), builtin())


def threadless(log: str) -> str:
    """The lines as QEMU 10.1 and newer write them: `1@10.5:x` becomes `1970-01-01T00:00:10.500000Z x`."""
    return re.sub(r"^ *\d+@(\d\d)\.(\d+):", r"1970-01-01T00:00:\1.\2Z ", log, flags=re.MULTILINE)


def text_of(log: str) -> bytes:
    """Lines of a log written with indentation, as bytes."""
    return b"".join(
        line.strip().encode() + b" \n" if " " not in line.strip() else line.strip().encode() + b"\n"
        for line in log.strip().splitlines()
    )


def batches(mapping: Rules, blocks: Iterable[bytes], catalogue: Catalogue | None = None) -> Iterator[Batch]:
    """What the log reader makes of the blocks."""
    catalogue = catalogue or builtin()
    sums = TextDecoder(catalogue, mapping.plan.sums)
    reader = LogReader(mapping.plan, catalogue.is_event, sums.decode)
    for block in blocks:
        yield from reader.feed(block)
    yield from reader.finish()


def pieces(data: bytes, size: int) -> list[bytes]:
    """The data cut into blocks."""
    return [data[i : i + size] for i in range(0, len(data), size)]


class Live:
    """An engine with its decoder, which can be stopped and taken up again from plain data."""

    def __init__(
        self,
        mapping: Rules,
        *,
        name: str = "stream",
        role: str | None = None,
        joins: Mapping[bytes, Join] | None = None,
        index: LinkIndex | None = None,
        catalogue: Catalogue | None = None,
    ) -> None:
        self.decoder = TextDecoder(catalogue or builtin(), mapping.plan.rows)
        self.engine = Engine(
            mapping,
            Stream(stream_key(name), role),
            self.decoder.decode,
            lambda: self.decoder.version_range,
            self.decoder.saw,
            joins,
            index,
        )
        self.spans: list[FinishedSpan] = []
        self.points: list[MetricPoint] = []

    def feed(self, batch: Batch) -> None:
        self.engine.feed(batch)
        self.take()

    def finish(self) -> None:
        self.engine.finish()
        self.take()

    def take(self) -> None:
        self.spans += self.engine.take_spans()
        self.points += self.engine.take_points()

    def saved(self) -> str:
        """Everything that is needed to go on, as JSON."""
        return json.dumps([self.engine.snapshot(), self.decoder.snapshot()])

    def load(self, saved: str) -> None:
        engine, decoder = json.loads(saved)
        self.decoder.restore(decoder)
        self.engine.restore(engine)


@dataclass
class Seen:
    """What came out of a whole stream."""

    spans: list[FinishedSpan]
    points: list[MetricPoint]
    accounting: Accounting
    open: int
    """Spans open after the last line, before the stream was ended."""
    index: LinkIndex = field(default_factory=LinkIndex)
    late: int = 0

    def named(self, name: str) -> list[FinishedSpan]:
        return [span for span in self.spans if span.name == name]

    def only(self, name: str) -> FinishedSpan:
        (span,) = self.named(name)
        return span

    def last(self, metric: str, **attributes: Value) -> MetricPoint:
        """The last point of a series; dots of attribute names are written as two underscores."""
        wanted = tuple((key.replace("__", "."), value) for key, value in attributes.items())
        return [p for p in self.points if p.metric.name == metric and p.attributes == wanted][-1]

    def buckets(self) -> dict[str, int]:
        """The buckets that are not empty."""
        return {name: number for name, number in self.accounting.buckets.items() if number}


def run(
    mapping: Rules | str,
    log: str | bytes,
    *,
    cut: int | None = None,
    name: str = "stream",
    role: str | None = None,
    joins: Mapping[bytes, Join] | None = None,
    catalogue: Catalogue | None = None,
) -> Seen:
    """A whole stream, fed in blocks of `cut` bytes, and ended."""
    compiled = rules(mapping) if isinstance(mapping, str) else mapping
    data = text_of(log) if isinstance(log, str) else log
    index = LinkIndex()
    live = Live(compiled, name=name, role=role, joins=joins, index=index, catalogue=catalogue)
    for batch in batches(compiled, pieces(data, cut) if cut else [data], catalogue):
        live.feed(batch)
    live.engine.settle()
    live.take()
    open_spans = live.engine.open
    live.finish()
    return Seen(live.spans, live.points, live.engine.accounting, open_spans, index, live.engine.late)


# --- several hosts --------------------------------------------------------------------------------------


def heard(log: str | bytes) -> Listener:
    """What of the messages between hosts stands in a log."""
    listener = Listener(TextDecoder(builtin(), ARGUMENTS).decode)
    for batch in batches(shipped()._replace(plan=Plan(ARGUMENTS)), [text_of(log) if isinstance(log, str) else log]):
        for row in batch.rows:
            listener.hear(row, 0)
    return listener


def joined_of(*logs: str | bytes, told: bool = False) -> Joined:
    """What belongs together in logs named host0, host1, …; `told` if the user said which side each is of."""
    found: list[Migration] = []
    for number, log in enumerate(logs):
        look = run(shipped(), log, name=f"host{number}")
        known = Log(f"host{number}", told=told, steady=not look.late)
        found += seen(number, known, look.spans, "migration", look.index, heard(log), 0)
    return join(found)


def hosts(*logs: str | bytes, told: bool = False) -> list[Seen]:
    """All streams, looked at once and then read with what that told, as `convert` does."""
    joined = joined_of(*logs, told=told)
    streams = [run(shipped(), log, name=f"host{n}", joins=joined.joins) for n, log in enumerate(logs)]
    for number, shifts in joined.shifts.items():
        streams[number].spans = shifts.spans(streams[number].spans)
        streams[number].points = shifts.points(streams[number].points)
    return streams


# --- any stream -----------------------------------------------------------------------------------------

_TEXTS = (
    *(f"migrate_set_state new state {s}" for s in (
        "setup", "active", "device", "postcopy-active", "postcopy-paused", "cancelling", "completed", "failed", "cancelled",
        "odd",
    )),
    "migration_set_outgoing_channel ioc=0x1 ioctype=qio-channel-socket hostname=b err=(nil)",
    "migration_set_incoming_channel ioc=0x1 ioctype=qio-channel-socket",
    "migration_tls_incoming_handshake_start ",
    "migration_tls_incoming_handshake_complete ",
    "migration_tls_outgoing_handshake_error err=no",
    "migrate_fd_error error=Broken pipe",
    "migrate_fd_cancel ",
    "migration_throttle ",
    "savevm_section_start ram, section_id 2",
    "savevm_section_start vfio, section_id 3",
    "savevm_section_end ram, section_id 2 -> 1",
    "savevm_section_end vfio, section_id 3 -> -5",
    "savevm_section_end vfio, section_id three",
    "migration_bitmap_sync_start ",
    "migration_bitmap_sync_end dirty_pages 77",
    "migration_thread_low_pending 4096",
    "migration_completion_vm_stop ret 0",
    "vmstate_downtime_checkpoint src-downtime-start",
    "vmstate_downtime_checkpoint src-vm-stopped",
    "vmstate_downtime_checkpoint src-downtime-end",
    "loadvm_state_setup ",
    "loadvm_state_cleanup ",
    "qemu_loadvm_state_section_startfull 2(ram) 0 4",
    "qemu_loadvm_state_section_partend 2",
    "vmstate_load_state cpu v1",
    "vmstate_load_state_end cpu end/0",
    "savevm_send_ping 0x1",
    "savevm_send_ping 0x2",
    "source_return_path_thread_pong 0x1",
    "source_return_path_thread_entry ",
    "source_return_path_thread_bad_end ",
    "source_return_path_thread_end ",
    "postcopy_ram_fault_thread_request Request for HVA=0x7effc936d000 rb=pc.ram offset=0xf6d000 pid=1",
    "postcopy_ram_fault_thread_request Request for HVA=0x7effc936e000 rb=pc.ram offset=0xf6e000 pid=1",
    "postcopy_place_page host=0x7effc936d000",
    "postcopy_place_page_zero host=0x7effc936e000",
    "multifd_send_thread_start 1",
    "multifd_recv_thread_start 1",
    "multifd_recv_thread_end channel 1 packets 247 pages 29001",
    "migrate_transferred transferred 12753370 time_spent 100 bandwidth 105399 max_size 31621200",
    "ram_save_page block=ram offset=0x1 host=0x2",
    "monitor_suspend 0x1 1",
)  # fmt: skip
# Mostly within a window, sometimes some of them on, sometimes back, seldom past every timeout.
_STEPS_US = st.one_of(st.integers(0, 300_000), st.integers(-20_000, 0), st.integers(900_000, 2_500_000), st.just(700_000_000))


@st.composite
def events(draw: st.DrawFn) -> str:
    """Lines of a log in any order that makes more or less sense."""
    steps = draw(st.lists(st.tuples(_STEPS_US, st.integers(1, 3), st.sampled_from(_TEXTS)), max_size=40))
    now_us, found = 10_000_000, []
    for step_us, thread, text in steps:
        now_us = max(10_000_000, now_us + step_us)
        found.append(f"{thread}@{now_us // 1_000_000}.{now_us % 1_000_000:06}:{text}")
    return "\n".join(found)


# --- looking at spans ---------------------------------------------------------------------------------


def ms(span: FinishedSpan) -> tuple[float, float]:
    """Begin and end in milliseconds."""
    return span.start_ns / MS, span.end_ns / MS


def length_ms(span: FinishedSpan) -> float:
    return (span.end_ns - span.start_ns) / MS


def attribute(span: FinishedSpan, name: str) -> Value | None:
    return dict(span.attributes).get(name)


def incomplete(span: FinishedSpan) -> bool:
    return attribute(span, "otelbridge.incomplete") is True


def attributes_of(attributes: Attributes, *names: str) -> dict[str, Value]:
    """Those of the attributes that are named."""
    return {key: value for key, value in attributes if key in names}


def lines(*events: tuple[float, int, str]) -> str:
    """Lines of a log: seconds, thread, event with its text."""
    return "\n".join(f"{thread}@{seconds:.6f}:{event}" for seconds, thread, event in events)


def parents(spans: Sequence[FinishedSpan]) -> dict[str, str | None]:
    """The name of each span's parent; None for one without."""
    names = {span.span_id: span.name for span in spans}
    return {span.name: names.get(span.parent_id) for span in spans}
