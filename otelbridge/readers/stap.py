"""What SystemTap and bpftrace print of QEMU's probes.

    23115@1795408207397509000 savevm_section_end ram, section_id 1 -> 0          QEMU's own log.stp, `qemu-trace-stap run`
    23115/23166@1795408207397509000 savevm_section_end ram, section_id 1 -> 0    a script that tells the thread too
    23115@1795408207397509000 otelbridge_sum ram_save_page count=4096 offset=8388608
    @ram_save_page__offset[23115, 23166]: (4096, 33223371792234, 8388608)        what is left of it when bpftrace ends

The last two say that so many events were counted where they happened, and what the sum of their arguments is; each is as many
units of the input as events. The time is UTC; what is left at the end has that of the line before it. QEMU's scripts print
NULL as `<null>`, which is given on as `(null)`, and 64 bits of every integer, which decoders cast to the declared type.

Source: QEMU's scripts/tracetool/format/log_stap.py and scripts/qemu-trace-stap.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from otelbridge.readers.lines import Found, LineReader, Sums, Windows, one_unit
from otelbridge.records import Plan

_STAMP = rb"(\d{1,10})(?:/(\d{1,10}))?+@(\d{16,20}) "
# @ram_save_page__offset[23115, 23166]: (4096, 33223371792234, 8388608)
_LEFT = re.compile(rb"@(\w++)\[\d{1,10}, \d{1,10}\]: \((\d{1,20}), \d{1,20}((?:, -?\d{1,20})*+)\)\r?")
_LINE = re.compile(_STAMP + rb"([A-Za-z_]\w*+)(?: ([^\n]*+))?+\r?+\n|([^\n]*+)\n")
_EVENT = re.compile(rb"^" + _STAMP + rb"[A-Za-z_]\w*(?: |\r?$)", re.MULTILINE)
_CUT = re.compile(rb"\d{1,10}(?:/\d{1,10})?@\d{1,20}(?: |$)")
_SUM = b"otelbridge_sum"
# ram_save_page count=4096 offset=8388608
_SUMS = re.compile(rb"([A-Za-z_]\w*+) count=(\d{1,20})((?: [A-Za-z_]\w*+=-?\d{1,40})*+) *\r?")


def stap_reader(
    plan: Plan, is_event: Callable[[str], bool], decode_sums: Callable[[str, bytes], tuple[Any, ...] | None]
) -> LineReader:
    """A reader of SystemTap's text; the arguments are those of `LogReader`."""
    grammar = StapGrammar()
    return LineReader("stap", grammar, Windows(plan, is_event, decode_sums, grammar))


def looks_like(head: bytes) -> bool:
    """Whether an event as SystemTap prints it stands in the first bytes."""
    return _EVENT.search(head) is not None


class StapGrammar:
    """The lines of QEMU's log.stp and of scripts like it."""

    resolution_ns = 1
    gaps: list[str] = []  # noqa: RUF012  # always empty: both tell of losses on stderr

    def __init__(self) -> None:
        self._last_ns: int | None = None

    def scan(self, data: bytes) -> Iterator[Found]:
        """See `Grammar.scan`."""
        for process, thread, nanoseconds, name, raw, other in _LINE.findall(data):
            if not name:
                yield from self._other(other)
                continue
            self._last_ns = time_ns = int(nanoseconds)
            if name == _SUM:
                yield from _aggregate(time_ns, raw)
            else:
                yield time_ns, name, raw, (thread, process), 1

    def _other(self, line: bytes) -> Iterator[Found]:
        """A line without a stamp."""
        left = _LEFT.fullmatch(line)
        if left is None or self._last_ns is None:
            return one_unit(b"torn" if _CUT.match(line) else b"not_trace")
        name, *arguments = left[1].split(b"__")
        amounts = left[3].split(b", ")[1:]
        if len(arguments) != len(amounts):
            return one_unit(b"not_trace")
        return _counted(self._last_ns, name, int(left[2]), zip(arguments, amounts, strict=True))

    def row(self, raw: bytes, who: tuple[bytes, bytes]) -> tuple[bytes, int | None, int | None]:
        """See `Grammar.row`."""
        thread, process = who
        return raw.removesuffix(b"\r").replace(b"<null>", b"(null)"), int(thread) if thread else None, int(process)

    def foreign(self, name: bytes, raw: bytes) -> tuple[str, int]:  # noqa: ARG002  # as Grammar has it
        """Only events are printed so."""
        return "unmapped", 0

    def snapshot(self) -> dict[str, Any]:
        """See `Grammar.snapshot`."""
        return {"last": self._last_ns}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Grammar.restore`."""
        self._last_ns = state["last"]


def _aggregate(time_ns: int, raw: bytes) -> Iterator[Found]:
    found = _SUMS.fullmatch(raw)
    if found is None:
        return one_unit(b"malformed")
    pairs = [part.partition(b"=") for part in found[3].split()]
    return _counted(time_ns, found[1], int(found[2]), ((argument, amount) for argument, _, amount in pairs))


def _counted(time_ns: int, event: bytes, number: int, amounts: Iterable[tuple[bytes, bytes]]) -> Iterator[Found]:
    if not number:
        return one_unit(b"not_trace")
    sums: Sums = tuple((argument.decode("ascii"), int(amount)) for argument, amount in amounts)
    return iter([(time_ns, event, b"", sums, -number)])
