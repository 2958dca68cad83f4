"""`otelbridge mapping list`, `schema` and `events`: what they print is what is in the files, and what QEMU takes."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from otelbridge.catalogue import builtin
from otelbridge.catalogue.hot import hot_events
from otelbridge.mapping import compile_mappings, shipped_files
from otelbridge.mapping.rules import SpanRule
from otelbridge.mapping.schema import schema
from otelbridge.mapping.uses import uses_of
from tests.convert.command import call

MAPPING = compile_mappings(shipped_files(), builtin())
MINE = """\
version: 1
scope: my.scope
spans:
  my.span:
    begin: savevm_section_start
    end: savevm_section_end
    key: [section_id]
metrics:
  my.pages: {counter: ram_save_page, unit: "{page}"}
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(MINE)
    return path


# --- list -------------------------------------------------------------------------------------------------


def test_every_rule_has_a_line(mine: Path) -> None:
    done = call("mapping", "list", "--mapping", mine)
    assert (done.code, done.err) == (0, "")
    lines = [line.split(maxsplit=3) for line in done.out.splitlines()]
    spans = {rule.id for rule in MAPPING.spans} | {"my.span"}
    metrics = {rule.metric.name for rule in MAPPING.metrics} | {"my.pages"}
    assert {line[1] for line in lines if line[0] == "span"} == spans
    assert {line[1] for line in lines if line[0] == "metric"} == metrics
    assert {line[1] for line in lines if line[0] == "machine"} == {"migration"}
    assert len(lines) == len(spans) + len(metrics) + 1


def test_a_line_says_what_the_rule_makes_and_where_it_stands(mine: Path) -> None:
    found = {tuple(line.split(maxsplit=3)) for line in call("mapping", "list", "--mapping", mine).out.splitlines()}
    assert ("span", "my.span", str(mine), "span my.span") in found
    assert ("metric", "my.pages", str(mine), "counter my.pages") in found
    made = "span tls.handshake, histogram qemu.migration.tls.handshake.duration"
    assert ("span", "tls.handshake.multifd", "tls.yaml", made) in found


def test_a_wrong_mapping_is_told_with_its_place(mine: Path) -> None:
    mine.write_text(MINE.replace("section_end", "section_ned"))
    for command in (["list"], ["events"], ["coverage"]):
        done = call("mapping", *command, "--mapping", mine)
        assert (done.code, done.out) == (3, "")
        assert f"{mine}:6:" in done.err
        assert "did you mean 'savevm_section_end'?" in done.err


# --- schema -----------------------------------------------------------------------------------------------


def test_the_schema_is_printed_as_json() -> None:
    done = call("mapping", "schema")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out) == schema()


# --- events -----------------------------------------------------------------------------------------------


def events(*arguments: str | Path) -> list[str]:
    done = call("mapping", "events", *arguments)
    assert done.code == 0, done.err
    return done.out.splitlines()


def test_all_are_those_that_rules_name() -> None:
    assert events("--cost", "all") == sorted(uses_of(MAPPING))


def test_the_low_cost_is_without_what_comes_for_every_page_field_or_packet(mine: Path) -> None:
    done = call("mapping", "events", "--mapping", mine)
    low = set(done.out.split())
    left_out = set(events("--cost", "all", "--mapping", mine)) - low
    assert "ram_save_page" in left_out
    assert "migration_transferred_bytes" not in low
    assert {hot_events()[event].kind for event in left_out} <= {"page", "field", "packet"}
    assert not {event for event in low if event in hot_events() and hot_events()[event].kind != "turn"}
    assert done.err == f"note: {len(left_out)} events for every page, field or packet left out; --cost all has them.\n"


@pytest.mark.parametrize("rule", MAPPING.spans, ids=lambda rule: rule.id)
def test_the_low_cost_has_both_halves_of_a_span_or_none(rule: SpanRule) -> None:
    low = set(events())
    if not rule.until_next:
        assert bool(low & rule.begins.keys()) == bool(low & rule.ends.keys())


@pytest.mark.parametrize("version", ["3.1", "4.1", "7.2", "10.2"])
def test_a_version_gets_only_events_that_it_has(version: str, shared: Path) -> None:
    """Told by QEMU's own files."""
    release = version + ".0"
    declared = set(
        re.findall(r"^(?:disable )?(\w+)\(", (shared / f"catalogs/{release}.trace-events").read_text("utf-8"), re.MULTILINE)
    )
    found = set(events("--qemu-version", version, "--cost", "all"))
    assert found == uses_of(MAPPING).keys() & declared


def test_a_catalogue_has_the_last_word(tmp_path: Path) -> None:
    path = tmp_path / "trace-events-all"
    path.write_text('migrate_set_state(const char *new_state) "new state %s"\n')
    assert events("--catalogue", path) == ["migrate_set_state"]


def test_qemu_takes_a_file_of_names() -> None:
    assert all(re.fullmatch(r"[a-z_0-9]+", line) for line in events("--format", "events-file"))


def test_qmp_takes_a_command_a_line() -> None:
    commands = [json.loads(line) for line in events("--format", "qmp")]
    assert [command["arguments"]["name"] for command in commands] == events()
    assert all(command["execute"] == "trace-event-set-state" for command in commands)
    assert all(command["arguments"].keys() == {"name", "enable", "ignore-unavailable"} for command in commands)
    assert all(command["arguments"]["enable"] is True for command in commands)


def test_libvirt_takes_arguments_in_its_name_space() -> None:
    root = ET.fromstring("\n".join(events("--format", "libvirt")))  # noqa: S314  # our own text
    space = "{http://libvirt.org/schemas/domain/qemu/1.0}"
    assert root.tag == f"{space}commandline"
    values = [arg.attrib["value"] for arg in root.findall(f"{space}arg")]
    assert values[::2] == ["-trace"] * len(events())
    assert values[1::2] == [f"enable={event}" for event in events()]


def test_the_human_monitor_takes_a_command_a_line() -> None:
    assert events("--format", "hmp") == [f"trace-event {event} on" for event in events()]


def test_virsh_gives_the_human_monitors_commands_to_a_running_domain() -> None:
    words = [shlex.split(line) for line in events("--format", "virsh")]
    assert words == [["virsh", "qemu-monitor-command", "--hmp", "$DOMAIN", f"trace-event {event} on"] for event in events()]
