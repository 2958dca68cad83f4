"""QEMU's `trace-events` files: what is declared in them, and what is not a declaration.

Source: https://www.qemu.org/docs/master/devel/tracing.html, "Trace event declaration"; scripts/tracetool/__init__.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from otelbridge.errors import CatalogueError, Location, Problem
from otelbridge.records import Argument, EventSpec

# savevm_section_end(const char *id, unsigned int section_id, int ret) "%s, section_id %u -> %d"
# disable block_ram_migration_done(void) ""
# tcg guest_mem_before(TCGv vaddr, uint16_t info) "info=%d", "vaddr=0x%016"PRIx64" info=%d"
_DECLARATION = re.compile(
    r"(?P<properties>(?:(?:disable|vcpu|tcg) +)*)(?P<name>[A-Za-z_]\w*) *\((?P<arguments>[^)]*)\) *(?P<formats>.*)"
)
_OPENING = re.compile(r"(?:(?:disable|vcpu|tcg) +)*[A-Za-z_]\w* *\(\s*(?:void\b|(?:const |unsigned |struct )*\w+[ *])")
_PIECE = re.compile(
    r'\s*(?:"(?P<text>(?:[^"\\]|\\.)*)"|(?P<macro>PRI(?P<conversion>[dioxXu])(?P<width>8|16|32|64|PTR|MAX))|(?P<address>TARGET_FMT_plx))'
)
_ESCAPE = re.compile(r"\\([\"'\\?abfnrtv]|[0-7]{1,3}|x[0-9a-fA-F]+)")
_ARGUMENT = re.compile(r"(?P<ctype>.*?[\s*])(?P<name>[A-Za-z_]\w*)$")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")
#    42  migrate_set_state(…    migration/trace-events:173:migrate_set_state(…    │ migrate_set_state(…    > migrate_set_state(…
_MARGIN = re.compile(r"^[\s>+|│]*(?:[\w./-]*trace-events[\w.-]*:)?(?:\d+(?:[\s:|│]+|$))?[\s>+|│]*")
_ADDRESS = "%016lx"
_LENGTH = {"8": "hh", "16": "h", "32": "", "64": "l", "PTR": "l", "MAX": "j"}
_SIMPLE_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_MAX_ARGUMENTS = 10
_JOINED_LINES = 4
"""A terminal may have broken a declaration into so many lines."""


class Skipped(NamedTuple):
    """A line that is neither a declaration nor a comment."""

    line: int
    text: str


class Declarations(NamedTuple):
    """What a file declares, in its order, and what was skipped."""

    specs: tuple[EventSpec, ...]
    skipped: tuple[Skipped, ...]

    @property
    def numbers(self) -> dict[int, str]:
        """Events by their place among all of the file, `disable`d ones counted: what `simpletrace.stp` writes for their names.

        They are right only for a whole trace-events-all of which nothing was skipped.
        """
        return {number: spec.name for number, spec in enumerate(self.specs)}


def parse_trace_events(text: str, path: str) -> Declarations:
    """The declarations in a trace-events file, or in a copy of one with noise around it: a web page, a terminal, line numbers.

    A declaration that a terminal has broken into several lines is put together again. `skipped` has every line that is not
    understood.

    Raises:
        CatalogueError: Not one declaration is in the text.
    """
    raw = [_plain(line) for line in text.splitlines()]
    lines = [_clean(line) for line in raw]
    edge = _edge(raw, lines)
    specs: list[EventSpec] = []
    skipped: list[Skipped] = []
    number = 0
    while number < len(lines):
        line = lines[number]
        if not line or line.startswith("#"):
            number += 1
            continue
        found, used = _declared(lines, number, raw if edge else lines, "" if edge else " ")
        if found:
            specs += found
        else:
            skipped.append(Skipped(number + 1, line))
        number += used
    if not specs:
        first = skipped[0] if skipped else Skipped(1, "")
        raise CatalogueError([
            Problem(
                Location(path, first.line, 1, max(1, min(len(first.text), 60))),
                "no trace event is declared in this file",
                'each line should look like: migrate_set_state(const char *new_state) "new state %s"',
                first.text[:200],
            )
        ])  # fmt: skip
    return Declarations(tuple(specs), tuple(skipped))


def _plain(line: str) -> str:
    """The line without colours and entities."""
    line = _ANSI.sub("", line)
    if "&" in line:
        from html import unescape  # noqa: PLC0415  # only for a page with markup

        line = unescape(line)
    return line.replace("\u00a0", " ")


def _edge(raw: list[str], lines: list[str]) -> bool:
    """Whether the edge of a terminal broke the lines, in mid-word: then those that are broken are the longest of all."""
    broken = [len(line) for line, bare in zip(raw, lines, strict=True) if _OPENING.match(bare) and not any(_events(bare))]
    return len(broken) > 1 and max(broken) - min(broken) <= 1 and max(broken) == max(map(len, raw))


def _clean(line: str) -> str:
    """The line without what a page or a listing put around it."""
    stripped = line.strip()
    if stripped.startswith("#"):
        return stripped
    bare = stripped[len(_MARGIN.match(stripped)[0]) :]  # type: ignore[index]
    return bare.strip()


def _declared(lines: list[str], number: int, following: list[str], blank: str) -> tuple[list[EventSpec], int]:
    """The events declared from this line on, and how many lines they took.

    Args:
        lines: The bare lines.
        number: Where to begin.
        following: The lines as they continue a broken one.
        blank: What stood where it was broken.
    """
    if not _OPENING.match(lines[number]):
        return list(_events(lines[number])), 1
    text = following[number]
    for used in range(1, _JOINED_LINES + 1):
        if found := list(_events(_clean(text))):
            return found, used
        if number + used >= len(lines) or not lines[number + used] or _OPENING.match(lines[number + used]):
            break
        text += following[number + used] if text.endswith(("(", "_")) else blank + following[number + used]
    # The format may be left out: dbus_vmstate_pre_save(void)
    return list(_events(lines[number] + ' ""')), 1


def _events(text: str) -> Iterator[EventSpec]:
    found = _DECLARATION.fullmatch(text)
    if found is None:
        return
    properties, name = found["properties"].split(), found["name"]
    arguments, formats = _arguments(found["arguments"]), _formats(found["formats"])
    if arguments is None or not formats:
        return
    if "vcpu" in properties:
        arguments = (Argument("__cpu", "void *"), *arguments)
        formats = ["cpu=%p " + text for text in formats]
    if "tcg" not in properties:
        yield EventSpec(name, arguments, formats[0])
    elif len(formats) == len(("trans", "exec")):
        yield EventSpec(f"{name}_trans", arguments, formats[0])
        yield EventSpec(f"{name}_exec", arguments, formats[1])


def _arguments(text: str) -> tuple[Argument, ...] | None:
    if text.strip() in ("void", ""):
        return ()
    found = []
    for part in text.split(","):
        argument = _ARGUMENT.match(part.strip())
        if argument is None:
            return None
        found.append(Argument(argument["name"], " ".join(argument["ctype"].replace("*", " * ").split())))
    return tuple(found) if len(found) <= _MAX_ARGUMENTS else None


def _formats(text: str) -> list[str]:
    """Format strings, macros put in: `"%" PRIu64 ", x"` gives `%lu, x`; none where something else stands there."""
    formats, place = [""], 0
    while place < len(text.rstrip()):
        piece = _PIECE.match(text, place)
        if piece is None:
            comma = re.match(r"\s*,\s*", text[place:])
            if comma is None or not place:
                return []
            formats.append("")
            place += comma.end()
            continue
        formats[-1] += _text(piece)
        place = piece.end()
    return formats if place else []


def _text(piece: re.Match[str]) -> str:
    if piece["address"]:
        return _ADDRESS
    return _LENGTH[piece["width"]] + piece["conversion"] if piece["macro"] else _unescaped(piece["text"])


def _unescaped(text: str) -> str:
    def one(found: re.Match[str]) -> str:
        code = found[1]
        if code in _SIMPLE_ESCAPES:
            return _SIMPLE_ESCAPES[code]
        if code[0] == "x":
            return chr(int(code[1:], 16) & 0xFF)
        return chr(int(code, 8) & 0xFF) if code[0].isdigit() else code

    return _ESCAPE.sub(one, text)
