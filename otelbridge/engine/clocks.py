"""How far the clocks of two hosts are apart: what is sent is sent before it arrives.

An offset is the destination's clock minus the source's. What the source sends bounds it from above, what the destination
sends bounds it from below. QEMU traces a sending before the data leave and a receipt after they have come, so whatever
buffers lie between make a bound wider, never wrong. Which events these are: migration/savevm.c, migration/migration.c,
migration/multifd.c of QEMU 4.1 to 10.2.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from otelbridge.records import Row, Value

STAMP_NS = 1000
"""Text formats cut their stamps off at the microsecond, so an event happened up to so much after its stamp."""
_MAX_TIMES = 1_000_000
"""So many messages of one kind are remembered of a log; only page requests can be more."""


class Tag(NamedTuple):
    """One end of a message: what is sent, whether this is its receipt, and what tells it from others of its kind."""

    message: str
    received: bool
    key: Value | None = None

    @property
    def sending(self) -> Tag:
        """The other end of a receipt."""
        return Tag("section" if self.message == _PART else self.message, _SENT, self.key)

    @property
    def by_destination(self) -> bool:
        """Whether the destination sends it."""
        return self.message in _BY_DESTINATION


class _End(NamedTuple):
    """An event that is one end of a message. `key` is an argument, or the value itself where `fixed`; `only` filters."""

    message: str
    received: bool
    argument: str | None = None
    fixed: int | None = None
    only: str | None = None


_SENT, _RECEIVED = False, True
_PART = "part"
"""A section's header where more of its kind follow; `section` is one that may have no others."""
# 1@1.0:savevm_section_start ram, section_id 2             -> 2@1.0:qemu_loadvm_state_section_partend 2
# 1@1.0:savevm_send_ping 0x1                               -> 2@1.0:loadvm_process_command_ping 0x1
# 1@1.0:source_return_path_thread_pong 0x1                <-  2@1.0:loadvm_process_command_ping 0x1, it answers after that
# Neither side of a TLS handshake is through with it before the other has begun.
_ENDS: Mapping[str, tuple[_End, ...]] = {
    "migrate_set_state": (
        _End("migration", _SENT, "new_state", only="setup"), _End("migration", _RECEIVED, "new_state", only="active"),
        _End("state", _SENT, "new_state"),
    ),
    "savevm_send_ping": (_End("ping", _SENT, "val"),),
    "loadvm_process_command_ping": (_End("ping", _RECEIVED, "val"), _End("pong", _SENT, "val")),
    "source_return_path_thread_pong": (_End("pong", _RECEIVED, "val"),),
    "savevm_section_start": (_End("section", _SENT, "section_id"),),
    "qemu_loadvm_state_section_startfull": (_End("section", _RECEIVED, "section_id"),),
    "qemu_loadvm_state_section_partend": (_End(_PART, _RECEIVED, "section_id"),),
    "savevm_command_send": (_End("command", _SENT),),
    "loadvm_process_command": (_End("command", _RECEIVED),),
    "qemu_savevm_send_packaged": (_End("package", _SENT),),
    "loadvm_handle_cmd_packaged": (_End("package", _RECEIVED),),
    "multifd_send_thread_start": (_End("channel", _SENT, "id"),),
    "multifd_recv_thread_start": (_End("channel", _RECEIVED, "id"),),
    "migration_tls_outgoing_handshake_start": (_End("hello", _SENT),),
    "migration_tls_incoming_handshake_complete": (_End("hello", _RECEIVED),),
    "migration_tls_incoming_handshake_start": (_End("server hello", _SENT),),
    "migration_tls_outgoing_handshake_complete": (_End("server hello", _RECEIVED),),
    "migrate_send_rp_message": (_End("return path", _SENT, "msg_type"),),
    "migrate_handle_rp_req_pages": (_End("return path", _RECEIVED, fixed=3),),
    "ram_dirty_bitmap_reload_begin": (_End("return path", _RECEIVED, fixed=5),),
    "source_return_path_thread_resume_ack": (_End("return path", _RECEIVED, fixed=6),),
    "source_return_path_thread_switchover_acked": (_End("return path", _RECEIVED, fixed=7),),
}  # fmt: skip
_SAME_KEY: Mapping[tuple[str, int], int] = {("return path", 4): 3}
"""A page is requested with the name of its block (3) or without (4)."""
_BY_DESTINATION = frozenset({"pong", "return path", "server hello"})
_BY_SEVERAL_THREADS = frozenset({"command", "return path"})
"""Threads that send at the same time are not traced in the order in which they send."""

ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    event: tuple({end.argument for end in ends if end.argument}) for event, ends in _ENDS.items()
}
"""The events to listen for, and the argument that a `Listener` wants of each."""

Times = Mapping[Tag, Sequence[int]]


class Listener:
    """Takes note of when messages were sent and received, for each process that writes into an input.

    Args:
        decode: Gives the arguments of an event as ARGUMENTS has them.
    """

    def __init__(self, decode: Callable[[str, bytes], Sequence[Value | None] | None]) -> None:
        self._decode = decode
        self._times: dict[int, dict[Tag, list[int]]] = {}
        self.heard = self.unread = 0
        """Ends of messages that are remembered, and events whose arguments could not be read."""

    def hear(self, row: Row, process: int) -> None:
        """Take note of an event of ARGUMENTS."""
        arguments = self._decode(row.event, row.raw) if ARGUMENTS[row.event] else ()
        self.unread += arguments is None
        if row.time_ns is None or arguments is None:
            return
        times = self._times.setdefault(process, {})
        for end in _ENDS[row.event]:
            key: Value | None = end.fixed if end.argument is None else arguments[0]
            if end.only is None or key == end.only:
                of_it = times.setdefault(Tag(end.message, end.received, _same(end, key)), [])
                if len(of_it) < _MAX_TIMES:
                    of_it.append(row.time_ns)
                    self.heard += 1

    def forget(self, process: int, before_ns: int) -> None:
        """What a process sent and received before that time is not asked for any more."""
        times = self._times.get(process, {})
        for tag in list(times):
            kept = [time_ns for time_ns in times[tag] if time_ns >= before_ns]
            self.heard -= len(times[tag]) - len(kept)
            if kept:
                times[tag] = kept
            else:
                del times[tag]

    def snapshot(self) -> list[Any]:
        """What is remembered, as plain data."""
        return [
            self.unread,
            [[process, [[*tag, list(times)] for tag, times in of.items()]] for process, of in self._times.items()],
        ]

    def restore(self, state: Sequence[Any]) -> None:
        """Go on from `snapshot`."""
        self.unread, processes = state
        self._times = {
            process: {Tag(message, received, key): times for message, received, key, times in of} for process, of in processes
        }
        self.heard = sum(len(times) for of in self._times.values() for times in of.values())

    def within(self, process: int, migrations: Sequence[tuple[int, int]]) -> list[dict[Tag, list[int]]]:
        """What belongs to each of a process's migrations, given their begins and ends in the order of time.

        A destination's connections and channels come before its first state, and its clock may be set back after that, so
        what is of a destination may precede its begin. What is of a source may not: before it there is the migration before.
        """
        begins, ends = [begin for begin, _ in migrations], [end for _, end in migrations]
        found: list[dict[Tag, list[int]]] = [{} for _ in migrations]
        for tag, times in self._times.get(process, {}).items():
            early = tag.received is not tag.by_destination  # what a destination receives and sends
            for time_ns in times:
                place = bisect_left(ends, time_ns)
                if place < len(found) and (early or time_ns >= begins[place]):
                    found[place].setdefault(tag, []).append(time_ns)
        return found


def _same(end: _End, key: Value | None) -> Value | None:
    if end.only is not None:
        return None
    return _SAME_KEY.get((end.message, key), key) if isinstance(key, int) else key


class Offset(NamedTuple):
    """The destination's clock minus the source's, in nanoseconds, between bounds; None where nothing bounds it.

    Attributes:
        steady: Whether the stamps of both hosts never go back, so that one bound alone can be trusted.
    """

    min_ns: int | None = None
    max_ns: int | None = None
    steady: bool = True

    @property
    def contradictory(self) -> bool:
        """Whether no offset fits: a clock was set, or ran faster than the other."""
        return self.min_ns is not None and self.max_ns is not None and self.min_ns > self.max_ns

    @property
    def differing(self) -> bool:
        """Whether the clocks cannot agree."""
        return (self.min_ns is not None and self.min_ns > 0) or (self.max_ns is not None and self.max_ns < 0)

    @property
    def applied_ns(self) -> int:
        """What is to be taken from the destination's times: nothing where the clocks may agree."""
        low, high = self.min_ns, self.max_ns
        if self.contradictory or not self.differing:
            return 0
        if low is not None and high is not None:
            return (low + high) // 2
        return (low or high or 0) if self.steady else 0


def messages(source: Times, destination: Times) -> Iterator[tuple[Tag, Sequence[int], Sequence[int]]]:
    """Every kind of message between two hosts: its receipt, when each was sent, when each was received, in their order."""
    for sender, receiver, by_destination in ((source, destination, False), (destination, source, True)):
        for tag, received in receiver.items():
            if not tag.received or tag.by_destination is not by_destination:
                continue
            if tag.message == "section" and tag._replace(message=_PART) in receiver:
                continue  # what the setup of a section sends is traced only where it is received
            sent = sender.get(tag.sending, ())
            if tag.message in _BY_SEVERAL_THREADS:
                yield tag, sorted(sent), sorted(received)
            else:
                yield tag, sent, received


def offset_between(source: Times, destination: Times, *, whole: bool, steady: bool) -> Offset:
    """The bounds that all messages together give.

    The k-th receipt of a kind is that of the k-th sending or, where some were lost on their way, of a later one, so the k-th
    sending precedes it in any case. Where more were received than sent, sendings are missing in the log, and nothing follows.

    Args:
        source: What `Listener.within` gave of the source's migration.
        destination: The same of the destination's.
        whole: Whether both logs hold all that QEMU wrote; if not, only what cannot be mistaken for another counts.
        steady: Whether the stamps of both never go back.
    """
    low: list[int] = []
    high: list[int] = []
    for tag, sent, received in messages(source, destination):
        if len(received) > len(sent) or not (whole or _unmistakable(tag, sent, received)):
            continue
        if tag.by_destination:
            low.append(max(s - r for s, r in zip(sent, received, strict=False)) - STAMP_NS)
        else:
            high.append(min(r - s for s, r in zip(sent, received, strict=False)) + STAMP_NS)
    return Offset(max(low, default=None), min(high, default=None), steady)


def _unmistakable(tag: Tag, sent: Sequence[int], received: Sequence[int]) -> bool:
    return tag.message in ("ping", "pong") and len(sent) == len(received) == 1
