"""What the pages of a running service show while all is well, while it is full, and while it hangs."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from otelbridge.stats import STATS
from tests.receiver import Receiver
from tests.service.living import NOBODY, RECORDING, all_read, append, counter, drained, ended, later, log_in
from tests.service.running import config_for, converted, received, running, until

HASTY = "import otelbridge.service.health as health; health.HEART_LIMIT_S = 1.0; from otelbridge.cli import main; main()"
"""A loop that has not beaten for a second hangs, instead of half a minute."""


def test_all_pages_of_a_service_that_does_well(tmp_path: Path) -> None:
    path = log_in(tmp_path)
    with Receiver() as receiver, running(tmp_path, config_for(tmp_path, receiver)) as service:
        all_read(service, len(RECORDING))
        drained(service)
        assert (service.page("/healthz"), service.page("/readyz")) == (b"ok\n", b"ready\n")
        status = service.status()
        (one,) = status["inputs"]
        assert {key: one[key] for key in ("path", "format", "problem", "bytes", "lag_bytes", "lag_s", "gone")} == {
            "path": str(path), "format": "log", "problem": "", "bytes": len(RECORDING), "lag_bytes": 0, "lag_s": 0.0,
            "gone": False,
        }  # fmt: skip
        assert status["ready"] is True
        assert status["problems"] == []
        assert status["losses"] == {}
        assert status["outbox"]["state"] == "ok"
        assert {(lane["destination"], lane["signal"], lane["state"], lane["error"]) for lane in status["destinations"]} == {
            ("receiver", "traces", "idle", ""), ("receiver", "metrics", "idle", ""),
        }  # fmt: skip
        accepted = {lane["signal"]: lane["accepted"] for lane in status["destinations"]}
        assert accepted == {"traces": len(receiver.spans()), "metrics": len(receiver.points())}
        families = {family.name for family in text_string_to_metric_families(service.page("/metrics").decode())}
        sums = [stat.name.replace(".", "_") for stat in STATS if stat.kind == "sum" and not stat.attributes]
        assert [name for name in sums if not any(family.startswith(name) for family in families)] == []
        assert counter(service, "otelbridge.reader.data_read") == len(RECORDING)
        assert counter(service, "otelbridge.export.spans_delivered") == len(receiver.spans())
        assert counter(service, "otelbridge.reader.lines_malformed") == 0


def test_lag_grows_while_the_outbox_is_full_and_is_gone_when_the_collector_is_back(tmp_path: Path) -> None:
    path = log_in(tmp_path)
    config = config_for(tmp_path, NOBODY, outbox={"folder": str(tmp_path / "outbox"), "limit": "1KiB"})
    with Receiver() as receiver, running(tmp_path, config) as service:
        until(lambda: service.status()["outbox"]["state"] == "full")
        assert service.status()["ready"] is False
        assert (service.answer("/healthz")[0], service.answer("/readyz")[0]) == (200, 503)

        def first() -> dict[str, Any]:
            return dict(service.status()["inputs"][0])

        append(path, later(RECORDING, 600))
        until(lambda: first()["lag_bytes"] == len(RECORDING))
        before_s = until(lambda: first()["lag_s"])
        append(path, later(RECORDING, 1200))
        until(lambda: first()["lag_bytes"] == 2 * len(RECORDING))
        until(lambda: first()["lag_s"] > before_s)
        assert first()["bytes"] == len(RECORDING)
        failing = until(lambda: [lane for lane in service.status()["destinations"] if lane["state"] == "waiting"])
        assert all("refused" in lane["error"] and lane["since_ns"] for lane in failing)
        assert "full" in service.log
        service.write_config(destinations={"receiver": {"endpoint": receiver.http_url}})
        until(lambda: first()["bytes"] == 3 * len(RECORDING))
        ended(service)
        assert (first()["lag_bytes"], first()["lag_s"], service.answer("/readyz")[0]) == (0, 0.0, 200)
        assert [lane["error"] for lane in service.status()["destinations"]] == ["", ""]
        assert service.stop() == 0
        assert received(receiver) == converted([path])


def test_a_main_loop_that_hangs_is_told_by_healthz(tmp_path: Path) -> None:
    """It hangs in reading its configuration: a named pipe that nobody writes to."""
    with running(tmp_path, config_for(tmp_path, NOBODY), command=(sys.executable, "-c", HASTY)) as service:
        assert service.answer("/healthz")[0] == 200
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "pipe").rename(tmp_path / "otelbridge.yaml")
        service.send(signal.SIGHUP)
        until(lambda: service.answer("/healthz")[0] == 503)
        assert service.status()["inputs"] == []
        with (tmp_path / "otelbridge.yaml").open("w") as pipe:
            yaml.safe_dump({"version": 1, **service.config}, pipe)
        until(lambda: service.answer("/healthz")[0] == 200)
        assert service.stop() == 0


def test_it_is_not_ready_without_its_folder_or_with_a_wrong_address_and_says_why(tmp_path: Path) -> None:
    config = config_for(tmp_path, "http://127.0.0.1:9/nowhere")
    with running(tmp_path, config) as service:
        until(lambda: "127.0.0.1:9" in service.page("/readyz").decode() or "logs" in service.page("/readyz").decode())
        assert service.answer("/readyz")[0] == 503
        assert str(tmp_path / "logs") in service.page("/readyz").decode()
        (tmp_path / "logs").mkdir()
        until(lambda: str(tmp_path / "logs") not in service.page("/readyz").decode())
        (tmp_path / "logs" / "vm.log").write_bytes(RECORDING)
        until(lambda: "receiver has taken no traces since the start" in service.page("/readyz").decode())
        with Receiver() as receiver:
            service.write_config(destinations={"receiver": {"endpoint": receiver.http_url}})
            until(lambda: service.answer("/readyz")[0] == 200, 30)


def test_it_is_not_ready_where_not_one_input_can_be_read_and_says_why(tmp_path: Path) -> None:
    pipe = tmp_path / "qemu.fifo"
    pipe.write_bytes(b"")
    with Receiver() as receiver:
        inputs = [{"pipe": str(pipe)}, {"files": str(tmp_path / "*.log")}]
        with running(tmp_path, config_for(tmp_path, receiver, inputs=inputs)) as service:
            until(lambda: service.answer("/readyz")[0] == 503)
            assert f"'{pipe}' is a file, expected a pipe" in service.page("/readyz").decode()
            assert service.status()["ready"] is False
            (tmp_path / "vm.log").write_bytes(RECORDING)
            until(lambda: service.answer("/readyz")[0] == 200)


def test_what_waits_in_the_outbox_is_told_as_nothing_once_it_is_delivered(tmp_path: Path) -> None:
    """A gauge keeps what it was set to, so an outbox that has been emptied must be said to be empty."""
    log_in(tmp_path)
    with Receiver() as receiver, running(tmp_path, config_for(tmp_path, "http://127.0.0.1:9")) as service:
        until(lambda: counter(service, "otelbridge.outbox.pending_bytes") > 0, 30)
        service.write_config(destinations={"receiver": {"endpoint": receiver.http_url}})
        until(lambda: counter(service, "otelbridge.outbox.pending_bytes") == 0, 30)
        assert receiver.spans()
