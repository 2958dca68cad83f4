"""What is followed together with the stream that it carries, and what a silence of it means."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol

from otelbridge import report
from otelbridge.records import SECOND_NS, Attributes
from otelbridge.service.streams import Kind, Output, Stream

_RUNNING, _SETTLED, _PAUSED, _ENDED = range(4)

SETTLE_S = 1.0
"""After so long without a byte nothing earlier comes any more, so events need not wait to be put in order."""
PAUSE_S = 10.0
"""After so long without a byte the metrics that have changed go out."""


class Piece(Protocol):
    """What was read: see `follow.Piece`."""

    @property
    def data(self) -> bytes:
        """The bytes."""
        ...

    @property
    def begins(self) -> bool:
        """Whether they do not go on where the last ones ended."""
        ...

    @property
    def lost(self) -> str:
        """What was lost before them, in words."""
        ...


class Followed(Protocol):
    """Where a stream's bytes come from: a file with its rotated parts, a pipe or the journal."""

    @property
    def lag_bytes(self) -> int:
        """Bytes that were written and not yet read, as far as it is known."""
        ...

    @property
    def problem(self) -> str:
        """Why it cannot be read now, in words; empty if it can."""
        ...

    @property
    def gone(self) -> bool:
        """Whether it is away and everything of it was read."""
        ...

    @property
    def at_risk(self) -> bool:
        """Whether what is not read yet may vanish."""
        ...

    def read(self, limit_bytes: int) -> Piece | None:
        """The next bytes, None where there are none now."""
        ...

    def position(self) -> dict[str, Any]:
        """Where to go on after what was read, as plain data."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Flow:
    """One stream while it is followed.

    Attributes:
        losses: What was lost on the way here, in words, since they were last taken.
        is_dirty: Whether it has changed since `save`.
    """

    def __init__(
        self, path: str, kind: Kind, source: Followed, attributes: Attributes, idle_timeout_ns: int, now_s: float,
        saved: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.path, self.source = path, source
        self._kind, self._attributes = kind, attributes
        self._idle_timeout_s = idle_timeout_ns / SECOND_NS
        self._output: list[Output] = []
        self._stage = saved["stage"] if saved else _RUNNING
        self._read_s = now_s
        self._ended: Counter[str] = Counter(saved["ended"]) if saved else Counter()
        self.stream = Stream(kind, path, attributes, saved["stream"] if saved else None)
        self.losses: list[str] = []
        self.is_dirty = False

    @property
    def has_ended(self) -> bool:
        """Whether everything that was open in it has gone out, since nothing came for long."""
        return self._stage == _ENDED

    def idle_s(self, now_s: float) -> float:
        """How long nothing has come."""
        return now_s - self._read_s

    def read(self, limit_bytes: int, now_s: float) -> int:
        """Take in what there is, at most so many bytes; how many they were."""
        piece = self.source.read(limit_bytes)
        if piece is None:
            return 0
        if piece.lost:
            self.losses.append(piece.lost)
        if piece.begins:
            self._begin_again()
        if piece.data:
            self._read_s, self._stage = now_s, _RUNNING
            self.stream.feed(piece.data)
        self._took()
        return len(piece.data)

    def _begin_again(self) -> None:
        if not self.stream.starts_anew:
            self.stream.cut()
            return
        self.stream.end()
        self._took()
        self._ended = self.counts
        self.stream = Stream(self._kind, self.path, self._attributes)

    def rest(self, now_s: float) -> bool:
        """Do what a silence asks for; whether anything was done."""
        idle_s = self.idle_s(now_s)
        if self._stage == _ENDED or idle_s < SETTLE_S:
            return False
        is_over = idle_s >= self._idle_timeout_s or (self.source.gone and idle_s >= PAUSE_S)
        stage = _ENDED if is_over else _PAUSED if idle_s >= PAUSE_S else _SETTLED
        if stage == self._stage:
            return False
        self._stage = stage
        (self.stream.settle, self.stream.pause, self.stream.end)[stage - 1]()
        self._took()
        return True

    def pause(self) -> None:
        """Let everything go out that can without ending what is open."""
        if self._stage < _PAUSED:
            self.stream.pause()
            self._took()

    def end(self) -> None:
        """Let everything go out; what is open is incomplete."""
        if self._stage < _ENDED:
            self._stage = _ENDED
            self.stream.end()
            self._took()

    def _took(self) -> None:
        self.is_dirty = True
        self._output += self.stream.take()

    def take(self) -> list[Output]:
        """What came out since the last call."""
        taken, self._output = self._output, []
        return taken

    @property
    def counts(self) -> Counter[str]:
        """The buckets of its accounting, and `bytes`, `bytes_unread`, `spans`, `incomplete`, `not_kept` and `points`."""
        account = report.summed(self.stream.accounting)
        counts = Counter(account.buckets)
        counts.update(
            bytes=self.stream.bytes, bytes_unread=self.stream.bytes_unread, units=account.total, spans=account.finished,
            incomplete=account.incomplete, not_kept=account.not_kept, points=self.stream.points_made,
        )  # fmt: skip
        return counts + self._ended

    def save(self) -> bytes:
        """Where it is, as it goes into the outbox. Take the output away first, and put both there together."""
        self.is_dirty = False
        state = {
            "position": self.source.position(),
            "stage": self._stage,
            "stream": self.stream.snapshot(),
            "ended": dict(self._ended),
        }
        return json.dumps(state, separators=(",", ":")).encode()

    def close(self) -> None:
        """Let go of the source."""
        self.source.close()
