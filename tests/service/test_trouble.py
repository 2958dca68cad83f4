"""The service in trouble, as a process of its own: full disks, broken databases, clocks that jump, nobody there."""

from __future__ import annotations

import errno
import os
import random
import re
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.receiver import UNAVAILABLE, Receiver
from tests.service.running import OTELBRIDGE, Running, Writer, config_for, converted, received, running, until

RECORDINGS = Path(__file__).resolve().parents[1] / "recordings"
BUSY = "debian-7.2/precopy-busy/src.log"
MIB = 1 << 20
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
_STAMP = re.compile(rb"^(\d+)@(\d+)\.(\d{6}):", re.MULTILINE)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts file systems and becomes somebody else")


def content(name: str = BUSY, times: int = 1) -> bytes:
    """A recording, so many times one after the other, each an hour later."""
    data = (RECORDINGS / name).read_bytes()
    return b"".join(shifted(data, 3600 * number) for number in range(times))


def shifted(data: bytes, by_s: int) -> bytes:
    """The lines with other stamps."""
    return _STAMP.sub(lambda found: b"%b@%d.%b:" % (found[1], int(found[2]) + by_s, found[3]), data)


def halves(data: bytes) -> tuple[bytes, bytes]:
    """Two parts; the cut is within a line."""
    return data[: len(data) // 2], data[len(data) // 2 :]


def append(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as log:
        log.write(data)


def is_settled(service: Running) -> bool:
    """Whether everything was read, has ended and was taken."""
    status = service.status()
    return (
        bool(status["inputs"])
        and all(one["ended"] and not one["lag_bytes"] for one in status["inputs"])
        and not status["outbox"]["pending_bytes"]
    )


def ids_in(receiver: Receiver) -> Counter[bytes]:
    """How often each span came."""
    found: Counter[bytes] = Counter()
    for signal, body in list(receiver.requests):
        if signal == "traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    found.update(span.trace_id + span.span_id for span in scope.spans)
    return found


def check_complete(receiver: Receiver, logs: Sequence[Path], *, once: bool = True) -> None:
    """Compare what came with what conversions of the whole logs give; `once`: no span came twice, not even as the same."""
    spans, totals = received(receiver)
    wanted_spans, wanted_totals = converted(logs)
    assert [ids for ids, contents in spans.items() if len(contents) > 1] == []
    assert spans.keys() == wanted_spans.keys()
    assert spans == wanted_spans
    assert totals == wanted_totals
    if once:
        assert [ids for ids, number in ids_in(receiver).items() if number > 1] == []


# --- disks ------------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path, size: str = "2m") -> Iterator[Path]:
    """A file system of its own."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"it cannot be mounted here: {done.stderr.decode()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(path: Path) -> None:
    """Leave not a byte."""
    with path.open("wb", buffering=0) as filler:
        for size in (1 << 16, 1 << 10, 1):
            try:
                while True:
                    filler.write(b"x" * size)
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017 - that is the aim


@as_root
def test_on_a_full_disk_it_goes_on_from_memory_and_recovers_when_there_is_room(tmp_path: Path) -> None:
    log, (first, second) = tmp_path / "logs" / "vm.log", halves(content())
    with small_disk(tmp_path / "disk") as disk, Receiver() as receiver:
        config = config_for(tmp_path, receiver, outbox={"folder": str(disk / "outbox")})
        with running(tmp_path, config) as service:
            append(log, first[: len(first) // 2])
            until(lambda: receiver.requests)
            fill(disk / "filler")
            append(log, first[len(first) // 2 :])
            until(lambda: service.status()["outbox"]["state"] == "memory")
            before = len(ids_in(receiver))
            append(log, second[: len(second) // 2])
            until(lambda: len(ids_in(receiver)) > before + 20)
            assert service.status()["outbox"]["words"].startswith("The outbox is in memory only")
            assert "full" in service.status()["outbox"]["words"]
            assert service.answer("/readyz")[0] == 200
            assert service.log.count("The outbox is in memory only") == 1
            (disk / "filler").unlink()
            until(lambda: service.status()["outbox"]["state"] == "ok")
            assert "on the disk again" in service.log
            append(log, second[len(second) // 2 :])
            until(lambda: len(ids_in(receiver)) > before + 40)
            assert service.stop() == 0
            service.start()
            until(lambda: is_settled(service))
            assert service.status()["losses"] == {}
            assert service.stop() == 0
        check_complete(receiver, [log])


@as_root
def test_started_on_a_full_disk_it_works_and_recovers(tmp_path: Path) -> None:
    log, (first, second) = tmp_path / "logs" / "vm.log", halves(content())
    append(log, first)
    with small_disk(tmp_path / "disk") as disk, Receiver() as receiver:
        fill(disk / "filler")
        config = config_for(tmp_path, receiver, outbox={"folder": str(disk / "outbox")})
        with running(tmp_path, config) as service:
            until(lambda: receiver.requests)
            assert service.status()["outbox"]["state"] == "memory"
            (disk / "filler").unlink()
            until(lambda: service.status()["outbox"]["state"] == "ok")
            append(log, second)
            until(lambda: is_settled(service))
            assert service.stop() == 0
            service.start()
            assert service.stop() == 0
        check_complete(receiver, [log])


@as_root
def test_a_full_disk_and_no_destination_lose_nothing_while_it_runs(tmp_path: Path) -> None:
    log, (first, second) = tmp_path / "logs" / "vm.log", halves(content())
    with small_disk(tmp_path / "disk") as disk, Receiver() as receiver:
        config = config_for(tmp_path, receiver, outbox={"folder": str(disk / "outbox")})
        with running(tmp_path, config) as service:
            receiver.script("traces", [UNAVAILABLE] * 1000)
            receiver.script("metrics", [UNAVAILABLE] * 1000)
            append(log, first)
            until(lambda: service.status()["outbox"]["pending_bytes"])
            fill(disk / "filler")
            append(log, second)
            until(lambda: service.status()["outbox"]["memory_bytes"])
            (disk / "filler").unlink()
            until(lambda: service.status()["outbox"]["state"] == "ok")
            service.kill()
            receiver.script("traces", [])
            receiver.script("metrics", [])
            service.start()
            until(lambda: is_settled(service), 90)
            assert service.status()["losses"] == {}
        check_complete(receiver, [log])


@as_root
def test_a_disk_that_is_read_only_at_the_start_is_written_as_soon_as_it_can_be(tmp_path: Path) -> None:
    log, (first, second) = tmp_path / "logs" / "vm.log", halves(content())
    with small_disk(tmp_path / "disk") as disk, Receiver() as receiver:
        config = config_for(tmp_path, receiver, outbox={"folder": str(disk / "outbox")})
        with running(tmp_path, config) as service:
            append(log, first)
            until(lambda: receiver.requests)
            assert service.stop() == 0
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            append(log, second[: len(second) // 2])
            service.start()
            before = len(ids_in(receiver))
            append(log, second[len(second) // 2 :])
            until(lambda: len(ids_in(receiver)) > before)
            assert service.status()["outbox"]["state"] == "memory"
            subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
            until(lambda: service.status()["outbox"]["state"] == "ok")
            until(lambda: is_settled(service))
            assert service.status()["losses"] == {}
            assert service.stop() == 0
            service.start()
            assert service.stop() == 0
        # What was settled on a disk that cannot be written comes again after a restart, as the same bytes.
        check_complete(receiver, [log], once=False)


NOBODY = (
    "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all,+dac_read_search",
    "--ambient-caps=+dac_read_search", "--bounding-set=-all,+dac_read_search",
)  # fmt: skip
"""Somebody who may read everything and write only what is theirs."""


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A folder where everybody may look: pytest's own are root's."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@as_root
def test_a_folder_that_may_not_be_written_is_said_and_used_when_it_may(public_path: Path) -> None:
    log, (first, second) = public_path / "logs" / "vm.log", halves(content())
    folder = public_path / "outbox"
    folder.mkdir()
    append(log, first)
    with (
        Receiver() as receiver,
        running(public_path, config_for(public_path, receiver), command=(*NOBODY, *OTELBRIDGE)) as service,
    ):
        until(lambda: receiver.requests)
        outbox = service.status()["outbox"]
        assert outbox["state"] == "memory"
        assert str(folder) in outbox["words"]
        os.chown(folder, 65534, 65534)
        folder.chmod(0o700)
        until(lambda: service.status()["outbox"]["state"] == "ok")
        folder.chmod(0o500)
        os.chown(folder, 0, 0)
        append(log, second)
        until(lambda: is_settled(service))
        assert service.status()["losses"] == {}
        assert service.stop() == 0
    check_complete(receiver, [log])


# --- databases --------------------------------------------------------------------------------------


def cut(path: Path, chance: random.Random) -> None:
    with path.open("r+b") as file:
        file.truncate(chance.randrange(path.stat().st_size))


def overwrite(path: Path, chance: random.Random) -> None:
    with path.open("r+b") as file:
        for _ in range(chance.choice((1, 4, 40))):
            file.seek(chance.randrange(path.stat().st_size))
            file.write(chance.randbytes(chance.choice((1, 100, 5000))))


def garbage(path: Path, chance: random.Random) -> None:
    new = path.with_suffix(".new-garbage")
    new.write_bytes(chance.randbytes(50_000))
    new.rename(path)


def empty(path: Path, _chance: random.Random) -> None:
    path.write_bytes(b"")


def folder_instead(path: Path, _chance: random.Random) -> None:
    if path.is_file():
        path.unlink()
        path.mkdir()


def patient(folder: Path, receiver: Receiver) -> dict[str, Any]:
    return config_for(folder, receiver, inputs=[{"files": str(folder / "logs" / "*.log"), **PATIENT}])


def without_side_files(path: Path) -> None:
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


Damage = Callable[[Path, random.Random], None]
PATIENT = {"idle_timeout": "12s"}
"""Longer than the service is away, so that nothing ends in between."""
DAMAGES: Sequence[Damage] = (cut, overwrite, garbage, empty, folder_instead)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_database_that_was_damaged_while_it_was_down_is_set_aside_and_all_that_was_not_sent_comes(
    damage: Damage, tmp_path: Path
) -> None:
    rounds = 8 if damage in (cut, overwrite) else 1
    data = content()
    piece = -(-len(data) // (rounds + 1))
    log, chance = tmp_path / "logs" / "vm.log", random.Random(rounds)  # noqa: S311 - where it breaks
    database = tmp_path / "outbox" / "outbox.db"
    with Receiver() as receiver, running(tmp_path, patient(tmp_path, receiver), start=False) as service:
        append(log, data[:piece])
        for number in range(1, rounds + 1):
            service.start()
            until(lambda: _is_read(service) and not service.status()["outbox"]["pending_bytes"])
            assert service.stop() == 0 if number % 2 else _killed(service)
            without_side_files(database) if number % 3 == 0 else None
            damage(database, chance)
            append(log, data[number * piece : (number + 1) * piece])
        service.start()
        until(lambda: is_settled(service))
        said = service.log
        service.start() if service.stop() else None
    assert said.count("Traceback") == 0, said[-3000:]
    if damage not in (cut, overwrite, empty):
        assert "begun anew" in said
    check_complete(receiver, [log], once=False)


def _is_read(service: Running) -> bool:
    inputs = service.status()["inputs"]
    return bool(inputs) and not any(one["lag_bytes"] for one in inputs) and all(one["idle_s"] > 1.5 for one in inputs)


def _killed(service: Running) -> bool:
    service.kill()
    return True


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_database_that_is_damaged_while_it_is_open_is_begun_anew_without_a_loss(damage: Damage, tmp_path: Path) -> None:
    log, data, chance = tmp_path / "logs" / "vm.log", content(), random.Random(1)  # noqa: S311 - where it breaks
    database = tmp_path / "outbox" / "outbox.db"
    parts = [data[i * len(data) // 4 : (i + 1) * len(data) // 4] for i in range(4)]
    with Receiver() as receiver, running(tmp_path, patient(tmp_path, receiver)) as service:
        append(log, parts[0])
        until(lambda: receiver.requests)
        damage(database, chance)
        append(log, parts[1])
        until(lambda: _is_read(service))
        service.kill()
        service.start()
        append(log, parts[2])
        until(lambda: _is_read(service))
        damage(database, chance)
        append(log, parts[3])
        until(lambda: is_settled(service))
        assert service.stop() == 0
        service.start()
        until(lambda: is_settled(service))
        assert service.stop() == 0
    assert service.log.count("Traceback") == 0, service.log[-3000:]
    check_complete(receiver, [log], once=False)


def test_requests_that_wait_in_a_damaged_database_are_sent_or_counted_as_lost(tmp_path: Path) -> None:
    log, data = tmp_path / "logs" / "vm.log", content()
    append(log, data)
    wanted, _ = converted([log])
    for seed in range(6):
        chance = random.Random(seed)  # noqa: S311 - where it breaks
        folder = tmp_path / str(seed)
        append(folder / "logs" / "vm.log", data)
        with Receiver() as receiver, running(folder, config_for(folder, receiver)) as service:
            receiver.script("traces", [UNAVAILABLE] * 1000)
            receiver.script("metrics", [UNAVAILABLE] * 1000)
            until(lambda service=service: all(one["ended"] for one in service.status()["inputs"]))
            service.stop()
            overwrite(folder / "outbox" / "outbox.db", chance)
            receiver.script("traces", [])
            receiver.script("metrics", [])
            service.start()
            until(lambda service=service: is_settled(service))
            status = service.status()
            spans, _ = received(receiver)
            said = service.log
            assert service.stop() == 0
        assert "Traceback" not in said
        assert all(contents == wanted[ids] for ids, contents in spans.items())
        assert spans.keys() == wanted.keys() or "begun anew" in said, status["losses"]


# --- the clock --------------------------------------------------------------------------------------


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed")
def test_a_clock_that_jumps_back_and_forth_changes_nothing(tmp_path: Path) -> None:
    lines = content().splitlines(keepends=True)
    cuts = [len(lines) * i // 60 for i in range(61)]
    parts = [b"".join(lines[begin:end]) for begin, end in pairwise(cuts)]
    log, clock = tmp_path / "logs" / "vm.log", tmp_path / "clock"
    clock.write_text("+0")
    env = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with Receiver() as receiver, running(tmp_path, config_for(tmp_path, receiver), **env) as service:
        for number, part in enumerate(parts):
            offset = "-3600" if len(parts) // 3 <= number < 2 * len(parts) // 3 else "+0"
            clock.write_text(offset)
            # The host's clock is QEMU's, too.
            append(log, shifted(part, int(offset)))
            # Never silent for as long as lets waiting events go.
            time.sleep(0.1)
        until(lambda: is_settled(service))
        assert service.status()["losses"] == {}
        # Killed, since libfaketime refuses time.sleep after such a jump on a host that was booted less than an hour ago.
        service.kill()
        clock.write_text("-3600")
        service.start()
        until(lambda: is_settled(service))
        service.kill()
    check_complete(receiver, [log])


# --- the limit --------------------------------------------------------------------------------------


def rss_bytes(service: Running) -> int:
    assert service.process is not None
    return int(Path(f"/proc/{service.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def limited(tmp_path: Path, receiver: Receiver | str, **more: Any) -> dict[str, Any]:
    return config_for(tmp_path, receiver, outbox={"folder": str(tmp_path / "outbox"), "limit": "1MiB"}, **more)


def away(receiver: Receiver) -> None:
    receiver.script("traces", [UNAVAILABLE] * 10_000)
    receiver.script("metrics", [UNAVAILABLE] * 10_000)


def back(receiver: Receiver) -> None:
    receiver.script("traces", [])
    receiver.script("metrics", [])


def test_at_the_limit_reading_waits_and_everything_comes_when_the_destination_is_back(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "vm.log"
    append(log, content(times=40))
    with Receiver() as receiver:
        away(receiver)
        with running(tmp_path, limited(tmp_path, receiver)) as service:
            until(lambda: service.status()["outbox"]["state"] == "full", 30)
            until(lambda: "reading waits" in service.log)
            assert service.answer("/readyz")[0] == 503
            status, memory = service.status(), rss_bytes(service)
            # Longer than the time-out: what waits to be read has not ended.
            time.sleep(4.0)
            later = service.status()
            assert later["inputs"][0]["bytes"] == status["inputs"][0]["bytes"] < log.stat().st_size
            assert later["outbox"]["pending_bytes"] < 3 * MIB
            assert not later["inputs"][0]["ended"]
            assert rss_bytes(service) < memory + 8 * MIB
            assert service.stop() == 0
            service.start()
            assert until(lambda: service.answer("/readyz")[0] == 503)
            service.kill()
            service.start()
            assert until(lambda: service.answer("/readyz")[0] == 503)
            back(receiver)
            until(lambda: is_settled(service), 120)
            assert "reading goes on" in service.log
            assert service.answer("/readyz")[0] == 200
            assert service.status()["losses"] == {}
            assert service.stop() == 0
    check_complete(receiver, [log])


def test_at_the_limit_data_that_would_vanish_pushes_out_the_oldest(tmp_path: Path) -> None:
    data = content(times=60)
    whole = tmp_path / "whole" / "vm.log"
    append(whole, data)
    writer = Writer(tmp_path / "logs" / "vm.log", data, max_bytes=len(data) // 20, backups=2)
    stop = threading.Event()
    with Receiver() as receiver:
        away(receiver)
        with running(tmp_path, limited(tmp_path, receiver)) as service:
            writer.run(15.0, stop)
            writer.close()
            until(lambda: service.status()["losses"])
            until(lambda: "dropped the oldest" in service.log)
            back(receiver)
            until(lambda: is_settled(service), 120)
            losses = service.status()["losses"]
            assert service.stop() == 0
    wanted, _ = converted([whole])
    spans, _ = received(receiver)
    assert all(contents == wanted[ids] for ids, contents in spans.items())
    assert losses["otelbridge.outbox.spans_dropped"] == len(wanted) - len(spans)
    assert _newest(wanted) <= spans.keys()


def _newest(spans: dict[tuple[bytes, bytes], set[bytes]]) -> set[tuple[bytes, bytes]]:
    """The last hundred spans of what one conversion gives, in the order in which they came."""
    return set(list(spans)[-100:])


def test_a_pipe_never_waits_for_the_outbox(tmp_path: Path) -> None:
    pipe, data = tmp_path / "trace.fifo", content(times=40)
    whole = tmp_path / "whole" / "vm.log"
    append(whole, data)
    os.mkfifo(pipe)
    with Receiver() as receiver:
        away(receiver)
        config = limited(tmp_path, receiver, inputs=[{"pipe": str(pipe), "idle_timeout": "3s"}])
        with running(tmp_path, config) as service:
            begin_s = time.monotonic()
            with pipe.open("wb", buffering=0) as end:
                for place in range(0, len(data), 8192):
                    end.write(data[place : place + 8192])
                    assert time.monotonic() < begin_s + 60
            until(lambda: service.status()["losses"])
            assert "dropped the oldest" in service.log
            back(receiver)
            until(lambda: is_settled(service), 120)
            losses = service.status()["losses"]
            assert service.stop() == 0
    spans, _ = received(receiver)
    assert len(spans) > 500
    assert losses["otelbridge.outbox.spans_dropped"] == len(converted([whole])[0]) - len(spans)


# --- destinations -----------------------------------------------------------------------------------


@contextmanager
def mute() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def dead() -> Iterator[str]:
    """An address where nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@pytest.mark.parametrize("kind", [mute, dead])
def test_a_destination_that_hangs_or_is_dead_holds_up_no_other(kind: Callable[[], Any], tmp_path: Path) -> None:
    log, (first, second) = tmp_path / "logs" / "vm.log", halves(content())
    with Receiver() as traces, Receiver() as metrics, kind() as other:
        destinations = {
            "other": {"endpoint": other},
            "traces": {"endpoint": traces.http_url, "signals": ["traces"]},
            "metrics": {"endpoint": metrics.grpc_url, "signals": ["metrics"]},
        }
        with running(tmp_path, config_for(tmp_path, "", destinations=destinations)) as service:
            time.sleep(1.0)
            append(log, first)
            written_s = time.monotonic()
            until(lambda: traces.requests)
            assert time.monotonic() - written_s < 4.0
            append(log, second)
            until(lambda: service.status()["inputs"][0]["ended"])
            until(lambda: _waiting(service) == {"other"})
            assert {signal for signal, _ in traces.requests} == {"traces"}
            assert {signal for signal, _ in metrics.requests} == {"metrics"}
            assert service.stop() == 0
    wanted_spans, wanted_totals = converted([log])
    assert received(traces)[0] == wanted_spans
    assert received(metrics)[1] == wanted_totals


def _waiting(service: Running) -> set[str]:
    return {one["destination"] for one in service.status()["outbox"]["pending"]}
