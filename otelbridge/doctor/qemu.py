"""Whether a QEMU writes its trace events as text.

`-trace help` lists the events of every build, whatever its trace backends are. So a machine without memory is started for a
moment and migrated into /dev/null, and what it then writes tells.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from otelbridge.doctor.findings import Finding
from otelbridge.probes import NotesError, sdt_probes
from otelbridge.readers.detect import look_at
from otelbridge.readers.simple import is_simple
from otelbridge.view.text import count_text

TRIAL_S = 5.0
_LIST_S = 3.0
_READ_BYTES = 1 << 20
_WORDS_LENGTH = 200
_TRIAL = (
    "-machine", "none,accel=tcg:kvm:qtest", "-nodefaults", "-no-user-config", "-display", "none", "-S", "-monitor", "stdio",
    "-trace", "migrate_*", "-msg", "timestamp=on",
)  # fmt: skip
_MONITOR = b'migrate "exec:cat >/dev/null"\nquit\n'
_OUTSIDE_PATH = ("/usr/libexec/qemu-kvm",)
# QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)
_VERSION = re.compile(r"version (\d+\.\d+(?:\.\d+)?)")


class QemuFacts(NamedTuple):
    """What one QEMU shows.

    Attributes:
        path: The program.
        version: `7.2.22`, empty if it does not tell.
        events: How many of its trace events are of migration.
        text: It wrote an event as text.
        stamped: With a time in front of it.
        simple: It wrote a trace of the simple backend.
        probes: How many USDT probes its program declares.
        words: Why it cannot be run, or what it wrote instead of an event.
    """

    path: str
    version: str = ""
    events: int = 0
    text: bool = False
    stamped: bool = False
    simple: bool = False
    probes: int = 0
    words: str = ""


def installed(env: Mapping[str, str]) -> list[Path]:
    """The QEMUs of this machine's architecture, each once."""
    names = (f"qemu-system-{platform.machine()}", "qemu-kvm")
    found = [shutil.which(name, path=env.get("PATH", os.defpath)) for name in names]
    found += [path for path in _OUTSIDE_PATH if os.access(path, os.X_OK)]
    by_program = {os.path.realpath(path): Path(path) for path in reversed(found) if path}
    return list(reversed(by_program.values()))


def look_at_qemu(path: Path, is_event: Callable[[str], bool], wanted: Collection[str]) -> QemuFacts:
    """Run a QEMU for a moment and see what it writes. Takes some seconds at most.

    Args:
        path: The program.
        is_event: Whether QEMU has an event of this name.
        wanted: The events of migration.
    """
    with tempfile.TemporaryDirectory(prefix="otelbridge-doctor-") as name:
        folder = Path(name)
        try:
            version = _VERSION.search(_run((str(path), "--version"), folder, _LIST_S).decode(errors="replace"))
            listed = set(_run((str(path), "-trace", "help"), folder, _LIST_S).decode(errors="replace").split())
            written = _run((str(path), *_TRIAL), folder, TRIAL_S, _MONITOR)
        except OSError as error:
            return QemuFacts(str(path), words=error.strerror or str(error))
        look = look_at(written, is_event)
        return QemuFacts(
            path=str(path),
            version=version[1] if version else "",
            events=len(listed & set(wanted)),
            text=look.events,
            stamped=look.stamp is not None,
            simple=any(is_simple(_head(each)) for each in folder.glob("trace-*")),
            probes=_probes(path),
            words=" ".join(written.decode(errors="replace").split())[:_WORDS_LENGTH],
        )


def qemu_finding(facts: QemuFacts) -> Finding:
    """What is to be said of a QEMU."""
    name = f"'{facts.path}'" + (f" {facts.version}" if facts.version else "")
    if facts.text and facts.stamped:
        events = count_text(facts.events, "event")
        return Finding("ok", "qemu", f"{name} writes traces as text, with time stamps; it has {events} that otelbridge uses")
    if facts.text:
        return Finding(
            "warning", "qemu", f"{name} writes traces as text, but without time stamps although '-msg timestamp=on' was given",
            "see with a migration whether its log has them; without them a picture shows the order alone",
        )  # fmt: skip
    if facts.probes:
        return Finding(
            "problem", "qemu", f"{name} writes no traces as text: it has {count_text(facts.probes, 'USDT probe')} instead",
            f"run 'otelbridge probes bpftrace --binary {facts.path}' (or stap) and follow what that script writes",
        )  # fmt: skip
    if facts.simple:
        return Finding(
            "warning", "qemu", f"{name} writes binary traces (its backend is 'simple'), no text",
            "give it -trace events=FILE,file=TRACE and have otelbridge read TRACE; libvirt's logs will show no events",
        )  # fmt: skip
    said = f"; it said: {facts.words}" if facts.words else ""
    if not facts.version and not facts.events:
        return Finding(
            "problem", "qemu", f"{name} cannot be run as a QEMU{said}",
            "name the program that runs the machines with --qemu, for example /usr/libexec/qemu-kvm",
        )  # fmt: skip
    return Finding(
        "problem", "qemu", f"{name} wrote no trace event when it was tried{said}",
        "it was built without the trace backend 'log': take a QEMU that has it; "
        "with 'ftrace', 'syslog' or 'ust' otelbridge reads what those write",
    )  # fmt: skip


NONE_FOUND = Finding(
    "warning", "qemu", "no QEMU was found on this machine, so none was tried",
    "run this where the machines run (on Kubernetes in the container of virt-launcher), or name the program with --qemu",
)  # fmt: skip


def _run(command: tuple[str, ...], folder: Path, limit_s: float, typed: bytes = b"") -> bytes:
    """The beginning of what a program writes, both streams of it; it is ended after so many seconds.

    Raises:
        OSError: It cannot be started.
    """
    # A file, not a pipe: what the program starts could hold a pipe open.
    with (
        tempfile.TemporaryFile(dir=folder) as written,
        subprocess.Popen(  # noqa: S603  # the user named it, or it is in the PATH
            command, cwd=folder, stdin=subprocess.PIPE, stdout=written, stderr=written, start_new_session=True
        ) as process,
    ):
        try:
            process.communicate(typed, limit_s)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return os.pread(written.fileno(), _READ_BYTES, 0)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_READ_BYTES)


def _probes(path: Path) -> int:
    try:
        return len(sdt_probes(path.read_bytes(), "qemu"))
    except (OSError, NotesError):
        return 0
