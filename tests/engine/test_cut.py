"""What comes out does not depend on how the input was cut into blocks."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.builders import RECORDINGS, Seen, events, run, shipped, text_of


def all_of(seen: Seen) -> tuple[object, ...]:
    """Everything that goes out, in its order, and all that is counted."""
    account = seen.accounting
    spans = (account.finished, account.incomplete, account.not_kept, account.first_ns, account.last_ns)
    return seen.spans, seen.points, dict(account.events), seen.buckets(), account.total, spans, seen.open


@pytest.mark.parametrize(
    "name",
    [
        "debian-7.2/precopy-busy/src.log",
        "debian-7.2/precopy-busy/dst.log",
        "debian-7.2/multifd/dst.log",
        "debian-7.2/cancelled/src.log",
        "debian-7.2/two-vms-one-log/src.log",
        "debian-7.2/tls-fail-stderr/src.log",
        "qemu-10.2.0-log/multifd-tls/src.log",
        "qemu-10.2.0-log/postcopy/dst.log",
        "qemu-10.2.0-log/postcopy/src.log.gz",
        "qemu-4.1.0-log/tls-ok/dst.log",
    ],
)
@pytest.mark.parametrize("cut", [7, 4096, 65536])
def test_a_real_stream_gives_the_same_in_whatever_pieces(name: str, cut: int) -> None:
    path = RECORDINGS / name
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if cut < 100:
        data = data[:40_000]
    assert all_of(run(shipped(), data, cut=cut)) == all_of(run(shipped(), data))


@given(events(), st.integers(1, 300))
def test_any_stream_gives_the_same_in_whatever_pieces(log: str, cut: int) -> None:
    data = text_of(log)
    assert all_of(run(shipped(), data, cut=cut)) == all_of(run(shipped(), data))
