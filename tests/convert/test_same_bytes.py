"""What comes out depends on the logs alone: not on when, how or in which pieces they were read."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import lzma
import os
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from otelbridge.readers import open as reading
from tests.convert.command import PROGRAM, call, environment, run

Logs = Callable[[str], list[Path]]
PRECOPY, TLS, MULTIFD = "debian-7.2/precopy-busy", "debian-7.2/tls-ok", "qemu-10.2.0-log/multifd-tls"
PRINTED_BETWEEN = "debian-7.2/mixed-d"


def outputs(*arguments: str | Path, to: Path) -> dict[str, bytes]:
    """What `convert` writes, accounting included, by the names of the files."""
    accounting = to / "accounting.json"
    to.mkdir()
    done = call("convert", *arguments, "--to", f"file:{to}", "--accounting", accounting)
    assert done.code in (0, 7), done.err
    return {file.name: file.read_bytes() for file in sorted(to.iterdir())}


def spans(lines: bytes) -> Counter[str]:
    """All spans of OTLP/JSON lines, as a set that tells doubles."""
    return Counter(
        json.dumps(span, sort_keys=True)
        for line in lines.splitlines()
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    )


def points(lines: bytes) -> Counter[str]:
    """All metrics of OTLP/JSON lines, a point each."""
    return Counter(
        json.dumps([metric["name"], point], sort_keys=True)
        for line in lines.splitlines()
        for resource in json.loads(line)["resourceMetrics"]
        for scope in resource["scopeMetrics"]
        for metric in scope["metrics"]
        for point in next(kind for kind in metric.values() if isinstance(kind, dict))["dataPoints"]
    )


@pytest.mark.parametrize("recording", [PRECOPY, MULTIFD])
def test_converting_twice_gives_equal_bytes(recording: str, logs: Logs, tmp_path: Path) -> None:
    assert outputs(*logs(recording), to=tmp_path / "a") == outputs(*logs(recording), to=tmp_path / "b")


def test_another_process_gives_equal_bytes(logs: Logs, tmp_path: Path) -> None:
    """Nothing hangs on the seed of Python's hashes or on the time."""
    expected = outputs(*logs(TLS), to=tmp_path / "a")
    for seed in ("1", "2"):
        folder = tmp_path / seed
        done = run("convert", *logs(TLS), "--to", f"file:{folder}", env={"PYTHONHASHSEED": seed, "TZ": "Asia/Kathmandu"})
        assert done.code == 0, done.err
        assert (folder / "traces.jsonl").read_bytes() == expected["traces.jsonl"]
        assert (folder / "metrics.jsonl").read_bytes() == expected["metrics.jsonl"]


@pytest.mark.parametrize("recording", [PRECOPY, TLS])
def test_the_order_of_the_files_does_not_matter(recording: str, logs: Logs, tmp_path: Path) -> None:
    one, other = outputs(*logs(recording), to=tmp_path / "a"), outputs(*reversed(logs(recording)), to=tmp_path / "b")
    assert spans(one["traces.jsonl"]) == spans(other["traces.jsonl"])
    assert points(one["metrics.jsonl"]) == points(other["metrics.jsonl"])


@pytest.mark.parametrize(("suffix", "packed"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_packed_logs_give_what_plain_ones_give(
    suffix: str, packed: Callable[[bytes], bytes], logs: Logs, tmp_path: Path
) -> None:
    copies = []
    for log in logs(TLS):
        copies.append(tmp_path / f"{log.name}{suffix}")
        copies[-1].write_bytes(packed(log.read_bytes()))
    one, other = outputs(*logs(TLS), to=tmp_path / "a"), outputs(*copies, to=tmp_path / "b")
    assert spans(one["traces.jsonl"]) == spans(other["traces.jsonl"])
    assert points(one["metrics.jsonl"]) == points(other["metrics.jsonl"])


def test_logs_in_another_folder_give_equal_ids(logs: Logs, tmp_path: Path) -> None:
    copies = []
    for log in logs(TLS):
        copies.append(tmp_path / log.name)
        copies[-1].write_bytes(log.read_bytes())
    one, other = outputs(*logs(TLS), to=tmp_path / "a"), outputs(*copies, to=tmp_path / "b")
    assert one["traces.jsonl"] == other["traces.jsonl"]
    assert one["metrics.jsonl"] == other["metrics.jsonl"]


# --- pieces -----------------------------------------------------------------------------------------------

PIECES: dict[str, Callable[[], Iterator[int]]] = {
    "64 KiB": lambda: itertools.repeat(65536),
    "4099 bytes": lambda: itertools.repeat(4099),
    "odd": lambda: itertools.cycle((1, 2, 3, 5, 8, 13, 4096, 7, 65, 1000)),
    "a byte": lambda: itertools.repeat(1),
}


def in_pieces(sizes: Callable[[], Iterator[int]]) -> Callable[[reading.Input], Iterator[bytes]]:
    """`Input.blocks`, giving pieces of these sizes."""
    original = reading.Input.blocks

    def blocks(self: reading.Input) -> Iterator[bytes]:
        content = io.BytesIO(b"".join(original(self)))
        return iter(list(itertools.takewhile(bool, (content.read(size) for size in sizes()))))

    return blocks


@pytest.mark.parametrize("pieces", PIECES)
@pytest.mark.parametrize("recording", [MULTIFD, "debian-7.2/cancelled", PRINTED_BETWEEN])
def test_pieces_of_any_size_give_equal_bytes(
    pieces: str, recording: str, logs: Logs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = outputs(*logs(recording), to=tmp_path / "whole")
    monkeypatch.setattr(reading.Input, "blocks", in_pieces(PIECES[pieces]))
    assert outputs(*logs(recording), to=tmp_path / "pieces") == expected


@pytest.mark.parametrize("pieces", PIECES)
def test_pieces_of_a_log_of_two_processes_give_equal_bytes(
    pieces: str, logs: Logs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one process shows of its version must not depend on how far the other was read."""
    both = tmp_path / "both.log"
    lines = [line for log in logs(TLS) for line in log.read_bytes().splitlines(keepends=True) if b"@" in line]
    both.write_bytes(b"".join(sorted(lines, key=lambda line: line.split(b"@")[1].split(b":")[0])))
    expected = outputs(both, to=tmp_path / "whole")
    assert expected["traces.jsonl"].count(b'"migration"') == 2
    monkeypatch.setattr(reading.Input, "blocks", in_pieces(PIECES[pieces]))
    assert outputs(both, to=tmp_path / "pieces") == expected


@pytest.mark.parametrize("size", [65536, 4099])
def test_counted_pages_do_not_depend_on_pieces(size: int, logs: Logs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hot events are counted in windows of event time, which blocks may cut anywhere."""
    source = logs("debian-7.2/precopy-busy-pages")[0]
    expected = outputs(source, to=tmp_path / "whole")
    monkeypatch.setattr(reading.Input, "blocks", in_pieces(lambda: itertools.repeat(size)))
    assert outputs(source, to=tmp_path / "pieces") == expected


def test_a_slow_pipe_gives_what_a_file_gives(logs: Logs, tmp_path: Path) -> None:
    """Only ids and the file's name differ, since a pipe has none."""
    log = logs(TLS)[0]
    expected = outputs("--source", log, to=tmp_path / "file")
    command = [*PROGRAM, "convert", "--source", "-", "--to", f"file:{tmp_path / 'pipe'}"]
    readable, writable = os.pipe()
    writer = threading.Thread(target=_write_oddly, args=(writable, log.read_bytes()))
    writer.start()
    done = subprocess.run(command, stdin=readable, capture_output=True, env=environment(), timeout=60, check=False)
    os.close(readable)
    writer.join()
    assert done.returncode == 0, done.stderr
    got = (tmp_path / "pipe" / "traces.jsonl").read_bytes()
    assert _without_ids(spans(got)) == _without_ids(spans(expected["traces.jsonl"]))


def _write_oddly(pipe: int, content: bytes) -> None:
    sizes, start = itertools.cycle((1, 700, 3, 65536, 17)), 0
    while start < len(content):
        start += os.write(pipe, content[start : start + next(sizes)])
    os.close(pipe)


def _without_ids(found: Counter[str]) -> Counter[str]:
    def without(span: str) -> dict[str, Any]:
        return {key: value for key, value in json.loads(span).items() if key not in ("traceId", "spanId", "parentSpanId")}

    return Counter(json.dumps(without(span), sort_keys=True) for span in found.elements())
