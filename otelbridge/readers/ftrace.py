"""The ftrace backend's events, as the kernel's `trace` and `trace_pipe` and `trace-cmd report` print them.

The kernel stamps the time, by the clock in `trace_clock`; the number behind the thread's name is the thread's id. The process
stands in brackets after it where the option `record-tgid` is set. Other tracers' lines stand between them.

Stamps of the clocks `x86-tsc` and `counter` are bare numbers, which are no time in any unit that a trace tells: refused.

Source: Linux kernel/trace/trace_output.c and trace.c (trace_print_context, print_trace_header, tracing_mark_write); trace-cmd's
trace-read.c; QEMU's trace/ftrace.c, which writes at most 511 bytes an event.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from otelbridge.errors import FormatError
from otelbridge.readers.lines import Found, LineReader, Windows
from otelbridge.records import Plan

_WHOLE_BYTES = 510
"""Name and arguments with the blank between them are shorter than 511 bytes, or the event has lost its end."""

#            <...>-23166   [000] ...1.  2503.940575: tracing_mark_write: savevm_section_end ram, section_id 1 -> 0
#  mig/src/send_3-23361   (  23349) [000] ...1.  2509.688219: tracing_mark_write: multifd_send_thread_start 3
#            <...>-23166 [000]  2503.940575: print:                tracing_mark_write: savevm_section_end ram, section_id 1 -> 0
#            <...>-23166   0...1.  2503.940575123: print: tracing_mark_write: savevm_state_setup
_CONTEXT = (
    rb" *+[^\n]{0,40}?-(\d{1,10}) +"
    rb"(?:\( *(\d{1,10}|-+)\) +)?+"
    rb"(?:\[\d+\](?: +[^ \d\n][^ \n]{3,6})?+|\d+[^ \d\n\[][^ \n]{3,6})"
    rb" +(\d{1,20})(?:\.(\d{6,9}))?+: +"
)
_MARK = rb"(?:print: +)?+tracing_mark_write[^ :\n]*+: "
_LINE = re.compile(_CONTEXT + _MARK + rb"([A-Za-z_]\w*+)(?: ([^\n]*+))?+\r?+\n|([^\n]*+)\n")
_EVENT = re.compile(rb"^" + _CONTEXT + _MARK + rb"[A-Za-z_]\w*(?: |\r?$)", re.MULTILINE)
# CPU:1 [LOST 123 EVENTS]     CPU:1 [LOST EVENTS]     CPU:1 [123 EVENTS DROPPED]     CPU:0 [EVENTS DROPPED]
_LOST = re.compile(rb"CPU:\d+ \[(?:LOST )?(?:(\d{1,19}) )?EVENTS(?: DROPPED)?\]\s*")
# # entries-in-buffer/entries-written: 4182/5120   #P:2
_WRITTEN = re.compile(rb"# entries-in-buffer/entries-written: (\d{1,19})/(\d{1,19})\b")


def ftrace_reader(
    plan: Plan,
    is_event: Callable[[str], bool],
    decode_sums: Callable[[str, bytes], tuple[Any, ...] | None],
    *,
    offset_ns: int = 0,
) -> LineReader:
    """A reader of ftrace text.

    Args:
        plan: What the rules need.
        is_event: Whether QEMU has an event of this name.
        decode_sums: As `LogReader` takes it.
        offset_ns: What makes UTC of the trace's clock.

    Raises:
        FormatError: By `feed`: the events' stamps are no time.
    """
    grammar = FtraceGrammar(offset_ns)
    return LineReader("ftrace", grammar, Windows(plan, is_event, decode_sums, grammar))


def looks_like(head: bytes) -> bool:
    """Whether an event of the ftrace backend, or the kernel's header of a trace, stands in the first bytes."""
    return head.startswith(b"# tracer: ") or _EVENT.search(head) is not None


class FtraceGrammar:
    """The lines of a trace file of the kernel."""

    def __init__(self, offset_ns: int) -> None:
        self._offset_ns = offset_ns
        self.resolution_ns = 1
        self._digits, self._scale = -1, 1
        self._overwritten = self._unknown = 0

    @property
    def gaps(self) -> list[str]:
        """What the kernel says was lost without a place or a number."""
        found = []
        if self._overwritten:
            found.append(
                f"{self._overwritten} entries of all tracers were overwritten in the kernel's buffer before the trace begins"
            )
        if self._unknown:
            found.append(f"in {self._unknown} places the kernel lost events and does not say how many; each is counted as one")
        return found

    def scan(self, data: bytes) -> Iterator[Found]:
        """See `Grammar.scan`."""
        offset_ns = self._offset_ns
        for thread, process, second, fraction, name, raw, other in _LINE.findall(data):
            if not name:
                yield from self._other(other)
                continue
            if len(fraction) != self._digits:
                self._learn(second, fraction)
            time_ns = int(second + fraction) * self._scale + offset_ns
            yield time_ns, name, raw, (thread, process), 1 if len(name) + len(raw) < _WHOLE_BYTES else 0

    def _learn(self, second: bytes, fraction: bytes) -> None:
        """How a stamp's fraction is to be read."""
        if not fraction:
            raise FormatError(
                f"its events are stamped with bare numbers ({second.decode()}), as the trace clocks 'x86-tsc' and 'counter' "
                "write them, so nothing tells how long anything took. Record with 'echo mono > trace_clock' in the tracing "
                "directory before the migration (trace-cmd record -C mono); nothing of it was converted."
            )
        self._digits = len(fraction)
        self._scale = 10 ** (9 - self._digits)
        self.resolution_ns = max(self.resolution_ns, self._scale)

    def _other(self, line: bytes) -> Iterator[Found]:
        if line.startswith(b"CPU:") and (lost := _LOST.fullmatch(line)) is not None:
            self._unknown += lost[1] is None
            yield None, b"dropped_by_qemu", b"", None, int(lost[1] or 1)
        elif line.startswith(b"# entries") and (written := _WRITTEN.match(line)) is not None:
            self._overwritten += max(0, int(written[2]) - int(written[1]))
        yield None, b"not_trace", b"", None, 1

    def row(self, raw: bytes, who: tuple[bytes, bytes]) -> tuple[bytes, int | None, int | None]:
        """See `Grammar.row`."""
        thread, process = who
        return raw.removesuffix(b"\r"), int(thread), int(process) if process.isdigit() else None

    def foreign(self, name: bytes, raw: bytes) -> tuple[str, int]:  # noqa: ARG002  # as Grammar has it
        """Any program may write marks into the trace."""
        return "not_trace", 0

    def snapshot(self) -> dict[str, Any]:
        """See `Grammar.snapshot`."""
        return {"lost": [self._overwritten, self._unknown], "resolution_ns": self.resolution_ns}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Grammar.restore`."""
        self._overwritten, self._unknown = state["lost"]
        self.resolution_ns = state["resolution_ns"]
