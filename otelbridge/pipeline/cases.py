"""The `tests:` of mapping files, run through the real reader and engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from otelbridge.catalogue import Catalogue, TextDecoder
from otelbridge.engine import Engine, Stream
from otelbridge.engine.ids import stream_key
from otelbridge.errors import FormatError
from otelbridge.mapping import Mapping, MappingTest
from otelbridge.mapping.cases import differences
from otelbridge.readers import LogReader


class CaseResult(NamedTuple):
    """What came of one test of a mapping file; `differences` is empty if it is as expected."""

    test: MappingTest
    differences: tuple[str, ...]


def run_mapping_tests(mapping: Mapping, catalogue: Catalogue, paths: Sequence[str]) -> list[CaseResult]:
    """Run the `tests:` of these files, through the real reader and engine with all rules."""
    return [CaseResult(test, tuple(_tested(mapping, catalogue, test))) for test in mapping.tests if test.path in paths]


def _tested(mapping: Mapping, catalogue: Catalogue, test: MappingTest) -> list[str]:
    decoder = TextDecoder(catalogue, mapping.plan.rows, test.qemu_version)
    sums = TextDecoder(catalogue, mapping.plan.sums, test.qemu_version)
    reader = LogReader(mapping.plan, catalogue.is_event, sums.decode)
    engine = Engine(
        mapping, Stream(stream_key(test.name), test.role), decoder.decode, lambda: decoder.version_range, decoder.saw
    )
    text = test.events if test.events.endswith("\n") else test.events + "\n"
    try:
        for batch in (*reader.feed(text.encode("utf-8", "surrogateescape")), *reader.finish()):
            engine.feed(batch)
    except FormatError as error:
        return [str(error)]
    engine.settle()
    open_spans = engine.open
    engine.finish()
    wrong = [
        f"{engine.accounting.buckets[bucket]} lines are {bucket}"
        for bucket in ("malformed", "torn")
        if engine.accounting.buckets[bucket]
    ]
    return wrong + differences(test, engine.take_spans(), _scope_of(mapping, test.path), engine.take_points(), open_spans)


def _scope_of(mapping: Mapping, path: str) -> str:
    scopes = [rule.scope.name for rule in mapping.spans if rule.path == path]
    scopes += [rule.scope.name for rule in mapping.machines if rule.path == path]
    scopes += [rule.metric.scope.name for rule in mapping.metrics if rule.path == path]
    return scopes[0] if scopes else ""
