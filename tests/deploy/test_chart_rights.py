"""The rights that the chart gives a DaemonSet's container are enough to read what only another user may read, and needed.

Source: capabilities(7): what the bounding set holds is all that user 0 gets by execve.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.backends import missing
from tests.deploy.charts import Object, objects, pod_of, render
from tests.deploy.test_chart_renders import values_for
from tests.receiver import Receiver
from tests.service.running import OTELBRIDGE, config_for, running, until

QEMU = 107


@pytest.fixture
def folder(recordings: Path) -> Iterator[Path]:
    """A folder with a log that user 107 alone may read, as virt-launcher's are."""
    if os.geteuid() != 0:
        missing("only root can give itself the rights of a container: run the tests as root")
    with tempfile.TemporaryDirectory() as name:
        logs = Path(name) / "logs"
        logs.mkdir()
        log = logs / "vm.log"
        shutil.copyfile(recordings / "debian-7.2" / "precopy-busy" / "src.log", log)
        log.chmod(0o600)
        logs.chmod(0o700)
        os.chown(log, QEMU, QEMU)
        os.chown(logs, QEMU, QEMU)
        yield Path(name)


def with_rights_of(pod: Object) -> tuple[str, ...]:
    """What starts otelbridge with the user and the capabilities of a pod's container, and no others."""
    (container,) = pod["containers"]
    who, own = pod["securityContext"], container["securityContext"]
    assert own["capabilities"]["drop"] == ["ALL"]
    capabilities = ",".join(["-all", *(f"+{one.lower()}" for one in own["capabilities"].get("add", ()))])
    rights = [f"--reuid={who['runAsUser']}", f"--regid={who['runAsGroup']}", "--clear-groups", "--no-new-privs"]
    return ("setpriv", *rights, "--inh-caps=-all", f"--bounding-set={capabilities}", *OTELBRIDGE)


def daemonset(**more: Any) -> Object:
    return pod_of(objects(render(values_for("daemonset", ("persistence",)) | more)), "DaemonSet")


def test_a_daemonset_reads_logs_of_another_user(folder: Path, need: Callable[[str, str], None]) -> None:
    need("setpriv", "it takes rights away, apt install util-linux")
    with Receiver() as receiver, running(folder, config_for(folder, receiver), command=with_rights_of(daemonset())):
        until(receiver.spans)


def test_without_the_capability_it_says_what_it_cannot_read(folder: Path, need: Callable[[str, str], None]) -> None:
    need("setpriv", "it takes rights away, apt install util-linux")
    pod = daemonset(securityContext={"capabilities": {"add": []}})
    with Receiver() as receiver, running(folder, config_for(folder, receiver), command=with_rights_of(pod)) as service:
        until(lambda: service.status()["problems"])
        assert str(folder / "logs") in str(service.status()["problems"])
        assert not receiver.spans()
