"""What the tests of the service's life share: one log, and what is waited for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families

from tests.receiver import Receiver
from tests.service.running import Running, until

RECORDINGS = Path(__file__).resolve().parents[1] / "recordings"
RECORDING = (RECORDINGS / "debian-7.2/tls-ok/src.log").read_bytes()
"""One migration on its source's side."""
HALF = RECORDING.index(b"2688 iterations\n") + len(b"2688 iterations\n")
"""Here the migration is open, and a section of it."""
NOBODY = "http://127.0.0.1:9"
"""Nobody listens there."""


def log_in(folder: Path, data: bytes = RECORDING, name: str = "vm.log") -> Path:
    """The log of a configuration that `config_for` gives."""
    path = folder / "logs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def append(path: Path, data: bytes) -> None:
    """Let the log grow."""
    with path.open("ab") as file:
        file.write(data)


def later(data: bytes, seconds: int) -> bytes:
    """The same log, written so much later."""
    return re.sub(rb"@(\d{10})\.", lambda match: b"@%d." % (int(match[1]) + seconds), data)


def all_read(service: Running, size: int) -> None:
    """Wait until so many bytes were read in all, and what came of them is in the outbox or delivered."""
    until(lambda: sum(one["bytes"] for one in service.status()["inputs"]) == size)


def ended(service: Running) -> None:
    """Wait until everything has gone out, what was open too."""
    until(lambda: all(one["ended"] for one in service.status()["inputs"]))
    drained(service)


def drained(service: Running) -> None:
    """Wait until everything in the outbox is delivered."""
    until(lambda: not service.status()["outbox"]["pending_bytes"])


def named(receiver: Receiver, name: str) -> list[Span]:
    """The spans of a name, by their begin."""
    return sorted((span for span in receiver.spans() if span.name == name), key=lambda span: span.start_time_unix_nano)


def attributes(pairs: list[KeyValue]) -> dict[str, Any]:
    """Attributes by their names."""
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in pairs}


def is_incomplete(span: Span) -> bool:
    """Whether its end was never seen."""
    return attributes(list(span.attributes)).get("otelbridge.incomplete") is True


def counter(service: Running, name: str) -> float:
    """The sum of a counter's series on /metrics; 0 where it is not there."""
    wanted = name.replace(".", "_")
    families = text_string_to_metric_families(service.page("/metrics").decode())
    return sum(
        sample.value for family in families for sample in family.samples if sample.name.startswith((f"{wanted}_", wanted))
    )
