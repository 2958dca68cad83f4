"""What one attempt to send came to, and how long to wait before the next. Decides only: no clock, no randomness, no effects."""

from __future__ import annotations

from dataclasses import dataclass

INITIAL_S = 0.5
LONGEST_S = 30.0


@dataclass(frozen=True, slots=True)
class Accepted:
    """The destination took the request. It must not be sent again, whatever was rejected of it.

    Attributes:
        rejected_items: Spans or data points that the destination refused (OTLP's partial success).
        message: The destination's words. With nothing rejected they are a warning.
    """

    rejected_items: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class Retry:
    """The same bytes may be taken later; not before `after_s` seconds where the destination said so."""

    reason: str
    after_s: float | None = None


@dataclass(frozen=True, slots=True)
class TooLarge:
    """The destination will never take this request whole, but perhaps its halves."""

    reason: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """The destination will never take this request."""

    reason: str


Verdict = Accepted | Retry | TooLarge | Rejected


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter: the bound doubles with every failure up to `longest_s`.

    Source: opentelemetry-specification, protocol/exporter.md, Retry (exponential with jitter), and
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ (full jitter).
    """

    initial_s: float = INITIAL_S
    longest_s: float = LONGEST_S

    def wait_s(self, failures: int, random: float, after_s: float | None = None) -> float:
        """Seconds to wait before the next attempt.

        Args:
            failures: Failed attempts in a row, at least 1.
            random: A fresh random number in [0, 1).
            after_s: What the destination asked for. It is never undercut, and jitter of at most `initial_s` comes on top,
                so that several senders which were put off together do not come back together.
        """
        if after_s is not None:
            return max(0.0, after_s) + random * self.initial_s
        # 2.0 ** 64 outgrows any bound; more would only overflow.
        return random * min(self.longest_s, self.initial_s * 2.0 ** min(failures - 1, 64))
