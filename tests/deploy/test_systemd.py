"""The unit, its environment, its user and its folder, read by systemd's own programs; and the service started as it says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from otelbridge.durations import duration_ns
from otelbridge.service.config.parse import load_config
from tests.deploy.units import PROGRAM, SYSTEMD, UNIT, environment_of, settings, words_of
from tests.receiver import Receiver
from tests.service.living import log_in
from tests.service.running import config_for, running, until
from tests.service.test_life_notify import systemd

Need = Callable[[str, str], None]

SETTINGS = settings(UNIT.read_text("utf-8"))
CONF = (SYSTEMD / "otelbridge.conf").read_text("utf-8").splitlines()
UNIT_ENVIRONMENT = environment_of(value.strip('"') for value in SETTINGS["Environment"])


def time_ns(name: str) -> int:
    """A setting that is a duration."""
    found = duration_ns(SETTINGS[name][0])
    assert found is not None
    return found


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", "--no-pager", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "SYSTEMD_COLORS": "0"})


def root_with(folder: Path, unit: str) -> Path:
    """A host's root that has what the unit names, and the unit."""
    for name in (PROGRAM, "/bin/kill"):
        program = folder / name[1:]
        program.parent.mkdir(parents=True, exist_ok=True)
        program.touch(0o755)
    path = folder / "etc/systemd/system" / UNIT.name
    path.parent.mkdir(parents=True)
    path.write_text(unit)
    return path


def test_systemd_finds_nothing_wrong_in_the_unit(need: Need, tmp_path: Path) -> None:
    need("systemd-analyze", "reads the unit")
    unit = root_with(tmp_path, UNIT.read_text("utf-8"))
    done = analyze("verify", "--man=no", "--recursive-errors=no", f"--root={tmp_path}", unit)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_systemd_would_find_a_mistake_in_the_unit(need: Need, tmp_path: Path) -> None:
    need("systemd-analyze", "reads the unit")
    unit = root_with(tmp_path, UNIT.read_text("utf-8").replace("WatchdogSec=", "WatchdogSek="))
    done = analyze("verify", "--man=no", "--recursive-errors=no", f"--root={tmp_path}", unit)
    assert "WatchdogSek" in done.stderr
    assert done.returncode


def test_the_unit_is_as_hard_as_it_says(need: Need) -> None:
    """Its text states systemd's own score; the exposure of a unit without any hardening is 9.6."""
    need("systemd-analyze", "judges the unit")
    done = analyze("security", "--offline=true", UNIT)
    judged = re.search(r"Overall exposure level for otelbridge.service: (\S+ \w+)", done.stdout)
    stated = re.search(r"gives it (\S+) \((\w+)\) of 10", UNIT.read_text("utf-8"))
    assert judged is not None, done.stderr
    assert stated is not None
    assert judged[1] == " ".join(stated.groups())


def test_the_only_right_is_to_read(need: Need) -> None:
    need("systemd-analyze", "judges the unit")
    done = analyze("security", "--offline=true", "--json=short", UNIT)
    exposed = {str(line["json_field"]) for line in yaml.safe_load(done.stdout) if line["set"] is False}
    capabilities = {name for name in exposed if name.startswith("CapabilityBoundingSet")}
    assert capabilities == {"CapabilityBoundingSet_CAP_DAC_FOWNER_IPC_OWNER"}
    assert SETTINGS["CapabilityBoundingSet"] == SETTINGS["AmbientCapabilities"] == ["CAP_DAC_READ_SEARCH"]


def test_the_user_and_the_folder_are_made(need: Need, tmp_path: Path) -> None:
    """The configuration is the group's to read and nobody else's; the service's user can neither log in nor write it."""
    for program in ("systemd-sysusers", "systemd-tmpfiles"):
        need(program, "reads the file")
    (tmp_path / "etc").mkdir()
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}", SYSTEMD / "otelbridge.sysusers"], check=True, capture_output=True)
    name, _, uid, gid, _, home, shell = (tmp_path / "etc/passwd").read_text().strip().split(":")
    assert name == SETTINGS["User"][0] == SETTINGS["Group"][0]
    assert home == f"/var/lib/{SETTINGS['StateDirectory'][0]}"
    assert shell.endswith("nologin")
    assert 0 < int(uid) < 1000
    subprocess.run(
        ["systemd-tmpfiles", f"--root={tmp_path}", "--create", SYSTEMD / "otelbridge.tmpfiles"], check=True, capture_output=True
    )
    made = (tmp_path / "etc/otelbridge").stat()
    assert (made.st_uid, made.st_mode & 0o777) == (0, 0o750)
    assert made.st_gid in (int(gid), os.getgid())  # only root can give it to another group


def test_the_environment_file_shows_what_counts_without_it() -> None:
    assert environment_of(CONF) == {}
    shown = environment_of(line[1:] for line in CONF if re.match(r"#[A-Z]", line))
    assert {name: shown[name] for name in UNIT_ENVIRONMENT} == UNIT_ENVIRONMENT


def test_systemd_waits_longer_than_the_service_takes_to_end() -> None:
    grace_ns = load_config(SYSTEMD.parent / "otelbridge.yaml", {"HOME": "/nowhere"}).grace_ns
    assert time_ns("TimeoutStopSec") > 2 * grace_ns


@pytest.mark.parametrize("conf", [[], ["OTELBRIDGE_OPTIONS=--config {folder}/otelbridge.yaml", "OTEL_SERVICE_NAME=vm"]])
def test_the_service_lives_as_the_unit_says(conf: list[str], need: Need, tmp_path: Path) -> None:
    """Started, watched, reloaded and ended by the unit's own commands and environment; only its folders are others."""
    need("/bin/kill", "ExecReload calls it")
    log_in(tmp_path)
    env = UNIT_ENVIRONMENT | environment_of(line.format(folder=tmp_path) for line in conf)
    env = {name: value.replace("/etc/otelbridge", str(tmp_path)) for name, value in env.items()}
    program, name, *arguments = words_of(SETTINGS["ExecStart"][0], env)
    assert (program, name) == (PROGRAM, "run")
    watchdog_us = time_ns("WatchdogSec") // 1000
    with Receiver() as receiver, systemd(tmp_path) as (told, address):
        config = config_for(tmp_path, receiver)
        del config["outbox"]
        env |= {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": str(watchdog_us), "STATE_DIRECTORY": str(tmp_path / "state")}
        with running(tmp_path, config, start=False, arguments=arguments, **env) as service:
            service.start()
            assert service.process is not None
            until(lambda: told.order == ["READY"] and told.said("WATCHDOG"))
            until(receiver.spans)
            reload = words_of(SETTINGS["ExecReload"][0], {"MAINPID": str(service.process.pid)})
            subprocess.run(reload, check=True)
            until(lambda: told.order == ["READY", "RELOADING", "READY"])
            begin_s = time.monotonic()
            assert service.stop(by=signal.SIGTERM) == 0
            assert time.monotonic() - begin_s < time_ns("TimeoutStopSec") / 1e9
            assert told.order[-1] == "STOPPING"
    assert list((tmp_path / "state").iterdir())
