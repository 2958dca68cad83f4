"""The inputs, made from recordings: repeated with shifted times until they are as long as asked for.

Each copy begins a second after the one before ended, so it is one migration after the other of the same process.
"""

from __future__ import annotations

import gzip
import io
import itertools
import os
import re
import struct
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

BENCH = Path(__file__).resolve().parent
RECORDINGS = BENCH.parent / "recordings" / "debian-7.2"
PAGES = RECORDINGS / "precopy-busy-pages" / "src.log.gz"
BUSY = RECORDINGS / "precopy-busy" / "src.log"
POSTCOPY = BENCH / "recorded" / "postcopy-dst.log.gz"
SIMPLE = BENCH / "recorded" / "pages-src.simple.gz"
CTF = BENCH / "recorded" / "busy-ctf.tar.gz"
SIMPLE_OFFSET_NS = 1_795_405_703_481_433_342
"""Realtime minus monotonic clock of the host on which `SIMPLE` was recorded."""
SPAN_SHARE = 0.04
_BUSY_SPANS = 240
"""Spans that the shipped mappings deliver of `BUSY`."""
_CTF_EVENTS = 2376

_GAP_NS = 1_000_000_000
# 25412@1795407965.358555:ram_save_page …      2026-11-23T04:29:37.419353Z ram_save_page … (not repeated)
_STAMP = re.compile(rb"^(\d+@)(\d+)\.(\d{6})(?=:)", re.MULTILINE)
_EVENT = re.compile(rb"^(?:\d+@\d+\.\d{6}:|[\d-]+T[\d:.]+Z )([a-z_]\w*)", re.MULTILINE)
_CTF_OFFSET = re.compile(rb"(?<=\toffset = )\d{19}(?=;)")
_CTF_ID = re.compile(rb'\tuuid = "([0-9a-f-]{36})";')


class Input(NamedTuple):
    """A file or folder to read.

    Attributes:
        units: How many lines or records are in it; what they are called in `unit`.
        event: What `grep -c` looks for: the event that comes most often.
    """

    name: str
    path: Path
    units: int
    unit: str
    event: str


def page_heavy(lines: int) -> Input:
    """A log with a line for every page; 2.4 % of its lines are other ones."""
    return _text("page-heavy", lines, "ram_save_page", content(PAGES))


def given(path: Path) -> Input:
    """A log of somebody's own, as it is.

    Raises:
        SystemExit: It cannot be read, or there is no event in its first MiB.
    """
    wanted = "--input takes a log as QEMU's log backend writes it, not packed."
    try:
        with path.open("rb") as file:
            often = Counter(_EVENT.findall(file.read(1 << 20))).most_common(1)
            file.seek(0)
            units = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    except OSError as error:
        raise SystemExit(f"'{path}' cannot be read: {error.strerror}; {wanted}") from None
    if not often:
        raise SystemExit(f"There is no stamped event in the first MiB of '{path}'; {wanted}")
    return Input(path.name, path, units, "lines", often[0][0].decode())


def span_rich(lines: int) -> Input:
    """Sections, syncs and vmstate of a busy log with as many pages between that 4 % of the lines become spans."""
    return _text("span-rich", lines, "ram_save_page", _with_pages(content(BUSY), content(PAGES)))


def postcopy(lines: int) -> Input:
    """Faults, requests and pages placed, on the destination's side."""
    return _text("postcopy", lines, "ram_load_loop", content(POSTCOPY))


def simple(records: int) -> Input:
    """A page-heavy trace of the binary backend."""
    names, events = simple_parts(content(SIMPLE))
    copies = max(1, round(records / len(events)))
    path = _kept(f"simple-{copies}", lambda path: _write_simple(path, names, events, copies))
    return Input("simple", path, copies * len(events), "records", "ram_save_page")


def ctf(events: int) -> Input:
    """A folder with many small CTF traces, as LTTng's rotation leaves them."""
    copies = max(1, events // _CTF_EVENTS)
    path = _kept(f"ctf-{copies}", lambda path: _write_ctf(path, copies))
    return Input("ctf", path, copies * _CTF_EVENTS, "events", "ram_save_page")


def content(path: Path) -> bytes:
    """The bytes of a recording, unpacked."""
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


# --- text -------------------------------------------------------------------------------------------


def _text(name: str, lines: int, event: str, recorded: bytes) -> Input:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            file.writelines(repeated(recorded, lines))

    return Input(name, _kept(f"{name}-{lines}.log", write), lines, "lines", event)


def repeated(recorded: bytes, lines: int) -> Iterator[bytes]:
    """So many lines of a recorded log that begins again and again."""
    times_us = [int(found[2]) * 1_000_000 + int(found[3]) for found in _STAMP.finditer(recorded)]
    length_us = max(times_us) - min(times_us) + _GAP_NS // 1000
    left = lines
    for copy in itertools.count():
        if left <= 0:
            return
        part = _shifted(recorded, copy * length_us).splitlines(keepends=True)[:left]
        yield b"".join(part)
        left -= len(part)


def _shifted(data: bytes, shift_us: int) -> bytes:
    def stamp(found: re.Match[bytes]) -> bytes:
        seconds, microseconds = divmod(int(found[2]) * 1_000_000 + int(found[3]) + shift_us, 1_000_000)
        return b"%b%d.%06d" % (found[1], seconds, microseconds)

    return _STAMP.sub(stamp, data)


def _with_pages(busy: bytes, paged: bytes) -> bytes:
    """The lines of one log, each followed by pages of the other with its stamp."""
    lines = busy.splitlines()
    pages = itertools.cycle([line.split(b":", 1)[1] for line in paged.splitlines() if b":ram_save_page " in line])
    wanted = round(_BUSY_SPANS / SPAN_SHARE) - len(lines)
    mixed: list[bytes] = []
    for number, line in enumerate(lines, 1):
        mixed.append(line)
        stamp = line.split(b":", 1)[0]
        more = wanted * number // len(lines) - wanted * (number - 1) // len(lines)
        mixed += [stamp + b":" + next(pages) for _ in range(more)]
    return b"\n".join(mixed) + b"\n"


# --- binary -----------------------------------------------------------------------------------------


def simple_parts(data: bytes) -> tuple[bytes, list[bytes]]:
    """Header and names of a trace of the simple backend, and its events one by one."""
    names, events = ([record for kind, record in _simple_records(data) if kind == wanted] for wanted in (0, 1))
    return data[:24] + b"".join(names), events


def _simple_records(data: bytes) -> Iterator[tuple[int, bytes]]:
    place = 24
    while place < len(data):
        (kind,) = struct.unpack_from("<Q", data, place)
        at, more = (24, 8) if kind else (16, 20)
        size = more + struct.unpack_from("<I", data, place + at)[0]
        yield kind, data[place : place + size]
        place += size


def _write_simple(path: Path, names: bytes, events: list[bytes], copies: int) -> None:
    times_ns = [struct.unpack_from("<Q", event, 16)[0] for event in events]
    length_ns = max(times_ns) - min(times_ns) + _GAP_NS
    with path.open("wb") as file:
        file.write(names)
        for copy in range(copies):
            file.writelines(
                event[:16] + struct.pack("<Q", time_ns + copy * length_ns) + event[24:]
                for event, time_ns in zip(events, times_ns, strict=True)
            )


def _write_ctf(path: Path, copies: int) -> None:
    """Copies of a CTF trace, each with another offset of its clock in its metadata, and another id: one trace has one clock."""
    with tarfile.open(fileobj=io.BytesIO(CTF.read_bytes())) as archive:
        for copy in range(copies):
            folder = path / f"{copy:05}"
            archive.extractall(folder, filter="data")
            text = (folder / "metadata").read_bytes()
            old = UUID(_CTF_ID.findall(text)[0].decode())
            new = UUID(int=old.int ^ copy)
            text = text.replace(str(old).encode(), str(new).encode())
            offset_ns = int(_CTF_OFFSET.findall(text)[0]) + copy * 60 * _GAP_NS
            text = _CTF_OFFSET.sub(b"%d" % offset_ns, text)
            (folder / "metadata").write_bytes(text)
            for stream in folder.glob("ch*"):
                stream.write_bytes(stream.read_bytes().replace(old.bytes, new.bytes))


# --- keeping ----------------------------------------------------------------------------------------


def _kept(name: str, write: Callable[[Path], None]) -> Path:
    """What was made once stays in the folder for temporary files for the next time."""
    folder = Path(tempfile.gettempdir()) / f"otelbridge-bench-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{_made_by()}-{name}"
    if not path.exists():
        part = folder / f"{path.name}.{os.getpid()}"
        write(part)
        part.replace(path)
    return path


def _made_by() -> str:
    """Something else when the recordings or this module have changed."""
    made_of = (Path(__file__), PAGES, BUSY, POSTCOPY, SIMPLE, CTF)
    return f"{sum(file.stat().st_mtime_ns + file.stat().st_size for file in made_of) & 0xFFFFFFFF:08x}"
