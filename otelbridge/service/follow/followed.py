"""One stream: a path and its rotated parts, read in order whatever inode or name they have now."""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from otelbridge.readers.rotated import is_packed
from otelbridge.service.follow.entry import Entry, anew, at_end, read_before, unread
from otelbridge.service.follow.parts import Candidates, DamagedError, Part, holds, open_part, parts_of, unreadable
from otelbridge.service.follow.plan import plan_to_begin, plan_to_extend, plan_to_resume
from otelbridge.service.follow.rotation import Found, Mark, find

IDLE_AFTER_S = 10.0
LOOK_S = 1.0
UNLINKED_FOR_S = 60.0
_STEPS = 200


class Piece(NamedTuple):
    """The next bytes of a stream.

    Attributes:
        data: The bytes. None of them where the piece only tells a loss.
        begins: What stood before does not go on here: a partial line before it is cut.
        lost: A loss in words, empty if there is none.
    """

    data: bytes
    begins: bool = False
    lost: str = ""


class FollowedFile:
    """One stream: a path and its rotated parts.

    Args:
        path: The path, absolute.
        clock: Seconds of a clock that never goes back.
        saved: An earlier `position()`, None for a file that was never seen.
        at_end: A file that was never seen is begun at its end.
        parts_since_ns: Before a file that was never seen, its rotated parts are read that were written after this; None for
            none of them.

    Attributes:
        path: As given.
        problem: Why it cannot be read now, in words; empty if it can.
    """

    def __init__(
        self, path: str, clock: Callable[[], float], saved: Mapping[str, Any] | None = None, *, at_end: bool = False,
        parts_since_ns: int | None = None,
    ) -> None:  # fmt: skip
        self.path, self.problem = path, ""
        self._clock = clock
        self._entries: deque[Entry] = deque()
        self._mark: Mark | None = None  # where it is read on when no part is open
        self._resting: Sequence[Mark] = ()  # what must not change while all is closed, the file at the path last
        self._at_end, self._parts_since_ns = at_end, parts_since_ns
        self._away = self._replaced = self._moved = False
        self._lost, self._begins = "", False
        self._grew_s = clock()
        self._next_look_s = 0.0
        self._folder_ns = 0
        if saved is not None:
            self._restore(saved)

    def _restore(self, saved: Mapping[str, Any]) -> None:
        if "unread" in saved:
            since_ns = saved.get("parts_since_ns")
            self._at_end, self._parts_since_ns = saved["unread"] == "end", since_ns if isinstance(since_ns, int) else None
            return
        try:
            self._mark = Mark.from_json(saved)
        except ValueError as error:
            self._begins, self._at_end = True, False
            self._lost = (
                f"'{self.path}': its saved position cannot be understood ({error}), so nobody knows how far it was read. "
                "It is read from its beginning; what was read before comes a second time."
            )

    @property
    def open_parts(self) -> int:
        """How many descriptors it holds."""
        return len(self._entries)

    @property
    def idle_s(self) -> float:
        """Seconds since it gave bytes."""
        return self._clock() - self._grew_s

    @property
    def lag_bytes(self) -> int:
        """Known bytes not handed out yet, of all parts."""
        return sum(entry.lag_bytes for entry in self._entries)

    @property
    def gone(self) -> bool:
        """The path is away and everything of it was handed out. A rotation by rename shows it for a moment, too."""
        return self._away and not self._replaced and not self.problem and not self._lost and self._drained

    @property
    def at_risk(self) -> bool:
        """What is not read yet lies in a part that was rotated away or unlinked: it may vanish."""
        parts = list(self._entries) if self._moved else list(self._entries)[:-1]
        return any(entry.lag_bytes for entry in parts)

    @property
    def has_more(self) -> bool:
        """A part is left that is not the last: each is read alone, however small."""
        return self.at_risk

    @property
    def descriptor(self) -> None:
        """A file cannot be waited for."""

    @property
    def _drained(self) -> bool:
        return len(self._entries) <= 1 and not self.lag_bytes

    def position(self) -> dict[str, Any]:
        """Plain JSON data: everything handed out so far is behind it, and it is read on from there after a restart."""
        mark = self._entries[0].mark if self._entries else self._mark
        if mark is None:
            return {"unread": "end" if self._at_end else "start", "parts_since_ns": self._parts_since_ns}
        return replace(mark, begins=mark.begins or self._begins, lost=_both(self._lost, mark.lost)).to_json()

    def read(self, limit_bytes: int) -> Piece | None:
        """The next bytes in order, across rotations; None when there are none now.

        Args:
            limit_bytes: The most bytes to hand out, at least 1.
        """
        now_s = self._clock()
        if now_s < self._next_look_s:
            return None
        try:
            piece = self._next_piece(limit_bytes)
        except OSError as error:
            self._fail(error)
            return None
        if piece is not None:
            self._grew_s, self._next_look_s = now_s, 0.0
        elif now_s - self._grew_s > IDLE_AFTER_S:
            self._next_look_s = now_s + LOOK_S
        return piece

    def _next_piece(self, limit_bytes: int) -> Piece | None:
        looked = False
        for _ in range(_STEPS):
            if not self._entries:
                return self._told(b"") if self._lost else None
            entry = self._entries[0]
            if self._is_doubtful(entry):
                self._start_over()
                continue
            may_leave = self._may_leave()  # before it is read: whoever writes to the next part has written all of this one
            try:
                data = entry.read(limit_bytes)
            except DamagedError as error:
                return self._cut(entry, error)
            if data is None:
                self._start_over()
            elif data or self._lost or entry.mark.lost:
                return self._told(data)
            elif may_leave:
                self._leave()
            elif looked or self.idle_s > LOOK_S:
                return None
            else:
                # It grew a moment ago, so it may have been rotated: parts of it should not vanish until the next scan.
                looked = True
                self.look(status(self.path))
        return None

    def _told(self, data: bytes) -> Piece:
        """The piece of these bytes, with what is to be said before them."""
        begins, lost, self._begins, self._lost = self._begins, self._lost, False, ""
        if self._entries:
            mark = self._entries[0].mark
            begins, lost = begins or mark.begins, _both(lost, mark.lost)
            if mark.begins or mark.lost:
                self._entries[0].mark = replace(mark, begins=False, lost="")
        return Piece(data, begins, lost)

    def _may_leave(self) -> bool:
        """Whether the first part is ended when it is read to its end: its writer has gone on in the next one."""
        if len(self._entries) == 1:
            return False
        # Whoever rotates by rename may tell the writer later, or never: until a newer file has a byte, the old one can grow.
        if self._entries[1].goes_on or any(entry.was_written for entry in list(self._entries)[1:]):
            return True
        return not self._entries[0].part.stat().st_nlink and self.idle_s > UNLINKED_FOR_S

    def _is_doubtful(self, entry: Entry) -> bool:
        """Whether a file of which hardly a byte was known may have been copied and truncated since: there is a new part."""
        mark = entry.mark
        if not mark.is_weak or entry.part.packed or entry.part.stat().st_mtime_ns == mark.mtime_ns:
            return False
        with Candidates(self.path, mark.real) as candidates:
            index = candidates.decide(lambda: find(mark, candidates.found, candidates.holds))
            return index is not None and candidates.found[index].identity != mark.identity

    def _leave(self) -> None:
        """Go on to the next part."""
        if len(self._entries) == 2 and not self._entries[1].goes_on and self._entries[1].mark.is_weak:  # noqa: PLR2004  # and the next
            self._extend_again()
        following = self._entries[1]
        if following.goes_on and not holds(following.part, self._entries[0].mark):
            self._start_over()
            return
        entry = self._entries.popleft()
        entry.part.close()
        self._begins, self._lost = self._begins or entry.mark.begins, _both(self._lost, entry.mark.lost)
        if following.goes_on:
            following.goes_on = False
            following.mark = read_before(following.part, replace(entry.mark, begins=False, lost=""))
        elif following.mark.is_weak:
            before = replace(entry.mark, begins=False, lost="", before=None)
            following.mark = replace(following.mark, before=before)

    def _cut(self, entry: Entry, error: DamagedError) -> Piece:
        """A packed part that is damaged is left where the damage begins."""
        if len(self._entries) > 1:
            self._leave()
        else:
            self._mark = replace(entry.mark, ended=True)
            self._close_all()
        self._begins = True
        self._lost = _both(
            self._lost,
            f"'{entry.part.real}' cannot be unpacked beyond byte {entry.mark.offset} ({error}): what else it held is lost. "
            "Read on in the next part; check the disk, and what packs the logs.",
        )
        return self._told(b"")

    def look(self, found: os.stat_result | OSError) -> None:
        """Take in what the file system says of the path now. Each scan calls it."""
        self._away = isinstance(found, FileNotFoundError | NotADirectoryError)
        self._replaced = isinstance(found, os.stat_result) and not stat.S_ISREG(found.st_mode)
        self.problem = self._problem(found)
        try:
            if isinstance(found, os.stat_result) and not self._replaced:
                self._look_at_file(found)
                self._moved = bool(self._entries) and self._entries[-1].part.identity != (found.st_dev, found.st_ino)
            elif self._away or self._replaced:
                was_there, self._moved = not self._moved, True
                self._look_without_file(was_there)
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        """A file that is open cannot be read: say so, and open it anew if its server has forgotten it."""
        self.problem = unreadable(self.path, error)
        if error.errno == errno.ESTALE:
            self.close()

    def _problem(self, found: os.stat_result | OSError) -> str:
        if isinstance(found, OSError):
            return "" if self._away else unreadable(self.path, found)
        if not self._replaced:
            return ""
        return f"'{self.path}' is {kind_of(found)} now, expected a file. It is read on when there is a file again."

    def _look_at_file(self, found: os.stat_result) -> None:
        identity = found.st_dev, found.st_ino
        self._know_head()
        if self._entries and self._entries[-1].part.identity != identity:
            self._extend()
        elif self._entries:
            self._entries[-1].see(found)
        elif self._mark is None:
            self._begin()
        elif not self._rests(found):
            self._resume(self._mark)
        if self.lag_bytes:
            self._next_look_s = 0.0

    def _know_head(self) -> None:
        """Note how a part begins of which nothing was read yet, so that it is known again when it is rotated and packed."""
        if not self._entries:
            return
        entry = self._entries[0]
        mark = entry.mark
        if not (mark.is_unread and mark.is_weak) or entry.part.stat().st_mtime_ns == mark.mtime_ns:
            return
        if self._is_doubtful(entry):
            self._start_over()
        else:
            entry.mark = anew(entry.part, mark)

    def _look_without_file(self, was_there: bool) -> None:
        self._know_head()
        if self._entries and (self._has_folder_changed() or was_there):
            self._extend()  # a file may have come and been rotated away since the last look
        if len(self._entries) == 1:
            entry = self._entries[0]
            found = entry.part.stat()
            entry.see(found)
            # A file that nobody can name and nobody writes to takes room on the disk while it is open.
            if not found.st_nlink and not entry.lag_bytes and self.idle_s > UNLINKED_FOR_S:
                self._mark = replace(entry.mark, ended=True)
                self._close_all()
        elif not self._entries and self._mark is not None and not self._mark.ended:
            self._resume(self._mark)
        elif not self._entries and self._mark is None and self._parts_since_ns is not None and not self._at_end:
            self._begin_before(self._parts_since_ns)

    def _has_folder_changed(self) -> bool:
        """Whether a name came to the folder, or went, since this was asked last."""
        found = status(os.path.dirname(os.path.realpath(self.path)))  # noqa: PTH120  # as the other names are made
        before, self._folder_ns = self._folder_ns, found.st_mtime_ns if isinstance(found, os.stat_result) else 0
        return self._folder_ns != before

    def rest(self) -> None:
        """Close all descriptors where everything is read; the parts are opened again when one of them changes."""
        if not self._entries or self._away or self._replaced or self.lag_bytes:
            return
        if len(self._entries) > 1 and not self._know_names():
            return
        # Nothing comes to a packed part.
        watched = [entry.mark for entry in self._entries if not entry.part.packed]
        self._mark, self._resting = self._entries[0].mark, watched
        self._close_all()

    def _know_names(self) -> bool:
        """Note what each part is called now. False if one has no name any more, or there is more to read."""
        try:
            if any(entry.was_written for entry in list(self._entries)[1:]):
                return False
            names = {file.identity: file.real for file in parts_of(os.path.realpath(self.path))}
        except OSError:
            return False
        if any(entry.part.identity not in names for entry in self._entries):
            return False
        for entry in self._entries:
            entry.mark = replace(entry.mark, real=names[entry.part.identity])
        return True

    def _rests(self, found: os.stat_result) -> bool:
        """Whether it was closed by `rest`, and nothing has changed since; `found` is of the path."""
        if not self._resting:
            return False
        *before, last = self._resting
        return _is_as_read(last, found) and all(_is_as_read(mark, status(mark.real)) for mark in before)

    def _begin(self) -> None:
        """Open a file that was never seen."""
        if self._parts_since_ns is not None and not self._at_end:
            self._begin_before(self._parts_since_ns)
            return
        try:
            part = open_part(os.path.realpath(self.path))
        except OSError as error:
            self.problem = unreadable(self.path, error)
            return
        self._entries.append(Entry(part, at_end(part) if self._at_end else unread(part)))

    def _begin_before(self, since_ns: int) -> None:
        """Open the rotated parts that were written since then, and the file."""
        with Candidates(self.path, os.path.realpath(self.path)) as candidates:
            plan = candidates.decide(lambda: plan_to_begin(candidates, since_ns))
            if plan is None or plan.must_wait(candidates.problem):
                self.problem = candidates.problem
                return
            candidates.release(entry.part for entry in plan.entries)
            self._take(plan.entries, candidates.problem if plan.is_cut else "")

    def _start_over(self) -> None:
        """The first part holds something else now: find what was read of it among the others."""
        old, self._entries = self._entries, deque()
        self._resume(old[0].mark)
        if not self._entries:
            self._mark = old[0].mark if self._mark is None else self._mark
        for entry in old:
            entry.part.close()

    def _resume(self, mark: Mark) -> None:
        """Find the part that was read, and open it and all that follow it."""
        same = None if mark.is_weak else self._same_at_path(mark)
        if same is not None:
            self._take([Entry(same, read_before(same, mark))], "")
            return
        with Candidates(self.path, mark.real) as candidates:
            plan = candidates.decide(lambda: plan_to_resume(candidates, mark))
            if plan is None or plan.must_wait(candidates.problem):
                self.problem = candidates.problem
                return
            if plan.found is None:
                self._tell_gone(mark, plan.files)
            candidates.release(entry.part for entry in plan.entries)
            self._take(plan.entries, candidates.problem if plan.is_cut else "")

    def _same_at_path(self, mark: Mark) -> Part | None:
        """The file at the path, open, if it is the one that was read."""
        try:
            part = open_part(os.path.realpath(self.path))
        except OSError:
            return None
        if part.identity == mark.identity and holds(part, mark):
            return part
        part.close()
        return None

    def _extend(self) -> None:
        """The path names another file than the last part: open what came after that one."""
        last = self._entries[-1]
        found = last.part.stat()
        last.see(found)
        with Candidates(self.path, last.mark.real) as candidates:
            plan = candidates.decide(lambda: plan_to_extend(candidates, last, found.st_mtime_ns))
            if plan is None or plan.must_wait(candidates.problem):
                self.problem = candidates.problem
                return
            if plan.found is None and plan.entries:
                plan.entries[0].mark = self._after_unknown(found, plan.entries[0].mark, plan.files[0])
            candidates.release(entry.part for entry in plan.entries)
            self._take(plan.entries, candidates.problem if plan.is_cut else "")

    def _extend_again(self) -> None:
        """Open anew what follows the first part: the next one may have been copied and truncated while the first was read."""
        old = self._entries.pop()
        self._extend()
        whole = at_end(old.part)
        if len(self._entries) == 1:
            self._entries.append(old)
        elif whole.size and not any(
            entry.part.identity == old.part.identity or holds(entry.part, whole) for entry in self._entries
        ):
            # Unlinked, but not before something was written to it.
            self._entries[-1].mark = replace(self._entries[-1].mark, begins=True)
            self._entries.insert(len(self._entries) - 1, old)
        else:
            old.part.close()

    def _take(self, entries: Sequence[Entry], problem: str) -> None:
        self._entries.extend(entries)
        self.problem = problem or self.problem
        if self._entries:
            self._mark, self._resting = None, ()
        self._next_look_s = 0.0

    def _tell_gone(self, mark: Mark, following: Sequence[Found]) -> None:
        """What to say where the part that was read is nowhere."""
        self._begins = True
        self._lost = _both(self._lost, mark.lost)
        if not following:
            self._mark = replace(mark, ended=True, begins=False, lost="")
        if mark.ended:
            return
        known = 0 if is_packed(mark.real) else mark.size - mark.offset
        at_least = f"{known} bytes and " if known > 0 else ""
        same = any(file.identity == mark.identity for file in following)
        what = "was truncated or replaced" if same else "is gone"
        where = f"the beginning of '{following[0].real}'" if following else "the beginning of the next file of that name"
        self._lost = _both(
            self._lost,
            f"'{self.path}': the file that was read to byte {mark.offset} {what}, and neither the path nor a rotated part "
            f"goes on from there: {at_least}whatever was written to it since is lost. Read on from {where}; "
            "let the rotation keep more or larger parts.",
        )

    def _after_unknown(self, found: os.stat_result, mark: Mark, following: Found) -> Mark:
        """The mark of the next part, where the part before it, still open, has no name that is known."""
        if following.last:
            # Moved to a name that is not known, into another folder for example, it goes on; unlinked it does not.
            return replace(mark, begins=not found.st_nlink)
        lost = (
            f"'{self.path}': it was rotated so often that the part that was read to its end, byte {found.st_size}, is gone; "
            f"whole parts between it and '{following.real}' may be lost. Let the rotation keep more or larger parts."
        )
        return replace(mark, begins=True, lost=lost)

    def close(self) -> None:
        """Let go of all files."""
        if self._entries:
            self._mark = self._entries[0].mark
        self._close_all()

    def _close_all(self) -> None:
        for entry in self._entries:
            entry.part.close()
        self._entries.clear()


def status(path: str) -> os.stat_result | OSError:
    """What the file system says of a path, or why it does not."""
    try:
        return os.stat(path)  # noqa: PTH116  # a Path costs twice as much, 500 times a second
    except OSError as error:
        return error


def kind_of(found: os.stat_result) -> str:
    """What there is, in words."""
    kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe", stat.S_IFREG: "a file", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(found.st_mode), "a device")


def _is_as_read(mark: Mark, found: os.stat_result | OSError) -> bool:
    if isinstance(found, OSError) or (found.st_dev, found.st_ino) != mark.identity:
        return False
    return found.st_size == mark.offset and found.st_mtime_ns == mark.mtime_ns


def _both(one: str, other: str) -> str:
    return " ".join(filter(None, (one, other)))
