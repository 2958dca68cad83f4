"""The commands of the guides are taken from their text: those that can be run here are, and all can be given."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import click
import pytest
import yaml

from otelbridge.cli import cli
from otelbridge.service.config.parse import load_config
from otelbridge.stats import STATS

ROOT = Path(__file__).resolve().parent.parent
GUIDES = (ROOT / "deploy" / "README.md").read_text("utf-8")
FENCE = re.compile(r"^( *)```([a-z]+(?: [a-z]+)?)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
DOMAIN = "<domain type='kvm'><name>vms_web</name>{}</domain>"
NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
Need = Callable[[Path | str, str], None]


def blocks(language: str) -> list[str]:
    """The fenced blocks, without the indent of a list's item."""
    found = [(indent, text) for indent, word, text in FENCE.findall(GUIDES) if word == language]
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


def as_pattern(shown: str) -> str:
    """A line that is nothing but `…` stands for any lines that were left out."""
    lines = [re.escape(line) if line != "…" else r"(?:.*\n)*?.*" for line in shown.rstrip("\n").split("\n")]
    return "\n".join(lines)


@pytest.fixture
def folder(tmp_path: Path, recordings: Path) -> Path:
    """A folder with the logs of a migration, the source's rotated twice within a line, and with `otelbridge`."""
    recording = recordings / "debian-7.2" / "precopy-busy"
    log = (recording / "src.log").read_bytes()
    for name, begin, end in (("src.log.1", 0, 40_001), ("src.log.0", 40_001, 70_001), ("src.log", 70_001, len(log))):
        (tmp_path / name).write_bytes(log[begin:end])
        assert not log[:end].endswith(b"\n") or end == len(log)
    shutil.copy(recording / "dst.log", tmp_path)
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    program = tmp_path / "bin" / "otelbridge"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m otelbridge "$@"\n')
    program.chmod(0o755)
    return tmp_path


def run(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    env = {**kept, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("block", blocks("console"))
def test_a_session_that_is_shown_runs_so(block: str, folder: Path) -> None:
    command, _, shown = block.removeprefix("$ ").partition("\n")
    done = run(folder, command)
    assert re.fullmatch(as_pattern(shown), done.stdout.rstrip("\n")), done.stdout


@pytest.mark.parametrize("block", blocks("bash run"))
def test_commands_that_are_marked_so_run_as_they_stand_there(block: str, folder: Path, need: Need) -> None:
    for line in block.splitlines():
        if line.startswith("qemu-system-"):
            need(line.split()[0], "the guide runs it: apt-get install qemu-system-x86")
    done = run(folder, block)
    assert done.returncode == 0, done.stdout


def test_the_guide_for_plain_qemu_ends_in_a_migration(folder: Path, need: Need) -> None:
    """A real QEMU migrates, and its log is the picture of that migration."""
    need("qemu-system-x86_64", "it is the real thing: apt-get install qemu-system-x86")
    (block,) = [block for block in blocks("bash run") if "qemu-system-x86_64" in block]
    done = run(folder, block)
    assert "migration completed after " in done.stdout
    assert "savevm.section" in done.stdout or "migration.active" in done.stdout or "├─ active" in done.stdout


def test_the_guide_for_an_incident_puts_rotated_parts_together(folder: Path, recordings: Path) -> None:
    (block,) = [block for block in blocks("bash run") if "src.log*" in block]
    done = run(folder, block)
    assert done.returncode == 0
    assert "migration completed after 19 s, guest stopped for 93.9 ms" in done.stdout
    source, _ = json.loads((folder / "accounting.json").read_text())["inputs"]
    assert source["parts"] == ["src.log.1", "src.log.0", "src.log"]
    assert source["bytes"] == (recordings / "debian-7.2" / "precopy-busy" / "src.log").stat().st_size


def lines_of_ours() -> Iterator[str]:
    """Every command line of otelbridge's, whatever stands around it."""
    for block in [*blocks("bash"), *blocks("bash run")]:
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r" *[|;)]+ | > |  #|\)$", line):
                _, found, arguments = part.partition("otelbridge ")
                if found and not part.lstrip().startswith("-"):
                    yield arguments.strip()


@pytest.mark.parametrize("line", sorted(set(lines_of_ours())))
def test_a_command_that_is_named_can_be_given(line: str) -> None:
    """The options of every example exist."""
    name, *arguments = shlex.split(line)
    with cli.make_context("otelbridge", [name, *arguments]) as context:
        chosen = cli.get_command(context, name)
        assert chosen is not None, line
        inside = chosen.make_context(name, arguments, parent=context)
        if isinstance(chosen, click.Group):
            below, *rest = arguments
            command = chosen.get_command(inside, below)
            assert command is not None
            command.make_context(below, rest, parent=inside).close()
        inside.close()


def documents() -> list[object]:
    return [yaml.safe_load(block) for block in blocks("yaml")]


def test_a_configuration_that_is_shown_has_no_problems(tmp_path: Path) -> None:
    texts = [block for block in blocks("yaml") if block.startswith("version: 1\n")]
    assert texts
    for text in texts:
        (tmp_path / "otelbridge.yaml").write_text(text)
        assert load_config(tmp_path / "otelbridge.yaml", {}).inputs


def test_every_manifest_that_is_shown_is_yaml() -> None:
    kinds = [one.get("kind") for one in documents() if isinstance(one, dict)]
    assert {"ConfigMap", "Plugin"} <= set(kinds)


@pytest.mark.parametrize("own", ["", f"<q:commandline xmlns:q='{NAMESPACE}'><q:arg value='-s'/></q:commandline>"])
def test_the_hook_for_kubevirt_adds_the_events_to_a_domain(own: str, tmp_path: Path) -> None:
    """Whether the domain has arguments of its own for QEMU or not, and only once."""
    (script,) = [one["data"]["hook.sh"] for one in documents() if isinstance(one, dict) and one.get("kind") == "ConfigMap"]
    (tmp_path / "hook.sh").write_text(script)
    domain = DOMAIN.format(own.replace("q:", "qemu:").replace("xmlns:q=", "xmlns:qemu="))
    done = subprocess.run(
        ["sh", tmp_path / "hook.sh", "--vmi", "{}", "--domain", domain], check=True, capture_output=True, text=True
    )
    (arguments,) = ET.fromstring(done.stdout).findall(f"{{{NAMESPACE}}}commandline")  # noqa: S314  # our own text
    values = [each.get("value") for each in arguments]
    assert values.count("-trace") == 4
    assert "enable=migrat*" in values
    assert values.count("-s") == bool(own)


def test_every_link_leads_somewhere() -> None:
    """To a heading of the page, to a file or to a folder, and to every folder that there is beside it."""
    headings = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", GUIDES, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", GUIDES):
        path, _, heading = target.partition("#")
        if not path:
            assert heading in headings, target
        else:
            assert (ROOT / "deploy" / path).exists(), target
    rooms = {"helm/otelbridge", "image", "systemd", "collector", "compose", "grafana"}
    assert rooms <= set(re.findall(r"\]\(([^)]+)\)", GUIDES))


def test_every_counter_that_is_named_exists() -> None:
    known = {stat.name for stat in STATS}
    named = set(re.findall(r"`(otelbridge\.(?:reader|engine|outbox|export|service|telemetry)\.\w+)`", GUIDES))
    assert named
    assert named <= known
