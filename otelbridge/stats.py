"""What otelbridge says of itself: every counter of losses and notable things, in one table.

The losses of a conversion are worded from it, and the README's list is generated from it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Severity = Literal["data-loss", "notice"]


class Stat(NamedTuple):
    """One counter.

    Attributes:
        name: `otelbridge.<room>.<noun>_<what befell it>`.
        unit: In UCUM.
        severity: `data-loss` where something is missing from the result because of it.
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
)  # fmt: skip


def loss_of(bucket: str) -> Stat | None:
    """The loss that a bucket of the accounting counts, None where it counts none."""
    return next((stat for stat in STATS if stat.bucket == bucket and stat.severity == "data-loss"), None)
