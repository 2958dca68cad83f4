"""An exponential histogram: 160 buckets over any range, the finest scale at which the values fit.

Source: opentelemetry-specification, metrics/data-model.md (ExponentialHistogram) and metrics/sdk.md (MaxSize 160, MaxScale 20).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, frexp, inf, log2
from typing import Any

from otelbridge.records import Histogram

MAX_SIZE = 160
MAX_SCALE = 20


class ExponentialHistogram:
    """Values >= 0, recorded one by one; `value()` is the state as a record."""

    __slots__ = ("buckets", "count", "low", "max", "min", "scale", "sum", "zero_count")

    def __init__(self) -> None:
        self.count = self.zero_count = 0
        self.sum = 0.0
        self.min, self.max = inf, -inf
        self.scale = MAX_SCALE
        self.low = 0
        self.buckets: list[int] = []
        """Counts from bucket `low` on; the first and the last are not zero."""

    def record(self, value: float) -> None:
        """Add one value; a negative one (clocks that step) counts as 0."""
        if value < 0.0:
            value = 0.0
        self.count += 1
        self.sum += value
        if value < self.min:
            self.min = value
        if value > self.max:
            self.max = value
        if value == 0.0:
            self.zero_count += 1
            return
        mantissa, exponent = frexp(value)
        if self.scale > 0 and mantissa != 0.5:  # noqa: PLR2004  # as `_index` does, without a call
            index = ceil((log2(mantissa) + exponent) * (1 << self.scale)) - 1
        else:
            index = _index(value, self.scale)
        place = index - self.low
        if not 0 <= place < len(self.buckets):
            place = self._room_for(value, index)
        self.buckets[place] += 1

    def _room_for(self, value: float, index: int) -> int:
        """Make room for a value outside the buckets; give the place of its bucket."""
        if not self.buckets:
            self.low, self.buckets = index, [0]
        low, high = min(self.low, index), max(self.low + len(self.buckets) - 1, index)
        if high - low >= MAX_SIZE:
            self._coarsen(low, high)
            index = _index(value, self.scale)
            low, high = min(self.low, index), max(self.low + len(self.buckets) - 1, index)
        before, after = self.low - low, high - self.low - len(self.buckets) + 1
        self.buckets = [0] * before + self.buckets + [0] * after
        self.low = low
        return index - low

    def _coarsen(self, low: int, high: int) -> None:
        """Halve the scale until `low` to `high` fit; two neighbouring buckets become one at each step."""
        shift = 0
        while (high >> shift) - (low >> shift) >= MAX_SIZE:
            shift += 1
        first = self.low >> shift
        merged = [0] * (((self.low + len(self.buckets) - 1) >> shift) - first + 1)
        for place, count in enumerate(self.buckets):
            merged[((self.low + place) >> shift) - first] += count
        self.buckets, self.low = merged, first
        self.scale -= shift

    def value(self) -> Histogram:
        """The state; `min` and `max` are 0 where nothing was recorded."""
        low, high = (self.min, self.max) if self.count else (0.0, 0.0)
        offset = self.low if self.buckets else 0
        return Histogram(self.count, self.sum, low, high, self.scale, self.zero_count, offset, tuple(self.buckets))

    def snapshot(self) -> dict[str, Any]:
        """The state as plain data."""
        value = self.value()
        return value._asdict() | {"buckets": list(value.buckets)}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> ExponentialHistogram:
        """The histogram that `snapshot` described."""
        self = cls()
        self.count, self.sum, self.scale, self.zero_count = state["count"], state["sum"], state["scale"], state["zero_count"]
        if self.count:
            self.min, self.max = state["min"], state["max"]
        self.low, self.buckets = state["offset"], list(state["buckets"])
        return self


def _index(value: float, scale: int) -> int:
    """The bucket of `value`: the i with base**i < value <= base**(i+1)."""
    mantissa, exponent = frexp(value)
    if scale <= 0:
        # The upper bound belongs to the bucket, so an exact power of two lies one lower.
        return (exponent - 1 - (mantissa == 0.5)) >> -scale  # noqa: PLR2004
    if mantissa == 0.5:  # noqa: PLR2004 - exact powers of two must not depend on the rounding of a logarithm
        return ((exponent - 1) << scale) - 1
    return ceil((log2(mantissa) + exponent) * (1 << scale)) - 1
