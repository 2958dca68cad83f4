"""Patterns of paths: `*`, `?` and `[…]` within a name, `**` for any folders."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterator
from functools import cache

_MAGIC = re.compile(r"[*?\[]")


class Pattern:
    """One pattern. Names that begin with a dot are matched only by a dot, as the shell does it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._names = os.path.abspath(text).split("/")[1:]  # noqa: PTH100  # a Path resolves no `..`

    def matches(self, path: str) -> bool:
        """Whether it names this absolute path."""
        return _fits(self._names, path.split("/")[1:])

    def paths(self, listing: Callable[[str], list[str]]) -> Iterator[str]:
        """All paths that it names, absolute. Names without a wildcard are not looked for: they may not be there.

        Args:
            listing: The names in a folder, none if it cannot be read.
        """
        yield from _walk("", self._names, listing)


def excluded(path: str, pattern: str) -> bool:
    """Whether a pattern of `exclude` names this path; one without a slash is compared with the file's name alone."""
    if "/" in pattern:
        return _compiled(pattern).matches(path)
    return fnmatch.fnmatchcase(os.path.basename(path), pattern)  # noqa: PTH119  # a Path costs five times as much


@cache
def _compiled(text: str) -> Pattern:
    return Pattern(text)


@cache
def _fitting(name: str) -> re.Pattern[str]:
    hidden = "" if name.startswith(".") else r"(?!\.)"
    return re.compile(hidden + fnmatch.translate(name))


def _fits(names: list[str], parts: list[str]) -> bool:
    if not names:
        return not parts
    if names[0] == "**":
        return any(_fits(names[1:], parts[skipped:]) for skipped in range(len(parts) + 1))
    return bool(parts) and _fitting(names[0]).match(parts[0]) is not None and _fits(names[1:], parts[1:])


def _walk(folder: str, names: list[str], listing: Callable[[str], list[str]]) -> Iterator[str]:
    if not names:
        yield folder
        return
    name, rest = names[0], names[1:]
    if name == "**":
        yield from _walk(folder, rest, listing)
        for each in listing(folder or "/"):
            if not each.startswith(".") and _is_folder(f"{folder}/{each}"):
                yield from _walk(f"{folder}/{each}", names, listing)
    elif not _MAGIC.search(name):
        yield from _walk(f"{folder}/{name}", rest, listing)
    else:
        fitting = _fitting(name)
        for each in listing(folder or "/"):
            if fitting.match(each):
                yield from _walk(f"{folder}/{each}", rest, listing)


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)  # noqa: PTH112, PTH114  # as above
