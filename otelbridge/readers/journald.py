"""The syslog backend's events in systemd's journal: `journalctl -o json`, and `journalctl -o export`.

An entry's text is in MESSAGE, without the blanks at its end. `-o json` writes it as a string, as an array of byte values where
it is not UTF-8 or has control characters, and as null where it is longer than 4 KiB and `--all` was not given. The time is that
of sending, where the journal has it, else that of receipt; both are UTC. The process is known, the thread is not.

Source: systemd's journalctl(1), systemd.journal-fields(7), and https://systemd.io/JOURNAL_EXPORT_FORMATS.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from otelbridge.readers.lines import MAX_LINE_BYTES, Found, LineReader, Windows
from otelbridge.readers.syslog import suppressed, suppressed_words
from otelbridge.records import Batch, Plan

_SENT, _RECEIVED = b"_SOURCE_REALTIME_TIMESTAMP", b"__REALTIME_TIMESTAMP"
_PIDS = (b"SYSLOG_PID", b"_PID")
_NEEDED = frozenset((b"MESSAGE", _SENT, _RECEIVED, *_PIDS, b"SYSLOG_IDENTIFIER"))
_PID_DIGITS, _TIME_DIGITS = 10, 19
_MAX_VALUE_BYTES = MAX_LINE_BYTES

# "MESSAGE":"savevm_section_end ram, section_id 1 -> 0"
_KEY_MESSAGE = b'"MESSAGE":"'
_PLAIN = re.compile(rb'([A-Za-z_]\w*+)(?: ([^"\\\n]*+))?+"')
_DIGITS = re.compile(rb'(\d{1,19})"')
_NAME = re.compile(rb"([A-Za-z_]\w*)(?: (.*))?", re.DOTALL)
# Other programs that pass entries on may put blanks between them.
_JSON = re.compile(rb'^\{(?:[^\n]*,)? ?"(?:MESSAGE|__CURSOR)" ?:', re.MULTILINE)
_FIELD = re.compile(rb"[A-Z0-9_]{1,64}")
_EXPORT = re.compile(rb"(?:^|\n)__CURSOR=s=[0-9a-f]+;|(?:^|\n)__REALTIME_TIMESTAMP=\d{10,19}\n")


def journald_reader(
    plan: Plan, is_event: Callable[[str], bool], decode_sums: Callable[[str, bytes], tuple[Any, ...] | None]
) -> JournaldReader:
    """A reader of `journalctl`'s JSON lines or its export format, whichever comes; the arguments are those of `LogReader`."""
    return JournaldReader(plan, is_event, decode_sums)


def looks_like(head: bytes) -> bool:
    """Whether an entry of the journal, in one of the two formats, stands in the first bytes."""
    return _JSON.search(head) is not None or _EXPORT.search(head) is not None


class JournaldReader:
    """Tells the two formats apart by the first byte that is no blank, and has the reader of that format read it."""

    format = "journald"

    def __init__(
        self,
        plan: Plan,
        is_event: Callable[[str], bool],
        decode_sums: Callable[[str, bytes], tuple[Any, ...] | None],
    ) -> None:
        grammar = JournalGrammar()
        windows = Windows(plan, is_event, decode_sums, grammar)
        self._json = LineReader("journald", grammar, windows)
        self._export = ExportReader(grammar, windows)
        self._chosen: LineReader | ExportReader | None = None
        self.resolution_ns = grammar.resolution_ns

    @property
    def gaps(self) -> list[str]:
        """Losses that are no matter of single entries, in words."""
        return self._json.gaps

    def feed(self, block: bytes) -> list[Batch]:
        """What the entries that this block completes hold, in batches of one window each."""
        if self._chosen is not None:
            return self._chosen.feed(block)
        entries = block.lstrip()
        before = self._json.feed(block[: len(block) - len(entries)])
        if not entries:
            return before
        self._chosen = self._export if entries.startswith(b"_") else self._json
        return before + self._chosen.feed(entries)

    def finish(self) -> list[Batch]:
        """The rest, at the end of the input. A last entry without an end is torn."""
        return (self._chosen or self._json).finish()

    def snapshot(self) -> dict[str, Any]:
        """Where the reader stands between two blocks, as plain data."""
        return {
            "export": None if self._chosen is None else self._chosen is self._export,
            "json_state": self._json.snapshot(),
            "export_state": self._export.snapshot(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `snapshot`."""
        self._json.restore(state["json_state"])
        self._export.restore(state["export_state"])
        if state["export"] is not None:
            self._chosen = self._export if state["export"] else self._json


class JournalGrammar:
    """What an entry of the journal is, whichever way it is written."""

    resolution_ns = 1000

    def __init__(self) -> None:
        self._suppressed = self._left_out = 0

    @property
    def gaps(self) -> list[str]:
        """What was not passed on or left out."""
        left_out = f"{self._left_out} messages were left out by journalctl because they are long; run it with --all"
        return suppressed_words(self._suppressed) + ([left_out] if self._left_out else [])

    def scan(self, data: bytes) -> Iterator[Found]:
        """See `Grammar.scan`: lines of JSON."""
        for line in data[:-1].split(b"\n"):
            yield _plain(line) or self._parsed(line)

    def _parsed(self, line: bytes) -> Found:
        """An entry in whose text something is escaped, or that is none."""
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            return None, b"torn" if line.startswith(b'{"') else b"not_trace", b"", None, 1
        if not isinstance(entry, dict) or "MESSAGE" not in entry:
            return None, b"not_trace", b"", None, 1
        return self.entry({name: _bytes(entry[name.decode()]) for name in _NEEDED if name.decode() in entry})

    def entry(self, fields: Mapping[bytes, bytes | None]) -> Found:
        """What an entry holds, by its fields; None is a value that was left out."""
        message = fields.get(b"MESSAGE")
        if message is None:
            if b"qemu" not in (fields.get(b"SYSLOG_IDENTIFIER") or b"") or b"MESSAGE" not in fields:
                return None, b"not_trace", b"", None, 1
            self._left_out += 1
            return None, b"malformed", b"", None, 1
        found = _NAME.fullmatch(message)
        stamp = next(
            (s for name in (_SENT, _RECEIVED) if (s := fields.get(name)) and s.isdigit() and len(s) <= _TIME_DIGITS), None
        )
        if found is None or stamp is None:
            return None, b"not_trace", b"", None, 1
        return int(stamp) * 1000, found[1], found[2] or b"", fields, 1

    def row(self, raw: bytes, who: bytes | Mapping[bytes, bytes | None]) -> tuple[bytes, int | None, int | None]:
        """See `Grammar.row`."""
        if isinstance(who, bytes):
            who = {name: _value(who, b'"' + name + b'":"') for name in _PIDS}
        found = (who.get(name) for name in _PIDS)
        process = next((text for text in found if text and text.isdigit() and len(text) <= _PID_DIGITS), None)
        return raw, None, None if process is None else int(process)

    def foreign(self, name: bytes, raw: bytes) -> tuple[str, int]:
        """Messages of all programs stand in the journal, those of its own rate limit among them."""
        number = suppressed(name + b" " + raw) if b"messages" in raw else 0
        self._suppressed += number
        return "not_trace", number

    def snapshot(self) -> dict[str, Any]:
        """See `Grammar.snapshot`."""
        return {"lost": [self._suppressed, self._left_out]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Grammar.restore`."""
        self._suppressed, self._left_out = state["lost"]


def _plain(line: bytes) -> Found | None:
    """An entry whose text needs no unescaping, without parsing the rest of it; None for any other line.

    A quote within a value is escaped, so a name in quotes before a colon is a field's.
    """
    place = line.find(_KEY_MESSAGE)
    if place < 0 or not line.startswith(b"{") or not line.endswith((b"}", b"}\r")):
        return None
    found = _PLAIN.match(line, place + len(_KEY_MESSAGE))
    stamp = _value(line, b'"_SOURCE_REALTIME_TIMESTAMP":"') or _value(line, b'"__REALTIME_TIMESTAMP":"')
    if found is None or stamp is None:
        return None
    name, raw = found.groups(b"")
    return int(stamp) * 1000, name, raw, line, 1


def _value(line: bytes, key: bytes) -> bytes | None:
    place = line.find(key)
    found = _DIGITS.match(line, place + len(key)) if place > 0 else None
    return found[1] if found else None


def _bytes(value: object) -> bytes | None:
    """The bytes of a field: of a string, of an array of byte values, of the first of several values."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if not isinstance(value, list) or not value:
        return None
    first = value[0]
    if isinstance(first, str):
        return _bytes(first)
    byte_values = first if isinstance(first, list) else value
    if all(isinstance(byte, int) and 0 <= byte <= 255 for byte in byte_values):  # noqa: PLR2004  # values of a byte
        return bytes(byte_values)
    return None


class ExportReader:
    """Reads the export format: for a field a line `NAME=text`, or `NAME`, eight bytes of length, the bytes; then a blank line.

    Args:
        grammar: What an entry is.
        windows: Made for the same grammar.
    """

    def __init__(self, grammar: JournalGrammar, windows: Windows) -> None:
        self._grammar, self._windows = grammar, windows
        self._buffer = bytearray()
        self._fields: dict[bytes, bytes] = {}
        self._begun = self._damaged = False
        self._skip = 0
        """Bytes still to be passed over, of a value that is not needed or too long."""
        self._overlong = False
        """Within a line that is too long."""

    def feed(self, block: bytes) -> list[Batch]:
        """What the entries that this block completes hold."""
        self._buffer += block
        place = 0
        while (after := self._field(place)) > place:
            place = after
        del self._buffer[:place]
        return self._windows.taken()

    def finish(self) -> list[Batch]:
        """The rest, at the end of the input. An entry with no blank line after it is torn, unless its last field is whole."""
        if self._begun or self._buffer:
            if self._buffer or self._skip:
                self._damaged = True
            self._end()
        return self._windows.taken()

    def _field(self, place: int) -> int:
        """Take in one field or the end of an entry; give the place after it, the same place where it is not whole yet."""
        buffer = self._buffer
        if self._skip:
            step = min(self._skip, len(buffer) - place)
            self._skip -= step
            return place + step
        end = buffer.find(b"\n", place)
        if self._overlong or (len(buffer) if end < 0 else end) - place > _MAX_VALUE_BYTES:
            self._damaged = self._begun = True
            self._overlong = end < 0
            return len(buffer) if end < 0 else end + 1
        if end < 0:
            return place
        line = bytes(buffer[place:end])
        if not line:
            if self._begun:
                self._end()
            return end + 1
        name, equals, value = line.partition(b"=")
        if equals:
            self._set(name, value)
            return end + 1
        return self._binary(name, place, end + 1)

    def _binary(self, name: bytes, place: int, start: int) -> int:
        if not _FIELD.fullmatch(name):
            self._damaged = self._begun = True
            return start
        size_end = start + 8
        if len(self._buffer) < size_end:
            return place
        size = int.from_bytes(self._buffer[start:size_end], "little")
        if name not in _NEEDED or size > _MAX_VALUE_BYTES:
            self._begun = True
            self._skip = size + 1
            return size_end
        end = size_end + size
        if len(self._buffer) <= end:
            return place
        self._set(name, bytes(self._buffer[size_end:end]))
        return end + 1

    def _set(self, name: bytes, value: bytes) -> None:
        self._begun = True
        if name in _NEEDED:
            self._fields.setdefault(name, value)
        elif not _FIELD.fullmatch(name):
            self._damaged = True

    def _end(self) -> None:
        """An entry is whole."""
        found = self._grammar.entry(self._fields)
        if self._damaged:
            found = (None, b"torn" if found[0] is not None else b"not_trace", b"", None, 1)
        self._windows.take([found])
        self._fields = {}
        self._begun = self._damaged = False

    def snapshot(self) -> dict[str, Any]:
        """Where the reader stands between two blocks, as plain data."""
        return {
            "buffer": bytes(self._buffer).decode("latin-1"),
            "fields": {name.decode("ascii"): value.decode("latin-1") for name, value in self._fields.items()},
            "flags": [self._begun, self._damaged, self._overlong, self._skip],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `snapshot`."""
        self._buffer = bytearray(state["buffer"].encode("latin-1"))
        self._fields = {name.encode("ascii"): value.encode("latin-1") for name, value in state["fields"].items()}
        self._begun, self._damaged, self._overlong, self._skip = state["flags"]
