"""The outbox keeps what it was given, says what is wrong with it, and sends nothing that is damaged."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from otelbridge.errors import SpoolError
from otelbridge.otlp.outbox import APPLICATION_ID, DATABASE, Change, Entry, Outbox
from otelbridge.records import Request

COLLECTOR = "http://collector:4318/v1/traces"
NOBODY = 65534


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "spool") as opened:
        yield opened


@contextmanager
def powerless() -> Iterator[None]:
    """File modes bind root only while it acts as somebody else."""
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)


def trace(body: bytes, items: int = 1) -> Request:
    return Request("traces", body, items)


def change(folder: Path, statement: str, *values: object) -> None:
    """Change the file behind the outbox's back."""
    db = sqlite3.connect(folder / DATABASE)
    db.execute(statement, values)
    db.commit()
    db.close()


def test_requests_come_back_as_they_were_put_and_in_that_order(outbox: Outbox) -> None:
    first, second = Request("traces", bytes(range(256)), 7), Request("metrics", b"", 0)
    outbox.put(COLLECTOR, first)
    outbox.put("grpcs://é:4317", second)
    assert [(k.destination, k.request) for k in outbox.pending()] == [(COLLECTOR, first), ("grpcs://é:4317", second)]


def test_a_closed_outbox_opened_again_still_holds_everything(tmp_path: Path) -> None:
    with Outbox(tmp_path) as outbox:
        outbox.put(COLLECTOR, trace(b"one"))
        outbox.reject(COLLECTOR, trace(b"two"), "400 Bad Request: schlecht")
    with Outbox.existing(tmp_path) as outbox:
        assert [k.request.body for k in outbox.pending()] == [b"one"]
        assert [(k.request.body, why) for k, why in outbox.rejected()] == [(b"two", "400 Bad Request: schlecht")]
        assert outbox.verify() == []


def test_what_is_removed_is_not_pending_and_makes_room(tmp_path: Path) -> None:
    with Outbox(tmp_path, limit_bytes=10) as outbox:
        outbox.put(COLLECTOR, trace(b"x" * 10))
        (kept,) = outbox.pending()
        outbox.remove(kept.id)
        outbox.remove(kept.id)
        assert list(outbox.pending()) == []
        outbox.put(COLLECTOR, trace(b"y" * 10))


def test_requests_may_be_removed_while_they_are_walked_through(outbox: Outbox) -> None:
    outbox.put_many([(COLLECTOR, trace(b"%d" % i)) for i in range(5)])
    seen = []
    for kept in outbox.pending():
        outbox.remove(kept.id)
        seen.append(kept.request.body)
    assert seen == [b"0", b"1", b"2", b"3", b"4"]
    assert outbox.counts().pending == 0


def test_a_late_remove_never_hits_a_newer_request(outbox: Outbox) -> None:
    outbox.put(COLLECTOR, trace(b"old"))
    (old,) = outbox.pending()
    outbox.remove(old.id)
    outbox.put(COLLECTOR, trace(b"new"))
    outbox.remove(old.id)
    assert [k.request.body for k in outbox.pending()] == [b"new"]


def test_a_refused_request_is_kept_apart_with_the_servers_words(outbox: Outbox) -> None:
    outbox.put(COLLECTOR, trace(b"bad", 3))
    (kept,) = outbox.pending()
    outbox.move_to_rejected(kept.id, "401 Unauthorized \udc80")
    assert list(outbox.pending()) == []
    assert [(k, why) for k, why in outbox.rejected()] == [(kept, "401 Unauthorized ?")]
    assert outbox.verify() == []


def test_a_request_that_is_not_there_cannot_be_moved(outbox: Outbox) -> None:
    with pytest.raises(SpoolError, match=r"request 12 is not there .* rejected: 404"):
        outbox.move_to_rejected(12, "404")


def test_what_is_left_of_a_request_stays_in_its_place_and_the_limit_still_holds(tmp_path: Path) -> None:
    with Outbox(tmp_path, limit_bytes=10) as outbox:
        outbox.put_many([(COLLECTOR, trace(b"abcdef", 6)), (COLLECTOR, trace(b"g"))])
        first, _ = outbox.pending()
        outbox.keep_rest(first.id, trace(b"cd", 2), (trace(b"ef", 2), "too large"))
        assert [k.request for k in outbox.pending()] == [trace(b"cd", 2), trace(b"g")]
        assert [(k.destination, k.request, why) for k, why in outbox.rejected()] == [(COLLECTOR, trace(b"ef", 2), "too large")]
        with pytest.raises(SpoolError, match="spool is full"):
            outbox.put(COLLECTOR, trace(b"123456"))
        outbox.put(COLLECTOR, trace(b"12345"))
        outbox.keep_rest(first.id, None)
        assert [k.request.body for k in outbox.pending()] == [b"g", b"12345"]
        with pytest.raises(SpoolError, match="request 1 is not there"):
            outbox.keep_rest(first.id, None)
        assert outbox.verify() == []


def test_counts_tell_pending_from_rejected(outbox: Outbox) -> None:
    outbox.put_many([(COLLECTOR, trace(b"12345", 2)), (COLLECTOR, trace(b"678", 4))])
    outbox.reject(COLLECTOR, trace(b"9", 8), "no")
    counts = outbox.counts()
    assert (counts.pending, counts.pending_items, counts.pending_bytes) == (2, 6, 8)
    assert (counts.rejected, counts.rejected_items, counts.rejected_bytes) == (1, 8, 1)


def test_a_file_that_was_full_shrinks_while_it_is_used(tmp_path: Path) -> None:
    database = tmp_path / "outbox" / DATABASE
    with Outbox(tmp_path / "outbox") as outbox:
        numbers = outbox.commit({}, [("a", Request("traces", bytes(1 << 20), 1))] * 40)
        for number in numbers:
            outbox.remove(number)
        for number in range(30):
            outbox.commit({"position": b"%d" % number}, [])
    assert database.stat().st_size < 20 << 20
    with Outbox(tmp_path / "outbox") as outbox:
        assert outbox.verify() == []
        assert outbox.states() == {"position": b"29"}


def test_drop_forgets_everything_and_the_file_shrinks(tmp_path: Path) -> None:
    with Outbox(tmp_path) as outbox:
        outbox.put(COLLECTOR, trace(b"x" * 1_000_000))
        outbox.reject(COLLECTOR, trace(b"y" * 1_000_000), "no")
        assert outbox.drop() == 2
        assert outbox.counts().pending == outbox.counts().rejected == 0
    assert sum(f.stat().st_size for f in tmp_path.iterdir()) < 100_000


def test_the_limit_is_kept_to_the_byte_and_counts_what_an_earlier_process_left(tmp_path: Path) -> None:
    with Outbox(tmp_path) as outbox:
        outbox.put(COLLECTOR, trace(b"x" * 40))
        outbox.reject(COLLECTOR, trace(b"x" * 20), "no")
    with Outbox(tmp_path, limit_bytes=100) as outbox:
        with pytest.raises(SpoolError, match=r"40 bytes are pending and 20 rejected, at most 100 .* \(41 bytes\) not kept"):
            outbox.put(COLLECTOR, trace(b"y" * 41))
        outbox.put(COLLECTOR, trace(b"z" * 40))
        assert [k.request.body[:1] for k in outbox.pending()] == [b"x", b"z"]


def test_put_many_keeps_all_or_none(tmp_path: Path) -> None:
    with Outbox(tmp_path, limit_bytes=5) as outbox:
        with pytest.raises(SpoolError, match=r"2 requests \(6 bytes\) not kept"):
            outbox.put_many([(COLLECTOR, trace(b"abc")), (COLLECTOR, trace(b"def"))])
        assert list(outbox.pending()) == []


def test_a_full_disk_is_said_and_the_outbox_goes_on_afterwards(tmp_path: Path) -> None:
    with Outbox(tmp_path) as outbox:
        outbox.put(COLLECTOR, trace(b"kept"))
        outbox._db.execute("PRAGMA max_page_count = 8")
        with pytest.raises(SpoolError, match=r"the disk is full\. Make room on it\. 1 request \(99999 bytes\) not kept"):
            outbox.put(COLLECTOR, trace(b"x" * 99_999))
        outbox._db.execute("PRAGMA max_page_count = 100000")
        outbox.put(COLLECTOR, trace(b"later"))
        assert [k.request.body for k in outbox.pending()] == [b"kept", b"later"]


def test_a_file_that_may_not_grow_is_a_spool_error_and_loses_nothing_older(tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes the kernel refuse the write, as a failing disk would."""
    program = """
import resource, signal, sys
from pathlib import Path
from otelbridge.errors import SpoolError
from otelbridge.otlp.outbox import Outbox
from otelbridge.records import Request
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
outbox = Outbox(Path(sys.argv[1]))
outbox.put("a", Request("traces", b"older", 1))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    outbox.put("a", Request("traces", bytes(1_000_000), 1))
except SpoolError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False, timeout=30)
    assert "1 request (1000000 bytes) not kept" in ran.stdout
    assert "Traceback" not in ran.stderr
    with Outbox.existing(tmp_path) as outbox:
        assert [k.request.body for k in outbox.pending()] == [b"older"]
        assert outbox.verify() == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE requests SET body = CAST('lost' AS BLOB) WHERE id = 2",
        "UPDATE requests SET body = CAST(x'6F6E' AS BLOB) WHERE id = 2",
        "UPDATE requests SET destination = 'grpc://elsewhere:4317' WHERE id = 2",
        "UPDATE requests SET destination = CAST(x'FF' AS TEXT) WHERE id = 2",
        "UPDATE requests SET signal = 'metrics' WHERE id = 2",
        "UPDATE requests SET items = items + 1 WHERE id = 2",
        "UPDATE requests SET checksum = x'' WHERE id = 2",
        "UPDATE requests SET id = 9 WHERE id = 2",
    ],
)
def test_a_damaged_request_is_reported_and_never_sent(tmp_path: Path, statement: str) -> None:
    with Outbox(tmp_path) as outbox:
        outbox.put_many([(COLLECTOR, trace(b"one")), (COLLECTOR, trace(b"two")), (COLLECTOR, trace(b"three"))])
    change(tmp_path, statement)
    with Outbox.existing(tmp_path) as outbox:
        assert [k.request.body for k in outbox.pending()] == [b"one", b"three"]
        (said,) = outbox.damage()
        assert "is damaged" in said
        assert [p.endswith(said) for p in outbox.verify()] == [True]
        assert outbox.counts().pending == 3


def test_marking_a_pending_request_as_rejected_from_outside_is_damage_too(tmp_path: Path) -> None:
    with Outbox(tmp_path) as outbox:
        outbox.put(COLLECTOR, trace(b"one"))
    change(tmp_path, "UPDATE requests SET reason = ''")
    with Outbox.existing(tmp_path) as outbox:
        assert list(outbox.rejected()) == []
        assert len(outbox.verify()) == 1


def test_a_damaged_request_is_not_made_whole_by_moving_it(tmp_path: Path) -> None:
    with Outbox(tmp_path) as outbox:
        outbox.put(COLLECTOR, trace(b"one"))
    change(tmp_path, "UPDATE requests SET body = CAST('eno' AS BLOB)")
    with Outbox.existing(tmp_path) as outbox:
        with pytest.raises(SpoolError, match="request 1 is damaged"):
            outbox.move_to_rejected(1, "no")
        assert len(outbox.verify()) == 1


def test_one_byte_flipped_on_the_disk_costs_that_request_alone(tmp_path: Path) -> None:
    with Outbox(tmp_path) as outbox:
        outbox.put_many([(COLLECTOR, trace(bytes([i]) * 10_000)) for i in range(20)])
    path = tmp_path / DATABASE
    data = bytearray(path.read_bytes())
    data[data.index(b"\x07" * 3000) + 1000] ^= 0x10
    path.write_bytes(data)
    with Outbox.existing(tmp_path) as outbox:
        assert [k.request.body[0] for k in outbox.pending()] == [*range(7), *range(8, 20)]
        assert len(outbox.verify()) == len(outbox.damage()) == 1


def test_a_database_whose_pages_are_overwritten_is_a_spool_error(tmp_path: Path) -> None:
    with Outbox(tmp_path) as outbox:
        outbox.put_many([(COLLECTOR, trace(bytes([i]) * 3000)) for i in range(50)])
    path = tmp_path / DATABASE
    data = bytearray(path.read_bytes())
    data[20_000:40_000] = b"\xa5" * 20_000
    path.write_bytes(data)
    with pytest.raises(SpoolError, match=r"the database is damaged\. Move it away"):
        Outbox.existing(tmp_path)


def test_a_second_process_is_told_that_the_spool_is_in_use(outbox: Outbox) -> None:
    program = (
        "import sys; from pathlib import Path; from otelbridge.otlp.outbox import Outbox; Outbox.existing(Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", program, str(outbox.folder)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert "SpoolInUseError: " in ran.stderr
    assert "in use by another process" in ran.stderr


def test_the_spool_cannot_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("notes")
    with pytest.raises(SpoolError, match="is a file; a spool needs a folder"):
        Outbox(tmp_path / "spool")
    with pytest.raises(SpoolError, match="cannot be made: Not a directory"):
        Outbox(tmp_path / "spool" / "deeper")
    with pytest.raises(SpoolError, match="no spool here"):
        Outbox.existing(tmp_path / "spool")


def test_existing_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match=r"no spool here: it has no file outbox\.db\. Nothing was made"):
        Outbox.existing(tmp_path / "spool")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(b"not a database, but long enough to be looked at" * 100)
    before = (tmp_path / DATABASE).read_bytes()
    with pytest.raises(SpoolError, match="not a SQLite database"):
        Outbox(tmp_path)
    assert (tmp_path / DATABASE).read_bytes() == before


@pytest.mark.parametrize("statement", ["CREATE TABLE mine (a)", "PRAGMA application_id = 42"])
def test_a_database_of_another_program_is_left_alone(tmp_path: Path, statement: str) -> None:
    change(tmp_path, statement)
    before = (tmp_path / DATABASE).read_bytes()
    with pytest.raises(SpoolError, match=r"database of another program\. Nothing was changed"):
        Outbox(tmp_path)
    assert (tmp_path / DATABASE).read_bytes() == before


def test_a_spool_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    with Outbox(tmp_path) as outbox:
        outbox.put(COLLECTOR, trace(b"one"))
    change(tmp_path, "PRAGMA user_version = 7")
    with pytest.raises(SpoolError, match=r"newer otelbridge made this spool \(version 7, this one knows up to 2\)"):
        Outbox.existing(tmp_path)


def test_an_empty_file_left_by_a_crash_becomes_an_outbox(tmp_path: Path) -> None:
    (tmp_path / DATABASE).touch()
    with Outbox(tmp_path) as outbox:
        outbox.put(COLLECTOR, trace(b"one"))
        assert outbox.verify() == []


def test_a_folder_that_may_not_be_made_is_said() -> None:
    with powerless(), pytest.raises(SpoolError, match=r"/otelbridge-spool: the folder of the spool cannot be made: "):
        Outbox(Path("/proc/otelbridge-spool"))


def test_a_spool_that_can_only_be_read_is_said() -> None:
    # Not under pytest's own folders, which shut everybody else out.
    with TemporaryDirectory() as place:
        Path(place).chmod(0o711)
        folder = Path(place) / "spool"
        with Outbox(folder) as outbox:
            outbox.put(COLLECTOR, trace(b"one"))
        (folder / DATABASE).chmod(0o444)
        folder.chmod(0o555)
        with powerless(), pytest.raises(SpoolError, match=r"spool: the spool cannot be written\. Give this user the right"):
            Outbox.existing(folder)
        folder.chmod(0o755)
        with powerless(), pytest.raises(SpoolError, match=r"the spool cannot be written\. Give this user the right"):
            Outbox.existing(folder)


def test_a_spool_of_somebody_else_is_said() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can act as two users")
    with TemporaryDirectory() as place:
        Path(place).chmod(0o711)
        Outbox(Path(place) / "spool").close()
        with powerless(), pytest.raises(SpoolError, match=r"outbox\.db: cannot be opened: Permission denied"):
            Outbox.existing(Path(place) / "spool")


def test_the_file_says_what_it_is_and_keeps_its_promise_of_durability(outbox: Outbox) -> None:
    outbox.put(COLLECTOR, trace(b"one"))
    settings = {name: outbox._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")}
    assert settings == {"journal_mode": b"wal", "synchronous": 2}
    assert outbox._db.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
    assert outbox.folder.stat().st_mode & 0o077 == 0


def test_many_threads_put_and_remove_without_losing_one(outbox: Outbox) -> None:
    def work(thread: int) -> None:
        for i in range(20):
            outbox.put(COLLECTOR, trace(b"%d/%d" % (thread, i)))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    removed = set()
    while any(t.is_alive() for t in threads) or outbox.counts().pending:
        for kept in outbox.pending():
            outbox.remove(kept.id)
            removed.add(kept.request.body)
    assert removed == {b"%d/%d" % (t, i) for t in range(4) for i in range(20)}


def test_a_closed_outbox_says_so(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.close()
    outbox.close()
    with pytest.raises(SpoolError, match="closed"):
        outbox.put(COLLECTOR, trace(b"one"))


# --- states ---------------------------------------------------------------------------------------------


def test_states_and_requests_of_one_commit_are_there_together(tmp_path: Path) -> None:
    with Outbox(tmp_path) as outbox:
        assert outbox.commit(
            {"file:a": b"1", "file:b": b"2"}, [(COLLECTOR, trace(b"x")), ("m", Request("metrics", b"y", 2))]
        ) == [1, 2]
        assert outbox.commit({"file:a": b"3", "file:b": None, "file:\udcff": b""}, [(COLLECTOR, trace(b"z"))]) == [3]
    with Outbox.existing(tmp_path) as outbox:
        assert outbox.states() == {"file:a": b"3", "file:\udcff": b""}
        assert [k.request.body for k in outbox.pending()] == [b"x", b"y", b"z"]
        assert outbox.verify() == []


def test_a_commit_over_the_limit_keeps_neither_states_nor_requests(tmp_path: Path) -> None:
    with Outbox(tmp_path, limit_bytes=10) as outbox:
        outbox.commit({"a": b"old"}, [(COLLECTOR, trace(b"123456"))])
        with pytest.raises(SpoolError, match="the spool is full: 6 bytes are pending"):
            outbox.commit({"a": b"new"}, [(COLLECTOR, trace(b"12345"))])
        assert outbox.states() == {"a": b"old"}
        assert outbox.counts().pending == 1


def test_a_change_replaces_and_removes_and_the_limit_knows(tmp_path: Path) -> None:
    with Outbox(tmp_path, limit_bytes=10) as outbox:
        outbox.commit({}, [(COLLECTOR, trace(b"123456")), (COLLECTOR, trace(b"1234"))])
        outbox.apply(Change({}, {1: Entry(COLLECTOR, trace(b"12"), "400")}, [2, 77]))
        assert outbox.get(1) == Entry(COLLECTOR, trace(b"12"), "400")
        assert outbox.get(2) is None
        assert outbox.commit({}, [(COLLECTOR, trace(b"12345678"))]) == [3]


def test_a_damaged_state_is_named_and_left_out(tmp_path: Path) -> None:
    with Outbox(tmp_path) as outbox:
        outbox.commit({"file:a": b"one", "file:b": b"two"}, [])
    change(tmp_path, "UPDATE states SET body = CAST('eno' AS BLOB) WHERE key = 'file:a'")
    with Outbox.existing(tmp_path) as outbox:
        assert outbox.states() == {"file:b": b"two"}
        assert outbox.damage() == ("the state 'file:a' is damaged: it is not what was put. It is kept, but never used.",)
        assert len(outbox.verify()) == 1


def test_a_spool_of_version_1_gets_room_for_states(tmp_path: Path) -> None:
    with Outbox(tmp_path) as outbox:
        outbox.put(COLLECTOR, trace(b"old"))
    change(tmp_path, "DROP TABLE states")
    change(tmp_path, "PRAGMA user_version = 1")
    with Outbox.existing(tmp_path) as outbox:
        outbox.commit({"a": b"new"}, [])
        assert [k.request.body for k in outbox.pending()] == [b"old"]
        assert outbox.states() == {"a": b"new"}


def test_dropping_leaves_the_states_and_on_demand_what_waits(tmp_path: Path) -> None:
    with Outbox(tmp_path, limit_bytes=10) as outbox:
        outbox.commit({"a": b"1"}, [(COLLECTOR, trace(b"12345"))])
        outbox.reject(COLLECTOR, trace(b"12345"), "400")
        assert outbox.drop(only_rejected=True) == 1
        assert (outbox.counts().pending, outbox.counts().rejected) == (1, 0)
        outbox.put(COLLECTOR, trace(b"54321"))
        assert outbox.drop() == 2
        assert outbox.states() == {"a": b"1"}


def test_a_commit_of_many_states_is_fast(tmp_path: Path) -> None:
    """500 states of 2 KB and 1 MiB of requests: some milliseconds, whatever is there already."""
    requests = [(COLLECTOR, trace(bytes(1 << 17))) for _ in range(8)]
    states = {f"stream:{number}": bytes(2000) for number in range(500)}
    with Outbox(tmp_path) as outbox:
        for _ in range(20):
            outbox.commit(states, requests)
        times = []
        for _ in range(5):
            begin = time.monotonic()
            outbox.commit(states, requests)
            times.append(time.monotonic() - begin)
    assert min(times) < 0.2
