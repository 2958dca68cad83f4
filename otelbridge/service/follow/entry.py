"""One part of a stream while it is read."""

from __future__ import annotations

import os
from dataclasses import replace

from otelbridge.service.follow.parts import Part, hole_bytes, read_fully
from otelbridge.service.follow.rotation import HEAD_BYTES, TAIL_BYTES, Mark, fingerprint, guard


class Entry:
    """A part that is open, and how far it is read.

    Attributes:
        part: The part.
        mark: How far, and what the part is known by.
        goes_on: It repeats what stands in the entry before it, and is read on from where that one ends.
    """

    def __init__(self, part: Part, mark: Mark, *, goes_on: bool = False) -> None:
        self.part, self.mark, self.goes_on = part, mark, goes_on
        self._at_end = False
        self._before: bytes | None = None

    @property
    def lag_bytes(self) -> int:
        """Known bytes not handed out; of a packed part its packed size until it is read to its end."""
        if self.part.packed:
            return 0 if self._at_end else self.mark.size
        return max(0, self.mark.size - self.mark.offset)

    @property
    def was_written(self) -> bool:
        """Whether there is, or was since it is open, a byte in it."""
        if self.part.packed:
            return self.mark.head.length > 0
        found = self.part.stat()
        return found.st_size > 0 or found.st_mtime_ns != self.mark.mtime_ns

    def see(self, found: os.stat_result) -> None:
        """Note how much there is of it now. A size that fell is left to the next reading, which finds out why."""
        if found.st_size > self.mark.size:
            self.mark = replace(self.mark, size=found.st_size)

    def read(self, limit_bytes: int) -> bytes | None:
        """Up to so many next bytes, none at the end.

        Returns:
            None when the file does not hold any more what was read of it: it was truncated, and has perhaps grown again.

        Raises:
            DamagedError: A packed part ends here, before its end.
            OSError: It cannot be read.
        """
        return self._read_packed(limit_bytes) if self.part.packed else self._read_plain(limit_bytes)

    def _read_plain(self, limit_bytes: int) -> bytes | None:
        found, mark = self.part.stat(), self.mark
        if found.st_size < mark.size:
            return None
        if found.st_size == mark.offset and found.st_mtime_ns == mark.mtime_ns:
            return b""
        if mark.is_unread and not mark.head.length:
            mark = anew(self.part, mark)
        # One call for what was read before and what comes next: between two of them it could be truncated.
        start, expected = guard(mark)
        skipped = mark.offset - start
        # Not more than there is: a large buffer is costly even if hardly a byte comes.
        wanted = min(skipped + limit_bytes, found.st_size - start)
        block = self.part.bytes_at(start, max(wanted, expected.length))
        if fingerprint(block[: expected.length]) != expected:
            return None
        end = min(len(block), skipped + limit_bytes)
        head = fingerprint(block[:HEAD_BYTES]) if start == mark.hole and mark.head.length < HEAD_BYTES else mark.head
        tail = fingerprint(block[max(0, end - TAIL_BYTES) : end]) if end > skipped else mark.tail
        self.mark = replace(
            mark,
            offset=start + end,
            size=max(found.st_size, start + len(block)),
            mtime_ns=found.st_mtime_ns,
            head=head,
            tail=tail,
            before=mark.before if mark.is_weak else None,
        )
        return block[skipped:end]

    def _read_packed(self, limit_bytes: int) -> bytes:
        mark = self.mark
        if self._before is None:
            start = max(0, mark.offset - TAIL_BYTES)
            self._before = read_fully(self.part, start, mark.offset - start)
        data = self.part.bytes_at(mark.offset, limit_bytes)
        self._at_end = not data
        self._before = (self._before + data)[-TAIL_BYTES:]
        self.mark = replace(mark, offset=mark.offset + len(data), tail=fingerprint(self._before))
        return data


def unread(part: Part) -> Mark:
    """The mark of a part of which nothing was read."""
    found = part.stat()
    device, inode = part.identity
    hole = hole_bytes(part)
    head = fingerprint(read_fully(part, hole, HEAD_BYTES))
    return Mark(part.real, device, inode, hole, found.st_size, found.st_mtime_ns, hole, head)


def anew(part: Part, mark: Mark) -> Mark:
    """The mark of a part of which nothing was read, with what is to be said before it and what was read before it."""
    return replace(unread(part), begins=mark.begins, lost=mark.lost, before=mark.before)


def read_before(part: Part, mark: Mark) -> Mark:
    """The mark for a part that holds what the mark knows, under whatever name and inode it has now."""
    if mark.is_unread:
        return anew(part, mark)
    device, inode = part.identity
    size = part.stat().st_size if part.packed else max(mark.offset, part.stat().st_size)
    return replace(mark, real=part.real, device=device, inode=inode, size=size, ended=False)


def at_end(part: Part) -> Mark:
    """The mark of a part as if all that it holds now were read; of a packed one nothing is, since its end is not known."""
    mark = unread(part)
    if part.packed:
        return mark
    start = max(mark.hole, mark.size - TAIL_BYTES)
    return replace(mark, offset=mark.size, tail=fingerprint(read_fully(part, start, mark.size - start)))
