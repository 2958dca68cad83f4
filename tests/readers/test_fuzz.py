"""Whatever bytes come, a reader counts them or refuses them in its own words; and how they are cut does not matter.

200,000 inputs a reader, the same ones every time. More by hand, of all readers or one, from another seed:

    python -m tests.readers.test_fuzz --number 10000000 --reader simple --seed 7

What breaks is written to tests/corpus/readers/READER-SEED-NUMBER.bin; name it for what broke, mend the reader, keep the file.
"""

from __future__ import annotations

import argparse
import gzip
import os
import random
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from otelbridge.catalogue import builtin
from otelbridge.errors import FormatError
from otelbridge.readers import FORMATS
from otelbridge.readers.formats import Parts, Reader
from otelbridge.records import SECOND_NS, Batch, Plan

TESTS = Path(__file__).resolve().parents[1]
CORPUS = TESTS / "corpus" / "readers"
NUMBER = 200_000
SEED = 1
_JOB = 10_000

# One migration's first events as each backend writes them: a row, a sum, counted events, an event of no rule, foreign lines.
TEXTS = (
    "migrate_set_state new state setup", "savevm_state_setup ", "savevm_section_start ram, section_id 2",
    "ram_save_page pc.ram: offset: 0x0 host: 0x7fec8c400000", "migration_rate_limit_pre 100 ms",
    "savevm_section_end ram, section_id 2 -> 0", "migrate_error error=broken\tpipe", "no_such_event 1",
)  # fmt: skip
LINES = {
    "log": "19625@179540795{n}.84756{n}:{text}",
    "ftrace": "           <...>-2316{n}   [000] ...1.  2503.94057{n}: tracing_mark_write: {text}",
    "syslog": "2026-11-23T04:30:0{n}.397547+00:00 vm qemu-system-x86_64[23115]: {text}",
    "journald": '{{"SYSLOG_PID":"23115","__REALTIME_TIMESTAMP":"179540820684328{n}","MESSAGE":"{text}","_PID":"7"}}',
    "ust": '[04:30:0{n}.397507948] (+0.001254499) vm qemu:{name}: {{ c = 0 }}, {{ vpid = 2, vtid = 3 }}, {{ id = "x{n}" }}',
    "stap": "23115/2@17954082073975090{n}0 {text}",
}
OTHERS = {
    "log": "2026-11-23T04:25:51.000001Z qemu-system-x86_64: error\n2026-11-23T04:25:52Z savevm_state_setup \n",
    "ftrace": "# tracer: nop\nCPU:1 [LOST 12 EVENTS]\n  lttng-23316   [001] .....  2508.556853: sched_exit: comm=lttng\n",
    "syslog": "Nov 23 04:30:07 vm qemu-kvm[23115]: message repeated 3 times: [ savevm_state_setup]\n<30>1 - vm q 1 - -  x\n",
    "journald": '{"MESSAGE":[115,97],"__REALTIME_TIMESTAMP":"1"}\n__CURSOR=s=ac;i=2\n__REALTIME_TIMESTAMP=1795408206843289\n\n',
    "ust": '[warning] Tracer discarded 3 events\n[04:30:07.3] (+?.?) vm:q:(1) qemu:vmstate_load: { c = 1 }, { a = "a\\"" }\n',
    "stap": "Running script, <Ctrl>-c to quit\n7@1795408207397509000 otelbridge_sum ram_save_page count=12 offset=99\n",
}
PLAN = Plan(
    {"migrate_set_state": (), "savevm_state_setup": (), "savevm_section_start": (), "savevm_section_end": ()},
    {"migration_rate_limit_pre": ("ms",)},
)


def seeds() -> dict[str, list[bytes]]:
    """Small well-formed traces of each format, to be spoiled."""
    found = {}
    for word, form in LINES.items():
        lines = [form.format(n=n, text=text, name=text.split()[0]) for n, text in enumerate(TEXTS)]
        found[word] = ["\n".join(lines).encode() + b"\n", OTHERS[word].encode() + "\n".join(lines[:3]).encode() + b"\n"]
    found["simple"] = [_small_simple()]
    return found


def _small_simple() -> bytes:
    """The first records of a real trace, with the names that they use."""
    from tests.readers.simple_files import records_in  # noqa: PLC0415  # only for this format

    data = gzip.decompress((TESTS / "recordings/qemu-10.2.0-simple/multifd-tls/src.simple.gz").read_bytes())
    whole = list(records_in(data))
    events = [record for kind, _, record in whole if kind == 1][:14]
    numbers = {record[8:16] for record in events}
    return data[:24] + b"".join(r for kind, _, r in whole if kind == 0 and r[8:16] in numbers) + b"".join(events)


def spoiled(random_: random.Random, seed: bytes, others: list[bytes]) -> bytes:
    """A few changes of every kind."""
    data = seed
    for _ in range(random_.randint(1, 4)):
        at, how = random_.randrange(len(data) + 1), random_.randrange(8)
        head, tail = data[:at], data[at:]
        if how == 0:
            data = head + random_.randbytes(random_.randint(1, 9)) + tail
        elif how == 1:
            data = head + tail[random_.randint(1, 60) :]
        elif how == 2:
            data = head + random_.randbytes(1) + tail[1:]
        elif how == 3:
            data = head
        elif how == 4:
            data = head + head[-random_.randint(1, 90) :] + tail
        elif how == 5:
            data = head + random_.choice([b"\n", b"\0" * 5, b"\r\n", b"9" * 25, b"@", b'"', b"{", b"\xff" * 8, b"-"]) + tail
        elif how == 6:
            other = random_.choice(others)
            start = random_.randrange(len(other))
            data = head + other[start : start + random_.randint(1, 120)] + tail
        else:
            data = head + bytes([byte ^ (1 << random_.randrange(8)) for byte in tail[:4]]) + tail[4:]
        data = data or b"\n"
    return data


def new_reader(word: str) -> Reader:
    parts = Parts(
        PLAN, builtin().is_event, lambda _event, raw: (5,) if raw.startswith(b"1") else None,
        not_after_ns=1_795_410_000 * SECOND_NS, zone=UTC, assume_start_ns=SECOND_NS,
    )  # fmt: skip
    return FORMATS[word].reader(parts)


def account(batches: list[Batch], *, dropped: str = "dropped_by_qemu") -> tuple[int, int]:
    """Units that are in a bucket, and units that were read."""
    placed = sum(
        sum(row.unit for row in batch.rows)
        + sum(batch.counts.values())
        + sum(n for b, n in batch.units.items() if b != dropped)
        for batch in batches
    )
    return placed, sum(batch.total for batch in batches)


def outcome(word: str, data: bytes, cuts: Callable[[bytes], Iterator[bytes]]) -> Any:
    """All that came of it, whatever the batches: rows, counts, sums and buckets; or that it was refused."""
    reader = new_reader(word)
    batches: list[Batch] = []
    try:
        for block in cuts(data):
            batches += reader.feed(block)
        batches += reader.finish()
    except FormatError:
        return "refused"
    placed, total = account(batches)
    assert placed == total
    counts: dict[str, int] = {}
    for batch in batches:
        for name, number in (*batch.counts.items(), *batch.units.items()):
            counts[name] = counts.get(name, 0) + number
    return [row for batch in batches for row in batch.rows], {name: n for name, n in counts.items() if n}, total


def whole(data: bytes) -> Iterator[bytes]:
    yield data


def bytewise(data: bytes) -> Iterator[bytes]:
    return (data[i : i + 1] for i in range(len(data)))


def linewise(data: bytes) -> Iterator[bytes]:
    return iter(data.splitlines(keepends=True))


def job(word: str, seed: int, first: int, number: int) -> list[str]:
    """Try so many inputs; the names of the files of those that broke something."""
    good = seeds()
    others = [one for seeds_ in good.values() for one in seeds_]
    broken = []
    for place in range(first, first + number):
        random_ = random.Random(f"{word}-{seed}-{place}")  # noqa: S311  # nothing secret
        data = spoiled(random_, random_.choice(good[word]), others)
        try:
            found = outcome(word, data, whole)
            # Cutting costs many times as much, so not all are cut.
            if place % 100 == 0:
                assert outcome(word, data, bytewise) == found
        except Exception as error:  # noqa: BLE001  # whatever it is, it is what is looked for
            CORPUS.mkdir(parents=True, exist_ok=True)
            path = CORPUS / f"{word}-{seed}-{place}.bin"
            path.write_bytes(data)
            broken.append(f"{path.name}: {type(error).__name__}: {str(error)[:200]}")
            if len(broken) > 3:
                break
    return broken


def tried(words: list[str], seed: int, number: int) -> list[str]:
    """Try inputs of these readers, on all processors."""
    jobs = [(word, seed, first, min(_JOB, number - first)) for first in range(0, number, _JOB) for word in words]
    # What the parent traces for coverage would be traced here too, and take three times as long.
    with ProcessPoolExecutor(os.cpu_count(), initializer=sys.settrace, initargs=(None,)) as pool:
        return [broken for found in pool.map(job, *zip(*jobs, strict=True)) for broken in found]


def test_any_bytes_are_counted_or_refused() -> None:
    assert tried(list(FORMATS), SEED, NUMBER) == []


KEPT = [(path.stem.split("-")[0], path.read_bytes()) for path in sorted(CORPUS.glob("*.bin"))]
GOOD = [(word, seed) for word, seeds_ in seeds().items() for seed in seeds_]


@pytest.mark.parametrize(("word", "data"), [*GOOD, *KEPT])
def test_what_is_good_or_once_broke_a_reader_is_read_however_it_is_cut(word: str, data: bytes) -> None:
    found = outcome(word, data, whole)
    assert outcome(word, data, linewise) == found
    assert outcome(word, data, bytewise) == found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--number", type=int, default=NUMBER)
    parser.add_argument("--reader", choices=list(FORMATS), action="append")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    problems = tried(options.reader or list(FORMATS), options.seed, options.number)
    print("\n".join(problems) or "nothing broke")  # noqa: T201
    sys.exit(bool(problems))
