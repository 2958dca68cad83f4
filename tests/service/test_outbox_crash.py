"""A process killed with SIGKILL at any moment: nothing is lost, and what is sent again is the same bytes."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from otelbridge.otlp.outbox import Outbox
from otelbridge.records import Signal
from tests.receiver import ACCEPTED, TOO_LARGE, Answer, Receiver
from tests.service.rig import names, points, traces

# The state says how many were committed, so it is on the disk exactly with them.
WORK = """
import sys, time
from pathlib import Path
from tests.service.rig import NAME, Rig, destination, points, traces
folder, url, total = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
rig = Rig(folder, [destination(url)])
done = int(rig.outbox.states().get("done", b"0"))
print("begun", flush=True)
while done < total:
    done += 1
    rig.outbox.commit({"done": b"%d" % done}, [(NAME, traces(done, 8)), (NAME, points(done))])
    print(done, flush=True)
rig.drained()
rig.senders.stop(time.monotonic() + 10)
rig.outbox.close()
"""


class Killer(Receiver):
    """Kills the sender when the request of that number comes, before it is answered or a moment after."""

    victim: subprocess.Popen[str] | None = None
    kill_at = 0
    delay_s: float | None = None

    def take(self, signal: Signal, body: bytes, headers: dict[str, str]) -> Answer:
        answer = super().take(signal, body, headers)
        if self.victim is not None and len(self.attempts) == self.kill_at:
            if self.delay_s is None:
                self.victim.kill()
            else:
                threading.Timer(self.delay_s, self.victim.kill).start()
        return answer


@contextmanager
def child(folder: Path, url: str, total: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", WORK, str(folder), url, str(total)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def finish(folder: Path, receiver: Receiver, total: int) -> None:
    """Let a last process do the rest; then everything has arrived, and what came twice came as the same bytes."""
    with child(folder, receiver.http_url, total) as process:
        assert process.wait(timeout=120) == 0
    with Outbox.existing(folder) as outbox:
        assert outbox.verify() == []
        assert list(outbox.pending()) == []
        assert outbox.states() == {"done": b"%d" % total}
    arrived = Counter(receiver.requests)
    assert set(arrived) == {(r.signal, r.body) for n in range(1, total + 1) for r in (traces(n, 8), points(n))}


@pytest.mark.parametrize("delay_s", [None, 0.0, 0.001, 0.003])
@pytest.mark.parametrize("kill_at", [1, 2, 9])
def test_killed_between_send_and_settle(tmp_path: Path, kill_at: int, delay_s: float | None) -> None:
    with Killer() as receiver:
        receiver.kill_at, receiver.delay_s = kill_at, delay_s
        with child(tmp_path, receiver.http_url, 1_000_000) as process:
            receiver.victim = process
            assert process.wait(timeout=60) == -signal.SIGKILL
            receiver.victim = None
        with Outbox.existing(tmp_path) as outbox:
            done = int(outbox.states()["done"])
        finish(tmp_path, receiver, done)
        # At most what was under way was sent twice: four requests of traces and one of points.
        assert len(receiver.requests) - 2 * done <= 5


def test_killed_again_and_again_at_random_moments(tmp_path: Path) -> None:
    chance = random.Random(7)  # noqa: S311
    with Receiver() as receiver:
        last = 0
        for _ in range(20):
            with child(tmp_path, receiver.http_url, 1_000_000) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == "begun\n"
                time.sleep(chance.uniform(0, 0.08))
                process.kill()
                said = [int(line) for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
            # What a commit said to have kept is kept.
            with Outbox.existing(tmp_path) as outbox:
                kept = int(outbox.states().get("done", b"0"))
            assert kept >= max([last, *said])
            last = kept
        finish(tmp_path, receiver, last + 1)
        assert len(receiver.requests) - 2 * (last + 1) <= 20 * 5


def test_killed_between_the_halves_of_a_request(tmp_path: Path) -> None:
    with Killer() as receiver:
        receiver.script("traces", [TOO_LARGE, ACCEPTED, ACCEPTED])
        receiver.script("metrics", [])
        with child(tmp_path, receiver.http_url, 1) as process:
            receiver.victim = process
            receiver.kill_at = 3
            process.wait(timeout=60)
            receiver.victim = None
        with child(tmp_path, receiver.http_url, 1) as process:
            assert process.wait(timeout=60) == 0
        spans = Counter(names(body for kind, body in receiver.requests if kind == "traces"))
        assert set(spans) == set(names([traces(1, 8).body]))
        # One half at most came twice.
        assert sum(spans.values()) <= 12
