"""Arguments from the fields of an event as babeltrace2 prints them: `id = "ram", section_id = 1, ret = 0`.

A field has the argument's name. Integers are decimal, or hexadecimal in upper case behind `0x`; strings are in double quotes
with C's escapes; NULL strings are `(null)`, as in the log. Arguments at the end have no field where the format's conversions
are of a kind that QEMU's generator does not know (`%-8s`, `%#x`).

Source: babeltrace2's plug-in text.pretty; QEMU's scripts/tracetool/format/ust_events_h.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from otelbridge.catalogue.catalogue import Catalogue
from otelbridge.catalogue.decoder import EventDecoder
from otelbridge.catalogue.printf import Decoder, integer_reader, is_text
from otelbridge.records import Argument, EventSpec, Value

_STRING = rb'"((?:[^"\\]|\\.)*+)"'
_INTEGER = rb"(-?\d{1,20}|0[xX][0-9a-fA-F]{1,16}|0b[01]{1,64})"
_FLOAT = rb"([-+]?(?:\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|(?i:inf|nan)))"
_FLOATS = frozenset(("float", "double"))

# The generator's %[\d.]*\w+; a flag is none of these.
_KNOWN_CONVERSION = re.compile(r"%[\d.]*[A-Za-z]")
_ESCAPE = re.compile(rb"\\(x([0-9a-f]{2,8})|.)", re.DOTALL)
_CONTROL = {
    b"a": b"\a", b"b": b"\b", b"e": b"\x1b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v", b"0": b"\0",
}  # fmt: skip


class FieldDecoder(EventDecoder):
    """Decodes events from their fields; values are those that `TextDecoder` gives for the same event.

    Args:
        catalogue: The declarations.
        wanted: The arguments to give for each event, as in `Plan.rows`.
        qemu_version: One of VERSIONS where the user has told it.
    """

    def __init__(self, catalogue: Catalogue, wanted: Mapping[str, Sequence[str]], qemu_version: str | None = None) -> None:
        def form(spec: EventSpec) -> tuple[object, Decoder]:
            known = len(_KNOWN_CONVERSION.findall(spec.format.replace("%%", "")))
            fields = spec.arguments[:known]
            return fields, field_decoder(fields, wanted.get(spec.name, ()))

        super().__init__(catalogue, form, qemu_version)


def field_decoder(arguments: Sequence[Argument], wanted: Sequence[str]) -> Decoder:
    """A function from the text between the braces to the wanted arguments, in that order.

    It gives None for text that has other fields than these arguments. An argument that is not among them is None.
    """
    match = re.compile(_pattern(arguments), re.DOTALL).fullmatch
    places = {argument.name: i + 1 for i, argument in enumerate(arguments)}
    takes = [(places[name], _reader(arguments[places[name] - 1])) if name in places else None for name in wanted]

    def decode(raw: bytes) -> tuple[Value | None, ...] | None:
        found = match(raw)
        if found is None:
            return None
        return tuple([_taken(found, take) for take in takes])

    return decode


_Take = tuple[int, Callable[[bytes], Value]]


def _taken(found: re.Match[bytes], take: _Take | None) -> Value | None:
    if take is None:
        return None
    place, read = take
    return read(found[place])


def _pattern(arguments: Sequence[Argument]) -> bytes:
    """Matches the fields of these arguments."""
    fields = (re.escape(argument.name.encode()) + rb" = " + _group(argument) for argument in arguments)
    return rb"\s*+" + rb", ".join(fields) + rb"\s*+"


def _group(argument: Argument) -> bytes:
    if is_text(argument.ctype):
        return _STRING
    return _FLOAT if argument.ctype in _FLOATS else _INTEGER


def _reader(argument: Argument) -> Callable[[bytes], Value]:
    if is_text(argument.ctype):
        return _text
    return float if argument.ctype in _FLOATS else integer_reader(0, argument.ctype)


def _text(raw: bytes) -> str:
    if b"\\" in raw:
        raw = _ESCAPE.sub(_unescaped, raw)
    return raw.decode("utf-8", "surrogateescape")


def _unescaped(found: re.Match[bytes]) -> bytes:
    if found[2]:
        return bytes([int(found[2], 16) & 0xFF])
    return _CONTROL.get(found[1], found[1])
