"""A log and its rotated parts are one log: what comes out is what the whole file gives, ids included."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import random
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.convert.command import run

Logs = Callable[[str], list[Path]]

RECORDINGS = (
    "debian-7.2/precopy-busy", "debian-7.2/two-vms-one-log", "debian-7.2/tls-ok", "debian-7.2/cancelled",
    "qemu-10.2.0-log/postcopy", "qemu-4.1.0-log/tls-ok",
)  # fmt: skip


def cut(data: bytes, pieces: int, seed: int) -> list[bytes]:
    """The pieces of a log that is cut anywhere, also within lines, as virtlogd does."""
    chance = random.Random(seed)  # noqa: S311 - where it is cut
    places = sorted(chance.sample(range(1, len(data)), pieces - 1))
    return [data[begin:end] for begin, end in zip([0, *places], [*places, len(data)], strict=True)]


def written(folder: Path, parts: Sequence[tuple[str, bytes]]) -> list[Path]:
    """Files in the order of their writing."""
    folder.mkdir(exist_ok=True)
    found = []
    for number, (name, data) in enumerate(parts):
        path = folder / name
        packed = gzip.compress(data) if name.endswith(".gz") else lzma.compress(data) if name.endswith(".xz") else data
        path.write_bytes(packed)
        os.utime(path, (1_795_400_000 + number,) * 2)
        found.append(path)
    return found


class Converted(NamedTuple):
    """What a conversion ended with, what it delivered, its accounting but for folders and parts, and its notes."""

    code: int
    delivered: dict[str, bytes]
    accounting: dict[str, Any]
    notes: list[str]


def converted(files: Sequence[Path], folder: Path, *more: str) -> Converted:
    folder.mkdir()
    out, accounting = folder / "out", folder / "accounting.json"
    done = run("convert", *files, "--to", f"file:{out}", "--accounting", accounting, *more)
    document = json.loads(accounting.read_text())
    notes = document.pop("notes")
    for one in document["inputs"]:
        one["path"] = Path(one["path"]).name
        one.pop("parts", None)
    return Converted(done.code, {path.name: path.read_bytes() for path in out.iterdir()}, document, notes)


def said(*files: Path) -> str:
    """All that is said of a conversion, in one line."""
    done = run("convert", *files)
    return " ".join((done.out + done.err).split())


def data_of(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def shuffled(files: Sequence[Path], seed: int) -> list[Path]:
    return random.Random(seed).sample(list(files), len(files))  # noqa: S311 - the order does not matter


@pytest.mark.parametrize("recording", RECORDINGS)
def test_parts_as_virtlogd_makes_them_give_what_the_whole_log_gives(recording: str, logs: Logs, tmp_path: Path) -> None:
    whole = written(tmp_path / "whole", [(path.name.removesuffix(".gz"), data_of(path)) for path in logs(recording)])
    parts: list[list[Path]] = []
    for seed, path in enumerate(whole):
        names = [f"{path.name}.2", f"{path.name}.1", f"{path.name}.0", path.name]
        pieces = cut(path.read_bytes(), 4, seed)
        parts.append(written(tmp_path / "parts", list(zip(names, pieces, strict=True))))
    wanted = converted(whole, tmp_path / "wanted")
    for seed, jobs in ((1, "1"), (2, "2")):
        given = [path for of_one in parts for path in shuffled(of_one, seed)]
        found = converted(given, tmp_path / f"found-{jobs}", "--jobs", jobs)
        assert found[:3] == wanted[:3]
        for of_one in parts:
            order = ", ".join(path.name for path in of_one)
            assert f"{of_one[-1]}: read as one log with its rotated parts, in this order: {order}." in found.notes


@pytest.mark.parametrize(
    "names",
    [
        ["src.log.3.gz", "src.log.2.xz", "src.log.1", "src.log"],
        ["src.log-20261120.gz", "src.log-20261121", "src.log-20261122", "src.log"],
        ["src.log.2", "src.log.1", "src.log-20261122", "src.log"],
        ["src.log.3", "src.log.2", "src.log.1", "src.log.0"],
        ["src.log.00", "src.log.01", "src.log.02", "src.log.03"],
        ["src.log", "src.log.1", "src.log.2", "src.log.3"],
    ],
    ids=["packed", "dates", "mixed", "without the last", "split -d", "counted upwards"],
)
def test_parts_of_any_names_are_put_in_order(names: Sequence[str], logs: Logs, tmp_path: Path) -> None:
    source, destination = logs("debian-7.2/precopy-busy")
    pieces = cut(source.read_bytes(), 4, 7)
    parts = written(tmp_path / "parts", list(zip(names, pieces, strict=True)))
    wanted = converted([source, destination], tmp_path / "whole")
    found = converted([*shuffled(parts, 3), destination], tmp_path / "found")
    assert found.delivered == wanted.delivered
    assert found.notes[0].endswith(f"in this order: {', '.join(names)}.")


def test_parts_may_be_named_in_several_ways(logs: Logs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, _ = logs("debian-7.2/precopy-busy")
    written(tmp_path / "parts", list(zip(["src.log.0", "src.log"], cut(source.read_bytes(), 2, 1), strict=True)))
    monkeypatch.chdir(tmp_path / "parts")
    found = converted([Path("src.log"), Path("../parts/src.log.0")], tmp_path / "found")
    assert found.delivered == converted([source], tmp_path / "whole").delivered


def test_the_role_of_one_part_is_that_of_all(logs: Logs, tmp_path: Path) -> None:
    source, destination = logs("debian-7.2/precopy-busy")
    parts = written(tmp_path / "parts", list(zip(["src.log.0", "src.log"], cut(source.read_bytes(), 2, 1), strict=True)))
    wanted = converted([], tmp_path / "whole", "--source", str(source), "--destination", str(destination))
    found = converted(parts[1:], tmp_path / "found", "--source", str(parts[0]), "--destination", str(destination))
    assert found[:3] == wanted[:3]


def test_two_hosts_logs_that_are_named_like_parts_stay_two(logs: Logs, tmp_path: Path) -> None:
    """Both are of the same time."""
    both = written(
        tmp_path / "parts", [(f"mig.log.{n}", path.read_bytes()) for n, path in enumerate(logs("debian-7.2/tls-ok"))]
    )
    found = converted(both, tmp_path / "found")
    assert [one["path"] for one in found.accounting["inputs"]] == ["mig.log.0", "mig.log.1"]
    assert "not by the times in them, so each is read as a log of its own: mig.log.1, mig.log.0. " in found.notes[0]
    assert f"cat {both[1]} {both[0]} > one.log" in found.notes[0]
    picture = run("convert", *both)
    assert picture.out.splitlines()[1].split()[:2] == ["source", "mig.log.0,"]
    assert picture.out.splitlines()[2].split()[:2] == ["destination", "mig.log.1,"]


def with_hole(data: bytes, hole_bytes: int) -> bytes:
    """What QEMU's -D leaves behind that was truncated after so many bytes: it goes on where it was."""
    return bytes(hole_bytes) + data


def test_parts_of_a_log_that_qemu_itself_wrote_and_that_was_copied_and_truncated_are_one_log(
    logs: Logs, tmp_path: Path
) -> None:
    whole, other = written(tmp_path / "whole", [(path.name, data_of(path)) for path in logs("debian-7.2/precopy-busy")])
    first, second, third = cut(whole.read_bytes(), 3, 1)
    parts = written(
        tmp_path / "parts",
        [
            (f"{whole.name}.2", first),
            (f"{whole.name}.1.gz", with_hole(second, len(first))),
            (whole.name, with_hole(third, 1 << 22)),
        ],
    )
    wanted = converted([whole, other], tmp_path / "wanted")
    assert converted([*parts, other], tmp_path / "found")[:3] == wanted[:3]


@pytest.mark.parametrize("hole_bytes", [1, 5_000, 70_000, 1 << 36])
def test_a_hole_before_a_log_is_not_read(hole_bytes: int, logs: Logs, tmp_path: Path) -> None:
    data = data_of(logs("debian-7.2/precopy-busy")[0])
    (whole,) = written(tmp_path, [("whole.log", data)])
    holed = tmp_path / "holed.log"
    with holed.open("wb") as file:
        file.seek(hole_bytes)
        file.write(data)
    wanted, found = (converted([path], tmp_path / path.stem).accounting for path in (whole, holed))
    assert (found["spans"], found["inputs"][0]["buckets"]) == (wanted["spans"], wanted["inputs"][0]["buckets"])


def test_of_a_log_that_begins_with_a_hole_the_first_event_is_read_and_the_hole_is_told(logs: Logs, tmp_path: Path) -> None:
    data = data_of(logs("debian-7.2/precopy-busy")[0])
    whole, holed = written(tmp_path / "logs", [("whole.log", data), ("holed.log", with_hole(data, 1 << 22))])
    wanted, found = (converted([path], tmp_path / path.stem).accounting["spans"] for path in (whole, holed))
    assert found == wanted
    assert f"lost holed.log: its first {1 << 22} bytes are NUL" in said(holed).replace(str(holed.parent) + "/", "")


def test_a_part_without_any_event_is_a_part_all_the_same(logs: Logs, tmp_path: Path) -> None:
    """The system's log of a quiet day; the format is told by the others."""
    source, _ = logs("debian-7.2/precopy-busy")
    stamped = re.findall(rb"(?m)^\d+@(\d+)\.(\d+):(.*)$", source.read_bytes())
    lines = [
        b"%b.%b+00:00 hv-1 qemu-system-x86_64[4711]: %b\n"
        % (datetime.fromtimestamp(int(second), UTC).strftime("%Y-%m-%dT%H:%M:%S").encode(), fraction, text)
        for second, fraction, text in stamped
    ]
    quiet = b"2026-11-22T10:00:00.000001+00:00 hv-1 CRON[99]: (root) CMD (true)\n"
    middle = len(lines) // 2
    parts = written(
        tmp_path / "parts",
        [("syslog.2", quiet * 2000), ("syslog.1", b"".join(lines[:middle])), ("syslog", b"".join(lines[middle:]))],
    )
    whole = written(tmp_path / "one", [("syslog", quiet * 2000 + b"".join(lines))])
    wanted = converted(whole, tmp_path / "whole", "--format", "syslog")
    found = converted(parts, tmp_path / "found")
    assert len(found.delivered["traces.jsonl"]) > 100_000
    assert found.delivered == wanted.delivered
    assert found.notes[0].endswith("in this order: syslog.2, syslog.1, syslog.")


def test_logs_of_two_guests_stay_two(logs: Logs, tmp_path: Path) -> None:
    """One was migrated after the other, and both have a number for a name."""
    sources = [logs(name)[0].read_bytes() for name in ("debian-7.2/precopy-busy", "debian-7.2/tls-ok")]
    guests = written(tmp_path / "guests", list(zip(["vm.1", "vm.2"], sources, strict=True)))
    found = converted(guests, tmp_path / "found")
    assert [one["path"] for one in found.accounting["inputs"]] == ["vm.1", "vm.2"]
    assert not any("rotated" in note for note in found.notes)


def test_parts_that_were_not_given_are_named_where_something_is_missing(logs: Logs, tmp_path: Path) -> None:
    source, _ = logs("debian-7.2/precopy-busy")
    pieces = cut(source.read_bytes(), 3, 5)
    parts = written(tmp_path / "parts", list(zip(["src.log.1", "src.log.0", "src.log"], pieces, strict=True)))
    assert "parts of the same log beside it were not given: src.log.0, src.log.1. Name them too" in said(parts[2])
    assert "beside it were not given: src.log, src.log.1. " in said(parts[1])
    assert "not given" not in said(*parts)
    whole = written(tmp_path / "other", [("src.log.0", b"starting up\n"), ("src.log", source.read_bytes())])
    assert "not given" not in said(whole[1])


def test_an_event_is_explained_with_the_part_that_it_stands_in(logs: Logs, tmp_path: Path) -> None:
    source, _ = logs("debian-7.2/precopy-busy")
    lines = source.read_bytes().splitlines(keepends=True)
    parts = written(tmp_path / "parts", [("src.log.0", b"".join(lines[:700])), ("src.log", b"".join(lines[700:]))])
    for number in (10, 600, 900, 1300):
        name = lines[number].split(b":", 1)[1].split()[0].decode()
        first = next(n for n, line in enumerate(lines) if b":%b" % name.encode() in line)
        place = f"{parts[0]}:{first + 1}" if first < 700 else f"{parts[1]}:{first - 699}"
        assert run("mapping", "explain", *parts, "--event", name).out.startswith(f"{place}: ")
