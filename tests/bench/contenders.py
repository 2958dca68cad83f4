"""Who is measured: how each is started on an input, and where it is to be had."""

from __future__ import annotations

import contextlib
import http.client
import json
import lzma
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.bench.inputs import SIMPLE_OFFSET_NS, Input
from tests.bench.measuring import BENCH, PROJECT, Cost, cost_of, environment

BACKENDS = PROJECT.parent / "shared" / "backends"
CONVERT = [sys.executable, "-m", "otelbridge", "convert"]
TEXT = ("page-heavy", "span-rich", "postcopy")


class Ran(NamedTuple):
    """A run: what it took, how many spans it made and how many of them did not arrive; None where there are no spans."""

    cost: Cost
    spans: int | None = None
    lost: int | None = None


class Tools(NamedTuple):
    """What runs share: the receiver, a folder for what they write, where programs were found."""

    receiver: Receiver
    scratch: Path
    programs: dict[str, str]


class Contender(NamedTuple):
    """One to be measured.

    Attributes:
        inputs: The names of those that it reads.
        share: It reads a log that is so many times shorter: its rate is the same, and all are done earlier.
        program: The program that it needs beside Python, as in `PROGRAMS`.
    """

    name: str
    inputs: tuple[str, ...]
    run: Callable[[Tools, Input], Ran]
    share: int = 1
    program: str = ""


# --- the receiver -----------------------------------------------------------------------------------


class Receiver(NamedTuple):
    """A process that receives and counts; what it takes is not counted."""

    grpc: int
    http: int

    def counts(self) -> dict[str, int]:
        """Spans and points that came since the last time."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", "/")
            counts: dict[str, int] = json.loads(connection.getresponse().read())
        return counts


@contextlib.contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver that lasts as long as the context."""
    command = [sys.executable, str(BENCH / "counting_receiver.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdin
        assert process.stdout
        try:
            yield Receiver(**json.loads(process.stdout.readline()))
        finally:
            process.stdin.close()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


# --- programs ---------------------------------------------------------------------------------------

PROGRAMS = {
    "mtail": ("mtail", "apt install mtail, or go install github.com/google/mtail/cmd/mtail@latest, or name it with MTAIL"),
    "otelcol": ("otelcol-test otelcol-contrib otelcol", "a Collector with the filelog receiver on PATH, or named with OTELCOL"),
    "babeltrace2": ("babeltrace2", "apt install babeltrace2"),
}


def found_programs(scratch: Path) -> dict[str, str]:
    """Where each program is that there is; a Collector that lies packed beside the checkout is unpacked."""
    found = {}
    for word, (names, _) in PROGRAMS.items():
        candidates = [os.environ.get(word.upper(), ""), *names.split()]
        if path := next(filter(None, map(shutil.which, filter(None, candidates))), None):
            found[word] = path
    packed = sorted(BACKENDS.glob("otelcol-test-*-linux-amd64.xz"))
    if "otelcol" not in found and packed and os.uname().machine == "x86_64":
        program = scratch / "otelcol-test"
        with lzma.open(packed[-1]) as file, program.open("wb") as out:
            shutil.copyfileobj(file, out)
        program.chmod(0o755)
        found["otelcol"] = str(program)
    return found


def versions(programs: dict[str, str]) -> dict[str, str]:
    """The first line that each program says of its version."""
    commands = {"grep": ["grep", "--version"], **{word: [path, "--version"] for word, path in programs.items()}}
    said = {}
    for word, command in commands.items():
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        said[word] = (done.stdout.strip() or done.stderr.strip()).partition("\n")[0]
    return said


# --- runs -------------------------------------------------------------------------------------------


def grep(_: Tools, what: Input) -> Ran:
    """The yardstick. Its output is a file: it stops at the first hit when that is /dev/null."""
    return Ran(cost_of(["grep", "-c", what.event, str(what.path)]))


def _wc(_: Tools, what: Input) -> Ran:
    return Ran(cost_of(["wc", "-l", str(what.path)]))


def _converted(tools: Tools, what: Input, to: str, more: dict[str, str] | None = None) -> Ran:
    account = tools.scratch / "accounting.json"
    command = [*CONVERT, str(what.path), "--to", to, "--accounting", str(account)]
    if what.name == "simple":
        command += ["--clock-offset", str(SIMPLE_OFFSET_NS)]
    tools.receiver.counts()
    cost = cost_of(command, more, codes=(0, 7))
    spans = json.loads(account.read_text())["spans"]
    made = spans["finished"] - spans["not_kept"]
    arrived = spans["delivered"] if to.startswith("file:") else tools.receiver.counts()["spans"]
    return Ran(cost, made, made - arrived)


def to_file(tools: Tools, what: Input) -> Ran:
    """Otelbridge, into files of OTLP/JSON lines."""
    with tempfile.TemporaryDirectory(dir=tools.scratch) as out:
        return _converted(tools, what, f"file:{out}")


def _to_grpc(tools: Tools, what: Input) -> Ran:
    return _converted(tools, what, f"grpc://127.0.0.1:{tools.receiver.grpc}")


def _to_http(tools: Tools, what: Input) -> Ran:
    gzip = {"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}
    return _converted(tools, what, f"http://127.0.0.1:{tools.receiver.http}", gzip)


def _idiom(tools: Tools, what: Input, *more: str) -> Ran:
    tools.receiver.counts()
    endpoint = f"http://127.0.0.1:{tools.receiver.grpc}"
    cost = cost_of([sys.executable, str(BENCH / "sdk_idiom.py"), str(what.path), endpoint, *more])
    made = int(cost.output)
    return Ran(cost, made, made - tools.receiver.counts()["spans"])


def _idiom_of_spans(tools: Tools, what: Input) -> Ran:
    return _idiom(tools, what, "--no-counter")


def _mtail(tools: Tools, what: Input) -> Ran:
    programs = tools.scratch / "mtail"
    programs.mkdir(exist_ok=True)
    shutil.copy(BENCH / "events.mtail", programs)
    return Ran(cost_of([tools.programs["mtail"], "--one_shot", "--progs", str(programs), "--logs", str(what.path)]))


def _filelog(tools: Tools, what: Input) -> Ran:
    """The Collector never ends by itself: it has done it when its own counter says so."""
    port = _free_port()
    more = {"BENCH_LOG": str(what.path), "BENCH_PORT": str(port)}
    command = [tools.programs["otelcol"], "--config", str(BENCH / "filelog.yaml")]
    return Ran(cost_of(command, more, until=lambda: _accepted(port) >= what.units))


def _accepted(port: int) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/metrics")
        for line in connection.getresponse().read().decode().splitlines():
            if line.startswith("otelcol_receiver_accepted_log_records"):
                return float(line.rpartition(" ")[2])
    return 0.0


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _babeltrace(tools: Tools, what: Input) -> Ran:
    return Ran(cost_of([tools.programs["babeltrace2"], str(what.path)]))


GREP = Contender("grep -c", TEXT, grep)
CONTENDERS = (
    GREP,
    Contender("wc -l", TEXT, _wc),
    Contender("otelbridge to file", (*TEXT, "simple"), to_file),
    Contender("otelbridge over gRPC", (*TEXT, "simple"), _to_grpc),
    Contender("otelbridge over HTTP, gzip", (*TEXT, "simple"), _to_http),
    Contender("SDK idiom", TEXT, _idiom, share=10),
    Contender("SDK idiom, spans alone", TEXT, _idiom_of_spans, share=10),
    Contender("mtail", TEXT, _mtail, share=10, program="mtail"),
    Contender("Collector, filelog", TEXT, _filelog, share=10, program="otelcol"),
    Contender("otelbridge of CTF", ("ctf",), to_file, program="babeltrace2"),
    Contender("babeltrace2", ("ctf",), _babeltrace, program="babeltrace2"),
)
