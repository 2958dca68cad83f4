"""Ids are derived from the stream, never random."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from otelbridge.engine.ids import _nonzero, span_id, stream_key, trace_id
from tests.engine.builders import RECORDINGS, Seen, run, shipped

PARTS = st.one_of(st.text(), st.binary())
STREAM = RECORDINGS / "debian-7.2" / "precopy-busy" / "src.log"


def ids(seen: Seen) -> list[tuple[bytes, bytes, bytes]]:
    return [(s.trace_id, s.span_id, s.parent_id) for s in seen.spans]


def test_the_same_stream_gives_the_same_ids_and_another_one_none_of_them() -> None:
    """Reading a file twice, or after a crash, gives the same spans; two files never share one."""
    data = STREAM.read_bytes()
    once, again, other = (run(shipped(), data, name=name) for name in ("a", "a", "b"))
    assert ids(once) == ids(again)
    assert len({span for _, span, _ in ids(once)}) == len(once.spans)
    assert not {span for _, span, _ in ids(once)} & {span for _, span, _ in ids(other)}
    assert not {trace for trace, _, _ in ids(once)} & {trace for trace, _, _ in ids(other)}


def test_ids_do_not_depend_on_the_process() -> None:
    """Python's own hashes differ from process to process."""
    program = "from otelbridge.engine.ids import *; print(span_id(stream_key('a', b'b'), 'rule', 7, 8).hex())"
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )
    assert out.stdout.strip() == span_id(stream_key("a", b"b"), "rule", 7, 8).hex()


@given(st.lists(PARTS, max_size=4), st.lists(PARTS, max_size=4))
def test_streams_of_different_identity_have_different_keys(one: list[str | bytes], other: list[str | bytes]) -> None:
    """Where one part ends and the next begins counts too. Text and its UTF-8 bytes are the same."""
    as_bytes = [[p.encode("utf-8", "surrogateescape") if isinstance(p, str) else p for p in parts] for parts in (one, other)]
    assert (stream_key(*one) == stream_key(*other)) == (as_bytes[0] == as_bytes[1])


@given(st.binary(min_size=16, max_size=16), st.text(max_size=20), st.integers(0, 10**9), st.integers(0, 2**63))
def test_ids_have_their_length_and_are_not_zero(stream: bytes, rule: str, number: int, start_ns: int) -> None:
    assert (len(span_id(stream, rule, number, start_ns)), len(trace_id(stream, rule, number, start_ns))) == (8, 16)
    assert any(span_id(stream, rule, number, start_ns))
    assert any(trace_id(stream, rule, number, start_ns))


def test_a_name_that_is_no_text_has_an_id_too() -> None:
    """A state's name is whatever stands in the trace."""
    assert span_id(stream_key("a"), "migration.\udcff", 7, 8) != span_id(stream_key("a"), "migration.\udcfe", 7, 8)
    seen = run(shipped(), b"1@10.000001:migrate_set_state new state setup\n1@10.000002:migrate_set_state new state \xff\n")
    assert [span.name for span in seen.spans] == ["migration.setup", "migration.\udcff", "migration"]


def test_a_digest_of_zeros_is_no_id() -> None:
    """The specification calls it invalid."""
    assert _nonzero(bytes(8)) == b"\x01" + bytes(7)
    assert _nonzero(bytes(15) + b"\x01") == bytes(15) + b"\x01"


def test_each_of_rule_number_and_time_makes_a_difference() -> None:
    stream = stream_key("a")
    assert len({span_id(stream, r, n, t) for r in "ab" for n in (1, 2) for t in (3, 4)}) == 8
