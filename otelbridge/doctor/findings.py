"""What a check found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

Mark = Literal["ok", "warning", "problem"]

_SHOWN = 3


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        mark: A problem stands in the way of spans; a warning can become one.
        about: What was looked at, in one word.
        text: What was found.
        help: What to do about it; empty where nothing needs to be done.
    """

    mark: Mark
    about: str
    text: str
    help: str = ""


def named(names: Sequence[str]) -> str:
    """The first few names, and how many more there are: `'a.log', 'b.log', 'c.log' and 4 more`."""
    shown = ", ".join(repr(name) for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else shown
