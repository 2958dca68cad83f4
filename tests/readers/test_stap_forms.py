"""What SystemTap scripts print."""

from __future__ import annotations

import pytest

from otelbridge.catalogue import TextDecoder
from otelbridge.readers.stap import looks_like, stap_reader
from otelbridge.records import WINDOW_NS, Plan
from tests.readers.traces import ALL_ROWS, CATALOGUE, NO_ROWS, Read, is_event, no_sums, read

TIME_NS = 1795408207397509000


def stap(text: str, plan: Plan = ALL_ROWS) -> Read:
    return read(stap_reader(plan, is_event, no_sums), text.encode())


@pytest.mark.parametrize(
    ("line", "thread", "raw"),
    [
        (f"23115@{TIME_NS} savevm_section_end ram, section_id 1 -> 0", None, b"ram, section_id 1 -> 0"),
        (f"23115/23166@{TIME_NS} savevm_section_end ram, section_id 1 -> 0", 23166, b"ram, section_id 1 -> 0"),
        (f"23115@{TIME_NS} savevm_state_setup ", None, b""),
        (f"23115@{TIME_NS} savevm_state_setup\r", None, b""),
        (
            f"23115@{TIME_NS} migration_set_outgoing_channel ioc=0x7f ioctype=tls hostname=<null> err=0x0",
            None,
            b"ioc=0x7f ioctype=tls hostname=(null) err=0x0",
        ),
    ],
)
def test_an_event_is_read(line: str, thread: int | None, raw: bytes) -> None:
    found = stap(line + "\n")
    assert [(r.time_ns, r.thread, r.process, r.raw) for r in found.rows] == [(TIME_NS, thread, 23115, raw)]
    assert found.units == {}
    assert looks_like(line.encode())


@pytest.mark.parametrize(
    ("line", "bucket"),
    [
        ("Running script, <Ctrl>-c to quit", "not_trace"),
        ("WARNING: Number of errors: 0, skipped probes: 3", "not_trace"),
        (f"23115@{TIME_NS} an_event_of_a_newer_qemu x=1", "unmapped"),
        (f"23115@{TIME_NS} ", "torn"),
        ("23115@17954082073975090", "torn"),
        ("23115@9223372036854775808 savevm_state_setup", "malformed"),
        ("", "not_trace"),
    ],
)
def test_other_lines_are_counted(line: str, bucket: str) -> None:
    found = stap(line + "\n")
    assert (found.rows, found.units, found.total) == ([], {bucket: 1}, 1)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        # -1 as QEMU's script prints an int, a uint64_t and a uint32_t under %x: with all 64 bits.
        ("savevm_section_end <null>, section_id 4294967295 -> -1", ("(null)", 4294967295, -1)),
        ("qemu_file_fclose ", ()),
        ("savevm_send_ping 0xffffffffffffffff", (0xFFFFFFFF,)),
        ("migration_set_incoming_channel ioc=0x0 ioctype=<null>", (0, "(null)")),
        ("migrate_send_rp_recv_bitmap block 'pc.ram' size 0x18446744073709551615", ("pc.ram", -1)),
    ],
)
def test_64_bits_of_an_integer_become_the_declared_type(text: str, values: tuple[object, ...]) -> None:
    row = stap(f"1@{TIME_NS} {text}\n").rows[0]
    names = [argument.name for argument in CATALOGUE.variants(row.event)[0].arguments]
    assert TextDecoder(CATALOGUE, {row.event: names}).decode(row.event, row.raw) == values


def test_counts_and_sums_made_in_the_kernel_are_counts_and_sums() -> None:
    """Each counted event is a unit, so that the sum of all buckets stays the total."""
    found = stap(
        f"1@{TIME_NS} otelbridge_sum ram_save_page count=4096 offset=8388608 host=-7\n"
        f"1@{TIME_NS + 1} otelbridge_sum ram_save_page count=1\n"
        f"1@{TIME_NS + WINDOW_NS} otelbridge_sum ram_save_page count=5 offset=100000000000000000000000\n",
        NO_ROWS,
    )
    assert found.counts == {"ram_save_page": 4102}
    assert found.sums == {("ram_save_page", "offset"): 8388608 + 10**23, ("ram_save_page", "host"): -7}
    assert [window[0]["ram_save_page"] for window in found.windows.values()] == [4097, 5]
    assert found.total == found.accounted == 4102


def test_what_is_left_when_bpftrace_ends_is_counted_in_the_time_before_it() -> None:
    found = stap(
        f"1/2@{TIME_NS} otelbridge_sum ram_save_page count=4096\n"
        "\n\n@ram_save_page[23115, 23166]: (17, 33223371792234)\n"
        "@ram_save_page__offset__host[23115, 7]: (2, 33223371792234, 81, -7)\n"
        "@ram_save_page__offset[1, 2]: (3, 33223371792234)\n",
        NO_ROWS,
    )
    assert found.counts == {"ram_save_page": 4096 + 17 + 2}
    assert found.sums == {("ram_save_page", "offset"): 81, ("ram_save_page", "host"): -7}
    assert len(found.windows) == 1
    assert found.units == {"not_trace": 3}, "empty lines, and one whose sums are not those that its name says"


def test_what_is_left_without_any_event_before_it_has_no_time() -> None:
    found = stap("@ram_save_page[23115, 23166]: (17, 33223371792234)\n", NO_ROWS)
    assert (found.units, found.counts) == ({"not_trace": 1}, {})


@pytest.mark.parametrize(
    ("rest", "bucket", "units"),
    [
        ("ram_save_page count=0", "not_trace", 1),
        ("ram_save_page", "malformed", 1),
        ("ram_save_page count=x", "malformed", 1),
        ("ram_save_page count=3 offset", "malformed", 1),
        ("no_such_event_at_all count=3", "unmapped", 3),
    ],
)
def test_an_aggregate_that_says_nothing_is_counted(rest: str, bucket: str, units: int) -> None:
    found = stap(f"1@{TIME_NS} otelbridge_sum {rest}\n")
    assert (found.units, found.total, found.counts) == ({bucket: units}, units, {})
