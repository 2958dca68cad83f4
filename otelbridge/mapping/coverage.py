"""How much of a catalogue the rules use, and what of a log they could not use."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping as MappingType
from typing import NamedTuple

from otelbridge.mapping.rules import Mapping
from otelbridge.mapping.uses import Use, uses_of


class Fate(NamedTuple):
    """How often an event came in logs, and what became of it.

    Attributes:
        came: How often it came.
        paired: Of a begin: spans that it began and whose end came. Of an end: spans that it ended.
        open: Spans that it began and whose end never came.
        orphaned: It should have ended a span, but there was none, and no other rule used it.
        unread: Its text fits no declaration, so no rule got it.
    """

    came: int = 0
    paired: int = 0
    open: int = 0
    orphaned: int = 0
    unread: int = 0


class Covered(NamedTuple):
    """One event: the rules that use it, or the reason why none does; empty if nobody has thought of it."""

    event: str
    uses: tuple[Use, ...]
    reason: str
    fate: Fate

    @property
    def is_covered(self) -> bool:
        """Whether a rule uses it, or a file says why none does."""
        return bool(self.uses or self.reason)

    @property
    def unmapped(self) -> int:
        """How often it came without a rule that uses it."""
        return 0 if self.uses else self.fate.came

    @property
    def hole(self) -> int:
        """How many of these events were lost on the rules; what is left out on purpose is not lost."""
        return (0 if self.reason else self.unmapped) + self.fate.open + self.fate.orphaned + self.fate.unread


def coverage(mapping: Mapping, events: Iterable[str], fates: MappingType[str, Fate]) -> list[Covered]:
    """What the rules do with each of these events, the biggest hole first, then what came, then what nobody has thought of."""
    uses = uses_of(mapping)
    found = [
        Covered(event, tuple(uses.get(event, ())), mapping.unmapped.get(event, ""), fates.get(event, Fate()))
        for event in events
    ]
    return sorted(found, key=lambda one: (-one.hole, not one.fate.came, one.is_covered, -one.fate.came, one.event))
