"""What `otelbridge mapping test` says where a mapping does something else than its tests expect."""

from __future__ import annotations

import pytest

from otelbridge.catalogue import builtin
from otelbridge.mapping import File, compile_mappings, shipped_files
from otelbridge.pipeline.cases import run_mapping_tests

RULES = """\
version: 1
scope: my.scope
spans:
  my.span:
    begin: savevm_section_start
    end: {savevm_section_end: {error: {when: ret < 0, type: section, message: "returned {ret}"}}}
    key: [section_id]
    attributes: {my.section: id}
    duration: {histogram: my.duration, by: [my.section]}
metrics:
  my.skipped: {counter: savevm_section_skip, unit: "1"}
tests:
  - name: one test
    events: |
      1@10.000100:savevm_section_start ram, section_id 2
      1@10.000350:savevm_section_end ram, section_id 2 -> 1
      1@10.000400:savevm_section_skip vga, section_id 3
"""
TEXT = "250000 ns, qemu.event.begin=savevm_section_start, qemu.event.end=savevm_section_end, my.section=ram"


WITH_EVENT = RULES.replace(
    "    duration:", "    events: {savevm_section_skip: {attributes: {my.skipped: id}}}\n    duration:"
).replace(
    "  - name: one test\n    events: |\n",
    "  - name: one test\n    events: |\n"
    "      1@10.000010:savevm_section_start ram, section_id 3\n"
    "      1@10.000020:savevm_section_skip vga, section_id 3\n"
    "      1@10.000030:savevm_section_end ram, section_id 3 -> 0\n",
)


def differences(*expect: str, rules: str = RULES) -> tuple[str, ...]:
    text = rules + "    expect:\n" + "".join(f"      {line}\n" for line in expect)
    mapping = compile_mappings([File("my.yaml", text), *shipped_files()], builtin())
    (result,) = run_mapping_tests(mapping, builtin(), ["my.yaml"])
    return result.differences


@pytest.mark.parametrize(
    "expect",
    [
        "spans: [{name: my.span, duration: 250us, status: unset, kind: internal, parent: '', incomplete: false, events: []}]",
        "spans: [{name: my.span, duration: 0.25ms, attributes: {my.section: ram}}]",
        "open: 0",
        "metrics: [{name: my.skipped, value: 1}, {name: my.duration, count: 1, attributes: {my.section: ram}}]",
        "metrics: [{name: my.skipped}]",
    ],
)
def test_what_comes_as_expected_is_no_difference(expect: str) -> None:
    assert differences(expect) == ()


@pytest.mark.parametrize(
    ("expect", "difference"),
    [
        ("spans: []", f"a span 'my.span' came that is not expected ({TEXT})"),
        ("spans: [{name: my.span}, {name: my.span}]", "no span 'my.span' came; there are none at all"),
        ("spans: [{name: my.span, duration: 1s}]", "span 'my.span': duration should be 1000000000 ns, but is 250000 ns"),
        ("spans: [{name: my.span, status: error}]", "span 'my.span': status should be 'error', but is 'unset'"),
        ("spans: [{name: my.span, message: no}]", "span 'my.span': message should be 'no', but is ''"),
        ("spans: [{name: my.span, parent: migration}]", "span 'my.span': parent should be 'migration', but is ''"),
        ("spans: [{name: my.span, incomplete: true}]", "span 'my.span': incomplete should be True, but is False"),
        (
            "spans: [{name: my.span, attributes: {my.section: vga}}]",
            "span 'my.span': the attribute 'my.section' should be 'vga', but is 'ram'",
        ),
        (
            "spans: [{name: my.span, attributes: {error.type: x}}]",
            "span 'my.span': the attribute 'error.type' should be 'x', but is not there",
        ),
        ("open: 2", "2 spans should be open after the last line, but 0 are"),
        ("metrics: [{name: my.skipped, value: 2}]", "the value of 'my.skipped' should be 2, but is 1"),
        ("metrics: [{name: my.duration, count: 2}]", "the count of 'my.duration' should be 2, but is 1"),
        (
            "metrics: [{name: my.skipped, count: 1}]",
            "the metric 'my.skipped' is a sum, which has no 'count'; compare its 'value'",
        ),
        (
            "metrics: [{name: my.duration, value: 1}]",
            "the metric 'my.duration' is a histogram, which has no 'value'; compare its 'count'",
        ),
        (
            "metrics: [{name: my.duration, attributes: {my.section: vga}}]",
            "no point of 'my.duration' with my.section=vga came; there are only: my.section=ram",
        ),
        (
            "metrics: [{name: my.skipped, attributes: {my.section: vga}}]",
            "no point of 'my.skipped' with my.section=vga came; there are only: no attributes",
        ),
    ],
)
def test_every_difference_is_a_sentence(expect: str, difference: str) -> None:
    assert differences(expect) == (difference,)


def test_a_metric_that_never_came_is_looked_for_among_those_that_did() -> None:
    (difference,) = differences("metrics: [{name: my.other, value: 2}]")
    assert difference.startswith("no point of 'my.other' came; there are only: my.duration, my.skipped, qemu.")


def test_of_spans_of_one_name_the_most_similar_is_compared() -> None:
    lines = "savevm_section_start vga, section_id 9", "savevm_section_end vga, section_id 9 -> -5"
    rules = RULES + "".join(f"      1@10.000{500 + 100 * place}:{line}\n" for place, line in enumerate(lines))
    assert differences(
        "spans:",
        "  - {name: my.span, status: error, message: returned -5, duration: 100us}",
        "  - {name: my.span, duration: 1us, attributes: {my.section: ram}}",
        rules=rules,
    ) == ("span 'my.span': duration should be 1000 ns, but is 250000 ns",)


def test_a_line_that_no_declaration_fits_fails_the_test() -> None:
    rules = RULES.replace("section_id 2 -> 1", "number 2 -> 1")
    assert "1 lines are malformed" in differences("open: 1", rules=rules)


def of_the_event(event: str) -> tuple[str, ...]:
    return differences(f"spans: [{{name: my.span, events: [{event}]}}, {{name: my.span, events: []}}]", rules=WITH_EVENT)


@pytest.mark.parametrize(
    "event",
    ["savevm_section_skip", "{name: savevm_section_skip}", "{name: savevm_section_skip, attributes: {my.skipped: vga}}"],
)
def test_a_span_event_is_compared_by_its_name_and_the_attributes_that_are_named(event: str) -> None:
    assert of_the_event(event) == ()


@pytest.mark.parametrize(
    ("attributes", "difference"),
    [
        ("my.skipped: ram", "the attribute 'my.skipped' should be 'ram', but is 'vga'"),
        ("my.other: vga", "the attribute 'my.other' should be 'vga', but is not there"),
    ],
)
def test_an_attribute_of_a_span_event_that_differs_is_told(attributes: str, difference: str) -> None:
    (found,) = of_the_event(f"{{name: savevm_section_skip, attributes: {{{attributes}}}}}")
    assert found == f"span 'my.span': of the event 'savevm_section_skip' {difference}"
