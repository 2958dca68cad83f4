"""printf turned round: what libc's own printf makes of arguments is read back as those arguments."""

from __future__ import annotations

import ctypes
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from otelbridge.catalogue import builtin
from otelbridge.catalogue.printf import is_text, text_form
from otelbridge.records import Argument, EventSpec, Value

U64 = (1 << 64) - 1


def spec(declared: str, text: str, name: str = "e") -> EventSpec:
    """An event with arguments as in `int a, const char *s`."""
    parts = (part.strip().rpartition(" ") for part in declared.split(",") if part.strip())
    return EventSpec(name, tuple(Argument(last.strip("*"), ctype + " *" * last.count("*")) for ctype, _, last in parts), text)


def decoded(event: EventSpec, raw: bytes) -> tuple[Value | None, ...] | None:
    """All arguments of an event, from its text."""
    return text_form(event).decoder([argument.name for argument in event.arguments])(raw)


# --- the table --------------------------------------------------------------------------------------

PRINTED = [
    # QEMU's own slip: %u and the letter d
    ("const char *id, uint16_t len", "%s: %ud", b"pc.ram: 32d", ("pc.ram", 32)),
    # decimal digits behind 0x
    ("char *name, int64_t size", "block '%s' size 0x%li", b"block 'pc.ram' size 0x4104", ("pc.ram", 4104)),
    # hex without 0x
    ("const char *n, uint64_t start, size_t len", "%s: %lx %zx", b"pc.ram: 1f000 1000", ("pc.ram", 0x1F000, 0x1000)),
    ("size_t n", "%zd", b"17", (17,)),
    ("size_t n", "%zd", b"-1", (U64,)),
    ("ssize_t n", "%zd", b"-1", (-1,)),
    ("ssize_t n", "ret=%zd", b"ret=4096", (4096,)),
    ("uint64_t n", "%ld", b"-1", (U64,)),
    ("uint64_t n", "%ld", b"-9223372036854775808", (1 << 63,)),
    ("uint64_t n", "max_size %ld", b"max_size 5", (5,)),
    ("uint32_t n", "instance_id=%d", b"instance_id=-1", (0xFFFFFFFF,)),
    ("unsigned int n", "%d", b"-2", (0xFFFFFFFE,)),
    ("uint16_t n", "len=%d", b"len=65535", (65535,)),
    ("int n", "%u", b"4294967295", (-1,)),
    ("int n", "%x", b"ffffffff", (-1,)),
    ("int64_t n", "0x%lx", b"0xffffffffffffffff", (-1,)),
    ("int64_t n", "%ld", b"-9223372036854775808", (-(1 << 63),)),
    ("long n", "%ld", b"-5", (-5,)),
    ("bool b", "%d", b"1", (1,)),
    ("void *p", "ioc=%p", b"ioc=0x55660c0de000", (0x55660C0DE000,)),
    ("void *p", "err=%p", b"err=(nil)", (0,)),
    ("void *p", "err=%p", b"err=0x0", (0,)),
    ("void *p", "err=%p", b"err=<null>", (0,)),
    ("const char *s", "in %s at", b"in (null) at", ("(null)",)),
    ("const char *s, int n", "%s: %d", b": 3", ("", 3)),
    ("const char *s", "new state %s", b"new state setup", ("setup",)),
    ("const char *s", "error=%s", b"error=Unable to write: Broken pipe: x=1, y", ("Unable to write: Broken pipe: x=1, y",)),
    ("const char *s", "error=%s", b"error=one\ntwo", ("one\ntwo",)),
    ("const char *s", "%s", "größe".encode(), ("größe",)),
    ("const char *s", "%s", b"\xff", ("\udcff",)),
    ("unsigned char c", "%02x", b"0a", (10,)),
    ("uint64_t a", "0x%016lx", b"0x00000000000fe000", (0xFE000,)),
    ("int a", "%.8x", b"0000002a", (42,)),
    ("int a", "%2.2x", b"07", (7,)),
    ("int a", "%8.8x|", b"0000002a|", (42,)),
    ("int a", "%3d|", b" -5|", (-5,)),
    ("int a", "%-6d|", b"42    |", (42,)),
    ("int a", "%+d", b"+7", (7,)),
    ("int a", "%#x", b"0x1f", (31,)),
    ("int a", "%#x", b"0", (0,)),
    ("int a", "%X", b"FF", (255,)),
    ("int a", "%o", b"17", (15,)),
    ("int a", "%i", b"-3", (-3,)),
    ("const char *s", "[%20s]", b"[               short]", ("short",)),
    ("const char *s", "[%-8s]", b"[abc     ]", ("abc",)),
    ("const char *s, int n", "%-8s %d", b"a b      3", ("a b", 3)),
    ("const char *s", "[%-8s]", b"[        ]", ("",)),
    ("char c", "'%c'", b"'x'", ("x",)),
    ("double f", "%f s", b"1.500000 s", (1.5,)),
    ("double f", "%g", b"-1e-05", (-1e-05,)),
    ("int a", "throttled by %d%%", b"throttled by 20%", (20,)),
    ("", "100%% sure", b"100% sure", ()),
    ("", "", b"", ()),
    # editors and journald cut the blank that ends an event without arguments, or a format
    ("int a", "%d ", b"5", (5,)),
    ("int a", "%d  ", b"5", (5,)),
    ("int a", "%d ", b"5 ", (5,)),
    # greedy: the last separator counts
    ("const char *a, const char *b, int n", "%s/%s[%d]", b"cpu/env/regs[3]", ("cpu/env", "regs", 3)),
    ("const char *a, const char *b", "%s%s", b"ab", ("ab", "")),
    ("const char *a, int n", "%s%d", b"x12", ("x1", 2)),
]  # fmt: skip


@pytest.mark.parametrize(("declared", "text", "raw", "expected"), PRINTED)
def test_a_printed_text_gives_its_arguments(declared: str, text: str, raw: bytes, expected: tuple[Value, ...]) -> None:
    assert decoded(spec(declared, text), raw) == expected


@pytest.mark.parametrize(
    ("declared", "text", "raw"),
    [
        ("const char *s", "new state %s", b"old state setup"),
        ("int n", "%d ms", b"5 ms and more"),
        ("int n", "%d", b""),
        ("int n", "%d", b"0x5"),
        ("int n", "%d", b"5 5"),
        ("int n", "%x", b"fg"),
        ("uint64_t n", "%lu", b"123456789012345678901"),
        ("void *p", "%p", b"1234"),
        ("double f", "%f", b"1.2.3"),
        ("double f", "%f", b"."),
        ("", "", b"text"),
    ],
)
def test_a_text_that_the_format_cannot_have_printed_gives_nothing(declared: str, text: str, raw: bytes) -> None:
    assert decoded(spec(declared, text), raw) is None


def test_the_subsection_of_a_device_is_split_at_the_first_slash() -> None:
    event = builtin().variants("vmstate_subsection_save_loop")[0]
    assert decoded(event, b"cpu/cpu/poll_control_msr") == ("cpu", "cpu/poll_control_msr")


def test_arguments_come_in_the_order_wanted_and_one_that_is_not_declared_is_none() -> None:
    form = text_form(spec("const char *id, unsigned int section_id, int ret", "%s, section_id %u -> %d"))
    assert form.decoder(["ret", "no_such", "id"])(b"ram, section_id 2 -> 1") == (1, None, "ram")
    assert form.decoder(["id"])(b"ram, section_id 2 -> 1") == ("ram",)
    assert form.decoder([])(b"ram, section_id 2 -> 1") == ()
    assert form.decoder([])(b"something else") is None


def test_declarations_that_print_alike_have_equal_forms() -> None:
    assert text_form(spec("int a", "%d ms")) == text_form(spec("int a", "%d ms"))
    assert text_form(spec("int a", "%d ms")) != text_form(spec("int a", "%d us"))


@pytest.mark.parametrize(
    ("ctype", "expected"),
    [("const char *", True), ("char *", True), ("char*", True), ("const char * *", False), ("void *", False), ("char", False)],
)
def test_a_string_is_told_by_its_c_type(ctype: str, expected: bool) -> None:
    assert is_text(ctype) is expected


# --- print, then decode -----------------------------------------------------------------------------

TWO_STRINGS = frozenset({
    "colo_vm_state_change", "get_gtree", "get_gtree_end", "get_qlist", "get_qlist_end", "get_qtailq_end",
    "migration_set_outgoing_channel", "multifd_set_outgoing_channel", "postcopy_request_shared_page",
    "postcopy_request_shared_page_present", "put_gtree", "put_gtree_end", "put_qlist", "put_qlist_end", "put_qtailq_end",
    "qemu_rdma_advise_mr", "qemu_rdma_block_for_wrid_miss", "qemu_rdma_dest_init_trying", "qemu_rdma_dump_gid",
    "qemu_rdma_dump_id", "qemu_rdma_resolve_host_trying", "vmstate_downtime_load", "vmstate_downtime_save",
    "vmstate_field_exists", "vmstate_load", "vmstate_load_state_end", "vmstate_load_state_field", "vmstate_save",
    "vmstate_save_state_loop", "vmstate_subsection_load_bad", "vmstate_subsection_save_loop",
})  # fmt: skip
"""The ambiguous events: each %s may hold what stands between them. They are tried with names of devices and files alone."""

RANGES = {
    "bool": (0, 1), "uint8_t": (0, (1 << 8) - 1), "uint16_t": (0, (1 << 16) - 1), "uint32_t": (0, (1 << 32) - 1),
    "unsigned": (0, (1 << 32) - 1), "unsigned int": (0, (1 << 32) - 1), "int": (-(1 << 31), (1 << 31) - 1),
    "uint64_t": (0, U64), "size_t": (0, U64), "unsigned long": (0, U64), "void *": (0, U64),
    "int64_t": (-(1 << 63), (1 << 63) - 1), "long": (-(1 << 63), (1 << 63) - 1),
}  # fmt: skip
CONVERSION = re.compile(r"%(hh|l|z|)([diuxsp])")
ANY_TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=12)
PLAIN_TEXT = st.text("abcxyz0189_.-", min_size=1, max_size=12)

VARIANTS = [
    pytest.param(event, id=f"{event.name}-{event.first}")
    for name in sorted(builtin().declared())
    for event in builtin().variants(name)
    if event.arguments
]


def libc_printed(text: str, values: list[int | str]) -> bytes:
    """What this machine's printf prints."""
    buffer = ctypes.create_string_buffer(8192)
    given_values = [
        ctypes.c_char_p(value.encode()) if isinstance(value, str) else ctypes.c_uint64(value & U64) for value in values
    ]
    length = ctypes.CDLL(None).snprintf(buffer, ctypes.c_size_t(len(buffer)), text.encode(), *given_values)
    assert 0 <= length < len(buffer)
    return buffer.raw[:length]


def values_of(argument: Argument, texts: st.SearchStrategy[str]) -> st.SearchStrategy[int] | st.SearchStrategy[str]:
    if is_text(argument.ctype):
        return texts
    return st.integers(*RANGES[argument.ctype])


@pytest.mark.parametrize("event", VARIANTS)
def test_what_printf_prints_is_read_back(event: EventSpec) -> None:
    """For each declaration of each built-in event; the ambiguous ones with plain names."""
    texts = PLAIN_TEXT if event.name in TWO_STRINGS else ANY_TEXT

    @settings(max_examples=25, deadline=None)
    @given(st.tuples(*(values_of(argument, texts) for argument in event.arguments)))
    def prints_and_decodes(values: tuple[int | str, ...]) -> None:
        assert decoded(event, libc_printed(event.format, list(values))) == values

    prints_and_decodes()


def test_the_ambiguous_events_are_those_with_two_strings_and_no_others() -> None:
    found = {
        event.name
        for name in builtin().declared()
        for event in builtin().variants(name)
        if sum(letter == "s" for _, letter in CONVERSION.findall(event.format)) > 1
    }
    assert found == TWO_STRINGS


def test_a_long_text_under_several_strings_is_given_up_and_not_searched_for_minutes() -> None:
    event = builtin().variants("vmstate_load_state_end")[0]
    assert decoded(event, b"/ " * (1 << 19)) is None
    long_error = "x" * 100_000
    assert decoded(spec("const char *s", "error=%s"), b"error=" + long_error.encode()) == (long_error,)


@given(st.binary(max_size=60), st.sampled_from(VARIANTS))
@example(b"(nil)", VARIANTS[0])
def test_any_bytes_decode_or_do_not_but_never_fail(raw: bytes, parameter: object) -> None:
    (event,) = parameter.values  # type: ignore[attr-defined]
    found = decoded(event, raw)
    assert found is None or len(found) == len(event.arguments)
