"""The service as a user without any right, in a folder that it cannot write to."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.receiver import Receiver
from tests.service.living import RECORDING, ended, later, log_in
from tests.service.running import OTELBRIDGE, config_for, converted, received, running, until

NOBODY = 65534
SETPRIV = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs", "--bounding-set=-all")

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root with setpriv can become nobody"
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that others can read, which those of pytest are not."""
    path = Path(tempfile.mkdtemp(prefix="otelbridge-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def test_without_any_right_it_delivers_what_it_can_read_and_says_what_it_cannot(folder: Path) -> None:
    path, secret = log_in(folder), log_in(folder, later(RECORDING, 600), "secret.log")
    secret.chmod(0o600)
    (folder / "outbox").mkdir()
    os.chown(folder / "outbox", NOBODY, NOBODY)
    with Receiver() as receiver, running(folder, config_for(folder, receiver), command=(*SETPRIV, *OTELBRIDGE)) as service:
        assert service.process is not None
        rights = Path(f"/proc/{service.process.pid}/status").read_text()
        assert f"Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}" in rights
        assert "CapBnd:\t0000000000000000" in rights
        until(lambda: str(secret) in service.log)
        (problem,) = until(lambda: [one["problem"] for one in service.status()["inputs"] if one["problem"]])
        assert str(secret) in problem
        assert "Permission denied" in problem
        until(lambda: [span for span in receiver.spans() if span.name == "migration"])
        until(lambda: any(one["ended"] for one in service.status()["inputs"] if one["path"] == str(path)))
        until(lambda: not service.status()["outbox"]["pending_bytes"])
        assert received(receiver) == converted([path])
        secret.chmod(0o644)
        ended(service)
        until(lambda: len([span for span in receiver.spans() if span.name == "migration"]) == 2)
        until(lambda: not service.status()["outbox"]["pending_bytes"])
        assert service.stop() == 0
        assert received(receiver) == converted([path, secret])
        assert service.log.count(f"'{secret}' cannot be read") == 1 + service.log.count("It is over that")
    assert sorted(each.name for each in folder.iterdir()) == ["logs", "otelbridge.yaml", "outbox", "stderr"]


def test_a_folder_for_the_outbox_that_cannot_be_written_is_told_and_everything_is_delivered(folder: Path) -> None:
    path = log_in(folder)
    (folder / "outbox").mkdir(mode=0o755)
    with Receiver() as receiver, running(folder, config_for(folder, receiver), command=(*SETPRIV, *OTELBRIDGE)) as service:
        until(lambda: service.status()["outbox"]["state"] == "memory")
        assert str(folder / "outbox") in service.status()["outbox"]["words"] + service.log
        ended(service)
        assert received(receiver) == converted([path])
        assert service.stop() == 0
