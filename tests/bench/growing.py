"""Work of any size along one axis: lines, files, rules, open spans. Each gives what a conversion is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.bench.inputs import BUSY, PAGES, content, repeated


class Work(NamedTuple):
    """What a conversion is asked for: files, and where they are not of QEMU's own events, what declares and maps them."""

    files: tuple[str, ...]
    catalogue: Path | None = None
    mappings: tuple[Path, ...] = ()

    @property
    def arguments(self) -> list[str]:
        """The same for the command."""
        more = [] if self.catalogue is None else ["--catalogue", str(self.catalogue)]
        return [*self.files, *more, *(word for path in self.mappings for word in ("--mapping", str(path)))]


_BEGIN_US = 1_795_407_965_000_000
_STEP_US = 1_000
_RULE_LINES = 20_000


def lines(folder: Path, size: int) -> Work:
    """A page-heavy log of so many lines."""
    log = folder / "pages.log"
    with log.open("wb") as file:
        file.writelines(repeated(content(PAGES), size))
    return Work((str(log),))


def files(folder: Path, size: int) -> Work:
    """So many busy logs, each of another machine and another hour."""
    paths = [folder / f"vm{number:04}.log" for number in range(size)]
    recorded = content(BUSY)
    for number, path in enumerate(paths):
        path.write_bytes(recorded.replace(b"@1795407", b"@%d" % (1_795_407 + 4 * number)))
    return Work(tuple(map(str, paths)))


def rules(folder: Path, size: int, number: int = _RULE_LINES) -> Work:
    """So many rules for spans, and a log with always the same number of lines that are spread over them."""
    return _of_own(folder, size, ((line // 2 % size, line // 2, line % 2 == 0) for line in range(number)))


def open_spans(folder: Path, size: int, number: int = 200_000) -> Work:
    """A log with always the same number of lines, of which so many spans are open at once."""
    return _of_own(folder, 1, ((0, key, is_begin) for key, is_begin in _deep(size, number // 2)))


def _deep(size: int, spans: int) -> Iterator[tuple[int, bool]]:
    """So many are begun; then one ends, the oldest, for each that begins; the last end in their order."""
    for key in range(spans + size):
        if key < spans:
            yield key, True
        if key >= size:
            yield key - size, False


def _of_own(folder: Path, size: int, steps: Iterator[tuple[int, int, bool]]) -> Work:
    """A catalogue and a mapping with so many rules, and a log with these steps: rule, key, and whether it begins."""
    catalogue, mapping, log = folder / "trace-events", folder / "rules.yaml", folder / "own.log"
    declared = [f'{word}_{rule}(uint64_t id) "id %"PRIu64' for rule in range(size) for word in ("bench_begin", "bench_end")]
    catalogue.write_text("\n".join(declared) + "\n")
    written = [
        f"  bench.span_{rule}: {{begin: bench_begin_{rule}, end: bench_end_{rule}, key: [id], attributes: {{bench.id: id}}}}"
        for rule in range(size)
    ]
    mapping.write_text("\n".join(("version: 1", "scope: bench", "spans:", *written)) + "\n")
    with log.open("w") as file:
        for place, (rule, key, is_begin) in enumerate(steps):
            seconds, micros = divmod(_BEGIN_US + place * _STEP_US, 1_000_000)
            file.write(f"25412@{seconds}.{micros:06}:bench_{'begin' if is_begin else 'end'}_{rule} id {key}\n")
    return Work((str(log),), catalogue, (mapping,))
