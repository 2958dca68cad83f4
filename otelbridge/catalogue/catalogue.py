"""What is known of QEMU's trace events: built in, or from a file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from otelbridge.records import Argument, EventSpec

if TYPE_CHECKING:
    from otelbridge.catalogue.trace_events import Declarations

_FOLDER = Path(__file__).parent
_TYPES = {
    "s": "const char *", "p": "void *", "i": "int", "u": "unsigned int", "l": "long", "ul": "unsigned long", "z": "size_t",
    "sz": "ssize_t", "b": "bool", "u8": "uint8_t", "u16": "uint16_t", "u32": "uint32_t", "u64": "uint64_t", "i64": "int64_t",
}  # fmt: skip
#  3.1.0 11.0-dev (s id, u section_id, i ret) %s, section_id %u -> %d
_FORM = re.compile(r" (?P<first>\S+) (?P<last>\S+) \((?P<arguments>[^)]*)\) ?(?P<format>.*)")


class Catalogue:
    """Events by name, each with its declarations, newest first.

    Args:
        specs: Declarations by event, newest first.
        others: Names of further events, of which no more is known than that they are events.
    """

    def __init__(self, specs: Mapping[str, tuple[EventSpec, ...]], others: Iterable[str]) -> None:
        self._specs = dict(specs)
        self._names = frozenset(others) | self._specs.keys()

    @property
    def names(self) -> frozenset[str]:
        """Every known event."""
        return self._names

    def variants(self, event: str) -> tuple[EventSpec, ...]:
        """The declarations of an event, newest first; empty where no more than its name is known."""
        return self._specs.get(event, ())

    def is_event(self, name: str) -> bool:
        """Whether QEMU has an event of this name."""
        return name in self._names

    def declared(self) -> Iterable[str]:
        """The events whose arguments are known."""
        return self._specs.keys()

    def closest(self, name: str) -> str | None:
        """The declared event whose name is most like this one."""
        from difflib import get_close_matches  # noqa: PLC0415  # only for a mistake

        return next(iter(get_close_matches(name, self._specs, n=1, cutoff=0.7)), None)

    def with_declarations(self, declarations: Declarations) -> Catalogue:
        """This catalogue, but what the file declares is declared so and not otherwise."""
        specs: dict[str, tuple[EventSpec, ...]] = {}
        for spec in declarations.specs:
            specs[spec.name] = (spec, *(other for other in specs.get(spec.name, ()) if other != spec))
        return Catalogue({**self._specs, **specs}, self._names)

    def joined(self, declarations: Declarations) -> Catalogue:
        """This catalogue with the declarations of a file beside its own."""
        file = self.with_declarations(declarations)
        specs = {event: (*file.variants(event), *self.variants(event)) for event in file.declared()}
        return Catalogue({event: tuple(dict.fromkeys(found)) for event, found in specs.items()}, file.names)


@cache
def builtin() -> Catalogue:
    """The migration events of QEMU 3.1 to 11.0-dev with their declarations, all others by name."""
    others = _FOLDER.joinpath("other.names").read_text("ascii").splitlines()
    specs = _compact(_FOLDER.joinpath("migration.events").read_text("utf-8"))
    return Catalogue(specs, (name for name in others if not name.startswith("#")))


def catalogue_from(text: str, path: str) -> tuple[Catalogue, Declarations]:
    """The built-in catalogue with the declarations of a trace-events file in place of its own.

    Raises:
        CatalogueError: Nothing is declared in the text.
    """
    from otelbridge.catalogue.trace_events import parse_trace_events  # noqa: PLC0415  # only with a file

    declarations = parse_trace_events(text, path)
    return builtin().with_declarations(declarations), declarations


def _compact(text: str) -> dict[str, tuple[EventSpec, ...]]:
    """The built-in notation: a name, then a line for each of its forms, oldest first."""
    found: dict[str, tuple[EventSpec, ...]] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith(" "):
            form = _FORM.fullmatch(line)
            if form is None:
                raise AssertionError(line)
            spec = EventSpec(name, _arguments(form["arguments"]), form["format"], form["first"], form["last"])
            found[name] = (spec, *found.get(name, ()))
        elif not line.startswith("#"):
            name = line
    return found


@cache
def _arguments(text: str) -> tuple[Argument, ...]:
    parts = (part.rpartition(" ") for part in text.split(", ") if part)
    return tuple(Argument(name, _TYPES.get(ctype, ctype)) for ctype, _, name in parts)
