"""Whether a trace's QEMU still runs: real processes that are called as it is."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from otelbridge.service.alive import Qemu, is_running, qemu_of
from tests.service.running import until


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing under QEMU's name."""
    program = shutil.copy(shutil.which("sleep") or "sleep", tmp_path / "qemu-system-x86_64")
    with subprocess.Popen([program, "60"]) as process:
        until(lambda: Path(f"/proc/{process.pid}/comm").read_text().startswith("qemu"))
        yield process
        process.kill()


def test_a_qemu_that_runs_is_found_by_its_id_among_others(qemu: subprocess.Popen[bytes]) -> None:
    found = qemu_of([2**22 + 1, 1, qemu.pid])
    assert found is not None
    assert found.pid == qemu.pid
    assert is_running(found)


def test_a_qemu_that_was_killed_runs_no_more_even_as_long_as_nobody_waits_for_it(qemu: subprocess.Popen[bytes]) -> None:
    found = qemu_of([qemu.pid])
    assert found is not None
    qemu.kill()
    until(lambda: not is_running(found))
    assert Path(f"/proc/{qemu.pid}").exists()


def test_another_process_of_the_same_id_is_not_taken_for_it(qemu: subprocess.Popen[bytes]) -> None:
    assert not is_running(Qemu(qemu.pid, "1"))


def test_a_process_of_another_name_is_no_qemu() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        assert qemu_of([process.pid]) is None
        process.kill()
