"""The inputs of a conversion: which files are one QEMU's trace, and what tells each from all others."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from otelbridge.errors import UsageError
from otelbridge.readers.detect import Look, look_at

# src-25397.log  vm-12.log.gz
_THREAD_FILE = re.compile(r"(?P<stem>.+)-(?P<thread>\d+)(?P<rest>\.[A-Za-z.]+)$")
# 19625@1795407950.847563:migrate_set_state new state setup, whatever something else put in front of it
_NUMBERED = re.compile(rb"(?<!\d)(\d{1,10})@\d{1,11}\.\d{6}:")


_HEAD_BYTES = 16


class TraceInput(NamedTuple):
    """The trace of a QEMU: one file, or a file for each of its threads.

    Attributes:
        paths: The files; `-` is standard input.
        threads: The thread of each file where its name tells, else None.
        role: What the user said: source, destination or None.
        identity: What no other input of the conversion has, and what is the same each time it is converted.
        format: The word of `--format`.
        head: Its first 16 bytes.
        look: What they show of a log; of another format nothing.
        first: Time as it stands there, name and arguments of its first event; None for a log, whose `look` tells.
    """

    paths: tuple[str, ...]
    threads: tuple[int | None, ...]
    role: str | None
    identity: tuple[bytes, ...]
    format: str
    head: bytes
    look: Look
    first: tuple[int, str, bytes] | None = None

    @property
    def name(self) -> str:
        """The name of the (first) file without its folder."""
        return base_name(self.paths[0])


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
) -> list[TraceInput]:
    """Which files belong together, by their names and the first bytes of each, in the order of their first naming.

    Args:
        files: Inputs of no told role.
        sources: Inputs told to be of a source.
        destinations: Inputs told to be of a destination.
        head_of: Gives the first bytes of each. They are not kept: there may be many.
        formats: The `--format` word of each.
        is_event: Whether QEMU has an event of this name.
        first_of: Gives the first event of an input that is no log.

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
    for group in _groups(list(dict.fromkeys([*files, *sources, *destinations])), head_of, formats):
        head, format_ = head_of(group[0]), formats[group[0]]
        first = None if format_ == "log" else first_of(group[0])
        look = look_at(head, is_event) if format_ == "log" else Look(b"", None, events=False)
        told_apart = look.first if look.stamp else head[:256]
        if first is not None:
            told_apart = b"%d %b %b" % (first[0], first[1].encode(), first[2])
        identity: tuple[bytes, ...] = (_stem(group).encode("utf-8", "surrogateescape"), told_apart)
        while identity in taken:
            identity = (*identity, b"again")
        taken.add(identity)
        threads = tuple(_thread(path) if len(group) > 1 else None for path in group)
        told = next((roles[path] for path in group if path in roles), None)
        found.append(TraceInput(group, threads, told, identity, format_, head[:_HEAD_BYTES], look, first))
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


def _stem(group: Sequence[str]) -> str:
    """The file's name without what may differ between two copies of the same log: folder and compression."""
    name = re.sub(r"\.(gz|xz)$", "", base_name(group[0]))
    named = _THREAD_FILE.match(name) if len(group) > 1 else None
    return named["stem"] if named else name
