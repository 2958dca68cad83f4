"""A stream with what it is followed by: what a crash leaves is enough to go on, whatever happens in one stream."""

from __future__ import annotations

import random
from typing import Any

import pytest

from otelbridge.records import SECOND_NS
from otelbridge.service.flows import Flow, saved_flows
from otelbridge.service.follow.followed import Piece
from otelbridge.service.streams import Stream
from tests.service.test_streams import KIND, RECORDINGS, Collected
from tests.service.test_streams import converted as convert_one

LOG = RECORDINGS / "debian-7.2/precopy-busy/src.log"


class Bytes:
    """What is followed, without files: where it stands is all that it has to remember."""

    lag_bytes, problem, gone, at_risk = 0, "", False, False

    def __init__(self, data: bytes, place: int, seed: int) -> None:
        self.data, self.place = data, place
        self._chance = random.Random(seed)  # noqa: S311 - where it is cut

    def read(self, limit_bytes: int) -> Piece | None:
        piece = self.data[self.place : self.place + self._chance.randint(1, min(limit_bytes, 9000))]
        self.place += len(piece)
        return Piece(piece) if piece else None

    def position(self) -> dict[str, Any]:
        return {"place": self.place}

    def close(self) -> None:
        """Nothing is open."""


def flow_at(source: Bytes, saved: dict[str, bytes]) -> Flow:
    return Flow(str(LOG), KIND, source, (), 600 * SECOND_NS, 0.0, saved_flows(saved).get(str(LOG)))


@pytest.mark.parametrize("seed", range(8))
def test_a_flow_that_is_cut_off_after_any_commit_goes_on_without_loss_or_doubles(seed: int) -> None:
    """What was read since a commit is lost with the process, and read once more."""
    chance, data = random.Random(seed), LOG.read_bytes()  # noqa: S311
    kept: dict[str, bytes] = {}
    sink, now_s = Collected(), 0.0
    flow = flow_at(Bytes(data, 0, seed), kept)
    while flow.source.place < len(data):  # type: ignore[attr-defined]
        for _ in range(chance.randint(0, 3)):
            now_s += 0.1
            flow.read(1 << 18, now_s)
        if chance.random() < 0.7:
            sink.take(flow.take())
            for key, body in flow.save(whole=chance.random() < 0.1).items():
                kept.pop(key, None)
                kept.update({key: body} if body is not None else {})
        if chance.random() < 0.3:
            saved = saved_flows(kept).get(str(LOG))
            flow = flow_at(Bytes(data, saved.position["place"] if saved else 0, seed + flow.source.place), kept)  # type: ignore[attr-defined]
    flow.end()
    sink.take(flow.take())
    assert sink.found == convert_one(LOG)


def test_a_bug_that_one_stream_meets_is_told_and_ends_nothing_but_what_was_open_in_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug cannot be had for the asking, so one is put in: the engine's door raises once."""
    feed = Stream.feed

    def broken(self: Stream, data: bytes) -> None:
        if b"savevm_state_header" in data:
            raise ZeroDivisionError
        feed(self, data)

    monkeypatch.setattr(Stream, "feed", broken)
    flow = flow_at(Bytes(LOG.read_bytes()[:20_000], 0, 1), {})
    while flow.read(1 << 18, 0.0):
        pass
    assert flow.counts["failed"] > 0
    assert flow.counts["bytes"] > 0
    assert "a bug in otelbridge" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    rows = {key: body for key, body in flow.save().items() if body is not None}
    monkeypatch.undo()
    assert flow_at(Bytes(b"", 0, 1), rows).counts["failed"] == flow.counts["failed"]


def test_rows_behind_a_missing_one_are_not_used() -> None:
    """A damaged row leaves a gap: what came after it is read again from where it was known."""
    flow = flow_at(Bytes(LOG.read_bytes(), 0, 3), {})
    rows: dict[str, bytes] = {}
    for _ in range(4):
        flow.read(1 << 18, 0.0)
        rows.update({key: body for key, body in flow.save().items() if body is not None})
    places = [part["position"]["place"] for part in saved_flows(rows)[str(LOG)].parts]
    assert len(places) == 3
    del rows[next(key for key in rows if key.startswith("since/1/"))]
    assert [part["position"]["place"] for part in saved_flows(rows)[str(LOG)].parts] == places[:1]
