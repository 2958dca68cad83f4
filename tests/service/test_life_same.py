"""What the service delivers of recordings is what `convert` delivers of each."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tests.receiver import Receiver
from tests.service.running import bodies, config_for, convert_each, points_in, running, spans_in, until

RECORDINGS = Path(__file__).resolve().parents[1] / "recordings"


WITHOUT_STAMPS = "precopy-idle-nots"
"""`convert` refuses a log that has no times, and so does the service."""


def laid_out(folder: Path, side: str) -> list[Path]:
    """One side of all recordings in one folder, unpacked, as QEMU would have written them."""
    folder.mkdir()
    # Of the one recording whose times count from its host's boot, which may seem to be this host's.
    (clock,) = RECORDINGS.glob("*-simple/*/clock.json")
    (folder / "clock.json").write_bytes(clock.read_bytes())
    found = []
    for path in sorted(RECORDINGS.rglob("*")):
        name = path.name.removesuffix(".gz")
        if name in (f"{side}.log", f"{side}.simple"):
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            run = "_".join(path.parent.relative_to(RECORDINGS).parts)
            new = folder / f"{run}_{name.replace('.simple', '.trace')}"
            new.write_bytes(data)
            found.append(new)
    return found


@pytest.mark.parametrize("side", ["src", "dst"])
def test_every_recording_gives_what_its_conversion_gives(side: str, tmp_path: Path) -> None:
    """Both sides in one service would be joined: `test_joining.py` has that."""
    paths = laid_out(tmp_path / "logs", side)
    inputs = [{"files": [str(tmp_path / "logs" / "*.log"), str(tmp_path / "logs" / "*.trace")], "idle_timeout": "3s"}]
    with Receiver() as wanted, Receiver() as receiver:
        with running(tmp_path, config_for(tmp_path, receiver, inputs=inputs)) as service:
            convert_each([path for path in paths if WITHOUT_STAMPS not in path.name], wanted)
            until(lambda: all(one["ended"] for one in service.status()["inputs"]), 60)
            until(lambda: not service.status()["outbox"]["pending_bytes"])
            problems = {one["path"]: one["problem"] for one in service.status()["inputs"]}
            assert service.stop() == 0
        spans, wanted_spans = spans_in(bodies(receiver, "traces")), spans_in(bodies(wanted, "traces"))
        points, wanted_points = points_in(bodies(receiver, "metrics")), points_in(bodies(wanted, "metrics"))
    assert [ids for ids in wanted_spans.keys() | spans.keys() if spans.get(ids) != wanted_spans.get(ids)] == []
    assert points == wanted_points
    assert problems.keys() == {str(path) for path in paths}
    without = {path for path, problem in problems.items() if problem}
    assert without == {str(path) for path in paths if WITHOUT_STAMPS in path.name}
    assert all("carry no time stamps" in problems[path] and "-msg timestamp=on" in problems[path] for path in without)
