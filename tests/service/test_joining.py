"""Both logs of a migration are followed: one trace comes out, the one that a conversion of both makes."""

from __future__ import annotations

import gzip
import threading
from pathlib import Path

from tests.receiver import Receiver
from tests.service.living import HALF, RECORDING, later, log_in
from tests.service.running import Spans, Totals, Writer, config_for, converted, received, running, until

RECORDINGS = Path(__file__).resolve().parents[1] / "recordings"
PAIRS = sorted(
    path.parent
    for pattern in ("*/*/dst.log", "*/*/dst.log.gz", "*/*/dst.simple")
    for path in RECORDINGS.glob(pattern)
    # That one has no time stamps.
    if not path.parent.name.endswith("-nots")
)


def both(folder: Path) -> dict[str, bytes]:
    """The two logs of a recording, unpacked, and what belongs to them."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffixes[-1:] == [".gz"] and path.name[:3] in ("src", "dst"):
            found[path.stem] = gzip.decompress(path.read_bytes())
        elif path.name in ("src.log", "dst.log", "src.simple", "dst.simple", "clock.json"):
            found[path.name] = path.read_bytes()
    return found


def test_both_logs_that_are_followed_give_the_trace_that_converting_both_gives(tmp_path: Path) -> None:
    """All recordings at once: what belongs together is found among many."""
    for recording in PAIRS:
        folder = tmp_path / "logs" / str(recording.relative_to(RECORDINGS)).replace("/", "_")
        folder.mkdir(parents=True)
        for name, data in both(recording).items():
            (folder / name).write_bytes(data)
    pairs = [[p for p in sorted(folder.iterdir()) if p.suffix != ".json"] for folder in sorted((tmp_path / "logs").iterdir())]
    inputs = [{"files": [f"{tmp_path}/logs/*/*.log", f"{tmp_path}/logs/*/*.simple"], "idle_timeout": "3s"}]
    with Receiver() as receiver, running(tmp_path, config_for(tmp_path, receiver, inputs=inputs)) as service:
        number = sum(map(len, pairs))
        until(lambda: [one["ended"] for one in service.status()["inputs"]] == [True] * number, 60)
        assert service.stop() == 0
        spans, totals = received(receiver)
    wanted: tuple[Spans, Totals] = ({}, {})
    for pair in pairs:
        for found, more in zip(wanted, converted(pair, together=True), strict=True):
            found.update(more)  # type: ignore[arg-type]
    assert spans == wanted[0]
    assert totals == wanted[1]


def test_a_destination_whose_source_is_written_at_the_same_time_is_joined_to_it(tmp_path: Path) -> None:
    data = both(RECORDINGS / "debian-7.2/precopy-busy")
    writers = [Writer(tmp_path / "logs" / name, text, max_bytes=1 << 30) for name, text in sorted(data.items())]
    with Receiver() as receiver, running(tmp_path, config_for(tmp_path, receiver)) as service:
        threads = [threading.Thread(target=writer.run, args=(6.0, threading.Event())) for writer in writers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for writer in writers:
            writer.close()
        until(lambda: [one["ended"] for one in service.status()["inputs"]] == [True, True], 60)
        assert service.stop() == 0
        spans, totals = received(receiver)
    assert (spans, totals) == converted([writer.path for writer in writers], together=True)
    assert len({trace for trace, _ in spans}) == 1


def test_a_migration_that_comes_in_alone_is_delivered_without_waiting_for_its_end(tmp_path: Path) -> None:
    """Its source is on another host, and another guest goes out from here at another time."""
    data = both(RECORDINGS / "debian-7.2/precopy-busy")["dst.log"]
    other = both(RECORDINGS / "debian-7.2/cancelled")["src.log"]
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "other.log").write_bytes(other)
    (tmp_path / "logs" / "dst.log").write_bytes(data[: data.rindex(b"migrate_set_state")])
    with Receiver() as receiver, running(tmp_path, config_for(tmp_path, receiver)) as service:
        until(lambda: any(span.name == "loadvm.section" for span in receiver.spans()), 15)
        assert not any(one["ended"] for one in service.status()["inputs"] if one["path"].endswith("dst.log"))


def test_a_snapshot_that_is_loaded_while_another_guest_goes_out_waits_for_nothing(tmp_path: Path) -> None:
    """A snapshot has no other side, so it is not held until the other guest's migration has ended."""
    data = both(RECORDINGS / "debian-7.2/savevm-loadvm")["src.log"]
    log_in(tmp_path, data[data.index(b":loadvm_state_setup") - len("31089@1795408587.218831") : data.rindex(b"\n") + 1])
    log_in(tmp_path, later(RECORDING[:HALF], 1_795_408_587 - 1_795_408_103), "other.log")
    inputs = [{"files": str(tmp_path / "logs" / "*.log"), "idle_timeout": "60s"}]
    with Receiver() as receiver, running(tmp_path, config_for(tmp_path, receiver, inputs=inputs)) as service:
        until(lambda: any(span.name == "loadvm.section" for span in receiver.spans()), 30)
        assert not any(one["ended"] for one in service.status()["inputs"])


def test_a_snapshot_that_is_saved_right_after_one_was_loaded_waits_for_nothing(tmp_path: Path) -> None:
    """What it says of its state is not said of something that comes in."""
    data = both(RECORDINGS / "debian-7.2/savevm-loadvm")["src.log"]
    begin = data.index(b":loadvm_state_setup") - len("31089@1795408587.218831")
    loaded, saved = data[begin : data.rindex(b"\n") + 1], later(data[:begin], 3)
    log_in(tmp_path, loaded + saved[: saved.rindex(b"migrate_set_state")].rpartition(b"\n")[0] + b"\n", "vm.log")
    log_in(tmp_path, later(RECORDING[:HALF], 1_795_408_587 - 1_795_408_103), "other.log")
    inputs = [{"files": str(tmp_path / "logs" / "*.log"), "idle_timeout": "60s"}]
    with Receiver() as receiver, running(tmp_path, config_for(tmp_path, receiver, inputs=inputs)) as service:
        until(lambda: any(span.name == "savevm" for span in receiver.spans()), 30)
        assert not any(one["ended"] for one in service.status()["inputs"])
