"""What is there is read as fast as can be, wherever it is: a full pipe makes QEMU stand still, rotated parts may vanish."""

from __future__ import annotations

import gzip
import os
import re
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.conftest import need
from tests.receiver import Receiver
from tests.service.living import later
from tests.service.running import Running, Writer, bodies, config_for, convert, converted, received, running, until

RECORDING = Path(__file__).resolve().parents[1] / "recordings/debian-7.2/precopy-busy-pages/src.log.gz"
REMOTE = "/lib/systemd/systemd-journal-remote"
TIMES = 10
LINE = re.compile(rb"(?m)^(\d+)@(\d+)\.(\d{6}):(.*)$")


def lines_of(times: int) -> bytes:
    """The recording, so many times one after the other, each an hour later."""
    data = gzip.decompress(RECORDING.read_bytes())
    return b"".join(later(data, 3600 * number) for number in range(times))


def spans_of(receiver: Receiver) -> Counter[tuple[str, int, int]]:
    """How often a span of that name came with these two times; ids are other ones under another name of the stream."""
    requests = [ExportTraceServiceRequest.FromString(body) for body in bodies(receiver, "traces")]
    scopes = [scope for request in requests for resource in request.resource_spans for scope in resource.scope_spans]
    return Counter((span.name, span.start_time_unix_nano, span.end_time_unix_nano) for scope in scopes for span in scope.spans)


def all_taken(service: Running) -> None:
    """Wait until everything has ended and was accepted."""
    until(lambda: all(one["ended"] and one["bytes"] for one in service.status()["inputs"]), 30)
    until(lambda: not service.status()["outbox"]["pending_bytes"])


def test_a_migration_with_every_page_traced_passes_through_a_pipe(tmp_path: Path) -> None:
    """18 MB; twice a second what fits into a pipe, 64 KiB, would take more than two minutes."""
    pipe, whole, data = tmp_path / "vm.fifo", tmp_path / "vm.log", lines_of(TIMES)
    os.mkfifo(pipe)
    whole.write_bytes(data)
    with Receiver() as receiver, Receiver() as wanted:
        config = config_for(tmp_path, receiver, inputs=[{"pipe": str(pipe), "idle_timeout": "3s"}])
        writer = subprocess.Popen(["sh", "-c", 'exec cat "$0" > "$1"', whole, pipe])  # it waits for the service
        with writer, running(tmp_path, config) as service:
            until(lambda: service.status()["inputs"][0]["bytes"] == len(data), 30)
            all_taken(service)
            assert service.status()["losses"] == {}
            assert service.stop() == 0
        convert([whole], wanted)
    assert len(spans_of(wanted)) > TIMES * 100
    assert spans_of(receiver) == spans_of(wanted)


def test_a_journal_of_a_day_is_read_as_fast_as_it_is_given(tmp_path: Path) -> None:
    """What journalctl writes into its pipe, 64 KiB twice a second, would take a minute and a half."""
    need("journalctl", "reads the journal")
    need(REMOTE, "writes files of the journal")
    journal, whole = tmp_path / "journal", tmp_path / "whole.json"
    journal.mkdir()
    entries = b"".join(
        b"__REALTIME_TIMESTAMP=%b%b\n__MONOTONIC_TIMESTAMP=%b%b\n_BOOT_ID=%032x\n_PID=%b\nSYSLOG_IDENTIFIER=qemu\nMESSAGE=%b\n\n"
        % (second, fraction, second, fraction, 1, pid, text)
        for pid, second, fraction, text in LINE.findall(lines_of(1))
    )
    command = [REMOTE, f"--output={journal}/one.journal", "--split-mode=none", "-"]
    subprocess.run(command, input=entries, check=True, capture_output=True)
    export = ["journalctl", f"--directory={journal}", "--output=json", "--all", "--merge", "--no-tail", "--quiet"]
    whole.write_bytes(subprocess.run(export, check=True, capture_output=True).stdout)
    with Receiver() as receiver, Receiver() as wanted:
        inputs = [{"journald": ["SYSLOG_IDENTIFIER=qemu"], "journal": str(journal), "from": "start", "idle_timeout": "3s"}]
        with running(tmp_path, config_for(tmp_path, receiver, inputs=inputs)) as service:
            until(lambda: service.status()["inputs"][0]["bytes"] == whole.stat().st_size, 30)
            all_taken(service)
            assert service.stop() == 0
        convert([whole], wanted)
    assert len(spans_of(wanted)) > 100
    assert spans_of(receiver) == spans_of(wanted)


def test_hundreds_of_small_parts_that_were_rotated_while_it_was_down_are_read_at_once(tmp_path: Path) -> None:
    """One of them twice a second would take two and a half minutes."""
    log, whole, data = tmp_path / "logs/vm.log", tmp_path / "vm.log", lines_of(1)
    log.parent.mkdir()
    whole.write_bytes(data)
    first, *rest = (data[place : place + 6000] for place in range(0, len(data), 6000))
    log.write_bytes(first)
    os.utime(log, (1_795_400_000,) * 2)
    with Receiver() as receiver, Receiver() as wanted:
        with running(tmp_path, config_for(tmp_path, receiver)) as service:
            until(lambda: service.status()["inputs"][0]["bytes"] == len(first))
            assert service.stop() == 0
            log.rename(f"{log}.{len(rest) - 1}")
            for number, part in enumerate(rest, 1):
                path = Path(f"{log}.{len(rest) - number - 1}") if number < len(rest) else log
                path.write_bytes(part)
                os.utime(path, (1_795_400_000 + number,) * 2)
            service.start()
            until(lambda: service.status()["inputs"][0]["bytes"] == len(data), 30)
            all_taken(service)
            assert service.stop() == 0
        convert([whole], wanted)
    assert spans_of(receiver) == spans_of(wanted)


@pytest.mark.parametrize("is_alone", [False, True])
@pytest.mark.parametrize("how", ["paused", "stopped", "killed"])
def test_a_log_that_is_rotated_before_it_is_seen_loses_nothing(how: str, is_alone: bool, tmp_path: Path) -> None:
    """As a QEMU's that is started for an incoming migration and traces every page; on a host with others, or the first."""
    data, whole = lines_of(1), tmp_path / "whole" / "vm.log"
    whole.parent.mkdir()
    whole.write_bytes(data)
    (tmp_path / "logs").mkdir()
    if not is_alone:
        (tmp_path / "logs" / "other.log").write_bytes(b"starting up\n")
    with Receiver() as receiver, running(tmp_path, config_for(tmp_path, receiver)) as service:
        until(lambda: service.status()["uptime_s"] > 1 and len(service.status()["inputs"]) == (not is_alone))
        if how == "paused":
            service.send(signal.SIGSTOP)
        elif how == "stopped":
            assert service.stop() == 0
        else:
            service.kill()
        writer = Writer(tmp_path / "logs" / "vm.log", data, max_bytes=len(data) // 4, backups=6)
        writer.write(len(data))
        writer.close()
        if how == "paused":
            service.send(signal.SIGCONT)
        else:
            service.start()
        until(lambda: sum(one["bytes"] for one in service.status()["inputs"]) >= len(data), 30)
        until(lambda: all(one["ended"] for one in service.status()["inputs"]), 30)
        until(lambda: not service.status()["outbox"]["pending_bytes"])
        assert service.stop() == 0
        assert received(receiver) == converted([whole])
