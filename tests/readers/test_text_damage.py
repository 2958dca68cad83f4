"""Text of any kind is read to its end or refused with a FormatError, however it is cut, and every line is accounted for."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelbridge.errors import FormatError
from otelbridge.readers.ftrace import ftrace_reader
from otelbridge.readers.ftrace import looks_like as looks_like_ftrace
from otelbridge.readers.journald import journald_reader
from otelbridge.readers.journald import looks_like as looks_like_journald
from otelbridge.readers.lines import MAX_LINE_BYTES
from otelbridge.readers.stap import looks_like as looks_like_stap
from otelbridge.readers.stap import stap_reader
from otelbridge.readers.syslog import looks_like as looks_like_syslog
from otelbridge.readers.syslog import syslog_reader
from otelbridge.readers.ust import looks_like as looks_like_ust
from otelbridge.readers.ust import ust_reader
from otelbridge.records import SECOND_NS, Plan
from tests.readers.traces import Read, Reader, cut, is_event, read

PLAN = Plan({"savevm_section_end": (), "savevm_state_setup": ()}, {"migration_rate_limit_pre": ("ms",)})
TEXTS = ("savevm_section_end ram, section_id 1 -> 0", "savevm_state_setup ", "migration_rate_limit_pre 5 ms", "ram_save_page x")
JSON = '{{"SYSLOG_PID":"23115","__REALTIME_TIMESTAMP":"179540820684328{n}","MESSAGE":"{text}","_PID":"7"}}'
EXPORT = "__CURSOR=s=ac;i=2\n__REALTIME_TIMESTAMP=17954082{n}6843289\nMESSAGE\n%s{text}\n_PID=7\n"


def sums(_event: str, raw: bytes) -> tuple[int] | None:
    return (5,) if raw == b"5 ms" else None


def dated(make: Callable[..., Reader]) -> Callable[[], Reader]:
    return lambda: make(PLAN, is_event, sums, not_after_ns=1795410000 * SECOND_NS)


def undated(make: Callable[..., Reader]) -> Callable[[], Reader]:
    return lambda: make(PLAN, is_event, sums)


READERS: dict[str, tuple[Callable[[], Reader], Callable[[bytes], bool], tuple[str, ...]]] = {
    "ftrace": (
        undated(ftrace_reader),
        looks_like_ftrace,
        (
            "     <...>-231   [000] ...1.  25{n}3.940575: tracing_mark_write: {text}",
            "CPU:1 [LOST {n} EVENTS]",
            "# entries-in-buffer/entries-written: 1/{n}",
        ),
    ),
    "syslog": (
        dated(syslog_reader),
        looks_like_syslog,
        (
            "Nov 2{n} 04:30:07 vm qemu-kvm[23115]: {text}",
            "Nov 23 04:3{n}:07.123 vm qemu-kvm[23115]: message repeated {n} times: [ {text}]",
            "2026-11-23T04:30:{n}7+00:00 vm qemu-kvm[23115]: {text}",
            '<30>1 2026-11-23T04:30:07Z vm qemu-kvm 23115 - [a b="{n}"]  {text}',
            "Nov 23 04:30:07 vm systemd-journald[1]: Suppressed {n} messages from x",
        ),
    ),
    "ust": (
        dated(ust_reader),
        looks_like_ust,
        (
            '[2026-11-23 04:{n}0:07.000000001] (+0.1) vm qemu:savevm_section_end: {{ vpid = {n} }}, {{ id = "{text}" }}',
            "[04:{n}0:07.000000001] (+0.1) vm:q:(1) qemu:ram_save_page: {{ cpu_id = {n} }}, {{ }}",
        ),
    ),
    "stap": (
        undated(stap_reader),
        looks_like_stap,
        ("1@17954082{n}7397509000 {text}", "1@17954082{n}7397509000 otelbridge_sum ram_save_page count={n} x=-{n}"),
    ),
    "journald": (undated(journald_reader), looks_like_journald, (JSON,)),
    "export": (undated(journald_reader), looks_like_journald, (EXPORT,)),
}  # fmt: skip


def trace(name: str, picks: list[tuple[int, int, int]]) -> bytes:
    """Lines of a format, by numbers."""
    forms = READERS[name][2]
    out = b""
    for form, text, n in picks:
        line = forms[form % len(forms)].format(n=n, text=TEXTS[text % len(TEXTS)])
        if name == "export":
            size = len(TEXTS[text % len(TEXTS)]).to_bytes(8, "little").decode("latin-1")
            line = line % size
        out += line.encode("latin-1") + b"\n"
    return out


PICKS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)), max_size=12)
EDITS = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 6),
        st.one_of(st.binary(max_size=4), st.sampled_from([b"\n", b"\0", b"\r", b"{", b'"', b"[", b"]", b" ", b"-", b"\xff"])),
    ),
    max_size=6,
)


def mutated(data: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    for place, cut_out, put_in in edits:
        start = int(place * (len(data) + 1))
        data = data[:start] + put_in + data[start + cut_out :]
    return data


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=150, deadline=None)
@given(picks=PICKS, edits=EDITS, size=st.integers(1, 90))
def test_damaged_text_is_accounted_for_however_it_is_cut(
    name: str, picks: list[tuple[int, int, int]], edits: list[tuple[float, int, bytes]], size: int
) -> None:
    make, looks_like, _ = READERS[name]
    data = mutated(trace(name, picks), edits)
    looks_like(data)
    with suppress(FormatError):
        whole: Read = read(make(), data)
        assert whole.accounted == whole.total
        assert read(make(), data, cut(data, size)) == whole


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300))
def test_any_bytes_at_all_are_accounted_for(name: str, data: bytes) -> None:
    make, looks_like, _ = READERS[name]
    looks_like(data)
    with suppress(FormatError):
        found = read(make(), data)
        assert found.accounted == found.total


@pytest.mark.parametrize("name", [name for name in READERS if name != "export"])
def test_a_line_is_one_unit_wherever_it_breaks(name: str) -> None:
    make, _, _ = READERS[name]
    line = trace(name, [(0, 0, 1)])
    for size in range(1, len(line)):
        found = read(make(), line + line[:size])
        assert len(found.rows) == 1
        assert found.total == found.accounted == 2, size


@pytest.mark.parametrize("name", [name for name in READERS if name != "export"])
def test_a_line_with_a_hole_is_torn(name: str) -> None:
    make, _, _ = READERS[name]
    line = trace(name, [(0, 0, 1)])
    found = read(make(), line + b"\0" * 512 + line + line)
    assert len(found.rows) == 2
    assert found.units == {"torn": 1}
    assert found.gaps == ["1 hole of 512 NUL bytes: what stood there was overwritten or never written"]


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("filler", [b"x", b" ", b"\0", b"{", b"qemu:x: { ", b'"', b"\\"])
def test_an_endless_line_takes_bounded_memory(name: str, filler: bytes) -> None:
    make, _, _ = READERS[name]
    reader = make()
    line = trace(name, [(0, 0, 1)])
    block = filler * (200_000 // len(filler))
    tracemalloc.start()
    with suppress(FormatError):
        reader.feed(line + line[:-1])
        for _ in range(40):
            reader.feed(block)
        reader.feed(b"\n\n" + line)
        _, peak = tracemalloc.get_traced_memory()
        assert peak < 12 * MAX_LINE_BYTES
        assert sum(len(batch.rows) for batch in reader.finish()) == 0
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["ftrace", "syslog", "stap"])
def test_an_overlong_event_is_malformed_however_it_is_cut(name: str) -> None:
    make, _, _ = READERS[name]
    line = trace(name, [(0, 0, 1)])
    data = line + line[:-1] + b"x" * MAX_LINE_BYTES + b"\n" + line
    whole = read(make(), data)
    assert (len(whole.rows), whole.units, whole.total) == (2, {"malformed": 1}, 3)
    assert read(make(), data, cut(data, 65_521)) == whole


@pytest.mark.parametrize("name", READERS)
def test_only_its_own_format_looks_like_it(name: str) -> None:
    data = trace(name, [(0, n, 1) for n in range(4)])
    formats = {"export": "journald"}
    looking = {other for other, (_, looks_like, _) in READERS.items() if other != "export" and looks_like(data)}
    assert looking == {formats.get(name, name)}


@pytest.mark.parametrize("name", READERS)
def test_the_text_of_the_log_backend_looks_like_none(name: str) -> None:
    _, looks_like, _ = READERS[name]
    log = b"".join(
        prefix + text.encode() + b"\n"
        for prefix in (b"", b"19625@1795407950.847563:", b"2026-11-23T04:30:01.123456Z ")
        for text in TEXTS
    )
    assert not looks_like(log)
    assert not looks_like(b"2026-11-23T04:30:01.123456Z qemu-system-x86_64: terminating on signal 15 from pid 1 (qemu[2])\n")
    assert not looks_like(b"")
