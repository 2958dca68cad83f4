"""What is said of a QEMU: of Debian's own, and of builds that have other trace backends."""

from __future__ import annotations

import gzip
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from otelbridge.catalogue import builtin
from otelbridge.doctor import qemu
from otelbridge.doctor.findings import Finding

QEMU = "qemu-system-x86_64"
WANTED = {"migrate_set_state", "savevm_section_start"}
Need = Callable[[Path | str, str], None]

USDT = """
#include <stdio.h>
#include <string.h>
#include <sys/sdt.h>
int main(int argc, char **argv) {
  DTRACE_PROBE1(qemu, migrate_set_state, 1);
  if (argc > 1 && !strcmp(argv[1], "--version")) puts("QEMU emulator version 10.1.0 (qemu-kvm-10.1.0)");
  if (argc > 2 && !strcmp(argv[2], "help")) puts("migrate_set_state\\nsavevm_section_start");
  return 0;
}
"""
OTHER = """#!/bin/sh
case "$*" in
    --version) echo 'QEMU emulator version 9.0.1' ;;
    *help) echo migrate_set_state ;;
    *) {} ;;
esac
"""


def said_of(path: Path) -> Finding:
    return qemu.qemu_finding(qemu.look_at_qemu(path, builtin().is_event, WANTED))


def stand_in(folder: Path, trial: str) -> Path:
    """A program that does this in place of running a machine."""
    path = folder / QEMU
    path.write_text(OTHER.format(trial))
    path.chmod(0o755)
    return path


def test_the_qemu_of_debian_writes_text_with_stamps(need: Need) -> None:
    need(QEMU, "it is the real thing: apt-get install qemu-system-x86")
    (path,) = [path for path in qemu.installed({"PATH": "/usr/bin"}) if path.name == QEMU]
    version = subprocess.run([path, "--version"], check=True, capture_output=True, text=True).stdout.split()[3]
    found = said_of(path)
    assert found == Finding(
        "ok", "qemu", f"'{path}' {version} writes traces as text, with time stamps; it has 2 events that otelbridge uses"
    )


def test_a_build_with_dtrace_alone_is_a_problem_and_sends_to_the_probes(tmp_path: Path, need: Need) -> None:
    need("gcc", "it compiles a program with USDT probes")
    (tmp_path / "qemu.c").write_text(USDT)
    path = tmp_path / "qemu-kvm"
    subprocess.run(["gcc", "-o", path, tmp_path / "qemu.c"], check=True)
    found = said_of(path)
    assert found.mark == "problem"
    assert found.text == f"'{path}' 10.1.0 writes no traces as text: it has 1 USDT probe instead"
    assert f"otelbridge probes bpftrace --binary {path}" in found.help


def test_a_build_with_the_simple_backend_is_told_by_the_trace_that_it_leaves(tmp_path: Path, recordings: Path) -> None:
    trace = tmp_path / "recorded"
    trace.write_bytes(gzip.decompress((recordings / "qemu-10.2.0-simple/multifd-tls/src.simple.gz").read_bytes()))
    found = said_of(stand_in(tmp_path, f"cp {trace} trace-$$"))
    assert found.mark == "warning"
    assert "its backend is 'simple'" in found.text
    assert "file=TRACE" in found.help


def test_events_without_stamps_are_a_warning(tmp_path: Path) -> None:
    found = said_of(stand_in(tmp_path, "echo migrate_set_state new state setup >&2"))
    assert found.mark == "warning"
    assert "without time stamps" in found.text


def test_a_build_that_writes_nothing_is_a_problem_with_its_own_words(tmp_path: Path) -> None:
    found = said_of(stand_in(tmp_path, "echo no default trace backend >&2"))
    assert found.mark == "problem"
    assert found.text.endswith("wrote no trace event when it was tried; it said: no default trace backend")
    assert "trace backend 'log'" in found.help


def test_a_program_that_is_no_qemu_is_a_problem() -> None:
    found = said_of(Path("/bin/true"))
    assert (found.mark, found.text) == ("problem", "'/bin/true' cannot be run as a QEMU")


def test_one_that_never_ends_is_ended_with_what_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "TRIAL_S", 0.5)
    started = tmp_path / "pid"
    path = stand_in(tmp_path, f"sleep 300 & echo $! >{started}; echo 7@1795407950.847563:migrate_set_state new state x; wait")
    began_s = time.monotonic()
    assert said_of(path).mark == "ok"
    assert time.monotonic() - began_s < 5
    process = Path(f"/proc/{started.read_text().strip()}/stat")
    assert not process.exists() or process.read_text().split()[2] == "Z"


def test_nothing_is_left_where_it_ran(tmp_path: Path, need: Need, monkeypatch: pytest.MonkeyPatch) -> None:
    need(QEMU, "it is the real thing: apt-get install qemu-system-x86")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(qemu.tempfile, "tempdir", None)
    monkeypatch.chdir(tmp_path)
    said_of(Path("/usr/bin", QEMU))
    assert list(tmp_path.iterdir()) == []


def test_no_qemu_is_found_where_there_is_none(tmp_path: Path) -> None:
    found = qemu.installed({"PATH": str(tmp_path)})
    assert all(str(path).startswith("/usr/libexec/") for path in found)
