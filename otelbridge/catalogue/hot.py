"""Events that come so often that they cost something."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Literal, NamedTuple, cast

Kind = Literal["page", "field", "packet", "turn"]
COSTLY: frozenset[Kind] = frozenset({"page", "field", "packet"})
"""The kinds that come in hundreds of thousands in an ordinary migration."""


class Hot(NamedTuple):
    """How often an event comes: once for each of a kind, and of what."""

    event: str
    kind: Kind
    reason: str


@cache
def hot_events() -> dict[str, Hot]:
    """The events that come very often, by name."""
    text = files("otelbridge.catalogue").joinpath("hot.events").read_text("ascii")
    lines = (line.split(" ", 2) for line in text.splitlines() if not line.startswith("#"))
    return {event: Hot(event, cast("Kind", kind), reason) for event, kind, reason in lines}
