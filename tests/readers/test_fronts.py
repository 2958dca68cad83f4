"""What Kubernetes or a container's tool puts in front of every line is taken away; the event's own stamp is its time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.convert.command import run


@pytest.mark.parametrize("log", ["debian-7.2/precopy-busy", "qemu-10.2.0-log/precopy-busy"])
@pytest.mark.parametrize(
    "front",
    [b"2026-11-23T04:26:05.397527123Z ", b"2026-11-23T04:26:05Z ", b"2026-11-23T04:26:05.397527123Z stderr F ", b"vm1  | "],
)
def test_a_front_changes_nothing(recordings: Path, tmp_path: Path, log: str, front: bytes) -> None:
    text = (recordings / log / "src.log").read_bytes()
    outputs = []
    for name, lines in (("bare", text), ("front", b"".join(front + line for line in text.splitlines(keepends=True)))):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "src.log").write_bytes(lines)
        assert run("convert", folder / "src.log", "--to", f"file:{folder / 'out'}").code == 0
        outputs.append((folder / "out" / "traces.jsonl").read_bytes())
    assert outputs[0] == outputs[1]


def test_a_byte_order_mark_is_no_damage(recordings: Path, tmp_path: Path) -> None:
    (tmp_path / "src.log").write_bytes(b"\xef\xbb\xbf" + (recordings / "debian-7.2/precopy-busy/src.log").read_bytes())
    assert run("convert", tmp_path / "src.log", "--to", f"file:{tmp_path / 'out'}").code == 0
