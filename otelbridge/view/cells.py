"""Text in cells of a terminal: cut, padded and wrapped to a width."""

from __future__ import annotations

from rich.cells import cell_len, chop_cells, set_cell_size


def crop(text: str, width: int, ellipsis: str = "…") -> str:
    """The text in at most `width` cells of a terminal; what is cut off is marked."""
    if cell_len(text) <= width:
        return text
    room = width - cell_len(ellipsis)
    return set_cell_size(text, room).rstrip() + ellipsis if room > 0 else set_cell_size(text, max(0, width))


def padded(text: str, width: int, ellipsis: str = "…", *, right: bool = False) -> str:
    """The text in exactly `width` cells, against the left or the right."""
    shown = crop(text, width, ellipsis)
    blanks = " " * (width - cell_len(shown))
    return blanks + shown if right else shown + blanks


def wrapped(text: str, width: int, max_lines: int, ellipsis: str = "…") -> list[str]:
    """The text in lines of at most `width` cells, broken between words where it can be; the last line shows a cut."""
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        joined = f"{line} {word}" if line else word
        if cell_len(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        *full, line = chop_cells(word, width) if word else [""]
        lines += full
    lines.append(line)
    if len(lines) > max_lines:
        lines = [*lines[: max_lines - 1], crop(f"{lines[max_lines - 1]} {lines[max_lines]}{ellipsis * width}", width, ellipsis)]
    return lines
