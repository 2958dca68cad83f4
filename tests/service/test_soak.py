"""Fifty logs at 5,000 lines/s for as long as one likes: memory, descriptors, CPU and delay stay as they are said to be.

`OTELBRIDGE_SOAK_S=3600 pytest -s tests/service/test_soak.py` for an hour.
"""

from __future__ import annotations

import gzip
import os
import re
import statistics
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelbridge.records import Signal
from tests.receiver import ACCEPTED, Answer, Receiver
from tests.service.running import Running, config_for, running, until

RECORDINGS = Path(__file__).resolve().parents[1] / "recordings"
WORLDS = (
    "debian-7.2/precopy-busy/src.log",
    "debian-7.2/precopy-busy-pages/src.log.gz",
    "debian-7.2/multifd/src.log",
    "debian-7.2/two-vms-one-log/src.log",
    "debian-7.2/tls-ok/src.log",
    "debian-7.2/savevm-loadvm/src.log.gz",
    "qemu-4.1.0-log/tls-ok/src.log",
    "qemu-10.2.0-log/multifd-tls/src.log",
    "qemu-10.2.0-log/precopy-busy/src.log",
    "qemu-10.2.0-log/postcopy/src.log.gz",
)
"""Sources only: a destination's events are held while any of these could be its other side, and here they never fall silent."""
SECONDS = float(os.environ.get("OTELBRIDGE_SOAK_S", "120"))
FILES, LINES_A_SECOND = 50, 5_000
WARM_UP_S = 60.0
CPU_OF_A_CORE, ORDINARY_CPU_OF_A_CORE, IDLE_CPU_OF_A_CORE = 0.25, 0.05, 0.01
"""At 5,000 lines/s of which every seventh ends a span, at the pace of real migrations, and of 500 logs that nobody writes."""
DELAY_P99_S, BUSY_MACHINE_DELAY_P99_S = 1.5, 5.0
RSS_GROWTH = 1.05
_TICK_S = 0.05
_APART_S = 0.4
_TIMED = {"savevm.section"}
"""Spans that end by a line of their own; others wait for which are the slowest, or for the other side of the migration."""
_PART_BYTES, _BACKUPS = 64 * 1024, 3
_STAMP = re.compile(rb"^(?:(?P<pid>\d+)@\d+\.\d+:|(?P<iso>\d{4}-\d\d-\d\dT[\d:.]+Z ))")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Line(NamedTuple):
    """A line of a recording around its stamp; `before` is `19625@` in one form and empty in the other."""

    before: bytes
    is_iso: bool
    after: bytes

    def at(self, time_us: int) -> bytes:
        """The line as it would have been written at that time."""
        if not self.is_iso:
            return b"%b%d.%06d:%b" % (self.before, time_us // 1_000_000, time_us % 1_000_000, self.after)
        stamp = datetime.fromtimestamp(time_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return b"%b.%06dZ %b" % (stamp.encode(), time_us % 1_000_000, self.after)


def lines_of(name: str) -> list[Line]:
    data = (RECORDINGS / name).read_bytes()
    found = []
    for line in (gzip.decompress(data) if name.endswith(".gz") else data).splitlines(keepends=True):
        if stamp := _STAMP.match(line):
            pid = stamp["pid"]
            found.append(Line(pid + b"@" if pid else b"", pid is None, line[stamp.end() :]))
    return found


class Log:
    """A log that is written line by line, for ever, and rotated as virtlogd does."""

    def __init__(self, path: Path, lines: list[Line]) -> None:
        self._path, self._lines = path, lines
        self._next = self._size = self._last_us = 0
        self._file = path.open("ab", buffering=0)

    def write(self, count: int) -> None:
        """The next lines, stamped with the present time."""
        now_us = max(self._last_us + 1, time.time_ns() // 1000)
        self._last_us = now_us + count
        lines = [self._lines[(self._next + i) % len(self._lines)].at(now_us + i) for i in range(count)]
        self._next += count
        data = b"".join(lines)
        while data:
            room = _PART_BYTES - self._size
            self._file.write(data[:room])
            self._size += len(data[:room])
            data = data[room:]
            if self._size >= _PART_BYTES:
                self._rotate()

    def _rotate(self) -> None:
        self._file.close()
        names = [self._path, *(self._path.with_name(f"{self._path.name}.{n}") for n in range(_BACKUPS))]
        for old, new in reversed(list(pairwise(names))):
            if old.exists():
                old.rename(new)
        self._file = self._path.open("ab", buffering=0)
        self._size = 0

    def close(self) -> None:
        self._file.close()


def write_all(logs: list[Log], stop: threading.Event, lines_a_second: float = LINES_A_SECOND) -> None:
    """Each log in its turn, so that all have written their share after each tick. They begin one after the other."""
    share = round(lines_a_second / len(logs) * _TICK_S)
    begin_s = due_s = time.monotonic()
    while not stop.is_set():
        begun = int((time.monotonic() - begin_s) / _APART_S) + 1
        for log in logs[:begun]:
            log.write(share)
        due_s += _TICK_S
        stop.wait(max(0.0, due_s - time.monotonic()))


class Timing(Receiver):
    """Notes how long after their ends sections came, and keeps nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.delays_s: list[float] = []

    def take(self, signal: Signal, body: bytes, headers: dict[str, str]) -> Answer:
        arrived_ns = time.time_ns()
        del headers
        if signal == "traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    ends_ns = [span.end_time_unix_nano for span in scope.spans if span.name in _TIMED]
                    self.delays_s += [(arrived_ns - end_ns) / 1e9 for end_ns in ends_ns]
        return ACCEPTED


def cpu_s(service: Running) -> float:
    """What it has used of all cores, by itself and in the kernel, to the nanosecond."""
    assert service.process is not None
    threads = Path(f"/proc/{service.process.pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def least_cpu(service: Running) -> float:
    """The least share of a core that it used in one of three times: what else the machine does makes everything dearer."""
    shares = []
    for _ in range(3):
        began_s, used_s = time.monotonic(), cpu_s(service)
        time.sleep(5.0)
        shares.append((cpu_s(service) - used_s) / (time.monotonic() - began_s))
    return min(shares)


def rss_bytes(service: Running) -> int:
    assert service.process is not None
    return int(Path(f"/proc/{service.process.pid}/statm").read_text().split()[1]) * _PAGE_BYTES


def descriptors(service: Running) -> int:
    assert service.process is not None
    return len(list(Path(f"/proc/{service.process.pid}/fd").iterdir()))


def sampled(service: Running, over_s: float) -> Iterator[tuple[int, int]]:
    """Memory and descriptors, once a second."""
    end_s = time.monotonic() + over_s
    while time.monotonic() < end_s:
        time.sleep(1.0)
        yield rss_bytes(service), descriptors(service)


def test_fifty_busy_logs_cost_little_and_are_delivered_within_a_second_and_a_half(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    recordings = [lines_of(name) for name in WORLDS]
    logs = [Log(tmp_path / "logs" / f"vm-{n}.log", recordings[n % len(WORLDS)]) for n in range(FILES)]
    stop = threading.Event()
    writer = threading.Thread(target=write_all, args=(logs, stop))
    with Timing() as receiver, running(tmp_path, config_for(tmp_path, receiver)) as service:
        writer.start()
        try:
            for _ in sampled(service, WARM_UP_S):
                pass
            receiver.delays_s.clear()
            began_s, used_s = time.monotonic(), cpu_s(service)
            samples = list(sampled(service, SECONDS))
            cpu = (cpu_s(service) - used_s) / (time.monotonic() - began_s)
        finally:
            stop.set()
            writer.join()
            for log in logs:
                log.close()
        delays_s = sorted(receiver.delays_s)
        until(lambda: not service.status()["outbox"]["pending_bytes"])
        status = service.status()
        assert service.stop() == 0
    rss, fds = [memory for memory, _ in samples], [number for _, number in samples]
    tenth, third = max(1, len(rss) // 10), max(1, len(rss) // 3)
    begin, end = statistics.median(rss[:third]), statistics.median(rss[-third:])
    p99_s = delays_s[int(len(delays_s) * 0.99)]
    tenths = " ".join(f"{statistics.median(rss[n : n + tenth]) / 1e6:.0f}" for n in range(0, len(rss), tenth))
    print(  # noqa: T201 - what a longer run is made for
        f"\nmemory by tenths: {tenths} MB\ncpu={cpu:.2%} rss={begin / 1e6:.1f}..{end / 1e6:.1f} MB ({end / begin - 1:+.1%}) "
        f"fds={min(fds)}..{max(fds)} "
        f"sections={len(delays_s)} p50={statistics.median(delays_s):.3f} s p99={p99_s:.3f} s max={delays_s[-1]:.3f} s"
    )
    assert status["losses"] == {}
    assert len(delays_s) > SECONDS
    assert cpu < CPU_OF_A_CORE
    assert max(fds) < FILES * 3
    assert statistics.median(fds[-third:]) < statistics.median(fds[:third]) * 1.1, "descriptors stay open"
    is_busy = os.getloadavg()[0] > 0.75 * (os.cpu_count() or 1)
    assert p99_s < (BUSY_MACHINE_DELAY_P99_S if is_busy else DELAY_P99_S)
    assert end < begin * RSS_GROWTH, f"memory grew from {begin / 1e6:.0f} to {end / 1e6:.0f} MB"


def test_a_host_with_three_migrations_at_their_recorded_pace_costs_next_to_nothing(tmp_path: Path) -> None:
    """1,305 lines in 19 s each; 47 other logs are silent."""
    (tmp_path / "logs").mkdir()
    lines = lines_of(WORLDS[0])
    for number in range(3, FILES):
        (tmp_path / "logs" / f"vm-{number}.log").write_bytes(lines[0].at(1_795_407_950_000_000 + number))
    logs = [Log(tmp_path / "logs" / f"vm-{number}.log", lines) for number in range(3)]
    stop = threading.Event()
    writer = threading.Thread(target=write_all, args=(logs, stop, 3 * 67.0))
    with Receiver() as receiver, running(tmp_path, config_for(tmp_path, receiver)) as service:
        writer.start()
        try:
            time.sleep(5.0)
            cpu = least_cpu(service)
        finally:
            stop.set()
            writer.join()
            for log in logs:
                log.close()
    print(f"\ncpu={cpu:.2%}")  # noqa: T201 - what a longer run is made for
    assert cpu < ORDINARY_CPU_OF_A_CORE


def test_five_hundred_idle_logs_cost_next_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    line = lines_of(WORLDS[0])[0]
    for number in range(500):
        (tmp_path / "logs" / f"vm-{number}.log").write_bytes(line.at(1_795_407_950_000_000 + number))
    with Receiver() as receiver, running(tmp_path, config_for(tmp_path, receiver)) as service:
        until(lambda: all(one["ended"] for one in service.status()["inputs"]), 60)
        until(lambda: not service.status()["outbox"]["pending_bytes"])
        time.sleep(12.0)
        cpu = least_cpu(service)
    print(f"\ncpu={cpu:.2%}")  # noqa: T201 - what a longer run is made for
    assert cpu < IDLE_CPU_OF_A_CORE
