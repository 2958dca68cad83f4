"""`file:DIR`: OTLP/JSON lines in a folder, one request a line, traces and metrics apart.

Source: opentelemetry-specification, protocol/file-exporter.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from io import FileIO
from operator import attrgetter
from pathlib import Path

from otelbridge.errors import ExportError, UsageError
from otelbridge.otlp.json_lines import assemble_points, assemble_spans, point_text, span_text
from otelbridge.otlp.requests import Form, Packer
from otelbridge.records import FinishedSpan, Metric, MetricPoint, Outcome, Resource, Scope, Signal

_SPANS: Form[FinishedSpan, Scope, str] = Form(span_text, attrgetter("scope"), assemble_spans)
_POINTS: Form[MetricPoint, Metric, str] = Form(point_text, attrgetter("metric"), assemble_points, attrgetter("time_ns"))


class FileSink:
    """Writes `traces.jsonl` and `metrics.jsonl` into a folder; what they held before is gone. Equal input, equal bytes.

    Args:
        folder: Made where it is missing.

    Raises:
        UsageError: The folder cannot be made, or the files in it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._spans = Packer(_SPANS)
        self._points = Packer(_POINTS)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._traces = _LineFile(folder / "traces.jsonl", "spans")
            self._metrics = self._traces.beside(folder / "metrics.jsonl", "points")
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
        self._traces.write(self._spans.add(resource, spans))

    def points(self, resource: Resource, points: Sequence[MetricPoint]) -> None:
        """Take data points of one resource.

        Raises:
            ExportError: The file cannot be written any more; whole lines that it holds stay.
        """
        self._metrics.write(self._points.add(resource, points))

    def close(self) -> Mapping[Signal, Outcome]:
        """Write what is still held and say how much both files hold.

        Raises:
            ExportError: A file cannot be written any more; whole lines that it holds stay.
        """
        try:
            self._traces.write(self._spans.flush())
            self._metrics.write(self._points.flush())
        finally:
            self._traces.close()
            self._metrics.close()
        return {"traces": Outcome(delivered=self._traces.items), "metrics": Outcome(delivered=self._metrics.items)}


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

    def write(self, lines: Iterable[tuple[str, int]]) -> None:
        if self._failure is not None:
            # A later line that happens to fit would leave a gap that nobody sees.
            raise self._failure
        for text, items in lines:
            try:
                self._append(memoryview(f"{text}\n".encode("ascii")))
            except OSError as error:
                self._take_back()
                self._failure = ExportError(
                    f"{self._path}: cannot write: {error.strerror}. The {self.items} {self._what} written before are whole; "
                    f"the next {items} and all that follow are missing. Make room and convert again."
                )
                raise self._failure from error
            self.items += items

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
