import pytest

from otelbridge.otlp.retry import Backoff


@pytest.mark.parametrize(("failures", "bound_s"), [(1, 0.5), (2, 1.0), (3, 2.0), (6, 16.0), (7, 30.0), (8, 30.0), (5000, 30.0)])
def test_bound_doubles_up_to_half_a_minute(failures: int, bound_s: float) -> None:
    assert Backoff().wait_s(failures, 0.5) == bound_s / 2


def test_jitter_is_full() -> None:
    """Between nothing and the bound, so that many senders spread evenly."""
    waits = [Backoff().wait_s(4, i / 100) for i in range(100)]
    assert waits[0] == 0
    assert waits[99] == pytest.approx(3.96)


@pytest.mark.parametrize("random", [0.0, 0.5, 0.999])
def test_what_the_destination_asks_for_is_never_undercut(random: float) -> None:
    assert 7.0 <= Backoff().wait_s(1, random, after_s=7.0) <= 7.5
    assert 120.0 <= Backoff().wait_s(1, random, after_s=120.0) <= 120.5


def test_a_wait_of_nothing_is_honoured_with_jitter() -> None:
    assert Backoff().wait_s(9, 0.0, after_s=0.0) == 0.0
    assert Backoff().wait_s(9, 0.9, after_s=0.0) <= 0.5


def test_a_negative_wait_is_none() -> None:
    assert Backoff().wait_s(1, 0.0, after_s=-3.0) == 0.0
