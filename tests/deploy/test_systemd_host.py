"""A host that systemd runs, in a container: otelbridge is installed there by the unit's own text and lives under its rules."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.deploy.guide import commands
from tests.deploy.images import PROJECT, Built, Loopback, run
from tests.deploy.units import UNIT
from tests.receiver import Receiver
from tests.service.living import RECORDING, named
from tests.service.running import bodies, converted, spans_in, until

LOGS = "/var/log/libvirt/qemu"
READ_ANY = 1 << 2
"""CAP_DAC_READ_SEARCH in a set of capabilities, see capability.h."""

# 19084@1795408207.397527:migration_set_outgoing_channel ioc=0x55…
_EVENT = re.compile(rb"^\d+@\d+\.\d+:(.*)$", re.MULTILINE)
# `#   systemctl daemon-reload && …`
_COMMAND = re.compile(r"^#   (.*)$", re.MULTILINE)


class Host(NamedTuple):
    podman: list[str]
    name: str
    receiver: Receiver

    def call(self, *words: str, stdin: bytes = b"") -> str:
        """What a program of the host prints; the test fails with what it complains of."""
        command = [*self.podman, "exec", "--interactive", "--workdir=/src", self.name, *words]
        done = subprocess.run(command, input=stdin, capture_output=True, check=False)
        assert done.returncode == 0, f"{words}: {(done.stdout + done.stderr).decode()}\n{self.journal()}"
        return done.stdout.decode().strip()

    def journal(self) -> str:
        """What the journal has of the service."""
        command = [*self.podman, "exec", self.name, "journalctl", "--no-pager", "-u", "otelbridge"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def shown(self, name: str) -> str:
        """A property of the service."""
        return self.call("systemctl", "show", "--value", f"--property={name}", "otelbridge")

    def write(self, path: str, data: bytes, mode: str) -> None:
        """Give root a file."""
        self.call("install", f"-Dm{mode}", "/dev/stdin", path, stdin=data)

    def configure(self, old: str, new: str) -> None:
        """Change the configuration that was installed."""
        self.call("sed", "-i", f"s|{old}|{new}|", "/etc/otelbridge/otelbridge.yaml")


@pytest.fixture(scope="module")
def host(built: Built) -> Iterator[Host]:
    """The host with otelbridge installed and not yet started, and a receiver on its loopback."""
    image, name = built.store.add_host(built.image), f"host-{os.getpid()}"
    with ExitStack() as stack:
        network = stack.enter_context(Loopback())
        receiver = network.call(Receiver(takes_empty=True).__enter__)
        stack.callback(network.call, receiver.__exit__, None, None, None)
        options = ("--privileged", "--systemd=always", "--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096")
        options += (f"--network=ns:{network.path}", f"--volume={PROJECT / 'deploy'}:/src/deploy:ro")
        run(*built.store.podman("run", "--detach", f"--name={name}", *options, image))
        stack.callback(run, *built.store.podman("rm", "--force", "--time=0", name))
        found = Host(built.store.podman(), name, receiver)
        booted = [*found.podman, "exec", name, "systemctl", "is-system-running", "--wait"]
        until(lambda: subprocess.run(booted, check=False, capture_output=True).stdout == b"running\n", 60)
        install(found)
        yield found


def install(host: Host) -> None:
    """Do what the guide says, but for the venv, which is there, and the start."""
    lines = commands("libvirt")
    assert set(_COMMAND.findall(UNIT.read_text("utf-8"))) < set(lines), "the guide says all that the unit says"
    start = lines.index("systemctl daemon-reload && systemctl enable --now otelbridge")
    assert "venv /opt/otelbridge" in lines[0]
    for line in lines[1:start]:
        host.call("sh", "-c", line)
    host.configure("http://collector:4318", host.receiver.http_url)
    host.write(f"{LOGS}/vm.log", RECORDING, "600")
    host.call("chmod", "700", LOGS)
    assert "doctor" in lines[start + 1]
    assert host.receiver.http_url in host.call("sh", "-c", lines[start + 1])


def test_the_service_lives_under_the_units_rules(host: Host, tmp_path: Path) -> None:
    """It delivers what root alone may read, is watched, reloads, comes back when it was killed, and ends in time."""
    host.call("systemctl", "daemon-reload")
    host.call("systemctl", "enable", "--now", "otelbridge")
    log = tmp_path / "vm.log"
    log.write_bytes(RECORDING)
    expected = converted([log])[0].keys()
    until(lambda: named(host.receiver, "migration"), 60)
    host.call("systemctl", "reload", "otelbridge")
    until(lambda: "The configuration was read again and is in force." in host.journal(), 30)
    assert host.shown("ActiveState") == "active"
    assert host.shown("WatchdogUSec") == "1min"
    assert int(host.shown("WatchdogTimestampMonotonic")) > 0

    host.call("systemctl", "kill", "--signal=KILL", "otelbridge")
    until(lambda: host.shown("NRestarts") == "1" and host.shown("ActiveState") == "active", 60)
    host.call("systemctl", "stop", "otelbridge")
    assert (host.shown("Result"), host.shown("ExecMainStatus")) == ("success", "0"), host.journal()
    found = spans_in(bodies(host.receiver, "traces"))
    assert found.keys() <= expected
    assert {len(contents) for contents in found.values()} == {1}


def test_the_service_may_read_anything_and_write_nothing_but_its_state(host: Host) -> None:
    host.call("systemctl", "start", "otelbridge")
    pid = host.shown("MainPID")
    status = dict(line.split(":\t", 1) for line in host.call("cat", f"/proc/{pid}/status").splitlines() if ":\t" in line)
    assert {int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {READ_ANY}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert status["Uid"].split()[0] == host.call("id", "-u", "otelbridge")
    # As root, but among the files that the service sees.
    for folder in ("/etc/otelbridge", LOGS, "/opt/otelbridge", "/"):
        tried = f"nsenter --mount --target {pid} touch {folder}/x 2>&1 || true"
        assert "Read-only file system" in host.call("sh", "-c", tried)
    host.call("nsenter", "--mount", "--target", pid, "touch", "/var/lib/otelbridge/x")
    as_itself = f"--reuid={status['Uid'].split()[0]} --regid={status['Gid'].split()[0]} --clear-groups"
    seen = host.call("sh", "-c", f"nsenter --mount --target {pid} setpriv {as_itself} cat /proc/1/comm")
    assert seen == "systemd", "processes of others cannot be seen, so a QEMU that runs counts as ended"
    assert host.call("stat", "-c", "%U %a", "/var/lib/otelbridge/outbox.db") == "otelbridge 600"
    host.call("systemctl", "stop", "otelbridge")


def test_the_service_may_read_the_journal_and_speak_grpc(host: Host) -> None:
    """Neither journalctl nor gRPC needs a call of the system that the unit forbids."""
    before = len(named(host.receiver, "migration"))
    host.configure("^  #- journald:", "  - journald:")
    host.configure(host.receiver.http_url, host.receiver.grpc_url)
    host.call("systemctl", "start", "otelbridge")
    host.call("systemd-cat", "--identifier=qemu-system-x86_64", stdin=b"\n".join(_EVENT.findall(RECORDING)) + b"\n")
    until(lambda: len(named(host.receiver, "migration")) > before, 60)
    host.call("systemctl", "stop", "otelbridge")
    assert host.shown("Result") == "success", host.journal()


def test_a_mistake_in_the_configuration_is_said_once(host: Host) -> None:
    """A restart would not heal it."""
    host.configure("^version: 1", "version: one")
    with pytest.raises(AssertionError, match="version"):
        host.call("systemctl", "start", "otelbridge")
    assert (host.shown("ActiveState"), host.shown("ExecMainStatus")) == ("failed", "3")
    host.configure("^version: one", "version: 1")
    host.call("systemctl", "start", "otelbridge")
    host.call("systemctl", "stop", "otelbridge")
