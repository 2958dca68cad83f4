"""The service's log: lines of text or of JSON on standard error, repeated messages folded, secrets left out.

2026-11-27T22:00:00.123Z WARNING Kept 512 spans in the outbox. destination=tempo retry_in_s=8
{"time": "2026-11-27T22:00:00.123Z", "level": "warning", "logger": "otelbridge.service.run", "message": "Kept 512 …"}
"""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple, TextIO

from otelbridge.service.config import LogConfig
from otelbridge.view.text import clean

FOLD_S = 60.0
"""A message that was printed is held back for so long when it comes again; then one line says how often it came."""

_MAX_FOLDS = 1_000
_SHORTEST_SECRET = 4
"""What is shorter stands in ordinary text by chance, and replacing it would give it away."""


def fields(**values: object) -> dict[str, dict[str, object]]:
    """What follows the sentence, for `extra`: `_log.warning("The file cannot be read.", extra=fields(path=path))`."""
    return {"fields": values}


def set_up(config: LogConfig, *, stream: TextIO | None = None, now_s: Callable[[], float] = time.monotonic) -> ServiceLog:
    """Send the messages of this process to a stream, and nowhere else; the log can be closed and set up anew.

    The level is that of otelbridge's own messages. Those of libraries are shown from warnings on.

    Args:
        config: The form of lines and the level.
        stream: Where lines go; None for standard error.
        now_s: A clock that never goes back, by which messages are folded.
    """
    log = ServiceLog(sys.stderr if stream is None else stream, now_s)
    log.follow(config)
    root = logging.getLogger()
    for other in tuple(root.handlers):
        root.removeHandler(other)
        if isinstance(other, ServiceLog):
            other.close()
    root.addHandler(log)
    root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    return log


class _Line(NamedTuple):
    """What a line tells. `fields` are numbers, truth values, None and text; `exception` is a traceback."""

    time_s: float
    level: str
    logger: str
    message: str
    fields: Mapping[str, object]
    exception: str = ""


@dataclass(slots=True)
class _Fold:
    """A message that was printed at `since_s`, and how often it came since, the last time as `last`."""

    since_s: float
    last: logging.LogRecord
    repeats: int = 0


class ServiceLog(logging.Handler):
    """Writes lines. Whatever is wrong with a message or with the stream, no exception comes out of it."""

    def __init__(self, stream: TextIO, now_s: Callable[[], float]) -> None:
        super().__init__()
        self._stream, self._now_s = stream, now_s
        self._text = _plain_text
        self._folds: dict[tuple[object, ...], _Fold] = {}
        self._secrets: tuple[str, ...] = ()

    def follow(self, config: LogConfig) -> None:
        """Write lines of this form, and our own from this level on."""
        self._text = _json_text if config.format == "json" else _plain_text
        logging.getLogger("otelbridge").setLevel(config.level.upper())

    def hide(self, values: Iterable[str]) -> None:
        """Print `***` in place of these from now on. Values of fewer than four characters cannot be hidden."""
        found = {value for value in values if len(value) >= _SHORTEST_SECRET}.union(self._secrets)
        # The longest first: one may hold another.
        self._secrets = tuple(sorted(found, key=len, reverse=True))

    def tick(self) -> None:
        """Tell what was folded for long enough. To be called every few seconds: else the next message does it."""
        self._safely(self._tell_folded)

    def close(self) -> None:
        """Tell everything that was folded."""
        self._safely(lambda: self._tell_folded(everything=True))
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message, or hold it back."""
        self._safely(lambda: self._take(record))

    def _safely(self, act: Callable[[], None]) -> None:
        """Do something alone, and let nothing that goes wrong with it stop the service."""
        self.acquire()
        try:
            with suppress(Exception):
                act()
        finally:
            self.release()

    def _take(self, record: logging.LogRecord) -> None:
        self._tell_folded()
        key = _sameness(record)
        fold = self._folds.get(key)
        if fold is not None:
            fold.repeats += 1
            fold.last = record
            return
        if len(self._folds) >= _MAX_FOLDS:
            self._tell(self._folds.pop(next(iter(self._folds))))
        self._folds[key] = _Fold(self._now_s(), record)
        self._write(self._line(record))

    def _tell_folded(self, *, everything: bool = False) -> None:
        now_s = self._now_s()
        for key, fold in tuple(self._folds.items()):
            if everything or now_s - fold.since_s >= FOLD_S:
                del self._folds[key]
                if self._tell(fold) and not everything:
                    # What was told now is held back again.
                    self._folds[key] = _Fold(now_s, fold.last)

    def _tell(self, fold: _Fold) -> bool:
        if not fold.repeats:
            return False
        times = "once" if fold.repeats == 1 else f"{fold.repeats} times"
        passed_s = max(1, round(self._now_s() - fold.since_s))
        line = self._line(fold.last)
        note = f"(repeated {times} in the last {passed_s} s)"
        self._write(line._replace(time_s=time.time(), message=f"{line.message} {note}", exception=""))
        return True

    def _line(self, record: logging.LogRecord) -> _Line:
        exception = ""
        if record.exc_info and record.exc_info[1] is not None:
            exception = self._hidden(logging.Formatter().formatException(record.exc_info))
        given = getattr(record, "fields", {})
        found = {str(key): self._plain(value) for key, value in given.items()} if isinstance(given, Mapping) else {}
        return _Line(record.created, record.levelname, record.name, self._hidden(_message(record)), found, exception)

    def _plain(self, value: object) -> object:
        if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
            return value
        return self._hidden(_shown(value))

    def _hidden(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _write(self, line: _Line) -> None:
        text = self._text(line)
        encoding = self._stream.encoding or "utf-8"
        self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        self._stream.flush()


def _sameness(record: logging.LogRecord) -> tuple[object, ...]:
    """What two messages have in common that differ in numbers only: one of another file or destination is another message."""
    arguments = record.args if isinstance(record.args, tuple) else ()
    words = [_shown(each) for each in arguments if not isinstance(each, int | float)]
    return record.name, record.levelno, _shown(record.msg), *words


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - arguments that do not fit: the message is still worth more than nothing
        return f"{_shown(record.msg)} {_shown(record.args)}"


def _shown(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - any class may be logged
        return f"<{type(value).__name__}>"


def _time_text(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain_text(line: _Line) -> str:
    """One line, and a traceback below it, each of its lines indented, so that none can pass for a message."""
    words = [_time_text(line.time_s), line.level, clean(line.message)]
    words += [f"{clean(key)}={_field_text(value)}" for key, value in line.fields.items()]
    traceback = [f"  {clean(part)}" for part in line.exception.split("\n")] if line.exception else []
    return "\n".join([" ".join(words), *traceback]) + "\n"


def _field_text(value: object) -> str:
    if isinstance(value, str):
        text = clean(value)
        is_word = text and not any(character in ' "=' for character in text)
        return text if is_word else '"' + text.replace('"', '\\"') + '"'
    return json.dumps(value)


def _json_text(line: _Line) -> str:
    document: dict[str, object] = {
        "time": _time_text(line.time_s),
        "level": line.level.lower(),
        "logger": line.logger,
        "message": line.message,
    }
    if line.fields:
        document["fields"] = line.fields
    if line.exception:
        document["exception"] = line.exception
    # Pure ASCII: neither controls nor lone surrogates reach whoever reads it.
    return json.dumps(document) + "\n"
