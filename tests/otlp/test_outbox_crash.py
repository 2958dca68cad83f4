"""Processes that are killed with SIGKILL: what was put is there, what was not removed is sent again as the same bytes."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO

import pytest

from otelbridge.otlp.outbox import Outbox
from otelbridge.records import Request

DESTINATION = "grpc://collector:4317"

HEAD = """
import hashlib, sys
from pathlib import Path
from otelbridge.otlp.outbox import Outbox
from otelbridge.records import Request

def body(i):
    return hashlib.shake_128(b"%d" % i).digest(10_000 + 997 * (i % 7))
"""

PUTS_FOR_EVER = (
    HEAD
    + """
outbox = Outbox(Path(sys.argv[1]))
for i in range(10**9):
    outbox.put("grpc://collector:4317", Request("traces", body(i), i))
    print(i, flush=True)
"""
)

REPLAYS = """
import sys
from pathlib import Path
from otelbridge.otlp.replay import replay_spool
print(replay_spool(Path(sys.argv[1]), to=None, env={}, give_up_s=30).outcomes["traces"].delivered)
"""

PUTS_MANY_FOR_EVER = (
    HEAD
    + """
outbox = Outbox(Path(sys.argv[1]))
for i in range(10**9):
    outbox.put_many([("grpc://collector:4317", Request("traces", body(10 * i + j), 10 * i + j)) for j in range(10)])
    print(i, flush=True)
"""
)


def body(i: int) -> bytes:
    return hashlib.shake_128(b"%d" % i).digest(10_000 + 997 * (i % 7))


@contextmanager
def child(program: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    command = [sys.executable, "-c", program, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout
        finally:
            process.kill()


def lines_before_kill(program: str, folder: Path, count: int) -> list[str]:
    """Everything the child said; it is killed after `count` lines, at whatever it is then doing."""
    with child(program, folder) as (process, said):
        lines = [said.readline() for _ in range(count)]
        process.send_signal(signal.SIGKILL)
        # What it had said but we had not read yet counts too; the last line may be torn.
        lines += [line for line in said.read().splitlines(keepends=True) if line.endswith("\n")]
        assert process.wait(timeout=30) == -signal.SIGKILL
    return lines


@pytest.mark.parametrize("count", [1, 3, 17, 60])
def test_every_put_that_returned_survives_sigkill(tmp_path: Path, count: int) -> None:
    said = lines_before_kill(PUTS_FOR_EVER, tmp_path, count)
    with Outbox.existing(tmp_path) as outbox:
        assert outbox.verify() == []
        kept = [k.request for k in outbox.pending()]
    assert kept[: len(said)] == [Request("traces", body(i), i) for i in range(len(said))]
    # At most the one whose put had not returned yet.
    assert len(kept) - len(said) in {0, 1}


def test_put_many_survives_sigkill_whole_or_not_at_all(tmp_path: Path) -> None:
    said = lines_before_kill(PUTS_MANY_FOR_EVER, tmp_path, 5)
    with Outbox.existing(tmp_path) as outbox:
        kept = [k.request.items for k in outbox.pending()]
    assert len(kept) % 10 == 0
    assert kept == list(range(len(kept)))
    assert len(kept) // 10 - len(said) in {0, 1}


class Collector(ThreadingHTTPServer):
    """Remembers what is posted; from the request on that is to be the last it kills the sender instead of answering."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[bytes] = []
        self.kill_at = 0
        self.sender: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/traces"


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        if len(self.server.bodies) == self.server.kill_at and self.server.sender is not None:
            self.server.sender.kill()
            return
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@contextmanager
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_killed_between_send_and_remove_the_same_bytes_are_sent_again(tmp_path: Path) -> None:
    with collector() as server:
        with Outbox(tmp_path) as outbox:
            outbox.put_many([(server.url, Request("traces", body(i), 1)) for i in range(4)])
        server.kill_at = 2
        with child(REPLAYS, tmp_path) as (process, _):
            server.sender = process
            assert process.wait(timeout=30) == -signal.SIGKILL
        # The first was accepted and is gone; the second arrived, but nobody could note that.
        with Outbox.existing(tmp_path) as outbox:
            assert [k.request.body for k in outbox.pending()] == [body(i) for i in (1, 2, 3)]
        with child(REPLAYS, tmp_path) as (process, said):
            assert said.read() == "3\n"
            assert process.wait(timeout=30) == 0
    assert server.bodies == [body(i) for i in (0, 1, 1, 2, 3)]


def test_the_lock_of_a_killed_process_is_gone(tmp_path: Path) -> None:
    lines_before_kill(PUTS_FOR_EVER, tmp_path, 1)
    with Outbox(tmp_path) as outbox:
        outbox.put(DESTINATION, Request("traces", b"later", 1))
        assert [k.request.body for k in outbox.pending()][-1] == b"later"
