"""`file:DIR`: OTLP/JSON lines in a folder, one request a line, traces and metrics apart.

Source: opentelemetry-specification, protocol/file-exporter.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import FileIO
from operator import attrgetter
from pathlib import Path

from otelbridge.errors import ExportError, UsageError
from otelbridge.otlp.json_lines import assemble_points, assemble_spans, point_text, span_text
from otelbridge.otlp.requests import Form, Packer
from otelbridge.records import FinishedSpan, Metric, MetricPoint, Outcome, Request, Resource, Scope, Signal

_SPANS: Form[FinishedSpan, Scope, str] = Form(span_text, attrgetter("scope"), assemble_spans)
_POINTS: Form[MetricPoint, Metric, str] = Form(point_text, attrgetter("metric"), assemble_points, attrgetter("time_ns"))


class LineBuilder:
    """Packs spans and points into lines of OTLP/JSON, each a request within the bounds of `Packer`."""

    def __init__(self) -> None:
        self._spans, self._points = Packer(_SPANS), Packer(_POINTS)

    def add_spans(self, resource: Resource, spans: Sequence[FinishedSpan]) -> list[Request]:
        """Take spans; the lines that they complete come out."""
        return _lines("traces", self._spans.add(resource, spans))

    def add_points(self, resource: Resource, points: Sequence[MetricPoint]) -> list[Request]:
        """Take points; the lines that they complete come out."""
        return _lines("metrics", self._points.add(resource, points))

    def flush(self) -> list[Request]:
        """Lines of all that is still held, spans first."""
        return _lines("traces", self._spans.flush()) + _lines("metrics", self._points.flush())


def _lines(signal: Signal, packed: list[tuple[str, int]]) -> list[Request]:
    lines = []
    packed.reverse()
    while packed:
        # A text is let go when its bytes are there, so that not everything is held twice.
        text, items = packed.pop()
        lines.append(Request(signal, f"{text}\n".encode("ascii"), items))
    return lines


class FileSink:
    """Writes `traces.jsonl` and `metrics.jsonl` into a folder; what they held before is gone. Equal input, equal bytes.

    It is a RequestSink.

    Args:
        folder: Made where it is missing.

    Raises:
        UsageError: The folder cannot be made, or the files in it cannot be written.
    """

    new_builder = LineBuilder

    def __init__(self, folder: Path) -> None:
        self._builder = self.new_builder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            traces = _LineFile(folder / "traces.jsonl", "spans")
            self._files: dict[Signal, _LineFile] = {
                "traces": traces,
                "metrics": traces.beside(folder / "metrics.jsonl", "points"),
            }
        except OSError as error:
            raise UsageError(
                f"file:{folder}: cannot write {error.filename}: {error.strerror}. "
                "Name a folder that can be made or written to; nothing was converted."
            ) from error

    def spans(self, resource: Resource, spans: Sequence[FinishedSpan]) -> None:
        """Take finished spans of one resource.

        Raises:
            ExportError: The file cannot be written any more; whole lines that it holds stay.
        """
        self.take(self._builder.add_spans(resource, spans))

    def points(self, resource: Resource, points: Sequence[MetricPoint]) -> None:
        """Take data points of one resource.

        Raises:
            ExportError: The file cannot be written any more; whole lines that it holds stay.
        """
        self.take(self._builder.add_points(resource, points))

    def flush(self) -> None:
        """Write what is still held.

        Raises:
            ExportError: A file cannot be written any more; whole lines that it holds stay.
        """
        self.take(self._builder.flush())

    def take(self, requests: Sequence[Request]) -> None:
        """Write lines.

        Raises:
            ExportError: A file cannot be written any more; whole lines that it holds stay.
        """
        for request in requests:
            self._files[request.signal].write(request)

    def close(self) -> Mapping[Signal, Outcome]:
        """Write what is still held and say how much both files hold.

        Raises:
            ExportError: A file cannot be written any more; whole lines that it holds stay.
        """
        try:
            self.flush()
        finally:
            for file in self._files.values():
                file.close()
        return {signal: Outcome(delivered=file.items) for signal, file in self._files.items()}


class _LineFile:
    """A file of whole lines: one that does not fit is taken back."""

    def __init__(self, path: Path, what: str) -> None:
        self._path, self._what = path, what
        self._file = FileIO(path, "w")
        self._size = 0
        self._failure: ExportError | None = None
        self.items = 0

    def beside(self, path: Path, what: str) -> _LineFile:
        """Another file; this one is closed where the other cannot be opened."""
        try:
            return _LineFile(path, what)
        except OSError:
            self.close()
            raise

    def write(self, line: Request) -> None:
        if self._failure is not None:
            # A later line that happens to fit would leave a gap that nobody sees.
            raise self._failure
        try:
            self._append(memoryview(line.body))
        except OSError as error:
            self._take_back()
            self._failure = ExportError(
                f"{self._path}: cannot write: {error.strerror}. The {self.items} {self._what} written before are whole; "
                f"the next {line.items} and all that follow are missing. Make room and convert again."
            )
            raise self._failure from error
        self.items += line.items

    def _append(self, line: memoryview) -> None:
        written = 0
        while written < len(line):
            written += self._file.write(line[written:]) or 0
        self._size += written

    def _take_back(self) -> None:
        try:
            self._file.truncate(self._size)
        except OSError:
            return  # a device or a pipe: what is out is out

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            raise ExportError(
                f"{self._path}: cannot write to the end: {error.strerror}. Its last lines may be missing."
            ) from error
