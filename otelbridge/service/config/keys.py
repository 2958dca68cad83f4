"""The words of the configuration file: every key of every table with what it takes and means.

The parser refuses what is not here, and `deploy/otelbridge.yaml` explains each with the sentence that stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from otelbridge.mapping.language import Key, Section

FORMATS = ("auto", "log", "simple", "ftrace", "syslog", "journald", "ust", "stap")

FILE: Section = {
    "version": Key("1", "The version of this file's language.", required=True),
    "inputs": Key("list of inputs", "What is read. Each has one of `files`, `pipe` and `journald`.", required=True),
    "mappings": Key("list of files", "Mappings of your own, beside the shipped ones; a folder stands for all in it."),
    "catalogue": Key("file", "The trace-events file of the QEMU that writes the traces, where it is not a stock one."),
    "destinations": Key(
        "destinations by name",
        "Where it goes. Without any, the OTEL_EXPORTER_OTLP_* variables count, as one destination named `environment`.",
    ),
    "outbox": Key(
        "{folder, limit, rejected_limit}", "What waits for a destination is kept on disk, with how far each input is read."
    ),
    "resource": Key(
        "texts by attribute",
        "Attributes of every resource. Those of OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME win over them.",
    ),
    "limits": Key("{streams}", "Bounds of what is held in memory."),
    "telemetry": Key("{destination, interval}", "The service's own metrics over OTLP."),
    "health": Key("{address}, or none", "The server of /healthz, /readyz, /status and /metrics."),
    "log": Key("{format, level}", "Messages of the service, on standard error."),
    "shutdown": Key("{grace}", "How the service ends."),
}

INPUT: Section = {
    "files": Key("pattern, or list of patterns", "Files that are followed as they grow and rotate, and as new ones appear."),
    "exclude": Key(
        "pattern, or list of patterns", "Files that are left out all the same; one without a slash is a name in any folder."
    ),
    "pipe": Key("path", "A named pipe that QEMU writes to."),
    "journald": Key("list of matches", "Entries of the systemd journal that have these fields."),
    "journal": Key("folder", "The folder of the journal's files; the system's own unless given."),
    "format": Key(" | ".join(FORMATS), "Which of QEMU's trace backends writes it."),
    "from": Key("start | end", "Where the files and journals are begun that are there at the first start."),
    "role": Key("source | destination | snapshot", "Which side all its migrations are, where the traces do not tell."),
    "name": Key(
        "pattern",
        "What the names of the files say: <domain>, <uuid>, <namespace> and <vmi> become attributes of the resource. Unless "
        "given, a log in libvirt's own folder is that of its domain.",
    ),
    "attributes": Key("texts by attribute", "Attributes of the resource of whatever comes from here."),
    "idle_timeout": Key("duration", "After so long without a byte the trace has ended, and what is open in it is incomplete."),
    "qemu_version": Key("version", "The version of that QEMU, where the traces leave it open."),
    "clock": Key(
        "file",
        "Both clocks of the host, read together, for times that count from its boot: JSON with realtime_ns and monotonic_ns.",
    ),
}

Kind = Literal["files", "pipe", "journald"]
KINDS: tuple[Kind, ...] = ("files", "pipe", "journald")
"""The keys of which an input has one."""
NOT_WITH: Mapping[Kind, tuple[str, ...]] = {
    "files": ("journal",),
    "pipe": ("exclude", "journal", "from"),
    "journald": ("exclude", "format", "name", "clock"),
}

DESTINATION: Section = {
    "endpoint": Key(
        "address",
        "http://, or https:// for TLS, both without v1/traces; or grpc://, or grpcs:// for TLS.",
        required=True,
    ),
    "signals": Key("list of traces | metrics", "What goes there; both unless given."),
    "headers": Key(
        "values by name",
        "Headers of every request. {file: PATH} is the content of a file, without its last newline, as it is now.",
    ),
    "compression": Key("none | gzip", "How requests are compressed."),
    "timeout": Key("duration", "How long one attempt may take; 0s for no limit."),
    "tls": Key("{ca, cert, key}", "For https:// and grpcs:// only."),
}  # fmt: skip

HEADER: Section = {"file": Key("path", "The file that holds the value, without its last newline.", required=True)}

TLS: Section = {
    "ca": Key("PEM file", "The authorities that may vouch for the destination; the system's own unless given."),
    "cert": Key("PEM file", "The certificate that otelbridge shows."),
    "key": Key("PEM file", "The certificate's private key, unencrypted."),
}

OUTBOX: Section = {
    "folder": Key(
        "folder",
        "A folder for otelbridge alone; else $STATE_DIRECTORY, $XDG_STATE_HOME/otelbridge or ~/.local/state/otelbridge.",
    ),
    "limit": Key("size", "How much may wait. At the limit reading pauses."),
    "rejected_limit": Key("size", "How much is kept, for inspection, of what destinations refused for good."),
}  # fmt: skip

LIMITS: Section = {"streams": Key("number", "How many traces of QEMU processes are followed at a time.")}

TELEMETRY: Section = {
    "destination": Key("name of a destination", "Where they go; nowhere unless given."),
    "interval": Key("duration", "How often."),
}

HEALTH: Section = {"address": Key("HOST:PORT, or none", "Where it listens; none for no server, port 0 for a free port.")}

LOG: Section = {
    "format": Key("text | json", "How a message is written."),
    "level": Key("debug | info | warning | error", "The least that is said."),
}

SHUTDOWN: Section = {"grace": Key("duration", "How long it goes on sending after SIGTERM; the rest waits in the outbox.")}

SECTIONS = {
    "": FILE, "inputs": INPUT, "destinations": DESTINATION, "headers": HEADER, "tls": TLS, "outbox": OUTBOX, "limits": LIMITS,
    "telemetry": TELEMETRY, "health": HEALTH, "log": LOG, "shutdown": SHUTDOWN,
}  # fmt: skip
"""All tables, by the key that they stand under."""
