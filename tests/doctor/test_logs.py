"""What is said of the logs of a folder: recordings, libvirt's own words, and logs that cannot be read."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from otelbridge.catalogue import builtin
from otelbridge.doctor import logs
from otelbridge.doctor.findings import Finding

WANTED = {"migrate_set_state", "savevm_section_start", "ram_save_page"}
BANNER = """2026-11-27 23:10:47.910+0000: starting up libvirt version: 9.0.0, package: 9.0.0-4, qemu version: 7.2.22
LC_ALL=C \\
PATH=/usr/sbin:/usr/bin \\
/usr/bin/qemu-system-x86_64 \\
-name guest=vm1,debug-threads=on \\
-msg timestamp=on
char device redirected to /dev/pts/0 (label charserial0)
2026-11-27T23:10:48.604123Z qemu-system-x86_64: warning: host doesn't support requested feature
"""
NOBODY = 65534
SETPRIV = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--bounding-set=-all")
as_nobody = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root becomes nobody")


def said_of(folder: Path) -> list[Finding]:
    return logs.log_findings(logs.look_at_folder(folder, builtin().is_event), "alice", WANTED)


def of_mark(findings: list[Finding], mark: str) -> list[Finding]:
    return [finding for finding in findings if finding.mark == mark]


def put(folder: Path, recording: Path, name: str = "vm.log") -> Path:
    path = folder / name
    data = recording.read_bytes()
    path.write_bytes(gzip.decompress(data) if recording.suffix == ".gz" else data)
    return path


def test_a_recorded_migration_is_well(tmp_path: Path, recordings: Path) -> None:
    recording = recordings / "debian-7.2/precopy-busy/src.log"
    path = put(tmp_path, recording)
    with path.open("a") as log:
        log.write(BANNER)
    (logs_, events, stamps) = said_of(tmp_path)
    assert (logs_.mark, logs_.text) == ("ok", "alice can read 1 log: 'vm.log'")
    saved = recording.read_text().count(":savevm_section_start ")
    states = recording.read_text().count(":migrate_set_state ")
    listed = f"savevm_section_start ({saved}), migrate_set_state ({states})"
    assert (events.mark, events.text) == ("ok", f"2 events of migration in the logs: {listed}")
    assert (stamps.mark, stamps.text) == ("ok", "events have time stamps in 'vm.log'")


@pytest.mark.parametrize("version", ["qemu-10.2.0-log/precopy-busy", "qemu-4.1.0-log/tls-ok"])
def test_the_stamps_of_every_version_are_seen(tmp_path: Path, recordings: Path, version: str) -> None:
    (recording,) = (recordings / version).glob("src.log*")
    put(tmp_path, recording)
    assert [finding.mark for finding in said_of(tmp_path) if finding.about == "stamps"] == ["ok"]


def test_events_without_stamps_are_a_problem_that_names_the_option(tmp_path: Path, recordings: Path) -> None:
    put(tmp_path, recordings / "qemu-10.2.0-log/precopy-idle-nots/src.log.gz")
    (problem,) = of_mark(said_of(tmp_path), "problem")
    assert (problem.about, problem.text) == ("stamps", "events without a time stamp are in 'vm.log'")
    assert "-msg timestamp=on" in problem.help


def test_a_log_whose_stamps_were_switched_on_later_is_well(tmp_path: Path) -> None:
    (tmp_path / "vm.log").write_text(
        "migrate_set_state new state setup\n7@1795407950.847563:migrate_set_state new state setup\n"
    )
    assert [finding.mark for finding in said_of(tmp_path) if finding.about == "stamps"] == ["ok"]


def test_a_log_without_events_says_how_to_switch_them_on(tmp_path: Path) -> None:
    (tmp_path / "vm1.log").write_text(BANNER)
    (warning,) = of_mark(said_of(tmp_path), "warning")
    assert (warning.about, warning.text) == ("events", "no trace event is in 'vm1.log'")
    assert "otelbridge mapping events --format libvirt" in warning.help


def test_events_of_other_parts_of_qemu_are_not_taken_for_migration(tmp_path: Path) -> None:
    (tmp_path / "vm1.log").write_text("7@1795407950.847563:virtio_set_status vdev 0x1 val 7\n" * 3)
    (warning,) = of_mark(said_of(tmp_path), "warning")
    assert warning.text == "1 trace event in the logs, none of migration: virtio_set_status (3)"


def test_a_log_of_an_event_for_every_page_is_a_warning(tmp_path: Path, recordings: Path) -> None:
    put(tmp_path, recordings / "debian-7.2/precopy-busy-pages/src.log.gz")
    (warning,) = of_mark(said_of(tmp_path), "warning")
    assert "come for every page" in warning.text
    assert "ram_save_page (" in warning.text
    assert "switch them off" in warning.help


def test_rotated_parts_belong_to_their_log(tmp_path: Path) -> None:
    line = "7@17954079{:02}.000000:migrate_set_state new state x\n"
    for number, name in enumerate(["vm.log.2.gz", "vm.log.1", "vm.log.0", "vm.log"]):
        data = line.format(number).encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    (log,) = logs.look_at_folder(tmp_path, builtin().is_event).logs
    assert log.stamped == {"migrate_set_state": 3}
    assert log.newest_s == 1795407903
    assert log.size_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("bytes_at", "most"),
    [({}, 0), ({100: 5}, 5), ({100: 5, 159: 6}, 11), ({100: 5, 160: 6}, 6), ({0: 9, 50: 1, 100: 9, 109: 9}, 19)],
)
def test_the_busiest_minute_is_sixty_seconds_wherever_it_begins(bytes_at: dict[int, int], most: int) -> None:
    assert logs.busiest_minute(Counter(bytes_at)) == most


def test_only_so_much_is_read_of_logs_that_are_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "ALL_BYTES", 1 << 18)
    line = b"7@1795407950.847563:migrate_set_state new state x\n"
    for number in range(8):
        (tmp_path / f"{number}.log").write_bytes(line * 10_000)
    found = logs.look_at_folder(tmp_path, builtin().is_event).logs
    assert len(found) == 8
    assert all(log.stamped.total() * len(line) <= 1 << 16 for log in found)


def test_what_is_no_trace_is_told(tmp_path: Path) -> None:
    (tmp_path / "vm.log").write_bytes(bytes(range(32)) * 100)
    (warning,) = of_mark(said_of(tmp_path), "warning")
    assert warning.text == "'vm.log': no text, and no trace that is known"


def test_a_pipe_is_not_waited_for_and_loses_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.log")
    (tmp_path / "folder.log").mkdir()
    (tmp_path / "gone.log").symlink_to("nowhere")
    (tmp_path / "vm1.log").write_text(BANNER)
    facts = logs.look_at_folder(tmp_path, builtin().is_event)
    assert [Path(log.path).name for log in facts.logs] == ["vm1.log"]
    facts = logs.look_at_patterns([([f"{tmp_path}/*"], [])], builtin().is_event)
    assert [Path(log.path).name for log in facts.logs] == ["vm1.log"]


def test_a_folder_that_is_not_there_names_where_logs_are(tmp_path: Path) -> None:
    (problem,) = said_of(tmp_path / "absent")
    assert problem.mark == "problem"
    assert "/var/run/kubevirt-private/libvirt/qemu/log" in problem.help


def test_a_file_in_place_of_the_folder_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "vm.log").touch()
    (problem,) = said_of(tmp_path / "vm.log")
    assert problem.text == f"there is no folder of the logs '{tmp_path}/vm.log/*.log'"


def test_an_empty_folder_is_a_warning(tmp_path: Path) -> None:
    (warning,) = said_of(tmp_path)
    assert (warning.mark, warning.text) == ("warning", f"no log matches '{tmp_path}/*.log'")


def test_the_logs_of_a_configuration_are_those_that_it_follows(tmp_path: Path) -> None:
    for name in ("a.log", "a.log.0", "b.log", "c.txt"):
        (tmp_path / name).write_text(BANNER)
    found = logs.look_at_patterns([([f"{tmp_path}/*"], ["*.txt"])], builtin().is_event)
    assert [Path(log.path).name for log in found.logs] == ["a.log", "b.log"]


# --- rights -----------------------------------------------------------------------------------------------


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that others can enter, which those of pytest are not."""
    path = Path(tempfile.mkdtemp(prefix="otelbridge-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def as_json(folder: Path, *prefix: str) -> list[dict[str, str]]:
    command = [*prefix, sys.executable, "-m", "otelbridge", "doctor", str(folder), "--qemu", "/bin/true", "--json"]
    env = {**os.environ, "HOME": "/nowhere"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=env, timeout=60)
    assert done.returncode == 3, done.stderr
    found: list[dict[str, str]] = json.loads(done.stdout)["findings"]
    return [finding for finding in found if finding["about"] == "logs"]


@as_nobody
def test_a_log_of_root_names_the_right_that_is_missing(open_folder: Path) -> None:
    (open_folder / "vm1.log").write_text(BANNER)
    (open_folder / "vm1.log").chmod(0o600)
    (open_folder / "vm2.log").write_text(BANNER)
    well, problem = as_json(open_folder, *SETPRIV)
    assert well["text"] == "nobody can read 1 log: 'vm2.log'"
    assert problem["mark"] == "problem"
    where = f"'{open_folder}/vm1.log' cannot be read (the right 'r' is missing; it is of root:root, mode 0600)"
    assert problem["text"] == f"as nobody, {where}"
    assert "CAP_DAC_READ_SEARCH" in problem["help"]
    assert [finding["mark"] for finding in as_json(open_folder)] == ["ok"]


@as_nobody
@pytest.mark.parametrize(("mode", "letters"), [(0o700, "rx"), (0o711, "r"), (0o744, "x")])
def test_a_folder_of_root_names_the_right_that_is_missing(open_folder: Path, mode: int, letters: str) -> None:
    folder = open_folder / "qemu"
    folder.mkdir()
    (folder / "vm1.log").write_text(BANNER)
    folder.chmod(mode)
    (problem,) = as_json(folder, *SETPRIV)
    assert (
        f"'{folder}' cannot be read (the right '{letters}' is missing; it is of root:root, mode 0{mode:o})" in problem["text"]
    )


@as_nobody
def test_a_folder_above_that_shuts_out_is_named(open_folder: Path) -> None:
    folder = open_folder / "libvirt" / "qemu"
    folder.mkdir(parents=True)
    folder.parent.chmod(0o700)
    (problem,) = as_json(folder, *SETPRIV)
    assert f"'{folder.parent}' cannot be entered (the right 'x' is missing" in problem["text"]
