"""`otelbridge doctor` as a process: what it prints, what it ends with, and that it leaves everything as it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.convert.command import call, run
from tests.receiver import Receiver

QEMU = "/usr/bin/qemu-system-x86_64"
Need = Callable[[Path | str, str], None]


@pytest.fixture
def folder(tmp_path: Path, recordings: Path) -> Path:
    folder = tmp_path / "logs"
    folder.mkdir()
    for name in ("src.log", "dst.log"):
        shutil.copy(recordings / "debian-7.2/precopy-busy" / name, folder)
    return folder


def state_of(folder: Path) -> list[tuple[str, int, int]]:
    return sorted((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*"))


def test_where_all_is_well_it_ends_with_0_and_changes_nothing(tmp_path: Path, folder: Path, need: Need) -> None:
    need(QEMU, "it is the real thing: apt-get install qemu-system-x86")
    before = state_of(tmp_path)
    with Receiver(takes_empty=True) as receiver:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.http_url, "HOME": str(tmp_path)}
        done = run("doctor", folder, "--qemu", QEMU, env=env, cwd=tmp_path)
        assert receiver.requests == []
    assert done.code == 0, done.out
    assert done.err == ""
    marks = [line.split()[0] for line in done.out.splitlines() if line[:1].isalpha()]
    assert set(marks) <= {"ok", "warning"}
    for words in (
        "writes traces as text",
        "root can read 2 logs: 'dst.log', 'src.log'",
        "'environment' takes traces and metrics",
    ):
        assert words.replace("root", Path.home().owner()) in done.out
    assert state_of(tmp_path) == before


def test_a_problem_gives_3_and_stands_above_what_to_do(tmp_path: Path) -> None:
    done = call("doctor", tmp_path / "absent", "--qemu", "/bin/true", env={"HOME": str(tmp_path)})
    assert done.code == 3
    lines = done.out.splitlines()
    (place,) = [number for number, line in enumerate(lines) if line.startswith("problem  logs: there is no folder")]
    assert lines[place + 1].startswith("           help: name the folder of QEMU's logs")
    assert lines[-1].startswith("2 problems, ")


def test_json_says_the_same(tmp_path: Path, folder: Path) -> None:
    arguments = ("doctor", folder, "--qemu", "/bin/true")
    plain = call(*arguments, env={"HOME": str(tmp_path)})
    done = call(*arguments, "--json", env={"HOME": str(tmp_path)})
    assert done.code == plain.code == 3
    findings = json.loads(done.out)["findings"]
    assert all(finding["help"] for finding in findings if finding["mark"] != "ok")
    for finding in findings:
        if finding["about"] not in ("clock", "outbox"):
            assert f"{finding['mark']:<9}{finding['about']}: {finding['text']}\n" in plain.out


def test_a_configuration_names_logs_destinations_and_outbox(tmp_path: Path, folder: Path) -> None:
    with Receiver(takes_empty=True) as receiver:
        (tmp_path / "otelbridge.yaml").write_text(
            f"version: 1\ninputs: [{{files: ['{folder}/*.log'], exclude: ['{folder}/dst.log']}}]\n"
            f"destinations: {{tempo: {{endpoint: '{receiver.grpc_url}', signals: [traces]}}}}\n"
            f"outbox: {{folder: {tmp_path}/box, limit: 1MiB}}\n"
        )
        done = call("doctor", "--config", tmp_path / "otelbridge.yaml", "--json", "--qemu", "/bin/true")
    texts = [finding["text"] for finding in json.loads(done.out)["findings"] if finding["mark"] == "ok"]
    assert any("can read 1 log: 'src.log'" in text for text in texts)
    assert any(text.startswith("'tempo' takes traces: ") for text in texts)
    assert any(text.startswith(f"the outbox '{tmp_path}/box', which will be made, may take 1 MiB") for text in texts)


def test_a_configuration_without_files_is_not_asked_for_any(tmp_path: Path) -> None:
    (tmp_path / "otelbridge.yaml").write_text(
        f"version: 1\ninputs: [{{pipe: {tmp_path}/trace}}]\ndestinations: {{c: {{endpoint: 'http://localhost:1'}}}}\n"
        f"outbox: {{folder: {tmp_path}/box}}\n"
    )
    done = call("doctor", "--config", tmp_path / "otelbridge.yaml", "--json", "--qemu", "/bin/true")
    assert {finding["about"] for finding in json.loads(done.out)["findings"]} == {
        "qemu", "endpoint", "outbox", "clock", "files",
    }  # fmt: skip


def test_a_configuration_with_problems_is_told_as_run_does_it(tmp_path: Path) -> None:
    (tmp_path / "otelbridge.yaml").write_text("version: 1\ninputs: 7\n")
    done = call("doctor", "--config", tmp_path / "otelbridge.yaml")
    assert done.code == 3
    assert "otelbridge.yaml:2:9: error:" in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("--qemu", "/nowhere/qemu"), "--qemu '/nowhere/qemu' is no program"), (("a", "b"), "unexpected"), (("--wat",), "--wat")],
)
def test_a_wrong_command_line_gives_2(arguments: tuple[str, ...], words: str) -> None:
    done = call("doctor", *arguments)
    assert done.code == 2
    assert words in done.err


def test_names_of_logs_cannot_touch_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "\x1b[2Jvm.log").write_text("nothing\n")
    done = call("doctor", tmp_path, "--qemu", "/bin/true")
    assert "\x1b" not in done.out
    assert "x1b[2Jvm.log" in done.out
