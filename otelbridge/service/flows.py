"""What is followed together with the stream that it carries, and what a silence of it means."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from otelbridge import report
from otelbridge.engine import Join
from otelbridge.engine.shifts import Shifts
from otelbridge.readers.formats import FORMATS
from otelbridge.records import SECOND_NS, Attributes
from otelbridge.service.alive import Qemu, is_running, qemu_of
from otelbridge.service.streams import Kind, Output, Stream
from otelbridge.service.trails import joined_of, plain_joined

_log = logging.getLogger(__name__)
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

    @property
    def has_more(self) -> bool:
        """Whether so much is left, or left in such a place, that it is to be read at once."""
        ...

    @property
    def descriptor(self) -> int | None:
        """What becomes readable when more comes, None where only looking tells."""
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


class Nothing:
    """Where nothing comes from any more: the input was taken out of the configuration."""

    lag_bytes, problem, gone, at_risk, has_more, descriptor = 0, "", True, False, False, None

    def read(self, _limit_bytes: int) -> Piece | None:
        """Nothing."""
        return None

    def position(self) -> dict[str, Any]:
        """Nowhere."""
        return {}

    def close(self) -> None:
        """There is nothing to let go of."""


Step = str | list[Any]
"""Bytes that were fed, by latin-1, or the name of what else was done to a stream, and with what."""

_LOOK_S = 5.0
"""How often it is seen to whether the QEMU of a silent stream still runs."""
_MAX_PARTS = 30
_MAX_PART_BYTES = 1 << 16


class Saved(NamedTuple):
    """What the outbox holds of a flow: its last snapshot, and what was done since, row by row."""

    whole: dict[str, Any]
    parts: list[dict[str, Any]]

    @property
    def position(self) -> dict[str, Any]:
        """Where to go on reading."""
        return dict((self.parts[-1] if self.parts else self.whole)["position"])

    @property
    def stage(self) -> int:
        """What its silence had come to."""
        return int((self.parts[-1] if self.parts else self.whole)["stage"])

    @property
    def steps(self) -> Iterator[Step]:
        """What was done since the snapshot."""
        for part in self.parts:
            yield from part["steps"]


def whole_key(path: str) -> str:
    """The key of a flow's snapshot."""
    return f"stream/{path}"


def part_key(path: str, number: int) -> str:
    """The key of what was done to it since, in rows that count from 0."""
    return f"since/{number}/{path}"


def keys_of(path: str, saved: Saved) -> list[str]:
    """The keys of everything that the outbox holds of a flow."""
    return [whole_key(path), *(part_key(path, number) for number in range(len(saved.parts)))]


def saved_flows(states: Mapping[str, bytes]) -> dict[str, Saved]:
    """What an outbox holds of all flows, by path; what cannot be read is left out, with everything that came after it."""
    found = {}
    for key, body in states.items():
        word, _, path = key.partition("/")
        if word == "stream" and (whole := _parsed(body)) is not None:
            parts: list[dict[str, Any]] = []
            while (part := _parsed(states.get(part_key(path, len(parts))))) is not None:
                parts.append(part)
            found[path] = Saved(whole, parts)
    return found


def _parsed(body: bytes | None) -> dict[str, Any] | None:
    try:
        found = None if body is None else json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _json(data: dict[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":"), check_circular=False).encode()


class Flow:
    """One stream while it is followed.

    Attributes:
        losses: What was lost on the way here, in words, since they were last taken.
        is_dirty: Whether it has changed since `save`.
    """

    def __init__(
        self, path: str, kind: Kind, source: Followed, attributes: Attributes, idle_timeout_ns: int, now_s: float,
        saved: Saved | None = None, before: Kind | None = None,
    ) -> None:  # fmt: skip
        self.path, self.source = path, source
        self._kind, self._attributes = kind, attributes
        self._idle_timeout_s = idle_timeout_ns / SECOND_NS
        self._output: list[Output] = []
        self._stage, self._read_s = saved.stage if saved else _RUNNING, now_s
        self._ended: Counter[str] = Counter(saved.whole["ended"]) if saved else Counter()
        self.stream = Stream(before or kind, path, attributes, saved.whole["stream"] if saved else None)
        self.losses: list[str] = []
        # Where a file begins that has just been found must be known even if it rotates before anything is in it.
        self.is_dirty = saved is None
        self._level_s = now_s
        self._looked_s = now_s
        self._qemu: Qemu | None = None
        self._done: list[Step] = []
        self._parts, self._part_bytes, self._must_be_whole = 0, 0, saved is None
        self._open_spans: int | None = None
        if saved:
            # What was open by a rule that is gone comes out as incomplete.
            self._output += self.stream.take()
            self._parts = len(saved.parts)
            for step in saved.steps:
                self._do(step)
            # What came of it was put into the outbox together with the step.
            self.stream.take()
            is_changed = before is not None and before is not kind
            if is_changed:
                self.stream = Stream(kind, path, attributes, self.stream.snapshot())
                self._output += self.stream.take()
            # What was done since the last snapshot must not be done again by other rules.
            self.is_dirty = self._must_be_whole = is_changed or bool(self._output)

    @property
    def problem(self) -> str:
        """Why nothing of it can be read, in words; empty if it can be."""
        return self.stream.problem or self.source.problem

    @property
    def has_ended(self) -> bool:
        """Whether everything that was open in it has gone out, since nothing came for long."""
        return self._stage == _ENDED

    def idle_s(self, now_s: float) -> float:
        """How long nothing has come."""
        return now_s - self._read_s

    def lag_s(self, now_s: float) -> float:
        """How long ago everything of it had been read; 0 where it is."""
        return now_s - self._level_s if self.source.lag_bytes else 0.0

    def read(self, limit_bytes: int, now_s: float) -> int:
        """Take in what there is, at most so many bytes; how many they were."""
        piece = self.source.read(limit_bytes)
        if piece is None:
            self._level_s = now_s
            return 0
        if piece.lost:
            self.losses.append(piece.lost)
        if piece.begins:
            self._begin_again()
        if piece.data:
            self._read_s, self._stage = now_s, _RUNNING
            self._feed(piece.data)
        return len(piece.data)

    def _feed(self, data: bytes) -> None:
        self._part_bytes += len(data)
        if self._part_bytes > _MAX_PART_BYTES:
            # The next row is a snapshot.
            self._done.clear()
        else:
            self._done.append(data.decode("latin-1"))
        self._guarded(lambda: self.stream.feed(data))
        self._took()

    def _step(self, step: Step) -> None:
        """Do something to the stream that can be done again after a crash."""
        self._done.append(step)
        self._do(step)
        self._took()

    def _do(self, step: Step) -> None:
        stream = self.stream
        if isinstance(step, str):
            self._guarded(lambda: stream.feed(step.encode("latin-1")))
        elif step[0] == "release":
            self._guarded(lambda: stream.release(*joined_of(*step[1:])))
        else:
            acts = {
                "cut": stream.cut, "settle": stream.settle, "pause": stream.pause, "expire": stream.expire, "end": stream.end,
            }  # fmt: skip
            self._guarded(acts[step[0]])

    def _guarded(self, act: Callable[[], None]) -> None:
        """Do it; a bug that one input brings to light must not end what is done for all others, again with each start."""
        try:
            act()
        except Exception:  # noqa: BLE001  # whatever it is
            _log.exception(
                "%s: a bug in otelbridge; what was open in it and what came just now is lost, what comes next begins anew. "
                "Please report it with these lines.",
                self.path,
            )
            self._ended = self.counts
            self._ended["failed"] += 1
            self.stream = Stream(self._kind, self.path, self._attributes)

    def _begin_again(self) -> None:
        if not self.stream.starts_anew:
            self._step(["cut"])
            return
        self.stream.end()
        self._took()
        self._ended = self.counts
        self.stream = Stream(self._kind, self.path, self._attributes)
        self._must_be_whole = True

    def rest(self, now_s: float) -> bool:
        """Do what a silence asks for; whether anything was done."""
        idle_s = self.idle_s(now_s)
        if self._stage == _ENDED or idle_s < SETTLE_S or self.stream.held_ns is not None:
            return False
        is_over = idle_s >= self._idle_timeout_s or (idle_s >= PAUSE_S and (self.source.gone or self._is_dead(now_s)))
        stage = _ENDED if is_over else _PAUSED if idle_s >= PAUSE_S else _SETTLED
        if stage == self._stage:
            return False
        if stage == _SETTLED and self._qemu is None:
            self._qemu = qemu_of(self.stream.process_ids)
        self._stage = stage
        self._step([("settle", "pause", "end")[stage - 1]])
        if stage == _PAUSED:
            self._step(["expire"])
        self._ended["ends"] += stage == _ENDED
        return True

    def _is_dead(self, now_s: float) -> bool:
        """Whether its QEMU was seen to run and does so no more."""
        if now_s - self._looked_s < _LOOK_S:
            return False
        self._looked_s = now_s
        if self._qemu is not None and not is_running(self._qemu):
            return True
        self._qemu = qemu_of(self.stream.process_ids)
        return False

    def is_silent(self, now_s: float) -> bool:
        """Whether nothing came for so long that it has ended."""
        return self.idle_s(now_s) >= self._idle_timeout_s

    def release(self, joins: Mapping[bytes, Join], shifts: Mapping[int, Shifts]) -> None:
        """Let a migration go on that was held: what it is joined to, and what is done to times."""
        self._stage = _RUNNING
        self._step(["release", *plain_joined(joins, shifts)])

    def pause(self) -> None:
        """Let everything go out that can without ending what is open."""
        if self._stage < _PAUSED:
            self._step(["pause"])

    def end(self) -> None:
        """Let everything go out; what is open is incomplete."""
        if self._stage < _ENDED:
            self._stage = _ENDED
            self._step(["end"])

    @property
    def open_spans(self) -> int:
        """How many spans are open; what is silent is not counted again."""
        if self._open_spans is None:
            self._open_spans = self.stream.open_spans
        return self._open_spans

    def _took(self) -> None:
        self.is_dirty, self._open_spans = True, None
        self._output += self.stream.take()

    def take(self) -> list[Output]:
        """What came out since the last call."""
        taken, self._output = self._output, []
        return taken

    @property
    def counts(self) -> Counter[str]:
        """The buckets of its accounting, and what else is counted of it, by the words of `service.COUNTED`."""
        account = report.summed(self.stream.accounting)
        counts = Counter(account.buckets)
        counts.update(
            bytes=self.stream.bytes, bytes_refused=self.stream.bytes_unread, spans=account.finished,
            incomplete=account.incomplete, not_kept=account.not_kept, points=self.stream.points_made,
            left_out=self.stream.values_left_out,
        )  # fmt: skip
        counts.update({f"full {table}": number for table, number in self.stream.overflows.items()})
        if self.stream.format:
            counts[FORMATS[self.stream.format].unit] = account.total
        return counts + self._ended

    def save(self, *, whole: bool = False) -> dict[str, bytes | None]:
        """Where it is, for the outbox: rows by key, None for one that is no longer needed.

        Take the output away first, and put both there together. Most of the time only what was done since the last row is
        written: that costs a tenth of a snapshot, and can be done again.
        """
        self.is_dirty = False
        here = {"position": self.source.position(), "stage": self._stage}
        done, self._done = self._done, []
        if not (whole or self._must_be_whole or self._parts >= _MAX_PARTS or self._part_bytes > _MAX_PART_BYTES):
            self._parts += 1
            return {part_key(self.path, self._parts - 1): _json({**here, "steps": done})}
        rows: dict[str, bytes | None] = dict.fromkeys(part_key(self.path, number) for number in range(self._parts))
        rows[whole_key(self.path)] = _json({**here, "stream": self.stream.snapshot(), "ended": dict(self._ended)})
        self._parts, self._part_bytes, self._must_be_whole = 0, 0, False
        return rows

    @property
    def keys(self) -> list[str]:
        """The keys of everything that the outbox holds of it."""
        return [whole_key(self.path), *(part_key(self.path, number) for number in range(self._parts))]

    def close(self) -> None:
        """Let go of the source."""
        self.source.close()
