"""The commented example has every option, each with the sentence that explains it, and tells the defaults as they are."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from otelbridge.service.config import ServiceConfig, keys
from otelbridge.service.config.parse import load_config
from tests.otlp.test_tls import Authority

EXAMPLE = Path(__file__).resolve().parents[2] / "deploy" / "otelbridge.yaml"
# `    #idle_timeout: 10m` is an option, `    # After so long …` is not.
OPTION = re.compile(r"( *)#(?=\S)(.*)")
FOR_EXAMPLE = "# for example"


def all_lines() -> list[str]:
    """The example with its options switched on."""
    return [OPTION.sub(r"\1\2", line) for line in EXAMPLE.read_text("utf-8").splitlines()]


def defaults() -> list[int]:
    """The lines that show a default."""
    lines = EXAMPLE.read_text("utf-8").splitlines()
    return [
        number for number, line in enumerate(lines)
        if OPTION.fullmatch(line) and FOR_EXAMPLE not in line and re.search(r": *\S", line)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all the files that the example names."""
    folder = tmp_path_factory.mktemp("example")
    Authority.make(folder, "ca")
    certificate, key = Authority.make(folder, "own").issue("client", "localhost")
    certificate.rename(folder / "client.pem")
    key.rename(folder / "client.key")
    (folder / "clock.json").write_text('{"realtime_ns": 1795408314740585660, "monotonic_ns": 2611259152318}')
    (folder / "token").write_text("hunter2\n")
    (folder / "trace-events-all").touch()
    return folder


def loaded(lines: list[str], folder: Path) -> ServiceConfig:
    path = folder / "otelbridge.yaml"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return load_config(path, {"HOME": "/home/someone", "CREDENTIALS_DIRECTORY": str(folder), "NODE_NAME": "node-1"})


def test_the_example_is_good_as_it_is() -> None:
    found = load_config(EXAMPLE, {"STATE_DIRECTORY": "/var/lib/otelbridge"})
    assert [one.name for one in found.destinations] == ["collector"]


def test_every_option_of_every_table_is_in_the_example(folder: Path) -> None:
    found = loaded(all_lines(), folder)
    assert dict(found.destinations[1].endpoints["traces"].headers)["authorization"] == "hunter2"
    document = yaml.safe_load("\n".join(all_lines()))
    assert set(document) == set(keys.FILE)
    assert {name for one in document["inputs"] for name in one} == set(keys.INPUT)
    assert {name for one in document["destinations"].values() for name in one} == set(keys.DESTINATION)
    tempo = document["destinations"]["tempo"]
    assert set(tempo["tls"]) == set(keys.TLS)
    assert set(tempo["headers"]["authorization"]) == set(keys.HEADER)
    for name in set(keys.SECTIONS) - {"", "inputs", "destinations", "headers", "tls"}:
        assert set(document[name]) == set(keys.SECTIONS[name]), name


def test_every_option_is_explained_by_its_own_sentence() -> None:
    comments = re.findall(r"^ *# (.*)$", EXAMPLE.read_text("utf-8"), re.MULTILINE)
    prose = " ".join(comments)
    for section in keys.SECTIONS.values():
        for name, key in section.items():
            if section is not keys.HEADER:
                assert key.text in prose, name


@pytest.mark.parametrize("number", defaults())
def test_what_the_example_shows_as_a_default_is_the_default(number: int, folder: Path) -> None:
    lines = all_lines()
    with_it = loaded(lines, folder)
    without = loaded(lines[:number] + lines[number + 1 :], folder)
    assert replace(with_it, source=None) == replace(without, source=None), lines[number]


def test_each_default_that_has_a_word_is_shown() -> None:
    shown = {all_lines()[number].strip().partition(":")[0] for number in defaults()}
    assert shown == {
        "exclude", "format", "from", "attributes", "idle_timeout", "mappings", "signals", "compression", "timeout",
        "limit", "rejected_limit", "streams", "interval", "address", "level", "grace",
    }  # fmt: skip
