"""Every unit of the input is in exactly one bucket, every span in exactly one number."""

from __future__ import annotations

import gzip

import pytest

from tests.engine.builders import RECORDINGS, lines, run, shipped

ALL = """
machines:
  m: {event: migrate_set_state, state: new_state, start: {source: [setup]}, final: {completed: unset}}
spans:
  whole:
    begin: {migrate_set_state: {when: new_state == "setup"}}
    end: {migrate_set_state: {when: new_state == "completed"}}
    events: {migrate_set_state: }
  section:
    begin: savevm_section_start
    end: savevm_section_end
    key: [section_id]
    events: {savevm_section_skip: }
metrics:
  states: {counter: migrate_set_state, unit: x, attributes: {state: new_state}}
  skips: {counter: savevm_section_skip, unit: x, when: section_id > 5}
  throttles: {counter: migration_throttle, unit: x}
"""


@pytest.mark.parametrize(
    ("events", "bucket"),
    [
        (["migrate_set_state new state setup"], "begin"),  # and it opens a machine, and a metric counts it
        (["migrate_set_state new state setup", "migrate_set_state new state completed"], "end"),
        (["migrate_set_state new state setup", "migrate_set_state new state active"], "state"),  # and is an event of `whole`
        (["savevm_section_start s, section_id 7", "savevm_section_skip s, section_id 7"], "span_event"),
        (["savevm_section_skip s, section_id 7"], "metric"),
        (["savevm_section_skip s, section_id 3"], "counted"),
        (["migrate_set_state new state active"], "metric"),
        (["migration_throttle "], "counted"),
        (["migrate_fd_cancel "], "unmapped"),
        (["savevm_section_end s, section_id 7 -> 0"], "orphan_end"),
        (["savevm_section_end s, section_id seven -> 0"], "malformed"),
        (["an_event_of_qemu_12 x 1"], "unmapped"),
    ],
)
def test_an_event_that_feeds_several_rules_counts_under_the_first_of_the_order(events: list[str], bucket: str) -> None:
    whole = run(ALL, lines(*((10 + n / 10, 1, event) for n, event in enumerate(events))))
    before = run(ALL, lines(*((10 + n / 10, 1, event) for n, event in enumerate(events[:-1])))) if events[1:] else None
    counted = dict(whole.accounting.buckets)
    for name, number in (before.accounting.buckets if before else {}).items():
        counted[name] -= number
    assert {name: number for name, number in counted.items() if number} == {bucket: 1}


def test_a_line_that_is_no_event_and_one_without_its_end_are_counted_as_that() -> None:
    data = b"char device redirected to /dev/pts/3\n1@10.000000:migration_throttle \n\n1@10.100000:migration_thr"
    assert run(ALL, data).buckets() == {"not_trace": 2, "counted": 1, "torn": 1}


def _recordings() -> list[str]:
    return sorted(str(path.relative_to(RECORDINGS)) for path in RECORDINGS.glob("*/*/*.log*"))


@pytest.mark.parametrize("name", _recordings())
def test_the_buckets_of_a_real_stream_add_up_to_its_lines(name: str) -> None:
    path = RECORDINGS / name
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    seen = run(shipped(), _stamped(data))
    account = seen.accounting
    assert sum(account.buckets.values()) == account.total == data.count(b"\n") + (not data.endswith(b"\n"))
    assert account.finished == len(seen.spans) + account.not_kept
    assert account.incomplete >= sum(1 for s in seen.spans if ("otelbridge.incomplete", True) in s.attributes)
    assert sum(account.events.values()) == account.total - account.buckets["not_trace"] - account.buckets["torn"]


def _stamped(data: bytes) -> bytes:
    """Recordings without stamps get one for all lines: nothing here depends on the time."""
    first = data.split(b"\n", 1)[0]
    if b"@" in first or first[:4].isdigit():
        return data
    return b"".join(b"1@10.000000:" + line + b"\n" for line in data.splitlines())


def test_the_first_and_the_last_time_are_those_of_the_events() -> None:
    log = lines((10.5, 1, "savevm_section_start s, section_id 7"), (12.25, 1, "savevm_section_end s, section_id 7 -> 0"))
    account = run(ALL, log).accounting
    assert (account.first_ns, account.last_ns) == (10_500_000_000, 12_250_000_000)


def test_an_event_that_stands_late_in_the_file_has_its_own_time() -> None:
    """Another thread's line may stand some milliseconds too late; the pairs are made in the order of time."""
    log = lines(
        (10.5, 1, "savevm_section_start s, section_id 7"),
        (10.62, 2, "savevm_section_end s, section_id 7 -> 0"),
        (10.61, 1, "savevm_section_skip s, section_id 7"),
    )
    seen = run(ALL, log)
    assert [e.time_ns for e in seen.only("section").events] == [10_610_000_000]
