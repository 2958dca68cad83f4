"""Processes that are killed with SIGKILL: what was put is there, what was not removed is sent again as the same bytes."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from otelbridge.otlp.outbox import Outbox
from otelbridge.records import Request

DESTINATION = "grpc http://collector:4317"

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
    outbox.put("grpc http://collector:4317", Request("traces", body(i), i))
    print(i, flush=True)
"""
)

SENDS_THEN_HANGS = (
    HEAD
    + """
for kept in Outbox.existing(Path(sys.argv[1])).pending():
    print(kept.id, kept.request.body.hex(), flush=True)
    sys.stdin.read()
"""
)

PUTS_MANY_FOR_EVER = (
    HEAD
    + """
outbox = Outbox(Path(sys.argv[1]))
for i in range(10**9):
    outbox.put_many([("grpc http://collector:4317", Request("traces", body(10 * i + j), 10 * i + j)) for j in range(10)])
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


def test_killed_between_send_and_remove_the_same_bytes_are_sent_again(tmp_path: Path) -> None:
    with Outbox(tmp_path) as outbox:
        outbox.put_many([(DESTINATION, Request("traces", body(i), i)) for i in range(3)])
    first = lines_before_kill(SENDS_THEN_HANGS, tmp_path, 1)
    again = lines_before_kill(SENDS_THEN_HANGS, tmp_path, 1)
    assert first == again == [f"1 {body(0).hex()}\n"]
    with Outbox.existing(tmp_path) as outbox:
        assert [k.request.body for k in outbox.pending()] == [body(i) for i in range(3)]


def test_the_lock_of_a_killed_process_is_gone(tmp_path: Path) -> None:
    lines_before_kill(PUTS_FOR_EVER, tmp_path, 1)
    with Outbox(tmp_path) as outbox:
        outbox.put(DESTINATION, Request("traces", b"later", 1))
        assert [k.request.body for k in outbox.pending()][-1] == b"later"
