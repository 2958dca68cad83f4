"""Killed at any moment, again and again, while logs are written and rotated: nothing is lost, no span has two contents."""

from __future__ import annotations

import gzip
import os
import random
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.receiver import Receiver
from tests.service.running import Running, Writer, config_for, converted, received, running, until

RECORDINGS = Path(__file__).resolve().parents[1] / "recordings"
WORLDS = (
    {"src.log": "debian-7.2/precopy-busy/src.log", "dst.log": "debian-7.2/precopy-busy/dst.log",
     "vm-1.log": "qemu-4.1.0-log/tls-ok/src.log"},
    {"src.log": "qemu-10.2.0-log/postcopy/src.log.gz", "dst.log": "qemu-10.2.0-log/postcopy/dst.log",
     "vm-1.log": "debian-7.2/cancelled/src.log"},
    {"src.log": "debian-7.2/multifd/src.log", "dst.log": "debian-7.2/multifd/dst.log",
     "vm-1.log": "debian-7.2/two-vms-one-log/src.log"},
    {"src.log": "qemu-10.2.0-log/multifd-tls/src.log", "dst.log": "qemu-10.2.0-log/multifd-tls/dst.log",
     "vm-1.log": "qemu-10.2.0-log/precopy-busy/src.log", "vm-2.log": "debian-7.2/tls-fail-stderr/dst.log"},
)  # fmt: skip
"""What is written at the same time, each by a service of its own."""

KILLS = int(os.environ.get("OTELBRIDGE_KILLS", "200"))
"""In all; `OTELBRIDGE_KILLS=1000 pytest tests/service/test_kill.py` for a longer run."""
_SECONDS_A_KILL = 1.7


def content(name: str) -> bytes:
    data = (RECORDINGS / name).read_bytes()
    return gzip.decompress(data) if name.endswith(".gz") else data


def kill_and_start(service: Running, kills: int, chance: random.Random) -> None:
    for left in reversed(range(kills)):
        time.sleep(chance.uniform(0.0, 1.0))
        service.kill()
        # Now and then it is killed while it starts.
        service.start(wait=not left or chance.random() < 0.8)


def lived_through(folder: Path, names: Mapping[str, str], kills: int, seed: int) -> None:
    """Write, kill, start; then compare with what one conversion of the whole logs gives."""
    chance, stop = random.Random(seed), threading.Event()  # noqa: S311 - when it is killed
    logs = {folder / "logs" / name: content(recording) for name, recording in names.items()}
    writers = [Writer(path, data, max_bytes=max(1000, len(data) // 12), backups=8, seed=seed) for path, data in logs.items()]
    with Receiver() as receiver, running(folder, config_for(folder, receiver)) as service:
        threads = [threading.Thread(target=w.run, args=(kills * _SECONDS_A_KILL, stop)) for w in writers]
        for thread in threads:
            thread.start()
        try:
            kill_and_start(service, kills, chance)
            for thread in threads:
                thread.join()
            until(lambda: all(one["ended"] for one in service.status()["inputs"]), 60)
            until(lambda: not service.status()["outbox"]["pending_bytes"], 60)
        finally:
            stop.set()
            for writer in writers:
                writer.close()
        status = service.status()
        assert service.stop() == 0
        spans, totals = received(receiver)
    assert status["losses"] == {}, service.log[-3000:]
    for path, data in logs.items():
        whole = folder / "whole" / path.name
        whole.parent.mkdir(exist_ok=True)
        whole.write_bytes(data)
    wanted_spans, wanted_totals = converted([folder / "whole" / path.name for path in logs], together=True)
    assert [ids for ids, contents in spans.items() if len(contents) > 1] == []
    assert spans == wanted_spans
    assert totals == wanted_totals


def test_a_service_that_is_killed_at_any_moment_delivers_what_one_conversion_gives(tmp_path: Path) -> None:
    with ThreadPoolExecutor(len(WORLDS)) as pool:
        kills = -(-KILLS // len(WORLDS))
        done = [pool.submit(lived_through, tmp_path / str(n), names, kills, n) for n, names in enumerate(WORLDS)]
        for one in done:
            one.result()
