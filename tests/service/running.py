"""`otelbridge run` as its users have it: a process of its own, a folder of logs that somebody else writes and rotates."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from otelbridge.records import Signal
from tests.receiver import Receiver, data_points

READY = b"Started."
OTELBRIDGE = (sys.executable, "-m", "otelbridge")


def until(what: Callable[[], Any], timeout_s: float = 20.0, pause_s: float = 0.02) -> Any:
    """What the call gives as soon as it gives something true."""
    end_s = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < end_s, f"not so within {timeout_s} s"
        time.sleep(pause_s)
    return found


def environment(**more: str) -> dict[str, str]:
    """The environment without what would lead elsewhere."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "COV_", "COVERAGE_"))}
    return {**bare, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), **more}


@dataclass
class Running:
    """A service that may be started, killed and started again on the same folder.

    Attributes:
        folder: Holds its configuration, its outbox and its log.
        config: What goes into otelbridge.yaml.
        env: More of the environment.
        command: What starts otelbridge, with something before it if need be.
        arguments: In place of `--config` and the file.
    """

    folder: Path
    config: dict[str, Any]
    env: Mapping[str, str] = field(default_factory=dict)
    command: Sequence[str] = OTELBRIDGE
    arguments: Sequence[str] | None = None
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.write_config()

    @property
    def log(self) -> str:
        """Everything that it said so far, of all starts."""
        path = self.folder / "stderr"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def write_config(self, **changes: Any) -> None:
        """Write otelbridge.yaml, with these keys changed."""
        self.config.update(changes)
        new = self.folder / "otelbridge.yaml.new"
        new.write_text(yaml.safe_dump({"version": 1, **self.config}))
        new.rename(self.folder / "otelbridge.yaml")

    def start(self, *, wait: bool = True) -> None:
        """Start it, and wait until it says that it has."""
        before = self.log.count(READY.decode())
        arguments = ("--config", str(self.folder / "otelbridge.yaml")) if self.arguments is None else self.arguments
        command = [*self.command, "run", *arguments]
        with (self.folder / "stderr").open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, env=environment(**self.env), cwd=self.folder)
        self.starts += 1
        if wait:
            until(lambda: self.log.count(READY.decode()) > before or self._dead())
            assert self.process.poll() is None, self.log[-2000:]

    def _dead(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def kill(self) -> None:
        """End it in the middle of whatever it does."""
        assert self.process is not None
        assert self.process.poll() is None, self.log[-2000:]
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, timeout_s: float = 15.0, *, by: signal.Signals = signal.SIGTERM) -> int:
        """SIGTERM, or another signal; what it ended with."""
        assert self.process is not None
        self.process.send_signal(by)
        return self.process.wait(timeout_s)

    def close(self) -> None:
        """Leave nothing running."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def port(self) -> int:
        """The port of its health server."""
        return int(self.log.rsplit("health=127.0.0.1:", 1)[1].split()[0].strip('"'))

    def answer(self, path: str) -> tuple[int, bytes]:
        """Status code and body that its health server answers with."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return int(answer.status), bytes(answer.read())
        except urllib.error.HTTPError as refused:
            with refused:
                return int(refused.status or 0), bytes(refused.read())

    def page(self, path: str) -> bytes:
        """What its health server answers, whatever the status code."""
        return self.answer(path)[1]

    def status(self) -> dict[str, Any]:
        """/status."""
        return dict(json.loads(self.page("/status")))


@contextmanager
def running(
    folder: Path, config: dict[str, Any], *, start: bool = True, command: Sequence[str] = OTELBRIDGE,
    arguments: Sequence[str] | None = None, **env: str,
) -> Iterator[Running]:  # fmt: skip
    """A service until the end of the block."""
    service = Running(folder, config, env, command, arguments)
    try:
        if start:
            service.start()
        yield service
    finally:
        service.close()


def config_for(folder: Path, receiver: Receiver | str, **more: Any) -> dict[str, Any]:
    """A configuration that follows `logs/*.log` in a folder and delivers to a receiver."""
    url = receiver if isinstance(receiver, str) else receiver.http_url
    return {
        "inputs": [{"files": str(folder / "logs" / "*.log"), "idle_timeout": "3s"}],
        "destinations": {"receiver": {"endpoint": url}},
        "outbox": {"folder": str(folder / "outbox")},
        "health": {"address": "127.0.0.1:0"},
        **more,
    }


class Writer:
    """Writes a log as virtlogd does: a full file is renamed to `.0`, `.0` to `.1`, and a line may be split between two."""

    def __init__(self, path: Path, data: bytes, *, max_bytes: int, backups: int = 3, seed: int = 0) -> None:
        self.path, self.data, self._max_bytes, self._backups = path, data, max_bytes, backups
        self._chance = random.Random(seed)  # noqa: S311 - where it is cut
        self._place = self._size = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)

    @property
    def is_done(self) -> bool:
        """Whether everything is written."""
        return self._place >= len(self.data)

    def write(self, size: int) -> None:
        """Append the next bytes, wherever that cuts a line."""
        piece = self.data[self._place : self._place + size]
        while piece:
            room = self._max_bytes - self._size
            if room <= 0:
                self._rotate()
                continue
            self._file.write(piece[:room])
            self._size += len(piece[:room])
            self._place += len(piece[:room])
            piece = piece[room:]

    def _rotate(self) -> None:
        self._file.close()
        for number in reversed(range(self._backups)):
            old = self.path if number == 0 else self.path.with_name(f"{self.path.name}.{number - 1}")
            if old.exists():
                old.rename(self.path.with_name(f"{self.path.name}.{number}"))
        self._file = self.path.open("ab", buffering=0)
        self._size = 0

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def run(self, over_s: float, stop: threading.Event) -> None:
        """Write everything in about so much time, in pieces of any size."""
        begin_s = time.monotonic()
        while not self.is_done and not stop.is_set():
            due = int(len(self.data) * min(1.0, (time.monotonic() - begin_s) / over_s))
            if due > self._place:
                self.write(self._chance.randint(1, max(1, 2 * (due - self._place))))
            time.sleep(0.02)


Spans = dict[tuple[bytes, bytes], set[bytes]]
Totals = dict[tuple[bytes, str, bytes], Any]


def spans_in(requests: Sequence[bytes]) -> Spans:
    """Every content that came with each pair of ids, resource and scope included."""
    found: Spans = {}
    for body in requests:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = resource.resource.SerializeToString(deterministic=True)
            for scope in resource.scope_spans:
                name = scope.scope.SerializeToString(deterministic=True)
                for span in scope.spans:
                    content = about + b"|" + name + b"|" + span.SerializeToString(deterministic=True)
                    found.setdefault((span.trace_id, span.span_id), set()).add(content)
    return found


def totals_in(requests: Sequence[bytes]) -> Totals:
    """The last value of each series, whenever it was."""
    last: dict[tuple[bytes, str, bytes], tuple[int, Any]] = {}
    for body in requests:
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            about = resource.resource.SerializeToString(deterministic=True)
            for metric in (m for scope in resource.scope_metrics for m in scope.metrics):
                for point in data_points(metric):
                    by = b"".join(sorted(a.SerializeToString(deterministic=True) for a in point.attributes))
                    key = about, metric.name, by
                    if key not in last or point.time_unix_nano >= last[key][0]:
                        last[key] = point.time_unix_nano, _value(point)
    return {key: value for key, (_, value) in last.items()}


def points_in(requests: Sequence[bytes]) -> Counter[tuple[bytes, ...]]:
    """How often each point came, with all that there is to it: its resource, scope, metric, time, value and exemplars."""
    found: Counter[tuple[bytes, ...]] = Counter()
    for body in requests:
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            about = resource.resource.SerializeToString(deterministic=True)
            for scope in resource.scope_metrics:
                name = scope.scope.SerializeToString(deterministic=True)
                for metric in scope.metrics:
                    points = [point.SerializeToString(deterministic=True) for point in data_points(metric)]
                    bare = Metric.FromString(metric.SerializeToString())
                    getattr(bare, str(bare.WhichOneof("data"))).ClearField("data_points")
                    found.update((about, name, bare.SerializeToString(deterministic=True), point) for point in points)
    return found


def _value(point: Any) -> Any:
    bare = type(point)()
    bare.CopyFrom(point)
    bare.time_unix_nano = 0
    bare.ClearField("exemplars")
    return bare.SerializeToString(deterministic=True)


def converted(paths: Sequence[Path], *, together: bool = False) -> tuple[Spans, Totals]:
    """What `convert` delivers of files, each by itself or all in one conversion."""
    with Receiver() as receiver:
        if together:
            convert(paths, receiver)
        else:
            convert_each(paths, receiver)
        return received(receiver)


def convert(paths: Sequence[Path], receiver: Receiver) -> None:
    """Convert files in one conversion and deliver what comes out."""
    command = [*OTELBRIDGE, "convert", *map(str, paths), "--to", receiver.http_url]
    done = subprocess.run(command, env=environment(), capture_output=True, check=False)
    assert done.returncode in (0, 7), done.stderr


def convert_each(paths: Sequence[Path], receiver: Receiver) -> None:
    """Convert files, each by itself, and deliver what comes out."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda path: convert([path], receiver), paths))


def bodies(receiver: Receiver, wanted: Signal) -> list[bytes]:
    """The requests of a signal that a receiver has got."""
    return [body for signal, body in receiver.requests if signal == wanted]


def received(receiver: Receiver) -> tuple[Spans, Totals]:
    """What a receiver has got."""
    return spans_in(bodies(receiver, "traces")), totals_in(bodies(receiver, "metrics"))
