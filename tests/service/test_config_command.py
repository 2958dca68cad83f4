"""`otelbridge run --check`: what is wrong, or what the configuration comes to."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from otelbridge.errors import UsageError
from otelbridge.service.config import InputConfig
from otelbridge.service.config.arguments import config_of_arguments

GOOD = "version: 1\ninputs: [{files: a.log}]\ndestinations: {a: {endpoint: 'http://h', headers: {k: hunter2}}}\n"


def run(command: list[str], *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return subprocess.run(
        [*command, "run", *arguments], capture_output=True, text=True, check=False, env=inherited | env, timeout=60
    )


def test_a_good_file_is_printed_with_its_defaults(otelbridge_command: list[str], tmp_path: Path) -> None:
    path = tmp_path / "otelbridge.yaml"
    path.write_text(GOOD)
    done = run(otelbridge_command, "--config", str(path), "--check", STATE_DIRECTORY="/s")
    assert (done.returncode, done.stderr) == (0, "")
    assert "outbox: {folder: /s, limit: 256MiB, rejected_limit: 16MiB}" in done.stdout
    assert f"- files: [{tmp_path}/a.log]" in done.stdout
    assert "hunter2" not in done.stdout


def test_problems_are_all_listed_with_an_exit_code_of_their_own(otelbridge_command: list[str], tmp_path: Path) -> None:
    path = tmp_path / "otelbridge.yaml"
    path.write_text(GOOD + "logg: {}\nlimits: {streams: x}\n")
    done = run(otelbridge_command, "--config", str(path), "--check")
    assert (done.returncode, done.stdout) == (3, "")
    assert f"{path}:4:1: error: the file has no key 'logg'" in done.stderr
    assert f"{path}:5:19: error: 'x' is no whole number" in done.stderr
    assert f"2 problems in {path}; nothing was loaded." in done.stderr


def test_a_mapping_with_problems_is_found_too(otelbridge_command: list[str], tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("version: 1\nscope: s\nspanz: {}\n")
    path = tmp_path / "otelbridge.yaml"
    path.write_text(GOOD + "mappings: my.yaml\n")
    done = run(otelbridge_command, "--config", str(path), "--check")
    assert (done.returncode, done.stdout) == (3, "")
    assert f"{tmp_path}/my.yaml:3:1: error: " in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "There is nothing to follow; name log files, or a configuration with --config otelbridge.yaml."),
        (["--config", "/none.yaml"], "The configuration '/none.yaml' cannot be read: No such file or directory."),
        (
            ["--config", "/none.yaml", "a.log"],
            "'a.log' and --config do not go together; write it into 'inputs' of '/none.yaml'.",
        ),
        (["-"], "Standard input cannot be followed; `otelbridge convert -` reads it, or name a pipe (mkfifo)."),
    ],
)
def test_a_wrong_command_line_says_what_to_do(otelbridge_command: list[str], arguments: list[str], message: str) -> None:
    done = run(otelbridge_command, "--check", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"otelbridge: {message}\n")


def test_files_alone_are_followed_where_the_environment_says(otelbridge_command: list[str], tmp_path: Path) -> None:
    done = run(
        otelbridge_command, "--check", str(tmp_path / "*.log"),
        OTEL_EXPORTER_OTLP_ENDPOINT="http://collector:4318", OTEL_SERVICE_NAME="vms", HOME="/h",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert f"- files: [{tmp_path}/*.log]" in done.stdout
    assert "url: http://collector:4318/v1/traces" in done.stdout
    assert "resource: {service.name: vms}" in done.stdout


def test_files_that_exist_are_no_patterns_and_pipes_are_pipes(tmp_path: Path) -> None:
    log, pipe = tmp_path / "vm[1].log", tmp_path / "trace"
    log.touch()
    os.mkfifo(pipe)
    found = config_of_arguments([str(log), str(pipe), str(log), f"{tmp_path}/[ab].log"], {"HOME": "/h"})
    assert found.inputs == (
        InputConfig("files", (f"{tmp_path}/vm[[]1].log", f"{tmp_path}/[ab].log")),
        InputConfig("pipe", (str(pipe),)),
    )


def test_a_folder_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"'{tmp_path}' is a folder; name the files in it, for example '{tmp_path}/\*\.log'"):
        config_of_arguments([str(tmp_path)], {"HOME": "/h"})
