"""Payloads of binary records: their layout chooses the declaration. Recorded ones: readers/test_simple_recordings.py."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelbridge.catalogue import TextDecoder, builtin, catalogue_from
from otelbridge.catalogue.binary import BinaryDecoder, ByteOrder, payload_decoder
from otelbridge.catalogue.printf import integer_type, is_text
from otelbridge.records import Argument, Value

ONES = (1 << 64) - 1


def payload(*values: int | bytes, order: ByteOrder = "little") -> bytes:
    mark = "<" if order == "little" else ">"
    return b"".join(
        struct.pack(mark + "Q", v & ONES) if isinstance(v, int) else struct.pack(mark + "I", len(v)) + v for v in values
    )


def decoded(declaration: str, raw: bytes, *names: str, order: ByteOrder = "little") -> tuple[Value | None, ...] | None:
    catalogue, declarations = catalogue_from(declaration + "\n", "t")
    event = declarations.specs[0].name
    return BinaryDecoder(catalogue, {event: names}, byteorder=order).decode(event, raw)


@pytest.mark.parametrize(
    ("ctype", "word", "value"),
    [
        ("int", -5, -5),
        ("int64_t", -5, -5),
        ("ssize_t", -5, -5),
        ("int8_t", -5, -5),
        ("long", -1, -1),
        ("uint64_t", -5, ONES - 4),
        ("size_t", 1 << 63, 1 << 63),
        ("uint32_t", 0xFFFFFFFF, 0xFFFFFFFF),
        ("uint8_t", 255, 255),
        ("bool", 1, 1),
        ("void *", 0x7F00_0000_0000, 0x7F00_0000_0000),
        ("void *", 0, 0),
        ("char **", 1 << 63, 1 << 63),
        ("hwaddr", 1 << 63, 1 << 63),
    ],
)
@pytest.mark.parametrize("order", ["little", "big"])
def test_a_word_is_read_by_its_c_type(ctype: str, word: int, value: int, order: ByteOrder) -> None:
    raw = payload(9, word, 9, order=order)
    assert decoded(f'e(int a, {ctype} x, int b) "%d %d %d"', raw, "x", order=order) == (value,)


@pytest.mark.parametrize("order", ["little", "big"])
def test_arguments_are_given_in_the_order_asked_for(order: ByteOrder) -> None:
    declaration = 'e(int a, const char *s, uint64_t b, bool c, char *t) "%d %s %lu %d %s"'
    raw = payload(-1, b"ram", 7, 1, "é".encode(), order=order)
    assert decoded(declaration, raw, "t", "b", "none", "a", "s", "c", order=order) == ("é", 7, None, -1, "ram", 1)
    assert decoded(declaration, raw, order=order) == ()


def test_null_reads_as_the_text_of_the_same_event_does() -> None:
    for raw in (b"", b"<null>"):
        assert decoded('e(const char *s) "%s"', payload(raw), "s") == ("(null)",)
    text = TextDecoder(builtin(), {"migration_tls_outgoing_handshake_start": ("hostname",)})
    assert text.decode("migration_tls_outgoing_handshake_start", b"hostname=(null)") == ("(null)",)
    event, names = "vmstate_subsection_load_bad", ("parent", "sub", "sub2")
    binary = BinaryDecoder(builtin(), {event: names}).decode(event, payload(b"virtio/64bit_features", b"(short)", b""))
    assert binary == ("virtio/64bit_features", "(short)", "")
    assert TextDecoder(builtin(), {event: names}).decode(event, b"virtio/64bit_features: (short)/") == binary


def test_a_string_of_any_bytes_is_kept() -> None:
    assert decoded('e(const char *s) "%s"', payload(b"\xff a"), "s") == ("\udcff a",)
    assert decoded('e(const char *s) "%s"', payload(b"x" * 512), "s") == ("x" * 512,)


@pytest.mark.parametrize(
    "raw",
    [
        payload(1, b"ram", 2) + b"x",
        payload(1, b"ram", 2)[:-1],
        payload(1, b"ram"),
        payload(1, b"r\0m", 2),
        payload(1, b"x" * 513, 2),
        payload(1, b"ram", 2, 3),
        b"",
        payload(1) + b"\xff\xff\xff\xff" + payload(2),
        payload(1)[:7],
    ],
)
def test_a_payload_of_another_layout_is_none(raw: bytes) -> None:
    assert decoded('e(int a, const char *s, int b) "%d %s %d"', raw, "a") is None
    assert decoded('e(int a, const char *s, int b) "%d %s %d"', raw) is None


def test_the_length_tells_the_declaration_and_so_the_version() -> None:
    wanted = {"migrate_transferred": ("transferred", "tranferred", "avail_bw", "size")}
    stream = BinaryDecoder(builtin(), wanted)
    assert stream.decode("migrate_transferred", payload(100, 5, 20, 30, 4000)) == (100, None, 30, 4000)
    assert stream.version_range == "8.2.0 - 11.0-dev"
    stream = BinaryDecoder(builtin(), wanted)
    assert stream.decode("migrate_transferred", payload(100, 5, 20, 4000)) == (100, None, None, 4000)
    assert stream.version_range == "3.1.0 - 8.1.0"


def test_of_declarations_with_one_layout_the_newest_counts_that_the_versions_allow() -> None:
    wanted = {"migrate_transferred": ("transferred", "tranferred")}
    stream = BinaryDecoder(builtin(), wanted)
    stream.saw("loadvm_postcopy_handle_run_cpu_sync")  # not in 5.0 and newer
    assert stream.decode("migrate_transferred", payload(100, 5, 20, 4000)) == (None, 100)
    assert BinaryDecoder(builtin(), wanted, "4.1.0").decode("migrate_transferred", payload(100, 5, 20, 4000)) == (None, 100)


def test_what_was_learnt_is_kept_in_a_snapshot() -> None:
    stream = BinaryDecoder(builtin(), {})
    stream.saw("calc_page_dirty_rate")
    other = BinaryDecoder(builtin(), {})
    other.restore(json.loads(json.dumps(stream.snapshot())))
    assert other.version_range == stream.version_range == "5.2.0 - 11.0-dev"


# --- any declaration --------------------------------------------------------------------------------

CTYPES = ["int", "uint8_t", "int16_t", "uint32_t", "int64_t", "uint64_t", "bool", "void *", "const char *", "char *"]


def values_of(ctype: str) -> st.SearchStrategy[int | bytes]:
    if is_text(ctype):
        return st.binary(min_size=1, max_size=12).map(lambda text: text.replace(b"\0", b"-"))
    size, signed = integer_type(ctype)
    return st.integers(-(1 << (size - 1)), (1 << (size - 1)) - 1) if signed else st.integers(0, (1 << size) - 1)


@given(data=st.data(), ctypes=st.lists(st.sampled_from(CTYPES), max_size=10), order=st.sampled_from(["little", "big"]))
def test_what_was_written_is_read_back(data: st.DataObject, ctypes: list[str], order: ByteOrder) -> None:
    arguments = tuple(Argument(f"a{i}", ctype) for i, ctype in enumerate(ctypes))
    values = [data.draw(values_of(ctype)) for ctype in ctypes]
    wanted = data.draw(st.permutations([argument.name for argument in arguments]))
    wanted = wanted[: data.draw(st.integers(0, len(wanted)))]
    raw = payload(*values, order=order)
    given_back = payload_decoder(arguments, tuple(wanted), order)(raw)
    expected = [values[int(name[1:])] for name in wanted]
    assert given_back == tuple(v.decode("utf-8", "surrogateescape") if isinstance(v, bytes) else v for v in expected)


@given(raw=st.binary(max_size=80), ctypes=st.lists(st.sampled_from(CTYPES), max_size=6))
def test_any_bytes_are_decoded_or_refused(raw: bytes, ctypes: list[str]) -> None:
    arguments = tuple(Argument(f"a{i}", ctype) for i, ctype in enumerate(ctypes))
    found = payload_decoder(arguments, tuple(argument.name for argument in arguments), "little")(raw)
    assert found is None or len(found) == len(ctypes)
