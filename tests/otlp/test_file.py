"""`file:DIR`: whole lines, both files, the same bytes for the same input, and clear words where the disk refuses."""

import json
import resource as limits
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from otelbridge.errors import ExportError, UsageError
from otelbridge.otlp import Sink
from otelbridge.otlp.file import FileSink
from otelbridge.records import FinishedSpan, Metric, MetricPoint, Outcome, Resource, Scope, Signal

SCOPE = Scope("qemu/migration", "0.1.0")
RESOURCE = Resource((("service.name", "qemu"),), "https://opentelemetry.io/schemas/1.44.0")
REMAINING = Metric("qemu.migration.remaining", "gauge", "By", "What is left.", SCOPE)
START_NS = 1_795_400_000_000_000_000


def span(number: int, size: int = 1) -> FinishedSpan:
    attributes = (("qemu.migration.state", "x" * size), ("qemu.migration.pass", number))
    return FinishedSpan(b"\xab" * 16, number.to_bytes(8, "big"), b"", SCOPE, "migration", 3, START_NS, START_NS + 5, attributes)


def point(second: int) -> MetricPoint:
    return MetricPoint(REMAINING, (), START_NS, START_NS + second * 1_000_000_000, 2**40 + second)


def fill(folder: Path, spans: int = 5000, points: int = 300) -> Mapping[Signal, Outcome]:
    sink: Sink = FileSink(folder)
    for begin in range(0, spans, 100):
        sink.spans(RESOURCE, [span(n) for n in range(begin, min(begin + 100, spans))])
    sink.points(RESOURCE, [point(n) for n in range(points)])
    return sink.close()


def lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="ascii")
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_both_files_hold_everything_in_requests_of_bounded_size(tmp_path: Path) -> None:
    outcomes = fill(tmp_path / "new" / "out")
    assert outcomes == {"traces": Outcome(delivered=5000), "metrics": Outcome(delivered=300)}
    requests = lines(tmp_path / "new" / "out" / "traces.jsonl")
    spans = [one["resourceSpans"][0]["scopeSpans"][0]["spans"] for one in requests]
    assert [len(one) for one in spans] == [2048, 2048, 904]
    assert [int(one["spanId"], 16) for part in spans for one in part] == list(range(5000))
    requests = lines(tmp_path / "new" / "out" / "metrics.jsonl")
    points = [one["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["gauge"]["dataPoints"] for one in requests]
    assert [len(one) for one in points] == [61, 61, 61, 61, 56]
    assert points[0][1] == {
        "startTimeUnixNano": "1795400000000000000",
        "timeUnixNano": "1795400001000000000",
        "asInt": "1099511627777",
    }


def test_a_line_of_large_spans_stays_within_a_mebibyte(tmp_path: Path) -> None:
    sink = FileSink(tmp_path)
    sink.spans(RESOURCE, [span(n, size=100_000) for n in range(25)])
    sink.close()
    sizes = [len(line) for line in (tmp_path / "traces.jsonl").read_bytes().splitlines()]
    assert len(sizes) == 3
    assert max(sizes) <= 1_048_576


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    fill(tmp_path / "a")
    fill(tmp_path / "b")
    for name in ("traces.jsonl", "metrics.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_both_files_exist_where_nothing_came(tmp_path: Path) -> None:
    assert FileSink(tmp_path).close() == {"traces": Outcome(), "metrics": Outcome()}
    assert [(path.name, path.read_bytes()) for path in sorted(tmp_path.iterdir())] == [
        ("metrics.jsonl", b""),
        ("traces.jsonl", b""),
    ]


def test_an_earlier_run_leaves_nothing_behind(tmp_path: Path) -> None:
    fill(tmp_path)
    fill(tmp_path, spans=1, points=0)
    assert len(lines(tmp_path / "traces.jsonl")) == 1
    assert lines(tmp_path / "metrics.jsonl") == []


def test_a_folder_that_is_a_file_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UsageError, match=r"out: cannot write .*/out: File exists\. Name a folder"):
        FileSink(tmp_path / "out")
    with pytest.raises(UsageError, match="Not a directory"):
        FileSink(tmp_path / "out" / "deeper")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_file_that_is_a_folder_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UsageError, match=r"metrics\.jsonl: Is a directory"):
        FileSink(tmp_path)


@pytest.fixture
def small_files() -> Iterator[int]:
    """No file of this process can grow beyond 1.5 MB, as on a full disk."""
    bound = 1_500_000
    before = limits.getrlimit(limits.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits.setrlimit(limits.RLIMIT_FSIZE, (bound, before[1]))
    yield bound
    limits.setrlimit(limits.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_whole_lines_and_says_how_much_is_there(tmp_path: Path, small_files: int) -> None:
    sink = FileSink(tmp_path)
    with pytest.raises(
        ExportError, match=r"traces\.jsonl: cannot write: File too large\. The 10 spans written before are whole"
    ):
        sink.spans(RESOURCE, [span(n, size=100_000) for n in range(25)])
    with pytest.raises(ExportError, match="the next 10 and all that follow are missing"):
        sink.close()
    (request,) = lines(tmp_path / "traces.jsonl")
    assert len(request["resourceSpans"][0]["scopeSpans"][0]["spans"]) == 10
    assert (tmp_path / "traces.jsonl").stat().st_size < small_files


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_is_full_at_the_end_is_an_export_error(tmp_path: Path) -> None:
    (tmp_path / "traces.jsonl").symlink_to("/dev/full")
    sink = FileSink(tmp_path)
    sink.spans(RESOURCE, [span(1)])
    with pytest.raises(ExportError, match="No space left on device"):
        sink.close()
