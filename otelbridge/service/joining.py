"""Both hosts of a migration are followed: the destination's spans wait until it is known into which trace they belong.

That is decided as `convert` does it, from the whole of both sides, when they have ended. A host sees both sides of a migration
only where both logs are brought to it, or where a test migrates within it, so what comes in is held for a moment to see whether
any other stream has a migration that goes out; where none has, it goes on alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from otelbridge.engine import Join
from otelbridge.engine.fits import SKEW_NS
from otelbridge.engine.joins import join
from otelbridge.engine.shifts import Shifts

if TYPE_CHECKING:
    from otelbridge.service.flows import Flow

LOOK_S = 0.3
"""A source has begun before its destination, so its log tells of it by now, and has been read once more."""
END_S = 1.0
"""What ends with a migration is written so soon."""
PATIENCE_S = 60.0
"""The other side has ended so soon after this one."""
MAX_HELD = 100_000
"""So many events of one stream are held; then it goes on alone."""
_PROCESSES = 1_000_000
_REMEMBER_S = 60.0
_TAKEN_S = 3600.0
"""So long it is remembered of a source's migration that it has its destination."""


class Joining:
    """Lets streams go on that are held, alone or joined.

    Attributes:
        is_waiting: Whether anything is held that may go on in a moment.
    """

    def __init__(self) -> None:
        self._since_s: dict[str, float] = {}
        self._ended_s: dict[str, float] = {}
        self._joined_s: dict[bytes, float] = {}
        self.is_waiting = False

    def look(self, flows: Sequence[Flow], now_s: float) -> list[Flow]:
        """Release what need not be held any longer; those that went on."""
        held = [flow for flow in flows if flow.stream.held_ns is not None]
        if not held:
            self._since_s.clear()
            self._ended_s.clear()
            self.is_waiting = False
            return []
        released = [flow for flow in held if self._release(flow, flows, now_s)]
        for flow in released:
            self._since_s.pop(flow.path, None)
            self._ended_s.pop(flow.path, None)
        self.is_waiting = any(now_s - since_s < LOOK_S for since_s in self._since_s.values())
        return released

    def _release(self, flow: Flow, flows: Sequence[Flow], now_s: float) -> bool:
        waited_s = now_s - self._since_s.setdefault(flow.path, now_s)
        if waited_s < LOOK_S and len(flows) > 1:
            return False
        begin_ns = flow.stream.held_ns or 0
        others = [other for other in flows if other is not flow and _goes_out_near(other, begin_ns)]
        if not others or not flow.stream.holds_migration or flow.stream.held_rows > MAX_HELD:
            flow.release({}, {})
            return True
        if not (flow.is_silent(now_s) or (flow.idle_s(now_s) >= END_S and flow.stream.held_has_ended)):
            return False
        ended_s = now_s - self._ended_s.setdefault(flow.path, now_s)
        if ended_s < PATIENCE_S and any(_is_under_way(other, begin_ns) for other in others):
            return False
        flow.release(*self._join(flow, others, now_s))
        return True

    def _join(self, flow: Flow, others: Sequence[Flow], now_s: float) -> tuple[Mapping[bytes, Join], Mapping[int, Shifts]]:
        """Where the migrations of a held stream belong, and what is done to the times of its processes."""
        mine = flow.stream.twin().migrations(0)
        theirs = [one for place, other in enumerate(others, 1) for one in other.stream.migrations(place * _PROCESSES)]
        found = join([*mine, *(one for one in theirs if one.span_id not in self._joined_s)])
        joins = {one.span_id: found.joins[one.span_id] for one in mine if one.span_id in found.joins}
        self._joined_s |= {one.parent_id: now_s for one in joins.values()}
        return joins, {number: shifts for number, shifts in found.shifts.items() if number < _PROCESSES}

    def forget(self, flows: Sequence[Flow], now_s: float) -> None:
        """Let go of migrations that ended so long ago that no other side of them will come."""
        self._joined_s = {one: at_s for one, at_s in self._joined_s.items() if now_s - at_s < _TAKEN_S}
        if not self._since_s:
            for flow in flows:
                if flow.idle_s(now_s) > _REMEMBER_S:
                    flow.stream.forget_migrations()


def _goes_out_near(flow: Flow, begin_ns: int) -> bool:
    return any(abs(begun_ns - begin_ns) <= SKEW_NS for begun_ns, _ in flow.stream.outgoing)


def _is_under_way(flow: Flow, begin_ns: int) -> bool:
    return any(abs(begun_ns - begin_ns) <= SKEW_NS and not has_ended for begun_ns, has_ended in flow.stream.outgoing)
