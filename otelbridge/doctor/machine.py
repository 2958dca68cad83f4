"""The machine itself: room for the outbox, the clock, how many files may be open."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from otelbridge.doctor.findings import Finding
from otelbridge.doctor.logs import LogFacts, missing_right
from otelbridge.records import SECOND_NS
from otelbridge.view.text import bytes_text, count_text, duration_text, time_text

OWN_FILES = 64
"""Files, sockets and connections that the service has open beside the logs."""

_MIB = 1 << 20
_FIRST_YEAR, _LAST_YEAR = 2025, 2100
_TIME_ERROR = 5
_TIMEX_BYTES = 1024
_AHEAD_S = 60


class OutboxFacts(NamedTuple):
    """The folder of the outbox.

    Attributes:
        folder: Where it is, or will be made; None if nothing says where.
        lacking: Why nothing can be written there, in words; empty if it can.
        exists: The folder is there.
        free_bytes: Room on its disk for this user.
        limit_bytes: How large the outbox may get.
    """

    folder: Path | None
    lacking: str = ""
    exists: bool = False
    free_bytes: int = 0
    limit_bytes: int = 256 * _MIB


class ClockFacts(NamedTuple):
    """The clock of this host.

    Attributes:
        now_s: Unix seconds.
        synchronised: Whether the kernel says that something keeps it right; None if it does not say.
        local_hardware: The hardware's clock is said to be in local time.
    """

    now_s: int
    synchronised: bool | None
    local_hardware: bool


# --- gathering --------------------------------------------------------------------------------------


def look_at_outbox(folder: Path | None, limit_bytes: int) -> OutboxFacts:
    """Whether the service could write there. Nothing is written to find out."""
    if folder is None:
        return OutboxFacts(None, limit_bytes=limit_bytes)
    there = next(each for each in (folder, *folder.absolute().parents) if os.path.lexists(each))
    exists = there == folder
    if not there.is_dir():
        return OutboxFacts(folder, f"'{there}' is no folder", exists, limit_bytes=limit_bytes)
    room = os.statvfs(there)
    lacking = ""
    if room.f_flag & os.ST_RDONLY:
        lacking = f"'{there}' is on a file system that is mounted read-only"
    elif not os.access(there, os.W_OK | os.X_OK):
        lacking = missing_right(there, os.W_OK | os.X_OK)
    return OutboxFacts(folder, lacking, exists, room.f_bavail * room.f_frsize, limit_bytes)


def look_at_clock(now_s: int, root: Path) -> ClockFacts:
    """What the kernel and `/etc/adjtime` say of the clock."""
    lines: Sequence[str] = ()
    with contextlib.suppress(OSError):
        lines = root.joinpath("etc/adjtime").read_text("utf-8", errors="replace").split()
    return ClockFacts(now_s, _synchronised(), "LOCAL" in lines)


def _synchronised() -> bool | None:
    """What adjtimex(2) returns when nothing is to be set."""
    try:
        state = int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def open_files() -> int:
    """How many files a process of this user may have open; -1 without a limit."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


# --- deciding ---------------------------------------------------------------------------------------


def outbox_finding(facts: OutboxFacts, user: str) -> Finding:
    """Whether requests and positions can be kept."""
    if facts.folder is None:
        return Finding(
            "problem", "outbox", "there is no folder for the outbox",
            "set STATE_DIRECTORY (systemd's StateDirectory= does), XDG_STATE_HOME or HOME, or 'outbox: {folder: …}'",
        )  # fmt: skip
    if facts.lacking:
        return Finding(
            "problem", "outbox", f"{user} cannot keep the outbox in '{facts.folder}': {facts.lacking}",
            "make the folder and give it to the service's user, or name another by 'outbox: {folder: …}'; "
            "without it, what waits is lost when the service ends",
        )  # fmt: skip
    fate = "" if facts.exists else ", which will be made,"
    text = (
        f"the outbox '{facts.folder}'{fate} may take {bytes_text(facts.limit_bytes)}, {bytes_text(facts.free_bytes)} are free"
    )
    if facts.free_bytes < facts.limit_bytes:
        return Finding("warning", "outbox", text, "make room, or set a smaller 'limit' of the outbox")
    return Finding("ok", "outbox", text)


def clock_findings(facts: ClockFacts, logs: Sequence[LogFacts]) -> list[Finding]:
    """Whether this clock can be the one of a trace of two hosts."""
    now = time_text(facts.now_s * SECOND_NS)
    year = datetime.fromtimestamp(facts.now_s, UTC).year
    if not _FIRST_YEAR <= year <= _LAST_YEAR:
        return [Finding("problem", "clock", f"this host's clock shows {now}", "set it, and have chrony or ntpd keep it right")]
    findings = []
    newest = max((log for log in logs if log.newest_s), key=lambda log: log.newest_s or 0, default=None)
    if newest is not None and newest.newest_s is not None and newest.newest_s > facts.now_s + _AHEAD_S:
        ahead = duration_text((newest.newest_s - facts.now_s) * SECOND_NS)
        findings.append(
            Finding(
                "warning", "clock", f"{Path(newest.path).name!r} has events {ahead} ahead of this host's clock ({now})",
                "the clock was set back, or the log is of another host: backends may hide or refuse what lies in the future",
            )
        )  # fmt: skip
    if facts.local_hardware:
        findings.append(
            Finding(
                "warning", "clock", "/etc/adjtime says that the hardware's clock is in local time",
                "timedatectl set-local-rtc 0: otherwise times are hours off from boot until the clock is synchronised",
            )
        )  # fmt: skip
    if facts.synchronised is False:
        findings.append(
            Finding(
                "warning", "clock", f"nothing keeps this host's clock right, says its kernel; it shows {now}",
                "run chrony or ntpd on both hosts; otelbridge only moves a destination's times where they cannot be right",
            )
        )  # fmt: skip
    if not findings:
        kept = " and is kept right" if facts.synchronised else ""
        findings.append(Finding("ok", "clock", f"this host's clock shows {now}{kept}"))
    return findings


def files_finding(limit: int, logs: int) -> Finding:
    """Whether all logs can be open at a time."""
    needed = logs + OWN_FILES
    if limit < 0 or limit >= needed:
        shown = "without a limit" if limit < 0 else f"{limit:,}"
        return Finding("ok", "files", f"files that may be open: {shown}; {count_text(logs, 'log')} need about {needed:,}")
    return Finding(
        "warning", "files", f"only {count_text(limit, 'file')} may be open; {count_text(logs, 'log')} need about {needed:,}",
        f"ulimit -n {needed * 2}, or LimitNOFILE={needed * 2} in the unit",
    )  # fmt: skip
