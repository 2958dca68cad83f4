"""Text that something else put in front of every line of a log on its way: a time, a stream's name, a container's name.

    2026-11-23T04:26:05.397527123Z 19625@1795407950.847563:migrate_set_state new state setup          kubectl logs --timestamps
    2026-11-23T04:26:05.397527123Z stderr F 2026-11-23T04:26:05.397401Z migrate_set_state new state setup      a CRI log file
    vm1  | 19625@1795407950.847563:migrate_set_state new state setup                                        docker compose logs

The event's own stamp is its time, so such a front is only taken away. What a front is, the beginning of the log tells: it must
be the same, but for the times in it, before most events there. A single line with text before its event is a torn one.

Source: Kubernetes' pkg/kubelet/kuberuntime/logs (RFC3339Nano, stream and tag); QEMU's own stamp has six digits at the most.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from otelbridge.readers.log import EVENT_START, MAX_LINE_BYTES, LogReader
from otelbridge.records import Batch

_TIME = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)"
_TAG = rb"std(?:out|err) [FP] "
_VARIES = re.compile(rb"(?P<time>" + _TIME + rb")|(?P<tag>" + _TAG + rb")")
_QEMUS_OWN = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z ")
# Nov 23 04:30:07 vm qemu-system-x86_64[23115]: 19625@…, {"log":"19625@…: no fronts that stay the same to the end of the log.
_NO_FRONT = re.compile(rb"\d:\d\d|^\{")
_LONGEST = 200
_ENOUGH_SAME = 3
"""Fewer lines with the same text before their event may be torn ones."""
_ENOUGH_TWO_STAMPS = 2
"""Two programs on one stderr leave a line with two stamps now and then, but no two in a row."""


def front_of(head: bytes, is_event: Callable[[str], bool]) -> bytes:
    """A pattern of what stands in front of the lines of a log that begins so; empty where nothing does, or not surely."""
    fronts = [front for line in head.split(b"\n") if (front := _before_event(line, is_event)) is not None]
    patterns = Counter(map(_pattern, fronts))
    if not patterns:
        return b""
    pattern = patterns.most_common(1)[0][0]
    same = [front for front in fronts if re.match(pattern, front)]
    if not pattern or _NO_FRONT.search(_VARIES.sub(b"", same[0])) or len(same[0]) > _LONGEST:
        return b""
    return pattern if len(same) >= _enough(same) and len(same) * 2 > len(fronts) else b""


def _enough(fronts: list[bytes]) -> int:
    if all(_QEMUS_OWN.fullmatch(front) for front in fronts):
        return _ENOUGH_TWO_STAMPS
    return 1 if all(re.match(_TIME, front) for front in fronts) else _ENOUGH_SAME


def _before_event(line: bytes, is_event: Callable[[str], bool]) -> bytes | None:
    """What stands before the first stamp that an event's name follows; None for a line without such a stamp."""
    for start in EVENT_START.finditer(line):
        if is_event(start[1].decode("ascii")):
            return line[: start.start()].removeprefix(b"\xef\xbb\xbf")
    return None


def _pattern(front: bytes) -> bytes:
    """The front with any time and any tag where it has one."""
    found, place = b"", 0
    for part in _VARIES.finditer(front):
        found += re.escape(front[place : part.start()]) + (_TIME if part["time"] else _TAG)
        place = part.end()
    return found + re.escape(front[place:])


def without_front(head: bytes, front: bytes) -> bytes:
    """Whole lines from the beginning of one on, each without its front."""
    return re.sub(rb"^(?:\xef\xbb\xbf)?" + front, b"", head, flags=re.MULTILINE)


class FrontReader:
    """Reads the log backend's text with something in front of its lines; a line that lacks it is read as it stands.

    Args:
        log: Reads the lines.
        front: What `front_of` found.
    """

    format = "log"

    def __init__(self, log: LogReader, front: bytes) -> None:
        self._log, self._front = log, front
        self._rest = b""
        """The line that has not ended yet, from its beginning."""
        self._within = False
        """The line that has not ended yet is too long to be kept: its beginning was read."""

    @property
    def resolution_ns(self) -> int:
        """As of the lines."""
        return self._log.resolution_ns

    @property
    def gaps(self) -> list[str]:
        """Losses that are no matter of single lines, in words."""
        return self._log.gaps

    def feed(self, block: bytes) -> list[Batch]:
        """What the lines that this block completes hold, in batches of one window each."""
        data = self._rest + block
        end = data.rfind(b"\n") + 1
        if len(data) - end > MAX_LINE_BYTES:
            end = len(data)
        lines, self._rest = data[:end], data[end:]
        return self._log.feed(self._bare(lines)) if lines else []

    def finish(self) -> list[Batch]:
        """The rest, at the end of the input. A last line without an end is torn: what is missing cannot be known."""
        rest, self._rest = self._bare(self._rest), b""
        self._within = False
        return [*self._log.feed(rest), *self._log.finish()]

    def _bare(self, lines: bytes) -> bytes:
        start = lines.find(b"\n") + 1 if self._within else 0
        if lines:
            self._within = not lines.endswith(b"\n")
        return lines[:start] + without_front(lines[start:], self._front)

    def snapshot(self) -> dict[str, Any]:
        """Where the reader stands between two blocks, as plain data."""
        return {"rest": self._rest.decode("latin-1"), "within": self._within, "log": self._log.snapshot()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `snapshot`."""
        self._rest, self._within = state["rest"].encode("latin-1"), state["within"]
        self._log.restore(state["log"])
