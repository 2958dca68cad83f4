"""How many minutes of trace are kept, by virtlogd's and logrotate's own files."""

from __future__ import annotations

from pathlib import Path

import pytest

from otelbridge.doctor import rotation
from otelbridge.doctor.findings import Finding
from otelbridge.doctor.logs import LogFacts

MIB = 1 << 20
LOG = "/var/log/libvirt/qemu/vm1.log"
# As libvirt 9.0 installs them.
VIRTLOGD = """# Maximum file size before rolling over. Defaults to 2 MB
#max_size = 2097152
# Maximum number of backup files to keep. Defaults to 3,
#max_backups = 3
"""
LOGROTATE = """/var/log/libvirt/qemu/*.log {
        # The QEMU driver is configured to use virtlogd by
        # default, which will perform log rollover.
        size 2097153
        missingok
        rotate 4
        compress
        delaycompress
        copytruncate
}
"""


def of_virtlogd(root: Path, virtlogd: str = "", qemu: str = "", logrotate: str = "", main: str = "") -> Path:
    """A machine with these files in /etc."""
    for name, text in {
        "libvirt/virtlogd.conf": virtlogd, "libvirt/qemu.conf": qemu,
        "logrotate.d/libvirtd.qemu": logrotate, "logrotate.conf": main,
    }.items():  # fmt: skip
        if text:
            path = root / "etc" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return root


def said_of(root: Path, pace_bytes: int = 0, log: str = LOG) -> list[Finding]:
    facts = rotation.look_at_rotation([log], f"{Path(log).parent}/*.log", root)
    return rotation.rotation_findings(facts, [LogFacts(log, pace_bytes=pace_bytes)])


@pytest.mark.parametrize(
    ("virtlogd", "pace_bytes", "mark", "words"),
    [
        (VIRTLOGD, MIB, "warning", "keeps 2 MiB and 3 older files a log"),
        (VIRTLOGD, MIB, "warning", ": 6 min 00 s of trace at the pace of the busiest minute (1 MiB, 'vm1.log')"),
        ("", MIB, "warning", "virtlogd's defaults, since there is no /etc/libvirt/virtlogd.conf here): 6 min 00 s"),
        ("max_size = 67108864\nmax_backups = 10\n", MIB, "ok", "keeps 64 MiB and 10 older files a log"),
        ("max_size = 67108864\nmax_backups = 10\n", MIB, "ok", ": 10 h 40 min of trace"),
        ("max_size = 1048576\nmax_backups = 0\n", MIB, "warning", "): 1 min 00 s of trace"),
        ("max_size = 0\n", MIB, "warning", "logs are never rotated"),
        (VIRTLOGD, 0, "ok", "no log has timed events that tell how long that lasts"),
    ],
)  # fmt: skip
def test_the_window_is_the_limits_by_the_pace(tmp_path: Path, virtlogd: str, pace_bytes: int, mark: str, words: str) -> None:
    (found,) = said_of(of_virtlogd(tmp_path, virtlogd), pace_bytes)
    assert found.mark == mark
    assert words in found.text
    assert ("max_size" in found.help) == (mark == "warning")


def test_logs_that_virtlogd_does_not_write_are_a_warning(tmp_path: Path) -> None:
    (found,) = said_of(of_virtlogd(tmp_path, qemu='stdio_handler = "file"\n'))
    assert found.mark == "warning"
    assert 'stdio_handler = "file"' in found.text


def test_the_rule_that_comes_with_libvirt_is_no_matter(tmp_path: Path) -> None:
    _, found = said_of(of_virtlogd(tmp_path, VIRTLOGD, logrotate=LOGROTATE))
    assert (found.mark, found.about) == ("ok", "logrotate")


def test_a_raised_max_size_makes_logrotate_truncate(tmp_path: Path) -> None:
    _, found = said_of(of_virtlogd(tmp_path, "max_size = 67108864\n", logrotate=LOGROTATE))
    assert found.mark == "warning"
    assert "truncates logs by copytruncate" in found.text
    assert "above virtlogd's max_size (67108864)" in found.help


@pytest.mark.parametrize(
    ("logrotate", "main", "sizes"),
    [
        (LOGROTATE, "", [2097153]),
        (LOGROTATE.replace("copytruncate", "create"), "", []),
        (LOGROTATE.replace("copytruncate", "# copytruncate"), "", []),
        (LOGROTATE.replace("copytruncate", ""), "weekly\ncopytruncate\n", [2097153]),
        (LOGROTATE.replace("copytruncate", "nocopytruncate"), "copytruncate\n", []),
        (LOGROTATE.replace("size 2097153", "minsize 100k"), "", [102400]),
        (LOGROTATE.replace("size 2097153", "size=3M"), "", [3 * MIB]),
        (LOGROTATE.replace("size 2097153", "weekly"), "", [0]),
        (LOGROTATE.replace("qemu/", "lxc/"), "", []),
        (LOGROTATE.replace("/var/log/libvirt/qemu", "/var/log/a.log\n/var/log/libvirt/qemu"), "", [2097153]),
        ("", LOGROTATE, [2097153]),
    ],
)
def test_logrotates_own_language_is_read(tmp_path: Path, logrotate: str, main: str, sizes: list[int]) -> None:
    facts = rotation.look_at_rotation([LOG], "", of_virtlogd(tmp_path, logrotate=logrotate, main=main))
    assert [rule.size_bytes for rule in facts.copies] == sizes


def test_logs_that_are_not_libvirts_have_no_virtlogd(tmp_path: Path) -> None:
    rule = LOGROTATE.replace("/var/log/libvirt/qemu", "/srv/vms")
    (found,) = said_of(of_virtlogd(tmp_path, VIRTLOGD, logrotate=rule), MIB, "/srv/vms/vm1.log")
    assert (found.mark, found.about) == ("warning", "logrotate")
