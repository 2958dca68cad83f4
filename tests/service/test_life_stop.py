"""Start and end: what is needed for a start, what an end leaves behind, and that the next start goes on from there."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from otelbridge.otlp.outbox import Outbox
from tests.receiver import Receiver
from tests.service.living import HALF, NOBODY, RECORDING, all_read, append, ended, later, log_in
from tests.service.running import OTELBRIDGE, config_for, converted, environment, received, running, until


def run_once(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A start that is expected to end by itself."""
    command = [*OTELBRIDGE, "run", *arguments]
    return subprocess.run(
        command, env=environment(**env), cwd=folder, capture_output=True, text=True, timeout=20, check=False
    )  # fmt: skip


def test_logs_and_the_variables_of_opentelemetry_are_enough(tmp_path: Path) -> None:
    path, state = log_in(tmp_path), tmp_path / "state"
    with Receiver() as receiver:
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.http_url,
            "OTEL_EXPORTER_OTLP_HEADERS": "x-scope-orgid=tenant%201",
            "OTEL_RESOURCE_ATTRIBUTES": "host.name=node-7",
            "STATE_DIRECTORY": str(state),
        }
        with running(tmp_path, {}, start=False, arguments=[str(path)], **env) as service:
            # The health server's usual port may be another test's.
            service.start(wait=False)
            until(lambda: "Started." in service.log or "cannot listen" in service.log)
            if "cannot listen" in service.log:
                pytest.skip("port 13133 is taken")
            until(receiver.spans)
            until(receiver.points)
            assert service.stop() == 0
        assert {headers["x-scope-orgid"] for headers in receiver.headers} == {"tenant 1"}
        spans, _ = received(receiver)
        assert all(b"node-7" in content for contents in spans.values() for content in contents)
    assert (state / "outbox.db").is_file()


def test_a_stop_without_a_collector_leaves_everything_in_the_outbox_and_the_next_start_delivers_it(tmp_path: Path) -> None:
    path = log_in(tmp_path)
    with Receiver() as receiver, running(tmp_path, config_for(tmp_path, NOBODY)) as service:
        all_read(service, len(RECORDING))
        assert service.stop(5.0) == 0
        verify = subprocess.run([*OTELBRIDGE, "spool", "verify", str(tmp_path / "outbox")], capture_output=True, text=True,
                                env=environment(), check=False)  # fmt: skip
        assert verify.returncode == 0, verify.stdout + verify.stderr
        assert "0 problems" in verify.stdout
        show = subprocess.run([*OTELBRIDGE, "spool", "show", str(tmp_path / "outbox")], capture_output=True, text=True,
                              env=environment(), check=False)  # fmt: skip
        assert show.returncode == 0
        keys = {key for line in show.stdout.splitlines() for key in json.loads(line)}
        assert keys == {"resourceSpans", "resourceMetrics"}
        service.write_config(destinations={"receiver": {"endpoint": receiver.http_url}})
        service.start()
        until(receiver.points)
        append(path, later(RECORDING, 600))
        all_read(service, 2 * len(RECORDING))
        ended(service)
        assert service.stop() == 0
        assert received(receiver) == converted([path])


def test_what_waits_in_a_pipe_is_read_before_the_end(tmp_path: Path) -> None:
    """It is nowhere else. A service that is stopped reads nothing, so it all waits when SIGTERM comes."""
    pipe, data = tmp_path / "vm.fifo", RECORDING * (1_000_000 // len(RECORDING))
    os.mkfifo(pipe)
    with Receiver() as receiver:
        config = config_for(tmp_path, receiver, inputs=[{"pipe": str(pipe), "idle_timeout": "3s"}])
        with running(tmp_path, config) as service, pipe.open("wb", buffering=0) as writer:
            writer.write(RECORDING)
            all_read(service, len(RECORDING))
            service.send(signal.SIGSTOP)
            writer.write(data)
            service.send(signal.SIGTERM)
            service.send(signal.SIGCONT)
            assert service.stop() == 0
            service.start()
            assert service.status()["inputs"][0]["bytes"] == len(RECORDING) + len(data)
            assert service.stop() == 0


@pytest.mark.parametrize(("by", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_an_end_in_the_middle_of_a_migration_does_not_end_the_migration(by: signal.Signals, code: int, tmp_path: Path) -> None:
    path = log_in(tmp_path, RECORDING[:HALF])
    with Receiver() as receiver, running(tmp_path, config_for(tmp_path, receiver)) as service:
        until(lambda: service.status()["spans_open"] > 0)
        assert service.stop(by=by) == code, service.log
        assert "what was not yet delivered is not" not in service.log
        assert not any(span.name == "migration" for span in receiver.spans())
        append(path, RECORDING[HALF:])
        service.start()
        ended(service)
        assert service.stop() == 0
        assert received(receiver) == converted([path])


def test_a_second_signal_while_it_ends_does_no_harm(tmp_path: Path) -> None:
    log_in(tmp_path)
    with silent_server() as url, running(tmp_path, config_for(tmp_path, url, shutdown={"grace": "2s"})) as service:
        until(lambda: any(one["state"] == "sending" for one in service.status()["destinations"]))
        service.send(signal.SIGTERM)
        until(lambda: "Stopping" in service.log)
        for _ in range(20):
            service.send(signal.SIGTERM)
        assert service.process is not None
        while service.process.poll() is None:
            service.send(signal.SIGTERM)
        assert service.process.returncode == 0
    with Outbox.existing(tmp_path / "outbox") as outbox:
        assert outbox.verify() == []
        assert list(outbox.pending())


@contextmanager
def silent_server() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_second_service_on_the_same_outbox_refuses_to_start(tmp_path: Path) -> None:
    with running(tmp_path, config_for(tmp_path, NOBODY)):
        done = run_once(tmp_path, "--config", "otelbridge.yaml")
    assert done.returncode == 6
    assert str(tmp_path / "outbox") in done.stderr
    assert "Traceback" not in done.stderr


def test_problems_of_the_configuration_are_all_shown_and_nothing_starts(tmp_path: Path) -> None:
    (tmp_path / "otelbridge.yaml").write_text("version: 1\ninputs: [{fils: /a.log}]\nlog: {level: loud}\n")
    done = run_once(tmp_path, "--config", "otelbridge.yaml")
    assert done.returncode == 3
    assert "otelbridge.yaml:2:" in done.stderr
    assert "otelbridge.yaml:3:" in done.stderr


def test_problems_of_a_mapping_are_shown_and_nothing_starts(tmp_path: Path) -> None:
    mapping = tmp_path / "my.yaml"
    mapping.write_text("version: 1\nscope: my\nspans: {my.x: {begin: no_such_event, end: savevm_section_end}}\n")
    with running(tmp_path, config_for(tmp_path, NOBODY, mappings=["my.yaml"]), start=False):
        done = run_once(tmp_path, "--config", "otelbridge.yaml")
    assert done.returncode == 3
    assert "my.yaml:3:" in done.stderr
    assert "no_such_event" in done.stderr


def test_a_health_port_in_use_is_told_and_nothing_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running(tmp_path, config_for(tmp_path, NOBODY, health={"address": f"127.0.0.1:{port}"}), start=False):
            done = run_once(tmp_path, "--config", "otelbridge.yaml")
    assert done.returncode == 2
    assert str(port) in done.stderr
    assert "Started." not in done.stderr


def test_where_no_file_matches_it_says_what_it_waits_for_and_begins_when_one_comes(tmp_path: Path) -> None:
    with Receiver() as receiver, running(tmp_path, config_for(tmp_path, receiver)) as service:
        until(lambda: str(tmp_path / "logs" / "*.log") in service.log)
        log_in(tmp_path)
        until(receiver.spans)
        assert service.stop() == 0
