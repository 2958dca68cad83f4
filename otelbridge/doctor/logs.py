"""What the logs of a folder hold: whether they can be read, which trace events are in them, whether those have times."""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from otelbridge.catalogue.hot import COSTLY, hot_events
from otelbridge.doctor.findings import Finding, named
from otelbridge.errors import FormatError
from otelbridge.readers.detect import detect
from otelbridge.readers.rotated import in_order, is_packed, rotated_from
from otelbridge.service.follow.patterns import Pattern, excluded
from otelbridge.view.text import count_text

DEFAULT_FOLDER = Path("/var/log/libvirt/qemu")
ALL_BYTES = 64 << 20
"""So much is read of all logs together."""
_LOG_BYTES = 8 << 20
_LEAST_BYTES = 1 << 16
_HEAD_BYTES = 1 << 16
_MINUTE_S = 60
_SHOWN_EVENTS = 6
_COSTLY_SHARE = 2

# 19625@1795407950.847563:migrate_set_state new state setup
# 2026-11-23T04:30:01.123456Z migrate_set_state new state setup
# migrate_set_state new state setup
_LINE = re.compile(
    rb"^(?:\d{1,10}@(?P<second>\d{1,11})\.\d{6}:|(?P<iso>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d{1,6})?Z )?"
    rb"(?P<name>[A-Za-z_]\w*)(?: [^\n]*)?$",
    re.MULTILINE,
)


@dataclass
class LogFacts:
    """One log with its rotated parts.

    Attributes:
        path: The log.
        lacking: Which right is missing to read it, in words; empty if it can be read.
        format: A word of `--format`; empty if it is in none.
        size_bytes: With its rotated parts.
        stamped: How often each event was seen with a time.
        unstamped: How often without.
        last_ended_unstamped: Its newest event has no time.
        newest_s: The newest time, in Unix seconds.
        pace_bytes: So many bytes of it lie within the busiest minute.
    """

    path: str
    lacking: str = ""
    format: str = "log"
    size_bytes: int = 0
    stamped: Counter[str] = field(default_factory=Counter)
    unstamped: Counter[str] = field(default_factory=Counter)
    last_ended_unstamped: bool = False
    newest_s: int | None = None
    pace_bytes: int = 0


@dataclass
class FolderFacts:
    """All logs that were looked for.

    Attributes:
        sought: Where, as the user may know it.
        lacking: Why a folder cannot be looked into, in words; empty if it can.
        absent: There is no such folder.
    """

    sought: str
    lacking: str = ""
    absent: bool = False
    logs: list[LogFacts] = field(default_factory=list)


# --- gathering --------------------------------------------------------------------------------------


def look_at_folder(folder: Path, is_event: Callable[[str], bool]) -> FolderFacts:
    """The logs in a folder: every file whose name ends in `.log`."""
    facts = FolderFacts(f"{folder}/*.log")
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208  # names are enough
    except (FileNotFoundError, NotADirectoryError):
        facts.absent = True
        return facts
    except OSError as error:
        facts.lacking = missing_right(folder, os.R_OK | os.X_OK) or f"'{folder}': {error.strerror}"
        return facts
    if not os.access(folder, os.X_OK):
        facts.lacking = missing_right(folder, os.X_OK)
        return facts
    paths = [f"{folder}/{name}" for name in names if name.endswith(".log")]
    facts.logs = _logs([path for path in paths if _may_be_file(path)], is_event)
    return facts


def look_at_patterns(inputs: Sequence[tuple[Sequence[str], Sequence[str]]], is_event: Callable[[str], bool]) -> FolderFacts:
    """The logs that a configuration names.

    Args:
        inputs: The patterns of each input, and those of what it leaves out.
        is_event: Whether QEMU has an event of this name.
    """
    files: set[str] = set()
    for patterns, exclude in inputs:
        found = {path for text in patterns for path in Pattern(text).paths(_names)}
        files |= {path for path in found if not any(excluded(path, pattern) for pattern in exclude)}
    files = {path for path in files if not rotated_from(Path(path).name) and _may_be_file(path)}
    sought = [text for patterns, _ in inputs for text in patterns]
    facts = FolderFacts(" and ".join(sought))
    facts.logs = _logs(sorted(files), is_event)
    if not files:
        folders = [Path(text.partition("*")[0] + "x").parent for text in sought]
        facts.lacking = next((right for folder in folders if (right := missing_right(folder, os.R_OK | os.X_OK))), "")
    return facts


def _may_be_file(path: str) -> bool:
    """Whether it is a file, or cannot be looked at. A pipe would be waited for, and what is in it taken away."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116  # paths are texts here
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208
    except OSError:
        return []


def _logs(paths: Sequence[str], is_event: Callable[[str], bool]) -> list[LogFacts]:
    share = max(_LEAST_BYTES, min(_LOG_BYTES, ALL_BYTES // max(1, len(paths))))
    rotated = {folder: _rotated(folder) for folder in {Path(path).parent for path in paths}}
    return [_look_at(Path(path), rotated[Path(path).parent][Path(path).name], share, is_event) for path in paths]


def _rotated(folder: Path) -> Mapping[str, list[tuple[str, int]]]:
    """The rotated parts in a folder, with a time each that does not matter, by the name of their log."""
    found: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    for name in _names(str(folder)):
        if base := rotated_from(name):
            found[base].append((name, 0))
    return found


def _look_at(path: Path, rotated: Sequence[tuple[str, int]], limit_bytes: int, is_event: Callable[[str], bool]) -> LogFacts:
    facts = LogFacts(str(path))
    try:
        facts.format = _format(path, is_event)
        parts = [path.parent / name for name in in_order(path.name, rotated) if _may_be_file(f"{path.parent}/{name}")]
        facts.size_bytes = sum(part.stat().st_size for part in (*parts, path))
        plain = [path, *(part for part in reversed(parts) if not is_packed(part.name))]
        if facts.format == "log":
            count(facts, _newest(plain, limit_bytes), is_event)
    except OSError as error:
        facts.lacking = missing_right(path, os.R_OK) or f"'{path}': {error.strerror}"
    return facts


def _format(path: Path, is_event: Callable[[str], bool]) -> str:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    try:
        return detect(head, str(path), is_event).format if head else "log"
    except FormatError:
        return ""


def _newest(parts: Iterable[Path], limit_bytes: int) -> list[bytes]:
    """The last bytes of a log, a block of each of its parts, oldest first."""
    blocks: list[bytes] = []
    for part in parts:
        if limit_bytes <= 0:
            break
        with part.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - limit_bytes))
            blocks.append(file.read(limit_bytes))
        limit_bytes -= len(blocks[-1])
    return blocks[::-1]


def count(facts: LogFacts, blocks: Iterable[bytes], is_event: Callable[[str], bool]) -> None:
    """Count the events of a log and how many bytes came in its busiest minute."""
    bytes_at: Counter[int] = Counter()
    for block in blocks:
        for line in _LINE.finditer(block):
            name = line["name"].decode("ascii")
            if not is_event(name):
                continue
            second = int(line["second"]) if line["second"] else _iso_second(line["iso"]) if line["iso"] else None
            facts.last_ended_unstamped = second is None
            if second is None:
                facts.unstamped[name] += 1
                continue
            facts.stamped[name] += 1
            bytes_at[second] += line.end() - line.start() + 1
            facts.newest_s = max(second, facts.newest_s or 0)
    facts.pace_bytes = busiest_minute(bytes_at)


def busiest_minute(bytes_at: Counter[int]) -> int:
    """The most bytes that lie within 60 seconds, of bytes by second."""
    seconds = sorted(bytes_at)
    most = within = first = 0
    for second in seconds:
        within += bytes_at[second]
        while seconds[first] <= second - _MINUTE_S:
            within -= bytes_at[seconds[first]]
            first += 1
        most = max(most, within)
    return most


def _iso_second(text: bytes) -> int | None:
    try:
        return int(datetime.fromisoformat(text.decode("ascii")).replace(tzinfo=UTC).timestamp())
    except ValueError:
        return None


def missing_right(path: Path, right: int) -> str:
    """Which right this user lacks, at the path or at the first folder above it that shuts him out; empty if none."""
    for folder in reversed(path.absolute().parents):
        if folder.exists() and not os.access(folder, os.X_OK):
            return f"'{folder}' cannot be entered (the right 'x' is missing; it is {_owned(folder)})"
    if not os.path.lexists(path) or os.access(path, right):
        return ""
    rights = (("r", os.R_OK), ("w", os.W_OK), ("x", os.X_OK))
    letters = "".join(letter for letter, one in rights if right & one and not os.access(path, one))
    what = "written to" if "w" in letters else "read"
    return f"'{path}' cannot be {what} (the right '{letters}' is missing; it is {_owned(path)})"


def _owned(path: Path) -> str:
    """`of root:adm, mode 0640`."""
    found = path.stat()
    try:
        user = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        user = str(found.st_uid)
    try:
        group = grp.getgrgid(found.st_gid).gr_name
    except KeyError:
        group = str(found.st_gid)
    return f"of {user}:{group}, mode {stat.S_IMODE(found.st_mode):04o}"


# --- deciding ---------------------------------------------------------------------------------------

_READ_HELP = (
    "run it as root, or with the capability CAP_DAC_READ_SEARCH alone, as the unit in deploy/systemd does; "
    "libvirt makes new logs readable for root only, so rights given to the files there are today do not last"
)
_SWITCH_ON = "'otelbridge mapping events --format libvirt' (or qmp, hmp, virsh) prints what switches them on"


def log_findings(facts: FolderFacts, user: str, wanted: Collection[str]) -> list[Finding]:
    """What is to be said of the logs.

    Args:
        facts: What is there.
        user: Who looked.
        wanted: The events of migration, those that the shipped mappings use.
    """
    if not facts.sought:
        return []
    if facts.absent:
        return [
            Finding(
                "problem", "logs", f"there is no folder of the logs '{facts.sought}'",
                "name the folder of QEMU's logs: /var/log/libvirt/qemu, ~/.cache/libvirt/qemu/log for a user's own machines, "
                "/var/run/kubevirt-private/libvirt/qemu/log in KubeVirt's virt-launcher",
            )
        ]  # fmt: skip
    if facts.lacking:
        return [Finding("problem", "logs", f"as {user}, {facts.lacking}", _READ_HELP)]
    if not facts.logs:
        return [
            Finding(
                "warning", "logs", f"no log matches '{facts.sought}'",
                "libvirt writes one when a domain is started; without libvirt start QEMU with -D FILE.log",
            )
        ]  # fmt: skip
    readable = [log for log in facts.logs if not log.lacking]
    shut = [log for log in facts.logs if log.lacking]
    findings = []
    if readable:
        findings.append(Finding("ok", "logs", f"{user} can read {count_text(len(readable), 'log')}: {_names_of(readable)}"))
    if shut:
        text = f"as {user}, {shut[0].lacking}" + (f", and {len(shut) - 1:,} more" if len(shut) > 1 else "")
        findings.append(Finding("problem", "logs", text, _READ_HELP))
    if readable:
        findings += _of_content(readable, wanted)
    return findings


def _of_content(logs: Sequence[LogFacts], wanted: Collection[str]) -> list[Finding]:
    findings = []
    if strange := [log for log in logs if not log.format]:
        findings.append(
            Finding(
                "warning", "logs", f"{_names_of(strange)}: no text, and no trace that is known", "leave it out by 'exclude'"
            )
        )
    if others := [log for log in logs if log.format not in ("", "log")]:
        formats = ", ".join(sorted({log.format for log in others}))
        text = f"{_names_of(others)}: traces of the format {formats}, which were not looked into"
        findings.append(Finding("ok", "events", text))
    texts = [log for log in logs if log.format == "log"]
    if not texts:
        return findings
    return [*findings, *_of_events(texts, wanted), *_of_stamps(texts)]


def _of_events(logs: Sequence[LogFacts], wanted: Collection[str]) -> list[Finding]:
    events: Counter[str] = Counter()
    for log in logs:
        events += log.stamped + log.unstamped
    if not events:
        text = f"no trace event is in {_names_of(logs)}"
        help_ = f"{_SWITCH_ON}; if they are on, there was no migration since the logs began"
        return [Finding("warning", "events", text, help_)]
    of_migration = [event for event, _ in events.most_common() if event in wanted]
    if not of_migration:
        text = f"{count_text(len(events), 'trace event')} in the logs, none of migration: {_listed(events, events)}"
        return [Finding("warning", "events", text, _SWITCH_ON)]
    text = f"{count_text(len(of_migration), 'event')} of migration in the logs: {_listed(events, of_migration)}"
    costly = {event: n for event, n in events.items() if event in hot_events() and hot_events()[event].kind in COSTLY}
    if sum(costly.values()) * _COSTLY_SHARE <= events.total():
        return [Finding("ok", "events", text)]
    share = f"{100 * sum(costly.values()) // events.total()} %"
    return [
        Finding("ok", "events", text),
        Finding(
            "warning", "events", f"{share} of the events come for every page, field or packet: {_listed(events, costly)}",
            "switch them off, they fill the logs: 'otelbridge mapping events' leaves them out",
        ),
    ]  # fmt: skip


def _of_stamps(logs: Sequence[LogFacts]) -> list[Finding]:
    bare = [log for log in logs if log.last_ended_unstamped]
    findings = []
    if bare:
        findings.append(
            Finding(
                "problem", "stamps", f"events without a time stamp are in {_names_of(bare)}",
                "start QEMU with -msg timestamp=on (from QEMU 6.0 on events have no stamps without it); libvirt does so unless "
                "log_timestamp = 0 stands in /etc/libvirt/qemu.conf",
            )
        )  # fmt: skip
    if stamped := [log for log in logs if log.stamped and not log.last_ended_unstamped]:
        findings.append(Finding("ok", "stamps", f"events have time stamps in {_names_of(stamped)}"))
    return findings


def _names_of(logs: Sequence[LogFacts]) -> str:
    return named([Path(log.path).name for log in logs])


def _listed(events: Counter[str], chosen: Iterable[str]) -> str:
    names = sorted(chosen, key=lambda event: (-events[event], event))
    shown = ", ".join(f"{name} ({events[name]:,})" for name in names[:_SHOWN_EVENTS])
    return f"{shown}, …" if len(names) > _SHOWN_EVENTS else shown
