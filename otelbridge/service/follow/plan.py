"""Which parts of a stream are read next, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from otelbridge.service.follow.entry import Entry, at_end, read_before, unread
from otelbridge.service.follow.parts import Candidates, Part, holds
from otelbridge.service.follow.rotation import NOTHING, Found, Mark, after, find, newer


class Plan(NamedTuple):
    """What is read next.

    Attributes:
        found: The index of the part that was read, None where it is not among the files.
        files: The files to read, in order.
        entries: They, open: up to one that cannot be opened, and without copies of the last.
        is_cut: Whether one could not be opened.
    """

    found: int | None
    files: Sequence[Found]
    entries: list[Entry]
    is_cut: bool

    def must_wait(self, problem: str) -> bool:
        """Whether nothing can be said yet: what cannot be opened may be what is looked for, or what comes first."""
        return bool(problem and self.found is None) or (self.is_cut and not self.entries)


def plan_to_begin(candidates: Candidates, since_ns: int) -> Plan:
    """The rotated parts of a log that was never seen which were written after that time, and the file at the path."""
    return _plan(candidates, None, newer(candidates.found, since_ns, candidates.chain))


def plan_to_resume(candidates: Candidates, mark: Mark) -> Plan:
    """The part that the mark was made of, and what follows it."""
    files = candidates.found
    index = find(mark, files, candidates.holds)
    if index is None:
        return _plan(candidates, None, newer(files, mark.mtime_ns, candidates.chain))
    plan = _plan(candidates, index, [files[index], *after(files, index, mark.mtime_ns)], files[index].chain)
    for first in plan.entries[:1]:
        first.mark = read_before(first.part, mark)
    return plan


def plan_to_extend(candidates: Candidates, last: Entry, mtime_ns: int) -> Plan:
    """What follows a part that is open."""
    files = candidates.found
    index = next((index for index, file in enumerate(files) if file.identity == last.part.identity), None)
    if index is not None:
        return _plan(candidates, index, after(files, index, mtime_ns), files[index].chain)
    whole = at_end(last.part)
    index = find(whole, files, candidates.holds)
    if index is None:
        index = _packed_too_early(candidates, whole)
    if index is None:
        return _plan(candidates, None, newer(files, mtime_ns, candidates.chain))
    following = after(files, index, mtime_ns)
    if files[index].packed:
        # All of it stands in the open file, which may still be written to where its writer was not told of the rotation.
        return _plan(candidates, index, following, files[index].chain)
    plan = _plan(candidates, index, [files[index], *following], files[index].chain)
    for first in plan.entries[:1]:
        first.goes_on = True
    return plan


def _packed_too_early(candidates: Candidates, whole: Mark) -> int | None:
    """The packed part that begins as the mark knows: it was written to while it was packed, or after."""
    if whole.is_weak:
        return None
    begun = replace(whole, offset=0, tail=NOTHING)
    return next((n for n, file in enumerate(candidates.found) if file.packed and candidates.holds(file, begun)), None)


def _plan(candidates: Candidates, found: int | None, files: Sequence[Found], chain: int | None = None) -> Plan:
    entries: list[Entry] = []
    for file in files:
        part = candidates.part(file)
        if part is None:
            return Plan(found, files, entries, is_cut=True)
        # What stands behind another target of a symbolic link is another log.
        entries.append(Entry(part, replace(unread(part), begins=chain not in {None, file.chain})))
        chain = file.chain
    if files and files[-1].last:
        entries = _without_copies(entries)
    return Plan(found, files, entries, is_cut=False)


def _without_copies(entries: list[Entry]) -> list[Entry]:
    """The entries without a copy of the last one, the file at the path: it was made, or is being made, to truncate that."""
    last, kept = entries[-1], []
    for entry in entries[:-1]:
        if _is_copy(entry.part, last):
            last.mark = replace(last.mark, begins=last.mark.begins or entry.mark.begins)
        else:
            kept.append(entry)
    if len(kept) == len(entries) - 1 and not holds(last.part, last.mark):
        # Truncated since it was opened: what it held then is in the copy.
        last.mark = replace(unread(last.part), begins=last.mark.begins)
    return [*kept, last]


def _is_copy(part: Part, last: Entry) -> bool:
    if part.packed:
        return False
    whole = at_end(part)
    if not whole.size:
        return last.mark.size > 0  # either nobody writes to it any more, or a copy was just begun
    return not whole.is_weak and holds(last.part, whole)
