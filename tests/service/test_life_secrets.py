"""What is secret in a configuration stands nowhere that somebody could read it, even if a destination repeats it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.receiver import Answer, Receiver
from tests.service.living import RECORDING, all_read, log_in
from tests.service.running import OTELBRIDGE, Running, config_for, environment, running, until

SECRET = "hunter2-s3cr3t"  # noqa: S105 - what is looked for
HEADERS: dict[str, Any] = {
    "by a variable": {"headers": {"authorization": "Bearer ${env:TOKEN}"}},
    "by a file": {"headers": {"authorization": {"file": "token"}}},
    "in the address": {},
}
ECHO = ("text/plain", f"the token {SECRET} is not known".encode())


def shown_by(service: Running) -> str:
    """All that a service shows of itself while it runs."""
    assert service.process is not None
    arguments = Path(f"/proc/{service.process.pid}/cmdline").read_text()
    pages = [service.page(path).decode() for path in ("/status", "/metrics", "/healthz", "/readyz")]
    return "\n".join([service.log, arguments, *pages])


def checked(folder: Path, **env: str) -> str:
    """What `run --check` prints."""
    command = [*OTELBRIDGE, "run", "--config", "otelbridge.yaml", "--check"]
    done = subprocess.run(command, env=environment(**env), cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def address(url: str, how: str) -> str:
    return url.replace("://", f"://me:{SECRET}@") if how == "in the address" else url


@pytest.mark.parametrize("how", HEADERS)
def test_a_destination_that_refuses_and_repeats_the_secret_brings_it_nowhere(how: str, tmp_path: Path) -> None:
    log_in(tmp_path)
    (tmp_path / "token").write_text(f"Bearer {SECRET}\n")
    with Receiver() as receiver:
        config = config_for(
            tmp_path, receiver, log={"level": "debug"}, telemetry={"destination": "receiver", "interval": "1s"},
            destinations={"receiver": {"endpoint": address(receiver.http_url, how), **HEADERS[how]}},
        )  # fmt: skip
        refusals = [Answer(status=status, body=ECHO) for status in (503, 401) * 20]
        receiver.script("traces", refusals)
        receiver.script("metrics", refusals)
        with running(tmp_path, config, TOKEN=SECRET) as service:
            until(lambda: sum(lane["rejected"] for lane in service.status()["destinations"]) > 0)
            until(lambda: "own metrics" in service.log)
            seen = shown_by(service)
            assert service.stop() == 0
        assert SECRET not in seen + service.log
        assert "is not known" in service.log
        assert receiver.headers[0]["authorization"].startswith(("Bearer", "Basic"))
        assert SECRET not in checked(tmp_path, TOKEN=SECRET)
        rejected = subprocess.run([*OTELBRIDGE, "spool", "show", "--rejected", str(tmp_path / "outbox")], env=environment(),
                                  capture_output=True, text=True, check=True)  # fmt: skip
        assert "is not known" in rejected.stdout
        assert SECRET not in rejected.stdout


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("how", HEADERS)
def test_a_destination_whose_name_is_not_known_brings_it_nowhere(how: str, protocol: str, tmp_path: Path) -> None:
    log_in(tmp_path)
    (tmp_path / "token").write_text(f"Bearer {SECRET}\n")
    where = address(f"{protocol}://nowhere.invalid:4318", how)
    config = config_for(
        tmp_path, "", log={"level": "debug"}, telemetry={"destination": "receiver", "interval": "1s"},
        destinations={"receiver": {"endpoint": where, "timeout": "2s", **HEADERS[how]}},
    )  # fmt: skip
    with running(tmp_path, config, TOKEN=SECRET) as service:
        until(lambda: all(lane["error"] for lane in service.status()["destinations"]))
        seen = shown_by(service)
        assert service.stop() == 0
    assert "nowhere.invalid" in service.log
    assert SECRET not in seen + service.log


def test_the_headers_of_the_variable_are_shown_nowhere(tmp_path: Path) -> None:
    log_in(tmp_path)
    with Receiver() as receiver:
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.http_url,
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{SECRET}",
        }
        config = config_for(tmp_path, receiver, log={"level": "debug"})
        del config["destinations"]
        receiver.script("traces", [Answer(status=401, body=ECHO)] * 10)
        with running(tmp_path, config, **env) as service:
            all_read(service, len(RECORDING))
            until(lambda: sum(lane["rejected"] for lane in service.status()["destinations"]) > 0)
            seen = shown_by(service)
            assert service.stop() == 0
        assert SECRET not in seen + service.log + checked(tmp_path, **env)
        assert receiver.headers[0]["authorization"] == f"Bearer {SECRET}"


def test_a_refused_reload_does_not_show_a_new_secret(tmp_path: Path) -> None:
    with Receiver() as receiver, running(tmp_path, config_for(tmp_path, receiver)) as service:
        headers = {"authorization": f"Bearer {SECRET}", "bad name": SECRET}
        wrong = {"receiver": {"endpoint": receiver.http_url, "headers": headers}}
        (tmp_path / "otelbridge.yaml").write_text(yaml.safe_dump({"version": 1, **service.config, "destinations": wrong}))
        until(lambda: "stays in force" in service.log)
        until(lambda: "otelbridge.yaml:" in service.log.split("stays in force")[1])
        assert SECRET not in shown_by(service)
