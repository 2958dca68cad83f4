"""What log rotation does to the names of files: which are parts of one log, and in which order they were written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

# web.log.0  web.log.12.gz  web.log-20261127  web.log-20261127-1795770000.xz  0.log.20261127-101500.gz
# A dash needs a date behind it: `vm-1` and `trace-4711` are names of their own.
_ROTATED = re.compile(
    r"(?P<base>.+?)(?:\.(?P<number>\d{1,3})|[.-](?P<date>\d{4}-?\d\d-?\d\d[\dTZ:._-]*?))(?P<packed>\.gz|\.xz)?"
)


def is_packed(name: str) -> bool:
    """Whether the name says that the file is compressed."""
    return name.endswith((".gz", ".xz"))


def rotated_from(name: str) -> str:
    """The name that a rotated part had when it was written: `web.log` for `web.log.1.gz`, empty for other names."""
    match = _ROTATED.fullmatch(name)
    return match["base"] if match else ""


def in_order(name: str, parts: Iterable[tuple[str, int]]) -> list[str]:
    """The rotated parts of a file, oldest first.

    Numbers fall and dates rise with time. Where both occur, the times of the last changes decide.

    Args:
        name: The file's name.
        parts: Name and time of the last change of each file beside it, whatever it is.
    """
    numbered, dated = [], []
    names = dict(parts)
    for part, mtime_ns in names.items():
        match = _ROTATED.fullmatch(part)
        # Of .1 and .1.gz the packed one is left out: the other is there only while it is being packed.
        if match is None or match["base"] != name or (match["packed"] and part[:-3] in names):
            continue
        if match["number"]:
            numbered.append((-int(match["number"]), mtime_ns, part))
        else:
            dated.append((int(re.sub(r"\D", "", match["date"])), mtime_ns, part))
    if numbered and dated:
        return [part for *_, part in sorted([*numbered, *dated], key=lambda entry: entry[1])]
    return [part for *_, part in sorted(numbered or dated)]


def chains(paths: Sequence[str]) -> list[tuple[str, ...]]:
    """Which of these files are parts of one log by their names: the files of each such log, oldest first, at least two."""
    logs: dict[tuple[Path, str], dict[str, str]] = {}
    for path in paths:
        name = Path(path).name
        logs.setdefault((Path(path).parent.resolve(), rotated_from(name) or _unpacked(name)), {})[name] = path
    found = []
    for (_, base), named in logs.items():
        last = next((name for name in (base, f"{base}.gz", f"{base}.xz") if name in named), None)
        # vm.1 and vm.2 may well be two guests.
        if len(named) > 1 and (last or "." in base or any(map(is_packed, named))):
            rotated = [(name, Path(path).stat().st_mtime_ns) for name, path in named.items() if name != last]
            parts = [*in_order(base, rotated), *([last] if last else [])]
            found += [tuple(named[part] for part in parts)] if len(parts) > 1 else []
    return found


def beside(path: Path) -> list[Path]:
    """The files in a file's folder that are parts of the same log by their names, sorted; the file too if it is a part."""
    rotated = rotated_from(path.name)
    base = rotated or _unpacked(path.name)
    try:
        names = [name for name in os.listdir(path.parent) if name.startswith(base)]  # noqa: PTH208  # there may be thousands
    except OSError:
        return []
    return [path.parent / name for name in sorted(names) if rotated_from(name) == base or name == rotated]


def _unpacked(name: str) -> str:
    return name[:-3] if is_packed(name) else name
