"""printf turned round: from the text that a format printed back to the arguments.

Source: the conversions of printf(3); how QEMU's formats use them, and which of them cannot be told apart afterwards, was
measured against the binary records of the same runs: a greedy `%s`, anchored on the whole line, gives the right arguments.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

from otelbridge.records import Argument, EventSpec, Value

Decoder = Callable[[bytes], "tuple[Value | None, ...] | None"]

# %s  %d  %02x  %-8s  %#lx  %.8x  %016lx  %*d is not used
_CONVERSION = re.compile(
    r"%(?:(?P<percent>%)|(?P<flags>[-+ #0]*)(?P<width>\d*)(?:\.\d*)?(?:hh|h|ll|l|j|z|t|L|q)?(?P<letter>[diouxXpscfFeEgGaA]))"
)
_DECIMAL, _HEX, _OCTAL = rb"-?\d{1,20}", rb"[0-9a-fA-F]{1,16}", rb"[0-7]{1,22}"
_FLOAT = rb"[-+ ]?(?:\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|(?i:inf|nan))"

# `cpu/cpu/poll_control_msr` is the subsection `cpu/poll_control_msr` of `cpu`: here the first %s ends as early as it can.
_FIRST_SHORTEST = frozenset({"vmstate_subsection_save_loop"})

_SIZES = {
    "bool": 1, "char": 8, "signed char": 8, "unsigned char": 8, "uint8_t": 8, "int8_t": 8, "uint16_t": 16, "int16_t": 16,
    "unsigned short": 16, "short": 16, "int": 32, "unsigned": 32, "unsigned int": 32, "uint32_t": 32, "int32_t": 32,
}  # fmt: skip
_UNSIGNED = re.compile(r"unsigned|uint|\bsize_t|hwaddr|ram_addr_t|uintptr|dma_addr_t|vaddr|bool|\*")


_MAX_NAMES_BYTES = 1 << 12
"""Two strings next to each other are names, and short. Looking for the place between them in a long text costs its square."""


class Conversion(NamedTuple):
    """One `%…` of a format with the argument that it prints."""

    letter: str
    argument: Argument


def is_text(ctype: str) -> bool:
    """Whether an argument of this C type is a string."""
    return ctype.replace("const ", "").replace(" ", "") in ("char*", "signedchar*", "unsignedchar*") and "**" not in ctype


class TextForm(NamedTuple):
    """How the text of an event looks: declarations that print the same text in the same way have equal forms.

    Attributes:
        pattern: Matches the whole text after the event's name and one blank; a group for each argument.
        conversions: What the groups hold.
    """

    pattern: bytes
    conversions: tuple[Conversion, ...]

    def decoder(self, wanted: Sequence[str]) -> Decoder:
        """A function from the text to the wanted arguments, in that order.

        It gives None for a text that the format cannot have printed, and where several strings share more than 4 KiB.
        An argument that the declaration does not have is None.
        """
        return _decoder(self, tuple(wanted))


def text_form(spec: EventSpec) -> TextForm:
    """The form of an event's text. Conversions beyond the declared arguments, which QEMU's build refuses, match nothing."""
    pattern, place = b"", 0
    conversions: list[Conversion] = []
    arguments = iter(spec.arguments)
    shortest = spec.name in _FIRST_SHORTEST
    for found in _CONVERSION.finditer(spec.format):
        pattern += _literal(spec.format[place : found.start()])
        place = found.end()
        if found["percent"]:
            pattern += b"%"
            continue
        argument = next(arguments, Argument("", "int"))
        pattern += _group(found, shortest=shortest and not conversions)
        conversions.append(Conversion(found["letter"], argument))
    pattern += _literal(spec.format[place:])
    # Editors, journald and log shippers cut blanks off the end of a line.
    while pattern.endswith(rb"\ "):
        pattern = pattern[: -len(rb"\ ")]
    return TextForm(pattern + rb"[ \t]*", tuple(conversions))


def _literal(text: str) -> bytes:
    return re.escape(text.encode())


def _group(found: re.Match[str], *, shortest: bool) -> bytes:
    """The pattern of one conversion, its value in a group."""
    letter, flags = found["letter"], found["flags"]
    padding = rb" *" if found["width"] and "0" not in flags else b""
    if letter in "diu":
        value = rb"[+ ]?" + _DECIMAL if "+" in flags or " " in flags else _DECIMAL
    elif letter in "xX":
        value = rb"(?:0[xX])?" + _HEX if "#" in flags else _HEX
    elif letter == "o":
        value = _OCTAL
    elif letter == "p":
        # (nil) is glibc's NULL, <null> and 0x0 are SystemTap's.
        value = rb"0x" + _HEX + rb"|\(nil\)|<null>"
    elif letter == "c":
        value = rb"."
    elif letter == "s":
        # The blanks that fill up %-8s are not the string's.
        value = rb".*?" if shortest else rb"(?:.*[^ ])?" if "-" in flags else rb".*"
    else:
        value = _FLOAT
    after = padding if "-" in flags else b""
    return (b"" if after else padding) + rb"(" + value + rb")" + after


# --- values -----------------------------------------------------------------------------------------


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _pointer(raw: bytes) -> int:
    return int(raw, 16) if raw.startswith(b"0x") else 0


def integer_type(ctype: str) -> tuple[int, bool]:
    """The width of a C integer or pointer in bits (1 for a bool), and whether it is signed."""
    return _SIZES.get(ctype, 64), not _UNSIGNED.search(ctype)


@cache
def integer_reader(base: int, ctype: str) -> Callable[[bytes], int]:
    """Reads digits in that base and casts them to the C type, as `%d` prints a large uint64_t negative.

    With base 0 the digits tell it themselves (`0x1F`).
    """
    size, signed = integer_type(ctype)
    low, high = (-(1 << (size - 1)), (1 << (size - 1)) - 1) if signed else (0, (1 << size) - 1)
    modulus = 1 << size

    def read(raw: bytes) -> int:
        value = int(raw, base)
        if not low <= value <= high:
            value = (value - low) % modulus + low
        return value

    return read


def _reader(conversion: Conversion) -> Callable[[bytes], Value]:
    letter, argument = conversion
    if letter in "sc":
        return _text
    if letter == "p":
        return _pointer
    if letter in "diouxX":
        return integer_reader({"x": 16, "X": 16, "o": 8}.get(letter, 10), argument.ctype)
    return float


@cache
def _decoder(form: TextForm, wanted: tuple[str, ...]) -> Decoder:
    """Compiled code for one format and one choice of arguments: half the cost of a loop over readers."""
    places = {c.argument.name: i for i, c in enumerate(form.conversions)}
    match = re.compile(form.pattern, re.DOTALL).fullmatch
    names: dict[str, object] = {"match": match}
    values = []
    for name in wanted:
        if name in places:
            place = places[name]
            names[f"read{place}"] = _reader(form.conversions[place])
            values.append(f"read{place}(found[{place + 1}])")
        else:
            values.append("None")
    tail = "," if len(values) == 1 else ""
    strings = sum(c.letter == "s" for c in form.conversions)
    short = f"len(raw) <= {_MAX_NAMES_BYTES} and " if strings > 1 else ""
    source = f"lambda raw: ({', '.join(values)}{tail}) if {short}(found := match(raw)) is not None else None"
    decoder: Decoder = eval(source, names)  # noqa: S307  # the source holds numbers and names from this function alone
    return decoder
