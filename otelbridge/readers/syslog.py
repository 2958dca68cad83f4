"""The syslog backend's events, in the files that syslog daemons write and in what `journalctl` prints of them as text.

    Nov 23 04:30:07 vm qemu-system-x86_64[23115]: savevm_section_end ram, section_id 1 -> 0                            RFC 3164
    Nov 23 04:30:07.397527 vm qemu-system-x86_64[23115]: …                              journalctl -o short-precise
    2026-11-23T04:30:07.397547+00:00 vm qemu-system-x86_64[23115]: …                    rsyslog, journalctl -o short-iso
    1795408207.397527 vm qemu-system-x86_64[23115]: …                                   journalctl -o short-unix
    <30>1 2026-11-23T04:30:07.397547+00:00 vm qemu-system-x86_64 23115 - -  …           RFC 5424

A stamp without a year gets the year in which it follows the stamp before; one without a zone is of the zone that the caller
names. The process is known, the thread is not. A line `message repeated 3 times: [ …]` stands for three events.

Source: RFC 3164, RFC 5424; rsyslog's templates and its escaping of control characters as `#012`; systemd's journalctl.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

from otelbridge.errors import FormatError
from otelbridge.readers.lines import Found, LineReader, Windows
from otelbridge.records import SECOND_NS, Plan

_MONTHS = {m: n + 1 for n, m in enumerate(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split())}
_DAY_S, _BACK_S, _YEAR_S = 86_400, 31 * 86_400, 366 * 86_400
"""A stamp without a year is at most a month earlier than the one before it; daemons keep no stricter order."""

_COARSE = (
    rb"([A-Z][a-z][a-z] [ \d]\d \d\d:\d\d:\d\d"
    rb"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d|\d{9,11}(?=\.))(?:\.(\d{1,9}))?+(Z|[+-]\d\d:?\d\d)?+"
)
_DATA = rb"(?:-|(?:\[(?:[^\]\"\n]|\"(?:[^\"\\\n]|\\.)*+\")*+\])++)"


def _prefix(program: bytes) -> bytes:
    """All that stands before a message of such a program."""
    return (
        rb"(?:<\d{1,3}>)?+(?:1 (?=\d{4}-))?+" + _COARSE + rb" (?:(?:[^ \n]++ )??" + program + rb"\[(\d{1,10})\]: ?+"
        rb"|[^ \n]++ " + program + rb" (\d{1,10}) [^ \n]++ " + _DATA + rb" ++(?:\xef\xbb\xbf)?+ *+)"
    )


_LINE = re.compile(
    _prefix(rb"[^ \n\[]++")
    + rb"(?:message repeated (\d{1,9}) times: \[ ?+)?+([A-Za-z_]\w*+)(?: ([^\n]*+)|\])?+\r?+\n|([^\n]*+)\n"
)
_EVENT = re.compile(
    rb"^"
    + _prefix(rb"[^ \n\[]{0,64}?(?:qemu|kvm)[^ \n\[]*+")
    + rb"(?:message repeated \d{1,9} times: \[ ?)?[a-z]\w*_\w+(?:[ \]]|\r?$)",
    re.MULTILINE,
)
# systemd-journald[412]: Suppressed 5120 messages from machine-qemu\x2d1\x2dweb.scope
# rsyslogd: imuxsock[pid: 23115, name: qemu-system-x86_64] … lost 512 messages from process due to rate-limiting
# rsyslogd: imjournal: 512 messages lost due to rate-limiting
_SUPPRESSED = re.compile(rb"\b(?:Suppressed|lost) (\d{1,18}) messages\b|\b(\d{1,18}) messages lost\b")
_ESCAPE = re.compile(rb"#(0[0-3][0-7]|177)")


def syslog_reader(
    plan: Plan,
    is_event: Callable[[str], bool],
    decode_sums: Callable[[str, bytes], tuple[Any, ...] | None],
    *,
    not_after_ns: int | None = None,
    zone: tzinfo = UTC,
) -> LineReader:
    """A reader of syslog text.

    Args:
        plan: What the rules need.
        is_event: Whether QEMU has an event of this name.
        decode_sums: As `LogReader` takes it.
        not_after_ns: A time, UTC, after which the first event cannot lie: it tells the year where stamps do not.
        zone: The zone of stamps that name none.

    Raises:
        FormatError: By `feed`: stamps have no year, and `not_after_ns` is not given.
    """
    grammar = SyslogGrammar(not_after_ns, zone)
    return LineReader("syslog", grammar, Windows(plan, is_event, decode_sums, grammar))


def looks_like(head: bytes) -> bool:
    """Whether a message that begins like an event, of a program with `qemu` or `kvm` in its name, stands in the first bytes."""
    return _EVENT.search(head) is not None


def suppressed(text: bytes) -> int:
    """How many messages a daemon says it did not pass on, 0 where it says nothing of that kind."""
    found = _SUPPRESSED.search(text)
    return int(found[1] or found[2]) if found else 0


def suppressed_words(number: int) -> list[str]:
    """The loss in words."""
    return (
        [f"{number} messages were suppressed by the syslog daemon's rate limit, some of them maybe not QEMU's"]
        if number
        else []
    )


class SyslogGrammar:
    """The lines of syslog files."""

    def __init__(self, not_after_ns: int | None, zone: tzinfo) -> None:
        self._not_after_s = None if not_after_ns is None else not_after_ns // SECOND_NS
        self._zone = zone
        self.resolution_ns = 1
        self._digits, self._scale = -1, 1
        self._last_s: int | None = None
        """The second of the last stamp without a year."""
        self._suppressed = 0

    @property
    def gaps(self) -> list[str]:
        """What the daemons say they did not pass on."""
        return suppressed_words(self._suppressed)

    def scan(self, data: bytes) -> Iterator[Found]:
        """See `Grammar.scan`."""
        key = key_zone = b""
        second: int | None = None
        for stamp, fraction, zone, pid, pid2, times, name, raw, other in _LINE.findall(data):
            if not name:
                yield from self._other(other)
                continue
            if stamp != key or zone != key_zone:
                key, key_zone, second = stamp, zone, self._second(stamp, zone)
            if second is None:
                yield None, b"not_trace", b"", None, 1
                continue
            if len(fraction) != self._digits:
                self._digits, self._scale = len(fraction), 10 ** (9 - len(fraction))
                self.resolution_ns = max(self.resolution_ns, self._scale)
            time_ns = second * SECOND_NS + (int(fraction) * self._scale if fraction else 0)
            # A line `message repeated 0 times` would be none; there is none.
            yield time_ns, name, raw, (pid or pid2, times), int(times) or 1 if times else 1

    def _other(self, line: bytes) -> Iterator[Found]:
        if b" messages" in line and (number := suppressed(line)):
            self._suppressed += number
            yield None, b"dropped_by_qemu", b"", None, number
        yield None, b"not_trace", b"", None, 1

    def row(self, raw: bytes, who: tuple[bytes, bytes]) -> tuple[bytes, int | None, int | None]:
        """See `Grammar.row`."""
        process, folded = who
        raw = raw.removesuffix(b"\r")
        if folded:
            raw = raw.removesuffix(b"]")
        if b"#" in raw:
            raw = _ESCAPE.sub(lambda found: bytes([int(found[1], 8)]), raw)
        return raw, None, int(process)

    def foreign(self, name: bytes, raw: bytes) -> tuple[str, int]:
        """Messages of all programs stand in the file, those of the journal's rate limit among them."""
        number = suppressed(name + b" " + raw) if b"messages" in raw else 0
        self._suppressed += number
        return "not_trace", number

    def _second(self, stamp: bytes, zone: bytes) -> int | None:
        """Unix seconds of a stamp, None for a moment that does not exist or lies before 1970."""
        if stamp.isdigit():
            return int(stamp)
        try:
            if stamp[:1].isdigit():
                moment = datetime.fromisoformat(stamp.decode("ascii")).replace(tzinfo=self._zone_of(zone))
                second = int(moment.timestamp())
            else:
                day, hour, minute, second = (int(part) for part in re.split(rb"[ :]+", stamp[4:].strip()))
                found = self._yearless(_MONTHS[stamp[:3]], day, hour, minute, second)
                second = -1 if found is None else found
        except (ValueError, KeyError, OverflowError):
            return None
        return second if second >= 0 else None

    def _zone_of(self, zone: bytes) -> tzinfo:
        if not zone:
            return self._zone
        digits = zone[1:].replace(b":", b"")
        if not digits:
            return UTC
        minutes = int(digits[:2]) * 60 + int(digits[2:])
        return timezone(timedelta(minutes=-minutes if zone.startswith(b"-") else minutes))

    def _yearless(self, month: int, day: int, hour: int, minute: int, second: int) -> int | None:
        if self._last_s is not None:
            latest = self._last_s + _YEAR_S - _BACK_S
        elif self._not_after_s is not None:
            # A clock may be a little wrong.
            latest = self._not_after_s + _DAY_S
        else:
            raise FormatError(
                "its stamps have no year, and nothing tells which one it is: the time of the file's last change is not known. "
                "Give the file itself, not a pipe, or let the syslog daemon write full stamps "
                "(rsyslog: RSYSLOG_FileFormat); nothing of it was converted."
            )
        year = datetime.fromtimestamp(latest, self._zone).year
        for candidate in range(year, year - 9, -1):
            # 29 February is in leap years alone.
            with suppress(ValueError):
                found = int(datetime(candidate, month, day, hour, minute, second, tzinfo=self._zone).timestamp())
                if found <= latest:
                    self._last_s = found
                    return found
        return None

    def snapshot(self) -> dict[str, Any]:
        """See `Grammar.snapshot`."""
        return {"last_s": self._last_s, "resolution_ns": self.resolution_ns, "suppressed": self._suppressed}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Grammar.restore`."""
        self._last_s, self.resolution_ns, self._suppressed = state["last_s"], state["resolution_ns"], state["suppressed"]
