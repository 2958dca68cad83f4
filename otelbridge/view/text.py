"""Words and numbers as a terminal may show them: log text made harmless, durations, counts, times."""

from __future__ import annotations

from datetime import UTC, datetime

from otelbridge.records import SECOND_NS

_MINUTE_NS = 60 * SECOND_NS
_HOUR_NS = 60 * _MINUTE_NS
_BYTE_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Categories that steer a terminal, change the order of what is read, or have no agreed width."""


def clean(text: str) -> str:
    r"""The text with nothing in it that a terminal would act on.

    Controls (C0, C1, DEL, line ends), format characters (bidirectional overrides, joiners), lone surrogates, private and
    unassigned characters and variation selectors appear as `\x1b`, `\u202e` or `\U000e0001`. Markup of rich stays as it is:
    pass the result on as a `rich.text.Text`, never as markup.
    """
    if text.isascii() and text.isprintable():
        return text
    from unicodedata import category  # noqa: PLC0415  # most text is ASCII

    return "".join(_escaped(c) if category(c) in _UNSEEN or _is_selector(c) else c for c in text)


def _is_selector(character: str) -> bool:
    return "\ufe00" <= character <= "\ufe0f" or character >= "\U000e0000"


def _escaped(character: str) -> str:
    number = ord(character)
    if number <= 0xFF:  # noqa: PLR2004
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"  # noqa: PLR2004


def duration_text(duration_ns: int) -> str:
    """A duration with three significant digits at most: `45 us`, `310 ms`, `2.04 s`, `1 min 12 s`, `2 h 05 min`."""
    if duration_ns < 0:
        return f"-{duration_text(-duration_ns)}"
    for unit, size_ns in (("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", SECOND_NS)):
        value = _three_digits(duration_ns, size_ns)
        if float(value) < (60 if unit == "s" else 1_000):
            return f"{value} {unit}"
    if (seconds := _rounded(duration_ns, SECOND_NS)) < _HOUR_NS // SECOND_NS:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    minutes = _rounded(duration_ns, _MINUTE_NS)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _three_digits(value: int, size: int) -> str:
    """`value / size` with three significant digits, without zeros that say nothing: 310, 31.5, 2.04, 2."""
    shown = value / size
    decimals = 2 if shown < 9.995 else 1 if shown < 99.95 else 0  # noqa: PLR2004
    text = f"{shown:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _rounded(value: int, size: int) -> int:
    return (value + size // 2) // size


def count_text(count: int, noun: str = "") -> str:
    """A number with its thousands apart, and its noun in the right number: `1 span`, `4,812 spans`."""
    if not noun:
        return f"{count:,}"
    return f"{count:,} {noun if count == 1 else noun + 's'}"


def bytes_text(count: int) -> str:
    """An amount of bytes in binary units: `512 B`, `1.5 GiB`."""
    if count < 1024:  # noqa: PLR2004
        return f"{count} B"
    size, unit = 1, "B"
    for larger in _BYTE_UNITS:
        if count < size * 1024:
            break
        size, unit = size * 1024, larger
    return f"{_three_digits(count, size)} {unit}"


def time_text(time_ns: int) -> str:
    """A moment in UTC, to the millisecond: `2026-03-01 03:00:12.345 UTC`."""
    seconds, rest = divmod(time_ns, SECOND_NS)
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        return f"{time_ns} ns since 1970"
    return f"{moment:%Y-%m-%d %H:%M:%S}.{rest // 1_000_000:03d} UTC"
