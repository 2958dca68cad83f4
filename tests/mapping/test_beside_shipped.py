"""A user's mapping beside the shipped ones: it adds rules, replaces them and disables them."""

from __future__ import annotations

from pathlib import Path

import pytest

from otelbridge.catalogue import builtin
from otelbridge.catalogue.catalogue import catalogue_from
from otelbridge.errors import MappingError
from otelbridge.mapping import File, Mapping, compile_mappings, load_with_shipped, shipped_files
from otelbridge.records import Value
from tests.engine.builders import parents, run

HEAD = "version: 1\nscope: my.scope\n"
MIGRATION = """\
    1@10.000000:migrate_set_state new state active
    1@10.100000:savevm_section_start ram, section_id 2
    1@10.200000:vmstate_save_state_top cpu
    1@10.300000:savevm_section_end ram, section_id 2 -> 1
    1@11.000000:migrate_set_state new state completed
"""


def beside(text: str, *more: str) -> Mapping:
    """The shipped mappings and these."""
    own = [File(f"my{n}.yaml", HEAD + part) for n, part in enumerate((text, *more))]
    return compile_mappings([*own, *shipped_files()], builtin())


def said_of(text: str, *more: str) -> str:
    with pytest.raises(MappingError) as caught:
        beside(text, *more)
    return str(caught.value)


def ids(mapping: Mapping) -> set[str]:
    metrics = {rule.metric.name for rule in mapping.metrics}
    return {rule.id for rule in mapping.spans} | {rule.id for rule in mapping.machines} | metrics


def test_a_rule_of_ones_own_is_added_and_nothing_else_changes() -> None:
    added = beside("spans:\n  my.save:\n    begin: savevm_section_start\n    end: savevm_section_end\n    inside: migration\n")
    assert ids(added) == ids(beside("")) | {"my.save"}
    assert parents(run(added, MIGRATION).spans)["my.save"] == "migration"


def test_a_rule_with_a_shipped_name_takes_the_shipped_ones_place() -> None:
    """What is inside it finds the user's; what the shipped one fed is not fed."""
    text = (
        "spans:\n  savevm.section:\n    name: my.section\n    begin: savevm_section_start\n    end: savevm_section_end\n"
        "metrics:\n  qemu.migration.transferred: {gauge: migrate_transferred, set: bandwidth, unit: By}\n"
    )
    replaced = beside(text)
    assert ids(replaced) == ids(beside(""))
    seen = run(replaced, MIGRATION)
    assert seen.named("savevm.section") == []
    assert dict(seen.only("my.section").attributes).keys() == {"qemu.event.begin", "qemu.event.end"}
    assert not [point for point in seen.points if point.metric.name == "qemu.migration.section.duration"]
    (transferred,) = [rule.metric for rule in replaced.metrics if rule.metric.name == "qemu.migration.transferred"]
    assert (transferred.kind, transferred.scope.name) == ("gauge", "my.scope")


@pytest.mark.parametrize("name", ["savevm.section", "vmstate.load", "multifd.send", "qemu.migration.remaining"])
def test_a_disabled_rule_is_gone_and_the_rest_is_as_it_was(name: str) -> None:
    """`multifd.send` is what `multifd.recv` links to, and others are inside `savevm.section`."""
    assert ids(beside(f"disable: [{name}]\n")) == ids(beside("")) - {name}


def test_events_of_a_disabled_rule_are_counted_and_no_more() -> None:
    seen = run(beside("disable: [savevm.section]\n"), MIGRATION)
    assert [span for span in seen.spans if span.name == "savevm.section"] == []
    assert seen.accounting.events["savevm_section_start"] == 1


def test_what_is_inside_a_disabled_rule_is_inside_the_next_that_is_named() -> None:
    inner = "spans:\n  inner:\n    begin: savevm_section_start\n    end: savevm_section_end\n    inside: [outer, migration]\n"
    outer = "spans:\n  outer:\n    begin: migrate_set_state\n    until: next\n    inside: migration\n"
    assert parents(run(beside(inner, outer), MIGRATION).spans)["inner"] == "outer"
    assert parents(run(beside(inner, outer, "disable: [outer]\n"), MIGRATION).spans)["inner"] == "migration"


def test_what_is_inside_a_disabled_rule_alone_is_in_the_migration() -> None:
    inner = "spans:\n  inner:\n    begin: vmstate_save_state_top\n    until: next\n    inside: savevm.section\n"
    assert parents(run(beside(inner), MIGRATION).spans)["inner"] == "savevm.section"
    assert parents(run(beside(inner, "disable: [savevm.section]\n"), MIGRATION).spans)["inner"] == "migration"


def test_what_keeps_its_slowest_per_a_rule_needs_it() -> None:
    message = said_of("disable:\n  - migration\n")
    assert "my0.yaml:4:5: error: 'migration' cannot be disabled, because 'postcopy.fault' keeps its slowest" in message
    assert "help: disable 'postcopy.fault' too, or put a rule of your own in its place" in message
    assert all(line.startswith("my0.yaml:4:5:") for line in message.splitlines() if ": error: " in line)


def test_without_what_needs_it_even_the_migration_can_be_disabled() -> None:
    keepers = [rule.id for rule in beside("").spans if rule.keep]
    without = beside(f"disable: [migration, {', '.join(keepers)}]\n")
    assert without.machines == ()
    seen = run(without, MIGRATION)
    assert [(span.name, span.parent_id) for span in seen.spans if span.name == "savevm.section"] == [("savevm.section", b"")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "disable: [savevm.sectoin]\n",
            """\
my0.yaml:3:11: error: there is no rule 'savevm.sectoin' to disable
  3 |  disable: [savevm.sectoin]
    |            ^^^^^^^^^^^^^^
  help: did you mean 'savevm.section'?""",
        ),
        (
            "disable: [zzz]\n",
            """\
my0.yaml:3:11: error: there is no rule 'zzz' to disable
  3 |  disable: [zzz]
    |            ^^^
  help: an id is what a rule stands under in 'spans', 'machines' or 'metrics'""",
        ),
        (
            "disable: [qemu.migration.section.duration]\n",
            """\
my0.yaml:3:11: error: 'qemu.migration.section.duration' is the metric of another rule
  3 |  disable: [qemu.migration.section.duration]
    |            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  help: disable or replace that rule""",
        ),
        (
            "disable: savevm.section\n",
            """\
my0.yaml:3:10: error: 'disable' is a list, but 'savevm.section' stands here
  3 |  disable: savevm.section
    |           ^^^^^^^^^^^^^^
  help: write '- …' lines or [a, b]""",
        ),
        (
            "disable: [mine]\nmetrics: {mine: {counter: savevm_section_start, unit: '1'}}\n",
            """\
my0.yaml:3:11: error: 'mine' is defined in this file, in line 4
  3 |  disable: [mine]
    |            ^^^^
  help: remove one of the two""",
        ),
        (
            "disable: [{savevm.section: no}]\n",
            """\
my0.yaml:3:11: error: the id of a rule is expected here, but a table of keys stands here""",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_disabled_is_told_with_its_place(text: str, message: str) -> None:
    assert said_of(text).startswith(message)


def test_a_folder_of_files_is_read_as_one(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"{HEAD}disable: [vmstate.load]\n")
    (tmp_path / "b.yaml").write_text(f"{HEAD}metrics:\n  my.starts: {{counter: savevm_section_start, unit: '1'}}\n")
    assert ids(load_with_shipped([tmp_path], builtin())) == ids(beside("")) - {"vmstate.load"} | {"my.starts"}


# --- other parts of QEMU ----------------------------------------------------------------------------------

OTHERS = r"""
# See docs/devel/tracing.rst for syntax documentation.

# virtio.c
virtio_set_status(void *vdev, uint8_t val) "vdev %p val %u"
# channel-tls.c
qio_channel_tls_handshake_start(void *ioc) "TLS handshake start ioc=%p"
qio_channel_tls_handshake_complete(void *ioc) "TLS handshake complete ioc=%p"
# migration.c
vfio_save_block(const char *name, int data_size) " (%s) data_size %d"
"""
DEVICES = """\
spans:
  qio.tls:
    inside: migration
    begin: qio_channel_tls_handshake_start
    end: qio_channel_tls_handshake_complete
    key: [thread, ioc]
metrics:
  virtio.status: {counter: virtio_set_status, when: val > 0, unit: "1", attributes: {virtio.value: val}}
  vfio.saved: {counter: vfio_save_block, add: data_size, unit: By, attributes: {vfio.device: name}}
"""
LINES = """\
    1@10.000000:migrate_set_state new state active
    1@10.100000:qio_channel_tls_handshake_start TLS handshake start ioc=0x5580fd898f90
    1@10.150000:virtio_set_status vdev 0x7f9aa5c15520 val 0
    1@10.160000:virtio_set_status vdev 0x7f9aa5c15520 val 7
    1@10.200000:qio_channel_tls_handshake_complete TLS handshake complete ioc=0x5580fd898f90
    1@10.300000:vfio_save_block  (0000:3b:00.1) data_size 4096
    1@11.000000:migrate_set_state new state completed
"""


def test_events_of_other_parts_of_qemu_make_spans_and_metrics_with_their_catalogue() -> None:
    catalogue, _ = catalogue_from(OTHERS, "trace-events-all")
    mapping = compile_mappings([File("my.yaml", HEAD + DEVICES), *shipped_files()], catalogue)
    seen = run(mapping, LINES, catalogue=catalogue)
    span = seen.only("qio.tls")
    assert (span.end_ns - span.start_ns, parents(seen.spans)["qio.tls"]) == (100_000_000, "migration")
    value: Value = 7
    assert seen.last("virtio.status", virtio__value=value).value == 1
    assert seen.last("vfio.saved", vfio__device="0000:3b:00.1").value == 4096
    assert seen.buckets().get("malformed", 0) == 0


def test_without_their_catalogue_it_is_told_where_their_arguments_are_to_be_had() -> None:
    message = said_of(DEVICES)
    assert "the arguments of the event 'virtio_set_status' are not built in" in message
    assert "help: give that QEMU's trace-events-all with --catalogue" in message
