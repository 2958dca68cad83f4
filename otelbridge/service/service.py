"""The service's loop: read what has come, put it into the outbox together with how far it was read, say how it is."""

from __future__ import annotations

import json
import logging
import math
import os
import select
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import otelbridge
from otelbridge.mapping import files_with_shipped
from otelbridge.otlp.requests import RequestBuilder
from otelbridge.records import SECOND_NS, Request
from otelbridge.service import rule_files
from otelbridge.service.config import ServiceConfig
from otelbridge.service.counters import Counters
from otelbridge.service.flows import Flow
from otelbridge.service.inputs import LOOKED, Inputs, kinds_of, looked
from otelbridge.service.joining import Joining
from otelbridge.service.outbox import Amount, Route, ServiceOutbox
from otelbridge.service.senders import Senders
from otelbridge.service.streams import Kind, Output
from otelbridge.stats import STATS

COMMIT_S = 1.0
"""What has come waits so long at most before it is on disk."""
SCAN_S, QUIET_SCAN_S = 1.0, 1.9
"""How often new files are looked for, and where nothing comes from any: at every second wait of the loop."""
_BLOCK_BYTES = 1 << 18
_LAST_S = 0.5
"""Left of the grace for what is under way."""
_LOOK_S = 0.02
_SHORT_S = 0.1
_WAIT_S = 0.5
"""Reading costs by the block, not by the byte: twice in the time of a commit is often enough."""
_PIPE_S = 0.05
"""A pipe is read more often: its writer is QEMU, which stands still while the pipe is full."""
_QUIET_AFTER_S = 10.0
"""Nothing came from anywhere for so long: then the loop waits for `SCAN_S`."""
_FORGET_S = 60.0
_GAUGE_S = 5.0
_COUNTERS = "counters"
COUNTED = {
    "bytes": "otelbridge.reader.data_read",
    "bytes_refused": "otelbridge.reader.data_refused",
    "lines": "otelbridge.reader.lines_read",
    "records": "otelbridge.reader.records_read",
    "spans": "otelbridge.engine.spans_finished",
    "incomplete": "otelbridge.engine.spans_incomplete",
    "not_kept": "otelbridge.engine.spans_not_kept",
    "points": "otelbridge.engine.points_made",
    "left_out": "otelbridge.engine.values_left_out",
    "ends": "otelbridge.engine.streams_ended",
    "failed": "otelbridge.engine.streams_failed",
    **{stat.bucket: stat.name for stat in STATS if stat.bucket},
}
"""The counter of each sum that a flow gives."""
_FULL = "full "
_log = logging.getLogger(__name__)


class Service:
    """Follows the inputs of a configuration and delivers what comes out.

    Args:
        config: The configuration.
        outbox: Where requests and positions are kept.
        senders: What empties it.
        counters: What it says of itself.
        wake: A file descriptor that becomes readable when something is asked of the loop.
    """

    def __init__(self, config: ServiceConfig, outbox: ServiceOutbox, senders: Senders, counters: Counters, wake: int) -> None:
        self.config, self._outbox, self._senders, self._counters, self._wake = config, outbox, senders, counters, wake
        self._lock = threading.Lock()
        states = outbox.states()
        if (totals := _plain(states.get(_COUNTERS))) is not None:
            counters.restore(totals)
            counters.add("otelbridge.service.restarts")
        now_s = time.monotonic()
        files = files_with_shipped(config.mappings)
        kinds = kinds_of(config, files)
        self._inputs = Inputs(config, kinds, states, now_s, rule_files.kinds_before(kinds, files, states.get(rule_files.KEY)))
        self._rules = rule_files.packed(files)
        self._joining = Joining()
        self._builder = RequestBuilder(config.max_streams)
        self._requests: list[tuple[str, Request]] = []
        self._gone: dict[str, bytes | None] = {**dict.fromkeys(self._inputs.forgotten), rule_files.KEY: self._rules}
        for output in self._inputs.left:
            self._put(output)
        self._told: dict[str, Counter[str]] = {path: flow.counts for path, flow in self._inputs.flows.items()}
        self._troubles: dict[str, str] = {}
        self._unreadable = list(self._inputs.unreadable)
        self._collect_restored()
        self._started_s = self._scanned_s = now_s
        # What was written while it was down is read and committed at once.
        self._committed_s = self._gauged_s = self._read_s = -math.inf
        self._is_full = self._needs_room = False
        self._counters_kept = b""

    # --- the loop -----------------------------------------------------------------------------------

    def step(self, longest_s: float = SCAN_S) -> None:
        """Do once what is due, then wait for a moment if nothing more is to be read: at most so many seconds."""
        now_s = time.monotonic()
        with self._lock:
            busy = self._work(now_s)
        # Right after a commit was due: what was read just before it waits for no other.
        end_s = min(time.monotonic() + min(longest_s, self._wait_s(now_s)), self._committed_s + COMMIT_S)
        while not busy and (left_s := end_s - time.monotonic()) > 0:
            if not (flows := self._wait(left_s)):
                break
            with self._lock:
                busy = self._read(flows, time.monotonic()) or bool(self._requests)

    def _wait(self, longest_s: float) -> list[Flow]:
        """Wait until something comes through pipes, and through which; none if the loop is asked for or the time is over."""
        end_s = time.monotonic() + longest_s
        pipes = {
            descriptor: flow
            for flow in self._inputs.flows.values()
            if (descriptor := flow.source.descriptor) is not None and self._may_read(flow)
        }
        if self._is_asked_for(min(longest_s, _PIPE_S) if pipes else longest_s) or not pipes:
            return []
        ready = _readable([self._wake, *pipes], end_s - time.monotonic())
        return [] if self._wake in ready else [pipes[descriptor] for descriptor in ready]

    def _is_asked_for(self, longest_s: float) -> bool:
        """Wait for so long at most; whether something was asked of the loop."""
        if not _readable([self._wake], longest_s):
            return False
        os.read(self._wake, 4096)
        return True

    def _wait_s(self, now_s: float) -> float:
        """How long nothing has to be looked at."""
        if self._joining.is_waiting:
            return _SHORT_S
        return SCAN_S if self._is_quiet(now_s) else _WAIT_S

    def _is_quiet(self, now_s: float) -> bool:
        """Whether nothing has come for a while, from anywhere."""
        return now_s - self._read_s >= _QUIET_AFTER_S

    def _work(self, now_s: float) -> bool:
        """Read, put into the outbox, and let rest what has been silent; whether there is more to be read at once."""
        if now_s - self._scanned_s >= (QUIET_SCAN_S if self._is_quiet(now_s) else SCAN_S):
            self._scanned_s = now_s
            self._inputs.scan(now_s)
            self._forget(now_s)
            self._tell_problems()
        if now_s - self._gauged_s >= _GAUGE_S:
            self._gauged_s = now_s
            self._set_gauges(now_s)
        flows = list(self._inputs.flows.values())
        busy = self._read(flows, now_s)
        for flow in self._joining.look(flows, now_s):
            self._collect(flow)
        for flow in flows:
            # What is not read is not silent.
            if self._may_read(flow) and flow.rest(now_s):
                self._collect(flow)
        if self._requests or now_s - self._committed_s >= COMMIT_S:
            self.commit()
        return busy

    def _read(self, flows: Sequence[Flow], now_s: float) -> bool:
        """Read a block of each input that has one, as long as no commit is due; whether there is more."""
        self._is_full = self._full()
        more = False
        for flow in flows:
            if not self._may_read(flow):
                continue
            if size := self._read_block(flow, now_s):
                more = more or size == _BLOCK_BYTES or flow.source.has_more
        return more

    def _read_block(self, flow: Flow, now_s: float) -> int:
        """Read a block of an input and take what comes out; how many bytes it was."""
        size = flow.read(_BLOCK_BYTES, now_s)
        if size:
            self._read_s = now_s
            self._needs_room = self._needs_room or self._is_full
            self._collect(flow)
        return size

    def _may_read(self, flow: Flow) -> bool:
        return not self._is_full or flow.source.at_risk

    def _full(self) -> bool:
        """Whether reading must wait for the outbox."""
        full = self._outbox.is_full
        if full != self._is_full:
            if full:
                _log.warning("The outbox is full: reading waits until a destination takes something; /status tells more.")
            else:
                _log.info("The outbox has room again: reading goes on.")
        return full

    def _collect(self, flow: Flow) -> None:
        for output in flow.take():
            self._put(output)
        for loss in flow.losses:
            _log.error("%s", loss)
            self._counters.add("otelbridge.reader.file_parts_lost")
        flow.losses.clear()

    def _collect_restored(self) -> None:
        """Take what came out of streams when they went on with other rules."""
        for flow in self._inputs.flows.values():
            self._collect(flow)

    def _tell_problems(self) -> None:
        """Say what cannot be read, once, and when that is over."""
        found = {words: words for words in self._inputs.problems}
        self._unreadable = list(self._inputs.unreadable)
        found |= {flow.path: flow.problem for flow in self._inputs.flows.values() if flow.problem}
        for key, words in found.items():
            if self._troubles.get(key) != words:
                _log.warning("%s", words)
        for key in self._troubles.keys() - found.keys():
            _log.info("It is over that %s", self._troubles[key])
        self._troubles = found

    def _put(self, output: Output) -> None:
        resource, spans, points = output
        if spans:
            self._hand(self._builder.add_spans(resource, spans))
        if points:
            self._hand(self._builder.add_points(resource, points))

    def _hand(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self._requests += [
                (destination.name, request)
                for destination in self.config.destinations
                if request.signal in destination.endpoints
            ]

    def commit(self, *, whole: bool = False) -> None:
        """Put everything that has come out into the outbox, with how far everything was read.

        With `whole` nothing has to be done again to go on from there, so other rules can.
        """
        self._committed_s = time.monotonic()
        self._hand(self._builder.flush_together())
        for path, flow in self._inputs.flows.items():
            if flow.is_dirty:
                self._count(path, flow)
        states: dict[str, bytes | None] = {**self._gone, **self._inputs.dirty()}
        if self._outbox.states_wanted() or whole:
            # A database was begun anew, or this is the last time.
            states |= {**self._inputs.all(), rule_files.KEY: self._rules}
            self._counters_kept = b""
        counters = json.dumps(self._counters.snapshot()).encode()
        if counters != self._counters_kept:
            # A total that was told and is forgotten would be lower after a restart.
            states[_COUNTERS] = self._counters_kept = counters
        if not states and not self._requests:
            self._outbox.commit({}, [])
            return
        states[LOOKED] = looked(self.config.inputs)
        if self._needs_room and self._requests:
            # What was read all the same would have vanished: the oldest makes room for it.
            self._outbox.make_room(sum(len(request.body) for _, request in self._requests))
        self._outbox.commit(states, self._requests)
        self._requests, self._gone, self._needs_room = [], {}, False

    def _count(self, path: str, flow: Flow) -> None:
        """Add what is new of a stream's accounting to the counters."""
        counts = flow.counts
        new = counts - self._told.get(path, Counter())
        self._told[path] = counts
        for bucket, number in new.items():
            if (name := COUNTED.get(bucket)) is not None:
                self._counters.add(name, number)
            elif bucket.startswith(_FULL):
                self._counters.add("otelbridge.engine.tables_overflowed", number, table=bucket.removeprefix(_FULL))

    def _forget(self, now_s: float) -> None:
        """Let go of what is away for good."""
        self._joining.forget(list(self._inputs.flows.values()), now_s)
        for path, flow in list(self._inputs.flows.items()):
            if flow.source.gone and flow.has_ended and flow.idle_s(now_s) > _FORGET_S and not flow.is_dirty:
                self._gone |= dict.fromkeys(flow.keys)
                self._inputs.forget(path)
                self._told.pop(path, None)
                self._counters.forget(input=path)

    # --- how it is ------------------------------------------------------------------------------------

    @property
    def words(self) -> str:
        """One line for a person."""
        outbox = self._outbox.status()
        waiting = sum(amount.requests for amount in outbox.pending.values())
        said = f"{len(self._inputs.flows)} streams followed, {waiting} requests wait"
        return f"{said}; {outbox.words}" if outbox.words else said

    def unready(self) -> list[str]:
        """Why inputs are not followed, or why what comes of them is not taken, in words; nothing where all is well.

        A destination that took something since the start and is away now does not count: the outbox bridges that.
        """
        outbox = self._outbox.status()
        reasons = [outbox.words or "The outbox is full."] if outbox.state == "full" else []
        reasons += self._unreadable
        reasons += [
            f"{lane.destination} has taken no {lane.signal} since the start: {lane.error}"
            for lane in self._senders.status()
            if lane.error and not lane.accepted
        ]
        return reasons

    def status(self) -> dict[str, Any]:
        """Everything that is worth knowing now, as JSON-able data."""
        now_s = time.monotonic()
        with self._lock:
            inputs = [_input_status(flow, now_s) for flow in self._inputs.flows.values()]
            problems = list(self._inputs.problems)
        outbox = self._outbox.status()
        return {
            "version": otelbridge.__version__,
            "uptime_s": round(now_s - self._started_s, 3),
            "ready": not self.unready(),
            "inputs": inputs,
            "problems": problems,
            "destinations": [asdict(lane) for lane in self._senders.status()],
            "outbox": {
                "state": outbox.state,
                "words": outbox.words,
                "limit_bytes": self.config.outbox.limit_bytes,
                "pending_bytes": sum(amount.bytes for amount in outbox.pending.values()),
                "rejected_bytes": sum(amount.bytes for amount in outbox.rejected.values()),
                "memory_bytes": outbox.memory_bytes,
                "oldest_s": None if outbox.oldest_ns is None else outbox.oldest_ns / SECOND_NS,
                "pending": _amounts(outbox.pending),
                "rejected": _amounts(outbox.rejected),
            },
            "spans_open": sum(one["spans_open"] for one in inputs),
            "losses": {
                stat.name: total
                for stat in STATS
                if stat.severity == "data-loss" and (total := self._counters.total(stat.name))
            },
        }

    def _set_gauges(self, now_s: float) -> None:
        counters, outbox = self._counters, self._outbox.status()
        counters.set("otelbridge.service.uptime", now_s - self._started_s)
        counters.set("otelbridge.reader.files_followed", len(self._inputs.flows))
        counters.set("otelbridge.engine.spans_open", sum(flow.open_spans for flow in self._inputs.flows.values()))
        counters.set("otelbridge.outbox.memory_bytes", outbox.memory_bytes)
        routes = {(lane.destination, lane.signal) for lane in self._senders.status()}
        # An empty one must be told as empty: a gauge keeps what it was set to.
        for destination, signal in routes | outbox.pending.keys() | outbox.rejected.keys():
            pending = outbox.pending.get((destination, signal), Amount())
            rejected = outbox.rejected.get((destination, signal), Amount())
            where = {"destination": destination, "signal": signal}
            counters.set("otelbridge.outbox.pending_bytes", pending.bytes, **where)
            counters.set("otelbridge.outbox.pending_requests", pending.requests, **where)
            counters.set("otelbridge.outbox.rejected_bytes", rejected.bytes, **where)
        for path, flow in self._inputs.flows.items():
            counters.set("otelbridge.reader.data_unread", flow.source.lag_bytes, input=path)
            counters.set("otelbridge.reader.delay", flow.lag_s(now_s), input=path)

    # --- reload and end -------------------------------------------------------------------------------

    def reload(self, config: ServiceConfig) -> None:
        """Go on with another configuration; what is open stays open where its rule is still there.

        Raises:
            OtelbridgeError: Its mappings or catalogue are not as they should be; everything stays as it was.
        """
        files = files_with_shipped(config.mappings)
        kinds = kinds_of(config, files)
        with self._lock:
            self._go_on(config, kinds)
            self._rules = self._gone[rule_files.KEY] = rule_files.packed(files)

    def _go_on(self, config: ServiceConfig, kinds: Sequence[Kind]) -> None:
        """Go on with another configuration that can be used."""
        self.commit()
        before, now_s = self._inputs, time.monotonic()
        states = before.all()
        self._outbox.commit(states, [])
        pipes = before.take_pipes()
        before.close()
        kept = {key: body for key, body in states.items() if body is not None} | {LOOKED: looked(self.config.inputs)}
        self._inputs = Inputs(config, kinds, kept, now_s, kinds, pipes)
        for path in before.flows.keys() - self._inputs.flows.keys():
            before.flows[path].end()
            self._collect(before.flows[path])
            self._count(path, before.flows[path])
            self._told.pop(path, None)
            self._counters.forget(input=path)
        self._collect_restored()
        self._gone |= dict.fromkeys(self._inputs.forgotten)
        self._senders.update(config.destinations)
        self._counters.add("otelbridge.service.reloads_done")
        self.config = config

    def reload_refused(self) -> None:
        """Count a configuration that was not taken."""
        self._counters.add("otelbridge.service.reloads_refused")

    def _is_being_sent(self) -> bool:
        """Whether a destination that answers has something left."""
        waiting = {(lane.destination, lane.signal) for lane in self._senders.status() if lane.state != "waiting"}
        return any(amount.requests for route, amount in self._outbox.status().pending.items() if route in waiting)

    def end(self, deadline_s: float) -> None:
        """Let everything go out that can without ending what is open, and put the rest into the outbox."""
        with self._lock:
            for flow in self._inputs.flows.values():
                self._read_what_may_vanish(flow, (time.monotonic() + deadline_s) / 2)
                flow.pause()
                self._collect(flow)
            self.commit(whole=True)
        while time.monotonic() < deadline_s - _LAST_S and self._is_being_sent():
            time.sleep(_LOOK_S)
        self._senders.stop(deadline_s)
        with self._lock:
            # With what was counted of the last deliveries.
            self.commit()
            self._inputs.close()

    def _read_what_may_vanish(self, flow: Flow, deadline_s: float) -> None:
        """Read what a pipe holds, and what was rotated away; what comes meanwhile is not waited for."""
        left = flow.source.lag_bytes if flow.source.at_risk else 0
        while left > 0 and (now_s := time.monotonic()) < deadline_s and (size := self._read_block(flow, now_s)):
            left -= size
            if self._requests:
                self.commit()


def _plain(body: bytes | None) -> dict[str, Any] | None:
    """The data of a state, None where there is none that can be read."""
    try:
        found = None if body is None else json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _input_status(flow: Flow, now_s: float) -> dict[str, Any]:
    stream = flow.stream
    return {
        "path": flow.path,
        "format": stream.format,
        "problem": flow.problem,
        "bytes": stream.bytes,
        "lag_bytes": flow.source.lag_bytes,
        "lag_s": round(flow.lag_s(now_s), 3),
        "idle_s": round(flow.idle_s(now_s), 3),
        "spans_open": flow.open_spans,
        "gone": flow.source.gone,
        "ended": flow.has_ended,
    }


def _amounts(amounts: Mapping[Route, Amount]) -> list[dict[str, Any]]:
    return [{"destination": name, "signal": signal, **asdict(amount)} for (name, signal), amount in amounts.items()]


def _readable(descriptors: Sequence[int], longest_s: float) -> list[int]:
    """Wait for so long at most; which of them can be read."""
    asked = select.poll()  # select() knows none above 1023
    for descriptor in descriptors:
        asked.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in asked.poll(max(0.0, longest_s) * 1000)]
