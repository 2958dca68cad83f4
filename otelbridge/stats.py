"""What otelbridge says of itself: every counter of its doings, losses and notable things, in one table.

The losses of a conversion are worded from it, the service's own telemetry has a metric for each row, and the README's list is
generated from it.
"""

# Not `annotations` from __future__: a named tuple would compile each of its annotations, at every start.

from typing import Literal, NamedTuple

from otelbridge.records import Attributes

Severity = Literal["data-loss", "notice", "info"]
Kind = Literal["sum", "gauge", "histogram"]


class Stat(NamedTuple):
    """One counter.

    Attributes:
        name: `otelbridge.<room>.<noun>_<what befell it>`.
        unit: In UCUM.
        severity: `data-loss` where something is missing from the result because of it, `info` for what is as it should be.
        text: One sentence, as the list in the README has it.
        bucket: The bucket of the accounting that it counts, empty for one that is no bucket.
        kind: A `sum` only grows, a `gauge` is the number of the moment, a `histogram` tells how values are spread.
        attributes: What tells its series apart.
    """

    name: str
    unit: str
    severity: Severity
    text: str
    bucket: str = ""
    kind: Kind = "sum"
    attributes: tuple[str, ...] = ()


class Distribution(NamedTuple):
    """The state of a histogram: `buckets[i]` values lie in (bounds[i - 1], bounds[i]], the last bucket has no upper bound."""

    bounds: tuple[float, ...]
    buckets: tuple[int, ...]
    sum: float
    min: float
    max: float


class Reading(NamedTuple):
    """One series of a counter as it stands now."""

    attributes: Attributes
    value: int | float | Distribution


_WHICH_WAY = ("destination", "signal")
_WHY = (*_WHICH_WAY, "reason")

STATS = (
    Stat("otelbridge.reader.data_read", "By", "info", "Bytes were read from inputs."),
    Stat("otelbridge.reader.lines_read", "{line}", "info", "Lines of text were read, whatever they are."),
    Stat("otelbridge.reader.records_read", "{record}", "info", "Records of binary traces were read."),
    Stat(
        "otelbridge.reader.data_refused", "By", "data-loss",
        "Bytes are of inputs that cannot be read as traces; the log and /status say why.",
    ),
    Stat(
        "otelbridge.reader.lines_malformed", "{line}", "data-loss",
        "Lines are trace events whose arguments no known declaration fits: they were counted, not used.", "malformed",
    ),
    Stat(
        "otelbridge.reader.lines_torn", "{line}", "data-loss",
        "Lines are cut, overwritten or run together: what is whole in one was used, the rest could not be.", "torn",
    ),
    Stat(
        "otelbridge.reader.events_dropped_by_qemu", "{event}", "data-loss",
        "Events were dropped by QEMU before they were written.", "dropped_by_qemu",
    ),
    Stat(
        "otelbridge.reader.lines_not_trace", "{line}", "notice",
        "Lines are of other programs, or QEMU's own messages.", "not_trace",
    ),
    Stat(
        "otelbridge.reader.data_unread", "By", "info", "Bytes lie in an input that have not been read yet.",
        kind="gauge", attributes=("input",),
    ),
    Stat(
        "otelbridge.reader.delay", "s", "info", "So long ago an input got what was not read yet; 0 where everything was.",
        kind="gauge", attributes=("input",),
    ),
    Stat("otelbridge.reader.files_followed", "{file}", "info", "Files are followed now.", kind="gauge"),
    Stat(
        "otelbridge.reader.file_parts_lost", "{part}", "data-loss",
        "Parts of files were cut off, overwritten or removed before they were read.",
    ),
    Stat("otelbridge.engine.events_unmapped", "{event}", "notice", "Events that no rule names were only counted.", "unmapped"),
    Stat("otelbridge.engine.ends_unmatched", "{event}", "notice", "Ends came without a begin.", "orphan_end"),
    Stat("otelbridge.engine.spans_finished", "{span}", "info", "Spans were made whose begin and end were seen."),
    Stat("otelbridge.engine.spans_incomplete", "{span}", "notice", "Spans have begun whose end was never seen."),
    Stat("otelbridge.engine.spans_not_kept", "{span}", "notice", "Spans were only counted; the slowest are kept."),
    Stat("otelbridge.engine.spans_open", "{span}", "info", "Spans have begun and wait for their end now.", kind="gauge"),
    Stat("otelbridge.engine.points_made", "{point}", "info", "Metric points were made."),
    Stat(
        "otelbridge.engine.values_left_out", "{value}", "notice",
        "Negative values were left out of counters and histograms, which take none.",
    ),
    Stat(
        "otelbridge.engine.tables_overflowed", "{overflow}", "notice",
        "Tables were full: their oldest entry made room, or what was new went without one.", attributes=("table",),
    ),
    Stat(
        "otelbridge.engine.streams_failed", "{stream}", "data-loss",
        "Streams met a bug in otelbridge: what was open in them is lost, and they began anew.",
    ),
    Stat(
        "otelbridge.engine.streams_ended", "{stream}", "info",
        "Streams have ended: their file is gone, their QEMU too, or nothing was written for `idle_timeout`.",
    ),
    Stat(
        "otelbridge.outbox.pending_bytes", "By", "info", "Requests of this size wait in the outbox.",
        kind="gauge", attributes=_WHICH_WAY,
    ),
    Stat(
        "otelbridge.outbox.pending_requests", "{request}", "info", "Requests wait in the outbox.",
        kind="gauge", attributes=_WHICH_WAY,
    ),
    Stat(
        "otelbridge.outbox.rejected_bytes", "By", "info", "Refused requests of this size are kept in the outbox.",
        kind="gauge", attributes=_WHICH_WAY,
    ),
    Stat(
        "otelbridge.outbox.memory_bytes", "By", "notice",
        "Requests and states of this size are in memory only, since the disk does not take them.", kind="gauge",
    ),
    Stat(
        "otelbridge.outbox.requests_dropped", "{request}", "data-loss",
        "Requests were dropped from a full outbox to keep newer data that would be lost otherwise.", attributes=_WHICH_WAY,
    ),
    Stat(
        "otelbridge.outbox.spans_dropped", "{span}", "data-loss",
        "Spans were in requests that were dropped from a full outbox.", attributes=_WHICH_WAY,
    ),
    Stat(
        "otelbridge.outbox.points_dropped", "{point}", "data-loss",
        "Metric points were in requests that were dropped from a full outbox.", attributes=_WHICH_WAY,
    ),
    Stat(
        "otelbridge.outbox.requests_lost", "{request}", "data-loss",
        "Requests were lost with a damaged outbox, or in memory when the service ended.", attributes=_WHICH_WAY,
    ),
    Stat(
        "otelbridge.outbox.spans_lost", "{span}", "data-loss", "Spans were in requests that were lost.", attributes=_WHICH_WAY
    ),
    Stat(
        "otelbridge.outbox.points_lost", "{point}", "data-loss", "Metric points were in requests that were lost.",
        attributes=_WHICH_WAY,
    ),
    Stat(
        "otelbridge.outbox.rejected_dropped", "{request}", "notice", "Refused requests were dropped to keep later ones.",
        attributes=_WHICH_WAY,
    ),
    Stat(
        "otelbridge.outbox.databases_set_aside", "{database}", "notice",
        "Damaged databases were set aside; what held was taken over.",
    ),
    Stat(
        "otelbridge.export.requests_sent", "{request}", "info", "Requests were sent, whatever came of it.",
        attributes=_WHICH_WAY,
    ),
    Stat(
        "otelbridge.export.requests_retried", "{request}", "notice",
        "Attempts failed in a way that may pass: the same bytes are sent again.", attributes=_WHICH_WAY,
    ),
    Stat(
        "otelbridge.export.requests_split", "{request}", "notice",
        "Requests were too large for the destination and went on in halves.", attributes=_WHICH_WAY,
    ),
    Stat(
        "otelbridge.export.spans_delivered", "{span}", "info", "Spans were accepted by the destination.",
        attributes=_WHICH_WAY,
    ),
    Stat(
        "otelbridge.export.spans_rejected", "{span}", "data-loss", "Spans were refused by the destination.",
        attributes=_WHY,
    ),
    Stat(
        "otelbridge.export.points_delivered", "{point}", "info", "Metric points were accepted by the destination.",
        attributes=_WHICH_WAY,
    ),
    Stat(
        "otelbridge.export.points_rejected", "{point}", "data-loss", "Metric points were refused by the destination.",
        attributes=_WHY,
    ),
    Stat(
        "otelbridge.export.latency", "s", "info", "Attempts took so long from the first byte sent to the answer.",
        kind="histogram", attributes=_WHICH_WAY,
    ),
    Stat("otelbridge.service.restarts", "{restart}", "info", "The service was started again on the outbox that it had."),
    Stat("otelbridge.service.reloads_done", "{reload}", "info", "Changed configurations or mappings came into force."),
    Stat(
        "otelbridge.service.reloads_refused", "{reload}", "notice",
        "Changed configurations or mappings have problems, so the old ones stayed in force.",
    ),
    Stat("otelbridge.service.uptime", "s", "info", "The service has run for so long since its start.", kind="gauge"),
    Stat("otelbridge.telemetry.exports_failed", "{export}", "notice", "Exports of these metrics were not accepted."),
    Stat(
        "otelbridge.telemetry.values_left_out", "{value}", "notice",
        "Values of gauges were left out, because their metric has as many series as it may have.",
    ),
)  # fmt: skip


def loss_of(bucket: str) -> Stat | None:
    """The loss that a bucket of the accounting counts, None where it counts none."""
    return next((stat for stat in STATS if stat.bucket == bucket and stat.severity == "data-loss"), None)


def table() -> str:
    """The rows as a Markdown table, a line for each, as the README shows it."""
    lines = ["| counter | unit | kind | severity | attributes | |", "|---|---|---|---|---|---|"]
    for stat in STATS:
        attributes = ", ".join(f"`{name}`" for name in stat.attributes)
        lines.append(f"| `{stat.name}` | `{stat.unit}` | {stat.kind} | {stat.severity} | {attributes} | {stat.text} |")
    return "\n".join(lines) + "\n"
