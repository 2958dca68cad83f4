"""Arguments from babeltrace2's fields are the same values as from the text of the log."""

from __future__ import annotations

import re

import pytest

from otelbridge.catalogue import TextDecoder, builtin
from otelbridge.catalogue.catalogue import Catalogue
from otelbridge.catalogue.fields import FieldDecoder
from otelbridge.records import Argument, EventSpec


def spec(arguments: str, text: str = "", name: str = "e") -> EventSpec:
    """`const char *s, int x` -> a declaration, its format made up where none is given."""
    found = []
    for part in filter(None, arguments.split(", ")):
        ctype, _, argument = part.rpartition(" ")
        found.append(Argument(argument.lstrip("*"), ctype + "*" * argument.count("*")))
    return EventSpec(name, tuple(found), text or " ".join("%d" for _ in found))


def decoder(*specs: EventSpec) -> FieldDecoder:
    wanted = {one.name: [a.name for a in specs[0].arguments] for one in specs}
    return FieldDecoder(Catalogue({specs[0].name: specs}, ()), wanted)


@pytest.mark.parametrize(
    ("arguments", "raw", "values"),
    [
        ("const char *id, unsigned int n, int ret", 'id = "ram", n = 1, ret = -22', ("ram", 1, -22)),
        ("void *p", "p = 0x5647CAB59000", (0x5647CAB59000,)),
        ("void *p", "p = 0x0", (0,)),
        ("char **p", "p = 0xFF", (0xFF,)),
        ("int x", "x = 0xFFFFFFFF", (-1,)),
        ("uint64_t x", "x = 18446744073709551615", (2**64 - 1,)),
        ("int64_t x", "x = -9223372036854775808", (-(2**63),)),
        ("bool b", "b = 1", (1,)),
        ("double d", "d = 0.5", (0.5,)),
        ("double d", "d = -inf", (float("-inf"),)),
        ("const char *s", 's = "(null)"', ("(null)",)),
        ("const char *s", 's = ""', ("",)),
        ("const char *s, int x", r's = "hasn\'t a \"q\", x = 1 }", x = 2', ("hasn't a \"q\", x = 1 }", 2)),
        ("const char *s", r's = "\\ \? \n\t\r\a\b\e\f\v \x01\x7f"', ("\\ ? \n\t\r\a\b\x1b\f\v \x01\x7f",)),
        ("const char *s", 's = "\u00e9\udcff"', ("\u00e9\udcff",)),
        ("", "", ()),
        ("", " ", ()),
    ],
)  # fmt: skip
def test_fields_become_values(arguments: str, raw: str, values: tuple[object, ...]) -> None:
    found = decoder(spec(arguments)).decode("e", raw.encode("utf-8", "surrogateescape"))
    assert found == values
    assert [type(value) for value in found or ()] == [type(value) for value in values]


@pytest.mark.parametrize("raw", ["y = 1", "x = 1, y = 2", "x = ", 'x = "1"', "x = 1,", "x = 99999999999999999999999", "x"])
def test_fields_of_no_declaration_give_nothing(raw: str) -> None:
    assert decoder(spec("int x")).decode("e", raw.encode()) is None


def test_names_and_types_choose_the_declaration() -> None:
    """`loadvm_process_command(com, len)` had a number in com up to 6.2, and has a string from 7.0 on."""
    decode = FieldDecoder(builtin(), {"loadvm_process_command": ("s", "com", "len")})
    assert decode.decode("loadvm_process_command", b"com = 0x2, len = 4") == (None, 2, 4)
    assert decode.version_range == "3.1.0 - 6.2.0"
    later = FieldDecoder(builtin(), {"loadvm_process_command": ("s", "com", "len")})
    assert later.decode("loadvm_process_command", b's = "PING", len = 4') == ("PING", None, 4)
    assert later.version_range == "7.0.0 - 11.0-dev"
    later.restore(decode.snapshot())
    assert later.version_range == "3.1.0 - 6.2.0"


def test_arguments_whose_conversion_the_generator_does_not_know_have_no_field() -> None:
    one = decoder(spec("int a, const char *b, int c", "%d%% %-8s %#x"))
    assert one.decode("e", b"a = 1") == (1, None, None)
    assert one.decode("e", b'a = 1, b = "x", c = 3') is None


def test_every_event_gives_what_the_log_gives() -> None:
    """Printed once as fields and once as text, by each declaration of the catalogue, the values are the same."""
    catalogue, checked = builtin(), 0
    for event in sorted(catalogue.declared()):
        for one in catalogue.variants(event):
            own = Catalogue({event: (one,)}, ())
            wanted = {event: [argument.name for argument in one.arguments]}
            text = re.sub(r"%([\d.]*)(?:hh|h|ll|l|z|j|t)", r"%\1", one.format)
            fields = []
            for argument in one.arguments:
                string = "char" in argument.ctype and argument.ctype.count("*") == 1
                fields.append(f'{argument.name} = "s7"' if string else f"{argument.name} = 1")
            for conversion, value in (("%s", "s7"), ("%p", "0x1"), ("%c", "1")):
                text = text.replace(conversion, value)
            printed = (text % tuple(1 for _ in range(text.replace("%%", "").count("%")))) if "%" in text else text
            logged = TextDecoder(own, wanted).decode(event, printed.encode())
            assert logged is not None, (one, printed)
            assert FieldDecoder(own, wanted).decode(event, ", ".join(fields).encode()) == logged, one
            checked += 1
    assert checked > 400
