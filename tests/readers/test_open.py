"""Inputs of every kind as bytes, and words for those that cannot be read."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from otelbridge.errors import UsageError
from otelbridge.readers.open import HEAD_BYTES, Input, open_input

TEXT = b"".join(b"%d@1795407950.%06d:ram_save_page pc.ram: offset: 0x%x\n" % (i % 97, i, i * i) for i in range(20_000))


def opened(path: Path, content: bytes, *, again: bool = False) -> Input:
    path.write_bytes(content)
    return open_input(str(path), again=again)


def content_of(one: Input) -> bytes:
    try:
        return b"".join(one.blocks())
    finally:
        one.close()


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress], ids=["plain", "gzip", "xz"])
@pytest.mark.parametrize("text", [b"", b"x", TEXT], ids=["empty", "one", "much"])
def test_an_input_is_read_as_it_was_before_it_was_packed(tmp_path: Path, pack: type[bytes], text: bytes) -> None:
    packed = pack(text)
    one = opened(tmp_path / "src.log", packed)
    assert one.size == len(packed)
    assert one.head == text[:HEAD_BYTES]
    assert content_of(one) == text
    assert one.gap == ""


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress], ids=["gzip", "xz"])
def test_members_one_after_another_are_one_content(tmp_path: Path, pack: type[bytes]) -> None:
    one = opened(tmp_path / "src.log", pack(TEXT) + pack(b"more\n"))
    assert content_of(one) == TEXT + b"more\n"
    assert one.gap == ""


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.999])
def test_a_cut_gzip_file_gives_all_that_is_in_it_and_says_so(tmp_path: Path, kept: float) -> None:
    packed = gzip.compress(TEXT)
    cut = packed[: int(len(packed) * kept)]
    one = opened(tmp_path / "src.log.gz", cut)
    found = content_of(one)
    assert found == zlib.decompressobj(wbits=31).decompress(cut)
    assert "cannot be read to its end" in one.gap


@pytest.mark.parametrize("kept", [0.5, 0.999])
def test_a_cut_xz_file_gives_all_that_is_in_it_and_says_so(tmp_path: Path, kept: float) -> None:
    packed = lzma.compress(TEXT)
    cut = packed[: int(len(packed) * kept)]
    one = opened(tmp_path / "src.log.xz", cut)
    assert content_of(one) == lzma.LZMADecompressor().decompress(cut)
    assert "cannot be read to its end" in one.gap


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress], ids=["gzip", "xz"])
def test_a_damaged_packed_file_ends_where_it_can_be_read_to(tmp_path: Path, pack: type[bytes]) -> None:
    packed = bytearray(pack(TEXT))
    middle = len(packed) // 2
    packed[middle : middle + 50] = b"\xff" * 50
    one = opened(tmp_path / "src.log", bytes(packed))
    content_of(one)
    assert "cannot be read to its end" in one.gap


def test_text_behind_a_gzip_file_is_a_gap_and_what_was_packed_is_kept(tmp_path: Path) -> None:
    one = opened(tmp_path / "src.log", gzip.compress(TEXT) + b"not packed\n")
    assert content_of(one) == TEXT
    assert "cannot be read to its end" in one.gap


@pytest.mark.parametrize(
    ("content", "packer"),
    [
        (b"\x28\xb5\x2f\xfd\x00\x58", "zstd"),
        (bz2.compress(b"x"), "bzip2"),
        (b"PK\x03\x04....", "zip"),
        (b"\x04\x22\x4d\x18....", "lz4"),
    ],
)
def test_a_packer_that_is_not_known_is_named(tmp_path: Path, content: bytes, packer: str) -> None:
    with pytest.raises(UsageError, match=rf"src\.log' is packed with {packer}; unpack it first"):
        opened(tmp_path / "src.log", content)


def test_the_position_goes_to_the_size_of_the_file(tmp_path: Path) -> None:
    one = opened(tmp_path / "src.log.gz", gzip.compress(TEXT))
    for _ in one.blocks():
        pass
    assert one.position == one.size
    one.close()


# --- what cannot be read ----------------------------------------------------------------------------


def test_a_missing_file_is_told_with_one_of_nearly_that_name(tmp_path: Path) -> None:
    (tmp_path / "source.log").write_bytes(b"")
    with pytest.raises(UsageError, match=r"'.*/sourc\.log' does not exist; did you mean '.*/source\.log'\?"):
        open_input(str(tmp_path / "sourc.log"))


@pytest.mark.parametrize("name", ["zzzzzzzzzz", "no/such/folder/x.log"])
def test_a_missing_file_without_a_like_is_told_alone(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"does not exist\. Nothing was read\.") as caught:
        open_input(str(tmp_path / name))
    assert "did you mean" not in str(caught.value)


def test_a_directory_is_told_as_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"'{tmp_path}' is a directory; .*{tmp_path}/\*\.log"):
        open_input(str(tmp_path))


def test_a_file_that_may_not_be_read_is_told() -> None:
    """Root may read everything, so it acts as somebody else, who cannot look into the folders of `tmp_path` either."""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).chmod(0)
        with as_nobody(), pytest.raises(UsageError, match="cannot be read: Permission denied"):
            open_input(file.name)


@contextmanager
def as_nobody() -> Iterator[None]:
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_file_whose_reading_fails_is_told() -> None:
    """The kernel opens /proc/self/mem, but has nothing at its beginning."""
    with pytest.raises(UsageError, match="'/proc/self/mem' cannot be read: Input/output error"):
        open_input("/proc/self/mem")


# --- pipes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_named_pipe_is_read_to_its_end(tmp_path: Path, pack: type[bytes]) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_bytes(pack(TEXT)))
    writer.start()
    one = open_input(str(path))
    assert one.size is None
    assert content_of(one) == TEXT
    writer.join()


def test_a_named_pipe_can_be_read_again_and_only_as_far_as_before_without_its_writer(tmp_path: Path) -> None:
    """The first reading ends after the head, as that of the format does; the second has all of it."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_bytes(TEXT))
    writer.start()
    first = open_input(str(path), again=True)
    assert TEXT.startswith(first.head)
    assert first.head
    first.close()
    assert content_of(open_input(str(path), again=True)) == TEXT
    assert content_of(open_input(str(path), again=True)) == TEXT
    writer.join()


def test_what_a_pipe_has_is_given_without_waiting_for_more(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read = threading.Event()

    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            pipe.write(b"first line, long enough for a magic number\n")
            assert read.wait(10)
            pipe.write(b"second\n")

    writer = threading.Thread(target=write)
    writer.start()
    one = open_input(str(path))
    blocks = one.blocks()
    assert next(blocks) == b"first line, long enough for a magic number\n"
    read.set()
    assert b"".join(blocks) == b"second\n"
    one.close()
    writer.join()


PROGRAM = """
import hashlib, sys
from otelbridge.readers.open import open_input
for again in {readings}:
    one = open_input("-", again=again)
    print(hashlib.sha256(b"".join(one.blocks())).hexdigest(), one.size)
    one.close()
"""


def from_stdin(readings: str, **stdin: object) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM.format(readings=readings)], capture_output=True, check=True, **stdin
    )  # type: ignore[call-overload]
    return str(done.stdout.decode()).splitlines()


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress], ids=["plain", "gzip", "xz"])
def test_standard_input_is_read_once_as_a_pipe(pack: type[bytes]) -> None:
    from hashlib import sha256  # noqa: PLC0415

    assert from_stdin("[False]", input=pack(TEXT)) == [f"{sha256(TEXT).hexdigest()} None"]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress], ids=["plain", "gzip", "xz"])
def test_standard_input_can_be_read_twice_if_that_was_said(pack: type[bytes]) -> None:
    from hashlib import sha256  # noqa: PLC0415

    assert from_stdin("[True, True]", input=pack(TEXT)) == [f"{sha256(TEXT).hexdigest()} None"] * 2


def test_a_closed_standard_input_is_told() -> None:
    program = "import sys; sys.stdin = None\nfrom otelbridge.readers.open import open_input\nopen_input('-')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert b"UsageError: standard input is closed" in done.stderr
