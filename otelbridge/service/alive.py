"""Whether the QEMU that wrote a trace still runs, where its processes can be seen from here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
# qemu-system-x86, qemu-kvm, kvm
_QEMU = re.compile(r"qemu|kvm")
_TGID = re.compile(r"^Tgid:\s*(\d+)", re.MULTILINE)
_START_FIELD = 19
"""Of /proc/PID/stat, counted behind the name in brackets, which may hold anything."""


class Qemu(NamedTuple):
    """A process: its id, and when it was started in ticks since boot, which no later process of that id shares."""

    pid: int
    started: str


def qemu_of(ids: Iterable[int], proc: Path = PROC) -> Qemu | None:
    """The running QEMU that one of these ids of processes or threads belongs to.

    In another namespace of processes an id can be somebody else's here, so only what is called as QEMU is counts.

    Source: proc(5), /proc/PID/status and /proc/PID/stat.
    """
    for number in ids:
        found = _TGID.search(_text(proc / str(number) / "status"))
        if found is not None and _QEMU.search(_text(proc / found[1] / "comm")):
            started = _started(int(found[1]), proc)
            if started:
                return Qemu(int(found[1]), started)
    return None


def is_running(qemu: Qemu, proc: Path = PROC) -> bool:
    """Whether that very process is still there, and no corpse that waits for its parent."""
    return _started(qemu.pid, proc) == qemu.started


def _started(pid: int, proc: Path) -> str:
    """The start of a process, empty for none that runs."""
    fields = _text(proc / str(pid) / "stat").rpartition(")")[2].split()
    return fields[_START_FIELD] if len(fields) > _START_FIELD and fields[0] not in "ZX" else ""


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
