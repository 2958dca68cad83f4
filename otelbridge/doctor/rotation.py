"""How long the trace lines of a log are kept: virtlogd's limits, logrotate's rules, and the pace at which logs grow.

Source: libvirt's virtlogd.conf and qemu.conf (what is commented there is the default); logrotate(8).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from otelbridge.doctor.findings import Finding
from otelbridge.doctor.logs import LogFacts
from otelbridge.records import SECOND_NS
from otelbridge.view.text import bytes_text, duration_text

MAX_SIZE_BYTES = 2 << 20
MAX_BACKUPS = 3
SHORT_S = 600
"""A window that is shorter is worth a warning: an upgrade, or a migration, takes as long."""

_SETTING = re.compile(r"""^\s*(\w+)\s*=\s*("[^"]*"|'[^']*'|\S+)""", re.MULTILINE)
_COMMENT = re.compile(r"(?m)(?:^|\s)#.*$")
# /var/log/libvirt/qemu/*.log { … }
_BLOCK = re.compile(r"([^{}]*)\{([^{}]*)\}")
_SIZE = re.compile(r"(?m)^\s*(?:min|max)?size[\s=]+(\d+)([kMG]?)\b")
_UNITS = {"": 1, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class CopyRule(NamedTuple):
    """A block of logrotate's that truncates files by copytruncate. Files below `size_bytes` are left alone."""

    where: str
    patterns: tuple[str, ...]
    size_bytes: int


class RotationFacts(NamedTuple):
    """What rotates the logs.

    Attributes:
        where: virtlogd's configuration, empty where there is none and its defaults count.
        libvirt: The logs are libvirt's.
        to_virtlogd: QEMU writes to virtlogd, not into the file.
        max_size_bytes: The size at which virtlogd begins a new file, 0 for never.
        max_backups: How many old files it keeps.
        copies: The rules of logrotate for these logs.
    """

    where: str
    libvirt: bool
    to_virtlogd: bool = True
    max_size_bytes: int = MAX_SIZE_BYTES
    max_backups: int = MAX_BACKUPS
    copies: tuple[CopyRule, ...] = ()

    @property
    def kept_bytes(self) -> int:
        """What is kept of one log at least: all but the newest file are full."""
        return self.max_size_bytes * max(1, self.max_backups)


# --- gathering --------------------------------------------------------------------------------------


def look_at_rotation(logs: Sequence[str], sought: str, root: Path) -> RotationFacts:
    """What is configured on this machine for these logs, all of which were found by `sought`."""
    virtlogd, qemu = root / "etc/libvirt/virtlogd.conf", root / "etc/libvirt/qemu.conf"
    text = _text(virtlogd)
    limits = settings(text or "")
    return RotationFacts(
        where="" if text is None else str(virtlogd),
        libvirt="libvirt" in sought,
        to_virtlogd=settings(_text(qemu) or "").get("stdio_handler", "logd") != "file",
        max_size_bytes=_number(limits.get("max_size"), MAX_SIZE_BYTES),
        max_backups=_number(limits.get("max_backups"), MAX_BACKUPS),
        copies=tuple(rule for rule in _rules(root) if _fits(rule, logs or [sought])),
    )


def _rules(root: Path) -> Iterable[CopyRule]:
    main = root / "etc/logrotate.conf"
    everywhere = _is_on("copytruncate", _BLOCK.sub("", _COMMENT.sub("", _text(main) or "")))
    folder = root / "etc/logrotate.d"
    try:
        parts = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError:
        parts = []
    for path in (main, *parts):
        yield from copy_rules(_text(path) or "", str(path), everywhere=everywhere)


def _fits(rule: CopyRule, logs: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(log, pattern) or log == pattern for log in logs for pattern in rule.patterns)


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return None


def _number(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.isdecimal() else default


# --- deciding ---------------------------------------------------------------------------------------


def settings(text: str) -> Mapping[str, str]:
    """The settings of one of libvirt's files, without their quotes."""
    return {name: value.strip("\"'") for name, value in _SETTING.findall(text)}


def copy_rules(text: str, where: str, *, everywhere: bool = False) -> list[CopyRule]:
    """The blocks of a logrotate file that use copytruncate; `everywhere` if it is the default of all blocks."""
    rules = []
    for heading, body in _BLOCK.findall(_COMMENT.sub("", text)):
        if _is_on("copytruncate", body) or (everywhere and not _is_on("nocopytruncate", body)):
            patterns = tuple(word.strip('"') for word in heading.split() if word.lstrip('"').startswith("/"))
            sizes = [int(number) * _UNITS[unit] for number, unit in _SIZE.findall(body)]
            rules.append(CopyRule(where, patterns, max(sizes, default=0)))
    return rules


def _is_on(word: str, text: str) -> bool:
    return re.search(rf"(?m)^\s*{word}\s*$", text) is not None


def rotation_findings(facts: RotationFacts, logs: Sequence[LogFacts]) -> list[Finding]:
    """How many minutes of trace are kept, and what logrotate does to them."""
    findings = [_window(facts, logs)] if facts.libvirt else []
    return findings + [_copies(facts, rule) for rule in facts.copies]


def _window(facts: RotationFacts, logs: Sequence[LogFacts]) -> Finding:
    if not facts.to_virtlogd:
        return Finding(
            "warning", "rotation", 'stdio_handler = "file" in qemu.conf: QEMU writes its logs itself, nothing bounds them',
            "remove it from /etc/libvirt/qemu.conf for virtlogd to rotate the logs, and raise max_size in virtlogd.conf",
        )  # fmt: skip
    if not facts.max_size_bytes:
        return Finding(
            "warning", "rotation", f"max_size = 0 in {facts.where}: logs are never rotated and can fill the disk",
            "set a max_size, for example 67108864 (64 MiB)",
        )  # fmt: skip
    place = facts.where or "virtlogd's defaults, since there is no /etc/libvirt/virtlogd.conf here"
    size = f"{bytes_text(facts.max_size_bytes)} and {facts.max_backups} older files a log ({place})"
    busiest = max(logs, key=lambda log: log.pace_bytes, default=None)
    if busiest is None or not busiest.pace_bytes:
        return Finding("ok", "rotation", f"virtlogd keeps {size}; no log has timed events that tell how long that lasts")
    window_s = facts.kept_bytes * 60 // busiest.pace_bytes
    text = (
        f"virtlogd keeps {size}: {duration_text(window_s * SECOND_NS)} of trace at the pace of the busiest minute "
        f"({bytes_text(busiest.pace_bytes)}, {Path(busiest.path).name!r})"
    )
    if window_s >= SHORT_S:
        return Finding("ok", "rotation", text)
    return Finding(
        "warning", "rotation", text,
        "what is rotated away while nobody follows is gone: raise max_size (for example to 67108864) and max_backups in "
        "/etc/libvirt/virtlogd.conf, with logrotate's size above max_size; switch off events that come for every page",
    )  # fmt: skip


def _copies(facts: RotationFacts, rule: CopyRule) -> Finding:
    by_virtlogd = facts.libvirt and facts.to_virtlogd
    if by_virtlogd and 0 < facts.max_size_bytes < rule.size_bytes:
        text = f"{rule.where} has copytruncate from {bytes_text(rule.size_bytes)} on, a size that virtlogd lets no log reach"
        return Finding("ok", "logrotate", text)
    text = f"{rule.where} truncates logs by copytruncate: what is written between copy and truncation is lost"
    if by_virtlogd:
        help_ = f"set 'size' in it above virtlogd's max_size ({facts.max_size_bytes}), or remove it: virtlogd rotates already"
    elif facts.libvirt:
        help_ = "let virtlogd rotate (remove stdio_handler from /etc/libvirt/qemu.conf), or raise 'size' in it"
    else:
        help_ = "raise 'size' in it, so that it happens between migrations; otelbridge follows what it leaves"
    return Finding("warning", "logrotate", text, help_)
