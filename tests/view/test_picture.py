from __future__ import annotations

from otelbridge.view.picture import MAX_TRACES, Downtime, Picture
from tests.view.builders import DST, SRC, root, section, source_spans, span, state, trace_id, transferred_points


def only_downtime(picture: Picture) -> Downtime:
    return picture.migrations[0].downtimes[0]


def filled_by(downtime: Downtime) -> set[str]:
    return {str(kept.attributes.get("qemu.migration.section", kept.span.name)) for kept in downtime.fills}


def test_what_lies_in_the_downtime_is_found_and_what_only_overlaps_is_not() -> None:
    picture = Picture()
    picture.spans(SRC, source_spans())
    downtime = only_downtime(picture)
    assert filled_by(downtime) == {"ram", "0000:00:03.0/vfio-gpu", "0000:00:04.0/virtio-net"}
    assert downtime.uncovered_ns() == 116_000_000  # 10 ms before the first section, 106 ms after the last


def test_the_downtime_is_filled_alike_in_whatever_order_the_spans_come() -> None:
    forward, backward = Picture(), Picture()
    forward.spans(SRC, source_spans())
    backward.spans(SRC, source_spans()[::-1])
    assert only_downtime(forward).fills == only_downtime(backward).fills


def test_the_longest_part_of_a_downtime_is_found_behind_thousands_of_short_spans() -> None:
    picture = Picture()
    picture.spans(SRC, [section(1_000, 3_000, "gpu", 41)])
    picture.spans(SRC, [section(3_000 + n / 100, 3_000.005 + n / 100, "ram") for n in range(10_000)])
    picture.spans(SRC, [span("migration.downtime", 1_000, 3_200), root(4_000)])
    assert "gpu" in filled_by(only_downtime(picture))
    assert only_downtime(picture).uncovered_ns() is None


def test_memory_stays_bounded_for_one_migration_of_200000_spans() -> None:
    picture = Picture()
    downtime = span("migration.downtime", 0, 300_000)
    most = 0
    for start in range(0, 200_000, 1_000):
        picture.spans(SRC, [downtime] if start == 100_000 else [])
        batch = [span(f"own.{n % 300}", n, n + 1, {"qemu.migration.state": "x" * 10_000}) for n in range(start, start + 250)]
        batch += [section(n, n + 1, f"device {n}") for n in range(start, start + 250)]
        batch += [span("ram.bitmap_sync", n, n + 1, error="bad") for n in range(start, start + 250)]
        batch += [state("active", n, n + 1) for n in range(start, start + 250)]
        picture.spans(SRC, batch)
        most = max(most, picture.held)
    picture.spans(SRC, [root(300_000)])
    migration = picture.migrations[0]
    assert most < 4_000
    assert migration.spans == 200_002
    assert migration.error_count == 50_000
    assert migration.tallies["ram.bitmap_sync"].count == 50_000
    assert sum(tally.count for tally in migration.sections.values()) == 50_000
    assert len(migration.sections) + len(migration.tallies) < 700


def test_the_text_of_one_attribute_is_bounded_too() -> None:
    picture = Picture()
    picture.spans(SRC, [section(0, 1, "x" * 1_000_000, error="y" * 1_000_000), root(2)])
    (kept,) = picture.migrations[0].errors
    assert len(str(kept.attributes["qemu.migration.section"])) + len(kept.span.message) < 2_000


def test_memory_stays_bounded_for_thousands_of_migrations_and_all_are_counted() -> None:
    picture = Picture()
    for trace in range(1, 2_001):
        spans = [section(n, n + 1, f"device {n}", trace=trace) for n in range(98)]
        picture.spans(SRC, [*spans, span("migration.downtime", 10, 90, trace=trace), root(100, trace=trace)])
    assert picture.held < 40_000
    assert len(picture.migrations) + picture.migrations_beyond == 2_000
    assert sum(migration.spans for migration in picture.migrations) + picture.spans_beyond == 200_000


def test_a_failed_migration_keeps_its_details_among_many_that_went_well() -> None:
    picture = Picture()
    for trace in range(1, 60):
        failed = "no room" if trace == 3 else None
        picture.spans(SRC, [section(0, 50, "ram", trace=trace), root(100, trace=trace, error=failed)])
    detailed = {migration.trace_id for migration in picture.migrations if migration.details is not None}
    assert trace_id(3) in detailed
    assert len(detailed) <= 20


def test_spans_outside_any_migration_never_push_one_out() -> None:
    picture = Picture()
    picture.spans(SRC, [section(0, 50, "ram"), root(100)])
    picture.spans(SRC, [span("tls.handshake", n, n + 1, trace=n, parent=b"") for n in range(2, 5_002)])
    picture.spans(SRC, [root(100, trace=9_000)])
    assert [migration.trace_id for migration in picture.migrations] == [trace_id(1), trace_id(9_000)]
    assert picture.alone == {"tls.handshake": 5_000}
    assert picture.held < 2_000 + 10 * MAX_TRACES


def test_both_hosts_of_a_trace_are_one_migration_with_the_source_first() -> None:
    picture = Picture()
    picture.spans(DST, [root(90, "destination", start_ms=5)])
    picture.spans(SRC, [root(100)])
    (migration,) = picture.migrations
    assert [migration.sides[n].file for n in migration.ordered_sides()] == ["src.log", "dst.log"]


def test_everything_handed_in_is_delivered() -> None:
    picture = Picture()
    picture.spans(SRC, source_spans())
    picture.points(SRC, transferred_points(1_000))
    outcomes = picture.close()
    assert (outcomes["traces"].delivered, outcomes["metrics"].delivered) == (len(source_spans()), 4)
