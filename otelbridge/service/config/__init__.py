"""The service's configuration, as `otelbridge.yaml` describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from otelbridge.otlp.settings import Endpoint
from otelbridge.records import SECOND_NS, Attributes, Role, Signal

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class InputConfig:
    """One entry of `inputs`.

    Attributes:
        kind: Which of the keys `files`, `pipe` and `journald` it has.
        paths: Patterns of files, the path of a pipe, or the matches of the journal (`SYSLOG_IDENTIFIER=qemu-system-x86_64`).
        exclude: Patterns of files that are left out.
        journal: The folder of the journal's files, None for the system's own.
        format: A word of `--format`.
        start: Where a file is begun that is there at the first start: `from: start` or `from: end`.
        role: What the user said of all its migrations.
        name: The pattern of file names such as `<namespace>_<vmi>.log`; empty where libvirt's is to be tried.
        attributes: Put into the resource of every stream of it.
        idle_timeout_ns: A stream without a byte for so long has ended: what is open in it goes out as incomplete.
        qemu_version: The version of QEMU, None to deduce it.
        clock: A file with both clocks.
    """

    kind: Literal["files", "pipe", "journald"]
    paths: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    journal: Path | None = None
    format: str = "auto"
    start: Literal["start", "end"] = "start"
    role: Role | None = None
    name: str = ""
    attributes: Attributes = ()
    idle_timeout_ns: int = 600 * SECOND_NS
    qemu_version: str | None = None
    clock: Path | None = None


@dataclass(frozen=True, slots=True)
class DestinationConfig:
    """One entry of `destinations`: its name, the endpoint of each signal that goes there, the files that hold its headers."""

    name: str
    endpoints: Mapping[Signal, Endpoint]
    files: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class OutboxConfig:
    """Where requests and positions are kept. `limit_bytes` bounds what waits, `rejected_limit_bytes` what was refused."""

    folder: Path
    limit_bytes: int = 256 * MIB
    rejected_limit_bytes: int = 16 * MIB


@dataclass(frozen=True, slots=True)
class TelemetryConfig:
    """What the service says of itself. `destination` is a name of `destinations`, None for nowhere."""

    destination: str | None = None
    interval_ns: int = 60 * SECOND_NS


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """The address of the health server; `host` is None for none. Port 0 takes a free one."""

    host: str | None = "127.0.0.1"
    port: int = 13133


@dataclass(frozen=True, slots=True)
class LogConfig:
    """How messages are written to standard error."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """The whole file. `source` is its path, None where there is none."""

    inputs: tuple[InputConfig, ...]
    destinations: tuple[DestinationConfig, ...]
    outbox: OutboxConfig
    mappings: tuple[Path, ...] = ()
    catalogue: Path | None = None
    resource: Attributes = ()
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)
    health: HealthConfig = field(default_factory=HealthConfig)
    log: LogConfig = field(default_factory=LogConfig)
    grace_ns: int = 5 * SECOND_NS
    max_streams: int = 10_000
    source: Path | None = None
