"""`--jobs`: several processes read the inputs, each whole ones, and pack what comes out of them.

What goes where stays in one process: it takes the packed requests of one input after the other, in the order of the inputs,
so what goes out is the same as with one process. Until an input's turn comes, they lie in temporary files.
"""

from __future__ import annotations

import copyreg
import errno
import os
import pickle
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from io import BufferedReader, RawIOBase
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryFile
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Self, cast

from otelbridge.errors import ExportError, OtelbridgeError, UsageError
from otelbridge.otlp import Builder, RequestSink, Sink
from otelbridge.pipeline.options import Setup
from otelbridge.pipeline.reading import read_input
from otelbridge.pipeline.survey import of_joins, seen_in
from otelbridge.readers.inputs import TraceInput
from otelbridge.readers.open import shown
from otelbridge.readers.source import Times
from otelbridge.records import FinishedSpan, MetricPoint, Outcome, Request, Resource, Signal

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from otelbridge.engine.fits import Seen
    from otelbridge.engine.joins import Joined
    from otelbridge.report import InputReport

_PROGRESS_S = 0.2
_INTERRUPT = (signal.SIGINT,)
_FORK = get_context("fork")
"""What all share need not be told; rules are functions, which cannot be."""

NewBuilder = Callable[[], Builder] | None
"""What packs requests for a destination; None for one that takes spans and points as they are."""

# Defaults of `Seen` and `Joined`.
copyreg.pickle(MappingProxyType, lambda mapping: (MappingProxyType, (dict(mapping),)))


class _Look(NamedTuple):
    """Look at an input for its migrations; the answer is a list of `Seen`."""

    place: int


class _Read(NamedTuple):
    """Convert an input; the answer is `_Converted`."""

    place: int


class _Known(NamedTuple):
    """What each process must know before it is asked to convert; there is no answer."""

    joined: Joined | None
    builders: tuple[NewBuilder, ...]


class _Converted(NamedTuple):
    """What came out of it stands in the temporary file of the process, between these places."""

    report: InputReport
    notes: list[str]
    start: int
    end: int


class _Failed(NamedTuple):
    """The answer of a process that could not do its task. `trace` is for those who look for a bug."""

    error: Exception
    trace: str


class _Worker(NamedTuple):
    """One of the processes. `file` has no name, so nothing of it is left, however this ends."""

    process: BaseProcess
    connection: Connection[Any, Any]
    file: IO[bytes]


class Crew:
    """Processes that wait for inputs to read; they end with the context.

    Args:
        setup: What all inputs share; `options.jobs` says how many processes there are at most.
        traces: The inputs, all in files.
        times: How their stamps become UTC.

    Raises:
        UsageError: So many processes cannot be started.
        ExportError: There is no room for temporary files.
    """

    def __init__(self, setup: Setup, traces: Sequence[TraceInput], times: Sequence[Times]) -> None:
        self._setup, self._traces, self._times = setup, traces, times
        self._bytes_read = _FORK.RawArray("Q", len(traces))
        self._size = sum(_size(path) for trace in traces for path in trace.files)
        self._workers: list[_Worker] = []
        number = min(setup.options.jobs, len(traces))
        try:
            for _ in range(number):
                self._workers.append(self._started())
        except OSError as error:
            self.__exit__()
            raise UsageError(
                f"--jobs {setup.options.jobs}: only {len(self._workers)} of {number} processes could be started "
                f"({error.strerror or error}); ask for fewer, or raise the limits (ulimit -n, -u). Nothing was converted."
            ) from error

    def _started(self) -> _Worker:
        file = _temporary_file()
        ours, theirs = _FORK.Pipe()
        others = [worker.connection for worker in self._workers]
        process = _FORK.Process(target=self._work, args=(theirs, [ours, *others], file), daemon=True)
        signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPT)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPT)
        theirs.close()
        return _Worker(process, ours, file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for worker in self._workers:
            worker.connection.close()
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
            worker.file.close()

    # --- the process that was started -------------------------------------------------------------

    def survey(self) -> Iterator[list[Seen]]:
        """What a first look at each input found, in their order."""
        tasks = [_Look(place) for place in range(len(self._traces))]
        for _, found in _Round(self._workers, tasks, self._said, self._tell).answers():
            yield found

    def read(self, joined: Joined | None, sinks: Sequence[Sink]) -> Iterator[InputReport]:
        """Convert all inputs, and hand what comes out of them to the sinks in the order of the inputs."""
        builders = tuple(sink.new_builder if isinstance(sink, RequestSink) else None for sink in sinks)
        for worker in self._workers:
            with suppress(BrokenPipeError, ConnectionResetError):  # it has ended, which is told when it is given a task
                worker.connection.send(_Known(joined, builders))
        tasks = [_Read(place) for place in range(len(self._traces))]
        work = _Round(self._workers, tasks, self._said, self._tell)
        for worker, converted in work.answers():
            for number, what in _packets(worker.file, converted.start, converted.end):
                _hand(sinks[number], what)
                # Whoever has finished meanwhile should not wait until all of this is delivered.
                work.go_on(0)
            self._setup.notes.extend(converted.notes)
            yield converted.report

    def _said(self, place: int) -> str:
        return shown(self._traces[place].paths[0])

    def _tell(self) -> None:
        self._setup.progress(min(sum(self._bytes_read), self._size), self._size)

    # --- the processes of the crew ----------------------------------------------------------------

    def _work(self, connection: Connection[Any, Any], others: Sequence[Connection[Any, Any]], file: IO[bytes]) -> None:
        """Do what is asked for until nobody is there any more who could ask."""
        # It is for the first process to decide what an interrupt means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPT)
        for other in others:
            other.close()
        known = _Known(None, ())
        with suppress(EOFError, BrokenPipeError, ConnectionResetError):
            while True:
                task = connection.recv()
                if isinstance(task, _Known):
                    known = task
                else:
                    connection.send(self._answer(task, known, file))

    def _answer(self, task: _Look | _Read, known: _Known, file: IO[bytes]) -> list[Seen] | _Converted | _Failed:
        place = task.place
        notes: list[str] = []
        setup = self._setup._replace(notes=notes, progress=lambda done, _size: self._bytes_read.__setitem__(place, done))
        trace, times = self._traces[place], self._times[place]
        try:
            if isinstance(task, _Look):
                return seen_in(setup, trace, times, of_joins(setup.mapping), place)
            start = file.tell()
            sinks = [
                _Packing(number, new, file) if new else _Keeping(number, file) for number, new in enumerate(known.builders)
            ]
            report = read_input(setup, place, trace, times, known.joined, sinks)
            file.flush()
            return _Converted(report, notes, start, file.tell())
        except OSError as error:
            # An input that cannot be read is told of in another way, so it is the temporary file.
            return _Failed(_no_room(error), "")
        except Exception as error:  # noqa: BLE001  # whatever it is, the first process must hear of it
            return _Failed(error, traceback.format_exc())


class _Round:
    """One task for each input, given to whoever is free."""

    def __init__(
        self, workers: Sequence[_Worker], tasks: Sequence[_Look | _Read], said: Callable[[int], str], tell: Callable[[], None]
    ) -> None:
        self._tasks, self._said, self._tell = deque(tasks), said, tell
        self._number = len(tasks)
        self._idle = deque(workers)
        self._busy: dict[object, tuple[_Worker, int]] = {}
        self._answers: dict[int, tuple[_Worker, Any]] = {}
        self._assign()

    def answers(self) -> Iterator[tuple[_Worker, Any]]:
        """All answers in the order of the tasks, and whose they are.

        Raises:
            OtelbridgeError: What an input's reader found.
            ExportError: There is no room for temporary files, or a process was ended.
        """
        for place in range(self._number):
            while place not in self._answers:
                self.go_on(_PROGRESS_S)
            worker, answer = self._answers.pop(place)
            if isinstance(answer, _Failed):
                raise _as_told(answer)
            yield worker, answer

    def go_on(self, longest_s: float) -> None:
        """Take the answers that are there, or come within that time, and give those who have answered something to do."""
        for ready in wait([worker.connection for worker, _ in self._busy.values()], longest_s):
            worker, place = self._busy.pop(ready)
            try:
                self._answers[place] = worker, worker.connection.recv()
            except (EOFError, ConnectionResetError):
                self._answers[place] = worker, self._ended(worker, place)
            else:
                self._idle.append(worker)
        self._assign()
        self._tell()

    def _assign(self) -> None:
        while self._idle and self._tasks:
            worker, task = self._idle.popleft(), self._tasks.popleft()
            try:
                worker.connection.send(task)
            except (BrokenPipeError, ConnectionResetError):
                self._answers[task.place] = worker, self._ended(worker, task.place)
            else:
                self._busy[worker.connection] = worker, task.place

    def _ended(self, worker: _Worker, place: int) -> _Failed:
        worker.process.join()
        code = worker.process.exitcode or 0
        how = f"by signal {-code}" if code < 0 else f"with {code}"
        words = (
            f"{self._said(place)}: the process that read it was ended {how}, perhaps for want of memory. Nothing of it and of "
            "what follows was delivered; convert again, with fewer --jobs."
        )
        return _Failed(ExportError(words), "")


# --- what comes out of an input, on its way -------------------------------------------------------


class _Packing:
    """Packs requests in a reader's process for the sink of that number."""

    def __init__(self, number: int, new_builder: Callable[[], Builder], file: IO[bytes]) -> None:
        self._number, self._builder, self._file = number, new_builder(), file

    def spans(self, resource: Resource, spans: Sequence[FinishedSpan]) -> None:
        self._keep(self._builder.add_spans(resource, spans))

    def points(self, resource: Resource, points: Sequence[MetricPoint]) -> None:
        self._keep(self._builder.add_points(resource, points))

    def flush(self) -> None:
        self._keep(self._builder.flush())

    def close(self) -> dict[Signal, Outcome]:
        return {}

    def _keep(self, requests: Sequence[Request]) -> None:
        for request in requests:
            _put(self._file, self._number, request)


class _Keeping:
    """Keeps spans and points as they are for the sink of that number."""

    def __init__(self, number: int, file: IO[bytes]) -> None:
        self._number, self._file = number, file

    def spans(self, resource: Resource, spans: Sequence[FinishedSpan]) -> None:
        _put(self._file, self._number, ("spans", resource, spans))

    def points(self, resource: Resource, points: Sequence[MetricPoint]) -> None:
        _put(self._file, self._number, ("points", resource, points))

    def flush(self) -> None:
        pass

    def close(self) -> dict[Signal, Outcome]:
        return {}


def _put(file: IO[bytes], number: int, what: object) -> None:
    pickle.dump((number, what), file, pickle.HIGHEST_PROTOCOL)


def _packets(file: IO[bytes], start: int, end: int) -> Iterator[tuple[int, Any]]:
    """What was put into the file between these places."""
    with BufferedReader(_Region(file.fileno(), start, end)) as reader:
        while reader.peek():
            yield pickle.load(reader)  # noqa: S301  # a process of ours wrote it, into a file that nobody else can open


class _Region(RawIOBase):
    """A part of a file, read without moving the place where another process writes into it."""

    def __init__(self, descriptor: int, start: int, end: int) -> None:
        self._descriptor, self._place, self._end = descriptor, start, end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  # whatever has the buffer protocol
        number = os.preadv(self._descriptor, [memoryview(buffer)[: self._end - self._place]], self._place)
        self._place += number
        return number


def _hand(sink: Sink, what: Request | tuple[str, Resource, Sequence[Any]]) -> None:
    if isinstance(what, Request):
        cast("RequestSink", sink).take([what])
    elif what[0] == "spans":
        sink.spans(what[1], what[2])
    else:
        sink.points(what[1], what[2])


def _temporary_file() -> IO[bytes]:
    try:
        return TemporaryFile()
    except OSError as error:
        if error.errno == errno.EMFILE:
            raise
        raise _no_room(error) from error


def _no_room(error: OSError) -> ExportError:
    return ExportError(
        f"Temporary files cannot be written: {error.strerror or error}. With --jobs, what waits for its turn lies in the "
        "folder that TMPDIR names; make room, or name another. What was not delivered before is missing."
    )


def _as_told(failed: _Failed) -> Exception:
    if isinstance(failed.error, OtelbridgeError):
        return failed.error
    failed.error.add_note(failed.trace)
    return failed.error


def _size(path: str) -> int:
    with suppress(OSError):
        return Path(path).stat().st_size
    return 0
