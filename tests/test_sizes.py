"""Sizes and durations as people write them, and as they are written back."""

import pytest

from otelbridge.durations import duration_ns, duration_text
from otelbridge.sizes import size_bytes, size_text


@pytest.mark.parametrize(
    ("text", "size"),
    [("0B", 0), ("17B", 17), ("512KiB", 524_288), ("256MiB", 268_435_456), ("1.5GiB", 1_610_612_736), (" 2 TiB ", 2 << 40)],
)
def test_a_size_has_a_unit_of_powers_of_two(text: str, size: int) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "256", "256M", "256MB", "256mib", "-1B", "1e3B", "1.B", "MiB", "1MiB 2"])
def test_anything_else_is_no_size(text: str) -> None:
    assert size_bytes(text) is None


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0B"), (1023, "1023B"), (1024, "1KiB"), (1536, "1536B"), (268_435_456, "256MiB")]
)
def test_a_size_is_written_with_its_largest_unit(size: int, text: str) -> None:
    assert size_text(size) == text
    assert size_bytes(text) == size


@pytest.mark.parametrize(
    ("time_ns", "text"), [(0, "0s"), (1, "1ns"), (1_500_000_000, "1500ms"), (600 * 10**9, "10m"), (7200 * 10**9, "2h")]
)
def test_a_duration_is_written_with_its_largest_unit(time_ns: int, text: str) -> None:
    assert duration_text(time_ns) == text
    assert duration_ns(text) == time_ns
