"""The engine's short ways give what the plain one gives, which an engine goes that somebody watches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otelbridge.catalogue import TextDecoder, builtin
from otelbridge.engine import Engine, LinkIndex, Stream
from otelbridge.engine.ids import stream_key
from otelbridge.engine.observed import ObservedEngine
from otelbridge.engine.short import MAX_ENDINGS
from otelbridge.engine.tally import Tally
from otelbridge.mapping import Mapping
from tests.engine.builders import batches, events, pieces, rules, shipped, text_of, threadless


def both(mapping: Mapping, data: bytes, stream: Stream, cut: int = 1 << 16) -> tuple[object, object]:
    """All that comes of a log, on the short way and on the plain one."""
    return _all_of(mapping, data, stream, cut, watched=False), _all_of(mapping, data, stream, cut, watched=True)


def _all_of(mapping: Mapping, data: bytes, stream: Stream, cut: int, *, watched: bool) -> object:
    decoder, index = TextDecoder(builtin(), mapping.plan.rows), LinkIndex()
    more = (stream, decoder.decode, lambda: decoder.version_range, decoder.saw, None, index)
    engine = ObservedEngine(Tally(), mapping, *more) if watched else Engine(mapping, *more)
    spans, points, snapshots = [], [], []
    for batch in batches(mapping, pieces(data, cut)):
        engine.feed(batch)
        spans += engine.take_spans()
        points += engine.take_points()
        snapshots.append(engine.snapshot())
    engine.finish()
    spans += engine.take_spans()
    points += engine.take_points()
    # The type too: 1 is True, but not in OTLP.
    types = [[type(value) for _, value in span.attributes] for span in spans]
    return spans, types, points, snapshots, engine.accounting.snapshot(), index.offered, index.asked


STREAMS = (
    Stream(stream_key("plain")),
    Stream(stream_key("marked"), "source", "estimated", 1000, 4_000_000),
)


@given(events(), st.sampled_from(STREAMS), st.booleans(), st.sampled_from([50, 1 << 16]))
def test_any_stream_gives_the_same_on_the_short_ways(log: str, stream: Stream, has_threads: bool, cut: int) -> None:
    short, plain = both(shipped(), text_of(log if has_threads else threadless(log)), stream, cut)
    assert short == plain


MAPPING = """
machines:
  migration: {event: migrate_set_state, state: new_state, start: {source: [setup]}, final: {completed: unset}}
spans:
  section:
    inside: migration
    begin: savevm_section_start
    end: {savevm_section_end: {error: {when: ret < 0, type: "{ret}", message: "{id} {ret}"}}}
    key: [thread, section_id]
    attributes: {id: section_id, result: end.ret}
    duration: {histogram: section.duration, by: [result]}
  sent:
    inside: section
    begin: savevm_section_start
    until: next
  wait:
    inside: migration
    begin: migration_rate_limit_pre
    end: migration_rate_limit_post
    key: [thread]
    attributes: {urgent: end.urgent}
    keep: {slowest: 3, per: migration}
    duration: {histogram: wait.duration}
"""


@given(st.lists(st.tuples(st.integers(1, 2), st.integers(-1, 2), st.sampled_from([0, 0, 0, 5, 700_000])), max_size=60))
def test_spans_that_repeat_each_other_are_the_same_on_the_short_ways(steps: list[tuple[int, int, int]]) -> None:
    lines, now_us = ["1@10.000000:migrate_set_state new state setup"], 10_000_001
    for thread, result, step_us in steps:
        for text in (
            f"savevm_section_start ram, section_id {abs(result)}",
            f"migration_rate_limit_pre {thread} ms",
            f"migration_rate_limit_post urgent: {abs(result)}",
            f"savevm_section_end ram, section_id {abs(result)} -> {result}",
        ):
            now_us += step_us + 1
            lines.append(f"{thread}@{now_us // 1_000_000}.{now_us % 1_000_000:06}:{text}")
    lines.append(f"1@{now_us // 1_000_000 + 1}.000000:migrate_set_state new state completed")
    short, plain = both(rules(MAPPING), text_of("\n".join(lines)), STREAMS[1])
    assert short == plain


def test_spans_that_never_repeat_each_other_are_the_same_too() -> None:
    """More different endings than are remembered."""
    lines = ["1@10.000000:migrate_set_state new state setup"]
    for n in range(MAX_ENDINGS * 2 + 10):
        lines.append(f"1@{11 + n // 1000}.{n % 1000:03}000:savevm_section_start ram, section_id {n}")
        lines.append(f"1@{11 + n // 1000}.{n % 1000:03}500:savevm_section_end ram, section_id {n} -> {n % 7}")
    lines.append("1@20.000000:migrate_set_state new state completed")
    short, plain = both(rules(MAPPING), text_of("\n".join(lines)), STREAMS[0])
    assert short == plain
