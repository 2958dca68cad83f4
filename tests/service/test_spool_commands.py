"""`otelbridge spool` on the outbox of a service."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from otelbridge.otlp.outbox import Outbox
from otelbridge.service.outbox import ServiceOutbox
from tests.receiver import Receiver
from tests.service.rig import MIB, NAME, names, points, take, traces


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a service left: a state, two requests that wait and one that was refused."""
    folder = tmp_path / "outbox"
    outbox = service(folder)
    outbox.commit({"file:a": b"1"}, [(NAME, traces(1)), (NAME, traces(2)), (NAME, points(3))])
    kept = take(outbox)
    assert kept is not None
    outbox.reject(kept.id, "HTTP 400 Bad Request: \u201eno\u201c\nsuch tenant")
    outbox.close()
    return folder


def service(folder: Path) -> ServiceOutbox:
    return ServiceOutbox(folder, limit_bytes=MIB, rejected_limit_bytes=MIB)


def spool(*arguments: object, answer: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "otelbridge", "spool", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, input=answer)


def test_verify_counts_and_finds_nothing_wrong(folder: Path) -> None:
    done = spool("verify", folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2 requests wait, 1 were refused and are kept; 0 problems.\n"


def test_show_prints_what_waits(folder: Path) -> None:
    lines = [json.loads(line) for line in spool("show", folder).stdout.splitlines()]
    assert [next(iter(line)) for line in lines] == ["resourceSpans", "resourceMetrics"]


def test_show_prints_what_was_refused_with_the_words(folder: Path) -> None:
    (line,) = spool("show", "--rejected", folder).stdout.splitlines()
    found = json.loads(line)
    assert found["reason"] == "HTTP 400 Bad Request: \u201eno\u201c\nsuch tenant"
    assert (found["destination"], found["signal"], found["items"]) == (NAME, "traces", 3)
    assert found["request"]["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"] == "1/0"


def test_replay_needs_an_address_for_a_name_and_then_delivers(folder: Path) -> None:
    done = spool("replay", folder)
    assert done.returncode == 2
    assert "requests wait for 'collector', a destination of a service's configuration" in done.stderr
    assert "--to" in done.stderr
    with Receiver() as receiver:
        assert spool("replay", folder, "--to", receiver.http_url).returncode == 0
        assert names(body for signal, body in receiver.requests if signal == "traces") == names([traces(2).body])
        assert len(receiver.points()) == 3
    outbox = service(folder)
    assert outbox.states() == {"file:a": b"1"}
    assert outbox.status().pending == {}
    outbox.close()


def test_drop_asks_and_only_what_was_refused_goes_where_that_is_said(folder: Path) -> None:
    unsure = spool("drop", folder, answer="n\n")
    assert unsure.returncode != 0
    assert "2 requests that wait and 1 that were refused will be gone" in unsure.stderr
    assert spool("drop", folder, answer="").returncode != 0
    assert spool("drop", "--rejected", folder, answer="y\n").stdout == "Dropped 1 requests.\n"
    assert spool("drop", "--yes", folder).stdout == "Dropped 2 requests.\n"
    with Outbox.existing(folder) as outbox:
        assert outbox.states() == {"file:a": b"1"}


@pytest.mark.parametrize("command", ["verify", "show", "replay", "drop"])
def test_a_service_that_runs_is_named(folder: Path, command: str) -> None:
    outbox = service(folder)
    done = spool(command, folder, *(["--yes"] if command == "drop" else []))
    assert done.returncode == 6
    assert "in use by another process: a service (`otelbridge run`) or another command has it open. Stop that" in done.stderr
    outbox.close()
