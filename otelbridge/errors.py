"""Every exception that a user can cause, with the exit code of the command line.

OtelbridgeError                the command line catches exactly this; everything else is a bug (exit 1)
├── UsageError              2  the command line
├── LocatedError            3  .problems: all of them at once, each with its place
│   ├── CatalogueError         a trace-events file
│   ├── MappingError           a mapping file
│   └── ConfigError            the service's file
├── FormatError             4  the input is not what --format says; .path, .offset
├── ExportError             5  something was not delivered and could not be spooled
└── SpoolError              6  the spool directory cannot be used
"""

# Not `annotations` from __future__: a named tuple would compile each of its annotations, at every start.

from collections.abc import Sequence
from typing import NamedTuple


class OtelbridgeError(Exception):
    """Something that a user can mend. `exit_code` is what the command ends with."""

    exit_code = 1


class UsageError(OtelbridgeError):
    """The command line asks for something that cannot be."""

    exit_code = 2


class Location(NamedTuple):
    """A place in a text file; line and column count from 1. `length` is how much a caret underlines."""

    path: str
    line: int
    column: int
    length: int = 1


class Problem(NamedTuple):
    """One thing that is wrong, where, and how to mend it. `source` is the line of the file, without its end."""

    location: Location
    text: str
    help: str = ""
    source: str = ""

    def __str__(self) -> str:
        place = self.location
        lines = [f"{place.path}:{place.line}:{place.column}: error: {self.text}"]
        if self.source:
            margin = f"  {place.line} |  "
            # Tabs stay tabs, so that the caret stands under its text in any terminal.
            indent = "".join("\t" if c == "\t" else " " for c in self.source[: place.column - 1])
            bar = " " * (len(margin) - 3) + "|  "
            lines += [margin + self.source, bar + indent + "^" * max(1, place.length)]
        if self.help:
            lines.append(f"  help: {self.help}")
        return "\n".join(lines)


class LocatedError(OtelbridgeError):
    """A file that a person wrote has problems; `problems` holds all of them, in the order of the files."""

    exit_code = 3
    what = "file"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: p.location))
        super().__init__(self.problems)

    def __str__(self) -> str:
        paths = sorted({p.location.path for p in self.problems})
        count = len(self.problems)
        tail = f"{count} problem{'s' if count != 1 else ''} in {', '.join(paths)}; nothing was loaded."
        return "\n\n".join([*map(str, self.problems), tail])


class CatalogueError(LocatedError):
    """A trace-events file holds no event that can be used."""


class MappingError(LocatedError):
    """Mapping files have problems."""


class ConfigError(LocatedError):
    """The service's configuration has problems."""


class FormatError(OtelbridgeError):
    """The input is not what it was said to be.

    Attributes:
        path: The input.
        offset: The first byte that did not fit, where that is known.
    """

    exit_code = 4

    def __init__(self, text: str, *, path: str = "", offset: int | None = None) -> None:
        self.path, self.offset = path, offset
        super().__init__(text)


class ExportError(OtelbridgeError):
    """A destination did not take everything, and it could not be spooled."""

    exit_code = 5


class SpoolError(OtelbridgeError):
    """The spool directory cannot be used."""

    exit_code = 6


class SpoolInUseError(SpoolError):
    """Another process has the spool open."""


class SpoolUnreadableError(SpoolError):
    """The spool's database is damaged, or of another program or a newer version."""
