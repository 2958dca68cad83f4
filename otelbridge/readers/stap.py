"""What SystemTap prints of QEMU's probes.

    23115@1795408207397509000 savevm_section_end ram, section_id 1 -> 0          QEMU's own log.stp, `qemu-trace-stap run`
    23115/23166@1795408207397509000 savevm_section_end ram, section_id 1 -> 0    a script that tells the thread too
    23115@1795408207397509000 otelbridge_sum ram_save_page count=4096 offset=8388608

The last says that so many events were counted where they happened, and what the sum of their arguments is; it is as many units
of the input as events. The time is UTC. QEMU's scripts print NULL as `<null>`, which is given on as `(null)`, and
64 bits of every integer, which decoders cast to the declared type.

Source: QEMU's scripts/tracetool/format/log_stap.py and scripts/qemu-trace-stap.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from otelbridge.readers.lines import Found, LineReader, Sums, Windows, one_unit
from otelbridge.records import Plan

_STAMP = rb"(\d{1,10})(?:/(\d{1,10}))?+@(\d{16,20}) "
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
    gaps: list[str] = []  # noqa: RUF012  # always empty: SystemTap tells of losses on stderr

    def scan(self, data: bytes) -> Iterator[Found]:
        """See `Grammar.scan`."""
        for process, thread, nanoseconds, name, raw, other in _LINE.findall(data):
            if not name:
                yield from one_unit(b"torn" if _CUT.match(other) else b"not_trace")
            elif name == _SUM:
                yield from _aggregate(int(nanoseconds), raw)
            else:
                yield int(nanoseconds), name, raw, (thread, process), 1

    def row(self, raw: bytes, who: tuple[bytes, bytes]) -> tuple[bytes, int | None, int | None]:
        """See `Grammar.row`."""
        thread, process = who
        return raw.removesuffix(b"\r").replace(b"<null>", b"(null)"), int(thread) if thread else None, int(process)

    def foreign(self, name: bytes, raw: bytes) -> tuple[str, int]:  # noqa: ARG002  # as Grammar has it
        """Only events are printed so."""
        return "unmapped", 0

    def snapshot(self) -> dict[str, Any]:
        """See `Grammar.snapshot`."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Grammar.restore`."""


def _aggregate(time_ns: int, raw: bytes) -> Iterator[Found]:
    found = _SUMS.fullmatch(raw)
    if found is None:
        return one_unit(b"malformed")
    number = int(found[2])
    if not number:
        return one_unit(b"not_trace")
    pairs = (part.partition(b"=") for part in found[3].split())
    sums: Sums = tuple((argument.decode("ascii"), int(amount)) for argument, _, amount in pairs)
    return iter([(time_ns, found[1], b"", sums, -number)])
