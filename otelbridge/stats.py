"""What otelbridge says of itself: every counter of losses and notable things, in one table.

The losses of a conversion are worded from it, and the README's list is generated from it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Severity = Literal["data-loss", "notice", "info"]


class Stat(NamedTuple):
    """One counter.

    Attributes:
        name: `otelbridge.<room>.<noun>_<what befell it>`.
        unit: In UCUM.
        severity: `data-loss` where something is missing from the result because of it, `info` where all is well with it.
        text: One sentence, as the list in the README has it.
        bucket: The bucket of the accounting that it counts, empty for one that is no bucket.
    """

    name: str
    unit: str
    severity: Severity
    text: str
    bucket: str = ""


STATS = (
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
    Stat("otelbridge.engine.events_unmapped", "{event}", "notice", "Events that no rule names were only counted.", "unmapped"),
    Stat("otelbridge.engine.ends_unmatched", "{event}", "notice", "Ends came without a begin.", "orphan_end"),
    Stat("otelbridge.engine.spans_incomplete", "{span}", "notice", "Spans have begun whose end was never seen."),
    Stat("otelbridge.engine.spans_not_kept", "{span}", "notice", "Spans were only counted; the slowest are kept."),
    Stat("otelbridge.export.spans_rejected", "{span}", "data-loss", "Spans were refused by the destination."),
    Stat("otelbridge.export.points_rejected", "{point}", "data-loss", "Metric points were refused by the destination."),
    Stat("otelbridge.export.requests_sent", "{request}", "info", "Requests were sent, whatever came of it."),
    Stat(
        "otelbridge.export.requests_retried", "{request}", "notice",
        "Attempts failed in a way that may pass: the same bytes are sent again.",
    ),
    Stat(
        "otelbridge.export.requests_split", "{request}", "notice",
        "Requests were too large for the destination and went on in halves.",
    ),
    Stat("otelbridge.export.spans_delivered", "{span}", "info", "Spans were accepted by the destination."),
    Stat("otelbridge.export.points_delivered", "{point}", "info", "Metric points were accepted by the destination."),
    Stat("otelbridge.export.latency", "s", "info", "The last accepted request took this long."),
    Stat("otelbridge.outbox.pending_bytes", "By", "info", "Requests of this size wait in the outbox."),
    Stat("otelbridge.outbox.rejected_bytes", "By", "info", "Refused requests of this size are kept in the outbox."),
    Stat(
        "otelbridge.outbox.memory_bytes", "By", "notice",
        "Requests and states of this size are in memory only, since the disk does not take them.",
    ),
    Stat(
        "otelbridge.outbox.requests_dropped", "{request}", "data-loss",
        "Requests were dropped from a full outbox to keep newer data that would be lost otherwise.",
    ),
    Stat(
        "otelbridge.outbox.spans_dropped", "{span}", "data-loss",
        "Spans were in requests that were dropped from a full outbox.",
    ),
    Stat(
        "otelbridge.outbox.points_dropped", "{point}", "data-loss",
        "Metric points were in requests that were dropped from a full outbox.",
    ),
    Stat(
        "otelbridge.outbox.requests_lost", "{request}", "data-loss",
        "Requests were lost with a damaged outbox, or in memory when the service ended.",
    ),
    Stat("otelbridge.outbox.spans_lost", "{span}", "data-loss", "Spans were in requests that were lost."),
    Stat("otelbridge.outbox.points_lost", "{point}", "data-loss", "Metric points were in requests that were lost."),
    Stat("otelbridge.outbox.rejected_dropped", "{request}", "notice", "Refused requests were dropped to keep later ones."),
    Stat(
        "otelbridge.outbox.databases_set_aside", "{database}", "notice",
        "Damaged databases were set aside; what held was taken over.",
    ),
)  # fmt: skip


def loss_of(bucket: str) -> Stat | None:
    """The loss that a bucket of the accounting counts, None where it counts none."""
    return next((stat for stat in STATS if stat.bucket == bucket and stat.severity == "data-loss"), None)
