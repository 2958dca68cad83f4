"""The service's outbox keeps what it was given whatever the disk does, within its limits."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from otelbridge.errors import SpoolInUseError
from otelbridge.otlp.outbox import DATABASE, Outbox
from otelbridge.records import Request
from otelbridge.service.outbox import ServiceOutbox
from tests.service.rig import MIB, NAME, Counts, eventually, take

IN_MEMORY = "The outbox is in memory only"


def request(number: int, size: int = 2000) -> Request:
    return Request("traces", random.Random(number).randbytes(size), number + 1)  # noqa: S311


def opened(
    folder: Path, *, limit: int = 64 * MIB, rejected: int = MIB, memory: int = 64 * MIB, counts: Counts | None = None
) -> ServiceOutbox:
    return ServiceOutbox(
        folder, limit_bytes=limit, rejected_limit_bytes=rejected, memory_limit_bytes=memory, count=counts or Counts()
    )


def put(outbox: ServiceOutbox, *numbers: int, name: str = NAME) -> None:
    outbox.commit({}, [(name, request(number)) for number in numbers])


def drain(outbox: ServiceOutbox, name: str = NAME) -> list[Request]:
    """Everything that waits for a destination, settled."""
    found = []
    while (kept := take(outbox, name=name)) is not None:
        found.append(kept.request)
        outbox.settle(kept.id)
    return found


def pending(outbox: ServiceOutbox) -> int:
    return sum(amount.requests for amount in outbox.status().pending.values())


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[ServiceOutbox]:
    outbox = opened(tmp_path)
    yield outbox
    outbox.close()


# --- what it is for -------------------------------------------------------------------------------------


def test_states_and_requests_are_there_after_a_restart(tmp_path: Path) -> None:
    outbox = opened(tmp_path)
    outbox.commit({"a": b"1", "b": b"2"}, [(NAME, request(0)), ("other", request(1))])
    outbox.commit({"b": None}, [(NAME, request(2))])
    outbox.close()
    again = opened(tmp_path)
    assert again.states() == {"a": b"1"}
    assert drain(again) == [request(0), request(2)]
    assert drain(again, "other") == [request(1)]
    again.close()
    with Outbox.existing(tmp_path) as closed:
        assert list(closed.pending()) == []


def test_a_request_is_with_one_sender_at_a_time_and_comes_back_in_its_place(outbox: ServiceOutbox) -> None:
    put(outbox, 0, 1)
    first, second = take(outbox), take(outbox)
    assert first is not None
    assert second is not None
    assert take(outbox) is None
    outbox.give_back(second.id)
    outbox.give_back(first.id)
    assert drain(outbox) == [request(0), request(1)]


def test_a_commit_wakes_the_sender_that_waits(outbox: ServiceOutbox) -> None:
    found = []
    thread = threading.Thread(target=lambda: found.append(take(outbox, timeout_s=30)))
    thread.start()
    put(outbox, 7)
    thread.join(10)
    assert [kept.request for kept in found if kept] == [request(7)]


def test_what_was_refused_is_kept_apart_and_the_oldest_goes_first(tmp_path: Path) -> None:
    counts = Counts()
    outbox = opened(tmp_path, rejected=5000, counts=counts)
    put(outbox, 0, 1, 2)
    for number in range(3):
        kept = take(outbox)
        assert kept is not None
        outbox.reject(kept.id, f"400 number {number}")
    assert [amount.requests for amount in outbox.status().rejected.values()] == [2]
    assert counts["outbox.rejected_dropped"] == 1
    outbox.close()
    with Outbox.existing(tmp_path) as closed:
        assert [(k.request, why) for k, why in closed.rejected()] == [
            (request(1), "400 number 1"),
            (request(2), "400 number 2"),
        ]


def test_the_age_of_what_waits_is_known_after_a_restart(tmp_path: Path) -> None:
    now = 1_700_000_000_000_000_000
    outbox = ServiceOutbox(tmp_path, limit_bytes=MIB, rejected_limit_bytes=MIB, now_ns=lambda: now)
    assert outbox.status().oldest_ns is None
    put(outbox, 0)
    outbox.close()
    later = ServiceOutbox(tmp_path, limit_bytes=MIB, rejected_limit_bytes=MIB, now_ns=lambda: now + 90_000_000_000)
    assert later.status().oldest_ns == 90_000_000_000
    later.close()


def test_a_clock_that_jumps_back_keeps_the_order(tmp_path: Path) -> None:
    times = iter([1_700_000_000_000_000_000, 1_600_000_000_000_000_000, 1_600_000_000_000_000_000, 1_600_000_000_000_000_001])
    outbox = ServiceOutbox(tmp_path, limit_bytes=MIB, rejected_limit_bytes=MIB, now_ns=lambda: next(times))
    put(outbox, 0)
    put(outbox, 1)
    put(outbox, 2)
    assert drain(outbox) == [request(0), request(1), request(2)]
    outbox.close()


def test_a_second_service_is_refused(tmp_path: Path, outbox: ServiceOutbox) -> None:
    program = "import sys; from pathlib import Path; from tests.service.test_outbox import opened; opened(Path(sys.argv[1]))"
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert SpoolInUseError.__name__ in ran.stderr
    assert "a service (`otelbridge run`) or another command has it open" in ran.stderr
    put(outbox, 0)


# --- limits ---------------------------------------------------------------------------------------------


def test_reading_is_to_stop_at_the_limit_and_goes_on_below_it(tmp_path: Path) -> None:
    outbox = opened(tmp_path, limit=4000)
    put(outbox, 0)
    assert not outbox.is_full
    put(outbox, 1)
    assert outbox.is_full
    assert outbox.status().state == "full"
    assert "4000 bytes wait and the limit is 4000" in outbox.status().words
    drain(outbox)
    assert not outbox.is_full
    assert outbox.status().state == "ok"
    outbox.close()


def test_room_is_made_by_dropping_the_oldest_and_that_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    counts = Counts()
    outbox = opened(tmp_path, limit=10_000, counts=counts)
    put(outbox, 0, name="old")
    put(outbox, 1, 2, 3, 4)
    busy = take(outbox)
    assert busy is not None
    assert outbox.make_room(3000) == 2
    assert counts["outbox.requests_dropped"] == 2
    assert counts["outbox.spans_dropped"] == request(0).items + request(2).items
    assert "dropped the oldest 2 requests with 4 spans and 0 points" in caplog.text
    assert outbox.make_room(0) == 0
    outbox.settle(busy.id)
    assert drain(outbox) == [request(3), request(4)]
    outbox.close()
    with Outbox.existing(tmp_path) as closed:
        assert list(closed.pending()) == []


# --- disks ----------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def full_disk(folder: Path) -> Path:
    """Fill the disk; the file to remove."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    return filler


def test_a_full_disk_costs_nothing_and_passes_by_itself(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    outbox = opened(small_disk)
    outbox.commit({"a": b"old", "b": b"old"}, [(NAME, request(0)), (NAME, request(1))])
    filler = full_disk(small_disk)
    # Larger than what the database has room for by itself.
    outbox.commit({"a": b"new" * 20_000, "b": None}, [(NAME, request(number, 50_000)) for number in range(2, 6)])
    status = outbox.status()
    assert status.state == "memory"
    assert "the disk is full. Make room on it." in status.words
    assert status.since_ns is not None
    assert status.memory_bytes > 200_000
    assert outbox.states() == {"a": b"new" * 20_000}
    # Senders go on, with what is on the disk and with what is not.
    kept = [take(outbox) for _ in range(3)]
    assert [k.request for k in kept if k] == [request(0), request(1), request(2, 50_000)]
    for k in kept:
        assert k is not None
        outbox.settle(k.id)
    filler.unlink()
    eventually(lambda: outbox.commit({}, []) or outbox.status().state == "ok")
    assert outbox.status().memory_bytes == 0
    assert caplog.text.count(IN_MEMORY) == 1
    assert "The outbox is on the disk again" in caplog.text
    outbox.close()
    again = opened(small_disk)
    assert again.states() == {"a": b"new" * 20_000}
    assert drain(again) == [request(number, 50_000) for number in range(3, 6)]
    again.close()


def test_a_disk_that_is_full_from_the_start(small_disk: Path) -> None:
    filler = full_disk(small_disk)
    outbox = opened(small_disk)
    put(outbox, 0, 1)
    assert outbox.status().state == "memory"
    kept = take(outbox)
    assert kept is not None
    outbox.settle(kept.id)
    filler.unlink()
    eventually(lambda: outbox.commit({}, []) or outbox.status().state == "ok")
    outbox.close()
    again = opened(small_disk)
    assert drain(again) == [request(1)]
    again.close()


def test_a_read_only_file_system_is_run_without_and_taken_in_when_it_is_writable(small_disk: Path) -> None:
    before = opened(small_disk)
    before.commit({"a": b"old", "b": b"old"}, [(NAME, request(0))])
    before.close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    outbox = opened(small_disk)
    outbox.commit({"a": b"new"}, [(NAME, request(1))])
    assert outbox.status().state == "memory"
    assert "cannot be written" in outbox.status().words
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    eventually(lambda: outbox.commit({}, []) or outbox.status().state == "ok")
    assert outbox.states() == {"a": b"new", "b": b"old"}
    assert drain(outbox) == [request(0), request(1)]
    outbox.close()


def test_a_database_that_becomes_read_only_is_still_read(tmp_path: Path) -> None:
    outbox = opened(tmp_path)
    put(outbox, 0, 1)
    assert outbox._outbox is not None
    # SQLite answers as on a file system that is mounted anew to be read only, which no open file would let us do.
    outbox._outbox._db.execute("PRAGMA query_only = ON")
    put(outbox, 2)
    assert outbox.status().state == "memory"
    assert drain(outbox) == [request(0), request(1), request(2)]
    put(outbox, 3)
    outbox._outbox._db.execute("PRAGMA query_only = OFF")
    eventually(lambda: outbox.commit({}, []) or outbox.status().state == "ok")
    outbox.close()
    again = opened(tmp_path)
    assert drain(again) == [request(3)]
    again.close()


FILE_LIMIT = """
import resource, sys
from pathlib import Path
from tests.service.test_outbox import opened, request, drain, put, NAME
outbox = opened(Path(sys.argv[1]))
put(outbox, 0, 1)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
outbox.commit({"a": b"x" * 50_000}, [(NAME, request(2, 100_000))])
print(outbox.status().state)
print(drain(outbox) == [request(0), request(1), request(2, 100_000)])
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
import time
while outbox.status().state != "ok":
    time.sleep(0.05)
    outbox.commit({}, [])
print(outbox.states() == {"a": b"x" * 50_000})
outbox.close()
"""


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FILE_LIMIT, str(tmp_path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.stdout.split() == ["memory", "True", "True"], ran.stderr
    with Outbox.existing(tmp_path) as closed:
        assert list(closed.pending()) == []
        assert closed.verify() == []


def test_memory_is_bounded_while_the_disk_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    counts = Counts()
    outbox = opened(tmp_path / "file", memory=8000, counts=counts)
    put(outbox, 0, 1, 2)
    assert not outbox.is_full
    put(outbox, 3)
    assert outbox.is_full
    assert "8000 bytes are in memory only" in outbox.status().words
    assert outbox.make_room(2000) == 1
    assert counts["outbox.requests_dropped"] == 1
    assert drain(outbox) == [request(1), request(2), request(3)]
    outbox.close()


def test_a_file_in_the_folders_place_is_said_and_taken_in_when_it_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "outbox"
    folder.write_text("in the way")
    outbox = opened(folder)
    outbox.commit({"a": b"1"}, [(NAME, request(0))])
    assert "is a file; a spool needs a folder" in outbox.status().words
    folder.unlink()
    eventually(lambda: outbox.commit({}, []) or outbox.status().state == "ok")
    outbox.close()
    with Outbox.existing(folder) as closed:
        assert closed.states() == {"a": b"1"}
        assert [k.request for k in closed.pending()] == [request(0)]


WITHOUT_RIGHTS = """
import os, sys, time
from pathlib import Path
from tests.service.test_outbox import opened, request, drain, put
folder = Path(sys.argv[1])
if os.geteuid() == 0:
    os.seteuid(65534)
outbox = opened(folder)
put(outbox, 5)
print(outbox.status().state)
os.seteuid(os.getuid())
os.chmod(folder, 0o700)
os.chmod(folder / "outbox.db", 0o600)
while outbox.status().state != "ok":
    time.sleep(0.05)
    outbox.commit({}, [])
print(drain(outbox) == [request(0), request(1), request(5)])
outbox.close()
"""


def test_a_folder_without_rights_is_run_without_and_taken_in_with_what_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "outbox"
    before = opened(folder)
    put(before, 0, 1)
    before.close()
    (folder / DATABASE).chmod(0o400)
    folder.chmod(0o500)
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_RIGHTS, str(folder)], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.stdout.split() == ["memory", "True"], ran.stderr


def test_what_is_in_memory_when_the_service_ends_is_said_to_be_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    counts = Counts()
    outbox = opened(tmp_path / "file", counts=counts)
    put(outbox, 0, 1)
    outbox.close()
    assert counts["outbox.requests_lost"] == 2
    assert counts["outbox.spans_lost"] == request(0).items + request(1).items
    assert "2 requests and 0 states that were in memory only are lost" in caplog.text


def test_a_database_that_is_removed_under_us_is_made_again(tmp_path: Path) -> None:
    counts = Counts()
    outbox = opened(tmp_path, counts=counts)
    outbox.commit({"a": b"1"}, [(NAME, request(0)), (NAME, request(1))])
    busy = take(outbox)
    assert busy is not None
    for file in tmp_path.iterdir():
        file.unlink()
    outbox.commit({"b": b"2"}, [(NAME, request(2))])
    assert outbox.states_wanted()
    assert not outbox.states_wanted()
    # The one that a sender has is still known.
    outbox.give_back(busy.id)
    assert drain(outbox) == [request(0), request(2)]
    assert counts["outbox.requests_lost"] == 1
    outbox.close()
    with Outbox.existing(tmp_path) as closed:
        assert closed.states() == {"b": b"2"}


# --- damage ---------------------------------------------------------------------------------------------

STATES = {f"stream:{number}": bytes([number % 256]) * 900 for number in range(60)}
REQUESTS = [request(number, 700 * (number % 7 + 1)) for number in range(80)]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    outbox = opened(folder)
    for number, (key, body) in enumerate(STATES.items()):
        outbox.commit({key: body}, [(NAME, REQUESTS[number])])
    outbox.commit({}, [(NAME, request) for request in REQUESTS[60:]])
    outbox.close()
    return folder


def damage(path: Path, place: int) -> None:
    """Cut the file, or overwrite some of it, at a place that the number gives."""
    chance = random.Random(place)  # noqa: S311
    data = bytearray(path.read_bytes())
    offset, length = chance.randrange(len(data)), chance.choice([1, 8, 100, 4096, 20_000])
    match place % 4:
        case 0:
            del data[offset:]
        case 1:
            data[offset : offset + length] = chance.randbytes(min(length, len(data) - offset))
        case 2:
            data[offset : offset + length] = bytes(min(length, len(data) - offset))
        case 3:
            del data[offset : offset + length]
    path.write_bytes(data)


def assert_usable(outbox: ServiceOutbox) -> tuple[dict[str, bytes], list[Request]]:
    """It takes and gives as ever, and what it holds is what was put; what it held."""
    states = outbox.states()
    assert STATES.items() >= states.items()
    outbox.commit({"new": b"state"}, [(NAME, request(1000))])
    assert outbox.status().state == "ok"
    found = drain(outbox)
    assert found[-1] == request(1000)
    assert all(old in REQUESTS for old in found[:-1])
    assert outbox.states() == states | {"new": b"state"}
    return states, found[:-1]


@pytest.mark.parametrize("place", range(100))
def test_a_damaged_database_is_begun_anew_with_what_holds(good: Path, tmp_path: Path, place: int) -> None:
    folder = tmp_path / "outbox"
    shutil.copytree(good, folder)
    damage(folder / DATABASE, place)
    outbox = opened(folder)
    states, found = assert_usable(outbox)
    outbox.close()
    aside = sorted(folder.glob("outbox.db.damaged-*Z"))
    if not aside:
        # What no one reads may be damaged in peace, and an empty file is a new one.
        assert len(states) in (0, len(STATES))
        assert len(found) in (0, len(REQUESTS))
    with Outbox.existing(folder) as closed:
        assert closed.verify() == []


def test_damage_of_one_row_or_page_costs_only_that(good: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "outbox"
    shutil.copytree(good, folder)
    path = folder / DATABASE
    data = bytearray(path.read_bytes())
    data[data.index(REQUESTS[40].body[-300:])] ^= 1
    data[data.index(STATES["stream:7"][:400])] ^= 1
    path.write_bytes(data)
    outbox = opened(folder)
    states, found = assert_usable(outbox)
    outbox.close()
    assert found == [*REQUESTS[:40], *REQUESTS[41:]]
    assert states == {key: body for key, body in STATES.items() if key != "stream:7"}
    assert "59 states and 79 requests that hold were taken over" in caplog.text
    assert len([*folder.glob("outbox.db.damaged-*Z")]) == 1


def test_pages_in_the_middle_cost_little(good: Path, tmp_path: Path) -> None:
    """Rows before, between and behind two destroyed pages are taken over."""
    folder = tmp_path / "outbox"
    shutil.copytree(good, folder)
    db = sqlite3.connect(folder / DATABASE)
    pages = [number for (number,) in db.execute("SELECT pageno FROM dbstat WHERE name = 'requests' AND pagetype = 'leaf'")]
    db.close()
    path = folder / DATABASE
    data = bytearray(path.read_bytes())
    for number in (pages[len(pages) // 3], pages[2 * len(pages) // 3]):
        data[(number - 1) * 4096 : number * 4096] = b"\xa5" * 4096
    path.write_bytes(data)
    outbox = opened(folder)
    states, found = assert_usable(outbox)
    outbox.close()
    assert states == STATES
    per_page = len(REQUESTS) / len(pages)
    assert len(REQUESTS) - 4 * per_page - 2 <= len(found) < len(REQUESTS)
    places = [REQUESTS.index(r) for r in found]
    assert places == sorted(places)


@pytest.mark.parametrize("place", range(30))
def test_damage_while_it_runs_is_survived(tmp_path: Path, place: int) -> None:
    counts = Counts()
    outbox = opened(tmp_path, counts=counts)
    outbox.commit(STATES, [(NAME, request) for request in REQUESTS])
    busy = take(outbox)
    assert busy is not None
    # Push it out of SQLite's log and cache.
    outbox.commit({f"filler:{number}": bytes(1000) for number in range(6000)}, [])
    outbox.commit({f"filler:{number}": None for number in range(6000)}, [])
    path = tmp_path / DATABASE
    chance = random.Random(place)  # noqa: S311
    with path.open("r+b") as file:
        size = path.stat().st_size
        for _ in range(5):
            file.seek(chance.randrange(size))
            file.write(chance.randbytes(chance.choice([1, 100, 5000])))
        if place % 3 == 0:
            file.truncate(chance.randrange(size))
    for number in range(10):
        outbox.commit({f"after:{number}": b"x"}, [(NAME, request(1000 + number))])
    found = []
    deadline_s = time.monotonic() + 60
    while pending(outbox) > 1 and time.monotonic() < deadline_s:
        kept = take(outbox)
        if kept is not None:
            found.append(kept.request)
            outbox.settle(kept.id)
    outbox.settle(busy.id)
    eventually(lambda: outbox.commit({}, []) or outbox.status().state == "ok")
    assert pending(outbox) == 0
    assert [r for r in found if r.items > 1000] == [request(1000 + number) for number in range(10)]
    assert all(r in REQUESTS for r in found if r.items <= 1000)
    assert len(found) - 10 + 1 + counts["outbox.requests_lost"] == len(REQUESTS)
    outbox.close()


def test_three_damaged_files_are_kept(good: Path, tmp_path: Path) -> None:
    for number in range(5):
        shutil.copy(good / DATABASE, tmp_path / DATABASE)
        damage(tmp_path / DATABASE, 9)
        (tmp_path / DATABASE).write_bytes(b"\xa5" * 100 + (tmp_path / DATABASE).read_bytes()[100:])
        opened(tmp_path).close()
        assert len([*tmp_path.glob("*damaged*Z")]) == min(number + 1, 3)


@pytest.mark.parametrize("content", [b"", b"not a database, but long enough to be looked at" * 100])
def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / DATABASE).write_bytes(content)
    outbox = opened(tmp_path)
    assert_usable(outbox)
    outbox.close()
    assert [path.read_bytes() for path in tmp_path.glob("*damaged*")] == ([content] if content else [])


@pytest.mark.parametrize("is_set_aside", [True, False])
def test_a_crash_while_it_is_begun_anew_loses_nothing(good: Path, tmp_path: Path, is_set_aside: bool) -> None:
    """The new database is finished before the old one is set aside; until then the old one counts."""
    shutil.copy(good / DATABASE, tmp_path / "outbox.db.new")
    if not is_set_aside:
        shutil.copy(good / DATABASE, tmp_path / DATABASE)
        (tmp_path / "outbox.db.new").write_bytes(b"half")
    outbox = opened(tmp_path)
    assert outbox.states() == STATES
    assert drain(outbox) == REQUESTS
    outbox.close()
    assert not (tmp_path / "outbox.db.new").exists()
