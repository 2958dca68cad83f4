"""What log rotation does to the files of a stream: pure decisions, no file is touched here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, NamedTuple, Self

from otelbridge.readers.rotated import is_packed

HEAD_BYTES = 1024
TAIL_BYTES = 256
_TELLING_BYTES = 64  # fewer than these may begin many files: a date, a level


class Fingerprint(NamedTuple):
    """Some bytes without the bytes: how many they were, and their digest."""

    length: int
    digest: str


def fingerprint(data: bytes) -> Fingerprint:
    """The fingerprint of these bytes."""
    return Fingerprint(len(data), blake2b(data, digest_size=12).hexdigest())


NOTHING = fingerprint(b"")


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a part was read, and what it is known by when it is met again under another name or inode.

    Attributes:
        real: Where it lay, symbolic links resolved.
        device: With `inode` the identity that the file system gives it.
        inode: See `device`.
        offset: Bytes handed out, of the unpacked content.
        size: Bytes that were known of it, handed out or not.
        mtime_ns: Its last change that was known.
        hole: NUL bytes that it begins with, which are not read: QEMU's `-D` does not append, so what it writes to a log that
            was truncated stands where it would have stood.
        head: Of the first bytes behind the hole, at most 1 KiB.
        tail: Of the last bytes before `offset`, at most 256.
        begins: What comes next does not go on what was handed out before.
        lost: A loss that was not told yet, in words.
        ended: It was seen unlinked and read to its end.
        before: The mark of the part that was read to its end before this one, kept while little is known of this one.
    """

    real: str
    device: int
    inode: int
    offset: int = 0
    size: int = 0
    mtime_ns: int = 0
    hole: int = 0
    head: Fingerprint = NOTHING
    tail: Fingerprint = NOTHING
    begins: bool = False
    lost: str = ""
    ended: bool = False
    before: Mark | None = None

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        return self.device, self.inode

    @property
    def is_unread(self) -> bool:
        """Whether nothing of it was handed out."""
        return self.offset == self.hole

    @property
    def is_weak(self) -> bool:
        """Whether so little is known of its content that another file may well begin alike."""
        return self.head.length < _TELLING_BYTES

    def to_json(self) -> dict[str, Any]:
        """The mark as plain JSON data."""
        return {name: _plain(getattr(self, name)) for name in self.__slots__}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Self:
        """What `to_json` gave.

        Raises:
            ValueError: It is something else.
        """
        try:
            mark = cls(**saved)
            numbers = (mark.device, mark.inode, mark.offset, mark.size, mark.mtime_ns, mark.hole)
            before = None if mark.before is None else cls.from_json(saved["before"])
            mark = replace(mark, head=Fingerprint(*mark.head), tail=Fingerprint(*mark.tail), before=before)
        except TypeError as error:
            raise ValueError(f"not a position: {error}") from error
        if not all(isinstance(number, int) for number in (*numbers, mark.head.length, mark.tail.length)):
            raise ValueError("not a position: a number is missing")
        return mark


def _plain(value: object) -> object:
    if isinstance(value, Mark):
        return value.to_json()
    return list(value) if isinstance(value, Fingerprint) else value


def guard(mark: Mark) -> tuple[int, Fingerprint]:
    """The bytes to look at before it is read on from `mark.offset`: where they begin, and what they must be."""
    if mark.offset <= mark.hole + mark.head.length:
        return mark.hole, mark.head
    return mark.offset - mark.tail.length, mark.tail


class Found(NamedTuple):
    """A file that may be a part of a stream, as a look at its folder shows it.

    Attributes:
        real: Its path, symbolic links resolved.
        device: With `inode` its identity.
        inode: See `device`.
        mtime_ns: Its last change; 0 for the file at the path itself, which may be written to now.
        chain: Number of the path that it belongs to; a symbolic link that changed its target has two.
        last: It is the file at the path itself, not a rotated part.
    """

    real: str
    device: int
    inode: int
    mtime_ns: int
    chain: int = 0
    last: bool = False

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        return self.device, self.inode

    @property
    def packed(self) -> bool:
        """Whether its name says that it is compressed."""
        return is_packed(self.real)


def find(mark: Mark, found: Sequence[Found], holds: Callable[[Found, Mark], bool]) -> int | None:
    """Which of these files is the one that was read, or a whole copy of it.

    Args:
        mark: How far it was read and what it is known by.
        found: Oldest first.
        holds: Whether a file holds the bytes that a mark knows.

    Returns:
        The file of the same inode if its content fits, since an inode is used again. Else one of the same content: the
        newest, a plain one before a packed one. None where there is none; a mark that knows no byte fits no content.
        Where little content is known, a copy that is newer than the mark comes before the file at the path.
    """
    same = [index for index, file in enumerate(found) if file.identity == mark.identity and holds(file, mark)]
    if not mark.is_weak:
        return same[0] if same else _newest(found, mark, holds)
    if not same and not mark.head.length:
        return None
    # A copy that was made of it since, if it was truncated then: it begins alike, as what was written later may do again.
    # Whoever is told late of a rotation makes the part before it newer than the mark.
    before = None if mark.before is None else find(mark.before, found, holds)
    copies = [
        index
        for index in range(0 if before is None else before + 1, same[0] if same else len(found))
        if found[index].mtime_ns >= mark.mtime_ns + bool(same) and holds(found[index], mark)
    ]
    return next(iter(copies + same), None) if copies or same else _newest(found, mark, holds)


def _newest(found: Sequence[Found], mark: Mark, holds: Callable[[Found, Mark], bool]) -> int | None:
    indices = sorted(range(len(found)), key=lambda index: (not found[index].packed, index), reverse=True)
    return next((index for index in indices if holds(found[index], mark)), None)


def after(found: Sequence[Found], index: int, mtime_ns: int) -> list[Found]:
    """The files to read after that one, in order: the newer ones of its chain, then what is newer in other chains."""
    chain = found[index].chain
    rest = found[index + 1 :]
    return [file for file in rest if file.chain == chain or file.last or file.mtime_ns > mtime_ns]


def newer(found: Sequence[Found], mtime_ns: int, chain: int) -> list[Found]:
    """The files to read when the part that was read is gone: those that changed later, and the file at the path itself."""
    return [file for file in found if (file.last and file.chain == chain) or file.mtime_ns > mtime_ns]
