"""The USDT probes that a program declares in its ELF section `.note.stapsdt`.

Source: the gABI's ELF header, section headers and notes, and SystemTap's description of its notes
(https://sourceware.org/systemtap/wiki/UserSpaceProbeImplementation): owner `stapsdt`, type 3, three addresses, then provider,
name and arguments, each ended by a NUL. An argument is its size in bytes, negative where it is signed, `@` and its place.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

_SECTION, _OWNER, _TYPE = b".note.stapsdt", b"stapsdt", 3
_ADDRESSES = 3 * 8
_CLASS_64 = 2
_ORDERS = {1: "<", 2: ">"}
# -4@%eax 8@8(%rsp)   4@[sp, 12]
_SIZE = re.compile(rb"(?:^| )(-?\d+)f?@")


class NotesError(ValueError):
    """The bytes are no 64-bit ELF file that can be read; the text says why."""


def sdt_probes(data: bytes, provider: str) -> dict[str, tuple[tuple[int, ...], ...]]:
    """The probes of one provider by name, each with the different argument sizes (in bytes) of its places in the program.

    Raises:
        NotesError: It is no 64-bit ELF file, or is cut.
    """
    found: dict[str, dict[tuple[int, ...], None]] = {}
    try:
        for one, name, arguments in _descriptions(data):
            if one == provider.encode():
                sizes = tuple(abs(int(size)) for size in _SIZE.findall(arguments))
                found.setdefault(name.decode("ascii", "replace"), {})[sizes] = None
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        if isinstance(error, NotesError):
            raise
        raise NotesError("its ELF headers or notes are cut or damaged") from None
    return {name: tuple(sizes) for name, sizes in found.items()}


def _descriptions(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    if data[:4] != b"\x7fELF":
        raise NotesError("it is no ELF program")
    if data[4] != _CLASS_64 or data[5] not in _ORDERS:
        raise NotesError("it is no 64-bit program")
    order = _ORDERS[data[5]]
    for section in _sections(data, order):
        place = 0
        while place < len(section):
            name_size, size, kind = struct.unpack_from(order + "III", section, place)
            start = place + 12 + _padded(name_size)
            owner = section[place + 12 : place + 12 + name_size].rstrip(b"\0")
            if owner == _OWNER and kind == _TYPE:
                provider, name, arguments, *_ = section[start + _ADDRESSES : start + size].split(b"\0")
                yield provider, name, arguments
            place = start + _padded(size)


def _sections(data: bytes, order: str) -> Iterator[bytes]:
    """What the note sections hold."""
    (table,) = struct.unpack_from(order + "Q", data, 0x28)
    each, number, names = struct.unpack_from(order + "HHH", data, 0x3A)
    heads = [struct.unpack_from(order + "IIQQQQ", data, table + i * each) for i in range(number)]
    if not heads:
        return
    titles = heads[names][4]
    for title, _, _, _, offset, size in heads:
        start = titles + title
        if data[start : data.index(b"\0", start)] == _SECTION:
            yield data[offset : offset + size]


def _padded(size: int) -> int:
    return (size + 3) & ~3
