"""What the outbox keeps of mappings, and what becomes of it where it is of no use."""

from __future__ import annotations

import logging
import zlib

import pytest

from otelbridge.catalogue import builtin
from otelbridge.mapping import File, compile_mappings
from otelbridge.pipeline.options import ConvertOptions, told_of
from otelbridge.service.rule_files import kinds_before, packed
from otelbridge.service.streams import Kind

SECTION = "{begin: savevm_section_start, end: savevm_section_end, key: [section_id]}"
NOW = [File("my.yaml", f"version: 1\nscope: my\nspans:\n  my.now: {SECTION}\n")]
BEFORE = [File("my.yaml", f"version: 1\nscope: my\nspans:\n  my.before: {SECTION}\n")]
BROKEN = [File("my.yaml", "version: 1\nscope: my\nspans:\n  my.before: {begin: no_such_event, end: savevm_section_end}\n")]


def kinds() -> list[Kind]:
    told = told_of(ConvertOptions(()), [])
    return [Kind(told, compile_mappings(NOW, builtin()))] * 2


def test_the_rules_of_before_are_those_that_were_kept() -> None:
    found = kinds_before(kinds(), NOW, packed(BEFORE))
    assert [[rule.id for rule in kind.mapping.spans] for kind in found] == [["my.before"]] * 2


@pytest.mark.parametrize("kept", [None, packed(NOW)], ids=["nothing", "the same"])
def test_where_nothing_has_changed_the_kinds_stay_what_they_are(kept: bytes | None) -> None:
    now = kinds()
    assert kinds_before(now, NOW, kept) is now


@pytest.mark.parametrize(
    "kept", [b"", b"no zlib", zlib.compress(b"no JSON"), zlib.compress(b"[[1, 2, 3, 4]]"), zlib.compress(b"5"), packed(BROKEN)]
)
def test_what_cannot_be_used_is_told_and_the_present_rules_are_taken(kept: bytes, caplog: pytest.LogCaptureFixture) -> None:
    now = kinds()
    with caplog.at_level(logging.WARNING):
        assert kinds_before(now, NOW, kept) is now
    (record,) = caplog.records
    assert "may be missing or come twice" in record.getMessage()
    assert "\n" not in record.getMessage()
