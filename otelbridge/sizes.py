"""Numbers of bytes as people write them: `512KiB`, `256MiB`, `1.5GiB`."""

from __future__ import annotations

import re

_SIZE = re.compile(r"(\d{1,18})(?:\.(\d{1,18}))?\s*([KMGT]i)?B")
_UNITS = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}


def size_bytes(text: str) -> int | None:
    """Bytes of `256MiB`; None for anything else, numbers without a unit too."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        return None
    unit, fraction = _UNITS[found[3] or ""], found[2] or "0"
    parts: int = 10 ** len(fraction)
    return int(found[1]) * unit + int(fraction) * unit // parts


def size_text(size: int) -> str:
    """A number of bytes with the largest unit that leaves it whole."""
    word, unit = max(((word, unit) for word, unit in _UNITS.items() if size % unit == 0), key=lambda one: one[1])
    return f"{size // unit}{word}B" if size else "0B"
