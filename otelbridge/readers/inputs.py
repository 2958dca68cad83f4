"""The inputs of a conversion: which files are one QEMU's trace, and what tells each from all others."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from otelbridge.errors import UsageError
from otelbridge.readers.detect import Look, look_at
from otelbridge.readers.rotated import rotated_from

# src-25397.log  vm-12.log.gz
_THREAD_FILE = re.compile(r"(?P<stem>.+)-(?P<thread>\d+)(?P<rest>\.[A-Za-z.]+)$")
# 19625@1795407950.847563:migrate_set_state new state setup, whatever something else put in front of it
_NUMBERED = re.compile(rb"(?<!\d)(\d{1,10})@\d{1,11}\.\d{6}:")


_HEAD_BYTES = 16


class TraceInput(NamedTuple):
    """The trace of a QEMU: one file, or a file for each of its threads, each with its rotated parts.

    Attributes:
        paths: The files; `-` is standard input.
        threads: The thread of each file where its name tells, else None.
        role: What the user said: source, destination or None.
        identity: What no other input of the conversion has, and what is the same each time it is converted.
        format: The word of `--format`.
        head: Its first 16 bytes.
        look: What they show of a log; of another format nothing.
        first: Time as it stands there, name and arguments of its first event; None for a log, whose `look` tells.
        older: The rotated parts of each file, oldest first; empty where no file has any.
    """

    paths: tuple[str, ...]
    threads: tuple[int | None, ...]
    role: str | None
    identity: tuple[bytes, ...]
    format: str
    head: bytes
    look: Look
    first: tuple[int, str, bytes] | None = None
    older: tuple[tuple[str, ...], ...] = ()

    @property
    def parts(self) -> tuple[tuple[str, ...], ...]:
        """For each of `paths` the files to read one after the other."""
        older = self.older or ((),) * len(self.paths)
        return tuple((*before, path) for before, path in zip(older, self.paths, strict=True))

    @property
    def files(self) -> tuple[str, ...]:
        """All files of it."""
        return tuple(path for parts in self.parts for path in parts)

    @property
    def name(self) -> str:
        """The name of the (first) file without its folder, as it was before it was rotated."""
        return _name(self.parts[0])


def base_name(path: str) -> str:
    """The file's name without folder; standard input is `stdin`."""
    return "stdin" if path == "-" else Path(path).name


def group_inputs(
    files: Sequence[str],
    sources: Sequence[str],
    destinations: Sequence[str],
    head_of: Callable[[str], bytes],
    formats: Mapping[str, str],
    is_event: Callable[[str], bool],
    first_of: Callable[[str], tuple[int, str, bytes] | None] = lambda _path: None,
    older: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> list[TraceInput]:
    """Which files belong together, by their names and the first bytes of each, in the order of their first naming.

    Args:
        files: Inputs of no told role.
        sources: Inputs told to be of a source.
        destinations: Inputs told to be of a destination.
        head_of: Gives the first bytes of each, with its rotated parts before it. They are not kept: there may be many.
        formats: The `--format` word of each.
        is_event: Whether QEMU has an event of this name.
        first_of: Gives the first event of an input that is no log, with its rotated parts before it.
        older: Inputs that are the rotated parts of another, oldest first.

    Raises:
        UsageError: A file was called both source and destination.
    """
    roles: dict[str, str] = {}
    for role, paths in (("source", sources), ("destination", destinations)):
        for path in paths:
            if roles.setdefault(path, role) != role:
                raise UsageError(f"'{path}' is named as --source and as --destination; one QEMU's log can be only one of them.")
    found: list[TraceInput] = []
    taken: set[tuple[bytes, ...]] = set()
    parts = {path for before in older.values() for path in before}
    order = [path for path in dict.fromkeys([*files, *sources, *destinations]) if path not in parts]
    for group in _groups(order, head_of, formats):
        head, format_ = head_of(group[0]), formats[group[0]]
        first = None if format_ == "log" else first_of(group[0])
        look = look_at(head, is_event) if format_ == "log" else Look(b"", None, events=False)
        told_apart = look.first if look.stamp else head[:256]
        if first is not None:
            told_apart = b"%d %b %b" % (first[0], first[1].encode(), first[2])
        before = tuple(older.get(path, ()) for path in group)
        stem = _stem(_name((*before[0], group[0])), threads=len(group) > 1)
        identity: tuple[bytes, ...] = (stem.encode("utf-8", "surrogateescape"), told_apart)
        while identity in taken:
            identity = (*identity, b"again")
        taken.add(identity)
        threads = tuple(_thread(path) if len(group) > 1 else None for path in group)
        told = next((roles[path] for path in (*group, *(p for parts in before for p in parts)) if path in roles), None)
        found.append(
            TraceInput(group, threads, told, identity, format_, head[:_HEAD_BYTES], look, first, before if any(before) else ())
        )
    return found


def _groups(order: Sequence[str], head_of: Callable[[str], bytes], formats: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Files whose names differ in a thread's number alone, and that hold that thread alone, are one trace."""
    groups: dict[str, list[str]] = {}
    for path in order:
        named = _THREAD_FILE.match(path)
        alone = named is not None and formats[path] == "log" and _threads_in(head_of(path)) <= {int(named["thread"])}
        key = f"{named['stem']}-%d{named['rest']}" if named and alone else path
        groups.setdefault(key, []).append(path)
    return [tuple(group) for group in groups.values()]


def _threads_in(head: bytes) -> set[int]:
    return {int(found[1]) for found in _NUMBERED.finditer(head)}


def _thread(path: str) -> int | None:
    named = _THREAD_FILE.match(path)
    return int(named["thread"]) if named else None


def _name(parts: Sequence[str]) -> str:
    """The name of a log without its folder: that of the file, or what that of its parts was before they were rotated."""
    name = base_name(parts[-1])
    return (rotated_from(name) if len(parts) > 1 else "") or name


def _stem(name: str, *, threads: bool) -> str:
    """The log's name without what may differ between two copies of it: compression, and the thread where there are several."""
    name = re.sub(r"\.(gz|xz)$", "", name)
    named = _THREAD_FILE.match(name) if threads else None
    return named["stem"] if named else name
