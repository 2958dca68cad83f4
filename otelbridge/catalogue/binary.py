"""Arguments from the payload of a binary record.

A string is a u32 length and so many bytes, without a NUL; anything else is one u64, sign-extended from its C type. NULL and
the empty string are both length 0. Where QEMU prints such a string it is NULL and reads `(null)`, but for some events, so that
is what is given for both. A string of exactly 512 bytes may have been cut: QEMU does not mark it, and it is given as it is.

Source: QEMU's scripts/tracetool/backend/simple.py and trace/simple.c (MAX_TRACE_STRLEN).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Literal

from otelbridge.catalogue.catalogue import Catalogue
from otelbridge.catalogue.decoder import EventDecoder
from otelbridge.catalogue.printf import Decoder, integer_type, is_text
from otelbridge.records import Argument, EventSpec

ByteOrder = Literal["little", "big"]

MAX_STRING_BYTES = 512
_STRING, _WORD = 4, 8
"""The bytes of a string's length, and of every other argument."""
_CODES = {(1, False): "B", (8, False): "B", (8, True): "b", (16, False): "H", (16, True): "h", (32, False): "I",
          (32, True): "i", (64, False): "Q", (64, True): "q"}  # fmt: skip
"""How `struct` reads a C type of so many bits, signed or not, from the low end of its u64."""
_MAY_BE_EMPTY = frozenset({"vmstate_subsection_load_bad"})
"""Events that print the empty string and never NULL: `vmstate_subsection_load_bad virtio/64bit_features: (short)/`."""
_SIZES = {"b": 1, "h": 2, "i": 4, "q": 8}


class BinaryDecoder(EventDecoder):
    """Decodes the payloads of the simple backend; values are those that `TextDecoder` gives for the same event.

    The file tells no types. A declaration fits if its arguments make up the payload's length and its strings are no longer
    than QEMU writes them and hold no NUL. Where several fit, because integers only changed their names or places, the newest
    counts that the versions allow.

    Args:
        catalogue: The declarations.
        wanted: The arguments to give for each event, as in `Plan.rows`.
        qemu_version: One of VERSIONS where the user has told it.
        byteorder: Of the host that ran QEMU; `readers.simple.byte_order` tells it.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        wanted: Mapping[str, Sequence[str]],
        qemu_version: str | None = None,
        *,
        byteorder: ByteOrder = "little",
    ) -> None:
        def form(spec: EventSpec) -> tuple[object, Decoder]:
            look = tuple((argument.name, _code(argument)) for argument in spec.arguments)
            nothing = "" if spec.name in _MAY_BE_EMPTY else "(null)"
            return look, payload_decoder(spec.arguments, tuple(wanted.get(spec.name, ())), byteorder, nothing)

        super().__init__(catalogue, form, qemu_version)


@cache
def payload_decoder(
    arguments: tuple[Argument, ...], wanted: tuple[str, ...], byteorder: ByteOrder, nothing: str = "(null)"
) -> Decoder:
    """A function from a payload to the wanted arguments, in that order; None for one that does not have this layout.

    An argument that is not declared is None. A string of no length, or SystemTap's `<null>`, is given as `nothing`.
    """
    # Compiled code for one layout and one choice of arguments: integers between two strings are read at once.
    names: dict[str, object] = {
        "nothing": nothing,
        "length": struct.Struct(("<" if byteorder == "little" else ">") + "I").unpack_from,
    }
    lines, given, fixed, place = ["size = len(raw)"], dict.fromkeys(wanted, "None"), 0, ""
    run: list[Argument] = []
    lines.append(f"if size < {_least(arguments)}: return None")
    for number, argument in enumerate((*arguments, None)):
        if argument is not None and not is_text(argument.ctype):
            run.append(argument)
            continue
        lines += _integers(run, wanted, byteorder, f"{place}{fixed}", number, names, given)
        fixed, run = fixed + _WORD * len(run), []
        if argument is None:
            break
        # The bytes before the string's text, then those that must follow it.
        start, end = f"{place}{fixed + _STRING}", f"e{number}"
        lines += [
            f"n = length(raw, {place}{fixed})[0]",
            f"{end} = {start} + n",
            f"if n > {MAX_STRING_BYTES} or {end} > size or raw.find(0, {start}, {end}) >= 0: return None",
        ]
        if argument.name in given:
            lines.append(f"s{number} = raw[{start}:{end}].decode('utf-8', 'surrogateescape')")
            given[argument.name] = f"(nothing if s{number} in ('', '<null>') else s{number})"
        place, fixed = f"{end} + ", 0
        lines.append(f"if size < {end} + {_least(arguments[number + 1 :])}: return None")
    lines.append(f"if size != {place}{fixed}: return None")
    lines.append(f"return ({''.join(given[name] + ', ' for name in wanted)})")
    source = "def decode(raw):\n" + "".join(f"    {line}\n" for line in lines)
    exec(source, names)  # noqa: S102  # the source holds numbers and names from this module alone
    decoder: Decoder = names["decode"]  # type: ignore[assignment]
    return decoder


def _least(arguments: Sequence[Argument]) -> int:
    """The bytes that these arguments have at least."""
    return sum(_STRING if is_text(argument.ctype) else _WORD for argument in arguments)


def _integers(
    run: Sequence[Argument],
    wanted: Sequence[str],
    byteorder: ByteOrder,
    place: str,
    number: int,
    names: dict[str, object],
    given: dict[str, str],
) -> list[str]:
    """Code that reads the wanted ones of some integers that stand together."""
    codes = ""
    targets: list[str] = []
    for argument in run:
        if argument.name not in wanted:
            codes += f"{_WORD}x"
            continue
        code = _code(argument)
        filling = _WORD - _SIZES[code.lower()]
        padding = f"{filling}x" if filling else ""
        codes += code + padding if byteorder == "little" else padding + code
        target = f"v{number}_{len(targets)}"
        targets.append(target)
        given[argument.name] = target
    if not targets:
        return []
    names[f"read{number}"] = struct.Struct(("<" if byteorder == "little" else ">") + codes).unpack_from
    return [f"{', '.join(targets)}, = read{number}(raw, {place})"]


def _code(argument: Argument) -> str:
    """`s` for a string, else how `struct` reads the integer."""
    return "s" if is_text(argument.ctype) else _CODES[integer_type(argument.ctype)]
