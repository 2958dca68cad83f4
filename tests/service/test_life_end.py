"""A QEMU that dies, one that is started again on the same log, and a log that is removed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from otelbridge.otlp.outbox import Outbox
from tests.receiver import Receiver
from tests.service.living import HALF, RECORDING, all_read, append, drained, ended, is_incomplete, later, log_in, named
from tests.service.running import config_for, running, until

LAST_NS = int(re.findall(rb"@(\d+\.\d{6}):", RECORDING[:HALF])[-1].replace(b".", b"")) * 1000
SECTIONS_ENDED = RECORDING.count(b":savevm_section_end ")
HASTY = (
    "import otelbridge.service.flows as flows, otelbridge.service.service as service; "
    "flows.PAUSE_S, service._FORGET_S = 2.0, 3.0; from otelbridge.cli import main; main()"
)
"""What is removed is forgotten after seconds, not after a minute."""


def test_a_log_that_simply_ends_ends_its_migration_at_the_last_time_that_was_seen(tmp_path: Path) -> None:
    log_in(tmp_path, RECORDING[:HALF])
    with Receiver() as receiver, running(tmp_path, config_for(tmp_path, receiver)) as service:
        all_read(service, HALF)
        assert service.status()["spans_open"] > 0
        ended(service)
        assert service.status()["spans_open"] == 0
        assert service.stop() == 0
        (migration,) = named(receiver, "migration")
        assert is_incomplete(migration)
        cut = [span for span in receiver.spans() if is_incomplete(span)]
        assert {span.end_time_unix_nano for span in cut} == {LAST_NS}
        assert "savevm.section" in {span.name for span in cut}


@pytest.mark.parametrize("how", ["at once", "after a restart of the service"])
def test_a_qemu_that_is_started_again_on_the_same_log_gives_new_spans_and_totals_that_go_on(how: str, tmp_path: Path) -> None:
    path = log_in(tmp_path, RECORDING[:HALF])
    with Receiver() as receiver, running(tmp_path, config_for(tmp_path, receiver)) as service:
        all_read(service, HALF)
        ended(service)
        if how != "at once":
            assert service.stop() == 0
            service.start()
        append(path, later(RECORDING, 3600).replace(b"21823@", b"31823@"))
        until(lambda: len(named(receiver, "migration")) == 2)
        ended(service)
        assert service.stop() == 0
        first, second = named(receiver, "migration")
        assert (is_incomplete(first), is_incomplete(second)) == (True, False)
        assert first.trace_id != second.trace_id
        assert sum(is_incomplete(span) and span.trace_id == second.trace_id for span in receiver.spans()) == 0
        counts: dict[bytes, list[tuple[int, int, int]]] = {}
        for point in (each.point for each in receiver.points() if each.metric.name == "qemu.migration.section.duration"):
            key = b"".join(sorted(a.SerializeToString(deterministic=True) for a in point.attributes))
            counts.setdefault(key, []).append((point.time_unix_nano, point.start_time_unix_nano, point.count))
        assert counts
        for series in counts.values():
            assert len({start for _, start, _ in series}) == 1
            in_time = [count for _, _, count in sorted(series)]
            assert in_time == sorted(in_time)
        begun = RECORDING[:HALF].count(b":savevm_section_end ")
        assert sum(max(count for _, _, count in series) for series in counts.values()) == begun + SECTIONS_ENDED


def test_a_log_without_times_is_read_when_its_qemu_was_started_again_with_them(tmp_path: Path) -> None:
    without = re.sub(rb"^\d+@[\d.]+:", b"", RECORDING, flags=re.MULTILINE)
    path = log_in(tmp_path, without)
    with Receiver() as receiver, running(tmp_path, config_for(tmp_path, receiver)) as service:
        until(lambda: "carry no time stamps" in service.log)
        ended(service)
        assert "carry no time stamps" in service.status()["inputs"][0]["problem"]
        assert (receiver.spans(), receiver.points()) == ([], [])
        append(path, RECORDING)
        until(lambda: named(receiver, "migration"))
        assert service.status()["inputs"][0]["problem"] == ""
        assert service.status()["losses"] == {"otelbridge.reader.data_refused": len(without)}
        assert service.stop() == 0


def test_a_log_that_is_removed_is_ended_and_forgotten(tmp_path: Path) -> None:
    path, other = log_in(tmp_path, RECORDING[:HALF]), log_in(tmp_path, later(RECORDING, 600), "other.log")
    config = {"inputs": [{"files": str(tmp_path / "logs" / "*.log")}]}
    with (
        Receiver() as receiver,
        running(tmp_path, {**config_for(tmp_path, receiver), **config}, command=(sys.executable, "-c", HASTY)) as service,
    ):
        all_read(service, HALF + len(RECORDING))
        path.unlink()
        until(lambda: len(named(receiver, "migration")) == 2)
        assert [is_incomplete(span) for span in named(receiver, "migration")] == [True, False]
        until(lambda: [one["path"] for one in service.status()["inputs"]] == [str(other)])
        drained(service)
        assert service.stop() == 0
    with Outbox.existing(tmp_path / "outbox") as outbox:
        keys = set(outbox.states())
    assert any(str(other) in key for key in keys)
    assert not any(str(path) in key for key in keys)
