"""What stands in the service's log."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

from otelbridge.service.config import LogConfig
from otelbridge.service.log import ServiceLog, fields, set_up

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
OURS = logging.getLogger("otelbridge.service.example")


def refuse(text: str) -> NoReturn:
    raise ValueError(text)


class Clock:
    """A clock that a test sets."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def start(clock: Clock, stream: io.StringIO) -> Iterator[Callable[[LogConfig], ServiceLog]]:
    """Sets the log up; afterwards logging is as it was."""
    root, ours = logging.getLogger(), logging.getLogger("otelbridge")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    logs: list[ServiceLog] = []

    def begin(config: LogConfig) -> ServiceLog:
        logs.append(set_up(config, stream=stream, now_s=clock))
        return logs[-1]

    yield begin
    for log in logs:
        log.close()
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def test_a_line_of_text(start: Callable[[LogConfig], ServiceLog], stream: io.StringIO) -> None:
    start(LogConfig())
    OURS.warning("Kept %d spans.", 512, extra=fields(destination="tempo", retry_in_s=8, why="it is gone", ok=False, path=""))
    line = 'WARNING Kept 512 spans. destination=tempo retry_in_s=8 why="it is gone" ok=false path=""'
    assert re.fullmatch(rf"{TIME} {re.escape(line)}\n", stream.getvalue())


def test_a_line_of_json(start: Callable[[LogConfig], ServiceLog], stream: io.StringIO) -> None:
    start(LogConfig(format="json"))
    OURS.error("No\n%s", "\x1b\udcff", extra=fields(lag_s=1.5, never=float("inf"), list=["a"], none=None))
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().isascii()
    found = json.loads(stream.getvalue())
    assert re.fullmatch(TIME, found.pop("time"))
    assert found == {
        "level": "error",
        "logger": "otelbridge.service.example",
        "message": "No\n\x1b\udcff",
        "fields": {"lag_s": 1.5, "never": "inf", "list": "['a']", "none": None},
    }


def test_levels_are_ours_and_libraries_only_warn(start: Callable[[LogConfig], ServiceLog], stream: io.StringIO) -> None:
    start(LogConfig(level="debug"))
    OURS.debug("Ours.")
    logging.getLogger("urllib3").info("Theirs.")
    logging.getLogger("urllib3").warning("Their warning.")
    start(LogConfig(level="error"))
    OURS.warning("Not this.")
    assert re.findall(r"Z (.*)", stream.getvalue()) == ["DEBUG Ours.", "WARNING Their warning."]


def test_no_text_can_forge_a_line_or_steer_a_terminal(start: Callable[[LogConfig], ServiceLog], stream: io.StringIO) -> None:
    start(LogConfig())
    try:
        refuse("one\n2026-11-27T22:00:00.123Z ERROR forged\x1b[2J")
    except ValueError:
        OURS.exception("Read %s.", "a\nb\x1b[2J\u202e", extra=fields(path="c\rd \x9b"))
    first, *traceback = stream.getvalue().splitlines()
    assert first.endswith(r'ERROR Read a\x0ab\x1b[2J\u202e. path="c\x0dd \x9b"')
    assert all(line.startswith("  ") for line in traceback)
    assert traceback[-1] == r"  2026-11-27T22:00:00.123Z ERROR forged\x1b[2J"


def test_a_message_that_comes_again_is_told_once_a_minute(
    start: Callable[[LogConfig], ServiceLog], stream: io.StringIO, clock: Clock
) -> None:
    log = start(LogConfig())
    for second in range(150):
        clock.now_s = second
        OURS.warning("Cannot read %s, attempt %d.", "a.log", second)
    OURS.warning("Something else.")
    log.close()
    assert re.findall(r"WARNING (.*)", stream.getvalue()) == [
        "Cannot read a.log, attempt 0.",
        "Cannot read a.log, attempt 59. (repeated 59 times in the last 60 s)",
        "Cannot read a.log, attempt 119. (repeated 60 times in the last 60 s)",
        "Something else.",
        "Cannot read a.log, attempt 149. (repeated 30 times in the last 29 s)",
    ]


def test_the_same_about_something_else_is_told_too(
    start: Callable[[LogConfig], ServiceLog], stream: io.StringIO, clock: Clock
) -> None:
    log = start(LogConfig())
    for name in ("a.log", "b.log", "a.log"):
        OURS.warning("Cannot read %s.", name)
    clock.now_s = 61
    log.tick()
    told = re.findall(r"WARNING (.*)", stream.getvalue())
    assert told == ["Cannot read a.log.", "Cannot read b.log.", "Cannot read a.log. (repeated once in the last 61 s)"]


def test_what_was_folded_is_told_when_nothing_else_happens(
    start: Callable[[LogConfig], ServiceLog], stream: io.StringIO, clock: Clock
) -> None:
    log = start(LogConfig())
    OURS.warning("Gone.")
    OURS.warning("Gone.")
    OURS.error("Gone.")
    clock.now_s = 59
    log.tick()
    assert re.findall(r"Z (.*)", stream.getvalue()) == ["WARNING Gone.", "ERROR Gone."]
    clock.now_s = 61
    log.tick()
    assert re.findall(r"Z (.*)", stream.getvalue())[2:] == ["WARNING Gone. (repeated once in the last 61 s)"]
    clock.now_s = 200
    log.tick()
    OURS.warning("Gone.")
    assert re.findall(r"Z (.*)", stream.getvalue())[3:] == ["WARNING Gone."]


def test_the_same_words_of_another_logger_are_another_message(
    start: Callable[[LogConfig], ServiceLog], stream: io.StringIO
) -> None:
    start(LogConfig())
    OURS.warning("Gone.")
    logging.getLogger("otelbridge.other").warning("Gone.")
    assert stream.getvalue().count("Gone.") == 2


def test_memory_does_not_grow_with_messages_that_are_all_different(
    start: Callable[[LogConfig], ServiceLog], stream: io.StringIO
) -> None:
    log = start(LogConfig())
    for number in range(3_000):
        OURS.warning(f"Number {number}.")
    assert stream.getvalue().count("\n") == 3_000
    assert len(log._folds) == 1_000


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_message_that_cannot_be_made_is_printed_as_it_is(
    form: str, start: Callable[[LogConfig], ServiceLog], stream: io.StringIO
) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

    start(LogConfig(format="json" if form == "json" else "text"))
    OURS.warning("%d spans", "many")
    OURS.warning("See %s", Broken(), extra=fields(path=Broken()))
    OURS.warning("Fields", extra={"fields": 3})
    assert "%d spans ('many',)" in stream.getvalue()
    assert "<Broken>" in stream.getvalue()
    assert stream.getvalue().count("\n") == 3


def test_a_stream_that_is_gone_stops_nothing(start: Callable[[LogConfig], ServiceLog], stream: io.StringIO) -> None:
    log = start(LogConfig())
    stream.close()
    OURS.warning("Nobody hears.")
    log.tick()


def test_secrets_are_hidden_wherever_they_stand(start: Callable[[LogConfig], ServiceLog], stream: io.StringIO) -> None:
    log = start(LogConfig(format="json"))
    log.hide(["s3cret", "s3cret-and-more", 'quo"te', "ab"])
    try:
        refuse("for s3cret")
    except ValueError:
        OURS.exception("Sent s3cret-and-more, tabs and %s.", "s3cret", extra=fields(header=["s3cret"], other='quo"te'))
    found = json.loads(stream.getvalue())
    assert found["message"] == "Sent ***, tabs and ***."
    assert found["fields"] == {"header": "['***']", "other": "***"}
    assert found["exception"].endswith("for ***")


def test_warnings_of_python_go_the_same_way(start: Callable[[LogConfig], ServiceLog], stream: io.StringIO) -> None:
    start(LogConfig(format="json"))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old ways", stacklevel=1)
    assert "old ways" in json.loads(stream.getvalue())["message"]


def test_lines_of_threads_are_whole(start: Callable[[LogConfig], ServiceLog], stream: io.StringIO) -> None:
    start(LogConfig(format="json"))

    def say(name: int) -> None:
        for number in range(100):
            OURS.warning(f"{name} {number}")

    threads = [threading.Thread(target=say, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({json.loads(line)["message"] for line in stream.getvalue().splitlines()}) == 400


def test_a_process_tells_what_it_folded_when_it_ends() -> None:
    """On standard error, in ASCII too."""
    code = """if True:
        import logging
        from otelbridge.service.config import LogConfig
        from otelbridge.service.log import set_up
        set_up(LogConfig())
        for _ in range(3):
            logging.getLogger("otelbridge.x").warning("Nö.")
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(sys.path), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert re.findall(r"WARNING (.*)", done.stderr) == [r"N\xf6.", r"N\xf6. (repeated 2 times in the last 1 s)"]
    assert done.stdout == ""
