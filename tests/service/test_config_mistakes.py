"""What a person reads who made a mistake in the configuration file: where, what was found, what to do about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from otelbridge.errors import ConfigError, UsageError
from otelbridge.service.config.parse import load_config

HEAD = "version: 1\ninputs: [{files: /a.log}]\n"
ENV = {"HOME": "/home/someone"}


def _mistakes() -> dict[str, tuple[str, str]]:
    """The lines of `config_mistakes.txt` and what is said of each, by what is wrong."""
    _, *cases = Path(__file__).with_name("config_mistakes.txt").read_text("utf-8").split("\n=== ")
    parts = [(*case.partition("\n")[::2],) for case in cases]
    return {title: (rest.partition("==>\n")[0], rest.partition("==>\n")[2].rstrip("\n") + "\n") for title, rest in parts}


MISTAKES = _mistakes()


def said_of(text: str | bytes, monkeypatch: pytest.MonkeyPatch, folder: Path, env: dict[str, str] | None = None) -> str:
    monkeypatch.chdir(folder)
    path = Path("otelbridge.yaml")
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load_config(path, ENV if env is None else env)
    return str(caught.value)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_shown_where_it_is_with_what_to_do(
    mistake: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text, message = MISTAKES[mistake]
    count = message.count(": error: ")
    tail = f"\n{count} problem{'s' if count > 1 else ''} in otelbridge.yaml; nothing was loaded."
    said = said_of(text if text.startswith("version") else HEAD + text, monkeypatch, tmp_path)
    assert said.replace(str(tmp_path), "HERE") == message + tail


def test_an_empty_file_is_told_how_to_begin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert said_of("", monkeypatch, tmp_path) == (
        "otelbridge.yaml:1:1: error: the file is empty\n"
        "  help: a configuration begins with 'version: 1' and 'inputs:'\n\n"
        "1 problem in otelbridge.yaml; nothing was loaded."
    )


def test_a_file_that_is_no_text_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "otelbridge.yaml:3:1: error: the file is no UTF-8 text" in said_of(
        HEAD.encode() + b"log: \xff\n", monkeypatch, tmp_path
    )


def test_a_file_that_is_not_there_is_a_matter_of_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"The configuration '.*/none\.yaml' cannot be read: No such file or directory\."):
        load_config(tmp_path / "none.yaml", ENV)


def test_an_outbox_needs_a_folder_where_nobody_is_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = said_of(HEAD, monkeypatch, tmp_path, {})
    assert "otelbridge.yaml:1:1: error: the outbox has no folder" in said
    assert "help: write 'outbox: {folder: …}', or set STATE_DIRECTORY, XDG_STATE_HOME or HOME" in said


def test_a_variable_that_is_not_set_is_one_problem_and_no_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = said_of(HEAD + "destinations: {a: {endpoint: '${env:URL}', timeout: '${env:T}'}}\n", monkeypatch, tmp_path)
    assert said.count(": error: ") == 2
    assert said.count("is not set") == 2


@pytest.mark.parametrize("content", ["{", '{"realtime_ns": "now"}', None])
def test_a_clock_that_tells_no_time_is_refused(content: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "clock.json").write_text(content)
    said = said_of("version: 1\ninputs: [{files: /a, clock: clock.json}]\n", monkeypatch, tmp_path)
    assert "otelbridge.yaml:2:29: error: the clock file cannot be used" in said
    assert str(tmp_path / "clock.json") in said


@pytest.mark.parametrize(("name", "found"), [("ca", "certificates"), ("key", "unencrypted PEM key")])
def test_a_pem_file_that_is_none_is_refused_where_it_is_named(
    name: str, found: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "junk.pem").write_text("junk")
    files = {"ca": "{ca: junk.pem}", "key": "{cert: junk.pem, key: junk.pem}"}[name]
    said = said_of(f"{HEAD}destinations: {{a: {{endpoint: https://a, tls: {files}}}}}\n", monkeypatch, tmp_path)
    assert f"error: '{name}': found '{tmp_path}/junk.pem'" in said
    assert found in said


def test_what_is_wrong_with_opentelemetry_s_own_variables_is_said_too(tmp_path: Path) -> None:
    path = tmp_path / "otelbridge.yaml"
    path.write_text(HEAD)
    with pytest.raises(UsageError, match="OTEL_EXPORTER_OTLP_COMPRESSION: found 'zip', expected gzip or none"):
        load_config(path, ENV | {"OTEL_EXPORTER_OTLP_COMPRESSION": "zip"})
    with pytest.raises(UsageError, match="OTEL_RESOURCE_ATTRIBUTES has 'a'"):
        load_config(path, ENV | {"OTEL_RESOURCE_ATTRIBUTES": "a"})
